"""SparseTensor with MinkowskiEngine's arguments, attributes and habits; hepops' own tensor underneath."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor as TorchTensor

import hepops.sparse as sparse
from hepops.sparse import functional as F
from hepops.sparse.kernel import per_axis
from hepops.sparse.tensor import _merge

from .common import StrideType, int_list
from .enums import (
    GPUMemoryAllocatorType,
    MinkowskiAlgorithm,
    SparseTensorOperationMode,
    SparseTensorQuantizationMode,
)
from .key import CoordinateMapKey
from .manager import CoordinateManager, _rows_of_events

if TYPE_CHECKING:
    from .field import TensorField

COORDINATE_MANAGER_DIFFERENT_ERROR = (
    "the tensors have different coordinate managers: make them with one coordinate_manager, "
    "or set_sparse_tensor_operation_mode(SparseTensorOperationMode.SHARE_COORDINATE_MANAGER)"
)
COORDINATE_KEY_DIFFERENT_ERROR = "the tensors have different coordinates (coordinate_map_key): "

_MERGES = {
    SparseTensorQuantizationMode.RANDOM_SUBSAMPLE: "first",
    SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE: "mean",
    SparseTensorQuantizationMode.UNWEIGHTED_SUM: "sum",
    SparseTensorQuantizationMode.MAX_POOL: "max",
}


class _Global:
    """What all tensors share that are made without a coordinate manager, if they shall."""

    mode: ClassVar[SparseTensorOperationMode] = SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
    manager: ClassVar[CoordinateManager | None] = None


def set_sparse_tensor_operation_mode(operation_mode: SparseTensorOperationMode) -> None:
    """Whether tensors made without a coordinate manager share the global one.

    Raises:
        TypeError: not a SparseTensorOperationMode.
    """
    if not isinstance(operation_mode, SparseTensorOperationMode):
        raise TypeError(f"operation_mode must be a SparseTensorOperationMode, got {operation_mode!r}")
    _Global.mode = operation_mode


def sparse_tensor_operation_mode() -> SparseTensorOperationMode:
    """The mode that is set."""
    return _Global.mode


def global_coordinate_manager() -> CoordinateManager | None:
    """The shared coordinate manager, if there is one yet."""
    return _Global.manager


def set_global_coordinate_manager(coordinate_manager: CoordinateManager | None) -> None:
    """Share this coordinate manager."""
    _Global.manager = coordinate_manager


def clear_global_coordinate_manager() -> None:
    """Forget the shared coordinate manager: after every step, in the mode that shares it."""
    _Global.manager = None


def choose_manager(coordinate_manager: CoordinateManager | None, dimension: int) -> CoordinateManager:
    """The manager that is given, or the shared one, or a new one, after the mode."""
    if coordinate_manager is not None:
        if not isinstance(coordinate_manager, CoordinateManager):
            raise TypeError(f"coordinate_manager must be a CoordinateManager, got {type(coordinate_manager).__name__}")
        if coordinate_manager.D != dimension:
            raise ValueError(f"coordinates have {dimension} axes, the coordinate_manager {coordinate_manager.D}")
        return coordinate_manager
    if _Global.mode == SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER:
        return CoordinateManager(dimension)
    if _Global.manager is None:
        _Global.manager = CoordinateManager(dimension)
    return choose_manager(_Global.manager, dimension)


def check_features(features: Any) -> None:
    """Refuse what is not a matrix of real numbers."""
    if not isinstance(features, TorchTensor):
        raise TypeError(f"features must be a torch.Tensor, got {type(features).__name__}")
    if features.dim() != 2:
        raise ValueError(f"features must be (N, C), got shape {tuple(features.shape)}")


def check_rows(features: TorchTensor, coordinates: Any) -> None:
    """Refuse coordinates that do not belong to the features."""
    if not isinstance(coordinates, TorchTensor):
        raise TypeError(f"coordinates must be a torch.Tensor, got {type(coordinates).__name__}")
    if coordinates.dim() != 2 or not 2 <= coordinates.shape[1] <= 7:
        raise ValueError(f"coordinates must be (N, 1 + D) with D = 1 to 6, got {tuple(coordinates.shape)}")
    if len(features) != len(coordinates):
        raise ValueError(f"features has {len(features)} rows, coordinates {len(coordinates)}")
    if features.device != coordinates.device:
        raise ValueError(f"coordinates are on {coordinates.device}, features on {features.device}")


class Tensor:
    """What SparseTensor and TensorField share: features with names that MinkowskiEngine gave them."""

    features: TorchTensor
    coordinate_manager: CoordinateManager
    quantization_mode: SparseTensorQuantizationMode

    @property
    def F(self) -> TorchTensor:
        """Features (N, C)."""
        return self.features

    @property
    def _F(self) -> TorchTensor:
        return self.features

    @_F.setter
    def _F(self, features: TorchTensor) -> None:
        self.features = features

    @property
    def C(self) -> TorchTensor:
        """Coordinates (N, 1 + D)."""
        return self.coordinates

    @property
    def _C(self) -> TorchTensor:
        return self.coordinates

    @property
    def D(self) -> int:
        return self.coordinate_manager.D

    @property
    def _D(self) -> int:
        return self.coordinate_manager.D

    @property
    def dimension(self) -> int:
        return self.coordinate_manager.D

    @property
    def _manager(self) -> CoordinateManager:
        return self.coordinate_manager

    @property
    def coordinates(self) -> TorchTensor:
        raise NotImplementedError

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    @property
    def shape(self) -> torch.Size:
        return self.features.shape

    @property
    def requires_grad(self) -> bool:
        return self.features.requires_grad

    def __len__(self) -> int:
        return len(self.features)

    def size(self, axis: int | None = None) -> Any:
        return self.features.size() if axis is None else self.features.size(axis)

    def get_device(self) -> int:
        return self.features.get_device()

    # In place, as MinkowskiEngine's: code in the field calls them for their effect.

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        self.features.requires_grad_(requires_grad)
        return self

    def _set(self, features: TorchTensor) -> Any:
        self.features = features
        if hasattr(self, "moments"):
            self.moments = None
        return self

    def float(self) -> Any:
        """To float32, in place."""
        return self._set(self.features.float())

    def double(self) -> Any:
        """To float64, in place."""
        return self._set(self.features.double())

    def half(self) -> Any:
        """To float16, in place."""
        return self._set(self.features.half())

    def bfloat16(self) -> Any:
        """To bfloat16, in place."""
        return self._set(self.features.bfloat16())

    def detach(self) -> Any:
        """Out of the graph, in place."""
        return self._set(self.features.detach())

    # By event

    @property
    def _batchwise_row_indices(self) -> list[TorchTensor]:
        return _rows_of_events(
            self.coordinates[:, 0].round() if self.coordinates.is_floating_point() else self.C[:, 0]
        )[1]

    @property
    def decomposition_permutations(self) -> list[TorchTensor]:
        """The rows of every batch id from 0 to the largest, ascending; none where there are none."""
        return self._batchwise_row_indices

    @property
    def decomposed_coordinates(self) -> list[TorchTensor]:
        """The coordinates (n, D) of every batch id from 0 to the largest."""
        return [self.coordinates[rows, 1:] for rows in self._batchwise_row_indices]

    @property
    def decomposed_features(self) -> list[TorchTensor]:
        """The features of every batch id from 0 to the largest."""
        return [self.features[rows] for rows in self._batchwise_row_indices]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[TorchTensor], list[TorchTensor]]:
        rows = self._batchwise_row_indices
        return [self.coordinates[r, 1:] for r in rows], [self.features[r] for r in rows]

    def coordinates_at(self, batch_index: int) -> TorchTensor:
        """The coordinates (n, D) of one event."""
        return self.coordinates[self.coordinates[:, 0] == batch_index, 1:]

    def features_at(self, batch_index: int) -> TorchTensor:
        """The features of one event."""
        return self.features[self.coordinates[:, 0] == batch_index]

    def coordinates_and_features_at(self, batch_index: int) -> tuple[TorchTensor, TorchTensor]:
        return self.coordinates_at(batch_index), self.features_at(batch_index)

    # Arithmetic in place keeps the object, as MinkowskiEngine's, but writes to a tensor of its own.

    def _is_same_key(self, other: Any) -> None:
        if not isinstance(other, type(self)):
            raise TypeError(f"needs another {type(self).__name__}, got {type(other).__name__}")
        if self.coordinate_manager is not other.coordinate_manager:
            raise ValueError(COORDINATE_MANAGER_DIFFERENT_ERROR)
        if self.coordinate_key != other.coordinate_key:
            raise ValueError(f"{COORDINATE_KEY_DIFFERENT_ERROR}{self.coordinate_key} and {other.coordinate_key}")

    def _in_place(self, other: Any, op: Callable[[Any, Any], Any]) -> Any:
        if isinstance(other, (TorchTensor, int, float)):
            return self._set(op(self.features, other))
        self._is_same_key(other)
        return self._set(op(self.features, other.features))

    def __iadd__(self, other: Any) -> Any:
        return self._in_place(other, torch.add)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(other, torch.sub)

    def __imul__(self, other: Any) -> Any:
        return self._in_place(other, torch.mul)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place(other, torch.div)


class SparseTensor(Tensor, sparse.SparseTensor):  # type: ignore[misc]
    """Features (N, C) on the voxels of a batch of events.

    Args:
        features: (N, C).
        coordinates: (N, 1 + D) [batch, x, y, ...]; real ones are floored.
        tensor_stride: voxels between neighbours, one or D.
        coordinate_map_key, coordinate_manager: voxels that are known already, in place of coordinates.
        quantization_mode: what becomes of features on one voxel; RANDOM_SUBSAMPLE takes the first.
        allocator_type, minkowski_algorithm: taken and without effect.
        requires_grad: set on the features. device: where features and coordinates are moved to.

    Rows keep the caller's order; of duplicates the first one's place.

    Attributes:
        F, C, D; coordinate_map_key, coordinate_manager, tensor_stride (list); unique_index (the rows that were kept),
        inverse_mapping (the kept row of each given row).

    Raises:
        TypeError, ValueError: as `hepops.sparse.SparseTensor`; NO_QUANTIZATION with duplicates,
            SPLAT_LINEAR_INTERPOLATION (TensorField.splat does that).

    Example:
        >>> x = SparseTensor(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 3, 3], [0, 3, 3]]).int())
        >>> x.F.tolist(), x.tensor_stride, x.coordinate_map_key.get_key()
        ([[1.0]], [1, 1], ([1, 1], ''))
    """

    def __init__(
        self,
        features: TorchTensor,
        coordinates: TorchTensor | None = None,
        tensor_stride: StrideType = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = SparseTensorQuantizationMode.RANDOM_SUBSAMPLE,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
        requires_grad: bool | None = None,
        device: Any = None,
    ) -> None:
        check_features(features)
        if not isinstance(quantization_mode, SparseTensorQuantizationMode):
            raise TypeError(f"quantization_mode must be a SparseTensorQuantizationMode, got {quantization_mode!r}")
        if (coordinates is None) == (coordinate_map_key is None):
            raise ValueError("give either coordinates or coordinate_map_key with its coordinate_manager")
        if coordinate_map_key is not None and coordinate_manager is None:
            raise ValueError("coordinate_map_key needs its coordinate_manager")
        if device is not None:
            features = features.to(device)
        self.quantization_mode = quantization_mode
        unique_index = inverse_mapping = None
        if coordinates is not None:
            coordinates = coordinates.to(features.device) if device is not None else coordinates
            check_rows(features, coordinates)
            manager = choose_manager(coordinate_manager, coordinates.shape[1] - 1)
            key = CoordinateMapKey(int_list("tensor_stride", tensor_stride, manager.D))
            features, key, unique_index, inverse_mapping = self._insert(manager, coordinates, features, key)
        else:
            assert coordinate_manager is not None and coordinate_map_key is not None
            manager, key = coordinate_manager, CoordinateMapKey.of(coordinate_map_key)
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        sparse.SparseTensor.__init__(self, features, coordinate_map_key=key.native, coordinate_manager=manager)
        self.unique_index, self.inverse_mapping = unique_index, inverse_mapping

    def _insert(
        self, manager: CoordinateManager, coordinates: TorchTensor, features: TorchTensor, key: CoordinateMapKey
    ) -> tuple[TorchTensor, CoordinateMapKey, TorchTensor, TorchTensor]:
        """Features by voxel, the key of the new map, the rows kept and the kept row of each row."""
        if self.quantization_mode == SparseTensorQuantizationMode.SPLAT_LINEAR_INTERPOLATION:
            raise ValueError("SPLAT_LINEAR_INTERPOLATION is for fields: TensorField(features, coordinates).splat()")
        made, (first, inverse) = manager.insert_and_map(_voxels(coordinates), *key.get_key())
        if len(first) == len(features):
            return features, made, first, inverse
        if self.quantization_mode == SparseTensorQuantizationMode.NO_QUANTIZATION:
            del manager.maps[made.native]
            raise ValueError(f"coordinates has {len(features) - len(first)} duplicates, which NO_QUANTIZATION leaves")
        return _merge(features, first, inverse, _MERGES[self.quantization_mode]), made, first, inverse

    def initialize_coordinates(
        self, coordinates: TorchTensor, features: TorchTensor, coordinate_map_key: CoordinateMapKey
    ) -> tuple[TorchTensor, TorchTensor, CoordinateMapKey]:
        """Insert coordinates into the manager: coordinates and features by voxel, and the key of their map."""
        features, key, self.unique_index, self.inverse_mapping = self._insert(
            self.coordinate_manager, coordinates, features, coordinate_map_key
        )
        return self.coordinate_manager.get_coordinates(key), features, key

    # Keys: hepops stores its own form, MinkowskiEngine's methods are on this one.

    @property  # type: ignore[override]
    def coordinate_map_key(self) -> CoordinateMapKey:
        return self._key

    @coordinate_map_key.setter
    def coordinate_map_key(self, key: Any) -> None:
        self._key = CoordinateMapKey.of(key)

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        return self._key

    @property
    def tensor_stride(self) -> list[int]:
        """Voxels between neighbours, one per axis."""
        return self._key.get_tensor_stride()

    @property
    def coordinates(self) -> TorchTensor:
        """Integer (N, 1 + D) [batch, x, y, ...]."""
        return self.coordinate_manager.coordinates(self._key.native)

    def __repr__(self) -> str:
        return sparse.SparseTensor.__repr__(self)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """As torch.Tensor.to, a new tensor; on another device, the maps are made anew there."""
        features = self.features.to(*args, **kwargs)
        if features.device == self.features.device:
            return self.replace(features)
        return SparseTensor(features, self.coordinates.to(features.device), self.tensor_stride)

    # Dense

    def dense(  # type: ignore[override]
        self,
        shape: Sequence[int] | None = None,
        min_coordinate: TorchTensor | int | None = None,
        contract_stride: bool = True,
    ) -> tuple[TorchTensor, TorchTensor, TorchTensor]:
        """A dense grid of the features, 0 where there is no voxel.

        Args:
            shape: (B, C, X, Y, ...); by default what holds all voxels. The number of channels is the tensor's.
            min_coordinate: int (D), the voxel at the grid's corner; by default 0.
            contract_stride: one step of the grid is the tensor stride; else it is one voxel.

        Returns:
            dense (B, C, X, Y, ...), the corner int32 (1, D), the tensor stride int32 (D).

        Raises:
            ValueError: negative coordinates without min_coordinate, or voxels outside of the grid.
        """
        corner = [0] * self.D
        if isinstance(min_coordinate, TorchTensor):
            corner = per_axis("min_coordinate", min_coordinate.reshape(-1), self.D, least=-(2**62))  # type: ignore[assignment]
        elif min_coordinate is None and len(self) and int(self.C[:, 1:].min()) < 0:
            raise ValueError(f"coordinates are negative, down to {self.C[:, 1:].amin(0).tolist()}: give min_coordinate")
        elif min_coordinate not in (None, 0):
            raise TypeError(f"min_coordinate must be an int32 tensor, got {min_coordinate!r}")
        if shape is not None:
            if len(shape) != self.D + 2:
                raise ValueError(f"shape must have {self.D + 2} entries, got {tuple(shape)}")
            shape = (shape[0], self.features.shape[1], *shape[2:])
        x: sparse.SparseTensor = self
        if not contract_stride and any(s != 1 for s in self.tensor_stride):
            x = sparse.SparseTensor(self.features, self.coordinates)
        dense, _, _ = F.to_dense(x, shape, corner)
        low = torch.tensor([list(corner)], dtype=torch.int32, device=self.device)
        return dense, low, torch.tensor(self.tensor_stride, dtype=torch.int32)

    def sparse(
        self,
        min_coords: TorchTensor | None = None,
        max_coords: TorchTensor | None = None,
        contract_coords: bool = True,
    ) -> tuple[TorchTensor, TorchTensor, TorchTensor]:
        """A torch.sparse_coo_tensor (B, X, Y, ..., C), the coordinates of its corner and the tensor stride.

        Args:
            min_coords, max_coords: int (D), the corners; by default those of the voxels.
            contract_coords: one step of the grid is the tensor stride; else it is one voxel.

        Raises:
            ValueError: a corner that is no multiple of the tensor stride, or voxels outside.
        """
        stride = torch.tensor(self.tensor_stride, device=self.device)
        c = self.coordinates.long()
        low = c[:, 1:].amin(0) if min_coords is None else min_coords.reshape(-1).to(c)
        high = c[:, 1:].amax(0) if max_coords is None else max_coords.reshape(-1).to(c)
        if bool((low % stride != 0).any()) or bool((high % stride != 0).any()):
            raise ValueError(f"min_coords and max_coords must be multiples of the tensor stride {self.tensor_stride}")
        if bool((c[:, 1:] < low).any()) or bool((c[:, 1:] > high).any()):
            raise ValueError(f"voxels lie outside of {low.tolist()} to {high.tolist()}")
        step = stride if contract_coords else torch.ones_like(stride)
        place = torch.cat([c[:, :1], torch.div(c[:, 1:] - low, step, rounding_mode="floor")], 1)
        extent = torch.div(high - low, step, rounding_mode="floor") + 1
        size = [int(c[:, 0].max()) + 1 if len(c) else 0, *extent.tolist(), self.features.shape[1]]
        made = torch.sparse_coo_tensor(place.t(), self.features, size, check_invariants=True)
        corner = torch.div(low, step, rounding_mode="floor").int()[None]
        return made, corner, stride.int().cpu()

    # Fields

    def interpolate(self, X: TensorField) -> TensorField:
        """The multilinear values at the points of a field."""
        return X.replace(F.interpolate(self, X.C.to(self.dtype)))

    def slice(self, X: TensorField | SparseTensor) -> TensorField:
        """Each point of a field (or row that these voxels were merged from) gets the features of its voxel.

        A point without a voxel here gets 0.

        Raises:
            ValueError: the field was quantized by a sum or a maximum, or has another coordinate manager.
        """
        return self._sliced(X, concatenate=False)

    def cat_slice(self, X: TensorField | SparseTensor) -> TensorField:
        """As `slice`, followed by the features that the points (or X's voxels) have."""
        return self._sliced(X, concatenate=True)

    def _sliced(self, X: Any, concatenate: bool) -> TensorField:
        from .field import TensorField

        modes = (SparseTensorQuantizationMode.RANDOM_SUBSAMPLE, SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE)
        if not isinstance(X, (TensorField, SparseTensor)):
            raise TypeError(f"X must be a TensorField or a SparseTensor, got {type(X).__name__}")
        if X.quantization_mode not in modes:
            raise ValueError(
                f"X must be quantized by RANDOM_SUBSAMPLE or UNWEIGHTED_AVERAGE, got {X.quantization_mode}"
            )
        if X.coordinate_manager is not self.coordinate_manager:
            raise ValueError(COORDINATE_MANAGER_DIFFERENT_ERROR)
        if isinstance(X, TensorField):
            features = _gather(self.features, X.inverse_mapping(self.coordinate_map_key))
            return X.replace(torch.cat([features, X.features], 1) if concatenate else features)
        if X.coordinate_map_key != self.coordinate_map_key or X.inverse_mapping is None:
            raise ValueError(f"X must be the tensor that these coordinates were given to, got {X.coordinate_map_key}")
        features = torch.cat([self.features, X.features], 1) if concatenate else self.features
        return TensorField(
            features[X.inverse_mapping],
            self.coordinates[X.inverse_mapping],
            coordinate_manager=self.coordinate_manager,
            quantization_mode=X.quantization_mode,
        )

    def features_at_coordinates(self, query_coordinates: TorchTensor) -> TorchTensor:
        """The multilinear values at real coordinates (Q, 1 + D); a voxel that does not exist counts as 0."""
        return F.interpolate(self, query_coordinates)

    # Old names

    @property
    def coords_key(self) -> NoReturn:
        raise AttributeError("coords_key is MinkowskiEngine 0.4's name: use coordinate_map_key")

    @property
    def coords_man(self) -> NoReturn:
        raise AttributeError("coords_man is MinkowskiEngine 0.4's name: use coordinate_manager")


def _gather(features: TorchTensor, rows: TorchTensor) -> TorchTensor:
    """features[rows], 0 where there is no row (-1)."""
    if bool((rows >= 0).all()):
        return features[rows]
    return features.new_zeros(len(rows), features.shape[1]).index_copy(
        0, (rows >= 0).nonzero()[:, 0], features[rows[rows >= 0]]
    )


def _voxels(coordinates: TorchTensor) -> TorchTensor:
    """Integer coordinates, int32 where that holds them; real ones floored, with a warning where that changes any."""
    if coordinates.is_floating_point():
        low = coordinates.floor()
        if bool((low != coordinates).any()) and bool(torch.isfinite(coordinates).all()):
            warnings.warn("coordinates are not integer and were floored: floor them first", stacklevel=4)
        return low
    if coordinates.dtype == torch.int64 and coordinates.numel() and int(coordinates.abs().max()) < 2**31:
        return coordinates.int()
    return coordinates


def _get_coordinate_map_key(
    input: SparseTensor,
    coordinates: TorchTensor | CoordinateMapKey | SparseTensor | None = None,
    tensor_stride: StrideType = 1,
    expand_coordinates: bool = False,
) -> CoordinateMapKey:
    """The key of coordinates that are given in any form, inserted where they are new; else a key to be set."""
    if coordinates is None or expand_coordinates:
        return CoordinateMapKey(input.D + 1)
    if isinstance(coordinates, TorchTensor):
        return input.coordinate_manager.insert_and_map(_voxels(coordinates), tensor_stride)[0]
    if isinstance(coordinates, SparseTensor):
        return coordinates.coordinate_map_key
    return CoordinateMapKey.of(coordinates)


def output_target(input: SparseTensor, coordinates: Any, stride: Sequence[int]) -> Any:
    """Where a layer shall write, as hepops.sparse.functional takes it.

    Coordinates that are no multiples of the output's stride are taken at stride 1, as MinkowskiEngine does.
    """
    if not isinstance(coordinates, TorchTensor):
        return coordinates
    voxels = _voxels(coordinates)
    fits = bool((voxels[:, 1:] % voxels.new_tensor(np.asarray(stride)) == 0).all()) if len(voxels) else True
    return input.coordinate_manager.insert_and_map(voxels, list(stride) if fits else 1)[0]
