"""The fit of detector parameters to measured hits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hepops.core import reporting
from hepops.lartpc.production.hit_files import HitFiles
from hepops.lartpc.production.index import Index
from hepops.lartpc.production.ranks import Ranks
from hepops.lartpc.segments import Segments

from . import optimise
from .chips import of_chips
from .data import Files
from .metric import Metric, expected
from .nuisance import Family, Nuisances
from .optimise import Objective, Settings
from .problem import Point, Problem
from .readout import chip_of, with_chip, with_values
from .residuals import LikelihoodObject, MatchedHits, Noise, PixelSums, Residual
from .result import FitResult
from .robust import Robust
from .space import CHIP, SIX, TIME_OFFSET, Bounds, Priors, Space, space
from .state import Finish, State, Step, Store, describe, digest
from .target import Target, covariance_of
from .team import Team

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.simulator import Simulator

Start = Mapping[str, float] | Literal["nominal", "random"] | None
RESULT = "result.h5"
CHUNK = 10_000  # segments


def fit(
    sim: Simulator,
    segments: Segments | Index,
    measured: Hits | HitFiles,
    parameters: str | Iterable[str] = SIX,
    *,
    residual: Objective | Sequence[Objective] | Literal["likelihood"] | None = None,
    method: Literal["lm", "adam"] = "lm",
    start: Start = None,
    starts: int = 1,
    priors: Priors | Literal["published"] | None = None,
    fixed: str | Iterable[str] = (),
    bounds: Bounds | None = None,
    nuisance: Nuisances | None = None,
    toys: int = 0,
    batch_events: int | None = None,
    max_iterations: int | None = None,
    tolerance: float | None = None,
    learning_rate: float = 0.1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    chunk: int = CHUNK,
    ranks: Ranks | None = None,
) -> FitResult:
    r"""Find the parameters of the detector that made these hits.

    Minimises :math:`F(p) = \sum_i \rho(r_i(p)) + \frac12 \sum_k (p_k - \mu_k)^2 / \sigma_k^2` over the logit of each
    parameter's range. By default in two stages: sums per pixel with redescending weights bring any start close, hits
    matched by rank end it.

    Both compare with noise-free hits. Of noisy hits (silent resets, early triggers) such a fit is biased by more than
    the errors that it states, most of all in the longitudinal diffusion: there ``residual="likelihood"`` is honest.
    It begins with sums per pixel, too, and goes on by scoring, Gauss-Newton steps with the outer products of the
    scores, on :math:`F = -\log L`.

    Args:
        sim: The simulator; its present values are the default start and those of all other parameters. It is copied
            and not changed (`FitResult.apply` does that).
        segments: Energy deposits of whole events; or an `Index` of files, which are then read a batch at a time, every
            time they are needed, and may be larger than the memory.
        measured: Hits of the same events. Hits of other events are counted, not used.
        parameters: Names, or one name, of `Parameters.SPEC` or "time_offset" [us], which is added to every simulated
            time: give it where a clock made the hits, or half a tick is taken for a field. A likelihood can also fit
            the chip's own: "threshold", "gain", "pedestal", "reset_noise", "uncorrelated_noise",
            "discriminator_noise".
        residual: What to compare: "likelihood", or a likelihood object, alone, after a stage of `PixelSums`; a
            residual object, or several objects, one per stage; with Adam also a loss, a function of (simulated,
            measured) that returns a tensor of one number. None: `PixelSums`, then `MatchedHits`, with the noise of the
            simulator's detector (Adam: `PixelSums` with Huber's weights).
        method: "lm", Levenberg-Marquardt on the forward-mode Jacobian; "adam", torch's Adam in reverse mode.
        start: Physical values by name; "nominal"; "random", drawn across the ranges; None: the simulator's own.
        starts: How many starts; all but the first are drawn, a Latin hypercube across the ranges ("random": all).
        priors: Mean and sigma of Gaussian priors by name, or "published".
        fixed: Names among `parameters` that stay at their start.
        bounds: Ranges by name in place of the published ones [physical units].
        nuisance: Deviations of events, runs, TPCs or tiles from the common values (`Nuisance`), or what each has, by
            name: ``{"time_offset": "event"}``. Solved with the parameters; needs a likelihood.
        toys: Of a likelihood: how many simulated data sets, at the fitted values, give the information for the errors,
            which is then the expected one. 0: the outer products of the data's own scores, fit for all but events of
            few hits with nuisances of their own.
        batch_events: Events per iteration: of every stage but the last ("lm"), or of every iteration ("adam"). A
            likelihood is then a stage of batches and, at last, one of all events: of these are values and errors.
            None: all.
        max_iterations: Of each start, all stages together; a tried and rejected step is one. None: 30, with a
            likelihood 60, Adam 300.
        tolerance: Relative change of a parameter below which the last stage ends. None: 1e-8, or 1e-5 where the
            simulator computes in float32, whose rounding smaller steps do not outweigh.
        learning_rate: Adam's, in logit units; it falls as a cosine.
        seed: Of random starts and the order of batches.
        checkpoint: A folder for the state after every iteration and, at the end, `result.h5`. Started again with the
            same input, the fit goes on from there, and its end has the same bits as without the interruption.
        progress: Show a progress bar on the terminal.
        chunk: Most segments simulated at once; an event is never divided. This bounds the memory.
        ranks: Processes that share the work (see `hepops.lartpc.production.Ranks`): every one calls this function with
            the same arguments, and each evaluates its share of the batches. The same bits for any number of them, and
            the same result on all. Profiles, contours and whatever else asks the likelihood again are rank 0's alone,
            or all ranks' by `hepops.lartpc.fit.together`.

    Returns:
        `FitResult`, of the start with the lowest F (a start that converged before one that did not).

    Not differentiable. Deterministic wherever the simulator is: the same bits from run to run and for any number of
    threads.

    Raises:
        ValueError: an unknown or repeated name, a start outside its range, degenerate parameters or singular
            information, no segments, no hits, nothing in common between simulated and measured, or a checkpoint of
            another fit.

    References:
        | D. W. Marquardt, SIAM J. Appl. Math. 11 (1963) 431
        | H. B. Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05 (1999)

    Example:
        >>> import hepops, torch
        >>> from hepops.lartpc import Detector, Parameters, Segments, Simulator
        >>> x, one, ids = torch.linspace(-25.0, 25.0, 40), torch.ones(40).double(), torch.zeros(40).long()
        >>> start = torch.stack((x, x / 2, x / 3), 1).double()
        >>> segments = Segments(ids, start, start + 0.3, 1.1 * one, 2.1 * one, 0 * one, ids + 13, ids)
        >>> truth = Simulator(Detector.module0(), Parameters(lifetime=1800.0), dtype=torch.float64)
        >>> hits = truth(segments)
        >>> sim = Simulator(Detector.module0(), dtype=torch.float64)
        >>> result = hepops.lartpc.fit(sim, segments, hits, ["lifetime", "efield"])
        >>> result.converged, round(result["lifetime"], 3), round(result["efield"], 6)
        (True, 1800.0, 0.5)
    """
    if method not in ("lm", "adam"):
        raise ValueError(f'method must be "lm" or "adam", got {method!r}')
    if toys < 0:
        raise ValueError(f"toys must not be negative, got {toys}")
    if starts < 1:
        raise ValueError(f"starts must be at least 1, got {starts}")
    most = max_iterations if max_iterations is not None else (30 if method == "lm" else 300)
    dtype = getattr(sim, "dtype", torch.float64)
    dtype = dtype if dtype in optimise.TOLERANCE else torch.float64
    tolerance = optimise.TOLERANCE[dtype] if tolerance is None else tolerance
    if most < 1 or not tolerance >= 0 or not learning_rate > 0:
        raise ValueError(
            f"max_iterations, tolerance and learning_rate must be positive, got {most}, {tolerance}, {learning_rate}"
        )
    names = _names(parameters)
    free = space(names, _names(fixed), priors, bounds)
    stages = _stages(residual, method, sim, batch_events is not None)
    if nuisance and (method != "lm" or not isinstance(stages[-1], LikelihoodObject)):
        raise ValueError('nuisance: needs method "lm" with a likelihood in the last place, e.g. residual="likelihood"')
    if max_iterations is None and isinstance(stages[-1], LikelihoodObject):
        most = 60
    begin, held = _starts(sim, names, free, start, starts, seed, stages[-1])
    data = _data(sim, segments, measured, held.get(TIME_OFFSET, 0.0))
    problem = Problem(sim, *data, free, chunk, batch_events, nuisance)
    stages = tuple(_held_chip(stage, held) for stage in stages)
    chip = chip_of(stages[-1])  # of a likelihood: those before it compare what the same chip has seen
    stages = problem.stages = tuple(with_chip(stage, chip) for stage in stages)
    ranks = ranks or Ranks()
    if ranks.size > 1:
        if method != "lm":
            raise ValueError(f'ranks: {ranks.size} processes share a fit by method "lm" alone, not {method!r}')
        problem.team, problem.ranks = Team(ranks), ranks
    for name, value in held.items():
        problem.set(name, value)
    go = Settings(most, tolerance, optimise.FLAT[dtype], learning_rate, batch_events is not None, seed)
    config = {
        "parameters": list(names),
        "method": method,
        "objectives": [describe(stage) for stage in stages],
        "fixed": held,
        "priors": _plain_priors(free),
        "nuisance": [_plain_nuisance(f) for f in problem.unknowns.families],
        "bounds": {n: [lo, hi] for n, lo, hi in zip(free.names, free.low.tolist(), free.high.tolist(), strict=True)},
        "toys": toys,
        "batch_events": batch_events,
        "max_iterations": most,
        "tolerance": tolerance,
        "learning_rate": learning_rate,
        "seed": seed,
        "chunk": chunk,
        "simulator": {name: p.item() for name, p in sim.named_parameters() if p.numel() == 1},
    }

    def work() -> FitResult:
        return _work(problem, begin, fingerprint, held, config, go, checkpoint, progress)

    fingerprint = _fingerprint(sim, data, config, begin, stages)
    return work() if problem.team is None else problem.team.run(problem, work)


def _work(
    problem: Problem,
    begin: Tensor,
    fingerprint: dict[str, str],
    held: dict[str, float],
    config: dict[str, Any],
    go: Settings,
    checkpoint: str | Path | None,
    progress: bool,
) -> FitResult:
    """The fit, from where its checkpoint stands."""
    store = Store(checkpoint)
    state = store.read(fingerprint) or State(fingerprint, begin.tolist(), _begin(problem, begin[0]))
    _run(problem, problem.stages, state, go, store, config["method"], progress)
    result = _result(problem, problem.stages[-1], state, held, config)
    problem.team = None  # what is asked of the result later, this process answers alone
    if store.folder is not None:
        result.save(store.folder / RESULT)
        reporting.artefact(store.folder / RESULT)
    return result


def _data(
    sim: Simulator, segments: Segments | Index, measured: Hits | HitFiles, shift: float
) -> tuple[Segments | Files, Hits | None]:
    """Both in memory or both in files; all times later by `shift` [us]."""
    if not isinstance(segments, Segments | Index):
        raise TypeError(f"fit: segments must be Segments (read_segments), got {type(segments).__name__}")
    if isinstance(measured, str | Path | Segments):
        raise TypeError(f"fit: measured must be Hits (read_hits), got {type(measured).__name__}")
    if isinstance(segments, Index) != isinstance(measured, HitFiles):
        kinds = type(segments).__name__, type(measured).__name__
        raise TypeError(f"segments and measured must both be in memory or both in files, got {kinds[0]} and {kinds[1]}")
    if isinstance(segments, Index) and isinstance(measured, HitFiles):
        return Files(segments, measured, shift, next(sim.parameters()).device), None
    assert not isinstance(segments, Index) and not isinstance(measured, HitFiles)
    return (replace(segments, t0=segments.t0 + shift) if shift else segments), measured


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _run(
    problem: Problem, stages: Sequence[Objective], state: State, go: Settings, store: Store, method: str, progress: bool
) -> None:
    """Every start from where the state stands."""
    minimise = optimise.levenberg_marquardt if method == "lm" else optimise.adam
    told = {"parameters": list(problem.space.names), "method": method, **asdict(go)}
    with _Bar(progress, len(state.starts), go.max_iterations) as bar, reporting.session("fit", told) as tell:

        def save(state: State) -> None:
            store.write(state)
            bar.show(state.trace[-1])
            tell(len(state.trace), _measured(state.trace[-1], problem.space.names))

        while len(state.finished) < len(state.starts):
            minimise(problem, stages, state, go, save)
            state.finished.append(optimise.finish(problem, stages[-1], state))
            if len(state.finished) < len(state.starts):
                _next_start(state, problem)
            store.write(state)


def _measured(step: Step, names: Sequence[str]) -> dict[str, float]:
    """An iteration's numbers, for a log."""
    numbers = {"objective": step.value, "relative_step": step.relative_step, "damping": step.damping}
    return numbers | {"accepted": step.accepted} | dict(zip(names, step.parameters, strict=True))


