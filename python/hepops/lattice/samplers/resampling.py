"""Samples of a target from weighted ones."""

import math
from typing import Literal

import torch
from torch import Tensor

from .. import random


def resample(
    log_w: Tensor, n: int | None = None, *, seed: int, method: Literal["systematic", "importance"] = "systematic"
) -> Tensor:
    r"""Indices of samples, drawn with the probabilities :math:`w_i / \sum_j w_j`.

    "systematic": :math:`(k + u)/n`, one u for all, through the cumulative weights: sample i is taken
    :math:`\lfloor n w_i \rfloor` or :math:`\lceil n w_i \rceil` times, and means have the least noise. "importance":
    n independent draws (sampling importance resampling).

    Args:
        log_w: ln w, shape (N), up to a constant; -inf is a weight of 0.
        n: How many; N where None.
        seed: Of the draws.
        method: See above.

    Returns:
        int64, shape (n), increasing for "systematic".

    Deterministic; sums are double.

    Raises:
        ValueError: no sample, NaN or +inf among the weights, all weights 0, n below 1, another method.

    References:
        | G. Kitagawa, J. Comput. Graph. Stat. 5 (1996) 1 (systematic)
        | D. B. Rubin, J. Am. Stat. Assoc. 82 (1987) 543 (importance resampling)

    Example:
        >>> hepops.lattice.samplers.resample(torch.tensor([0.5, 0.25, 0.25]).log(), 4, seed=1)
        tensor([0, 0, 1, 2])
    """
    if log_w.dim() != 1 or not len(log_w):
        raise ValueError(f"resample: log_w must have shape (N) with N of at least 1, got {tuple(log_w.shape)}")
    n = len(log_w) if n is None else n
    if n < 1:
        raise ValueError(f"resample: n must be at least 1, got {n}")
    log_w = log_w.double()
    top = float(log_w.max())
    if math.isnan(top) or top == math.inf:
        bad = int((log_w.isnan() | (log_w == math.inf)).sum())
        raise ValueError(f"resample: {bad} of {len(log_w)} weights are NaN or infinite")
    if top == -math.inf:
        raise ValueError(f"resample: all {len(log_w)} weights are 0")
    cumulative = (log_w - top).exp().cumsum(0)
    draws = 1 if method == "systematic" else n
    u = random.uniform(1, draws, seed, purpose=random.PICK, device=log_w.device)[0]
    if method == "systematic":
        points = (torch.arange(n, device=log_w.device) + u) / n
    elif method == "importance":
        points = u
    else:
        raise ValueError(f"resample: method must be 'systematic' or 'importance', got {method!r}")
    last = int(torch.nonzero(log_w > -math.inf).max())
    return torch.searchsorted(cumulative, points * cumulative[-1], right=True).clamp(max=last)
