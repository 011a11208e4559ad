"""Where the voxels of two tensors meet."""

from __future__ import annotations

from torch import Tensor

from ..tensor import COORDINATE_MANAGER_DIFFERENT_ERROR, SparseTensor


def get_coords_map(x: SparseTensor, y: SparseTensor) -> tuple[Tensor, Tensor]:
    """(rows of x, rows of y) where y's voxels are the cells that x's voxels lie in."""
    if x.coordinate_manager is not y.coordinate_manager:
        raise ValueError(COORDINATE_MANAGER_DIFFERENT_ERROR)
    return x.coordinate_manager.stride_map(x.coordinate_map_key, y.coordinate_map_key)
