"""The von Mises distribution: the normal distribution's place on a circle."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..sums import event_sum
from .base import Parametrised, as_parameters
from .quadrature import legendre

CELLS, NODES, STEPS = 128, 6, 4


class VonMises(Parametrised):
    r"""Independent angles, :math:`q(\theta) = e^{\kappa \cos(\theta - \mu)} / 2 \pi I_0(\kappa)`.

    The density is written :math:`-2 \kappa \sin^2((\theta-\mu)/2) - \ln 2\pi - \ln e^{-\kappa} I_0(\kappa)`, which no
    :math:`\kappa` overflows. It has period :math:`2\pi` and is normalised on one period: every finite angle is in the
    support.

    A sample is one uniform number u through the inverse of the distribution function,
    :math:`P(|\theta - \mu| < t) = |2u - 1|`. The integral over [0, t] is kept at the ends of 128 cells and finished by
    six Gauss-Legendre nodes; four bracketed Newton steps, in double, end at its rounding. Samples are differentiable
    in both parameters: the last step's derivative is that of the implicit function.

    Args:
        loc: :math:`\mu`, finite.
        concentration: :math:`\kappa \ge 0`, finite.
        event_shape: What both broadcast to; where None, what they broadcast to among each other.
        learnable: Whether :math:`\mu` and :math:`\ln \kappa` are parameters (then :math:`\kappa > 0`).
        dtype: Of samples and parameters; torch's default where None.

    Samples lie in :math:`[-\pi, \pi]`, with pi as the dtype rounds it; the same on every device to rounding.

    Raises:
        ValueError: A concentration is negative, or a parameter not finite.

    References:
        | K. V. Mardia, P. E. Jupp, Directional Statistics (2000), 3.5.4
        | M. Figurnov, S. Mohamed, A. Mnih, Implicit reparameterization gradients, arXiv:1805.08498

    Example:
        >>> base = hepops.flows.VonMises(0.0, [1.0, 100.0])
        >>> base.draw(1, seed=1)
        tensor([[1.5709, 0.1254]])
        >>> base.log_prob(torch.zeros(2)).exp()
        tensor(1.3615, dtype=torch.float64)
    """

    loc: Tensor

    def __init__(
        self,
        loc: float | Tensor | Sequence[float] = 0.0,
        concentration: float | Tensor | Sequence[float] = 1.0,
        event_shape: int | Sequence[int] | None = None,
        *,
        learnable: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape, (m, k) = as_parameters("VonMises", event_shape, loc=loc, concentration=concentration)
        if not ((k >= 0) & k.isfinite()).all() or not m.isfinite().all():
            raise ValueError(f"VonMises: concentration must be >= 0, both finite, got {concentration} and loc {loc}")
        if learnable and not (k > 0).all():
            raise ValueError(f"VonMises: a learnable concentration must be positive, got {concentration}")
        super().__init__(shape, dtype)
        self._hold("loc", m, learnable)
        self._hold("log_concentration", k.log(), learnable)

    @property
    def concentration(self) -> Tensor:
        return self.log_concentration.exp()  # type: ignore[operator]

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        v = 2 * self._uniform(n, seed, first, step) - 1
        kappa = self.concentration.double().reshape(-1)
        t = _quantile(v.reshape(n, kappa.numel()).abs(), kappa).reshape(v.shape)
        theta = self.loc.double() + torch.where(v < 0, -t, t)
        return wrap(theta).to(self.reference.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        kappa = self.concentration.double()
        s = torch.sin((z.double() - self.loc.double()) / 2)
        constant = math.log(2 * math.pi) + torch.special.i0e(kappa).log()
        return event_sum(-2 * kappa * s.square() - constant, len(self.event_shape))


def wrap(theta: Tensor) -> Tensor:
    """The angle within [-pi, pi], a turn or more away."""
    return theta - 2 * math.pi * torch.round(theta / (2 * math.pi))


def _integral(start: Tensor, length: Tensor, kappa: Tensor) -> Tensor:
    """Of exp(-2 kappa sin^2(t/2)) over [start, start + length], by Gauss and Legendre."""
    x, w = legendre(NODES, kappa.device)
    t = start[..., None] + length[..., None] / 2 * (1 + x)
    return length / 2 * (w * (-2 * kappa[..., None] * torch.sin(t / 2).square()).exp()).sum(-1)


def _quantile(p: Tensor, kappa: Tensor) -> Tensor:
    """t of P(|theta| < t) = p; p has shape (n, D), kappa (D)."""
    # beyond `end` there is less than exp(-40) of the density
    end = 2 * torch.asin((4.5 / kappa.detach().sqrt()).clamp(max=1))
    cell = end / CELLS
    starts = cell[:, None] * torch.arange(CELLS, device=kappa.device)
    parts = _integral(starts, cell[:, None].expand_as(starts), kappa[:, None])
    table = torch.nn.functional.pad(parts.cumsum(-1), (1, 0))
    target = (p.T * table[:, -1:]).contiguous()  # (D, n)
    k = (torch.searchsorted(table.detach(), target.detach(), right=True) - 1).clamp(0, CELLS - 1)
    start, below = starts.gather(-1, k), table.gather(-1, k)
    kappa, length = kappa[:, None].expand_as(target), cell[:, None].expand_as(target)
    with torch.no_grad():
        low, high = torch.zeros_like(target), length.clone()
        t = length * (target - below) / parts.gather(-1, k)
        for _ in range(STEPS):
            excess = below + _integral(start, t, kappa) - target
            low, high = torch.where(excess < 0, t, low), torch.where(excess < 0, high, t)
            newton = t - excess * (2 * kappa * torch.sin((start + t) / 2).square()).exp()
            t = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
    if target.requires_grad:  # t is a root whatever kappa is: one step of Newton's with derivatives
        excess = below + _integral(start, t, kappa) - target
        t = t - excess * (2 * kappa * torch.sin((start + t) / 2).square()).exp().detach()
    return (start + t).T