def _begin(problem: Problem, start: Tensor) -> list[float]:
    """All unknowns at a start: no deviation yet."""
    u: list[float] = problem.space.unconstrained(start).tolist()
    return u + [0.0] * (len(problem.unknowns) - len(u))


def _next_start(state: State, problem: Problem) -> None:
    state.start += 1
    state.stage = state.iteration = state.in_stage = 0
    state.damping, state.growth, state.diagonal, state.moments = 1e-3, 2.0, [], {}
    state.metric, state.pairs = [], []
    state.ended, state.converged = "", False
    state.u = _begin(problem, torch.tensor(state.starts[state.start], dtype=torch.float64))


def _stages(
    residual: Objective | Sequence[Objective] | str | None, method: str, sim: Simulator, batched: bool
) -> tuple[Objective, ...]:
    if isinstance(residual, str):
        residual = likelihood_of(residual, sim)
    residual = [of_chips(r, sim.detector) for r in residual] if isinstance(residual, (list, tuple)) else residual
    residual = of_chips(residual, sim.detector)
    if isinstance(residual, LikelihoodObject) and method == "lm":
        # sums per pixel bring any start close
        residual = [PixelSums(Noise.of(sim.detector)), *[residual] * (1 + batched)]
    if residual is None:
        noise = Noise.of(sim.detector)
        if method == "adam":
            return (PixelSums(noise, Robust("huber")),)
        return PixelSums(noise), MatchedHits(noise)
    stages = tuple(residual) if isinstance(residual, (list, tuple)) else (residual,)
    if not stages:
        raise ValueError("residual: an empty list")
    for stage in stages:
        if method == "lm" and not isinstance(stage, (Residual, LikelihoodObject)):
            raise TypeError(
                f"residual: {describe(stage)} is a loss; method 'lm' needs residuals or a likelihood, 'adam' takes it"
            )
        if not callable(stage) and not isinstance(stage, LikelihoodObject):
            raise TypeError(f"residual: {describe(stage)} is neither a residual, a likelihood nor a loss")
    return stages


