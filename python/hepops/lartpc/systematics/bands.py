r"""Envelopes and covariances over universes, weighted or not.

.. math:: \bar o = \sum_u w_u o_u, \qquad C = \frac{\sum_u w_u (o_u - \bar o)(o_u - \bar o)^T}{1 - \sum_u w_u^2},
          \qquad \sum_u w_u = 1
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..hits import Hits


@dataclass(frozen=True)
class Envelope:
    """Bands of an observable over the universes; tensors of its shape, float64."""

    mean: Tensor
    std: Tensor
    low: Tensor  # the least of all universes with weight
    high: Tensor
    levels: tuple[float, ...]
    quantiles: Tensor  # (len(levels), ...)


@dataclass(frozen=True)
class Covariance:
    """Of an observable of K numbers."""

    mean: Tensor  # (K)
    matrix: Tensor  # (K, K)

    @property
    def correlation(self) -> Tensor:
        """(K, K); rows of numbers that never vary are 0 beside a 1."""
        std = self.matrix.diagonal().sqrt()
        scale = torch.where(std > 0, 1 / std, torch.zeros_like(std))
        result = self.matrix * scale * scale[:, None]
        return result.fill_diagonal_(1.0)

    def principal(self, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Variances (R), falling, and directions (R, K): as many as hold the given share of the whole variance."""
        if not 0 < share <= 1:
            raise ValueError(f"principal: share must be in (0, 1], got {share}")
        values, vectors = torch.linalg.eigh(self.matrix)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).T
        total = values.sum()
        rank = int((values.cumsum(0) < share * total * (1 - 1e-12)).sum()) + 1
        return values[:rank], vectors[:rank]


def spread(observable: Callable[[Hits], Tensor], universes: Iterable[Hits]) -> Tensor:
    """The observable of every universe, float64 (n, ...).

    Raises:
        ValueError: there is no universe, or one gives another shape than the first (by its number).
    """
    rows = [observable(hits).detach().double() for hits in universes]
    if not rows:
        raise ValueError("spread: there is no universe")
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise ValueError(
                f"spread: the observable of universe {i} has shape {tuple(row.shape)}, that of universe 0 "
                f"{tuple(rows[0].shape)}: it must not depend on the number of hits"
            )
    return torch.stack(rows)


def _weights(weights: Tensor | None, n: int, rows: Tensor) -> Tensor:
    if weights is None:
        return rows.new_full((n,), 1 / n)
    w = weights.detach().to(rows)
    if w.shape != (n,) or not bool((torch.isfinite(w) & (w >= 0)).all()) or not float(w.sum()) > 0:
        raise ValueError(f"weights must be ({n}), finite, not negative and not all 0, got {tuple(weights.shape)}")
    return w / w.sum()


def envelope(
    observable: Callable[[Hits], Tensor],
    universes: Iterable[Hits],
    *,
    levels: Sequence[float] = (0.16, 0.5, 0.84),
    weights: Tensor | None = None,
) -> Envelope:
    """Mean, standard deviation, extremes and quantiles of an observable over universes.

    Args:
        observable: Any function Hits -> tensor whose shape does not depend on the hits.
        universes: `Universes`, or any sequence of Hits.
        levels: Of the quantiles, between 0 and 1. Unweighted as `torch.quantile`; with weights the least value that so
            much of the weight does not exceed.
        weights: Of the universes (n), by default equal: what `reweight` returns.

    Raises:
        ValueError: no universe, shapes that differ, a level outside [0, 1], or bad weights.
    """
    rows = spread(observable, universes)
    if not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"envelope: levels must lie in [0, 1], got {tuple(levels)}")
    w = _weights(weights, len(rows), rows)
    mean, variance = _moments(rows, w)
    some = rows[w > 0]
    if weights is None:
        quantiles = torch.quantile(rows, rows.new_tensor(list(levels)), dim=0)
    else:
        ordered, order = rows.sort(0)
        reached = w[order].cumsum(0)
        at = [(reached < level * (1 - 1e-12)).sum(0).clamp(max=len(rows) - 1) for level in levels]
        quantiles = torch.stack([ordered.gather(0, k[None])[0] for k in at])
    return Envelope(mean, variance.sqrt(), some.amin(0), some.amax(0), tuple(levels), quantiles)


def _moments(rows: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    shape = (-1, *[1] * (rows.dim() - 1))
    mean = (w.reshape(shape) * rows).sum(0)
    free = 1 - float((w * w).sum())
    square = (w.reshape(shape) * (rows - mean) ** 2).sum(0)
    return mean, square / free if free > 1e-15 else torch.full_like(square, torch.nan)


def covariance(
    observable: Callable[[Hits], Tensor], universes: Iterable[Hits], *, weights: Tensor | None = None
) -> Covariance:
    """Covariance of an observable, flattened to K numbers, over universes; arguments as for `envelope`.

    Raises:
        ValueError: fewer than two universes (with weight), shapes that differ, or bad weights.
    """
    rows = spread(observable, universes).flatten(1)
    w = _weights(weights, len(rows), rows)
    free = 1 - float((w * w).sum())
    if free <= 1e-15:
        raise ValueError("covariance: needs two universes or more")
    mean = w @ rows
    apart = (rows - mean) * w.sqrt()[:, None]
    return Covariance(mean, apart.T @ apart / free)
