"""Autoregressive flows on a torus."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..elementwise import Elementwise
from ..sums import event_sum
from ..transform import Transform
from .circle import CircularSpline
from .networks import Conditioner


class RecursiveTorus(Transform):
    r"""Angle after angle, each by a bijection of the circle that the ones before it set.

    .. math:: y_i = g(x_i; \vartheta_i(\cos x_{<i}, \sin x_{<i}, c)), \qquad \ln|\det| = \sum_i \ln g'

    One network for each angle: x to y needs them all at once, y to x one after the other, each of them once (a masked
    network would run D times).

    Args:
        features: D, how many angles.
        bijection: g, of the circle: :class:`CircularSpline` (the default) or :class:`MoebiusMixture`.
        hidden: Widths of the networks.
        context: C, 0 without.
        order: Which angle comes first, second, ...; ascending where None.

    Angles are accepted modulo :math:`2\pi` and returned in :math:`[-\pi, \pi]`; every map is continuous across
    :math:`\pi`. A new layer is the identity. Differentiable in x, context and parameters.

    Raises:
        ValueError: features is below 1, or the order is not a permutation.

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, 2.2

    Example:
        >>> layer = hepops.flows.RecursiveTorus(3)
        >>> y, logdet = layer(torch.tensor([[3.0, 0.0, -1.0]]))
        >>> y
        tensor([[ 3.,  0., -1.]], grad_fn=...)
        >>> logdet.dtype
        torch.float64
    """

    def __init__(
        self,
        features: int,
        bijection: Elementwise | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.order = list(range(features)) if order is None else [int(i) for i in order]
        if features < 1 or sorted(self.order) != list(range(features)):
            raise ValueError(f"RecursiveTorus: order must be a permutation of {features} angles, got {order}")
        self.event_shape, self.context_size = torch.Size([features]), context
        self.bijection = bijection or CircularSpline()
        identity = self.bijection.identity()
        self.networks = nn.ModuleList(Conditioner(2 * i, identity, hidden, context) for i in range(features))

    def _raw(self, i: int, before: list[Tensor], x: Tensor, context: Tensor | None) -> Tensor:
        features = [f for angle in before for f in (angle.cos(), angle.sin())]
        return self.networks[i](torch.stack(features, -1) if features else x[..., :0], context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        angles = [x[..., j] for j in self.order]
        done = [self.bijection.forward(t, self._raw(i, angles[:i], x, context)) for i, t in enumerate(angles)]
        return self._assemble(done)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        done: list[tuple[Tensor, Tensor]] = []
        for i, j in enumerate(self.order):
            raw = self._raw(i, [t for t, _ in done], y, context)
            done.append(self.bijection.inverse(y[..., j], raw))
        return self._assemble(done)

    def _assemble(self, done: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        places = sorted(range(len(self.order)), key=self.order.__getitem__)
        y = torch.stack([done[i][0] for i in places], -1)
        return y, event_sum(torch.stack([logdet for _, logdet in done], -1), 1)
