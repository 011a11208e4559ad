"""Acceptance of Metropolis chains, measured and as weights foretell it; ESS and ln Z come from hepops.flows."""

import torch
from torch import Tensor

from .gamma import gamma_method
from .measurement import Measurement


def acceptance(accepted: Tensor) -> Measurement:
    """The acceptance rate of a chain, with autocorrelation in its error.

    Args:
        accepted: Whether each proposal was, bool, shape (N), or (N, chains): the chains are replica.

    Returns:
        `Measurement`; error 0 where all or none were.

    Raises:
        TypeError: not bool.
        ValueError: fewer than 16 proposals.

    Example:
        >>> hepops.lattice.statistics.acceptance(torch.ones(100, dtype=torch.bool)).value
        tensor(1., dtype=torch.float64)
    """
    if accepted.dtype != torch.bool:
        raise TypeError(f"acceptance: accepted must be bool, got {accepted.dtype}")
    chains = [accepted.double()] if accepted.dim() == 1 else list(accepted.double().unbind(1))
    rate = accepted.double().mean()
    if accepted.numel() and (bool(accepted.all()) or not bool(accepted.any())):
        return Measurement(rate, torch.zeros_like(rate), samples=accepted.numel(), method="gamma")
    return gamma_method(chains)


def expected_acceptance(log_w: Tensor) -> Tensor:
    r"""The acceptance of an independence Metropolis chain in equilibrium, from weights of its proposals.

    .. math:: A = \sum_{ij} \frac{w_i}{N \sum_k w_k} \min\Big(1, \frac{w_j}{w_i}\Big)
        = \frac{\sum_{ij} \min(w_i, w_j)}{N \sum_k w_k}

    over all pairs, by sorting.

    Args:
        log_w: Logarithms of weights, shape (N).

    Returns:
        float64, a scalar in (0, 1].

    Raises:
        ValueError: not one dimension, no weights, NaN or +inf, or only weights of 0.

    Example:
        >>> hepops.lattice.statistics.expected_acceptance(torch.tensor([0.0, 1.0, 1.0]).log())
        tensor(0.6667, dtype=torch.float64)
    """
    if log_w.dim() != 1 or len(log_w) == 0:
        raise ValueError(f"expected_acceptance: log_w must have shape (N), N >= 1, got {tuple(log_w.shape)}")
    if not bool(log_w.max().isfinite()):
        raise ValueError(f"expected_acceptance: log_w holds NaN or +inf, or only weights of 0: {float(log_w.max())}")
    n = len(log_w)
    w = (log_w.double() - log_w.max().double()).exp().sort(descending=True).values
    pairs = (2 * torch.arange(n, dtype=torch.float64, device=w.device) + 1) * w  # w_k is the least of 2 k + 1 pairs
    return pairs.sum() / (n * w.sum())


def rejection_runs(accepted: Tensor) -> Tensor:
    """Lengths of the runs of rejections of a chain, in their order.

    Args:
        accepted: bool, shape (N).

    Returns:
        int64, shape (runs).

    Raises:
        TypeError: not bool.
        ValueError: not one dimension.

    Example:
        >>> hepops.lattice.statistics.rejection_runs(torch.tensor([True, False, False, True, False]))
        tensor([2, 1])
    """
    if accepted.dtype != torch.bool:
        raise TypeError(f"rejection_runs: accepted must be bool, got {accepted.dtype}")
    if accepted.dim() != 1:
        raise ValueError(f"rejection_runs: accepted must have shape (N), got {tuple(accepted.shape)}")
    values, counts = accepted.unique_consecutive(return_counts=True)
    return counts[~values]
