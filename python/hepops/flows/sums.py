"""Sums in double and in one order."""

import torch
from torch import Tensor

from hepops.core.row_sum import row_sum


def event_sum(x: Tensor, event_dim: int) -> Tensor:
    """The sum over the last `event_dim` dimensions, accumulated in double: float64, shape of the others.

    The order follows from the size of the event alone: the bits do not depend on the batch or the number of threads.
    """
    if event_dim == 0:
        return x.to(torch.float64)
    return row_sum(x if event_dim == 1 else x.flatten(-event_dim))
