"""The normal distribution between two bounds, right in its tails."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from ..sums import event_sum
from .base import Parametrised, as_parameters
from .normal import HALF_LOG_2PI
from .quadrature import legendre


class TruncatedNormal(Parametrised):
    r"""Independent normal numbers between bounds: :math:`q(z) = \phi(x) / s\,[\Phi(\beta) - \Phi(\alpha)]`.

    with :math:`x = (z-m)/s`, :math:`\alpha = (a-m)/s`, :math:`\beta = (b-m)/s`, where :math:`a \le z \le b`.

    A sample is one uniform number u: :math:`\Phi(x) = (1-u) \Phi(\alpha) + u \Phi(\beta)`, solved in the logarithm of
    the smaller one of :math:`\Phi(x)` and :math:`\Phi(-x)`, each a sum of positive terms: right to rounding in tails as
    far as :math:`\ln \Phi` is finite (:math:`10^{150}` standard deviations), where a difference of two distribution
    functions is 0 beyond 8. Newton's steps on the concave :math:`\ln \Phi` never overshoot; the last has the derivative
    of the implicit function, so that samples are differentiable in m and s. All of it in double.

    Args:
        loc, scale: m and s > 0, finite.
        low, high: a and b; infinities leave a side open.
        event_shape: What all broadcast to; where None, what they broadcast to among each other.
        learnable: Whether m and ln s are parameters; the bounds never are.
        dtype: Of samples and parameters; torch's default where None.

    Raises:
        ValueError: low is not below high, a scale is not positive, or loc or scale is not finite.

    References:
        | C. P. Robert, Statistics and Computing 5 (1995) 121, doi:10.1007/BF00143942 (why the tail is the difficulty)

    Example:
        >>> base = hepops.flows.TruncatedNormal(low=[-1.0, 10.0], high=[1.0, float("inf")])
        >>> base.draw(1, seed=1)
        tensor([[ 0.7271, 10.2205]])
        >>> base.log_prob(torch.tensor([0.0, 9.0]))
        tensor(-inf, dtype=torch.float64)
    """

    loc: Tensor
    log_scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        loc: float | Tensor | Sequence[float] = 0.0,
        scale: float | Tensor | Sequence[float] = 1.0,
        low: float | Tensor | Sequence[float] = -math.inf,
        high: float | Tensor | Sequence[float] = math.inf,
        event_shape: int | Sequence[int] | None = None,
        *,
        learnable: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = "TruncatedNormal"
        shape, (m, s, a, b) = as_parameters(name, event_shape, loc=loc, scale=scale, low=low, high=high)
        if not ((s > 0) & s.isfinite()).all() or not m.isfinite().all():
            raise ValueError(f"{name}: scale must be positive, loc and scale finite, got loc {loc}, scale {scale}")
        if not (a < b).all():
            raise ValueError(f"{name}: low must be below high, got {low} and {high}")
        super().__init__(shape, dtype)
        self._hold("loc", m, learnable)
        self._hold("log_scale", s.log(), learnable)
        self._hold("low", a, False)
        self._hold("high", b, False)

    def _standard(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """m, s, alpha and beta in double."""
        m, s = self.loc.double(), self.log_scale.double().exp()
        alpha, beta = (_standardised(bound.double(), m, s) for bound in (self.low, self.high))
        return m, s, alpha, beta

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        u = self._uniform(n, seed, first, step)
        m, s, alpha, beta = self._standard()
        log_u, log_v = u.log(), (-u).log1p()
        below = torch.logaddexp(log_v + _log_ndtr(alpha), log_u + _log_ndtr(beta))
        above = torch.logaddexp(log_v + _log_ndtr(-alpha), log_u + _log_ndtr(-beta))
        x = _inverse_log_ndtr(torch.minimum(below, above))
        z = m + s * torch.where(below < above, x, -x)
        z = torch.minimum(torch.maximum(z, self.low.double()), self.high.double())
        return z.to(self.reference.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        m, s, alpha, beta = self._standard()
        x = (z.double() - m) / s
        inside = event_sum(-0.5 * x.square() - HALF_LOG_2PI - s.log() - _log_mass(alpha, beta), len(self.event_shape))
        return self._supported(inside, z, (z < self.low) | (z > self.high))


def _standardised(bound: Tensor, m: Tensor, s: Tensor) -> Tensor:
    """(bound - m) / s, whose derivatives are 0 and not NaN at the infinities."""
    return torch.where(bound.isinf(), bound, (bound.masked_fill(bound.isinf(), 0) - m) / s)


def _log_ndtr(x: Tensor) -> Tensor:
    """The logarithm of Phi, whose derivative is 0 and not NaN at the infinities."""
    return torch.where(x.isinf(), torch.where(x < 0, x, 0.0), log_ndtr(x.masked_fill(x.isinf(), 0)))


def _inverse_log_ndtr(p: Tensor) -> Tensor:
    """x of ln Phi(x) = p, for p below about -ln 2."""
    with torch.no_grad():
        q = p.clamp(max=-1e-300)
        # far out Phi = phi(x)/|x| (1 - ...): Newton's steps from there climb to the root
        x = torch.where(q > -30, ndtri(q.clamp(min=-40).exp()), -(-2 * q).sqrt())
        for _ in range(5):
            x = x - (log_ndtr(x) - q) / _hazard(x)
        slope = _hazard(x)
    return x + (p - p.detach()) / slope


def _hazard(x: Tensor) -> Tensor:
    """The derivative of ln Phi: phi / Phi = sqrt(2/pi) / erfcx(-x / sqrt 2)."""
    return math.sqrt(2 / math.pi) / torch.special.erfcx(-x / math.sqrt(2))


def _log_mass(alpha: Tensor, beta: Tensor) -> Tensor:
    """ln [Phi(beta) - Phi(alpha)]: a difference of logarithms, or a quadrature where the two are close."""
    flip = alpha + beta > 0  # in the lower tail both are small numbers and not near 1
    a, b = torch.where(flip, -beta, alpha), torch.where(flip, -alpha, beta)
    middle, width = (a + b) / 2, b - a
    close = width * (1 + middle.abs()) < 2
    p, q = (_log_ndtr(x) for x in (torch.where(close, -1.0, a), torch.where(close, 1.0, b)))
    apart = q + torch.log(-torch.expm1(p - q))
    x, w = legendre(16, a.device)
    half, middle = torch.where(close, width / 2, 1.0), torch.where(close, middle, 0.0)
    d = half[..., None] * x
    integral = (w * (-d * (middle[..., None] + d / 2)).exp()).sum(-1)
    near = half.log() + integral.log() - 0.5 * middle.square() - HALF_LOG_2PI
    return torch.where(close, near, apart)
