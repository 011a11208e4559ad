"""Networks of angles and heights: functions on a circle have its period."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks import MLP


class AngleFeatures(nn.Module):
    r"""A network of :math:`\cos\theta` and :math:`\sin\theta` in the place of angles: of period :math:`2\pi`.

    Args:
        inputs: How many angles.
        outputs: How many numbers.
        hidden, context: As of :class:`hepops.flows.MLP`.

    Example:
        >>> network = hepops.flows.AngleFeatures(2, 3)
        >>> x = torch.tensor([[0.5, -torch.pi]])
        >>> torch.allclose(network(x), network(x + 2 * torch.pi), atol=1e-5)
        True
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64), context: int = 0) -> None:
        super().__init__()
        self.network = MLP(2 * inputs, outputs, hidden, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(torch.cat([x.cos(), x.sin()], -1), context)


class Conditioner(nn.Module):
    """Raw parameters of a bijection from features and context: constants where there are neither.

    A layer begins at `identity`: the last weights are 0 and the last biases are these.
    """

    def __init__(self, features: int, identity: Tensor, hidden: Sequence[int], context: int) -> None:
        super().__init__()
        self.network = MLP(features, len(identity), hidden, context) if features + context else None
        if self.network is None:
            self.constant = nn.Parameter(identity.clone())
            return
        with torch.no_grad():
            self.network.last.weight.zero_()
            self.network.last.bias.copy_(identity)

    def forward(self, features: Tensor, context: Tensor | None) -> Tensor:
        if self.network is None:
            return self.constant.expand(*features.shape[:-1], -1)
        return self.network(features, context)
