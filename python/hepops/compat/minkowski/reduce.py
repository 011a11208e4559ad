"""Rows of features merged where an index sends them: sums, means, maxima, first ones."""

from __future__ import annotations

import torch
from torch import Tensor

from hepops.core import scatter_add


def reduce_rows(features: Tensor, rows: Tensor, n: int, mode: str) -> Tensor:
    """The features of all entries with one row, merged; a row without entries is 0.

    Args:
        features: (N, C).
        rows: int64 (N), in [0, n).
        n: number of rows.
        mode: "sum", "mean", "max" (of equal values the first entry's) or "first".

    Returns:
        (n, C).

    Differentiable any number of times. Deterministic: sums in double in a fixed order; a maximum has the gradient of
    the entry that it took.
    """
    if mode in ("sum", "mean"):
        total: Tensor = scatter_add(rows, features, n)
        if mode == "sum":
            return total
        return total / torch.bincount(rows, minlength=n).clamp(min=1)[:, None].to(total)
    values = features.detach() if mode == "max" else torch.zeros_like(features[:, :1])
    entry = torch.arange(len(rows), device=rows.device)[:, None].expand_as(values)
    spread = rows[:, None].expand_as(values)
    most = values.new_full((n, values.shape[1]), -torch.inf).scatter_reduce(0, spread, values, "amax")
    entry = torch.where((values == most[rows]) | values.isnan(), entry, len(rows))
    chosen = entry.new_full((n, values.shape[1]), len(rows)).scatter_reduce(0, spread, entry, "amin")
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return padded.gather(0, chosen.expand(n, features.shape[1]))