def likelihood_of(residual: Any, sim: Simulator) -> LikelihoodObject:
    """A likelihood object, the simulator's own chips for "likelihood".

    Raises:
        ValueError: another word.
        TypeError: something that is no likelihood.
    """
    if isinstance(residual, str):
        if residual != "likelihood":
            raise ValueError(f'residual must be an object, several, None or "likelihood", got {residual!r}')
        from hepops.lartpc.likelihood import HitLikelihood

        residual = HitLikelihood()
    found = of_chips(residual, sim.detector)
    if not isinstance(found, LikelihoodObject):
        raise TypeError(f"residual: {describe(residual)} is no likelihood")
    return found


def _starts(
    sim: Simulator, names: tuple[str, ...], free: Space, start: Start, count: int, seed: int, last: Objective
) -> tuple[Tensor, dict[str, float]]:
    """(count, K) physical values at which to begin, and the values of the parameters held."""
    from hepops.lartpc.parameters import Parameters

    own: Mapping[str, float] = getattr(last, "own", {})
    strange = [name for name in names if name in CHIP and name not in own]
    if strange:
        raise ValueError(f"parameters: {', '.join(strange)} is of the chip, which only a likelihood of hits can fit")
    apart = [name for name in names if name in Parameters.SPEC and not hasattr(sim, name)]
    if apart:
        raise ValueError(
            f"parameters: {', '.join(apart)} differs from module to module in this simulator; fit sim.module(n) to the "
            f"hits of one module, or give all modules one value"
        )
    other = {TIME_OFFSET: 0.0, **{name: float(own[name]) for name in names if name in own}}
    present = {name: other[name] if name in other else getattr(sim, name).item() for name in names}
    if isinstance(start, Mapping):
        for name in start:
            if name not in names:
                raise ValueError(f"start: {name!r} is not among the parameters ({', '.join(names)})")
        first = {**present, **start}
    elif start in ("nominal", "random"):
        first = {n: other[n] if n in other else Parameters.SPEC[n].nominal for n in names}
    elif start is None:
        first = present
    else:
        raise ValueError(f'start must be a mapping, "nominal", "random" or None, got {start!r}')
    held = {name: first[name] if start != "random" else present[name] for name in names if name not in free.names}
    drawn = free.draw(count if start == "random" else max(0, count - 1), seed)
    if start == "random":
        return drawn, held
    for name, low, high in zip(free.names, free.low.tolist(), free.high.tolist(), strict=True):
        if not low <= first[name] <= high:
            raise ValueError(f"start: {name} = {first[name]:g} is outside its range [{low:g}, {high:g}]; see bounds")
    return torch.cat((torch.tensor([[first[name] for name in free.names]], dtype=torch.float64), drawn)), held


