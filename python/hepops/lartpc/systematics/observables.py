"""Functions Hits -> tensor, the same shape for any hits: what envelopes and covariances are taken of."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..hits import Hits

Observable = Callable[[Hits], Tensor]


def _edges(name: str, edges: Tensor) -> Tensor:
    edges = torch.as_tensor(edges, dtype=torch.float64)
    if edges.dim() != 1 or len(edges) < 2 or not bool((edges[1:] > edges[:-1]).all()):
        raise ValueError(f"{name}: edges must be two or more rising numbers, got {edges.tolist()}")
    return edges


def _histogram(x: Tensor, edges: Tensor, weight: Tensor | None = None) -> Tensor:
    """Counts (len(edges) - 1), bins [low, high); what lies outside is left out."""
    at = torch.bucketize(x.double(), edges.to(x.device), right=True) - 1
    inside = (at >= 0) & (at < len(edges) - 1)
    counts = torch.zeros(len(edges) - 1, dtype=torch.float64, device=x.device)
    add = torch.ones_like(x, dtype=torch.float64) if weight is None else weight.double()
    return counts.index_add(0, at[inside], add[inside])


def charge_histogram(edges: Tensor) -> Observable:
    """Hits by their charge [e], bins between rising edges; float64 (len(edges) - 1)."""
    bounds = _edges("charge_histogram", edges)
    return lambda hits: _histogram(hits.charge.detach(), bounds)


def time_histogram(edges: Tensor, *, charge: bool = False) -> Observable:
    """Hits by their time [us]; with `charge` each counts with its charge [e]."""
    bounds = _edges("time_histogram", edges)
    return lambda hits: _histogram(hits.time.detach(), bounds, hits.charge.detach() if charge else None)


def hits_per_pixel(most: int) -> Observable:
    """How many pixels have 1, 2 ... `most` hits, the last bin and more; float64 (most)."""
    if most < 1:
        raise ValueError(f"hits_per_pixel: most must be at least 1, got {most}")

    def count(hits: Hits) -> Tensor:
        number = hits.per_pixel().num_hits.clamp(max=most)
        return torch.bincount(number, minlength=most + 1)[1:].double()

    return count


def total_charge(hits: Hits) -> Tensor:
    """The sum of all charges, float64 (1) [e]."""
    return hits.charge.detach().double().sum().reshape(1)
