"""Features on voxels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from .kernel import Size
from .manager import CoordinateManager, CoordinateMapKey, Segments

Duplicates = Literal["error", "sum", "mean", "first", "max"]


class SparseTensor:
    r"""Features (N, C) on the voxels of a batch of events.

    Args:
        features: float (N, C).
        coordinates: integer (N, 1 + D) [batch, x, y, ...] in voxels, absolute (not divided by the stride), any sign,
            D = 1 ... 6. Rows keep this order.
        stride: voxels between neighbours, one number or one per axis.
        coordinate_map_key: in place of coordinates, with `coordinate_manager`: voxels that are known already.
        coordinate_manager: shared with other tensors; made anew by default.
        duplicates: what becomes of voxels that occur more than once. "error", or their features' "sum", "mean", "max",
            or "first"; the merged row stands where the first was.
        batch_size: number of batch entries, where empty ones shall count (global pools, `decomposed`).

    Attributes:
        unique_index: int64 (n,), the given rows that were kept. inverse_mapping: int64 (N,), the kept row of each given
        row, so that ``features[inverse_mapping]`` is in the caller's order whatever was merged.

    Differentiable with respect to the features, any number of times; merged rows give each its share.

    Raises:
        TypeError: features are no floating-point tensor, coordinates neither integer nor integral.
        ValueError: lengths differ, a duplicate without a rule, coordinates with fractions or beyond what 128 bits hold,
            a stride below 1 or that the coordinates are no multiples of, tensors on different devices.

    References:
        C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019

    Example:
        >>> x = SparseTensor(torch.ones(3, 2), torch.tensor([[0, 1, 1], [0, 1, 1], [0, 4, -2]]), duplicates="sum")
        >>> x.features.tolist()
        [[2.0, 2.0], [1.0, 1.0]]
        >>> x
        SparseTensor(2 voxels x 2 channels, 2D, 1 event, stride 1, torch.float32, cpu)
    """

    def __init__(
        self,
        features: Tensor,
        coordinates: Tensor | None = None,
        stride: Size = 1,
        *,
        coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        duplicates: Duplicates = "error",
        batch_size: int | None = None,
    ) -> None:
        if not isinstance(features, Tensor) or not features.is_floating_point():
            raise TypeError(f"features must be a floating-point tensor, got {_kind(features)}{_cure(features)}")
        if features.dim() != 2:
            raise ValueError(f"features must be (N, C), got shape {tuple(features.shape)}")
        if (coordinates is None) == (coordinate_map_key is None):
            raise ValueError("give either coordinates or coordinate_map_key")
        self.unique_index: Tensor | None = None
        self.inverse_mapping: Tensor | None = None
        if coordinates is not None:
            if not isinstance(coordinates, Tensor):
                raise TypeError(f"coordinates must be a tensor, got {_kind(coordinates)}{_cure(coordinates)}")
            if coordinates.dim() != 2 or not 2 <= coordinates.shape[1] <= 7:
                raise ValueError(f"coordinates must be (N, 1 + D) with D = 1 to 6, got {tuple(coordinates.shape)}")
            if len(coordinates) != len(features):
                raise ValueError(f"features has {len(features)} rows, coordinates {len(coordinates)}")
            if coordinates.device != features.device:
                raise ValueError(f"coordinates are on {coordinates.device}, features on {features.device}")
            if duplicates not in ("error", "sum", "mean", "first", "max"):
                raise ValueError(f"duplicates must be error, sum, mean, first or max, got {duplicates!r}")
            manager = coordinate_manager
            if manager is None:  # and not "or": a manager without maps is empty, and so false
                manager = CoordinateManager(coordinates.shape[1] - 1, batch_size)
            if manager.dimension != coordinates.shape[1] - 1:
                raise ValueError(
                    f"coordinates have {coordinates.shape[1] - 1} axes, the coordinate_manager {manager.dimension}"
                )
            made = manager.insert(coordinates, stride, duplicates="error" if duplicates == "error" else "merge")
            if made.merged:
                features = _merge(features, made.first, made.inverse, duplicates)
            coordinate_map_key, self.unique_index, self.inverse_mapping = made.key, made.first, made.inverse
        else:
            if coordinate_manager is None:
                raise ValueError("coordinate_map_key needs its coordinate_manager")
            assert coordinate_map_key is not None
            manager, size = coordinate_manager, coordinate_manager.size(coordinate_map_key)
            if size != len(features):
                raise ValueError(f"features has {len(features)} rows, the map {coordinate_map_key} {size}")
        if batch_size is not None:
            manager.batch_size = batch_size
        self.features = features
        self.coordinate_manager: CoordinateManager = manager
        self.coordinate_map_key: CoordinateMapKey = coordinate_map_key

    # What it holds

    @property
    def features(self) -> Tensor:
        """Floating-point (N, C)."""
        return self._features

    @features.setter
    def features(self, features: Tensor) -> None:
        known = getattr(self, "_features", None)
        key = getattr(self, "coordinate_map_key", None)
        if isinstance(known, Tensor) and isinstance(features, Tensor) and key is not None:
            rows = self.coordinate_manager.size(key)
            if features.dim() != 2 or features.shape[0] != rows:
                raise ValueError(f"features must be ({rows}, C), got {tuple(features.shape)}")
        self._features = features
        self._moments: tuple[int, Tensor | None] = (0, None)
        self._after: tuple[int, tuple[object, Tensor] | None] = (0, None)

    # What the layer that made the features knows of them, until they are changed: assigned anew, or in place.

    @property
    def moments(self) -> Tensor | None:
        """Mean and M2 of every tile of the features."""
        version, moments = self._moments
        return moments if version == _version(self._features) else None

    @moments.setter
    def moments(self, moments: Tensor | None) -> None:
        self._moments = _version(self._features), moments

    @property
    def after(self) -> tuple[object, Tensor] | None:
        """A norm that follows, and the features behind it and its activation."""
        version, after = self._after
        return after if version == _version(self._features) else None

    @after.setter
    def after(self, after: tuple[object, Tensor] | None) -> None:
        self._after = _version(self._features), after

    @property
    def coordinates(self) -> Tensor:
        """Integer (N, 1 + D) [batch, x, y, ...]."""
        return self.coordinate_manager.coordinates(self.coordinate_map_key)

    @property
    def stride(self) -> tuple[int, ...]:
        """Voxels between neighbours, per axis."""
        return self.coordinate_map_key.stride

    @property
    def dimension(self) -> int:
        return self.coordinate_manager.dimension

    F = property(lambda self: self.features)
    C = property(lambda self: self.coordinates)
    D = property(lambda self: self.dimension)

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    @property
    def shape(self) -> torch.Size:
        """(N, C)."""
        return self.features.shape

    def size(self, axis: int | None = None) -> Any:
        return self.features.size() if axis is None else self.features.size(axis)

    @property
    def num_channels(self) -> int:
        return self.features.shape[1]

    @property
    def requires_grad(self) -> bool:
        return self.features.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> SparseTensor:
        self.features.requires_grad_(requires_grad)
        return self

    def __len__(self) -> int:
        return self.features.shape[0]

    def __repr__(self) -> str:
        events = len(self.segments.batches) if self.stride != (0,) * self.dimension else len(self)
        stride = self.stride[0] if len(set(self.stride)) == 1 else self.stride
        return (
            f"SparseTensor({len(self)} voxel{'s' * (len(self) != 1)} x {self.num_channels} "
            f"channel{'s' * (self.num_channels != 1)}, {self.dimension}D, {events} event{'s' * (events != 1)}, "
            f"stride {stride}, {self.dtype}, {self.device})"
        )

    def _repr_html_(self) -> str:
        from ._html import html

        return html(self)

    # By event

    @property
    def segments(self) -> Segments:
        """The rows of each batch entry."""
        return self.coordinate_manager.segments(self.coordinate_map_key)

    def _event_rows(self) -> Iterator[Tensor]:
        order, starts, _, _ = self.segments
        edges = starts.tolist()
        for first, last in itertools.pairwise(edges):
            yield order[first:last].sort().values

    @property
    def decomposed_features(self) -> list[Tensor]:
        """The features of each event, rows in this tensor's order."""
        return [self.features[rows] for rows in self._event_rows()]

    @property
    def decomposed_coordinates(self) -> list[Tensor]:
        """The coordinates (n, D) of each event, without the batch id."""
        return [self.coordinates[rows, 1:] for rows in self._event_rows()]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[Tensor], list[Tensor]]:
        return self.decomposed_coordinates, self.decomposed_features

    def features_at(self, batch: int) -> Tensor:
        """The features of one event."""
        return self.features[self.coordinates[:, 0] == batch]

    def coordinates_at(self, batch: int) -> Tensor:
        """The coordinates (n, D) of one event."""
        return self.coordinates[self.coordinates[:, 0] == batch, 1:]

    def coordinates_and_features_at(self, batch: int) -> tuple[Tensor, Tensor]:
        return self.coordinates_at(batch), self.features_at(batch)

    # Copies

    def replace(self, features: Tensor, key: CoordinateMapKey | None = None) -> Self:
        """The same voxels, or those of a key of the same manager, with other features (N, any number)."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        rows = self.features.shape[0]
        if key is not None:
            other.coordinate_map_key, other.unique_index, other.inverse_mapping = key, None, None
            rows = self.coordinate_manager.size(key)
        if features.shape[0] != rows:
            raise ValueError(f"features has {features.shape[0]} rows, the voxels are {rows}")
        other.features = features
        return other

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """`function` of the features."""
        return self.replace(function(self.features))

    def detach(self) -> SparseTensor:
        return self.map(Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """As torch.Tensor.to; on another device, the maps are made anew there."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.features.device:
            return self.replace(features)
        return type(self)(
            features, self.coordinates.to(features.device), self.stride, batch_size=self.coordinate_manager.batch_size
        )

    def cpu(self) -> SparseTensor:
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> SparseTensor:
        return self.to(torch.device("cuda", device) if device is not None else "cuda")

    def float(self) -> SparseTensor:
        return self.map(Tensor.float)

    def double(self) -> SparseTensor:
        return self.map(Tensor.double)

    def half(self) -> SparseTensor:
        return self.map(Tensor.half)

    def bfloat16(self) -> SparseTensor:
        return self.map(Tensor.bfloat16)

    # Dense

    def dense(
        self, shape: Sequence[int] | None = None, min_coordinate: Sequence[int] | Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """As `functional.to_dense`: dense (B, C, X, Y, ...), the coordinate of its corner, the stride."""
        from . import functional

        return functional.to_dense(self, shape, min_coordinate)

    def features_at_coordinates(self, coordinates: Tensor) -> Tensor:
        """As `functional.interpolate`: multilinear between voxels, 0 where there is none."""
        from . import functional

        return functional.interpolate(self, coordinates)

    # Arithmetic: on the same voxels row by row, on others over the union, where a missing row counts as 0.

    def _combine(self, other: Any, op: Callable[[Any, Any], Any], swap: bool = False) -> SparseTensor:
        from . import functional

        if isinstance(other, SparseTensor):
            return functional.combine(op, self, other)
        if isinstance(other, (Tensor, int, float)):
            made = op(other, self.features) if swap else op(self.features, other)
            if isinstance(other, Tensor) and made.shape != self.features.shape:
                raise ValueError(
                    f"a tensor of shape {tuple(other.shape)} does not suit features {tuple(self.features.shape)}"
                )
            return self.replace(made)
        return NotImplemented

    __array_ufunc__ = None  # numpy shall not take us apart

    def __add__(self, other: Any) -> SparseTensor:
        return self._combine(other, torch.add)

    def __radd__(self, other: Any) -> SparseTensor:
        return self._combine(other, _add, swap=True)

    def __sub__(self, other: Any) -> SparseTensor:
        return self._combine(other, torch.sub)

    def __rsub__(self, other: Any) -> SparseTensor:
        return self._combine(other, _sub, swap=True)

    def __mul__(self, other: Any) -> SparseTensor:
        return self._combine(other, torch.mul)

    def __rmul__(self, other: Any) -> SparseTensor:
        return self._combine(other, _mul, swap=True)

    def __truediv__(self, other: Any) -> SparseTensor:
        return self._combine(other, torch.div)

    def __rtruediv__(self, other: Any) -> SparseTensor:
        return self._combine(other, _div, swap=True)

    def __neg__(self) -> SparseTensor:
        return self.map(torch.neg)

    def __pow__(self, power: Any) -> SparseTensor:
        return self.map(lambda f: f**power)


def _version(features: Tensor) -> int:
    """How often a tensor was written to, where that is counted."""
    return 0 if torch.compiler.is_compiling() or features.is_inference() else features._version


def _add(a: Any, b: Any) -> Any:
    return a + b


def _sub(a: Any, b: Any) -> Any:
    return a - b


def _mul(a: Any, b: Any) -> Any:
    return a * b


def _div(a: Any, b: Any) -> Any:
    return a / b


def _kind(x: object) -> str:
    return str(x.dtype) if isinstance(x, Tensor) else type(x).__name__


def _cure(x: object) -> str:
    """What makes a tensor of it."""
    if isinstance(x, Tensor):
        return ": .float() makes one"
    return ": torch.from_numpy(array) is one" if type(x).__name__ == "ndarray" else ""


def _merge(features: Tensor, first: Tensor, inverse: Tensor, rule: str) -> Tensor:
    """Features of merged voxels, in a fixed order of the sums; differentiable any number of times."""
    from hepops.core import scatter_add

    if rule == "first":
        return features[first]
    n = len(first)
    if rule == "max":
        return features.gather(0, _largest(features.detach(), inverse, n))
    if rule == "sum":
        return scatter_add(inverse, features, n)
    kind = torch.promote_types(features.dtype, torch.float32)  # a sum of halves may be beyond what a half holds
    total: Tensor = scatter_add(inverse, features.to(kind), n)
    return (total / torch.bincount(inverse, minlength=n)[:, None].to(total)).to(features.dtype)


def _largest(features: Tensor, inverse: Tensor, n: int) -> Tensor:
    """The row (n, C) of the largest feature of each merged voxel, the first of equal ones; NaN is more than any."""
    spread = inverse[:, None].expand_as(features)
    shape = (n, features.shape[1])
    top = features.new_zeros(shape).scatter_reduce(0, spread, features, "amax", include_self=False)
    rows = torch.arange(len(features), device=features.device)[:, None].expand_as(features)
    rows = rows.masked_fill((features != top[inverse]) & ~features.isnan(), len(features))
    return rows.new_full(shape, len(features)).scatter_reduce(0, spread, rows, "amin")
