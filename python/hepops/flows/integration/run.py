"""One integration from its first evaluation to its estimate, which a kill may interrupt anywhere.

Two phases. While the proposal is prepared every number that f gave is kept in a journal: a run that is taken up again
walks the same way, and reads the journal before it calls f, so that it arrives at the same bits. Then the proposal is
stored, and the estimate is a sum over blocks of samples that nothing was learned from, stored after each iteration.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import storage
from .domain import Domain
from .integrand import Integrand
from .plan import ESTIMATE, Plan, Prepared, pack, unpack
from .prepare import Preparation
from .proposal import BLOCK, substream
from .sums import HEAD, Moments, block_row
from .user import UserChannel, given

PAUSE = 2.0  # seconds between writes of the journal: all that a kill loses


class Run:
    """Carries an integration through its phases.

    Args:
        integrand: f.
        plan: How neval is spent.
        prepared: A proposal from before; None learns one.
        channels: The user's.
        checkpoint: Where to store the state; read first if it is there.
        say: Told (calls of f so far, what goes on).
    """

    def __init__(
        self,
        integrand: Integrand,
        plan: Plan,
        prepared: Prepared | None,
        channels: Sequence[UserChannel],
        checkpoint: Path | None,
        say: Callable[[int, str], None],
    ) -> None:
        self.integrand, self.plan, self.prepared, self.channels = integrand, plan, prepared, channels
        self.checkpoint, self.say = checkpoint, say
        self.journal: list[Tensor] = []  # a mark of the points and the values, in turn
        self.read = 0
        self.ready = False
        self.rows: list[Tensor] = []  # of each iteration's blocks
        self.kept: list[Tensor] = []  # of each iteration's first block: u, weights, inside
        self.written = time.monotonic()
        if checkpoint is not None and bool(integrand.ranks.first(checkpoint.exists())):
            self._restore(checkpoint)

    def __call__(self, deadline: float) -> Prepared:
        """All that is not done yet; no iteration but the first two begins after the deadline (time.monotonic())."""
        if not self.ready:
            self.prepared = Preparation(self.integrand, self.plan, self.channels, self.ask)(self.prepared)
            self.journal, self.ready = [], True
            self._store()
        assert self.prepared is not None
        sizes = self.plan.sizes(self.prepared)
        for t in range(len(self.rows), len(sizes)):
            if t > 1 and bool(self.integrand.ranks.first(time.monotonic() > deadline)):
                self.prepared.warnings.append(f"the time was over after {t} of {len(sizes)} iterations")
                break
            self._iteration(self.prepared, t, sizes[t])
            self._store()
        return self.prepared

    def ask(self, u: Tensor, where: str) -> Tensor:
        """f J at points that every rank holds, shape (n, V): from the journal if it was asked before."""
        mark = torch.cat([torch.tensor([float(len(u))], dtype=torch.float64), u.detach().sum(0).cpu()])
        if 2 * self.read < len(self.journal):
            old, values = self.journal[2 * self.read : 2 * self.read + 2]
            if not torch.equal(old, mark):
                raise ValueError(
                    f"{self.checkpoint}: this run went another way than the stored one in {where}: other settings, "
                    "another version, or an integrand that does not repeat itself"
                )
            self.integrand.count += len(u)
            self.integrand.excluded += int(values.isnan().any(1).sum())
            values = values.to(u.device)
        else:
            values = self.integrand.everywhere(u, where)
            if self.checkpoint is not None:
                self.journal += [mark, values.cpu()]
                if time.monotonic() > self.written + PAUSE:
                    self._store()
        self.read += 1
        self.say(self.integrand.count, where)
        return values

    def _iteration(self, prepared: Prepared, t: int, n: int) -> None:
        """The sums of n samples: each rank makes those of its blocks, and all learn all."""
        integrand, ranks = self.integrand, self.integrand.ranks
        blocks, dim = -(-n // BLOCK), integrand.domain.dim
        rows: dict[int, Tensor] = {}
        head: Tensor | None = None
        error: Exception | None = None
        try:
            group, mine = max(integrand.batch // BLOCK, 1), ranks.mine(blocks)
            for start in range(0, len(mine), group):
                part = mine[start : start + group]
                results = self._weigh(prepared, [(b * BLOCK, min(n - b * BLOCK, BLOCK)) for b in part], t)
                rows |= {b: block_row(*result) for b, result in zip(part, results, strict=True)}
                if part[0] == 0:
                    weights, _, inside, _, u = results[0]
                    head = torch.cat([u, weights, inside[:, None]], 1)
        except Exception as failure:
            error = failure
        integrand.settle(error)
        v = integrand.components or 1
        table = torch.zeros(blocks, HEAD + dim + v + v * v, dtype=torch.float64)
        for b, row in rows.items():
            table[b] = row
        nothing = torch.zeros(min(n, BLOCK), dim + v + 1, dtype=torch.float64)
        self.rows.append(ranks.total(table))
        self.kept.append(ranks.total(nothing if head is None else head))
        moments = Moments.of(self.rows[-1], dim)
        integrand.count += moments.evaluated
        integrand.excluded += moments.excluded
        self.say(integrand.count, f"iteration {t}: {float(moments.mean[0]) * prepared.scale:.8g}")

    def _weigh(self, prepared: Prepared, spans: list[tuple[int, int]], t: int) -> list[tuple[Tensor, ...]]:
        """Weights, sizes, inside, excluded and points of some blocks (first, n); f sees their points together."""
        seed = substream(self.plan.seed, ESTIMATE)
        drawn = [prepared.proposal.sample(n, seed, first, t) for first, n in spans]
        u, log_q = torch.cat([x for x, _ in drawn]), torch.cat([q for _, q in drawn])
        where = f"iteration {t} of the estimate, blocks {spans[0][0] // BLOCK} ... {spans[-1][0] // BLOCK}"
        weights, size, inside, excluded = weigh(self.integrand, u, log_q, where)
        weights, size = weights / prepared.scale, size / prepared.scale
        counts = [n for _, n in spans]
        columns = [column.cpu().split(counts) for column in (weights, size, inside, excluded, u)]
        return list(zip(*columns, strict=True))

    def _store(self) -> None:
        self.written = time.monotonic()
        if self.checkpoint is None or self.integrand.ranks.rank != 0:
            return
        data: dict[str, Any] = {
            "what": "checkpoint",
            "plan": asdict(self.plan),
            "domain": self.integrand.domain.state(),
        }
        data |= {k: getattr(self.integrand, k) for k in ("components", "scalar", "count", "excluded")}
        lists = {"journal": self.journal, "rows": self.rows, "kept": self.kept}
        tensors = {f"{name}.{i}": t for name, items in lists.items() for i, t in enumerate(items)}
        if self.ready and self.prepared is not None:
            data["prepared"], state = pack(self.prepared)
            tensors |= state
        storage.write(self.checkpoint, data, tensors)

    def _restore(self, path: Path) -> None:
        data, tensors = storage.read(path)
        plan, axes = json.loads(json.dumps(asdict(self.plan))), self.integrand.domain.state()
        if data.get("what") != "checkpoint" or data["plan"] != plan:
            raise ValueError(f"{path}: the checkpoint of another run, {data.get('plan')}; this one is {plan}")
        if any(data["domain"][key] != axes[key] for key in ("limits", "weights")):
            raise ValueError(f"{path}: the checkpoint of an integral over other bounds, {data['domain']}")
        self.integrand.components, self.integrand.scalar = data["components"], data["scalar"]
        self.journal = storage.series(tensors, "journal")
        if "prepared" in data:
            self.ready = True
            self.integrand.count, self.integrand.excluded = data["count"], data["excluded"]
            self.integrand.domain.probabilities = Domain.from_state(data["domain"]).probabilities
            domain, channels = self.integrand.domain, [c.channel for c in self.channels]
            with storage.sound(path), given(domain, channels):
                self.prepared = unpack(data["prepared"], tensors, domain.dim)
            self.rows, self.kept = storage.series(tensors, "rows"), storage.series(tensors, "kept")


def weigh(integrand: Integrand, u: Tensor, log_q: Tensor, where: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights f/q, shape (n, V), their sizes, where f was called and what was excluded, each (n,), on this rank."""
    inside = log_q.isfinite()
    values = integrand.local(u[inside], where)
    whole = values.new_zeros(len(u), values.shape[1])
    whole[inside] = values
    excluded = whole.isnan().any(1)
    density = torch.where(inside, log_q, 0.0).exp()
    weights = torch.where(excluded[:, None], 0.0, whole) / density[:, None]
    return weights, integrand.size(whole) / density, inside, excluded
