"""Features at real coordinates, and their way to voxels and back."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor as TorchTensor

from hepops.core import scatter_add

from .common import StrideType, int_list
from .enums import GPUMemoryAllocatorType, MinkowskiAlgorithm, SparseTensorQuantizationMode
from .key import CoordinateMapKey
from .manager import CoordinateManager, corners
from .reduce import reduce_rows
from .tensor import _MERGES, SparseTensor, Tensor, check_features, check_rows, choose_manager


def create_splat_coordinates(coordinates: TorchTensor) -> TorchTensor:
    """The 2^D voxels around each point, int32 (N 2^D, 1 + D)."""
    D = coordinates.shape[1] - 1
    corner = torch.cartesian_prod(*[torch.arange(2, device=coordinates.device)] * D).reshape(-1, D)
    corner = torch.cat([corner.new_zeros(len(corner), 1), corner], 1)
    return (coordinates.floor().int()[:, None] + corner.int()[None]).reshape(-1, D + 1)


class TensorField(Tensor):
    """Features (N, C) at real coordinates; points are not merged until `sparse` or `splat` put them on voxels.

    Args:
        features: (N, C).
        coordinates: (N, 1 + D) [batch, x, y, ...] in voxels, real or integer.
        tensor_stride: voxels between neighbours, one or D: part of the key.
        coordinate_field_map_key, coordinate_manager: a field that is known already, in place of coordinates.
        quantization_mode: how `sparse` merges the features of one voxel.
        allocator_type, minkowski_algorithm: taken and without effect.
        requires_grad: set on the features. device: where features and coordinates are moved to.

    Raises:
        TypeError, ValueError: shapes, lengths or devices that do not fit, coordinates that are not finite,
            quantization by NO_QUANTIZATION or SPLAT_LINEAR_INTERPOLATION.

    Example:
        >>> points = TensorField(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 0.2, 0.1], [0, 0.9, 0.5]]))
        >>> voxels = points.sparse()
        >>> voxels.C.tolist(), voxels.F.tolist(), voxels.slice(points).F.tolist()
        ([[0, 0, 0]], [[2.0]], [[2.0], [2.0]])
    """

    def __init__(
        self,
        features: TorchTensor,
        coordinates: TorchTensor | None = None,
        tensor_stride: StrideType = 1,
        coordinate_field_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
        requires_grad: bool | None = None,
        device: Any = None,
    ) -> None:
        check_features(features)
        if quantization_mode not in _MERGES:
            raise ValueError(f"quantization_mode must be one of {[m.name for m in _MERGES]}, got {quantization_mode!r}")
        if (coordinates is None) == (coordinate_field_map_key is None):
            raise ValueError("give either coordinates or coordinate_field_map_key with its coordinate_manager")
        if device is not None:
            features = features.to(device)
        if coordinates is not None:
            coordinates = coordinates.to(features.device) if device is not None else coordinates
            check_rows(features, coordinates)
            manager = choose_manager(coordinate_manager, coordinates.shape[1] - 1)
            if not coordinates.is_floating_point():
                coordinates = coordinates.to(torch.float64)
            stride = int_list("tensor_stride", tensor_stride, manager.D)
            coordinate_field_map_key = manager.insert_field(coordinates, stride)
        else:
            if coordinate_manager is None or coordinate_field_map_key is None:
                raise ValueError("coordinate_field_map_key needs its coordinate_manager")
            manager, coordinate_field_map_key = coordinate_manager, CoordinateMapKey.of(coordinate_field_map_key)
            rows = len(manager.get_coordinate_field(coordinate_field_map_key))
            if rows != len(features):
                raise ValueError(f"features has {len(features)} rows, the field {rows}")
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        self.features = features
        self.coordinate_manager = manager
        self.coordinate_field_map_key = coordinate_field_map_key
        self.quantization_mode = quantization_mode

    @property
    def coordinates(self) -> TorchTensor:
        """Real (N, 1 + D) [batch, x, y, ...]."""
        return self.coordinate_manager.get_coordinate_field(self.coordinate_field_map_key)

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        return self.coordinate_field_map_key

    @property
    def tensor_stride(self) -> list[int]:
        return self.coordinate_field_map_key.get_tensor_stride()

    @property
    def _batchwise_row_indices(self) -> list[TorchTensor]:
        return self.coordinate_manager.origin_field_map(self.coordinate_field_map_key)[1]

    def __repr__(self) -> str:
        return f"TensorField({len(self)} points x {self.shape[1]} channels, {self.D}D, {self.dtype}, {self.device})"

    def replace(self, features: TorchTensor) -> Self:
        """The same points with other features (N, any number)."""
        if len(features) != len(self.features):
            raise ValueError(f"features has {len(features)} rows, the field {len(self.features)}")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.features = features
        return other

    def to(self, *args: Any, **kwargs: Any) -> TensorField:
        """As torch.Tensor.to, a new field; on another device with a new coordinate manager."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.features.device:
            return self.replace(features)
        c = self.coordinates.to(features.device)
        return TensorField(features, c, self.tensor_stride, quantization_mode=self.quantization_mode)

    # To voxels

    def sparse(
        self,
        tensor_stride: StrideType = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        quantization_mode: SparseTensorQuantizationMode | None = None,
    ) -> SparseTensor:
        """The voxels that the points lie in, in order of first points, with merged features.

        Args:
            tensor_stride: size of the voxels, one or D.
            coordinate_map_key: merge onto the voxels of this map instead; points outside of it are left out.
            quantization_mode: how, in place of the field's own.

        Differentiable any number of times in the features. Deterministic.

        Raises:
            ValueError: a mode that does not merge (for SPLAT_LINEAR_INTERPOLATION call `splat`).
        """
        mode = self.quantization_mode if quantization_mode is None else quantization_mode
        if mode not in _MERGES:
            raise ValueError(
                f"quantization_mode must be one of {[m.name for m in _MERGES]} (or call splat), got {mode}"
            )
        manager, field = self.coordinate_manager, self.coordinate_field_map_key
        if coordinate_map_key is None:
            stride = int_list("tensor_stride", tensor_stride, self.D)
            key, (_, rows) = manager.field_to_sparse_insert_and_map(field, stride)
            features = self.features
        else:
            key = CoordinateMapKey.of(coordinate_map_key)
            rows, points = manager.field_to_sparse_map(field, key)
            features = self.features[points]
        merged = reduce_rows(features, rows, manager.size(key), _MERGES[mode])
        return SparseTensor(merged, coordinate_map_key=key, coordinate_manager=manager)

    def splat(self) -> SparseTensor:
        """The 2^D voxels around every point; each gets the features times the multilinear weights.

        Differentiable any number of times in the features. Deterministic. Voxels are in order of the points.
        """
        manager = self.coordinate_manager
        key, _ = manager.insert_and_map(create_splat_coordinates(self.coordinates))
        rows, weights = corners(manager, key, self.coordinates)
        spread = weights.to(self.dtype)[..., None] * self.features[:, None]
        features = scatter_add(rows.reshape(-1), spread.flatten(0, 1), manager.size(key))
        return SparseTensor(features, coordinate_map_key=key, coordinate_manager=manager)

    def inverse_mapping(self, sparse_tensor_map_key: CoordinateMapKey) -> TorchTensor:
        """The row on a map of the voxel that each point lies in, int64 (N), -1 where there is none."""
        return self.coordinate_manager.field_rows(self.coordinate_field_map_key, sparse_tensor_map_key)

    # Arithmetic: point by point.

    def _binary(self, other: Any, op: Any) -> Any:
        if isinstance(other, TensorField):
            self._is_same_key(other)
            return self.replace(op(self.features, other.features))
        if isinstance(other, (TorchTensor, int, float)):
            return self.replace(op(self.features, other))
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._binary(other, torch.add)

    def __sub__(self, other: Any) -> Any:
        return self._binary(other, torch.sub)

    def __mul__(self, other: Any) -> Any:
        return self._binary(other, torch.mul)

    def __truediv__(self, other: Any) -> Any:
        return self._binary(other, torch.div)
