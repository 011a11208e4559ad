"""Pruning, union, interpolation, and the base class of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor as TorchTensor
from torch import nn

import hepops.sparse as sparse
from hepops.core import scatter_add
from hepops.sparse import functional as F

from .common import MinkowskiModuleBase, absent
from .key import CoordinateMapKey
from .layer import check_sparse
from .manager import corners
from .tensor import COORDINATE_MANAGER_DIFFERENT_ERROR, SparseTensor


class MinkowskiPruning(MinkowskiModuleBase):
    """The voxels where a bool mask is true, in their order; none may be left."""

    def forward(self, input: SparseTensor, mask: TorchTensor) -> SparseTensor:
        check_sparse(input)
        return F.prune(input, mask)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return "MinkowskiPruning()"


class MinkowskiPruningFunction:
    """`MinkowskiPruning` as a function."""

    @staticmethod
    def apply(
        in_feat: TorchTensor,
        mask: TorchTensor,
        in_coords_key: CoordinateMapKey,
        out_coords_key: CoordinateMapKey | None = None,
        coords_manager: Any = None,
    ) -> TorchTensor:
        """The features that are left; sets an output key that is not set."""
        x = SparseTensor(in_feat, coordinate_map_key=in_coords_key, coordinate_manager=coords_manager)
        y: Any = F.prune(x, mask)
        if out_coords_key is not None and not out_coords_key.is_key_set():
            out_coords_key.set_key(*y.coordinate_map_key.get_key())
        features: TorchTensor = y.features
        return features


class MinkowskiUnion(MinkowskiModuleBase):
    """The sum of tensors over the union of their voxels, sorted by batch, then along the Morton curve."""

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        if len(inputs) < 2:
            raise ValueError(f"a union needs at least 2 tensors, got {len(inputs)}")
        for x in inputs:
            check_sparse(x)
            if x.coordinate_manager is not inputs[0].coordinate_manager:
                raise ValueError(COORDINATE_MANAGER_DIFFERENT_ERROR)
        return F.union(*inputs)  # type: ignore[return-value]

    def __repr__(self) -> str:
        return "MinkowskiUnion()"


class MinkowskiUnionFunction:
    """`MinkowskiUnion` as a function."""

    @staticmethod
    def apply(
        in_coords_keys: list[CoordinateMapKey],
        out_coords_key: CoordinateMapKey,
        coordinate_manager: Any,
        *in_feats: TorchTensor,
    ) -> TorchTensor:
        """The sums; sets the output key."""
        if len(in_feats) < 2 or len(in_feats) != len(in_coords_keys):
            raise ValueError(
                f"needs at least 2 tensors and as many keys, got {len(in_feats)} and {len(in_coords_keys)}"
            )
        maps = coordinate_manager.union_map(in_coords_keys, out_coords_key)
        n = coordinate_manager.size(out_coords_key)
        total = in_feats[0].new_zeros(n, in_feats[0].shape[1])
        for features, (_, rows) in zip(in_feats, maps, strict=True):
            total = total + features.new_zeros(total.shape).index_copy(0, rows, features)
        return total


class MinkowskiInterpolation(MinkowskiModuleBase):
    """Multilinear values at real coordinates (Q, 1 + D); a voxel that does not exist counts as 0.

    Args:
        return_kernel_map: also (rows read, rows written). return_weights: also the weights.
    """

    def __init__(self, return_kernel_map: bool = False, return_weights: bool = False) -> None:
        super().__init__()
        self.return_kernel_map = return_kernel_map
        self.return_weights = return_weights

    def forward(self, input: SparseTensor, tfield: TorchTensor) -> Any:
        check_sparse(input)
        out: list[Any] = [F.interpolate(input, tfield)]
        if self.return_kernel_map or self.return_weights:
            read, written, weights = input.coordinate_manager.interpolation_map_weight(input.coordinate_map_key, tfield)
            out += [(read, written)] if self.return_kernel_map else []
            out += [weights] if self.return_weights else []
        return tuple(out) if len(out) > 1 else out[0]

    def __repr__(self) -> str:
        return "MinkowskiInterpolation()"


class MinkowskiInterpolationFunction:
    """`MinkowskiInterpolation` as a function."""

    @staticmethod
    def apply(
        input_features: TorchTensor,
        tfield: TorchTensor,
        in_coordinate_map_key: CoordinateMapKey,
        coordinate_manager: Any = None,
    ) -> tuple[TorchTensor, TorchTensor, TorchTensor, TorchTensor]:
        """(values, rows read, rows written, weights)."""
        key = sparse.CoordinateMapKey(*in_coordinate_map_key)
        rows, weight = corners(coordinate_manager, key, tfield)
        sample, corner = (rows >= 0).nonzero(as_tuple=True)
        read, weights = rows[sample, corner], weight[sample, corner]
        spread = weights.to(input_features)[:, None] * input_features[read]
        return scatter_add(sample, spread, len(tfield)), read, sample, weights


class MinkowskiNetwork(nn.Module, ABC):
    """Base class of networks: keeps the number of axes as `D`."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.D = D

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """What the network computes."""

    def init(self, x: Any) -> None:
        raise absent("MinkowskiNetwork.init", "MinkowskiEngine's own calls methods that it does not have")
