"""The choices that MinkowskiEngine's functions take."""

from __future__ import annotations

from enum import Enum, IntEnum


class _Choice(IntEnum):
    """An integer with a name, as pybind11 makes them."""

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class GPUMemoryAllocatorType(_Choice):
    """Who hands out memory on a GPU. Taken and ignored: here it is always PyTorch."""

    PYTORCH = 0
    CUDA = 1


class CUDAKernelMapMode(_Choice):
    """Taken and ignored: kernel maps hold existing pairs only."""

    MEMORY_EFFICIENT = 0
    SPEED_OPTIMIZED = 1


class MinkowskiAlgorithm(_Choice):
    """Taken and ignored: there is one algorithm."""

    DEFAULT = 0
    MEMORY_EFFICIENT = 1
    SPEED_OPTIMIZED = 2


class CoordinateMapType(_Choice):
    """Where coordinates are searched. Taken and ignored: it is where the coordinates are."""

    CPU = 0
    CUDA = 1


class RegionType(_Choice):
    """The shape of a kernel: a box, a cross along the axes, or offsets of one's own."""

    HYPER_CUBE = 0
    HYPER_CROSS = 1
    CUSTOM = 2


class PoolingMode(_Choice):
    """What a pool computes; the suffixes of the global modes name implementations, and make no difference here."""

    LOCAL_SUM_POOLING = 0
    LOCAL_AVG_POOLING = 1
    LOCAL_MAX_POOLING = 2
    GLOBAL_SUM_POOLING_DEFAULT = 3
    GLOBAL_AVG_POOLING_DEFAULT = 4
    GLOBAL_MAX_POOLING_DEFAULT = 5
    GLOBAL_SUM_POOLING_KERNEL = 6
    GLOBAL_AVG_POOLING_KERNEL = 7
    GLOBAL_MAX_POOLING_KERNEL = 8
    GLOBAL_SUM_POOLING_PYTORCH_INDEX = 9
    GLOBAL_AVG_POOLING_PYTORCH_INDEX = 10
    GLOBAL_MAX_POOLING_PYTORCH_INDEX = 11


class BroadcastMode(_Choice):
    """What a broadcast does with the global row (MinkowskiEngine's spelling)."""

    ELEMENTWISE_ADDITON = 0
    ELEMENTWISE_MULTIPLICATION = 1


class ConvolutionMode(_Choice):
    """Taken and ignored: the kernel is chosen by a shipped table."""

    DEFAULT = 0
    DIRECT_GEMM = 1
    COPY_GEMM = 2


class SparseTensorOperationMode(Enum):
    """Whether every SparseTensor gets a coordinate manager of its own, or all share the global one."""

    SEPARATE_COORDINATE_MANAGER = 0
    SHARE_COORDINATE_MANAGER = 1


class SparseTensorQuantizationMode(Enum):
    """What becomes of features that fall on one voxel. RANDOM_SUBSAMPLE takes the first of them, in every run."""

    RANDOM_SUBSAMPLE = 0
    UNWEIGHTED_AVERAGE = 1
    UNWEIGHTED_SUM = 2
    NO_QUANTIZATION = 3
    MAX_POOL = 4
    SPLAT_LINEAR_INTERPOLATION = 5
