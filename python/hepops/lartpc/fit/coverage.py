r"""Do the errors hold? Toys: the same tracks measured again and again, each fitted, their pulls counted.

By one scoring step from the truth (cheap: the waveforms are the same for all toys), with the expected information, the
mean of the toys' outer products of scores, for all of them: the outer products of a single toy correlate with its
scores, which would spoil the shape of the pulls. Or by whole fits, each with its own errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .problem import Problem
from .sections import Batch, simulated, terms_of
from .space import SIX, TIME_OFFSET, space
from .target import Target, covariance_of, target_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator

    from .result import FitResult


@dataclass(frozen=True)
class Coverage:
    """Pulls of toys that converged, and how many did not."""

    names: tuple[str, ...]
    truth: Tensor  # (K)
    errors: Tensor  # (K) expected; of whole fits the mean of the stated ones
    pulls: Tensor  # (toys, K)
    converged: Tensor  # bool (toys)
    method: str

    @property
    def good(self) -> Tensor:
        """(converged toys, K)"""
        return self.pulls[self.converged]

    @property
    def means(self) -> Tensor:
        """(K), each known to `width / sqrt(toys)`."""
        return self.good.mean(0)

    @property
    def widths(self) -> Tensor:
        """(K) standard deviations of the pulls, each known to about `1 / sqrt(2 toys)`."""
        good = self.good
        return good.std(0) if len(good) > 1 else torch.full_like(self.truth, torch.nan)

    def within(self, sigmas: float = 1.0) -> Tensor:
        """(K) share of the toys whose pull is smaller."""
        return (self.good.abs() < sigmas).double().mean(0)

    def summary(self) -> str:
        """A table for the terminal."""
        n = len(self.good)
        lines = [f"{'':24} {'error':>10} {'mean':>7} {'width':>7} {'< 1':>6} {'< 2':>6}"]
        columns = (self.errors, self.means, self.widths, self.within(1), self.within(2))
        for k, name in enumerate(self.names):
            error, mean, width, one, two = (float(c[k]) for c in columns)
            lines.append(f"{name:24} {error:10.3g} {mean:7.2f} {width:7.2f} {one:6.1%} {two:6.1%}")
        lost = len(self.converged) - n
        known = f": a mean is known to {n**-0.5:.2f}, a width to {(2 * n) ** -0.5:.2f}" if n else ""
        lines.append(
            f"{n} toys, by {self.method}{known}"
            + (f"; {lost} of {len(self.converged)} did not converge and are left out" if lost else "")
        )
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Histograms of the pulls beside the normal distribution."""
        from .figures import pulls

        return pulls(self)


def coverage(
    sim: Simulator,
    segments: Segments,
    parameters: Iterable[str] = (*SIX, TIME_OFFSET),
    toys: int = 100,
    *,
    method: Literal["step", "fit"] = "step",
    residual: Any = "likelihood",
    start: Any = None,
    priors: Mapping[str, tuple[float, float]] | None = None,
    nuisance: Any = None,
    seed: int = 0,
    **options: Any,
) -> Coverage:
    """Measure the same tracks many times with the simulator's noisy chip, and count pulls.

    Args:
        sim: The simulator; its present values are the truth.
        segments: The tracks.
        parameters: What is fitted.
        toys: How many; toy i has the seed `seed` + i.
        method: "step", one scoring step from the truth with the expected information; "fit", whole fits.
        residual: As of `fit`; "step" needs a likelihood.
        start: Of whole fits, as of `fit`.
        priors: As of `fit`; the truth is the simulator's value, so that the mean given here is not used: each toy
            draws its own about the truth, as an outer measurement would.
        nuisance: As of `fit`; their truth is zero.
        seed: Of the noise, and of what is drawn for the priors.
        options: For `fit`.

    Returns:
        `Coverage`; what did not converge is counted, not used.

    Raises:
        ValueError: fewer than 2 toys, another method, or what `fit` refuses.
    """
    names = tuple(parameters)
    if toys < 2 or method not in ("step", "fit"):
        raise ValueError(f'coverage: needs 2 toys or more and method "step" or "fit", got {toys} and {method!r}')
    if method == "fit":
        return _by_fits(sim, segments, names, toys, residual, start, priors, nuisance, seed, options)
    return _by_steps(sim, segments, names, toys, residual, priors, nuisance, seed)


def _truth(sim: Simulator, names: tuple[str, ...], own: Mapping[str, float]) -> Tensor:
    other = {TIME_OFFSET: 0.0, **own}
    return torch.tensor([other[n] if n in other else getattr(sim, n).item() for n in names], dtype=torch.float64)


