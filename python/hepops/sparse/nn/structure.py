"""Layers without weights that join and cut sparse tensors."""

from __future__ import annotations

from torch import Tensor, nn

from .. import functional as F
from ..tensor import SparseTensor


class Prune(nn.Module):
    """`functional.prune`: the voxels where a mask is true, in their order."""

    def forward(self, input: SparseTensor, keep: Tensor) -> SparseTensor:
        return F.prune(input, keep)


class Union(nn.Module):
    """`functional.union`: the sum over the union of the voxels."""

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        return F.union(*inputs)


class Cat(nn.Module):
    """`functional.cat`: channels side by side."""

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        return F.cat(*inputs)


class Broadcast(nn.Module):
    """`functional.broadcast`: the global row of each voxel's event."""

    def forward(self, input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
        return F.broadcast(input, per_event)


class BroadcastAdd(nn.Module):
    """`functional.broadcast_add`."""

    def forward(self, input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
        return F.broadcast_add(input, per_event)


class BroadcastMultiply(nn.Module):
    """`functional.broadcast_multiply`."""

    def forward(self, input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
        return F.broadcast_multiply(input, per_event)


class BroadcastConcatenate(nn.Module):
    """`functional.broadcast_concatenate`."""

    def forward(self, input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
        return F.broadcast_concatenate(input, per_event)
