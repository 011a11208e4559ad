"""The networks of recursive layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..networks import MLP, start_at


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
        start_at(self.network, identity)

    def forward(self, features: Tensor, context: Tensor | None) -> Tensor:
        if self.network is None:
            return self.constant.expand(*features.shape[:-1], -1)
        return self.network(features, context)
