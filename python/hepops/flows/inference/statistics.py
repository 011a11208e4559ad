"""Tails of the distributions that coverage tests refer to, and sums over draws."""

import math

import torch
from torch import Tensor


def chi2_tail(chi2: float, ndof: int) -> float:
    """P(X > chi2) of the chi-squared distribution: Q(ndof/2, chi2/2)."""
    half = torch.tensor([ndof / 2, chi2 / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def uniform_ks(u: Tensor) -> tuple[float, float]:
    r"""Kolmogorov and Smirnov's D of numbers in (0, 1) against the uniform law, and its p-value.

    :math:`p = 2 \sum_k (-1)^{k-1} e^{-2 k^2 \lambda^2}`, :math:`\lambda = (\sqrt n + 0.12 + 0.11 / \sqrt n) D`:
    M. A. Stephens, J. R. Stat. Soc. B 32 (1970) 115.

    Example:
        >>> D, p = uniform_ks((torch.arange(100) + 0.5) / 100)
        >>> round(D, 3), round(p, 3)
        (0.005, 1.0)
    """
    n = len(u)
    ordered = u.double().sort().values
    above = (torch.arange(1, n + 1, dtype=torch.float64) / n - ordered).max()
    below = (ordered - torch.arange(n, dtype=torch.float64) / n).max()
    D = float(torch.maximum(above, below))
    x = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * D
    if x < 0.2:  # the series alternates too slowly; 1 - p < 1e-12
        return D, 1.0
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return D, min(max(p, 0.0), 1.0)


def weighted_covariance(theta: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (K) and covariance (K, K) of draws (n, K), with weights (n) that need no norm."""
    w = torch.ones(len(theta), dtype=torch.float64) if weight is None else weight.double()
    w = w / w.sum()
    mean = w @ theta.double()
    rest = theta.double() - mean
    return mean, (rest * w[:, None]).T @ rest / (1 - w.square().sum()).clamp_min(1e-12)


def weighted_quantiles(theta: Tensor, at: Tensor, weight: Tensor | None = None) -> Tensor:
    """Quantiles (len(at), K) of each column of draws (n, K)."""
    x, order = theta.double().sort(0)
    w = torch.ones_like(x) if weight is None else weight.double()[order]
    cumulative = (w.cumsum(0) - w / 2) / w.sum(0)
    columns = []
    for k in range(x.shape[1]):
        right = torch.searchsorted(cumulative[:, k].contiguous(), at.double()).clamp(1, len(x) - 1)
        a, b = cumulative[right - 1, k], cumulative[right, k]
        share = ((at - a) / (b - a).clamp_min(1e-300)).clamp(0, 1)
        columns.append(x[right - 1, k] + share * (x[right, k] - x[right - 1, k]))
    return torch.stack(columns, 1)