def _by_fits(
    sim: Simulator,
    segments: Segments,
    names: tuple[str, ...],
    toys: int,
    residual: Any,
    start: Any,
    priors: Mapping[str, tuple[float, float]] | None,
    nuisance: Any,
    seed: int,
    options: Mapping[str, Any],
) -> Coverage:
    from .driver import fit

    truth = _truth(sim, names, getattr(residual, "own", {}))
    pulls, errors, good = [], [], []
    for toy in range(toys):
        with torch.no_grad():
            hits = sim(segments, seed=seed + toy)
        drawn = {
            n: (truth[names.index(n)].item() + s * _normal(seed + toy, n), s) for n, (_, s) in (priors or {}).items()
        }
        settings: dict[str, Any] = {"seed": seed + toy, **options}
        result = fit(
            sim, segments, hits, names, residual=residual, start=start, priors=drawn, nuisance=nuisance, **settings
        )
        pulls.append((result.values - truth) / result.errors)
        errors.append(result.errors)
        good.append(result.converged)
    return Coverage(names, truth, torch.stack(errors).mean(0), torch.stack(pulls), torch.tensor(good), "whole fits")


def _by_steps(
    sim: Simulator,
    segments: Segments,
    names: tuple[str, ...],
    toys: int,
    residual: Any,
    priors: Mapping[str, tuple[float, float]] | None,
    nuisance: Any,
    seed: int,
) -> Coverage:
    from .driver import CHUNK, likelihood_of

    objective = likelihood_of(residual, sim)
    truth = _truth(sim, names, getattr(objective, "own", {}))
    centred = {n: (truth[names.index(n)].item(), s) for n, (_, s) in (priors or {}).items()}
    wide = {n: (t - 1, t + 1) for n, t in zip(names, truth.tolist(), strict=True) if n == TIME_OFFSET}
    free = space(names, (), centred, wide)
    if hasattr(objective, "keeping"):
        objective = objective.keeping()
    problem: Problem | None = None
    gradients, total = [], None
    for toy in range(toys):
        with torch.no_grad():
            hits = sim(segments, seed=seed + toy)
        if problem is None:
            problem = Problem(sim, segments, hits, free, CHUNK, None, nuisance)
        x = torch.cat((free.unconstrained(truth), truth.new_zeros(len(problem.unknowns) - len(names))))
        terms = terms_of(problem.sim, problem.unknowns, truth, x, objective, problem.measured(hits), True)
        gradient = terms.gradient.clone()
        weight = torch.cat((free.prior_weight, truth.new_zeros(len(x) - len(names)))) + problem.unknowns.weight
        labels = (*names, *problem.unknowns.labels)
        known = (weight > 0).nonzero().squeeze(1).tolist()
        for k in known:  # the outer measurement of this toy is off by its own error
            gradient[k] -= float(weight[k]) ** 0.5 * _normal(seed + toy, labels[k])
        gradients.append(gradient)
        total = terms.information if total is None else total + terms.information
    assert total is not None and problem is not None
    one = torch.full_like(weight, 1 / toys).sqrt()
    information = total.scaled(one).plus_diagonal(weight)
    covariance, _ = covariance_of(information, torch.ones(len(names), dtype=torch.float64))
    errors = covariance.diagonal().sqrt()
    steps = torch.stack([information.solve(-g)[: len(names)] for g in gradients])
    return Coverage(names, truth, errors, steps / errors, torch.ones(toys, dtype=torch.bool), "a scoring step")


def _normal(seed: int, name: str) -> float:
    """A standard normal number, of a toy and a name."""
    from .state import digest

    generator = torch.Generator().manual_seed(int(digest(seed, name)[:12], 16))
    return float(torch.randn((), generator=generator, dtype=torch.float64))


@dataclass(frozen=True)
class Goodness:
    """log L of the data beside those of toys at the fit."""

    value: float  # -log L of the data at the fit
    toys: Tensor  # (n) -log L of each toy there, less K/2: what fitting it would gain on average

    @property
    def sigmas(self) -> float:
        """How far -log L of the data lies above the mean of the toys, in their spread: positive is a bad fit."""
        return (self.value - float(self.toys.mean())) / float(self.toys.std())

    @property
    def p_value(self) -> float:
        """Share of toys that fit as badly, or worse; never below 1 / (n + 1)."""
        return (1 + int((self.toys >= self.value).sum())) / (1 + len(self.toys))


def goodness(result: FitResult | Target, toys: int = 20, seed: int = 0) -> Goodness:
    """Goodness of fit of a likelihood, which has no absolute scale: against simulated data at the fitted values.

    Args:
        result: Of a fit with a likelihood.
        toys: How many; each is simulated and looked at once, without derivatives.
        seed: Of the noise; toy i has `seed` + i.

    Raises:
        ValueError: fewer than 3 toys, gains per tile, or a result without likelihood.
    """
    target = target_of(result, "goodness")
    if toys < 3:
        raise ValueError(f"goodness: needs 3 toys or more, got {toys}")
    problem, point = target.problem, target.point
    free = len(point.x) - int((target.model(point).information.diagonal <= 0).sum())
    inputs = (problem.sim, problem.unknowns, point.p, point.x, target.objective)
    found = []
    for toy in range(toys):
        batches = [
            Batch(batch.segments, simulated(*inputs, batch, seed + toy), batch.events) for batch in problem.batches
        ]
        found.append(terms_of(*inputs, batches, False).value - free / 2)
    assert point.likelihood is not None
    return Goodness(point.likelihood.value, torch.tensor(found, dtype=torch.float64))
