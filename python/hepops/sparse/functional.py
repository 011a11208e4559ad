"""What is done to sparse tensors, as functions of tensors; `hepops.sparse.nn` has the same as modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from .convolve import convolve as _convolve
from .depthwise import depthwise as _depthwise
from .interpolate import interpolate as _interpolate
from .kernel import Kernel, Size, per_axis
from .kernel_map import KernelMap
from .linear import linear as _linear
from .manager import CoordinateManager, CoordinateMapKey
from .normalise import batch_norm as batch_norm
from .normalise import group_norm as group_norm
from .normalise import instance_norm as instance_norm
from .normalise import layer_norm as layer_norm
from .normalise import sync_batch_norm as sync_batch_norm
from .pool import pool as _pool
from .segment import segment_broadcast, segment_reduce
from .tensor import SparseTensor
from .unit import norm_act_convolve as norm_act_convolve

Target = CoordinateMapKey | Tensor | SparseTensor | None


def _same_manager(*inputs: SparseTensor) -> CoordinateManager:
    if not inputs:
        raise ValueError("inputs must be at least one sparse tensor, got none")
    for x in inputs:
        if not isinstance(x, SparseTensor):
            raise TypeError(f"inputs must be sparse tensors, got {type(x).__name__}")
    manager = inputs[0].coordinate_manager
    if any(x.coordinate_manager is not manager for x in inputs):
        raise ValueError("the sparse tensors have different coordinate managers: make them with one coordinate_manager")
    return manager


def _target(input: SparseTensor, coordinates: Target, stride: tuple[int, ...]) -> CoordinateMapKey:
    """The map that the caller asks to write to."""
    manager = input.coordinate_manager
    if isinstance(coordinates, SparseTensor):
        _same_manager(input, coordinates)
        return coordinates.coordinate_map_key
    if isinstance(coordinates, Tensor):
        made = manager.insert(coordinates, stride, "given", duplicates="error")
        manager.is_from(made.key, input.coordinate_map_key)
        return made.key
    assert coordinates is not None
    manager.map(CoordinateMapKey(*coordinates))
    return CoordinateMapKey(*coordinates)


def _made(input: SparseTensor, key: CoordinateMapKey, features: Tensor) -> SparseTensor:
    return input.replace(features, key)


def _channels(what: str, input: SparseTensor, expected: int) -> None:
    if input.features.shape[1] != expected:
        raise ValueError(f"input has {input.features.shape[1]} channels, {what} expects {expected}")


def check_dimension(input: SparseTensor, dimension: int) -> None:
    """Refuse a tensor that has not the axes of the layer."""
    if not isinstance(input, SparseTensor):
        raise TypeError(f"input must be a SparseTensor, got {type(input).__name__}")
    if input.dimension != dimension:
        raise ValueError(f"input has {input.dimension} axes, the layer's dimension is {dimension}")


def as_kernel(kernel: Kernel | Size, dimension: int) -> Kernel:
    """A kernel from a size, or itself."""
    return kernel if isinstance(kernel, Kernel) else Kernel.of(kernel, dimension)


def _multiply(strides: Sequence[int], factor: Sequence[int]) -> tuple[int, ...]:
    return tuple(s * f for s, f in zip(strides, factor, strict=True))


def down_map(
    input: SparseTensor, kernel: Kernel, stride: Size, coordinates: Target = None
) -> tuple[CoordinateMapKey, KernelMap]:
    """Where a strided layer writes, and its kernel map."""
    manager, stride = input.coordinate_manager, per_axis("stride", stride, input.dimension)
    if coordinates is None:
        key = manager.stride(input.coordinate_map_key, stride)
    else:
        key = _target(input, coordinates, _multiply(input.stride, stride))
    return key, manager.kernel_map(input.coordinate_map_key, key, kernel)


def up_map(
    input: SparseTensor, kernel: Kernel, stride: Size, coordinates: Target = None, generative: bool = False
) -> tuple[CoordinateMapKey, KernelMap]:
    """Where a transposed layer writes, and its kernel map."""
    manager, stride = input.coordinate_manager, per_axis("stride", stride, input.dimension)
    if coordinates is not None:
        if any(s % f for s, f in zip(input.stride, stride, strict=True)):
            raise ValueError(
                f"stride of a transposed layer must divide the stride {input.stride} of its input, got {stride}"
            )
        fine = tuple(s // f for s, f in zip(input.stride, stride, strict=True))
        key = _target(input, coordinates, fine)
    else:
        known = None if generative else manager.finer(input.coordinate_map_key, stride)
        key = known if known is not None else manager.generate(input.coordinate_map_key, kernel, stride)
    return key, manager.kernel_map(key, input.coordinate_map_key, kernel).transposed()


def convolve(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel: Kernel | Size,
    stride: Size = 1,
    coordinates: Target = None,
    groups: int = 1,
) -> SparseTensor:
    r"""Sparse convolution.

    .. math:: y_u = b + \sum_k x_{u + \delta_k s} W_k

    over the voxels that exist, :math:`\delta` the kernel's offsets and :math:`s` the stride of the input. At stride 1
    the output has the voxels (and rows) of the input (submanifold); at stride f it has the unique
    :math:`\lfloor c / (s f) \rfloor s f`, sorted; or it has the `coordinates` given.

    Args:
        input: N voxels, C_in channels.
        weight: (K, C_in / groups, C_out), or (C_in, C_out) for a kernel of one offset.
        bias: (C_out) or (1, C_out).
        kernel: a Kernel, or its size.
        stride: one number or one per axis.
        coordinates: where to evaluate: coordinates (M, 1 + D), a key, or a SparseTensor of the same manager.
        groups: the channels fall into so many parts that do not mix.

    Returns:
        SparseTensor with C_out channels.

    Differentiable any number of times in features, weight and bias. Deterministic: the same bits in every run and for
    every number of threads.

    Raises:
        ValueError: channels, kernel volume, bias or coordinates that do not fit.

    References:
        | C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019
        | B. Graham, M. Engelcke, L. van der Maaten, 3D Semantic Segmentation with Submanifold Sparse Convolutional
          Networks, CVPR 2018

    Example:
        >>> x = SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0], [0, 1]]))
        >>> convolve(x, torch.tensor([[[1.0]], [[10.0]], [[100.0]]]), kernel=3).features.tolist()
        [[110.0], [11.0]]
    """
    kernel = as_kernel(kernel, input.dimension)
    key, kernel_map = down_map(input, kernel, stride, coordinates)
    return _made(input, key, _apply(input, weight, bias, kernel, kernel_map, groups))


def conv_transpose(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel: Kernel | Size,
    stride: Size = 1,
    coordinates: Target = None,
    generative: bool = False,
    groups: int = 1,
) -> SparseTensor:
    r"""Transposed sparse convolution, the adjoint of `convolve` with the same kernel and stride.

    .. math:: y_u = b + \sum_k x_{u - \delta_k s'} W_k

    with offsets in the finer stride :math:`s' = s / f`. It writes to the finer voxels that the manager knows (those
    that the input was strided from), or, where there are none or `generative` says so, to all
    :math:`c + \delta_k s'`, sorted.

    Args, Returns and promises as `convolve`; `stride` must divide the stride of the input.
    """
    kernel = as_kernel(kernel, input.dimension)
    key, kernel_map = up_map(input, kernel, stride, coordinates, generative)
    return _made(input, key, _apply(input, weight, bias, kernel, kernel_map, groups))


def _apply(
    input: SparseTensor, weight: Tensor, bias: Tensor | None, kernel: Kernel, kernel_map: KernelMap, groups: int
) -> Tensor:
    if weight.dim() == 2:
        weight = weight[None]
    if weight.dim() != 3 or weight.shape[0] != kernel.volume:
        raise ValueError(f"weight must be ({kernel.volume}, C_in, C_out), got {tuple(weight.shape)}")
    _channels("the weight", input, weight.shape[1] * groups)
    return _convolve(
        input.features,
        weight,
        kernel_map,
        None if bias is None else bias.reshape(-1),
        flip=kernel_map.flip,
        groups=groups,
    )


def depthwise(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel: Kernel | Size,
    stride: Size = 1,
    coordinates: Target = None,
) -> SparseTensor:
    r"""Convolution of each channel by itself, :math:`y_{uc} = b_c + \sum_k x_{u + \delta_k s, c} W_{kc}`.

    `weight` is (K, C); the rest as in `convolve`.
    """
    kernel = as_kernel(kernel, input.dimension)
    key, kernel_map = down_map(input, kernel, stride, coordinates)
    if weight.shape != (kernel.volume, input.num_channels):
        raise ValueError(f"weight must be ({kernel.volume}, {input.num_channels}), got {tuple(weight.shape)}")
    features = _depthwise(
        input.features, weight, kernel_map, None if bias is None else bias.reshape(-1), flip=kernel_map.flip
    )
    return _made(input, key, features)


def pool(
    input: SparseTensor,
    mode: Literal["max", "avg", "sum"],
    *,
    kernel: Kernel | Size,
    stride: Size = 1,
    coordinates: Target = None,
) -> SparseTensor:
    """Largest, mean or sum of the active neighbours; ties go to the lowest offset, means divide by the active ones.

    A box as large as the stride parts the voxels into cells, of odd sizes too: it begins at the output voxel.
    """
    kernel = _cell(as_kernel(kernel, input.dimension), per_axis("stride", stride, input.dimension))
    key, kernel_map = down_map(input, kernel, stride, coordinates)
    return _made(input, key, _pooled(input.features, kernel_map, mode))


@functools.lru_cache(maxsize=64)
def _cell(kernel: Kernel, stride: tuple[int, ...]) -> Kernel:
    """The offsets 0 ... n-1 where a box is as large as the stride, since a centred one would miss and share voxels."""
    if kernel.shape != "box" or kernel.size != stride or any(d != 1 for d in kernel.dilation) or set(stride) == {1}:
        return kernel
    if all(n % 2 == 0 for n in kernel.size):
        return kernel
    corner = torch.tensor([n // 2 if n % 2 else 0 for n in kernel.size])
    return Kernel.of(1, kernel.dimension, offsets=kernel.table() + corner)


def _pooled(x: Tensor, kernel_map: KernelMap, mode: str) -> Tensor:
    back = kernel_map.backward if x.requires_grad and torch.is_grad_enabled() else None
    return _pool(x, kernel_map.forward, back, mode)


def pool_transpose(
    input: SparseTensor,
    *,
    kernel: Kernel | Size,
    stride: Size = 1,
    coordinates: Target = None,
    generative: bool = False,
) -> SparseTensor:
    """Features spread to the finer voxels: each gets the mean of the input's voxels that see it."""
    kernel = _cell(as_kernel(kernel, input.dimension), per_axis("stride", stride, input.dimension))
    key, kernel_map = up_map(input, kernel, stride, coordinates, generative)
    return _made(input, key, _pooled(input.features, kernel_map, "avg"))


def global_pool(input: SparseTensor, mode: Literal["sum", "avg", "max"]) -> SparseTensor:
    """One row per batch id, ascending: the sum, mean or largest of its voxels; 0 where it has none.

    Ids without voxels are there where the batch size was given. Sums are in a fixed order, in double.
    """
    segments, key = input.segments, input.coordinate_manager.origin(input.coordinate_map_key)
    return _made(
        input, key, segment_reduce(input.features, segments.order, segments.starts, "mean" if mode == "avg" else mode)
    )


def _per_row(input: SparseTensor, per_event: SparseTensor | Tensor) -> Tensor:
    """The row of `per_event` that belongs to each voxel's batch id."""
    features = per_event.features if isinstance(per_event, SparseTensor) else per_event
    segments = input.segments
    if isinstance(per_event, SparseTensor):
        ids = per_event.coordinates[:, 0].long()
        if ids.shape != segments.batches.shape or not bool((ids == segments.batches).all()):
            raise ValueError(
                f"the global tensor must have one row for each of the batch ids {segments.batches.tolist()[:8]}, "
                f"ascending, got {ids.tolist()[:8]}"
            )
    elif len(features) != len(segments.batches):
        raise ValueError(f"the global features must have {len(segments.batches)} rows, got {len(features)}")
    return segment_broadcast(features, segments.order, segments.starts)


def _global_channels(input: SparseTensor, per_event: SparseTensor | Tensor) -> None:
    if per_event.shape[1] not in (1, input.num_channels):
        raise ValueError(f"input has {input.num_channels} channels, the global tensor {per_event.shape[1]}")


def broadcast(input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
    """Each voxel gets the global row of its batch id."""
    return input.replace(_per_row(input, per_event))


def broadcast_add(input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
    """Each voxel's features plus the global row of its batch id."""
    _global_channels(input, per_event)
    return input.replace(input.features + _per_row(input, per_event))


def broadcast_multiply(input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
    """Each voxel's features times the global row of its batch id."""
    _global_channels(input, per_event)
    return input.replace(input.features * _per_row(input, per_event))


def broadcast_concatenate(input: SparseTensor, per_event: SparseTensor | Tensor) -> SparseTensor:
    """Each voxel's features followed by the global row of its batch id."""
    return input.replace(torch.cat([input.features, _per_row(input, per_event)], 1))


def combine(op: Callable[[Tensor, Tensor], Tensor], a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """`op` of two tensors, over the union of their voxels; a row that one lacks counts as 0.

    Raises:
        ValueError: the managers or the strides differ.
    """
    manager = _same_manager(a, b)
    _same_channels(a, b)
    if a.coordinate_map_key == b.coordinate_map_key:
        return a.replace(op(a.features, b.features))
    key, rows = manager.union([a.coordinate_map_key, b.coordinate_map_key])
    n = manager.size(key)
    return _made(a, key, op(*(_spread(x.features, r, n) for x, r in zip((a, b), rows, strict=True))))


def _same_channels(*inputs: SparseTensor) -> None:
    """Or one channel, that goes with any number."""
    channels = [x.num_channels for x in inputs]
    if len({c for c in channels if c != 1}) > 1:
        raise ValueError(f"the sparse tensors must have the same number of channels (or 1), got {channels}")


def _spread(features: Tensor, rows: Tensor, n: int) -> Tensor:
    """Features at `rows` of n rows, 0 elsewhere; rows are unique, so there is no order of sums to fix."""
    return features.new_zeros(n, features.shape[1]).index_copy(0, rows, features)


def union(*inputs: SparseTensor) -> SparseTensor:
    """The sum of sparse tensors over the union of their voxels, sorted by batch, then along the Morton curve."""
    manager = _same_manager(*inputs)
    _same_channels(*inputs)
    if len({x.coordinate_map_key for x in inputs}) == 1:
        return inputs[0].replace(torch.stack([x.features for x in inputs]).sum(0))
    key, rows = manager.union([x.coordinate_map_key for x in inputs])
    n = manager.size(key)
    total = _spread(inputs[0].features, rows[0], n)
    for x, r in zip(inputs[1:], rows[1:], strict=True):
        total = total + _spread(x.features, r, n)
    return _made(inputs[0], key, total)


def cat(*inputs: SparseTensor) -> SparseTensor:
    """Channels side by side, on the same voxels.

    Raises:
        ValueError: the tensors have different voxels.
    """
    _same_manager(*inputs)
    if any(x.coordinate_map_key != inputs[0].coordinate_map_key for x in inputs):
        raise ValueError(f"cat needs the same voxels, got {[x.coordinate_map_key for x in inputs]}")
    joined = inputs[0].replace(torch.cat([x.features for x in inputs], 1))
    tiles = [x.moments for x in inputs if x.moments is not None]
    if len(tiles) == len(inputs):
        joined.moments = torch.cat(tiles, 2)  # columns keep theirs
    return joined


def prune(input: SparseTensor, keep: Tensor) -> SparseTensor:
    """The voxels where `keep` (bool (N)) is true, in their order.

    Raises:
        TypeError: keep is not bool. ValueError: it has not one entry a voxel.
    """
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
        raise TypeError(f"keep must be a bool tensor, got {keep.dtype if isinstance(keep, Tensor) else type(keep)}")
    if keep.shape != (len(input),):
        raise ValueError(f"keep must be ({len(input)},), got {tuple(keep.shape)}")
    keep = keep.to(input.device)
    return _made(input, input.coordinate_manager.prune(input.coordinate_map_key, keep), input.features[keep])


def interpolate(input: SparseTensor, coordinates: Tensor) -> Tensor:
    r"""Multilinear values at real coordinates; a voxel that does not exist counts as 0.

    Args:
        input: N voxels, C channels, values at the voxels' coordinates.
        coordinates: float (Q, 1 + D) [batch, x, y, ...] in voxels; the batch id must be integral.

    Returns:
        (Q, C).

    Differentiable in the features and, where they are real, in the coordinates (not at a voxel's own plane, where the
    slope jumps: there it is the one towards higher coordinates). Deterministic.

    Raises:
        ValueError: wrong shape, fractional batch ids or NaN.
    """
    D, device = input.dimension, input.device
    if coordinates.dim() != 2 or coordinates.shape[1] != D + 1:
        raise ValueError(f"coordinates must be (Q, {D + 1}), got {tuple(coordinates.shape)}")
    if not coordinates.is_floating_point():
        coordinates = coordinates.to(torch.float64)
    if not bool(torch.isfinite(coordinates).all()):
        raise ValueError("coordinates must be finite")
    stride = torch.tensor(input.stride, device=device)
    batch = coordinates[:, 0].detach()
    if bool((batch != batch.round()).any()):
        raise ValueError("coordinates: batch ids must be integral")
    q = coordinates[:, 1:] / stride
    low = q.detach().floor()
    corners = torch.cartesian_prod(*[torch.arange(2, device=device)] * D).reshape(-1, D)  # the first axis slowest
    corner = (low.long()[:, None] + corners[None]) * stride
    queries = torch.cat([batch.long()[:, None, None].expand(-1, len(corners), 1), corner], 2).reshape(-1, D + 1)
    rows = input.coordinate_manager.find(input.coordinate_map_key, queries).reshape(-1, len(corners))
    return _interpolate(input.features, rows, q - low)


def to_dense(
    input: SparseTensor, shape: Sequence[int] | None = None, min_coordinate: Sequence[int] | Tensor | None = None
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """A dense grid of the features, 0 where there is no voxel.

    Args:
        input: N voxels, C channels.
        shape: (B, C, X, Y, ...), or by default what holds all voxels.
        min_coordinate: the voxel at the grid's corner, by default the smallest coordinates, or 0 with a `shape`.

    Returns:
        dense (B, C, X, Y, ...), the corner's coordinates int (D), the stride (one step of the grid).

    Differentiable any number of times in the features. Deterministic.

    Raises:
        ValueError: voxels lie outside of the grid, or negative batch ids.
    """
    c, D = input.coordinates.long(), input.dimension
    stride = c.new_tensor(input.stride)
    if min_coordinate is None:
        zero = shape is not None or len(c) == 0
        corner = c.new_zeros(D) if zero else c[:, 1:].amin(0)
    else:
        corner = torch.as_tensor(min_coordinate, device=c.device).long().reshape(-1)
        if len(corner) != D:
            raise ValueError(f"min_coordinate must have {D} entries, got {len(corner)}")
    if bool((corner % stride != 0).any()):
        raise ValueError(f"min_coordinate {corner.tolist()} must be a multiple of the stride {input.stride}")
    place = torch.cat([c[:, :1], (c[:, 1:] - corner) // stride], 1)
    if shape is None:
        extent = (place.amax(0) + 1).tolist() if len(c) else [1] * (D + 1)
        batch = input.coordinate_manager.batch_size or extent[0]
        shape = (batch, input.num_channels, *extent[1:])
    shape = tuple(int(n) for n in shape)
    if len(shape) != D + 2 or shape[1] != input.num_channels:
        raise ValueError(f"shape must be (B, {input.num_channels}, {'n, ' * D}), got {shape}")
    grid = place.new_tensor([shape[0], *shape[2:]])
    if bool(((place < 0) | (place >= grid)).any()):
        raise ValueError(f"voxels lie outside of the grid of shape {shape} with corner {corner.tolist()}")
    flat = torch.zeros(len(c), dtype=torch.int64, device=c.device)
    for axis in range(D + 1):
        flat = flat * grid[axis] + place[:, axis]
    cells = int(grid.prod())
    dense = _spread(input.features, flat, cells).reshape(shape[0], *shape[2:], shape[1])
    return dense.movedim(-1, 1), corner.to(input.coordinates.dtype), input.stride


def from_dense(
    dense: Tensor,
    *,
    where: Tensor | None = None,
    stride: Size = 1,
    min_coordinate: Sequence[int] | None = None,
    coordinate_manager: CoordinateManager | None = None,
) -> SparseTensor:
    """The cells of a dense grid (B, C, X, Y, ...) as voxels, sorted by batch, then x, y, ...

    Args:
        dense: (B, C, X, Y, ...), 1 to 6 axes.
        where: bool (B, X, Y, ...), the cells to take; by default those with any channel that is not 0.
        stride: voxels from cell to cell. min_coordinate: coordinates of the corner cell, by default 0.

    Differentiable any number of times in `dense`. Deterministic.
    """
    D = dense.dim() - 2
    if not 1 <= D <= 6:
        raise ValueError(f"dense must be (B, C, X, ...) with 1 to 6 axes, got {tuple(dense.shape)}")
    cells = dense.movedim(1, -1)
    if where is None:
        where = (dense.detach() != 0).any(1)
    if where.shape != cells.shape[:-1] or where.dtype != torch.bool:
        raise ValueError(f"where must be bool {tuple(cells.shape[:-1])}, got {where.dtype} {tuple(where.shape)}")
    strides = per_axis("stride", stride, D)
    c = where.nonzero()
    corner = c.new_tensor(min_coordinate if min_coordinate is not None else [0] * D)
    if corner.shape != (D,):
        raise ValueError(f"min_coordinate must have {D} entries, got {min_coordinate}")
    coordinates = torch.cat([c[:, :1], c[:, 1:] * c.new_tensor(strides) + corner], 1)
    features = cells.reshape(-1, cells.shape[-1])[where.reshape(-1).nonzero()[:, 0]]
    return SparseTensor(
        features, coordinates.int(), strides, coordinate_manager=coordinate_manager, batch_size=dense.shape[0]
    )


def linear(input: SparseTensor, weight: Tensor, bias: Tensor | None = None) -> SparseTensor:
    """features W^T + b, weight (C_out, C_in) as in torch.nn.Linear."""
    _channels("the weight", input, weight.shape[1])
    return input.replace(_linear(input.features, weight, bias, transposed=True))
