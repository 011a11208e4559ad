"""Global rows brought back to the voxels of their events."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor as TorchTensor

from hepops.sparse import functional as F

from .common import MinkowskiModuleBase
from .enums import BroadcastMode
from .key import CoordinateMapKey
from .layer import check_sparse
from .tensor import SparseTensor


def _apply(input: SparseTensor, input_glob: SparseTensor, mode: BroadcastMode) -> Any:
    if mode == BroadcastMode.ELEMENTWISE_ADDITON:
        return F.broadcast_add(input, input_glob)
    return F.broadcast_multiply(input, input_glob)


class MinkowskiBroadcastBase(MinkowskiModuleBase):
    """Each voxel's features and the global row of its event, joined by `operation_type`."""

    def __init__(self, operation_type: BroadcastMode) -> None:
        super().__init__()
        self.operation_type = BroadcastMode(operation_type)

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        check_sparse(input)
        check_sparse(input_glob)
        out: Any = _apply(input, input_glob, self.operation_type)
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiBroadcastAddition(MinkowskiBroadcastBase):
    """Each voxel's features plus the global row of its event."""

    def __init__(self) -> None:
        super().__init__(BroadcastMode.ELEMENTWISE_ADDITON)


class MinkowskiBroadcastMultiplication(MinkowskiBroadcastBase):
    """Each voxel's features times the global row of its event."""

    def __init__(self) -> None:
        super().__init__(BroadcastMode.ELEMENTWISE_MULTIPLICATION)


class MinkowskiBroadcast(MinkowskiModuleBase):
    """Each voxel gets the global row of its event."""

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        check_sparse(input)
        check_sparse(input_glob)
        out: Any = F.broadcast(input, input_glob)
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiBroadcastConcatenation(MinkowskiBroadcast):
    """Each voxel's features, followed by the global row of its event."""

    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        wide = super().forward(input, input_glob)
        return input.replace(torch.cat([input.features, wide.features], 1))


class MinkowskiBroadcastFunction:
    """A broadcast as a function."""

    @staticmethod
    def apply(
        input_features: TorchTensor,
        input_features_global: TorchTensor,
        operation_type: BroadcastMode,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey,
        coords_manager: Any,
    ) -> TorchTensor:
        """The features of the broadcast."""
        x = SparseTensor(input_features, coordinate_map_key=in_coords_key, coordinate_manager=coords_manager)
        g = SparseTensor(input_features_global, coordinate_map_key=glob_coords_key, coordinate_manager=coords_manager)
        features: TorchTensor = _apply(x, g, BroadcastMode(operation_type)).features
        return features
