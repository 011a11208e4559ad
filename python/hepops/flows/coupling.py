"""Couplings: some of the numbers are changed, by a bijection that a network of the others sets."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .elementwise import Elementwise
from .networks import MLP
from .sums import event_sum
from .transform import Transform


class Coupling(Transform):
    r"""x = (a, b): b is left, :math:`a' = g(a; \theta(b, c))`, with the log-determinant :math:`\sum \ln |g'|`.

    Args:
        mask: Bool, shape (D): True for what is changed.
        bijection: g.
        network: From (..., number of b [+ C]) to (..., number of a x g.size); None makes an MLP.
        hidden: Widths of that MLP.
        context: C, 0 without.
    """

    active: Tensor
    passive: Tensor
    order: Tensor

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        bijection: Elementwise,
        network: nn.Module | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(mask, dtype=torch.bool)
        active, passive = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self.bijection = bijection
        self.register_buffer("active", active, persistent=False)
        self.register_buffer("passive", passive, persistent=False)
        order = torch.cat([active, passive]).argsort()  # puts (a, b) back
        self.register_buffer("order", order, persistent=False)
        if network is None:
            network = MLP(len(passive), len(active) * bijection.size, hidden, context)
            with torch.no_grad():
                network.last.weight.zero_()
                network.last.bias.copy_(bijection.identity().repeat(len(active)))
        self.network = network

    def _change(
        self, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        a, b = x.index_select(-1, self.active), x.index_select(-1, self.passive)
        raw = self.network(b, context).view(*a.shape, self.bijection.size)
        a, logdet = function(a, raw)
        return torch.cat([a, b], -1).index_select(-1, self.order), event_sum(logdet, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._change(self.bijection.forward, x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._change(self.bijection.inverse, y, context)
