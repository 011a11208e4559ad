r"""Profile likelihoods and contours: what the data say of one or two parameters, all others at their best.

.. math:: \Delta(p) = -\log L(p, \hat\theta(p)) + \log L(\hat p, \hat\theta)

One standard deviation is where :math:`\Delta = 1/2`; a region of two parameters with probability c is inside
:math:`\Delta = -\ln(1 - c)`. Unlike the covariance they follow the likelihood where it is no parabola.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .problem import Point
from .target import Target, covariance_of, target_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .result import FitResult

CLOSE = 0.01  # relative, of Delta on a contour: half a percent of its radius
ROUNDS = 6


@dataclass(frozen=True)
class Profile:
    """-log L along one parameter, less its minimum."""

    name: str
    unit: str
    values: Tensor  # (n) rising
    delta: Tensor  # (n)
    others: Tensor  # (n, K) all parameters there
    converged: Tensor  # bool (n)
    best: float
    error: float  # from the information

    @property
    def interval(self) -> tuple[float, float]:
        """Where Delta = 1/2, interpolated; NaN on a side that the profile does not reach."""
        low, high = (self._crossing(side) for side in (-1, 1))
        return low, high

    def _crossing(self, side: int) -> float:
        there = (self.values - self.best) * side >= 0
        r = (2 * self.delta[there].clamp_min(0)).sqrt()  # linear in the distance where F is a parabola
        x = (self.values[there] - self.best) * side
        order = torch.argsort(x)
        r, x = torch.cat((r.new_zeros(1), r[order])), torch.cat((x.new_zeros(1), x[order]))
        above = (r >= 1).nonzero()
        if not len(above):
            return math.nan
        i = max(int(above[0]), 1)
        at = x[i - 1] + (x[i] - x[i - 1]) * (1 - r[i - 1]) / (r[i] - r[i - 1]).clamp_min(1e-300)
        return self.best + side * float(at)

    def plot(self, truth: float | None = None) -> Figure:
        """Delta against the parameter, beside the parabola of the covariance."""
        from .figures import profile

        return profile(self, truth)


@dataclass(frozen=True)
class Contour:
    """Regions of two parameters."""

    names: tuple[str, str]
    units: tuple[str, str]
    best: Tensor  # (2)
    covariance: Tensor  # (2, 2) from the information
    levels: tuple[float, ...]  # probability content
    points: Tensor  # (levels, angles, 2) physical
    converged: Tensor  # bool (levels, angles)

    def plot(self, truth: Mapping[str, float] | None = None) -> Figure:
        """The contours, beside the ellipses of the covariance."""
        from .figures import contour

        return contour(self, truth)


def profile(result: FitResult | Target, name: str, points: int = 9, span: float = 2.0) -> Profile:
    """The profile likelihood of one parameter.

    Args:
        result: Of a fit with a likelihood.
        name: Which parameter.
        points: How many values, evenly from `span` errors below the best to as many above, within its range.
        span: In units of the error from the information.

    Returns:
        `Profile`. Deterministic. Each point is a fit of the other parameters and nuisances, begun at its neighbour's.

    Raises:
        ValueError: an unknown parameter, fewer than 3 points, or a result without likelihood.
    """
    target = target_of(result, "profile")
    k = target.index(name)
    if points < 3 or not span > 0:
        raise ValueError(f"profile: points must be at least 3 and span positive, got {points} and {span}")
    space, best = target.problem.space, target.point
    covariance = _covariance(target)
    sigma = float(covariance[k, k]) ** 0.5
    low, high = (float(e[k]) for e in (space.low, space.high))
    edge = 2e-3 * (high - low)
    grid = float(best.p[k]) + sigma * span * torch.linspace(-1, 1, points, dtype=torch.float64)
    grid = torch.unique(grid.clamp(low + edge, high - edge))
    found: dict[int, tuple[Point, bool]] = {}
    for side in (1, -1):
        near = best
        order = [i for i in range(len(grid)) if (float(grid[i]) - float(best.p[k])) * side >= 0]
        for i in order if side > 0 else reversed(order):
            x = _shifted(target, near, covariance, {k: float(grid[i])})
            near, ok, _ = target.minimise(x, (name,))
            found[i] = near, ok
    delta = [target.value(found[i][0]) - target.value(best) for i in range(len(grid))]
    return Profile(
        name,
        space.units[k],
        grid,
        torch.tensor(delta, dtype=torch.float64),
        torch.stack([found[i][0].p for i in range(len(grid))]),
        torch.tensor([found[i][1] for i in range(len(grid))]),
        float(best.p[k]),
        sigma,
    )


def contour(
    result: FitResult | Target, a: str, b: str, levels: Sequence[float] = (0.683, 0.954), angles: int = 12
) -> Contour:
    r"""Contours of two parameters, all others at their best.

    Each point is sought along a ray from the best values in the space where the covariance is a circle.

    Args:
        result: Of a fit with a likelihood.
        a: A parameter.
        b: Another.
        levels: Probability content of each region, in (0, 1), for two parameters jointly.
        angles: Rays.

    Returns:
        `Contour`; a point is not `converged` where a fit did not end or the range ended first. Deterministic.

    Raises:
        ValueError: unknown or equal parameters, levels outside (0, 1), fewer than 4 angles, or no likelihood.
    """
    target = target_of(result, "contour")
    i, j = target.index(a), target.index(b)
    if i == j:
        raise ValueError(f"contour: needs two different parameters, got {a!r} twice")
    if angles < 4 or not levels or not all(0 < c < 1 for c in levels):
        raise ValueError(f"contour: levels must lie in (0, 1) and angles be at least 4, got {levels}, {angles}")
    covariance = _covariance(target)
    pair = covariance[[i, j]][:, [i, j]]
    axes = torch.linalg.cholesky(pair)
    rows, good = [], []
    for angle in 2 * math.pi * torch.arange(angles, dtype=torch.float64) / angles:
        ray = axes @ torch.stack((angle.cos(), angle.sin()))
        radius, near = 0.0, target.point
        for level in sorted(levels):
            goal = -math.log1p(-level)
            radius, near, ok = _along(target, covariance, (i, j), ray, goal, radius or (2 * goal) ** 0.5, near)
            rows.append(target.point.p[[i, j]] + radius * ray)
            good.append(ok)
    count = len(levels)
    return Contour(
        (a, b),
        (target.problem.space.units[i], target.problem.space.units[j]),
        target.point.p[[i, j]],
        pair,
        tuple(sorted(levels)),
        torch.stack(rows).reshape(angles, count, 2).transpose(0, 1).contiguous(),
        torch.tensor(good).reshape(angles, count).T.contiguous(),
    )


def _along(
    target: Target, covariance: Tensor, pair: tuple[int, int], ray: Tensor, goal: float, radius: float, near: Point
) -> tuple[float, Point, bool]:
    """The radius on a ray at which Delta is the goal: F is nearly a parabola, so that a few scalings find it."""
    space, base = target.problem.space, target.value(target.point)
    names = (target.names[pair[0]], target.names[pair[1]])
    centre = target.point.p[list(pair)]
    edge = 2e-3 * (space.high - space.low)[list(pair)]
    low, high = space.low[list(pair)] + edge, space.high[list(pair)] - edge
    end = float(torch.where(ray > 0, (high - centre) / ray, (low - centre) / ray).min())
    radius, inside, outside = min(radius, end), 0.0, math.inf
    for _ in range(ROUNDS):
        p = centre + radius * ray
        x = _shifted(target, near, covariance, dict(zip(pair, p.tolist(), strict=True)))
        near, ok, _ = target.minimise(x, names)
        delta = target.value(near) - base
        if ok and abs(delta / goal - 1) < CLOSE:
            return radius, near, True
        if delta < goal and radius >= end:
            return radius, near, False
        inside, outside = (radius, outside) if delta < goal else (inside, min(outside, radius))
        wanted = radius * (goal / max(delta, 0.05 * goal)) ** 0.5
        if not inside < wanted < outside:
            wanted = (inside + outside) / 2
        radius = min(wanted, end)
    return radius, near, False


def _covariance(target: Target) -> Tensor:
    return covariance_of(target.model(target.point).information, target.point.slope)[0]


def _shifted(target: Target, near: Point, covariance: Tensor, fixed: Mapping[int, float]) -> Tensor:
    """Unknowns with some parameters moved, and the others moved along by their regression on them."""
    index = list(fixed)
    move = torch.tensor([fixed[i] - float(near.p[i]) for i in index], dtype=torch.float64)
    slope = torch.linalg.solve(covariance[index][:, index], covariance[:, index].T).T
    p = near.p + slope @ move
    space = target.problem.space
    edge = 2e-3 * (space.high - space.low)
    p = torch.minimum(torch.maximum(p, space.low + edge), space.high - edge)
    p[index] = torch.tensor(list(fixed.values()), dtype=torch.float64)
    return target.unknowns(p, near.x[len(p) :])
