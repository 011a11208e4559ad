"""Normalisations; the weights of batch norm are those of `bn`, a torch.nn.BatchNorm1d."""

from __future__ import annotations

from torch import nn

from .. import functional as F
from ..tensor import SparseTensor


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels."""

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
    """to come"""


class InstanceNorm(nn.Module):
    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()


class LayerNorm(nn.Module):
    pass


class GroupNorm(nn.Module):
    pass
