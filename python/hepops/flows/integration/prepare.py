"""Before the estimate: a proposal is learned, tried, looked behind, and mended."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hepops.flows.random import PROBE

from .channels import Channels
from .gaussians import GaussianMixture
from .honesty import enough, probe
from .integrand import Integrand
from .learn import learn
from .peaks import Peak
from .plan import CHECK, DISCRETE, LEARN, LOOK, PILOT, Plan, Prepared
from .proposal import Uniform, substream, uniforms
from .user import UserChannel

ROUNDS = 3  # looks at most
SEEN = 0.5  # of a standard deviation: a lost mass below it does not show in the result


class Preparation:
    """Makes a :class:`Prepared`.

    Args:
        integrand: f.
        plan: What may be spent.
        channels: The user's.
        ask: (points, what for) -> f J there, shape (n, V), NaN where excluded: counts, and remembers.
    """

    def __init__(
        self,
        integrand: Integrand,
        plan: Plan,
        channels: Sequence[UserChannel],
        ask: Callable[[Tensor, str], Tensor],
    ) -> None:
        self.integrand, self.plan, self.channels, self.ask = integrand, plan, channels, ask
        self.domain = integrand.domain

    def size(self, u: Tensor, where: str) -> Tensor:
        return self.integrand.size(self.ask(u, where))

    def __call__(self, prepared: Prepared | None = None) -> Prepared:
        """From nothing, or for a proposal that is there."""
        for i, channel in enumerate(self.channels):
            channel.check(substream(substream(self.plan.seed, CHECK), i))
        if prepared is None:
            self._discrete()
            prepared = self._learn()
        known = self._pilot(prepared, 0)
        for turn in range(ROUNDS):
            budget = self.plan.probe_budget // (1 if turn == 0 else 2)
            if budget < enough(self.domain.dim):
                prepared.notes.append(self._skipped(turn, budget))
                break
            self._look(prepared, known, turn, budget)
            lost = self._lost(prepared)
            prepared.lost = [i for i, _ in lost]
            if not lost or turn == ROUNDS - 1:
                break
            self._mend(prepared, [peak for _, peak in lost])
            known = self._pilot(prepared, turn + 1)
        return prepared

    def _skipped(self, turn: int, budget: int) -> str:
        least = enough(self.domain.dim)
        if turn:
            return f"what the look found was not looked behind again: {budget} evaluations are left, it takes {least}"
        return (
            f"no look for lost peaks was taken: probe_share gives it {budget} evaluations, in {self.domain.dim} "
            f"dimensions it takes {least}"
        )

    def _discrete(self) -> None:
        """The probabilities of indices: from uniform points, a tenth of what learning may cost."""
        n = self.plan.learn_budget // 10
        if self.domain.weights and n > 1:
            u = uniforms(torch.arange(n), self.domain.dim, substream(self.plan.seed, DISCRETE), 0, PROBE)
            size = self.size(u, "learning the probabilities of indices")
            plain = size / self.domain(u)[1]
            self.domain.learn_probabilities(u, (plain / plain.max().clamp(min=1e-300)).square())

    def _learn(self) -> Prepared:
        plan, dim = self.plan, self.domain.dim
        prepared = Prepared(Uniform(dim))
        budget = plan.learn_budget - self.integrand.count
        if budget >= 1000:
            learned = learn(
                lambda u: self.size(u, "learning"),
                dim,
                budget,
                substream(plan.seed, LEARN),
                channels=self.channels,
                candidates=plan.candidates,
                seconds_per_evaluation=plan.seconds_per_evaluation,
            )
            prepared = Prepared(learned.proposal.eval(), history=list(learned.history), notes=list(learned.warnings))
            if learned.candidates:
                best, *rest = learned.candidates
                prepared.name = best.name
                prepared.why = f"ESS {best.ess:.2f}" + "".join(f", {c.name} {c.ess:.2f}" for c in rest)
        elif self.channels:
            prepared = Prepared(Channels([Uniform(dim), *self.channels]), "channels")
        prepared.learning = self.integrand.count
        return prepared

    def _pilot(self, prepared: Prepared, turn: int) -> Tensor:
        """Samples that tell the variance and the largest weights only; returns where those are."""
        before, n = self.integrand.count, self.plan.pilot_budget
        u, log_q = prepared.proposal.sample(n, substream(self.plan.seed, PILOT), step=turn)
        inside = log_q.isfinite()
        u, q = u[inside], log_q[inside].exp()
        values = self.ask(u, "pilot").nan_to_num(0.0)
        weights = values.new_zeros(n, values.shape[1])
        weights[inside] = values / q[:, None]
        size = self.integrand.size(values) / q
        largest = float(size.max()) if len(size) else 0.0
        prepared.scale = unit(largest)
        prepared.sigma = ((weights / prepared.scale).std(0) * prepared.scale).tolist()
        prepared.mean = weights.mean(0).tolist()
        # where every weight is zero, whatever the look finds is a peak
        prepared.largest = largest or 1e-290
        prepared.piloting += self.integrand.count - before
        return u[size.topk(min(8, len(size))).indices]

    def _look(self, prepared: Prepared, known: Tensor, turn: int, budget: int) -> None:
        before = self.integrand.count
        prepared.report = probe(
            lambda u: self.size(u, "looking for lost peaks"),
            prepared.proposal.log_prob,
            self.domain.dim,
            budget,
            substream(substream(self.plan.seed, LOOK), turn),
            largest=prepared.largest,
            known=known,
        )
        prepared.probing += self.integrand.count - before

    def _lost(self, prepared: Prepared) -> list[tuple[int, Peak]]:
        """The peaks whose mass would show in the result, with their numbers in the report."""
        assert prepared.report is not None
        left = max(self.plan.neval - self.integrand.count, 1)
        sdev = math.hypot(*prepared.sigma) / math.sqrt(left)
        return [(i, peak) for i, peak in enumerate(prepared.report.peaks) if peak.mass > SEEN * sdev]

    def _mend(self, prepared: Prepared, lost: list[Peak]) -> None:
        """Gaussians where peaks were found join the proposal, with shares by mass."""
        total = math.hypot(*prepared.mean) + sum(peak.mass for peak in lost)
        shares = torch.tensor([max(peak.mass / total, 0.02) for peak in lost], dtype=torch.float64)
        shares = shares * min(1.0, 0.9 / float(shares.sum()))
        factors = torch.stack([_factor(peak.covariance) for peak in lost])
        patch = GaussianMixture.of(shares, torch.stack([peak.mean for peak in lost]), factors)
        share = float(shares.sum())
        prepared.proposal = Channels([prepared.proposal, patch], [1 - share, share])
        places = self.domain(torch.stack([peak.at for peak in lost]))[0].tolist()
        where = "; ".join(", ".join(f"{x:.4g}" for x in place) for place in places)
        prepared.notes.append(f"the look for lost peaks found what learning had missed, now sampled, at x = {where}")
        prepared.name += " + found peaks"


def unit(largest: float) -> float:
    """What weights are divided by before they are squared: 1, or a power of two where squares leave the doubles."""
    power = math.frexp(largest)[1]
    return math.ldexp(1.0, min(max(power, -1000), 1000)) if abs(power) > 300 else 1.0


def _factor(covariance: Tensor) -> Tensor:
    """A Cholesky factor, a little wider, of what may be singular."""
    ridge = 1e-6 * covariance.diagonal().mean() + 1e-24
    return torch.linalg.cholesky(1.1 * covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