def _held_chip(stage: Objective, held: Mapping[str, float]) -> Objective:
    """An objective with the chip's parameters that are held at their start."""
    own = {name: value for name, value in held.items() if name in CHIP}
    if not own:
        return stage
    if not isinstance(stage, LikelihoodObject):
        held_too: Objective = with_values(stage, own)
        return held_too
    there: Any = stage
    moved: Objective = there.with_values(own)
    return moved


def _plain_nuisance(family: Family) -> dict[str, Any]:
    spec = family.spec
    return {"name": spec.name, "per": spec.per, "prior": spec.prior, "groups": len(family)}


def _plain_priors(free: Space) -> dict[str, list[float]]:
    rows = zip(free.names, free.prior_mean.tolist(), free.prior_weight.tolist(), strict=True)
    return {name: [mean, weight**-0.5] for name, mean, weight in rows if weight}


def _fingerprint(
    sim: Simulator,
    data: tuple[Segments | Files, Hits | None],
    config: dict[str, Any],
    begin: Tensor,
    stages: Sequence[Objective],
) -> dict[str, str]:
    """Hashes of everything that the end depends on, by name, so that a refusal can say what differs."""
    columns = ("event", "start", "end", "dE", "dEdx", "t0")
    read = ("event", "tpc", "ix", "iy", "rank", "time", "charge")
    state = {name: value for name, value in sim.state_dict().items() if isinstance(value, Tensor)}
    table = getattr(sim, "table", None)
    simple = {
        n: v for n, v in sorted(vars(sim).items()) if isinstance(v, (int, float, str, torch.dtype)) and n != "training"
    }
    segments, measured = data
    if isinstance(segments, Files):
        source = segments.index.source
        known = {
            "segments": digest(
                *segments.index.digests,
                torch.from_numpy(segments.index.event),
                *map(float, (*source.offset, segments.shift)),
                source.on_bad,
            ),
            "measured": digest(*segments.hits.digests),
        }
    else:
        known = {
            "segments": digest(*(getattr(segments, name) for name in columns)),
            "measured": digest(*(getattr(measured, name) for name in read)),
        }
    return {
        **known,
        "simulator": digest(type(sim).__qualname__, state, simple, table, sim.detector),
        "starts": digest(begin),
        "chips": digest([chip_of(stage) for stage in stages]),
        **{name: digest(value) for name, value in config.items() if name != "simulator"},
    }


