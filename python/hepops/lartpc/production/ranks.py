"""The processes of one run, as torchrun starts them; alone, a process is rank 0 of 1."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=30)  # those that are done wait for the others, longer than the half hour of the default

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """Who am I, and of how many.

    Example:
        >>> hepops.lartpc.production.Ranks.join()
        Ranks(rank=0, size=1, local=0)
    """

    rank: int = 0
    size: int = 1
    local: int = 0  # among those of this host, which is the number of the GPU

    @classmethod
    def join(cls) -> Ranks:
        """The ranks of the environment (RANK, WORLD_SIZE, LOCAL_RANK); of several it forms a group (gloo).

        Data of events does not travel: what is exchanged is numbers of the size of the parameters, and the CPU's
        backend serves them wherever the events are computed.

        Raises:
            ValueError: numbers of the environment that contradict each other.
        """
        try:
            rank, size, local = (int(os.environ.get(n, d)) for n, d in _VARIABLES)
        except ValueError:
            raise ValueError(f"RANK, WORLD_SIZE and LOCAL_RANK must be integers, got {_environment()}") from None
        if not 0 <= rank < size or local < 0:
            raise ValueError(f"RANK must be 0 to WORLD_SIZE - 1, and LOCAL_RANK not negative, got {_environment()}")
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(_leave)
        return cls(rank, size, local)

    def mine(self, count: int) -> range:
        """Which of `count` pieces of work this rank does: every size-th."""
        return range(self.rank, count, self.size)

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in their order, on all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function` of every item, in their order, each computed by one rank and sent to all.

        The list is the same on every rank and for any number of them, so that what is summed from it has the same bits.
        An error of one rank is raised on all.
        """
        mine: list[tuple[Result | None, Exception | None]] = []
        for k in self.mine(len(items)):
            try:
                mine.append((function(items[k]), None))
            except Exception as error:
                mine.append((None, error))
                break
        parts = self.gather(mine)
        for part in parts:
            for _, failure in part:
                if failure is not None:
                    raise failure
        return [parts[k % self.size][k // self.size][0] for k in range(len(items))]

    def agree(self, action: Any) -> Any:
        """What `action()` returns on rank 0; where it raises, all ranks raise the same error."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def device(self, name: str) -> str:
        """The device of this rank: "cuda" without a number becomes the GPU of its own among the host's."""
        if name == "cuda" and self.size > 1:
            return f"cuda:{self.local % max(1, torch.cuda.device_count())}"
        return name


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _leave() -> None:
    """End the group before the process does: threads of gloo that live on at the exit may abort it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _environment() -> dict[str, str]:
    return {name: os.environ.get(name, default) for name, default in _VARIABLES}
