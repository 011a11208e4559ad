"""What an integration is asked to do, and what it has prepared: both are plain data and tensors in a file."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import storage
from .honesty import Probe
from .peaks import Peak
from .proposal import BLOCK, Proposal, build, describe

DISCRETE, LEARN, PILOT, LOOK, ESTIMATE, UNWEIGHT, CHECK = range(7)  # substreams of the seed


@dataclass(frozen=True)
class Plan:
    """How neval is spent, and what names the run: a checkpoint is only taken up by the same plan.

    Attributes:
        neval: Calls of f at most.
        seed: Names every number.
        iterations: Of the estimate.
        target, relative: The standard deviation that is asked for, 0 where none is.
        learning, probing: Shares of neval.
        candidates: Kinds of proposals that compete.
        seconds_per_evaluation: Cost of f, for the choice among them.
    """

    neval: int
    seed: int
    iterations: int
    target: float
    relative: float
    learning: float
    probing: float
    candidates: tuple[str, ...]
    seconds_per_evaluation: float

    @property
    def learn_budget(self) -> int:
        return int(self.learning * self.neval)

    @property
    def probe_budget(self) -> int:
        return min(int(self.probing * self.neval), 1 << 22)

    @property
    def pilot_budget(self) -> int:
        return min(max(self.neval // 50, 64), 1 << 18)

    def sizes(self, prepared: "Prepared") -> list[int]:
        """How many samples each iteration of the estimate takes: fixed before the first is drawn.

        With a target they follow from the pilot's variance, 20 % more for its own error: to stop once an estimate's own
        error looks small would favour the samples that missed something.
        """
        total = max(self.neval - prepared.spent, 2)
        targets = [max(self.target, self.relative * abs(m)) for m in prepared.mean]
        if any(targets):
            needed = [
                1.2 * min(s / t, 1e100) ** 2 if t else math.inf for s, t in zip(prepared.sigma, targets, strict=True)
            ]
            total = int(min(max(*needed, 2.0 * BLOCK), total))
        each = total // self.iterations
        if each >= 2 * BLOCK:
            each -= each % BLOCK
        return [each] * self.iterations if each >= 2 else [total]


@dataclass
class Prepared:
    """What samples will be drawn from, and how that came about.

    Attributes:
        proposal, name, why: The proposal, what it is called, and why it was kept.
        history: The steps of learning.
        notes, warnings: For the result.
        learning, probing, piloting: Calls of f.
        sigma, mean: Of the weights of the pilot's samples, by component.
        largest: Of their sizes.
        scale: What the estimate's weights are divided by before they are squared.
        report: The last look for lost peaks.
        lost: Numbers of its peaks that were not mended.
    """

    proposal: Proposal
    name: str = "uniform"
    why: str = "nothing was learned"
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    learning: int = 0
    probing: int = 0
    piloting: int = 0
    sigma: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    largest: float = 0.0
    scale: float = 1.0
    report: Probe | None = None
    lost: list[int] = field(default_factory=list)

    @property
    def spent(self) -> int:
        return self.learning + self.probing + self.piloting

    def again(self) -> "Prepared":
        """The same proposal for another run, whose accounts begin at zero."""
        return Prepared(self.proposal, self.name, self.why, self.history)


def pack(prepared: Prepared) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain data and tensors of what was prepared."""
    head = {k: v for k, v in vars(prepared).items() if k not in ("proposal", "report")}
    head["proposal"] = describe(prepared.proposal)
    if prepared.report is not None:
        peaks = [{k: _plain(v) for k, v in vars(peak).items()} for peak in prepared.report.peaks]
        head["report"] = vars(prepared.report) | {"peaks": peaks}
    return head, {f"proposal.{name}": t for name, t in prepared.proposal.state_dict().items()}


def unpack(head: dict[str, Any], tensors: dict[str, Tensor], dim: int) -> Prepared:
    """The inverse of :func:`pack`, for d axes."""
    head = dict(head)
    report = head.pop("report", None)
    proposal = build(head.pop("proposal"))
    proposal.load_state_dict(storage.below(tensors, "proposal."))
    if proposal.dim != dim or any(t.isnan().any() for t in proposal.state_dict().values()):
        raise ValueError(f"a proposal of {proposal.dim} axes for {dim}, or one with NaN")
    if report is not None:
        peaks = [Peak(**{k: _tensor(v) for k, v in peak.items()}) for peak in report["peaks"]]
        report = Probe(**(report | {"peaks": tuple(peaks)}))
    return Prepared(proposal.eval(), report=report, **head)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _tensor(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
