"""Events joined into batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor


def batched_coordinates(coords: Sequence[Array], dtype: torch.dtype = torch.int32, device: Any = None) -> Tensor:
    """Coordinates (N, 1 + D) of a batch, the number of the event in front, from one (n, D) per event.

    Args:
        coords: arrays or tensors; real ones are floored for int32.
        dtype: int32 or float32. device: by default that of the first one.

    Raises:
        TypeError: not a sequence, or another dtype. ValueError: the numbers of axes differ.

    Example:
        >>> batched_coordinates([torch.tensor([[1, 2]]), torch.tensor([[3, 4]])]).tolist()
        [[0, 1, 2], [1, 3, 4]]
    """
    if not isinstance(coords, (Sequence, Tensor)):
        raise TypeError(f"coords must be a sequence, got {type(coords).__name__}")
    if dtype not in (torch.int32, torch.float32):
        raise TypeError(f"dtype must be torch.int32 or torch.float32, got {dtype}")
    events = [torch.as_tensor(c) for c in coords]
    axes = {c.shape[1] if c.dim() == 2 else None for c in events}
    if len(axes) != 1 or None in axes:
        raise ValueError(f"coords must be (n, D) with one D, got {[tuple(c.shape) for c in events][:8]}")
    rows = []
    for b, c in enumerate(events):
        c = c.to(events[0].device if device is None else device)
        c = c.floor() if dtype == torch.int32 and c.is_floating_point() else c
        rows.append(torch.cat([torch.full((len(c), 1), b, dtype=dtype, device=c.device), c.to(dtype)], 1))
    return torch.cat(rows)


def sparse_collate(
    coords: Sequence[Array],
    feats: Sequence[Array],
    labels: Sequence[Any] | None = None,
    dtype: torch.dtype = torch.int32,
    device: Any = None,
) -> Any:
    """Coordinates, features and, where given, labels of a batch, from lists with one entry per event.

    Labels that are arrays or tensors are concatenated; others stay a list.

    Raises:
        TypeError: not sequences. ValueError: lengths or numbers of axes differ.

    Example:
        >>> c, f = sparse_collate([torch.tensor([[1, 2]])], [torch.tensor([[0.5]])])
        >>> c.tolist(), f.tolist()
        ([[0, 1, 2]], [[0.5]])
    """
    for name, x in (("coords", coords), ("feats", feats), ("labels", () if labels is None else labels)):
        if not isinstance(x, (Sequence, Tensor)):
            raise TypeError(f"{name} must be a sequence, got {type(x).__name__}")
    if len(coords) != len(feats) or (labels is not None and len(labels) != len(coords)):
        raise ValueError(f"coords, feats and labels must have one entry per event, got {len(coords)} and {len(feats)}")
    for b, (c, f) in enumerate(zip(coords, feats, strict=True)):
        if len(c) != len(f):
            raise ValueError(f"event {b} has {len(c)} coordinates and {len(f)} features")
    batch = batched_coordinates(coords, dtype, device)
    features = torch.cat([torch.as_tensor(f).to(batch.device if device is not None else "cpu") for f in feats])
    if labels is None:
        return batch, features
    arrays = [torch.from_numpy(label) if isinstance(label, np.ndarray) else label for label in labels]
    joined = torch.cat(arrays) if arrays and isinstance(arrays[0], Tensor) else arrays
    return batch, features, joined


def batch_sparse_collate(data: Sequence[Any], dtype: torch.dtype = torch.int32, device: Any = None) -> Any:
    """`sparse_collate` of a list of (coordinates, features[, labels]), one per event: a collate_fn."""
    coords, feats, *labels = zip(*data, strict=True)
    return sparse_collate(coords, feats, labels[0] if labels else None, dtype, device)


class SparseCollation:
    """A collate_fn of (coordinates, features, labels) that leaves events out beyond a number of points.

    Args:
        limit_numpoints: the most points of a batch; no limit where it is not positive.
        dtype, device: as `sparse_collate`.
    """

    def __init__(self, limit_numpoints: int = -1, dtype: torch.dtype = torch.int32, device: Any = None) -> None:
        self.limit_numpoints = limit_numpoints
        self.dtype = dtype
        self.device = device

    def __call__(self, list_data: Sequence[Any]) -> Any:
        """The batch; events that do not fit are left out with a warning.

        Raises:
            ValueError: the first event alone has too many points.
        """
        data, total = list(list_data), 0
        for b, (coordinates, *_) in enumerate(data):
            total += len(coordinates)
            if 0 < self.limit_numpoints < total:
                if b == 0:
                    raise ValueError(f"the first event has {total} points, limit_numpoints is {self.limit_numpoints}")
                warnings.warn(
                    f"{len(data) - b} of {len(data)} events left out: limit_numpoints is {self.limit_numpoints}",
                    stacklevel=2,
                )
                data = data[:b]
                break
        return batch_sparse_collate(data, self.dtype, self.device)
