"""Points to voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepops.sparse.coordinates import index

from ..common import StrideType, int_list

Array = np.ndarray | Tensor


def fnv_hash_vec(arr: np.ndarray) -> np.ndarray:
    """A hash of each row of integers (N, D), uint64 (N): FNV-64, a whole entry at a time.

    Few different rows share a hash where entries are negative; `ravel_hash_vec` shares none.

    Example:
        >>> int(fnv_hash_vec(np.array([[1, 2]]))[0])
        590682968308805176
    """
    if arr.ndim != 2:
        raise ValueError(f"arr must be (N, D), got {arr.shape}")
    columns = arr.astype(np.int64).astype(np.uint64).T
    hashed = np.full(len(arr), 14695981039346656037, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            hashed = (hashed * np.uint64(1099511628211)) ^ column
    return hashed


def ravel_hash_vec(arr: np.ndarray) -> np.ndarray:
    """The place of each row of integers (N, D) in the box that holds all, the last axis fastest, uint64 (N).

    Raises:
        ValueError: the box has more than 2^64 places.
    """
    if arr.ndim != 2:
        raise ValueError(f"arr must be (N, D), got {arr.shape}")
    if not len(arr):
        return np.zeros(0, dtype=np.uint64)
    low = np.floor(arr).astype(np.int64)
    low = low - low.min(0)
    extent = [int(n) + 1 for n in low.max(0)]
    if np.prod(np.array(extent, dtype=object)) > 2**64:
        raise ValueError(f"the extents {extent} have more than 2^64 places")
    keys = np.zeros(len(arr), dtype=np.uint64)
    for column, n in zip(low.T, extent, strict=True):
        keys = keys * np.uint64(n) + column.astype(np.uint64)
    return keys


def _unique(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """First row of each, ascending, and the number of the unique row that each row is."""
    D = coordinates.shape[1] - 1
    if D == 0:
        coordinates, D = torch.cat([coordinates.new_zeros(len(coordinates), 1), coordinates], 1), 1
    if D > 6:
        raise ValueError(f"coordinates must have at most 7 columns, got {D + 1}")
    _, first, inverse = index(coordinates, (1,) * D)
    return first, inverse


def quantize(coords: Array) -> tuple[Array, Array]:
    """Of integer rows: first row of each voxel, and the voxel of each row; arrays of the kind that was given."""
    first, inverse = _unique(torch.as_tensor(coords))
    return (first.numpy(), inverse.numpy()) if isinstance(coords, np.ndarray) else (first, inverse)


def quantize_label(coords: Array, labels: Array, ignore_label: int) -> tuple[Array, Array, Array]:
    """Of integer rows with labels: first row and label of each voxel, and the voxel of each row.

    A voxel whose rows have different labels gets `ignore_label`.
    """
    first, inverse = _unique(torch.as_tensor(coords))
    own = torch.as_tensor(labels)
    merged = own[first].clone()
    conflicts = inverse[(own != merged[inverse]).nonzero()[:, 0]]
    merged[conflicts] = ignore_label
    if isinstance(coords, np.ndarray):
        return first.numpy(), inverse.numpy(), merged.numpy()
    return first, inverse, merged


def _floored(coordinates: Array, quantization_size: Any) -> Tensor:
    points = torch.as_tensor(coordinates)
    if quantization_size is not None:
        size = torch.as_tensor(quantization_size, dtype=torch.float64, device=points.device)
        if size.dim() > 1 or (size.dim() == 1 and len(size) != points.shape[1]):
            raise ValueError(f"quantization_size must be one number or {points.shape[1]}, got {quantization_size!r}")
        if not bool((size > 0).all()):
            raise ValueError(f"quantization_size must be positive, got {quantization_size!r}")
        if not bool((size == 1).all()):
            dtype = points.dtype if points.is_floating_point() else torch.float64
            points = points.to(dtype) / size.to(dtype)
    if points.is_floating_point():
        if not bool(torch.isfinite(points).all()):
            raise ValueError("coordinates must be finite")
        if points.numel() and float(points.abs().max()) >= 2**31:
            raise ValueError(f"quantized coordinates must be below 2^31, got {float(points.abs().max()):g}")
        points = points.floor()
    return points.int()


def sparse_quantize(
    coordinates: Array,
    features: Array | None = None,
    labels: Array | None = None,
    ignore_label: int = -100,
    return_index: bool = False,
    return_inverse: bool = False,
    return_maps_only: bool = False,
    quantization_size: float | Sequence[float] | Array | None = None,
    device: str | torch.device = "cpu",
) -> Any:
    """The voxels that points lie in, in the order of their first points.

    Args:
        coordinates: (N, D) points; numpy array or tensor. They carry no batch id (a first column is one more axis).
        features: (N, C); each voxel gets those of its first point.
        labels: integer (N); a voxel whose points have different labels gets `ignore_label`.
        return_index: also the first point of each voxel.
        return_inverse: also the voxel of each point.
        return_maps_only: only these: index, or (index, inverse) with return_inverse.
        quantization_size: size of the voxels, one number or D.
        device: where the voxels are made.

    Returns:
        Coordinates (n, D) int32 as a tensor, or an array for arrays with labels; then features, labels, index and
        inverse (int64), those that are asked for; alone where nothing else is. Deterministic.

    Raises:
        TypeError: neither array nor tensor. ValueError: wrong shapes or lengths, coordinates that are not finite or
            above 2^31, a size that is not positive.

    Example:
        >>> sparse_quantize(torch.tensor([[0.1], [0.3], [1.2]]), quantization_size=0.5, labels=torch.tensor([1, 2, 3]))
        (tensor([[0],
                [2]], dtype=torch.int32), tensor([-100,    3]))
    """
    if not isinstance(coordinates, (np.ndarray, Tensor)):
        raise TypeError(f"coordinates must be a numpy array or a tensor, got {type(coordinates).__name__}")
    if coordinates.ndim != 2:
        raise ValueError(f"coordinates must be (N, D), got {tuple(coordinates.shape)}")
    for name, rows in (("features", features), ("labels", labels)):
        if rows is not None and len(rows) != len(coordinates):
            raise ValueError(f"{name} has {len(rows)} rows, coordinates {len(coordinates)}")
    if features is not None and features.ndim != 2:
        raise ValueError(f"features must be (N, C), got {tuple(features.shape)}")
    if torch.device(device).type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device}")
    voxels = _floored(coordinates, quantization_size).to(device)
    arrays = isinstance(coordinates, np.ndarray) and labels is not None
    if labels is None:
        first, inverse = _unique(voxels)
        merged = None
    else:
        first, inverse, merged = quantize_label(voxels, torch.as_tensor(labels).to(device), ignore_label)  # type: ignore[assignment]
    if return_maps_only:
        return (first, inverse) if return_inverse else first
    out: list[Any] = [voxels[first]]
    if features is not None:
        out.append(
            features[first.cpu().numpy()] if isinstance(features, np.ndarray) else features[first.to(features.device)]
        )
    out += [
        x for x, wanted in ((merged, labels is not None), (first, return_index), (inverse, return_inverse)) if wanted
    ]
    if arrays:
        out = [x.numpy() if isinstance(x, Tensor) else x for x in out]
    return tuple(out) if len(out) > 1 else out[0]


def unique_coordinate_map(coordinates: Tensor, tensor_stride: StrideType = 1) -> tuple[Tensor, Tensor]:
    """The first row of each voxel, and the voxel of each row, of integer (N, 1 + D).

    Example:
        >>> [x.tolist() for x in unique_coordinate_map(torch.tensor([[0, 0], [0, 0], [0, 1]]))]
        [[0, 2], [0, 0, 1]]
    """
    if coordinates.dim() != 2:
        raise ValueError(f"coordinates must be (N, 1 + D), got {tuple(coordinates.shape)}")
    int_list("tensor_stride", tensor_stride, coordinates.shape[1] - 1)
    return _unique(coordinates)
