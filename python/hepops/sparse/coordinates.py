"""Sets of integer coordinates that can be searched, in an order that depends on nothing else in the data.

The canonical order of rows [batch, x, y, ...] of a set with a stride: batch ascending, then the Morton order of
q = floor(c / stride): signs first, negative before positive, then bit planes from high to low, in each the first axis
first. Keys hold the planes that vary (csrc/sparse/packing.h).

Maps that the caller makes keep the caller's order of rows; maps made here are in canonical order. Everything is the
same on a CPU and on a GPU, and for any number of threads; on a GPU extents and sizes of results are read back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.core.ops import call

MAX_DIMENSION = 6

ops = torch.ops.hepops


@dataclass(frozen=True)
class Index:
    """What makes a set of coordinates searchable.

    Attributes:
        packing: What the keys mean, int64 on the CPU: [D, words, batch base, batch bits], then [base, bits, stride] of
            each axis.
        keys: Shape (n, words), int64, ascending as unsigned numbers, the high word first.
        schedule: Row of the set at each place of the canonical order, shape (n), int32 (int64 above 2^31 rows).
        stride: Of each axis; every coordinate is a multiple of it.
    """

    packing: Tensor
    keys: Tensor
    schedule: Tensor
    stride: tuple[int, ...]

    def __len__(self) -> int:
        return self.keys.shape[0]


def integers(coordinates: Tensor, name: str = "coordinates") -> Tensor:
    """Coordinates as int32 or int64; floating-point ones are converted where they are whole numbers.

    Raises:
        TypeError: neither integers nor real numbers.
        ValueError: not of shape (N, 1 + D) with D from 1 to 6, a fraction, or a number beyond what its dtype tells from
            its neighbours (batch ids above 2^24 in float32).
    """
    if not isinstance(coordinates, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(coordinates).__name__}")
    if coordinates.dim() != 2 or not 2 <= coordinates.shape[1] <= 1 + MAX_DIMENSION:
        raise ValueError(
            f"{name} must be (N, 1 + D) [batch, x, ...] with D from 1 to {MAX_DIMENSION}, "
            f"got shape {tuple(coordinates.shape)}"
        )
    kind = coordinates.dtype
    if kind in (torch.int32, torch.int64):
        return coordinates
    if kind in (torch.int8, torch.int16, torch.uint8):
        return coordinates.int()
    if not kind.is_floating_point:
        raise TypeError(f"{name} must be int32 or int64, or whole numbers, got {kind}")
    exact = int(2 / torch.finfo(kind).eps)
    whole = coordinates == coordinates.floor()
    if not bool(whole.all()):
        row = int((~whole.all(dim=1)).nonzero()[0])
        raise ValueError(f"{name} must be whole numbers, got {coordinates[row].tolist()} in row {row}")
    if coordinates.numel() and float(coordinates[:, 0].abs().max()) >= exact:  # exact + 1 is rounded to exact
        raise ValueError(
            f"{name}: {kind} tells batch ids apart below {exact}, got {float(coordinates[:, 0].abs().max()):.0f}; "
            "give int64"
        )
    if coordinates.numel() and float(coordinates.abs().max()) >= exact:
        raise ValueError(
            f"{name}: {kind} tells whole numbers apart below {exact}, got {float(coordinates.abs().max()):.0f}; "
            "give int64"
        )
    return coordinates.long() if kind == torch.float64 else coordinates.int()


def strides(stride: Sequence[int], dimension: int, name: str = "stride") -> tuple[int, ...]:
    """`stride` as a tuple of `dimension` positive integers.

    Raises:
        ValueError: another number of them, or one that is not positive.
    """
    numbers = tuple(int(s) for s in stride)
    if len(numbers) != dimension or any(s < 1 for s in numbers):
        raise ValueError(f"{name} must be {dimension} positive numbers, got {tuple(stride)}")
    return numbers


def index(
    coordinates: Tensor, stride: tuple[int, ...], *, wide: bool = False, plain: bool = False
) -> tuple[Index, Tensor, Tensor]:
    """Index coordinates in the caller's order; duplicates are merged into their first occurrence.

    Args:
        coordinates: Shape (N, 1 + D) [batch, x, ...], int32 or int64, any sign, multiples of the stride; floating-point
            whole numbers are converted.
        stride: Of each axis.
        wide: An int64 schedule, however few the rows.
        plain: The form that also runs on a GPU, in the place of the one tuned for the CPU.

    Returns:
        The index of the merged rows; the row of `coordinates` that each merged row occurred first in, ascending, shape
        (n), int64; and the merged row of each row of `coordinates`, shape (N), int64.

    Not differentiable. The same for any number of threads and on every device.

    Raises:
        TypeError: `coordinates` is of another dtype.
        ValueError: wrong shapes, fractions, coordinates off the stride, or extents that 128 bits do not hold.

    References:
        G. M. Morton, A computer oriented geodetic data base, IBM Ottawa (1966)

    Example:
        >>> coordinates = torch.tensor([[0, 3, -1], [0, 3, -1], [0, -5, 7]])
        >>> merged, first, inverse = index(coordinates, (1, 1))
        >>> first, inverse, merged.schedule
        (tensor([0, 2]), tensor([0, 0, 1]), tensor([1, 0], dtype=torch.int32))
    """
    c = integers(coordinates)
    stride = strides(stride, c.shape[1] - 1)
    packing, keys, schedule, first, inverse = call(ops._sparse_index.default, c, stride, wide, plain)
    if keys.shape[0] == c.shape[0]:
        first = inverse = torch.arange(c.shape[0], device=c.device)
    return Index(packing, keys, schedule, stride), first, inverse


def _canonical(
    coordinates: Tensor, stride: tuple[int, ...], on_stride: bool, wide: bool, plain: bool
) -> tuple[Tensor, Index, Tensor]:
    packing, keys, unique, place = call(ops._sparse_canonical.default, coordinates, stride, on_stride, plain)
    return unique, Index(packing, keys, _in_order(unique, wide), stride), place


def _in_order(coordinates: Tensor, wide: bool) -> Tensor:
    n = coordinates.shape[0]
    kind = torch.int64 if wide or n >= 1 << 31 else torch.int32
    return torch.arange(n, dtype=kind, device=coordinates.device)


def _planes(packing: Tensor) -> int:
    """How many planes every axis has, from the lowest up, without a gap."""
    numbers = packing.tolist()
    middles = [(base + (1 << bits >> 1), bits) for base, bits in zip(numbers[4::3], numbers[5::3], strict=True)]
    return min(bits - (middle & -middle != 1 << bits >> 1) for middle, bits in middles)


def coarsen(coordinates: Tensor, index: Index, factor: tuple[int, ...], *, plain: bool = False) -> tuple[Tensor, Index]:
    """The cells of a coarser grid that hold any of the coordinates, in canonical order.

    .. math:: \\{\\lfloor c / (s f) \\rfloor \\, s f\\}

    Args:
        coordinates: Of the set, shape (n, 1 + D), rows in its order.
        index: Of the same set.
        factor: f of each axis, positive. Where it is the same power of two on every axis nothing is sorted, since the
            children of a cell are neighbours in the order.
        plain: The form that also runs on a GPU.

    Returns:
        The coordinates (m, 1 + D), in the dtype of `coordinates`, and their index, whose stride is s f.

    Not differentiable. The same for any number of threads and on every device.

    Raises:
        ValueError: a factor that is not positive, or cells that leave the dtype of the coordinates.
    """
    factor = strides(factor, len(index.stride), "factor")
    stride = tuple(s * f for s, f in zip(index.stride, factor, strict=True))
    wide = index.schedule.dtype == torch.int64
    power = factor[0].bit_length() - 1
    if factor[0] == 1 << power and len(set(factor)) == 1 and power <= _planes(index.packing) and max(stride) < 1 << 31:
        packing, keys, cells = call(
            ops._sparse_coarsen.default, index.packing, index.keys, power, coordinates.dtype == torch.int64, plain
        )
        return cells, Index(packing, keys, _in_order(cells, wide), stride)
    cells, coarse, _ = _canonical(coordinates, stride, False, wide, plain)
    return cells, coarse


def find(index: Index, queries: Tensor) -> Tensor:
    """Rows of a set at given coordinates.

    Args:
        index: Of the set.
        queries: Shape (Q, 1 + D) [batch, x, ...], any integers.

    Returns:
        Rows, shape (Q), int64; -1 where the set has none: also outside of its extents and off its stride.

    Not differentiable. The same for any number of threads and on every device.

    Raises:
        TypeError: `queries` is of another dtype.
        ValueError: another number of columns, or another device than that of the index.
    """
    return call(ops._sparse_find.default, index.packing, index.keys, index.schedule, integers(queries, "queries"))


def generate(
    coordinates: Tensor, offsets: Tensor, stride_out: tuple[int, ...], *, wide: bool = False, plain: bool = False
) -> tuple[Tensor, Index]:
    """What a generative transposed convolution writes to: all c + offset, in canonical order.

    Args:
        coordinates: c, shape (n, 1 + D), int32 or int64.
        offsets: Shape (K, D), int64, multiples of `stride_out`.
        stride_out: Stride of the result.
        wide: An int64 schedule, however few the rows.
        plain: The form that also runs on a GPU.

    Returns:
        The coordinates (m, 1 + D), in the dtype of `coordinates`, and their index.

    Not differentiable. The same for any number of threads and on every device.

    Raises:
        ValueError: c + offset leaves the dtype of the coordinates, or is no multiple of the stride.
    """
    c = integers(coordinates)
    stride = strides(stride_out, c.shape[1] - 1, "stride_out")
    if offsets.dim() != 2 or offsets.shape[1] != c.shape[1] - 1 or offsets.dtype != torch.int64:
        raise ValueError(
            f"offsets must be (K, {c.shape[1] - 1}) int64, got {offsets.dtype} of shape {tuple(offsets.shape)}"
        )
    offsets = offsets.to(c.device)
    if len(c) and len(offsets):
        limit = torch.iinfo(c.dtype)
        extents = torch.stack([c[:, 1:].amin(0).long(), c[:, 1:].amax(0).long(), offsets.amin(0), offsets.amax(0)])
        for axis, (low, high, first, last) in enumerate(extents.T.tolist()):
            if low + first < limit.min or high + last > limit.max:
                raise ValueError(
                    f"coordinates from {low} to {high} plus offsets from {first} to {last} leave {c.dtype} "
                    f"on axis {axis}"
                )
    moved = c[:, None, :] + torch.nn.functional.pad(offsets, (1, 0)).to(c.dtype)
    unique, made, _ = _canonical(moved.reshape(-1, c.shape[1]), stride, True, wide, plain)
    return unique, made


def union(
    coordinates: Sequence[Tensor], stride: tuple[int, ...], *, wide: bool = False, plain: bool = False
) -> tuple[Tensor, Index, list[Tensor]]:
    """The union of sets of coordinates, in canonical order.

    Args:
        coordinates: Sets of shape (n, 1 + D) each; duplicates are merged.
        stride: That all are multiples of.
        wide: An int64 schedule, however few the rows.
        plain: The form that also runs on a GPU.

    Returns:
        The coordinates (m, 1 + D), their index, and for each set the row of the union at each of its rows, int64.

    Not differentiable. The same for any number of threads and on every device.

    Raises:
        ValueError: no set at all, or sets of different dimensions.
    """
    sets = [integers(c) for c in coordinates]
    if not sets or any(c.shape[1] != sets[0].shape[1] for c in sets):
        raise ValueError(
            f"union: needs sets of one dimension, got {[tuple(c.shape) for c in sets]}" if sets else "union: no sets"
        )
    together = torch.cat(sets)
    unique, made, place = _canonical(together, strides(stride, together.shape[1] - 1), True, wide, plain)
    return unique, made, list(place.split([len(c) for c in sets]))
