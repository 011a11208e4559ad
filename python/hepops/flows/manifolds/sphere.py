"""Recursive flows on spheres of any dimension."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..elementwise import Elementwise, Spline
from ..sums import event_sum
from ..transform import Transform
from .circle import CircularSpline
from .networks import Conditioner

TINY = 1e-300


class RecursiveSphere(Transform):
    r"""Unit vectors of :math:`\mathbb{R}^{d+1}` as a circle on which heights are stacked, each changed in its turn.

    A point of :math:`S^d` is a height r = :math:`x_{d+1}` and a point of :math:`S^{d-1}`, its other coordinates over
    :math:`\sqrt{1-r^2}`; so down to an angle on :math:`S^1`. The surface measure is
    :math:`d\Omega_d = (1-r^2)^{d/2-1} dr\, d\Omega_{d-1}`. Heights are changed by splines of [-1, 1], the angle by a
    bijection of the circle, each set by a network of the heights above it:

    .. math::
        \ln|\det| = \sum_{k=2}^{d} \left[ \ln g_k'(r_k) + (\tfrac{k}{2} - 1) \ln \frac{1-r_k'^2}{1-r_k^2} \right]
        + \ln g_1'(\theta)

    with respect to the surface measure. On :math:`S^2` the measure is :math:`dr\, d\theta` (Archimedes).

    Args:
        d: Dimension of the sphere, 1 or more: events have shape (d + 1).
        height: The bijection of [-1, 1]; a spline without tails by default.
        circle: The bijection of the circle; :class:`CircularSpline` by default.
        hidden: Widths of the networks.
        context: C, 0 without.

    The poles of every height stay poles, and there the density may depend on the direction from which they are reached:
    put a :class:`Rotation` between layers. Angles and heights are taken in double, where :math:`1 - r^2` is the sum of
    squares of the other coordinates, whatever the dtype of x. Only the direction of x counts: a norm that is off by
    rounding does no harm. A new layer is the identity. Differentiable in x, context and parameters, except at poles.

    Raises:
        ValueError: d is below 1, or x has not d + 1 numbers.

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, 2.3.1

    Example:
        >>> layer = hepops.flows.RecursiveSphere(2)
        >>> y, logdet = layer(torch.tensor([[0.6, 0.0, 0.8]]))
        >>> y
        tensor([[0.6000, 0.0000, 0.8000]], grad_fn=...)
        >>> logdet.dtype
        torch.float64
    """

    def __init__(
        self,
        d: int,
        height: Elementwise | None = None,
        circle: Elementwise | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
    ) -> None:
        super().__init__()
        if d < 1:
            raise ValueError(f"RecursiveSphere: d must be at least 1, got {d}")
        self.d, self.event_shape, self.context_size = d, torch.Size([d + 1]), context
        self.bijections = [height or Spline(8, (-1.0, 1.0), None)] * (d - 1) + [circle or CircularSpline()]
        self.networks = nn.ModuleList(
            Conditioner(i, g.identity(), hidden, context) for i, g in enumerate(self.bijections)
        )

    def _raw(self, i: int, before: list[Tensor], x: Tensor, context: Tensor | None) -> Tensor:
        features = torch.stack(before, -1).to(x.dtype) if before else x[..., :0]
        return self.networks[i](features, context).double()

    def _run(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        self.check(x, context, "y" if inverse else "x")
        coordinates, logs = _to_cylinder(x.double())
        done: list[Tensor] = []
        logdets: list[Tensor] = []
        for i, (g, u) in enumerate(zip(self.bijections, coordinates, strict=True)):
            raw = self._raw(i, done if inverse else coordinates[:i], x, context)
            v, logdet = g.inverse(u, raw) if inverse else g.forward(u, raw)
            done.append(v)
            logdets.append(logdet)
            half = (self.d - i) / 2 - 1
            if i < self.d - 1 and half > 0:
                logdets.append(half * (_log_one_minus_square(v) - logs[i]))
        return _to_sphere(done).to(x.dtype), event_sum(torch.stack(logdets, -1), 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(x, context, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(y, context, True)


def _log_one_minus_square(r: Tensor) -> Tensor:
    return ((1 - r) * (1 + r)).clamp(min=TINY).log()


def _to_cylinder(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Heights from the highest dimension down, the angle last; and ln(1 - r^2) of the heights."""
    coordinates, logs = [], []
    # squares of the radii of the first 2, 3, ... coordinates, in one order: 1 - r^2 without a difference
    squares = x.square().cumsum(-1)
    for k in range(x.shape[-1] - 1, 1, -1):
        whole, rest = squares[..., k].clamp(min=TINY), squares[..., k - 1]
        coordinates.append((x[..., k] / whole.sqrt()).clamp(-1, 1))
        logs.append((rest / whole).clamp(min=TINY).log())
    pole = squares[..., 1] < TINY  # any angle; without a NaN in its gradient
    coordinates.append(torch.atan2(x[..., 1], torch.where(pole, 1.0, x[..., 0])))
    return coordinates, logs


def _to_sphere(coordinates: list[Tensor]) -> Tensor:
    *heights, theta = coordinates
    x = torch.stack([theta.cos(), theta.sin()], -1)
    for r in reversed(heights):
        x = torch.cat([x * ((1 - r) * (1 + r)).clamp(min=TINY).sqrt()[..., None], r[..., None]], -1)
    return x
