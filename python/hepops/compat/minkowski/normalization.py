"""Normalisations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor as TorchTensor
from torch import nn

from hepops.sparse import functional as F
from hepops.sparse import nn as sparse_nn

from .common import MinkowskiModuleBase
from .enums import PoolingMode
from .field import TensorField
from .key import CoordinateMapKey
from .layer import check_sparse
from .tensor import SparseTensor


class MinkowskiBatchNorm(MinkowskiModuleBase, sparse_nn.BatchNorm):
    """Batch normalisation over all voxels or points; the weights are those of `bn`, a torch.nn.BatchNorm1d."""

    def forward(self, input: Any) -> Any:
        if isinstance(input, TensorField):
            return input.replace(self.bn(input.features))
        check_sparse(input)
        return sparse_nn.BatchNorm.forward(self, input)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bn.extra_repr()})"


class MinkowskiSyncBatchNorm(MinkowskiBatchNorm):
    """Batch normalisation over the voxels of all ranks; `bn` is a torch.nn.SyncBatchNorm."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
    ) -> None:
        nn.Module.__init__(self)
        self.bn: Any = nn.SyncBatchNorm(num_features, eps, momentum, affine, track_running_stats, process_group)

    def forward(self, input: Any) -> Any:
        if not isinstance(input, TensorField):
            check_sparse(input)
        return input.replace(self.bn(input.features))

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """The module with every MinkowskiBatchNorm within replaced; parameters and statistics are the same tensors."""
        if isinstance(module, MinkowskiBatchNorm) and not isinstance(module, MinkowskiSyncBatchNorm):
            old = module.bn
            made = cls(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats, process_group)
            made.bn.weight, made.bn.bias = old.weight, old.bias
            made.bn.running_mean, made.bn.running_var = old.running_mean, old.running_var
            made.bn.num_batches_tracked = old.num_batches_tracked
            return made.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class _InstanceNorm(MinkowskiModuleBase):
    """Each channel of each event to mean 0 and variance 1, then times weight plus bias, both (1, C)."""

    eps = 1e-8

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.weight = nn.Parameter(torch.ones(1, num_features))
        self.bias = nn.Parameter(torch.zeros(1, num_features))

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: SparseTensor) -> SparseTensor:
        check_sparse(input)
        return input.replace(_normalized(input, self.eps).features * self.weight + self.bias)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nchannels={self.num_features})"


def _normalized(x: SparseTensor, eps: float) -> Any:
    mean = F.global_pool(x, "avg")
    centred = F.broadcast_add(x, mean.replace(-mean.features))
    variance = F.global_pool(centred.replace(centred.features**2), "avg")
    return F.broadcast_multiply(centred, variance.replace((variance.features + eps).rsqrt()))


class MinkowskiInstanceNorm(_InstanceNorm):
    """Normalisation of each event by itself; eps 1e-8 as MinkowskiEngine's."""


class MinkowskiStableInstanceNorm(_InstanceNorm):
    """As `MinkowskiInstanceNorm` with eps 1e-6."""

    eps = 1e-6


class MinkowskiInstanceNormFunction:
    """`MinkowskiInstanceNorm` without weight and bias as a function."""

    @staticmethod
    def apply(
        in_feat: TorchTensor,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey | None = None,
        coords_manager: Any = None,
        gpooling_mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_KERNEL,
    ) -> TorchTensor:
        """The normalised features."""
        x = SparseTensor(in_feat, coordinate_map_key=in_coords_key, coordinate_manager=coords_manager)
        if glob_coords_key is not None and not glob_coords_key.is_key_set():
            glob_coords_key.set_key(*CoordinateMapKey.of(coords_manager.origin(in_coords_key)).get_key())
        features: TorchTensor = _normalized(x, MinkowskiInstanceNorm.eps).features
        return features
