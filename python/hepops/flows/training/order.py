"""Which data a step learns from: a permutation per epoch, named by (seed, epoch)."""

import torch
from torch import Tensor

from hepops.core import philox_uniform

ORDER = 16  # purpose of the random numbers, as in flows.random
SPLIT = 17


def permutation(n: int, seed: int, epoch: int, purpose: int = ORDER) -> Tensor:
    """The numbers 0 ... n - 1 in an order named by (seed, epoch), int64.

    The rows are sorted by a philox number each, so that the order depends on no library's shuffle, worker or rank.

    Example:
        >>> permutation(6, seed=1, epoch=0).sort().values
        tensor([0, 1, 2, 3, 4, 5])
    """
    keys = philox_uniform(torch.arange(n), seed, epoch, purpose, torch.float64)[:, 0]
    return keys.argsort(stable=True)


class Order:
    """Rows of each step: batches of one length, the rest of an epoch's permutation is left out.

    Args:
        n: How many data.
        batch: How many of them in a step, at most n.
        seed: Names the permutations.

    Example:
        >>> order = Order(10, batch=4, seed=1)
        >>> [len(order.rows(step)) for step in range(3)]  # two steps an epoch
        [4, 4, 4]
    """

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self.per_epoch = n // batch
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def rows(self, step: int, first: int = 0, count: int | None = None) -> Tensor:
        """Rows first ... first + count - 1 of the batch of a step, int64."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.n, self.seed, epoch)
        begin = number * self.batch + first
        return self._order[begin : begin + (self.batch if count is None else count)]
