"""Pools over neighbourhoods and over events."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor as TorchTensor

from hepops.sparse import functional as F

from .common import MinkowskiModuleBase, StrideType
from .convolution import Coordinates, _generator
from .enums import PoolingMode
from .field import TensorField
from .key import CoordinateMapKey
from .layer import Input, check_sparse, product
from .reduce import reduce_rows
from .regions import KernelGenerator
from .tensor import SparseTensor, output_target

Mode = Literal["sum", "avg", "max"]


def _mode(mode: PoolingMode, scope: str) -> Mode:
    if not isinstance(mode, PoolingMode) or not mode.name.startswith(scope):
        raise ValueError(f"mode must be a {scope} PoolingMode, got {mode!r}")
    return mode.name.split("_")[1].lower()  # type: ignore[return-value]


def _pool(
    input: SparseTensor, mode: PoolingMode, generator: KernelGenerator, is_transpose: bool, coordinates: Coordinates
) -> Any:
    stride, kernel = generator.kernel_stride, generator.kernel
    if is_transpose:
        fine = [s // f for s, f in zip(input.tensor_stride, stride, strict=True)]
        target = None if coordinates is None else output_target(input, coordinates, fine)
        return F.pool_transpose(
            input, kernel=kernel, stride=stride, coordinates=target, generative=generator.expand_coordinates
        )
    target = None if coordinates is None else output_target(input, coordinates, product(input.tensor_stride, stride))
    return F.pool(input, _mode(mode, "LOCAL"), kernel=kernel, stride=stride, coordinates=target)


class MinkowskiPoolingBase(MinkowskiModuleBase):
    """What the local pools share. A box as large as its stride parts the voxels into cells."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        pooling_mode: PoolingMode = PoolingMode.LOCAL_AVG_POOLING,
        dimension: int | None = -1,
    ) -> None:
        super().__init__()
        expand = kernel_generator.expand_coordinates if kernel_generator is not None else False
        self.kernel_generator = _generator(kernel_generator, kernel_size, stride, dilation, expand, dimension)
        self.is_transpose = is_transpose
        self.pooling_mode = pooling_mode
        self.dimension = self.kernel_generator.dimension
        _mode(pooling_mode, "LOCAL")

    def forward(self, input: SparseTensor, coordinates: Coordinates = None) -> SparseTensor:
        check_sparse(input, self.dimension)
        out: Any = _pool(input, self.pooling_mode, self.kernel_generator, self.is_transpose, coordinates)
        return out

    def __repr__(self) -> str:
        g = self.kernel_generator
        shape = f"kernel_size={g.kernel_size}, stride={g.kernel_stride}, dilation={g.kernel_dilation}"
        return f"{type(self).__name__}({shape})"


class MinkowskiSumPooling(MinkowskiPoolingBase):
    """Sum of the active neighbours."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ) -> None:
        mode = PoolingMode.LOCAL_SUM_POOLING
        super().__init__(kernel_size, stride, dilation, kernel_generator, False, mode, dimension)


class MinkowskiAvgPooling(MinkowskiPoolingBase):
    """Mean of the active neighbours."""

    def __init__(
        self,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ) -> None:
        mode = PoolingMode.LOCAL_AVG_POOLING
        super().__init__(kernel_size, stride, dilation, kernel_generator, False, mode, dimension)


class MinkowskiMaxPooling(MinkowskiPoolingBase):
    """Largest active neighbour; ties go to the lowest offset."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ) -> None:
        mode = PoolingMode.LOCAL_MAX_POOLING
        super().__init__(kernel_size, stride, dilation, kernel_generator, False, mode, dimension)


class MinkowskiPoolingTranspose(MinkowskiPoolingBase):
    """Features spread to the finer voxels: each gets the mean of the voxels that see it."""

    def __init__(
        self,
        kernel_size: StrideType,
        stride: StrideType,
        dilation: StrideType = 1,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        dimension: int | None = None,
    ) -> None:
        generator = _generator(kernel_generator, kernel_size, stride, dilation, expand_coordinates, dimension)
        super().__init__(kernel_size, stride, dilation, generator, True, dimension=dimension)


