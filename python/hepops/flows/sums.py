"""Sums in double and in one order."""

import torch
from torch import Tensor


def event_sum(x: Tensor, event_dim: int) -> Tensor:
    """The sum over the last `event_dim` dimensions, accumulated in double: float64, shape of the others."""
    if event_dim == 0:
        return x.to(torch.float64)
    return x.flatten(-event_dim).sum(-1, dtype=torch.float64)
