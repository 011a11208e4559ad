"""The mass of a peak around one of its points: a normal density fitted to f, and what its weights give."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.flows.random import PROBE

from .proposal import normals

ALARM = 10.0  # times the largest weight seen
ROUNDS = 6  # of a peak's fit
SCALES, EACH = 24, 8  # halvings that a peak's width is looked for among, and points at each


@dataclass(frozen=True)
class Peak:
    """A region that the proposal lacks.

    Attributes:
        at: Where r is largest, in the cube, shape (d,).
        ratio: r there over the largest weight of the samples.
        mass: The integral of |f| over the region where r is above the alarm, by the local fit.
        mass_error: Its standard deviation.
        share: The probability that a sample of the proposal falls into that region.
        mean, covariance: Of f around there.
    """

    at: Tensor
    ratio: float
    mass: float
    mass_error: float
    share: float
    mean: Tensor
    covariance: Tensor


class Look:
    """ln r, counted."""

    def __init__(self, size: Callable[[Tensor], Tensor], log_q: Callable[[Tensor], Tensor]) -> None:
        self.size, self.log_q, self.count = size, log_q, 0

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Tensor:
        self.count += len(u)
        return self.size(u).log() - self.log_q(u)


def fold(u: Tensor) -> Tensor:
    """Reflects at the faces of the cube."""
    return 1 - (u.remainder(2) - 1).abs()


def fit_cost(n: int) -> int:
    """Evaluations of a fit with n points a round."""
    return 1 + SCALES * EACH + ROUNDS * n


def belongs(at: Tensor, peak: Peak) -> bool:
    """Whether a point lies within 4 standard deviations (and what the dimension adds) of a fitted peak."""
    whitened = torch.linalg.solve(_Normal(peak.mean, peak.covariance).factor, at - peak.mean)
    return float(whitened.norm()) < math.sqrt(len(at)) + 4


def fit(look: Look, at: Tensor, height: float, n: int, seed: int, largest: float) -> Peak:
    """A normal density around `at`, fitted to |f| in rounds of n points, and the mass that its weights give."""
    dim, alarm = len(at), math.log(ALARM * largest)
    mean, covariance = at, _width(look, at, seed) ** 2 * torch.eye(dim, dtype=torch.float64)
    mass = error = share = 0.0
    for turn in range(ROUNDS):
        local = _Normal(mean, 1.3 * covariance)
        u, log_p = local.draw(n, seed, turn)
        size, log_q = _seen(look, u)
        weight = size.log() - log_p
        if not bool((weight > -math.inf).any()):
            break
        region = size.log() - log_q > alarm
        part = torch.where(region, weight, -math.inf).exp()
        mass, error = float(part.mean()), float(part.std()) / math.sqrt(n)
        share = float(torch.where(region, (log_q - log_p).exp(), 0.0).mean())
        p = _tempered(weight, max(0.1 * n, 2 * dim))
        mean = p @ u
        apart = u - mean
        covariance = (p[:, None] * apart).T @ apart
    return Peak(at, math.exp(min(height - math.log(largest), 700)), mass, error, share, mean, covariance)


class _Normal:
    """A normal density; its covariance is kept away from singular."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        ridge = 1e-6 * covariance.diagonal().mean() + 1e-24
        self.mean = mean
        self.factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), dtype=torch.float64))

    def draw(self, n: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        z = normals(torch.arange(n), len(self.mean), seed, step, PROBE)
        log_p = -0.5 * z.square().sum(1) - self.factor.diagonal().log().sum() - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return self.mean + z @ self.factor.T, log_p


def _seen(look: Look, u: Tensor) -> tuple[Tensor, Tensor]:
    """|f| and ln q at points of which some lie outside the cube, where |f| is 0."""
    inside = ((u >= 0) & (u <= 1)).all(1)
    size, log_q = u.new_zeros(len(u)), u.new_zeros(len(u))
    log_q[inside] = look.log_q(u[inside])
    size[inside] = look.size(u[inside])
    look.count += int(inside.sum())
    return size, log_q


def _width(look: Look, at: Tensor, seed: int) -> float:
    """The standard deviation of a round normal density that falls as |f| does around `at`.

    At distance :math:`\\sigma \\sqrt d` the logarithm of a normal density is d/2 below its top.
    """
    dim = len(at)
    scales = 0.5 ** torch.arange(1, SCALES + 1, dtype=torch.float64)
    z = normals(torch.arange(SCALES * EACH), dim, seed, 1000, PROBE).view(SCALES, EACH, dim)
    size, _ = _seen(look, torch.cat([at[None], fold(at + scales[:, None, None] * z).flatten(0, 1)]))
    drop = (size[0].log() - size[1:].log()).view(SCALES, EACH).median(1).values
    wide = (drop <= 0.5 * dim).nonzero()
    return float(scales[wide[0, 0]] if len(wide) else scales[-1])


def _tempered(log_weight: Tensor, least: float) -> Tensor:
    """Normalised weights to the power at which at least so many of them count."""
    power = 1.0
    while True:
        p = torch.softmax(power * log_weight, 0)
        if 1 / float(p.square().sum()) >= least or power < 1e-3:
            return p
        power /= 1.5
