"""Learning a proposal from evaluations of f: a map, a mixture and a flow compete.

In turn, each stage as long as its budget lasts and it gains:

1. map: VEGAS iterations, the edges refined from all samples so far;
2. tempered: the tempered start of a Gaussian mixture, on its own samples, lest the map hide a peak from it;
3. mixture: more components while they pay;
4. strata: the map again, from all samples, then VEGAS+'s shares of hypercubes;
5. flow: on the map, where nothing so far is good, trained on all samples, two rounds;
6. choice: fresh samples of every candidate, pooled, so that one that lost a peak which another has is punished.

The choice is by effective samples per second, counting f's own time and the proposals' nominal costs, not a clock's:
the same seed gives the same proposal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .pool import Counted
from .proposal import Proposal, Uniform
from .stages import FLOW_BELOW, Stages
from .stages import Candidate as Candidate


@dataclass(frozen=True)
class Learned:
    """What :func:`learn` found.

    Attributes:
        proposal: The best candidate's, a uniform share within.
        candidates: All that competed, the best first.
        history: One plain dict per step of learning: "stage", "evaluations" (so far), "ess", and what the stage adds.
        evaluations: Of f, all of them; never above the budget.
        excluded: Evaluations that were not finite, and counted as zero.
        warnings: What the user must know (no weight was ever non-zero; the start never reached b = 1 ...).
    """

    proposal: Proposal
    candidates: tuple[Candidate, ...]
    history: tuple[dict[str, Any], ...]
    evaluations: int
    excluded: int = 0
    warnings: tuple[str, ...] = field(default=())


def learn(
    f: Callable[[Tensor], Tensor],
    dim: int,
    budget: int = 500_000,
    seed: int = 0,
    *,
    channels: Sequence[Proposal] = (),
    candidates: Sequence[str] = ("map", "mixture", "flow"),
    uniform_share: float = 0.03,
    seconds_per_evaluation: float = 1e-5,
    flow_steps: int = 600,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Learned:
    """Learns a proposal of |f| on the unit cube.

    Args:
        f: x, shape (n, dim), float64, in the cube -> values, shape (n,): signed ones count by their absolute value, a
            vector integrand gives its norm. Values that are not finite count as zero.
        dim: d.
        budget: Evaluations of f at most.
        seed: Names every number that is drawn: the same seed gives the same proposal.
        channels: The user's own channels; they join every candidate with learned shares.
        candidates: Which kinds compete; the uniform density always does.
        uniform_share: The share of the uniform channel in what is returned.
        seconds_per_evaluation: The cost of f, and of what follows each sample: with a costly f a flow's better ESS pays
            for its networks, with one of nanoseconds the map always wins.
        flow_steps: Of training, in each of two rounds.
        progress: Called with each entry of the history as it is made.

    Returns:
        The best proposal and the account of how it was found. Nothing in it depends on a clock or on threads' order.

    Raises:
        ValueError: An argument is none of these, or f gives another shape. What f raises itself passes through.

    Example:
        >>> ring = hepops.flows.integration.integrands.ring
        >>> found = hepops.flows.integration.learn(ring, 2, budget=60_000, seed=1, candidates=("mixture",))
        >>> found.candidates[0].name, found.candidates[0].ess > 0.9, found.evaluations <= 60_000
        ('mixture', True, True)
        >>> x, log_q = found.proposal.sample(20_000, seed=2)
        >>> kept = log_q.isfinite()  # the others lie outside the cube: their weight is zero
        >>> w = ring(x[kept]) * torch.exp(-log_q[kept])
        >>> bool((w.sum() / len(x) - ring.exact).abs() < 0.02 * ring.exact)
        True
    """
    unknown = set(candidates) - {"map", "mixture", "flow"}
    if unknown:
        raise ValueError(f"learn: candidates must be of map, mixture and flow, got {sorted(unknown)}")
    if budget < 1:
        raise ValueError(f"learn: budget must be positive, got {budget}")
    if not 0 < uniform_share < 1:
        raise ValueError(f"learn: uniform_share must be in (0, 1), got {uniform_share}")
    if any(channel.dim != dim for channel in channels):
        raise ValueError(f"learn: channels must be of dim {dim}, got {[channel.dim for channel in channels]}")
    state = Stages(Counted(f, budget), dim, seed, uniform_share, seconds_per_evaluation, progress)
    state.candidates["uniform"] = Uniform(dim)
    final = max(1, min(budget // 8, 40_000))  # kept for the choice
    state.f.budget -= final
    ess = state.draw(state.pool, Uniform(dim), state.batch)
    state.report(stage="uniform", ess=ess)
    for channel in channels:
        state.report(stage="channel", ess=state.draw(state.pool, channel, state.batch))
    if ess < 0.97:
        below = state.map() if {"map", "flow"} & set(candidates) else None
        if "mixture" in candidates:
            state.mixture(min(state.f.left, max(budget // 2, 4 * state.batch)))
        if len(state.pool.x):
            if below is not None:
                below = state.strata(below)
            if channels:
                state.with_users(channels)
            best = max(state.pool.ess(p.log_prob(state.pool.x)) for p in state.candidates.values())
            if below is not None and "flow" in candidates and best < FLOW_BELOW:
                state.flow(below, flow_steps)
                if channels:
                    state.with_users(channels)
    state.f.budget += final
    found = state.choose(final)
    if not len(state.pool.x) and found[0].ess == 0:
        state.warnings.append(f"f was zero at all of {state.f.used} points")
        found = tuple(sorted(found, key=lambda c: c.name != "uniform"))
    if state.f.excluded:
        state.warnings.append(f"{state.f.excluded} of {state.f.used} values of f were not finite and count as zero")
    return Learned(
        found[0].proposal,
        found,
        tuple(state.history),
        state.f.used,
        state.f.excluded,
        tuple(state.warnings),
    )