def _result(
    problem: Problem, objective: Objective, state: State, held: dict[str, float], config: dict[str, Any]
) -> FitResult:
    free = problem.space
    best = min(range(len(state.finished)), key=lambda i: (not state.finished[i].converged, state.finished[i].value))
    end: Finish = state.finished[best]
    values = torch.tensor(end.parameters, dtype=torch.float64)
    point, target = None, None
    if isinstance(objective, (Residual, LikelihoodObject)):
        point = problem.at(torch.tensor(end.u, dtype=torch.float64), objective, problem.batches, scores=True)
    if point is not None and isinstance(objective, LikelihoodObject):
        if config["toys"]:
            information = expected(problem, objective, point.x, problem.batches, config["toys"], config["seed"])
            assert point.likelihood is not None
            point = replace(point, likelihood=replace(point.likelihood, information=information))
        target = Target(problem, objective, point, Metric(problem, objective))
    covariance, spread, chi2, count = _statistics(point, problem, objective)
    counts = {**(point.report if point is not None else {}), "hits_of_other_events": problem.ignored_hits}
    empty = torch.zeros(0, dtype=torch.float64)
    r = point.residuals if point is not None else None
    return FitResult(
        names=free.names,
        units=free.units,
        values=values,
        covariance=covariance,
        fixed=held,
        converged=end.converged,
        message=end.message,
        iterations=end.iterations,
        value=end.value,
        chi2=chi2,
        ndof=count - len(free) if count else 0,
        counts=counts,
        at_limit=free.at_limit(values),
        best=best,
        starts=tuple(state.finished),
        trace=tuple(state.trace),
        residuals=r.values.cpu() if r is not None else empty,
        kinds=r.kind.cpu() if r is not None else empty.long(),
        nuisance_names=problem.unknowns.labels,
        nuisance_values=torch.tensor(end.u[len(free) :], dtype=torch.float64),
        nuisance_errors=spread,
        config=config,
        target=target,
    )


