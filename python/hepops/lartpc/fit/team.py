"""A fit shared by processes: rank 0 decides, all evaluate, each its share of the batches.

For a likelihood what travels per batch is its value, gradient and information; of residuals, the residuals. They are
joined in the order of the batches, so that the result has the same bits for any number of ranks. Only rank 0 runs the
optimiser: hosts of different kind could otherwise come to different decisions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from hepops.lartpc.production.ranks import Ranks

from .residuals import Residuals
from .terms import Terms

if TYPE_CHECKING:
    from .problem import Problem

Result = TypeVar("Result")
Part = Terms | Residuals


@dataclasses.dataclass(frozen=True)
class Request:
    """An evaluation that rank 0 asks of all."""

    x: Tensor
    stage: int
    batches: tuple[int, ...]
    derivatives: bool
    scores: bool  # of every event, too: only the end of a fit needs them
    toys: int = 0  # the information of so many toys in place of the data's terms
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Stop:
    """The end: the result, or why there is none."""

    result: object = None
    error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What a result holds in the place of rank 0's `Target` on the other ranks: their share of the data."""

    problem: Problem | None  # None: on its way

    def __deepcopy__(self, memo: object) -> Elsewhere:
        return self


class Team:
    """The ranks of a fit."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks

    def ask(self, problem: Problem, request: Request) -> list[Any]:
        """On rank 0: the parts of all batches of a request, in their order."""
        self._broadcast(request)
        mine = self._compute(problem, request)
        gathered: list[object] = [None] * self.ranks.size
        dist.gather_object(mine, gathered, dst=0)
        parts: list[list[Any]] = []
        for answer in gathered:
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, list)
            parts.append(answer)
        size = self.ranks.size
        return [parts[k % size][k // size] for k in range(len(request.batches))]

    def run(self, problem: Problem, work: Callable[[], Result]) -> Result:
        """`work()` on rank 0, while the others answer its requests; all return its result, or raise its error."""
        if self.ranks.rank == 0:
            try:
                result = work()
            except Exception as error:
                self._broadcast(Stop(error=error))
                raise
            self._broadcast(Stop(_portable(result)))
            return result
        while True:
            request = self._broadcast(None)
            if isinstance(request, Stop):
                if request.error is not None:
                    raise request.error
                return _here(request.result, problem)  # type: ignore[return-value]
            assert isinstance(request, Request)
            dist.gather_object(self._compute(problem, request), None, dst=0)

    def _compute(self, problem: Problem, request: Request) -> list[Any] | Exception:
        mine: Sequence[int] = request.batches[self.ranks.rank :: self.ranks.size]
        x, objective = request.x, problem.stages[request.stage]
        try:
            if request.toys:
                return [problem.toys_of(x, objective, problem.batches[k], request.toys, request.seed) for k in mine]
            flags = request.derivatives, request.scores
            return [problem.part(x, objective, problem.batches[k], *flags) for k in mine]
        except Exception as error:
            return error

    def _broadcast(self, message: object) -> object:
        held = [message]
        dist.broadcast_object_list(held, src=0)
        return held[0]


def _portable(result: object) -> object:
    """A result without the data that it refers to."""
    there = getattr(result, "target", None) is not None
    return dataclasses.replace(result, target=Elsewhere(None)) if there else result  # type: ignore[type-var]


def _here(result: object, problem: Problem) -> object:
    """A result that came from rank 0, with the data of this process."""
    there = isinstance(getattr(result, "target", None), Elsewhere)
    return dataclasses.replace(result, target=Elsewhere(problem)) if there else result  # type: ignore[type-var]
