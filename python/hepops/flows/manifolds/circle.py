"""Bijections of the circle: parameters of any real value, no seam at pi."""

import math

import torch
from torch import Tensor

from ..bases.vonmises import wrap
from ..elementwise import Elementwise, Spline, check_size

STEPS = 60


class CircularSpline(Elementwise):
    r"""A rational-quadratic spline round the circle, then a turn: :math:`y = g(x) + \varphi`, in :math:`[-\pi, \pi]`.

    g maps :math:`[-\pi, \pi]` onto itself with one slope at both ends, so that the density has no step there; the phase
    moves the point :math:`\pi`, which g leaves in its place.

    Args:
        bins: K; there are 3 K + 1 raw parameters: widths, heights, slopes, phase.
        convention: How raw parameters become widths, heights and slopes: "nflows" or "zuko".

    Angles outside of :math:`[-\pi, \pi]` are taken modulo :math:`2\pi`. Differentiable as the spline is.

    Raises:
        ValueError: bins is below 1.

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, 2.1.2

    Example:
        >>> g = hepops.flows.CircularSpline(bins=4)
        >>> y, logdet = g.forward(torch.tensor([3.0, 3.2]), g.identity().expand(2, 13))
        >>> y
        tensor([ 3.0000, -3.0832])
    """

    def __init__(self, bins: int = 8, convention: str = "nflows") -> None:
        self.spline = Spline(bins, math.pi, "circular", convention)  # type: ignore[arg-type]
        self.size = self.spline.size + 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        check_size("CircularSpline", raw, self.size)
        y, logdet = self.spline.forward(wrap(x), raw[..., :-1])
        return wrap(y + raw[..., -1]), logdet

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        check_size("CircularSpline", raw, self.size)
        x, logdet = self.spline.inverse(wrap(y - raw[..., -1]), raw[..., :-1])
        return wrap(x), logdet

    def identity(self) -> Tensor:
        return torch.cat([self.spline.identity(), torch.zeros(1)])


class MoebiusMixture(Elementwise):
    r"""A mean of Moebius maps of the circle, then a turn.

    .. math::
        y = x + \sum_k \rho_k\, 2 \arctan \frac{b_k}{1 - a_k} + \varphi, \qquad
        \frac{dy}{dx} = \sum_k \rho_k \frac{1 - |\omega_k|^2}{|e^{ix} - \omega_k|^2}

    with :math:`a_k + i b_k = \bar\omega_k e^{ix}` and :math:`|\omega_k| < 1`: each term is the map
    :math:`(z - \omega)/(1 - \bar\omega z)` of :math:`z = e^{ix}`, lifted to a continuous function of x, so that
    nothing jumps anywhere on the circle. With all :math:`\omega_k` real these are the mixtures of non-compact
    projections :math:`2 \arctan(e^s \tan(x/2))`, :math:`|\omega| = \tanh(s/2)`.

    Raw parameters are K logits of :math:`\rho`, K real and K imaginary parts of :math:`\omega_k / (1 - |\omega_k|/l)`
    up to the limit l, and the phase: any real numbers. The inverse is a bracketed Newton iteration in double; its
    gradient is that of the implicit function (first derivatives only).

    Args:
        components: K.
        limit: l, the largest :math:`|\omega|`: slopes lie between (1-l)/(1+l) and its inverse.

    Raises:
        ValueError: components is below 1, or the limit not inside (0, 1).

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428, 2.1.1 and 2.1.3

    Example:
        >>> g = hepops.flows.MoebiusMixture(components=2)
        >>> raw = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0, 2.0, 0.5])
        >>> y, logdet = g.forward(torch.tensor([3.0]), raw)
        >>> g.inverse(y, raw)[0]
        tensor([3.0000])
    """

    def __init__(self, components: int = 8, limit: float = 0.99) -> None:
        if components < 1:
            raise ValueError(f"MoebiusMixture: components must be at least 1, got {components}")
        if not 0 < limit < 1:
            raise ValueError(f"MoebiusMixture: limit must be inside (0, 1), got {limit}")
        self.components, self.limit = components, limit
        self.size = 3 * components + 1

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """rho, Re omega, Im omega, phase."""
        K = self.components
        v, w = raw[..., K : 2 * K], raw[..., 2 * K : 3 * K]
        shrink = self.limit / (1 + torch.linalg.vector_norm(torch.stack([v, w]), dim=0))
        return raw[..., :K].softmax(-1), v * shrink, w * shrink, raw[..., -1]

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        *parameters, phase = self._parameters(raw)
        shift, slope = _moebius(x, *parameters)
        return wrap(x + shift + phase), slope.log()

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        *parameters, phase = self._parameters(raw)
        target = wrap(y - phase)
        with torch.no_grad():
            x = _solve(target.double(), *[p.double() for p in parameters]).to(y.dtype)
        shift, slope = _moebius(x, *parameters)
        # x is a root whatever the parameters are: one step of Newton's, with derivatives
        x = x - (x + shift - target) / slope.detach()
        return wrap(x), -_moebius(x, *parameters)[1].log()


def _moebius(x: Tensor, rho: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """y - x and dy/dx."""
    c, s = x.cos()[..., None], x.sin()[..., None]
    a, b = v * c + w * s, v * s - w * c
    shift = (rho * 2 * torch.atan2(b, 1 - a)).sum(-1)
    r2 = v.square() + w.square()
    slope = (rho * (1 - r2) / ((c - v).square() + (s - w).square())).sum(-1)
    return shift, slope


def _solve(y: Tensor, *parameters: Tensor) -> Tensor:
    """x of x + shift(x) = y: the shift is within (-pi, pi), and the left side increases."""
    low, high, x = y - math.pi, y + math.pi, y
    for _ in range(STEPS):
        shift, slope = _moebius(x, *parameters)
        excess = x + shift - y
        low, high = torch.where(excess < 0, x, low), torch.where(excess < 0, high, x)
        newton = x - excess / slope
        x = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
    return x
