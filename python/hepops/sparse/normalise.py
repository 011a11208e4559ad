"""Normalisations of sparse tensors: over all voxels, over an event's, over a voxel's channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .manager import CoordinateManager, CoordinateMapKey
from .norm import Moments, combine_moments, moments, norm_act
from .segment import segment_broadcast, segment_reduce
from .tensor import SparseTensor


def batch_moments(input: SparseTensor, bn: torch.nn.BatchNorm1d) -> tuple[Moments, bool]:
    """The moments that batch norm goes by, and whether they are the voxels' own; running ones are brought up to date.

    Raises:
        ValueError: the numbers of channels differ.
    """
    x = input.features
    if x.shape[1] != bn.num_features:
        raise ValueError(f"input has {x.shape[1]} channels, batch norm expects {bn.num_features}")
    if not bn.training and bn.running_mean is not None and bn.running_var is not None:
        return Moments(bn.running_mean, bn.running_var), False
    with torch.no_grad():
        tiles = input.moments
        found = moments(x) if tiles is None else combine_moments(tiles, x)
        update_running(bn, found, x.shape[0])
    return found, True


def update_running(bn: torch.nn.BatchNorm1d, found: Moments, rows: int | Tensor) -> None:
    """Running mean and unbiased variance, in training, where they are kept and there are rows."""
    if not bn.training or not bn.track_running_stats or bn.running_mean is None or bn.running_var is None:
        return
    if isinstance(rows, int) and rows == 0:
        return
    factor: Any = bn.momentum
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / bn.num_batches_tracked.double()
    unbiased = rows / max(rows - 1, 1) if isinstance(rows, int) else rows / (rows - 1).clamp(min=1)
    for running, value in ((bn.running_mean, found.mean), (bn.running_var, found.variance * unbiased)):
        if isinstance(factor, Tensor):
            running.lerp_(value.to(running.dtype), factor.to(running.dtype))
        else:
            running.mul_(1 - factor).add_(value.to(running.dtype), alpha=factor)


def batch_norm(
    input: SparseTensor, bn: torch.nn.BatchNorm1d, slope: float = 1.0, residual: SparseTensor | None = None
) -> SparseTensor:
    r"""Batch normalisation over all voxels, with a leaky activation and a residual behind, in one pass.

    .. math:: y = \mathrm{act}\Bigl(\frac{x - m}{\sqrt{v + \epsilon}} w + b\Bigr) + r

    Args:
        input: N voxels, C channels.
        bn: weights, running statistics, eps, momentum and whether it trains; not called.
        slope: of the activation below 0; 1 leaves it out, 0 is ReLU.
        residual: added after the activation, on the same voxels.

    Mean and variance are taken in double in a fixed order. One voxel has variance 0; none is no error, and leaves the
    running statistics as they were. Differentiable any number of times (see `norm_act`).

    Raises:
        ValueError: channels differ, or the residual has other voxels.
    """
    r = None
    if residual is not None:
        check_residual(residual, input.coordinate_manager, input.coordinate_map_key)
        r = residual.features
    (mean, variance), through = batch_moments(input, bn)
    y = norm_act(
        input.features, bn.weight, bn.bias, mean=mean, variance=variance, residual=r, eps=bn.eps, slope=slope,
        through=through,
    )  # fmt: skip
    return input.replace(y)


def check_residual(residual: SparseTensor, manager: CoordinateManager, key: CoordinateMapKey) -> None:
    """Refuse a residual of other voxels: managers number their maps alike, so that a key alone says nothing."""
    if residual.coordinate_manager is not manager or residual.coordinate_map_key != key:
        raise ValueError(
            f"residual must have the voxels {key} of the same coordinate manager, got {residual.coordinate_map_key}"
            + (" of another" if residual.coordinate_manager is not manager else "")
        )


class _SyncNorm(torch.autograd.Function):
    """Batch norm by the moments of all ranks: each rank's are gathered, and combined in the order of the ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        group: Any,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, variance, count)
        ctx.eps, ctx.group = eps, group
        return torch.ops.hepops.sparse_norm_act(x, mean, variance, weight, bias, None, eps, 1.0, False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, mean, variance, count = ctx.saved_tensors
        columns = (grad.contiguous(), x, mean, variance, weight, bias)
        own = torch.ops.hepops._sparse_norm_act_sums(*columns, ctx.eps, 1.0)
        total = _gather(own, ctx.group).sum(0)  # few rows, one after the other
        grad_x = torch.ops.hepops._sparse_norm_act_gradient(*columns, total, count, ctx.eps, 1.0)
        grad_weight = own[1].to(weight.dtype) if weight is not None else None
        grad_bias = own[0].to(bias.dtype) if bias is not None else None
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def _gather(x: Tensor, group: Any) -> Tensor:
    """(ranks, ...), in the order of the ranks."""
    parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(parts, x.contiguous(), group=group)
    return torch.stack(parts)


def sync_batch_norm(input: SparseTensor, bn: torch.nn.BatchNorm1d, group: Any = None) -> SparseTensor:
    """Batch normalisation over the voxels of all ranks of a process group; `batch_norm` where there is one rank only.

    Ranks may have different numbers of voxels, or none. The statistics are the same on every rank, to the bit.
    Differentiable once.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    own = bn.training or bn.running_mean is None
    if not own or not distributed or torch.distributed.get_world_size(group) == 1:
        return batch_norm(input, bn)
    x = input.features
    if x.shape[1] != bn.num_features:
        raise ValueError(f"input has {x.shape[1]} channels, batch norm expects {bn.num_features}")
    with torch.no_grad():
        local = moments(x)
        rows = torch.full_like(local.mean, x.shape[0])
        parts = _gather(torch.stack([rows, local.mean, local.variance]), group)
        counts, means, variances = parts.unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count.clamp(min=1)
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count.clamp(min=1)
        update_running(bn, Moments(mean, variance), count)
    y = _SyncNorm.apply(x, bn.weight, bn.bias, mean, variance, count[:1].clone(), bn.eps, group)
    return input.replace(y)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """x w + b, the gradients of w and b summed in a fixed order."""
    if weight is None and bias is None:
        return x
    wide = torch.float64
    zero, one = (torch.full((x.shape[1],), v, dtype=wide, device=x.device) for v in (0.0, 1.0))
    flat = [None if p is None else p.reshape(-1) for p in (weight, bias)]
    return norm_act(x, *flat, mean=zero, variance=one, eps=0.0)


def instance_norm(
    input: SparseTensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> SparseTensor:
    """Each channel normalised over the voxels of each event; weight and bias (C) or (1, C).

    Differentiable any number of times; sums over an event are in a fixed order.
    """
    return group_norm(input, input.num_channels, weight, bias, eps)


def group_norm(
    input: SparseTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> SparseTensor:
    """Normalised over the voxels of each event and the channels of each group, as torch's on (B, C, voxels).

    Differentiable any number of times; sums over an event are in a fixed order.

    Raises:
        ValueError: num_groups does not divide the channels.
    """
    x, segments = input.features, input.segments
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"num_groups must divide the {channels} channels, got {num_groups}")
    size = channels // num_groups

    def mean(values: Tensor) -> Tensor:
        grouped = values if size == 1 else values.reshape(-1, num_groups, size).mean(2)
        per_event = segment_broadcast(
            segment_reduce(grouped, segments.order, segments.starts, "mean"), segments.order, segments.starts
        )
        return per_event if size == 1 else per_event.repeat_interleave(size, 1)

    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - mean(wide)
    normal = centred * torch.rsqrt(mean(centred * centred) + eps)
    return input.replace(_affine(normal.to(x.dtype), weight, bias))


def layer_norm(
    input: SparseTensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> SparseTensor:
    """Normalised over the channels of each voxel. Differentiable any number of times."""
    x = input.features.contiguous()  # torch adds up a row in an order that depends on its strides
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(1, keepdim=True)
    normal = centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + eps)
    return input.replace(_affine(normal.to(x.dtype), weight, bias))
