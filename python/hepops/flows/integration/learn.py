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

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .channels import Channels, learn_shares
from .flow import FlowProposal, train
from .gaussians import GaussianMixture, fit, split
from .pool import Counted, Pool, effective
from .proposal import Proposal, Uniform, substream
from .tempered import compress, defended, fit_best, tempered
from .vegas import VegasMap

GOOD = 0.93  # ESS beyond which more learning cannot pay: the uniform share alone costs three hundredths
FLOW_BELOW = 0.85  # a flow costs several times the others: it cannot win from above


@dataclass(frozen=True)
class Candidate:
    """A proposal that competed, and how it did on samples that no one learned from.

    Attributes:
        name: "uniform", "map", "strata", "mixture" (and "mixture before" it grew), "flow"; each "and channels" again.
        proposal: It, with its uniform share.
        ess: (int |f|)^2 / int f^2/q, in [0, 1], from fresh samples of all candidates; 0 where all weights were zero.
        max_weight: Largest |w| over the mean of |w|, among the same.
        seconds: Per sample: the proposal's nominal cost plus that of f.
        rate: ess / seconds, what the choice maximises.
    """

    name: str
    proposal: Proposal
    ess: float
    max_weight: float
    seconds: float
    rate: float


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


class _Learner:
    """The state that the stages share."""

    def __init__(
        self,
        f: Counted,
        dim: int,
        seed: int,
        uniform_share: float,
        seconds_per_evaluation: float,
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.f, self.dim, self.seed = f, dim, seed
        self.uniform_share, self.seconds_f = uniform_share, seconds_per_evaluation
        self.progress = progress
        self.history: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.pool = Pool(dim)
        self.candidates: dict[str, Proposal] = {}
        self.batch = min(max(f.budget // 30, 200), 16_000)
        self.draws = 0

    def report(self, **entry: Any) -> None:
        entry = {"evaluations": self.f.used, **entry}
        self.history.append(entry)
        if self.progress is not None:
            self.progress(entry)

    def draw(self, pool: Pool, proposal: Proposal, n: int) -> float:
        """Samples into a pool; the effective samples per sample of what was drawn."""
        self.draws += 1
        log_w = self.f.draw(pool, proposal, n, substream(self.seed, self.draws))
        return effective(log_w[log_w > -math.inf]) / max(1, len(log_w))

    def rate(self, ess: float, proposal: Proposal) -> float:
        return ess / (self.seconds_f + proposal.cost())

    # ---- the stages

    def map(self, iterations: int = 12, kept: int = 3) -> VegasMap:
        """VEGAS, each iteration on its own samples; ends where the last three gained nothing.

        The last iterations' samples join the pool: those of maps that were still bad would cost it more than they tell.
        """
        seen: list[float] = []
        pools: list[Pool] = []
        current = VegasMap(self.dim, increments=min(max(self.batch // 64, 16), 256))
        for _ in range(iterations):
            own = Pool(self.dim)
            seen.append(self.draw(own, current, self.batch))
            self.report(stage="map", ess=seen[-1])
            pools = [*pools, own][-kept:]
            if seen[-1] > 0.98 or (len(seen) > 5 and max(seen[-3:]) < 1.02 * max(seen[:-3])):
                break
            current = self.refined(current, own)
        for own in pools:
            self.pool = self.pool.merged(own)
        return current

    def refined(self, old: VegasMap, pool: Pool, alpha: float = 1.0) -> VegasMap:
        new = copy.deepcopy(old)
        new.refine(pool.x, 2 * pool.log_f - pool.log_mix, alpha)
        return new

    def strata(self, old: VegasMap, steps: int = 3) -> VegasMap:
        """The map of all samples, if that is better, then hypercubes of some 30 samples each."""
        pool = self.pool
        best, best_ess, new = old, pool.ess(old.log_prob(pool.x)), old
        for _ in range(steps):
            new = self.refined(new, pool, 0.75)
            ess = pool.ess(new.log_prob(pool.x))
            if ess > best_ess:
                best, best_ess = new, ess
        self.candidates["map"] = defended(best, self.uniform_share)
        strata = int((pool.drawn / 30) ** (1 / self.dim))
        if strata > 1:
            cubed = VegasMap(self.dim, best.increments, strata)
            cubed.edges.copy_(best.edges)
            cubed.stratify(pool.x, pool.log_f, pool.log_mix)
            self.candidates["strata"] = defended(cubed, self.uniform_share)
        self.report(stage="strata", ess=best_ess, strata=strata)
        return best

    def mixture(self, budget: int, components: int = 16, most: int = 128) -> GaussianMixture | None:
        """The tempered start, then rounds of fresh samples, each with twice the components while that pays."""
        end = self.f.used + budget
        pool, mixture, b = tempered(
            self.f,
            self.dim,
            budget * 2 // 3,
            substream(self.seed, 1 << 20),
            batch=self.batch,
            components=12,
            uniform_share=self.uniform_share,
            report=self.report,
        )
        if mixture is None:
            return None
        if b < 1:
            self.warnings.append(f"the tempered start reached b = {b:.3f} of 1 within its budget")
        rates: list[tuple[float, GaussianMixture]] = []
        count = components
        for turn in range(8):
            n = min(2 * self.batch, end - self.f.used)
            if n < self.batch // 2:
                break
            proposal = defended(mixture, self.uniform_share)
            ess = self.draw(pool, proposal, n)
            rates.append((self.rate(ess, proposal), mixture))
            self.report(stage="mixture", ess=ess, components=mixture.components)
            gained = turn == 0 or rates[-1][0] > 1.03 * max(r for r, _ in rates[:-1])
            if turn > 1 and (not gained or ess > GOOD or count > most):
                mixture = max(rates, key=lambda r: r[0])[1]
                break
            seed = substream(self.seed, (1 << 21) + turn)
            mixture = self.grown(pool, mixture, count, seed)
            count = count if turn == 0 else 2 * count
        self.pool = self.pool.merged(pool)
        self.candidates["mixture"] = defended(mixture, self.uniform_share)
        if rates and (best := max(rates, key=lambda r: r[0])[1]) is not mixture:
            # the budget ended before the last one was tried: the choice will tell
            self.candidates["mixture before"] = defended(best, self.uniform_share)
        return mixture

    def grown(self, pool: Pool, mixture: GaussianMixture, components: int, seed: int) -> GaussianMixture:
        log_w = pool.log_weights()
        if components <= 16:
            return fit_best(pool, log_w, mixture, components, 20_000, seed)
        components = min(components, int(effective(log_w) / (3 * (self.dim + 1))))
        x, w = compress(pool, log_w, 40_000, seed)
        while mixture.components < components:
            terms = mixture.terms(x)
            # f/q, the excess that a component leaves: more where more is wrong
            score = (terms.softmax(1) * w[:, None]).sum(0)
            mixture = split(mixture, score, components)
        return fit(x, w, mixture, steps=12)[0]

    def flow(self, below: VegasMap, steps: int, rounds: int = 2) -> None:
        """A flow on the map, trained on all samples, then on its own as well."""
        if self.dim < 2 or effective(self.pool.log_weights()) < 1000:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(substream(self.seed, 1 << 22) >> 1)
            flow = FlowProposal(below)
        for turn in range(rounds):
            losses = train(
                flow,
                self.pool,
                steps=steps,
                seed=substream(self.seed, (1 << 23) + turn),
                uniform_share=self.uniform_share,
                rate=1e-2 if turn == 0 else 3e-3,
            )
            proposal = defended(copy.deepcopy(flow).requires_grad_(False), self.uniform_share)
            self.candidates["flow"] = proposal
            last = turn == rounds - 1
            ess = 0.0 if last else self.draw(self.pool, proposal, min(4 * self.batch, max(0, self.f.left // 2)))
            self.report(stage="flow", loss=losses[-1], **({} if last else {"ess": ess}))
            if ess > FLOW_BELOW:
                break

    def with_users(self, channels: Sequence[Proposal]) -> None:
        """Every candidate again with the user's channels beside it, shares learned."""
        for name in list(self.candidates):
            own = self.candidates[name]
            members = [*own.channels, *channels] if isinstance(own, Channels) else [own, *channels]
            mixed = Channels(members)
            least = torch.zeros(len(members), dtype=torch.float64)
            least[1 if isinstance(own, Channels) else 0] = self.uniform_share
            terms = mixed.terms(self.pool.x)
            mixed.set_shares(learn_shares(terms, 2 * self.pool.log_f - self.pool.log_mix, least))
            self.candidates[f"{name} and channels"] = mixed

    def choose(self, n: int) -> tuple[Candidate, ...]:
        """Fresh samples of all candidates, pooled, decide."""
        fresh = Pool(self.dim)
        each = max(1, n // len(self.candidates))
        for proposal in self.candidates.values():
            self.draw(fresh, proposal, each)
        if not len(fresh.x):
            fresh = self.pool
        found = []
        for name, proposal in self.candidates.items():
            log_q = proposal.log_prob(fresh.x)
            ess = fresh.ess(log_q)
            log_w = fresh.log_f - log_q
            mean = torch.logsumexp(fresh.log_weights(), 0) if len(fresh.x) else torch.tensor(0.0)
            top = math.exp(float(log_w.max() - mean)) if len(fresh.x) else 0.0
            seconds = self.seconds_f + proposal.cost()
            found.append(Candidate(name, proposal, ess, top, seconds, ess / seconds))
        return tuple(sorted(found, key=lambda c: -c.rate))


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
        The best proposal and the account of how it was found.
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
    state = _Learner(Counted(f, budget), dim, seed, uniform_share, seconds_per_evaluation, progress)
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
