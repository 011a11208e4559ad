"""Normalisations; the weights of batch norm are those of `bn`, a torch.nn.BatchNorm1d, as in MinkowskiEngine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from ..tensor import SparseTensor


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels: `functional.batch_norm`.

    Args:
        num_features: channels.
        eps, momentum, affine, track_running_stats: as torch.nn.BatchNorm1d.

    Attributes:
        bn: holds the weights and the running statistics.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input: SparseTensor) -> SparseTensor:
        return F.batch_norm(input, self.bn)


class SyncBatchNorm(BatchNorm):
    """Batch normalisation over the voxels of all ranks: `functional.sync_batch_norm`.

    Args:
        process_group: of torch.distributed; the world by default. The rest as BatchNorm.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.process_group = process_group

    def forward(self, input: SparseTensor) -> SparseTensor:
        return F.sync_batch_norm(input, self.bn, self.process_group)

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """The module with every BatchNorm within replaced by one that shares its weights and statistics."""
        if isinstance(module, BatchNorm) and not isinstance(module, SyncBatchNorm):
            old = module.bn
            made = cls(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats, process_group)
            made.bn = old
            made.training = module.training
            return made
        for name, child in module.named_children():
            setattr(module, name, cls.convert_sync_batchnorm(child, process_group))
        return module


class InstanceNorm(nn.Module):
    """Each channel normalised over the voxels of each event; weight and bias (1, C) as in MinkowskiEngine."""

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(1, num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(1, num_features)) if affine else None

    def forward(self, input: SparseTensor) -> SparseTensor:
        _expect(input, self.num_features)
        return F.instance_norm(input, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class LayerNorm(nn.Module):
    """The channels of each voxel normalised; weight and bias (C)."""

    def __init__(self, num_features: int, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.weight = nn.Parameter(torch.ones(num_features)) if elementwise_affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if elementwise_affine else None

    def forward(self, input: SparseTensor) -> SparseTensor:
        _expect(input, self.num_features)
        return F.layer_norm(input, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


class GroupNorm(nn.Module):
    """Voxels of an event and channels of a group normalised together, as torch.nn.GroupNorm; weight and bias (C)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_groups must divide the {num_channels} channels, got {num_groups}")
        self.num_groups, self.num_features, self.eps = num_groups, num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, input: SparseTensor) -> SparseTensor:
        _expect(input, self.num_features)
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_features}, eps={self.eps}"


def _expect(input: SparseTensor, channels: int) -> None:
    features: Tensor = input.features
    if features.shape[1] != channels:
        raise ValueError(f"input has {features.shape[1]} channels, the norm expects {channels}")
