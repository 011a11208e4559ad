"""Questions to the likelihood of a fit that processes shared: rank 0 has it, all of them may answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .team import Team

if TYPE_CHECKING:
    from hepops.lartpc.production.ranks import Ranks

    from .result import FitResult

Answer = TypeVar("Answer")


def together(result: FitResult, question: Callable[[FitResult], Answer]) -> Answer:
    """Ask the likelihood of a fit that processes shared, each evaluating its share of the batches.

    Every process calls it with its own result of the fit and the same question. Rank 0 works the question out; its
    evaluations of the fit's own data are shared, and its toys, of other data, are not. Without `together`, what asks a
    result again (`profile`, `contour`, `sandwich`, `hvp`, `goodness`, `nuts`, `to_minuit`) works on rank 0 alone, with
    all batches, and is refused on the others.

    Args:
        result: Of `fit(..., ranks=ranks)`, or of a fit by one process, which then answers alone.
        question: Such as ``lambda result: fit.sandwich(result)``; it returns what pickle can hold, and does not call
            anything that waits for the other processes itself.

    Returns:
        The answer, on all processes; the same bits for any number of them.

    Raises:
        ValueError: this result has no likelihood; and whatever the question raises, on all processes.

    Example:
        >>> # torchrun: result = fit(sim, index, hits, residual="likelihood", ranks=ranks)
        >>> # errors = together(result, lambda r: sandwich(r)).diagonal().sqrt()
    """
    problem = result.target.problem if result.target is not None else None
    if problem is None:
        raise ValueError('together: this result knows no likelihood: fit with residual="likelihood", not from a file')
    ranks: Ranks | None = problem.ranks
    if ranks is None or ranks.size == 1:
        return question(result)
    problem.team = Team(ranks)
    try:
        return problem.team.run(problem, lambda: question(result))
    finally:
        problem.team = None
