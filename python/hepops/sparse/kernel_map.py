"""Which rows meet under which kernel offset: triples (i, o, k) with c_i = c_o + offset_k.

A list of them (csrc/sparse/pairs.h) is grouped by tiles of the rows that are written, so that every row has one owner
and sums run over ascending k: the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from hepops.core.ops import call
from hepops.sparse.coordinates import Index, coarsen, index

TILE_ON_CPU, TILE_ON_GPU = 256, 64  # csrc/sparse/pairs.h

WAYS = ("auto", "probe", "box", "pairwise")

ops = torch.ops.hepops


class Pairs(NamedTuple):
    """One list of a kernel map; all int32, or all int64 where a count reaches 2^31.

    Attributes:
        pairs: Row that is read, place that is written; shape (P, 2).
        entries: First pair and kernel offset k of each entry, by ascending (tile, k), the last row (P, -1); shape
            (E + 1, 2). Within an entry pairs ascend by place.
        tiles: First entry of each tile of `TILE_ON_CPU` or `TILE_ON_GPU` places, the last one E; shape (T + 1).
        schedule: Row at each place that is written; shape (n).
    """

    pairs: Tensor
    entries: Tensor
    tiles: Tensor
    schedule: Tensor


def tile_rows(device: torch.device) -> int:
    """Places in a tile of the lists on a device."""
    return TILE_ON_CPU if device.type == "cpu" else TILE_ON_GPU


def build(
    source: Index,
    target_coordinates: Tensor,
    target: Index,
    offsets: Tensor,
    *,
    wide: bool = False,
    way: str = "auto",
    plain: bool = False,
) -> Pairs:
    """The triples of a kernel, grouped by the target.

    .. math:: \\{(i, o, k): c_i = c_o + \\mathrm{offset}_k\\}

    Args:
        source: Index of the rows that are read.
        target_coordinates: Of the rows that are written, shape (n, 1 + D).
        target: Their index.
        offsets: In voxels, shape (K, D), int64; any number in any order. An offset that occurs twice pairs twice.
        wide: int64, however few the rows.
        way: How pairs are looked for; all ways find the same. "probe" asks n K questions, "box" n ceil(k / s)^D (where
            the offsets are a box, the first axis fastest), "pairwise" n^2; "auto" takes what costs least.
        plain: The forms that also run on a GPU, in the place of those tuned for the CPU.

    Returns:
        The list. Reads row i, writes row o.

    Not differentiable. The same for any number of threads and, but for the length of tiles, on every device.

    Raises:
        TypeError: `offsets` is not int64.
        ValueError: sets of different dimensions or devices, `offsets` not (K, D), or an unknown `way`.

    References:
        | C. Choy, J. Gwak, S. Savarese, 4D spatio-temporal ConvNets, CVPR (2019)
        | J. Yang et al., Minuet: accelerating 3D sparse convolutions on GPUs, EuroSys (2024)
    """
    if way not in WAYS:
        raise ValueError(f"build: way must be one of {WAYS}, got {way!r}")
    if target_coordinates.shape[0] != len(target):
        raise ValueError(
            f"build: {target_coordinates.shape[0]} target coordinates do not belong to an index of {len(target)}"
        )
    pairs, entries, tiles = call(
        ops._sparse_pairs.default,
        source.packing,
        source.keys,
        source.schedule,
        target.packing,
        target.keys,
        target.schedule,
        offsets.cpu(),
        WAYS.index(way),
        wide,
        plain,
    )
    return Pairs(pairs, entries, tiles, target.schedule.to(pairs.dtype))


def regroup(pairs: Pairs, source_schedule: Tensor, volume: int | None = None) -> Pairs:
    """The same triples grouped by the rows that were read: reads row o, writes row i.

    Args:
        pairs: A list.
        source_schedule: Schedule of the rows that it reads, shape (n).
        volume: K, where it is known; else the largest k of the list is read.

    Returns:
        The other list.

    Not differentiable. The same for any number of threads.
    """
    if volume is None:
        volume = int(pairs.entries[:, 1].max()) + 1
    schedule = source_schedule.to(pairs.pairs.dtype)
    grouped, entries, tiles = call(ops._sparse_regroup.default, *pairs, schedule, max(volume, 1))
    return Pairs(grouped, entries, tiles, schedule)


@lru_cache(maxsize=256)
def _box(size: tuple[int, ...], unit: tuple[int, ...]) -> Tensor:
    """Offsets (K, D) of a box, the first axis fastest: odd sizes centred, even ones 0 ... k - 1."""
    axes = [[u * (i - (k // 2 if k % 2 else 0)) for i in range(k)] for k, u in zip(size, unit, strict=True)]
    return torch.tensor([row[::-1] for row in product(*axes[::-1])], dtype=torch.int64)


@lru_cache(maxsize=256)
def _cell(size: tuple[int, ...], unit: tuple[int, ...], sign: int) -> Tensor:
    """Offsets (K, D) of the children in a cell, the first axis fastest, or of the cell from its children."""
    axes = [[sign * u * i for i in range(k)] for k, u in zip(size, unit, strict=True)]
    return torch.tensor([row[::-1] for row in product(*axes[::-1])], dtype=torch.int64)


class Pyramid(NamedTuple):
    """All maps of a U-Net, from `build_pyramid`.

    Attributes:
        coordinates: Of each level, (n, 1 + D): the finest first, in the caller's order; the others in canonical order.
        indices: Of each level.
        submanifold: Kernel map of each level to itself, mirrored where the kernel is.
        strided: From each level to the next coarser one, by a kernel as wide as the stride, with both lists.
        first: Row of the given coordinates that each row of the finest level occurred first in.
        inverse: Row of the finest level for each of the given coordinates.
    """

    coordinates: list[Tensor]
    indices: list[Index]
    submanifold: list[KernelMap]
    strided: list[KernelMap]
    first: Tensor
    inverse: Tensor


def build_pyramid(
    coordinates: Tensor,
    stride: Sequence[int] | None = None,
    levels: int = 5,
    *,
    size: int | Sequence[int] = 3,
    factor: int | Sequence[int] = 2,
    wide: bool = False,
) -> Pyramid:
    """All maps of a U-Net at once: indices, submanifold maps, and strided maps both ways.

    Args:
        coordinates: Shape (N, 1 + D) [batch, x, ...], in any order, duplicates are merged.
        stride: Of the coordinates; 1 by default.
        levels: How many; each is `factor` coarser than the one before.
        size: Of the submanifold kernel, on each axis.
        factor: Of stride, and size of the strided kernel, on each axis.
        wide: int64 lists, however few the rows.

    Returns:
        The maps, the same that `index`, `coarsen` and `build` give.

    Not differentiable. The same for any number of threads and, but for the length of tiles, on every device.

    Raises:
        TypeError, ValueError: as `index` and `coarsen` do; no level at all.
    """
    if levels < 1:
        raise ValueError(f"build_pyramid: levels must be positive, got {levels}")
    dimension = coordinates.shape[-1] - 1
    by = (factor,) * dimension if isinstance(factor, int) else tuple(factor)
    box = (size,) * dimension if isinstance(size, int) else tuple(size)
    level, first, inverse = index(coordinates, (1,) * dimension if stride is None else tuple(stride), wide=wide)
    rows = coordinates if len(first) == len(coordinates) else coordinates[first]
    sets, indices = [rows], [level]
    submanifold: list[KernelMap] = []
    strided: list[KernelMap] = []
    while True:
        mirrored = all(k % 2 for k in box)
        offsets = _box(box, level.stride)
        own = build(level, rows, level, offsets, wide=wide)
        submanifold.append(KernelMap(own, own.schedule, len(offsets), mirrored=mirrored))
        if len(indices) == levels:
            return Pyramid(sets, indices, submanifold, strided, first, inverse)
        cells, coarse = coarsen(rows, level, by)
        offsets = _cell(by, level.stride, 1)
        down = build(level, cells, coarse, offsets, wide=wide)
        up = build(coarse, rows, level, _cell(by, level.stride, -1), wide=wide)
        strided.append(KernelMap(down, up.schedule, len(offsets), up))
        rows, level = cells, coarse
        sets.append(rows)
        indices.append(level)


class KernelMap:
    """Triples (i, o, k) with c_i = c_o + offset_k, as the two lists that a layer and its gradient need.

    `forward` is grouped by o and reads i; `backward` is grouped by i and reads o, and is made when it is first asked
    for. Where a set is mapped to itself by offsets with offset[K - 1 - k] = -offset[k], the map is `mirrored`:
    `backward` is the tensors of `forward`, to be read with K - 1 - k in the place of k. `transposed()` swaps the lists;
    where `flip` is true, the lists of this map are to be read with K - 1 - k, which is how a mirrored map is
    transposed.
    """

    def __init__(
        self,
        forward: Pairs | None,
        source_schedule: Tensor,
        volume: int,
        backward: Pairs | None = None,
        mirrored: bool = False,
        make_backward: Callable[[], Pairs] | None = None,
    ) -> None:
        """
        Args:
            forward: List grouped by target.
            source_schedule: Schedule of the source.
            volume: Number of offsets K.
            backward: List grouped by source, where there is one.
            mirrored: See above; there is no backward list then.
            make_backward: Makes the backward list, where there is a faster way than to regroup the forward one.
        """
        if forward is None:
            raise ValueError("KernelMap: needs its forward list")
        self._lists: list[Pairs | None] = [forward, forward if mirrored else backward]
        self._schedules = (forward.schedule, source_schedule)
        self._make_backward = make_backward
        self._swapped = 0
        self.mirrored = mirrored
        self.volume = volume

    def _list(self, which: int) -> Pairs:
        pairs = self._lists[which]
        if pairs is None:
            other = self._lists[1 - which]
            assert other is not None
            make = self._make_backward
            self._lists[which] = pairs = make() if make else regroup(other, self._schedules[which], self.volume)
        return pairs

    @property
    def forward(self) -> Pairs:
        return self._list(self._swapped)

    @property
    def backward(self) -> Pairs:
        return self._list(1 - self._swapped)

    @property
    def has_backward(self) -> bool:
        """Whether the backward list has been made."""
        return self._lists[1 - self._swapped] is not None

    @property
    def flip(self) -> bool:
        """Whether the lists are to be read with K - 1 - k in the place of k."""
        return self.mirrored and self._swapped == 1

    @property
    def num_in(self) -> int:
        return self._schedules[1 - self._swapped].shape[0]

    @property
    def num_out(self) -> int:
        return self._schedules[self._swapped].shape[0]

    def transposed(self) -> KernelMap:
        """The same triples from o to i; what either map makes lazily, both have."""
        other = KernelMap.__new__(KernelMap)
        other.__dict__.update(self.__dict__)
        other._swapped = 1 - self._swapped
        return other

    def __repr__(self) -> str:
        known = [pairs for pairs in self._lists if pairs is not None]
        return (
            f"KernelMap({self.num_in} -> {self.num_out} rows, {self.volume} offsets, {known[0].pairs.shape[0]} pairs"
            f"{', mirrored' if self.mirrored else ''}{', flipped' if self.flip else ''})"
        )
