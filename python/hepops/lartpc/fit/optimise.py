r"""Levenberg-Marquardt on an exact Jacobian, and Adam; both go on from any `State`.

A step solves :math:`(H + \lambda D) s = -g`, D the largest diagonal of H met so far. With the gain ratio, actual over
predicted decrease of F, :math:`\lambda` falls (to a tenth at best) or grows (twice, four times ...). The robust scale
is held fixed within a step and read again after it. The decrease is taken over the residuals that both points have:
where a hit crosses the threshold on the way, F jumps, which says nothing about the slope.

A stage has converged when a step changes no parameter by more than `tolerance` of its value (a hundredth for all
stages but the last), or promises to lower F by no more than its rounding, 1e-12 of it (1e-7 in single precision). A
fit that finds no lower value although :math:`\lambda` has grown beyond 1e8 has stalled: it counts as converged if the
expected distance to the minimum, :math:`\frac12 g^T H^{-1} g`, is below 1e-4, a hundredth of a sigma. A likelihood,
whose F is in units of its own error, has also converged when a step promises to lower it by no more than 1e-5: scoring
with the information of toys (metric.py) converges linearly, and less than 0.005 sigma is of no use.

References:
    | K. Levenberg, Q. Appl. Math. 2 (1944) 164; D. W. Marquardt, SIAM J. Appl. Math. 11 (1963) 431
    | H. B. Nielsen, Damping parameter in Marquardt's method, IMM-REP-1999-05 (1999)
    | D. P. Kingma, J. Ba, Adam, ICLR (2015), arXiv:1412.6980
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arrow import Arrow
from .data import FileBatch
from .metric import Metric, led_astray, remembered
from .problem import Batch, Model, Point, Problem, ordered_sum, shifted
from .readout import seen, thresholds
from .residuals import LikelihoodObject, Residual
from .robust import Robust
from .sections import terms_of
from .space import CHIP, FARTHEST, TIME_OFFSET
from .state import Finish, State, Step

Loss = Callable[..., Tensor]  # (simulated hits, measured hits) -> a tensor of one number
Objective = Residual | LikelihoodObject | Loss
Save = Callable[[State], None]

COARSE = 1e-2  # every stage but the last ends with steps below this
LONGEST = 2.0  # no parameter moves further in one step, in u: a quarter of its range turns into nine tenths
GIVE_UP = 1e8  # lambda beyond which a fit has stalled
NEAR = 1e-4  # expected distance to the minimum, in F, that counts as there
# by precision: a decrease below this share of F is rounding; without noise F vanishes too, and the step decides
FLAT = {torch.float64: 1e-12, torch.float32: 1e-7}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-5}  # smallest relative step that rounding leaves a meaning
SEED = 20211  # of the toys of metrics
EDM = 1e-5  # what a step of a likelihood's fit must promise to be worth while
SINGULAR = 1e-10  # smallest eigenvalue of the scaled information that a fit may begin with


@dataclass(frozen=True)
class Settings:
    max_iterations: int
    tolerance: float
    flat: float
    learning_rate: float
    batched: bool
    seed: int


def robust_of(objective: Objective) -> Robust | None:
    return getattr(objective, "robust", None)


def levenberg_marquardt(problem: Problem, stages: Sequence[Objective], state: State, go: Settings, save: Save) -> None:
    """Run the present start from `state` to its end, saving after every iteration."""
    point: Point | None = None
    metrics: dict[int, Metric] = {}
    while not state.ended:
        objective = stages[state.stage]
        assert isinstance(objective, (Residual, LikelihoodObject))
        if isinstance(objective, LikelihoodObject) and state.stage not in metrics:
            metrics[state.stage] = Metric(problem, objective)
        last = state.stage == len(stages) - 1
        batches = _turn(problem, state, go) if go.batched and not last else problem.batches
        if point is None:
            point = problem.at(state.point, objective, batches)
            if not state.iteration:
                refuse_hopeless(point, problem, robust_of(objective))
        tolerance, metric = go.tolerance if last else COARSE, metrics.get(state.stage)
        point, done = attempt(problem, objective, batches, state, point, tolerance, go.flat, metric)
        if go.batched and not last:
            point = None  # the next iteration sees other events
            done = done or state.in_stage >= len(problem.batches)
        _advance(state, done, last, go.max_iterations)
        if state.in_stage == 0:
            point = None
        save(state)


def _advance(state: State, done: bool, last: bool, most: int) -> None:
    """To the next stage, or to the end of this start. A stage that is not the last may stall: the next one goes on."""
    if done and last:
        state.ended, state.converged = state.ended or "converged", True
    elif done or (state.ended and not last):
        state.stage, state.in_stage, state.damping, state.growth, state.diagonal = state.stage + 1, 0, 1e-3, 2.0, []
        state.metric, state.pairs = [], []
        state.ended = ""
    elif not state.ended and state.iteration >= most:
        state.ended = f"not converged after {most} iterations"


def _turn(problem: Problem, state: State, go: Settings) -> list[Batch | FileBatch]:
    """The batch of this iteration: every epoch visits all of them in an order of its own."""
    epoch, place = divmod(state.in_stage, len(problem.batches))
    generator = torch.Generator().manual_seed(go.seed + 7919 * epoch + 104729 * state.start)
    order = torch.randperm(len(problem.batches), generator=generator)
    return [problem.batches[int(order[place])]]


def attempt(
    problem: Problem,
    objective: Residual | LikelihoodObject,
    batches: Sequence[Batch | FileBatch],
    state: State,
    point: Point,
    tolerance: float,
    flat: float,
    metric: Metric | None = None,
    frozen: Tensor | None = None,
) -> tuple[Point, bool]:
    """Try one step; returns the point where the fit now stands, and whether the stage is done."""
    space, robust = problem.space, robust_of(objective)
    scales = point.scales(robust)
    known = point
    if metric is not None:
        known, state.metric = metric.of(point, batches, state.metric, state.pairs, SEED)
    model = known.model(space, robust, scales)
    held = _held(point, model, frozen)
    diagonal = torch.maximum(model.information.diagonal, torch.tensor(state.diagonal or [0.0], dtype=torch.float64))
    step, held, cut = _step(model, diagonal, state.damping, held, point, problem)
    step = problem.unknowns.inside(point.x + step) - point.x
    predicted = -float(model.gradient @ step + step @ model.information.times(step) / 2)
    whole = batches is problem.batches  # else the next iteration sees other events, and has no use for derivatives
    trial = problem.at(point.x + step, objective, batches, derivatives=whole)
    decrease = point.decrease(trial, space, robust, scales)
    gain = decrease / predicted if predicted > 0 else 0.0
    relative = space.relative(trial.p - point.p, point.p)
    enough = max(flat * abs(model.value), EDM if isinstance(objective, LikelihoodObject) else 0.0)
    single = bool(problem.unknowns.families) and isinstance(objective, LikelihoodObject)  # deviations go on moving
    small = not cut and (0 <= predicted < enough or (relative < tolerance and not single))
    accepted = gain > 1e-4 or (small and decrease >= 0)
    damping = state.damping
    state.diagonal = diagonal.tolist()
    if accepted:
        state.u, state.growth = trial.x.tolist(), 2.0
        state.damping = max(1e-12, state.damping * max(0.1, 1 - (2 * min(gain, 1.0) - 1) ** 3))
        if isinstance(objective, LikelihoodObject) and gain < 0.5 and not small:
            # H / I = 2 - gain along the step: the data curve more than toys do, and the step went too far
            state.damping = max(state.damping, 1 - gain)
    else:
        state.damping, state.growth = max(1e-4, state.damping * state.growth), 2 * state.growth
    new = trial if accepted else point
    if metric is not None and whole and accepted and not len(point.x[problem.unknowns.dense :]):
        state.pairs = remembered(state.pairs, point, trial)
    if state.metric and state.metric != new.x.tolist() and led_astray(accepted, gain, small):
        state.metric, state.diagonal, state.pairs = [], [], []
    state.iteration += 1
    state.in_stage += 1
    row = (state.start, state.stage, state.iteration, accepted, model.value, relative, damping, gain)
    state.trace.append(Step(*row, tuple(new.p.tolist()), dict(new.report)))
    stalled = not accepted and (state.damping > GIVE_UP or (small and damping < 1))
    if stalled:
        distance = _distance(model, held)
        if distance >= NEAR:
            state.ended = f"stalled: no lower value found, expected distance to the minimum {distance:.2g}"
            return new, False
        state.ended = f"converged: no lower value, expected distance to the minimum {distance:.2g}"
    return new, stalled or (accepted and small and damping < 1)


def _held(point: Point, model: Model, frozen: Tensor | None) -> Tensor:
    """Parameters that the gradient would move beyond the end of their range, and those that are frozen (K + M)."""
    k = len(point.u)
    held = torch.zeros(len(point.x), dtype=torch.bool) if frozen is None else frozen.clone()
    held[:k] |= (point.u.abs() > FARTHEST - 1e-9) & (model.gradient[:k] * point.u < 0)
    return held


def _step(
    model: Model, diagonal: Tensor, damping: float, held: Tensor, point: Point, problem: Problem
) -> tuple[Tensor, Tensor, bool]:
    """The damped step, what it holds (also what it would itself move beyond an end), and whether it was cut short.

    A parameter at its end may have a gradient that points inside and a step that points outside, as others move; that
    step is so long, where dp/du vanishes, that the limit on its length would stop all others.
    """
    floor = torch.where(diagonal > 0, diagonal.clamp_min(1e-12 * float(diagonal.max()) + 1e-300), 0.0)
    damped, size = model.information.plus_diagonal(damping * floor), len(point.u)
    at_end = torch.zeros_like(held)
    at_end[:size] = point.u.abs() > FARTHEST - 1e-9
    for _ in range(size):
        step = damped.solve(-model.gradient, held)
        beyond = at_end & ~held & (step * point.x > 0)
        if not bool(beyond.any()):
            break
        held = held | beyond
    k, most = problem.unknowns.dense, problem.unknowns.longest()
    share = min(1.0, float((most[:k] / step[:k].abs().clamp_min(1e-300)).min()))
    return torch.cat((step[:k] * share, (step[k:] * share).clamp(-most[k:], most[k:]))), held, share < 1


def _distance(model: Model, held: Tensor) -> float:
    """Half g^T H^-1 g: how far below F the minimum is expected, within the range."""
    gradient = model.gradient.masked_fill(held, 0.0)
    return float(gradient @ model.information.solve(gradient, held)) / 2


def refuse_hopeless(point: Point, problem: Problem, robust: Robust | None) -> None:
    """No hits in common, no influence, or directions that no data can tell: say so before the first step."""
    r = point.residuals
    if r is not None and not len(r.values):
        alone = f"{r.report['simulated_only']} simulated, {r.report['measured_only']} measured"
        raise ValueError(
            f"measured: no pixel or hit has a partner on the other side ({alone}): do segments, events and detector "
            f"belong to these hits?"
        )
    names = problem.space.names
    information = point.model(problem.space, robust, point.scales(robust)).information
    if not bool(torch.isfinite(information.diagonal).all()) or not bool(torch.isfinite(information.corner).all()):
        what = "simulated hits" if r is not None else "likelihood"
        raise ValueError(f"the {what} or their tangents are not finite at the start")
    dead = [name for name, d in zip(names, information.diagonal.tolist(), strict=False) if not d > 0]
    if r is not None:  # of a first stage: what only the likelihood knows (noise, thresholds) comes later
        dead = [name for name in dead if name not in CHIP]
    if dead:
        raise ValueError(f"parameters: {', '.join(dead)} has no influence on these hits; fix it or give it a prior")
    refuse_singular(information, (*names, *problem.unknowns.labels))


def refuse_singular(information: Arrow, names: Sequence[str]) -> None:
    """Directions that these data cannot tell, single unknowns left free, by name."""
    matrix = information.schur()
    diagonal = information.corner.diagonal()
    known = diagonal > 0
    size = diagonal[known].rsqrt()
    values, vectors = torch.linalg.eigh(matrix[known][:, known] * size * size[:, None])
    if len(values) and float(values[0]) < SINGULAR:
        chosen = [name for name, there in zip(names, known.tolist(), strict=False) if there]
        parts = zip(chosen, vectors[:, 0].abs().tolist(), strict=True)
        guilty = [name for name, part in parts if part > 0.1]
        raise ValueError(
            f"parameters: the information is singular (smallest eigenvalue {float(values[0]):.1g}): these hits cannot "
            f"tell {' and '.join(guilty)} apart; fix one of them or give it a prior"
        )


def adam(problem: Problem, stages: Sequence[Objective], state: State, go: Settings, save: Save) -> None:
    """Adam on u with a learning rate that falls as a cosine; batches of events in turn, an order per epoch."""
    (objective,) = stages[-1:]
    while not state.ended:
        batches = _turn(problem, state, go) if go.batched else problem.batches
        rate = go.learning_rate * 0.5 * (1 + math.cos(math.pi * state.iteration / go.max_iterations))
        u = state.point[: len(problem.space)].requires_grad_()
        before, slope = problem.space.physical(u.detach())
        value, gradient, report = gradient_of(problem, objective, before, batches)
        u.grad = gradient * slope
        _adam_step(u, state, rate)
        state.u = u.detach().tolist()
        p, _ = problem.space.physical(u.detach())
        relative = problem.space.relative(p - before, before)
        state.iteration += 1
        state.in_stage += 1
        row = (state.start, len(stages) - 1, state.iteration, True, value, relative, rate, 0.0)
        state.trace.append(Step(*row, tuple(p.tolist()), report))
        if not math.isfinite(value):
            state.ended = f"the loss is {value}"
        elif state.iteration >= go.max_iterations:
            state.ended, state.converged = f"all {go.max_iterations} iterations done", relative < go.tolerance
        elif relative < go.tolerance:
            state.ended, state.converged = "converged", True
        save(state)


def _adam_step(u: Tensor, state: State, rate: float) -> None:
    """One step of torch.optim.Adam, whose moments live in the state."""
    optimiser = torch.optim.Adam([u], lr=rate)
    if state.moments:
        kept = {name: torch.tensor(state.moments[name], dtype=torch.float64) for name in ("exp_avg", "exp_avg_sq")}
        optimiser.state[u] = {"step": torch.tensor(float(state.iteration)), **kept}
    optimiser.step()
    moments = optimiser.state[u]
    state.moments = {name: moments[name].tolist() for name in ("exp_avg", "exp_avg_sq")}


def gradient_of(
    problem: Problem, objective: Objective, p: Tensor, batches: Sequence[Batch | FileBatch]
) -> tuple[float, Tensor, dict[str, int]]:
    """The loss at physical values `p` and its gradient with respect to them (K), in reverse mode."""
    space = problem.space
    for name, number in zip(space.names, p.tolist(), strict=True):
        problem.set(name, number)
    offset = p[space.names.index(TIME_OFFSET)].clone().requires_grad_() if TIME_OFFSET in space.names else None
    owned = [k for k, name in enumerate(space.names) if name not in CHIP]  # the others move no hit
    leaves: list[Any] = [
        offset if space.names[k] == TIME_OFFSET else getattr(problem.sim, space.names[k]) for k in owned
    ]
    value, gradient, report = 0.0, torch.zeros_like(p), {"matched": 0, "simulated_only": 0, "measured_only": 0}
    for batch in batches:
        if isinstance(objective, LikelihoodObject):
            terms = terms_of(problem.sim, problem.unknowns, p, p, objective, [batch], True)
            value, gradient = value + terms.value, gradient + terms.gradient
            continue
        hits = problem.sim(batch.segments, seed=None, **thresholds(objective, space.names, p))
        hits = hits if offset is None else shifted(hits, offset, space.names, False)
        measured = seen(objective, problem.sim.detector, batch.measured)
        loss, counts = _loss(objective, seen(objective, problem.sim.detector, hits), measured)
        grads: Sequence[Tensor | None] = (
            torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else [None] * len(leaves)
        )
        for k, g in zip(owned, grads, strict=True):
            gradient[k] += 0.0 if g is None else g.detach().to(p)
        value += loss.item()
        report = {name: count + counts.get(name, 0) for name, count in report.items()}
    share = sum(batch.events for batch in batches) / problem.num_events
    off = p - space.prior_mean
    prior = space.prior_weight * off * share
    return value + float((prior * off).sum()) / 2, gradient + prior, report


def _loss(objective: Objective, simulated: object, measured: object) -> tuple[Tensor, dict[str, int]]:
    """A tensor of one number with a graph, and what was counted."""
    if not isinstance(objective, Residual):
        assert callable(objective)
        return objective(simulated, measured), {}
    r = objective(simulated, measured)  # type: ignore[arg-type]
    scales = torch.stack([objective.robust.scale(r.values[r.kind == kind]) for kind in (0, 1)])
    missing = r.missing / 2 * objective.robust.missing(scales).sum()
    return ordered_sum(objective.robust.rho(r.values, scales[r.kind])) + missing, dict(r.report)


def finish(problem: Problem, objective: Objective, state: State) -> Finish:
    """How the present start ended: the value of the objective on all events."""
    p, _ = problem.space.physical(state.point[: len(problem.space)])
    if isinstance(objective, (Residual, LikelihoodObject)):
        point = problem.at(state.point, objective, problem.batches)
        robust = robust_of(objective)
        scale = robust.floor if robust is not None else 1.0  # one for all starts, or they could not be compared
        value = point.value(problem.space, robust, torch.full((2,), scale, dtype=torch.float64))
    else:
        value, _, _ = gradient_of(problem, objective, p, problem.batches)
    parameters = tuple(p.tolist())
    end = (value, state.converged, state.ended, state.iteration)
    return Finish(tuple(state.starts[state.start]), tuple(state.u), parameters, *end)
