"""Networks that give the parameters of a bijection."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with an activation between: (..., inputs) and context (..., context) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64), context: int = 0) -> None:
        super().__init__()
        widths = [inputs + context, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            x = torch.cat([x, context.expand(*x.shape[:-1], context.shape[-1])], -1)
        return self.layers(x)

    @property
    def last(self) -> nn.Linear:
        """The layer whose bias starts at the identity of a bijection and whose weights start at 0."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Linear)
        return layer