def _pool_events(input: Input, mode: PoolingMode) -> SparseTensor:
    kind = _mode(mode, "GLOBAL")
    if not isinstance(input, TensorField):
        check_sparse(input)
        out: Any = F.global_pool(input, kind)
        return out
    manager = input.coordinate_manager
    key = manager.origin()
    rows = torch.searchsorted(manager.coordinates(key.native)[:, 0].contiguous(), input.C[:, 0].round().int())
    merged = reduce_rows(input.features, rows, manager.size(key), "mean" if kind == "avg" else kind)
    return SparseTensor(merged, coordinate_map_key=key, coordinate_manager=manager)


class MinkowskiGlobalPooling(MinkowskiModuleBase):
    """One row per batch id, ascending: mean (by default), sum or largest of its voxels or points.

    An event that lost all its voxels to pruning keeps its row, of zeros.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX) -> None:
        super().__init__()
        _mode(mode, "GLOBAL")
        self.pooling_mode = mode

    def forward(self, input: Input, coordinates: Coordinates = None) -> SparseTensor:
        if coordinates is not None:
            raise ValueError("a global pool writes one voxel per event: coordinates must be None")
        return _pool_events(input, self.pooling_mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.pooling_mode})"


class MinkowskiGlobalSumPooling(MinkowskiGlobalPooling):
    """Sum of each event."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX) -> None:
        super().__init__(mode)


class MinkowskiGlobalAvgPooling(MinkowskiGlobalPooling):
    """Mean of each event."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX) -> None:
        super().__init__(mode)


class MinkowskiGlobalMaxPooling(MinkowskiGlobalPooling):
    """Largest of each event."""

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX) -> None:
        super().__init__(mode)


def _set(key: CoordinateMapKey | None, made: CoordinateMapKey) -> None:
    if key is not None and not key.is_key_set():
        key.set_key(*made.get_key())


class MinkowskiLocalPoolingFunction:
    """A local pool as a function."""

    is_transpose = False

    @classmethod
    def apply(
        cls,
        input_features: TorchTensor,
        pooling_mode: PoolingMode,
        kernel_generator: KernelGenerator,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: Any = None,
    ) -> TorchTensor:
        """The features of the pool; sets an output key that is not set."""
        x = SparseTensor(
            input_features, coordinate_map_key=in_coordinate_map_key, coordinate_manager=coordinate_manager
        )
        given = out_coordinate_map_key is not None and out_coordinate_map_key.is_key_set()
        y = _pool(x, pooling_mode, kernel_generator, cls.is_transpose, out_coordinate_map_key if given else None)
        _set(out_coordinate_map_key, y.coordinate_map_key)
        features: TorchTensor = y.features
        return features


class MinkowskiLocalPoolingTransposeFunction(MinkowskiLocalPoolingFunction):
    """`MinkowskiPoolingTranspose` as a function."""

    is_transpose = True


class MinkowskiGlobalPoolingFunction:
    """A global pool as a function."""

    @staticmethod
    def apply(
        input_features: TorchTensor,
        pooling_mode: PoolingMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: Any = None,
    ) -> TorchTensor:
        """The features of the pool; sets an output key that is not set."""
        x = SparseTensor(
            input_features, coordinate_map_key=in_coordinate_map_key, coordinate_manager=coordinate_manager
        )
        y = _pool_events(x, pooling_mode)
        _set(out_coordinate_map_key, y.coordinate_map_key)
        return y.features


class MinkowskiDirectMaxPoolingFunction:
    """The largest of the rows that a list of pairs sends to each output row."""

    @staticmethod
    def apply(
        in_map: TorchTensor, out_map: TorchTensor, in_feat: TorchTensor, out_nrows: int, is_sorted: bool = False
    ) -> TorchTensor:
        """(out_nrows, C): the largest in_feat[in_map[i]] of all i with out_map[i] = row, of equal ones the first."""
        return reduce_rows(in_feat[in_map.long()], out_map.long(), out_nrows, "max")
