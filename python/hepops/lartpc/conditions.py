r"""Conditions that drift: the electron lifetime as a smooth function of time, with a scale that the data set.

What drifts is the concentration of impurities, :math:`c = 1/\tau`, in which the likelihood is nearly Gaussian, too. A
fit gives :math:`c_i` of each period with their covariance C; between them stands a Gaussian process

.. math:: c \sim \mathcal N(m, K), \quad K_{ij} = a^2\, k(|t_i - t_j| / \ell), \quad
    k(x) = (1 + \sqrt5 x + \tfrac53 x^2)\, e^{-\sqrt5 x}, \quad m \sim \mathcal N(\bar c, (10\, \bar c)^2)

whose amplitude a and length :math:`\ell` maximise the evidence
:math:`\log p(c) = -\tfrac12 r^T S^{-1} r - \tfrac12 \log |2\pi S|`, S = C + K + the variance of m. Where nothing drifts
a vanishes, and all periods tell of one value.

References:
    C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning (2006), eqs. 2.25, 2.26, 4.17, 5.8
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .fit.nuisance import Nuisance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .fit.result import FitResult
    from .fit.target import Target
    from .hits import Hits
    from .segments import Segments
    from .simulator import Simulator

BROAD = 10.0  # width of the mean's prior, in units of the mean
GRID = 25  # of each scale, before the maximum is refined


@dataclass(frozen=True, eq=False)
class Smooth:
    """A lifetime over time."""

    times: Tensor  # (n) of the periods, rising
    rates: Tensor  # (n) 1 / lifetime of each [1/us]
    covariance: Tensor  # (n, n) of the rates
    amplitude: float  # a [1/us]; 0: nothing drifts
    length: float  # l, in the unit of the times
    evidence: float  # log p at the maximum
    evidence_constant: float  # log p of a constant lifetime

    def rate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of 1 / lifetime at times (m) [1/us]."""
        mean, broad = self._prior_mean()
        t = torch.as_tensor(t, dtype=torch.float64)
        S = self.covariance + self._kernel(self.times, self.times) + broad**2
        across = self._kernel(t, self.times) + broad**2
        solved = torch.linalg.solve(S, across.T)
        variance = self.amplitude**2 + broad**2 - (across * solved.T).sum(1)
        return mean + solved.T @ (self.rates - mean), variance.clamp_min(0).sqrt()

    def lifetime(self, t: Tensor, sigmas: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Lifetime at times (m) [us]: the best value, and the lower and upper end of its band.

        An end at which the concentration would vanish or turn negative is infinite.
        """
        mean, sigma = self.rate(t)
        ends = (1 / mean, 1 / (mean + sigmas * sigma), mean - sigmas * sigma)
        return ends[0], ends[1], torch.where(ends[2] > 0, 1 / ends[2].clamp_min(1e-300), math.inf)

    def _prior_mean(self) -> tuple[float, float]:
        mean = float(self.rates.mean())
        return mean, BROAD * abs(mean)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return self.amplitude**2 * _matern(a, b, self.length)

    def plot(self, truth: Any = None, unit: str = "") -> Figure:
        """Lifetime against time: the periods with their errors, the smooth curve with its band of one sigma.

        Args:
            truth: A function of times (m) to lifetimes (m), where it is known.
            unit: Of the times.
        """
        from .plot import BLUE, GREY, RED, _figure, _frame, _numpy

        figure = _figure(6.6, 4.0)
        axes = figure.add_subplot()
        span = float(self.times[-1] - self.times[0]) or 1.0
        t = torch.linspace(float(self.times[0]) - 0.04 * span, float(self.times[-1]) + 0.04 * span, 200).double()
        mean, low, high = (_numpy(x) for x in self.lifetime(t))
        axes.fill_between(_numpy(t), low, high, color=BLUE, alpha=0.2, linewidth=0, label=r"$\pm 1\,\sigma$")
        axes.plot(_numpy(t), mean, color=BLUE, linewidth=1.8, label="smooth")
        sigma = self.covariance.diagonal().sqrt()
        value = 1 / self.rates
        ends = torch.stack((value - 1 / (self.rates + sigma), 1 / (self.rates - sigma).clamp_min(1e-300) - value))
        seen = self.rates - sigma > 0
        axes.errorbar(
            _numpy(self.times[seen]), _numpy(value[seen]), yerr=_numpy(ends[:, seen]), fmt="o", color=GREY,
            markersize=4, linewidth=1.2, label="single periods",
        )  # fmt: skip
        if truth is not None:
            axes.plot(_numpy(t), _numpy(truth(t)), color=RED, linestyle="--", linewidth=1.3, label="true")
        axes.set(xlabel=f"time [{unit}]" if unit else "time", ylabel="electron lifetime [µs]")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9, ncols=2)
        _frame(axes)
        return figure


def _matern(a: Tensor, b: Tensor, length: float | Tensor) -> Tensor:
    x = math.sqrt(5) * (a[:, None] - b).abs() / length
    return (1 + x + x * x / 3) * torch.exp(-x)


def smooth(times: Tensor, rates: Tensor, covariance: Tensor) -> Smooth:
    """A Gaussian process through rates 1 / lifetime, its amplitude and length at the maximum of the evidence.

    Args:
        times: (n), at least 3, in any unit.
        rates: (n) [1/us].
        covariance: (n, n).

    Raises:
        ValueError: fewer than three periods, shapes that do not fit, or a covariance that is not positive definite.
    """
    times, rates, covariance = (torch.as_tensor(x, dtype=torch.float64) for x in (times, rates, covariance))
    n = len(times)
    if n < 3 or rates.shape != (n,) or covariance.shape != (n, n):
        shapes = f"{tuple(times.shape)}, {tuple(rates.shape)} and {tuple(covariance.shape)}"
        raise ValueError(f"smooth: needs three periods or more, (n), (n) and (n, n), got {shapes}")
    if not float(torch.linalg.eigvalsh(covariance)[0]) > 0:
        raise ValueError("smooth: the covariance of the rates is not positive definite")
    order = torch.argsort(times)
    times, rates, covariance = times[order], rates[order], covariance[order][:, order]
    span = float(times[-1] - times[0])
    if not span > 0:
        raise ValueError("smooth: all periods have the same time")
    typical = float(covariance.diagonal().mean().sqrt())
    mean = float(rates.mean())
    low, high = math.log(1e-2 * typical), math.log(10 * max(typical, float(rates.std()), abs(mean)))
    shortest, longest = math.log(0.5 * span / n), math.log(5 * span)
    scales = torch.stack(
        torch.meshgrid(torch.linspace(low, high, GRID), torch.linspace(shortest, longest, GRID), indexing="ij"), -1
    ).double()

    def evidence(scale: Tensor) -> Tensor:
        kernel = torch.exp(2 * scale[0]) * _matern(times, times, torch.exp(scale[1]))
        return _evidence(rates - mean, covariance + kernel + (BROAD * mean) ** 2)

    values = torch.stack([evidence(scale) for scale in scales.reshape(-1, 2)])
    best = scales.reshape(-1, 2)[int(values.argmax())].clone()
    best = _refined(evidence, best, (low, high), (shortest, longest))
    constant = float(_evidence(rates - mean, covariance + (BROAD * mean) ** 2))
    found = float(evidence(best))
    if found <= constant:
        return Smooth(times, rates, covariance, 0.0, span, constant, constant)
    a, length = (math.exp(float(s)) for s in best)
    return Smooth(times, rates, covariance, a, length, found, constant)


def _evidence(residual: Tensor, S: Tensor) -> Tensor:
    size = S.diagonal().rsqrt()
    lower = torch.linalg.cholesky(S * size * size[:, None])
    white = torch.linalg.solve_triangular(lower, (residual * size)[:, None], upper=False)
    log_det = 2 * lower.diagonal().log().sum() - 2 * size.log().sum()
    return -0.5 * (white * white).sum() - 0.5 * log_det - 0.5 * len(residual) * math.log(2 * math.pi)


def _refined(evidence: Any, scale: Tensor, *ends: tuple[float, float]) -> Tensor:
    """Coordinate searches of shrinking steps: two numbers, a smooth function."""
    step = torch.tensor([(b - a) / (GRID - 1) for a, b in ends], dtype=torch.float64)
    low, high = (torch.tensor(e, dtype=torch.float64) for e in zip(*ends, strict=True))
    best, value = scale, float(evidence(scale))
    for _ in range(12):
        for k in range(2):
            for sign in (-1.0, 1.0):
                trial = best.clone()
                trial[k] += sign * step[k]
                trial = torch.minimum(torch.maximum(trial, low), high)
                new = float(evidence(trial))
                if new > value:
                    best, value = trial, new
        step = step / 2
    return best


@dataclass(frozen=True, eq=False)
class Conditions:
    """A lifetime in time, and the fit that it came from."""

    smooth: Smooth
    result: FitResult
    edges: Tensor  # (periods + 1) of the periods
    period: dict[int, int]  # of each event

    def lifetime(self, t: Tensor, sigmas: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """See `Smooth.lifetime`."""
        return self.smooth.lifetime(t, sigmas)

    def plot(self, truth: Any = None, unit: str = "") -> Figure:
        """See `Smooth.plot`."""
        return self.smooth.plot(truth, unit)


def lifetime_in_time(
    sim: Simulator,
    segments: Segments,
    measured: Hits,
    times: Mapping[int, float],
    periods: int = 8,
    parameters: Iterable[str] = ("efield", "birks_a", "time_offset"),
    *,
    residual: Any = "likelihood",
    nuisance: Iterable[Nuisance] = (),
    **options: Any,
) -> Conditions:
    """The electron lifetime as a smooth function of time, fitted together with what does not drift.

    Events are put into periods with equally many each; a fit has a lifetime for each period beside the common
    parameters, and a Gaussian process goes through them with their whole covariance.

    Args:
        sim: The simulator; its lifetime is where the periods begin.
        segments: Energy deposits.
        measured: Hits of the same events.
        times: Of each event, by event id, in any unit.
        periods: How many; at least 3.
        parameters: What is fitted in common, without the lifetime.
        residual: A likelihood, as of `fit`.
        nuisance: Others beside the lifetime of each period.
        options: For `fit`.

    Returns:
        `Conditions`.

    Raises:
        ValueError: "lifetime" among the parameters, fewer than three periods or fewer events than periods, an event
            without time, a time that is not finite, or what `fit` refuses.
    """
    from .fit.driver import fit
    from .fit.target import target_of
    from .fit.together import together

    names = tuple(parameters)
    if "lifetime" in names:
        raise ValueError("lifetime_in_time: lifetime is what every period has for itself, not a common parameter")
    events = torch.unique(segments.event.cpu()).tolist()
    missing = [e for e in events if e not in times]
    if missing:
        raise ValueError(f"lifetime_in_time: event {missing[0]} has no time ({len(missing)} have none)")
    at = torch.tensor([float(times[e]) for e in events], dtype=torch.float64)
    if not bool(torch.isfinite(at).all()):
        raise ValueError(
            f"lifetime_in_time: the time of event {events[int((~torch.isfinite(at)).nonzero()[0])]} is not finite"
        )
    if periods < 3 or len(events) < periods:
        raise ValueError(
            f"lifetime_in_time: needs 3 periods or more and an event in each, got {periods}, {len(events)}"
        )
    order = torch.argsort(at, stable=True)
    number = torch.empty_like(order)
    number[order] = torch.arange(len(events)) * periods // len(events)
    period = dict(zip(events, number.tolist(), strict=True))
    kinds = (*nuisance, Nuisance("lifetime", per="run", runs=period))
    result = fit(sim, segments, measured, names, residual=residual, nuisance=kinds, **options)
    corner, x = together(result, lambda result: _end(target_of(result, "lifetime_in_time")))
    start = sim.lifetime.item()
    rates = torch.exp(-x) / start  # 1 / (start e^v)
    middle = torch.stack([at[number == k].mean() for k in range(periods)])
    low = torch.stack([at[number == k].min() for k in range(periods)])
    edges = torch.cat((low, at.max()[None]))
    covariance = corner * rates * rates[:, None]
    if not bool((covariance.diagonal() > 0).all()):
        empty = int((~(covariance.diagonal() > 0)).nonzero()[0])
        raise ValueError(f"lifetime_in_time: period {empty} has no hits that know of a lifetime")
    return Conditions(smooth(middle, rates, covariance), result, edges, period)


def _end(target: Target) -> tuple[Tensor, Tensor]:
    """Covariance and values of the periods' deviations at the end of a fit."""
    (family,) = (f for f in target.problem.unknowns.families if f.spec.name == "lifetime")
    mine = slice(family.first, family.first + len(family))
    corner, _ = target.model(target.point).information.inverse()
    return corner[mine, mine], target.point.x[mine]
