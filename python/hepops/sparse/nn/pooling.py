"""Pools over neighbourhoods and over events."""

from __future__ import annotations

from typing import Literal

from torch import nn

from .. import functional as F
from ..kernel import Kernel, Size, per_axis
from ..tensor import SparseTensor


class _Pool(nn.Module):
    mode: Literal["max", "avg", "sum"]

    def __init__(
        self, kernel_size: Size | Kernel, stride: Size | None = None, dilation: Size = 1, dimension: int = 3
    ) -> None:
        super().__init__()
        self.shape = kernel_size if isinstance(kernel_size, Kernel) else Kernel.of(kernel_size, dimension, dilation)
        self.stride = per_axis("stride", 1 if stride is None else stride, dimension)
        self.dimension = dimension

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        F.check_dimension(input, self.dimension)
        return F.pool(input, self.mode, kernel=self.shape, stride=self.stride, coordinates=coordinates)

    def extra_repr(self) -> str:
        return f"kernel_size={self.shape.size}, stride={self.stride}"


class MaxPool(_Pool):
    """Largest active neighbour; ties go to the lowest offset."""

    mode = "max"


class AvgPool(_Pool):
    """Mean of the active neighbours."""

    mode = "avg"


class SumPool(_Pool):
    """Sum of the active neighbours."""

    mode = "sum"


class PoolTranspose(_Pool):
    """Features spread to the finer voxels: the mean of those that see each."""

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        F.check_dimension(input, self.dimension)
        return F.pool_transpose(input, kernel=self.shape, stride=self.stride, coordinates=coordinates)


class _GlobalPool(nn.Module):
    mode: Literal["max", "avg", "sum"]

    def forward(self, input: SparseTensor) -> SparseTensor:
        return F.global_pool(input, self.mode)


class GlobalMaxPool(_GlobalPool):
    """Largest of each event's voxels."""

    mode = "max"


class GlobalAvgPool(_GlobalPool):
    """Mean of each event's voxels."""

    mode = "avg"


class GlobalSumPool(_GlobalPool):
    """Sum of each event's voxels."""

    mode = "sum"