def _statistics(point: Point | None, problem: Problem, objective: Objective) -> tuple[Tensor, Tensor, float, int]:
    """Physical covariance, the nuisances' errors, chi2 and its number of terms; NaN where a plain loss knows none."""
    free = problem.space
    if point is None:
        none = torch.full((len(free), len(free)), torch.nan, dtype=torch.float64)
        return none, none.new_zeros(0), float("nan"), 0
    robust = optimise.robust_of(objective)
    information = point.model(free, robust, point.scales(robust)).information
    covariance, spread = covariance_of(information, point.slope)
    if point.residuals is not None:
        priors = int((free.prior_weight > 0).sum())
        r = point.residuals.values
        pulls = free.prior_weight * (point.p - free.prior_mean) ** 2
        return covariance, spread, float((r * r).sum().cpu() + pulls.sum()), len(r) + priors
    assert point.likelihood is not None
    return covariance, spread, 2 * float(point.likelihood.value), 0


class _Bar:
    """A progress bar, or nothing."""

    def __init__(self, shown: bool, starts: int, most: int):
        self.starts, self.most = starts, most
        self.bar: Any = None
        if shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=starts * most, desc="fit", unit="it")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, step: Step) -> None:
        if self.bar is not None:
            self.bar.n = step.start * self.most + step.iteration
            self.bar.set_postfix(
                start=f"{step.start + 1}/{self.starts}", F=f"{step.value:.3g}", step=f"{step.relative_step:.1g}"
            )
