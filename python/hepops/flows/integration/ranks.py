"""The processes of torch.distributed that share an integral: who evaluates which block, and how results come together.

Whatever the number of ranks, a block of samples is evaluated by one of them, its sums are made there in one order, and
every rank then holds the sums of all blocks: sums of numbers of which all but one are zero are exact.
"""

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The ranks of a process group; one rank where torch.distributed is not initialised."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.active = dist.is_available() and dist.is_initialized()
        self.group = group
        self.rank = dist.get_rank(group) if self.active else 0
        self.count = dist.get_world_size(group) if self.active else 1

    def mine(self, blocks: int) -> range:
        """The blocks, of so many, that this rank evaluates."""
        return range(self.rank, blocks, self.count)

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks, float64, on every rank."""
        if self.count > 1:
            place = x.device
            x = x.cuda() if dist.get_backend(self.group) == "nccl" else x.cpu()
            dist.all_reduce(x, group=self.group)
            x = x.to(place)
        return x

    def all(self, item: object) -> list[object]:
        """What each rank gave, in the order of ranks."""
        items: list[object] = [item]
        if self.count > 1:
            items = [None] * self.count
            dist.all_gather_object(items, item, group=self.group)
        return items

    def first(self, item: object) -> object:
        """What the first rank gave."""
        return self.all(item)[0]

    def agree(self, error: BaseException | None) -> None:
        """Raises on every rank if one of them failed: none is left waiting."""
        if self.count == 1:
            if error:
                raise error
            return
        reports = self.all(None if error is None else f"{type(error).__name__}: {error}")
        if error:
            raise error
        for rank, report in enumerate(reports):
            if report:
                raise RuntimeError(f"the integrand failed on rank {rank}: {report}")


def total_of_rows(ranks: Ranks, rows: Tensor, index: Tensor, n: int) -> Tensor:
    """All n rows on every rank, where each rank gives its own."""
    out = torch.zeros(n, *rows.shape[1:], dtype=torch.float64, device=rows.device)
    out[index] = rows
    return ranks.total(out)
