"""Who knows the voxels: coordinate maps and the kernel maps between them, each made once.

Row order is part of the contract. A map that the caller makes keeps the caller's rows (first occurrences where
duplicates are merged); pruning keeps their relative order; the maps made here (strided, generative, union) are sorted
by batch, then along the Morton curve; a global pool has one row per batch id, ascending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .coordinates import Index, coarsen, find, generate, index, union
from .kernel import Kernel, Size, per_axis
from .kernel_map import KernelMap, build


class CoordinateMapKey(NamedTuple):
    """Names one set of voxels in a manager: its stride and, where several share one, a name."""

    stride: tuple[int, ...]
    name: str = ""

    def get_tensor_stride(self) -> tuple[int, ...]:
        """The stride, under the name that MinkowskiEngine's users call."""
        return self.stride


@dataclass(frozen=True)
class CoordinateMap:
    """One set of voxels: coordinates (N, 1 + D) [batch, x, y, ...] in public order, and their index."""

    coordinates: Tensor
    index: Index

    def __len__(self) -> int:
        return self.coordinates.shape[0]


class Segments(NamedTuple):
    """The rows of each batch entry: order[starts[b]:starts[b + 1]] belong to the b-th of `batches`."""

    order: Tensor  # int64 (N)
    starts: Tensor  # int64 (B + 1)
    batches: Tensor  # int64 (B), ascending
    row_batch: Tensor  # int64 (N), b of each row


class Inserted(NamedTuple):
    """What became of the rows that were inserted."""

    key: CoordinateMapKey
    first: Tensor  # int64 (n), the rows that were kept: first occurrences, ascending
    inverse: Tensor  # int64 (N), the kept row that each given row is
    merged: bool  # whether any row was a duplicate


class CoordinateManager:
    """Coordinate maps by key, and the kernel maps between them, built on demand and kept.

    Tensors on the same voxels share one manager; its kernel maps serve every layer, forward and backward, and the
    transposed layers. Not safe to change from several threads at once.

    Args:
        dimension: D, the number of spatial axes, 1 to 6.
        batch_size: number of batch ids, where empty ones shall have a row in a global pool.

    Example:
        >>> import torch
        >>> manager = CoordinateManager(2)
        >>> key = manager.insert(torch.tensor([[0, 0, 0], [0, 5, 1], [1, 0, 0]])).key
        >>> manager.coordinates(manager.stride(key, 4)).tolist()
        [[0, 0, 0], [0, 4, 0], [1, 0, 0]]
    """

    def __init__(self, dimension: int, batch_size: int | None = None) -> None:
        if isinstance(dimension, bool) or not isinstance(dimension, int):
            raise TypeError(f"dimension must be an integer, got {dimension!r}")
        if not 1 <= dimension <= 6:
            raise ValueError(f"dimension must be 1 to 6, got {dimension}")
        if batch_size is not None and batch_size < 0:
            raise ValueError(f"batch_size must not be negative, got {batch_size}")
        self.dimension = dimension
        self.batch_size = batch_size
        self.maps: dict[CoordinateMapKey, CoordinateMap] = {}
        self._parents: dict[CoordinateMapKey, CoordinateMapKey] = {}  # of a strided map: the finest it came from
        self._origins: dict[CoordinateMapKey, CoordinateMapKey] = {}  # of a pruned, generated, ... map: what it is from
        self._kernel_maps: dict[tuple[object, ...], KernelMap] = {}
        self._segments: dict[tuple[object, ...], Segments] = {}
        self._derived: dict[tuple[object, ...], CoordinateMapKey] = {}

    def __repr__(self) -> str:
        maps = ", ".join(
            f"stride {key.stride}{' ' + key.name if key.name else ''}: {len(m)}" for key, m in self.maps.items()
        )
        return f"CoordinateManager({self.dimension}D, {maps}; {len(self._kernel_maps)} kernel maps)"

    def __len__(self) -> int:
        return len(self.maps)

    def __contains__(self, key: object) -> bool:
        return key in self.maps

    # Maps

    def insert(
        self, coordinates: Tensor, stride: Size = 1, name: str = "", duplicates: Literal["merge", "error"] = "merge"
    ) -> Inserted:
        """Make a map of these voxels; rows keep the caller's order, later duplicates are merged into the first.

        Args:
            coordinates: integer (N, 1 + D) [batch, x, y, ...]; floats are taken where they hold integers.
            stride: voxels between neighbours, one or D.
            name: tells maps of one stride apart; a name that is taken gets a number appended.
            duplicates: whether a voxel that occurs twice is merged or an error.

        Raises:
            TypeError: coordinates of another dtype.
            ValueError: fractions, a wrong shape, coordinates that are no multiple of the stride or beyond what 128 bits
                hold, duplicates where they are an error.
        """
        stride = per_axis("stride", stride, self.dimension)
        if coordinates.dim() != 2 or coordinates.shape[1] != self.dimension + 1:
            raise ValueError(f"coordinates must be (N, {self.dimension + 1}), got {tuple(coordinates.shape)}")
        made, first, inverse = index(coordinates, stride)
        merged = first.shape[0] != coordinates.shape[0]
        if merged and duplicates == "error":
            row = _first_duplicate(inverse)
            raise ValueError(
                f"coordinates has {len(coordinates) - len(first)} duplicates, the first in row {row}: "
                f"{coordinates[row].tolist()}, and duplicates is {duplicates!r}; a SparseTensor adds or averages them "
                "with duplicates='sum', 'mean', 'first' or 'max'"
            )
        rows = coordinates[first] if merged else coordinates
        rows = _as_integers(rows)
        if rows is coordinates:
            rows = rows.clone()  # what the caller writes to his tensor later shall not reach the map
        key = self._add(CoordinateMapKey(stride, name), CoordinateMap(rows, made))
        return Inserted(key, first, inverse, merged)

    def _add(self, key: CoordinateMapKey, made: CoordinateMap) -> CoordinateMapKey:
        name, number = key.name, 0
        while key in self.maps:
            number += 1
            key = CoordinateMapKey(key.stride, f"{name}-{number}" if name else str(number))
        self.maps[key] = made
        return key

    def is_from(self, key: CoordinateMapKey, origin: CoordinateMapKey) -> None:
        """Note where a map came from, so that a transposed layer finds the finer voxels of its origin."""
        self._origins.setdefault(key, origin)

    def map(self, key: CoordinateMapKey) -> CoordinateMap:
        """The map of a key.

        Raises:
            ValueError: this manager has no such map.
        """
        try:
            return self.maps[key]
        except KeyError:
            raise ValueError(f"coordinate_map_key {key} is not in this manager, which has {list(self.maps)}") from None

    def coordinates(self, key: CoordinateMapKey) -> Tensor:
        """Coordinates (N, 1 + D) in public order."""
        return self.map(key).coordinates

    def size(self, key: CoordinateMapKey) -> int:
        """Number of voxels."""
        return self.map(key).coordinates.shape[0]

    def stride(self, key: CoordinateMapKey, factor: Size) -> CoordinateMapKey:
        """The map of floor(c / (s f)) s f, sorted; itself where the factor is 1."""
        factor = per_axis("stride", factor, self.dimension)
        if all(f == 1 for f in factor):
            return key
        root = self._parents.get(key, key)
        total = tuple(s * f for s, f in zip(key.stride, factor, strict=True))
        known = self._derived.get(("stride", root, total))
        if known is not None:
            return known
        fine = self.map(key)
        made = self._add(
            CoordinateMapKey(total, key.name), CoordinateMap(*coarsen(fine.coordinates, fine.index, factor))
        )
        self._derived["stride", root, total] = made
        self._parents[made] = root
        return made

    def finer(self, key: CoordinateMapKey, factor: Size) -> CoordinateMapKey | None:
        """The map with the stride divided by `factor` that `key` was made from, if any.

        A pruned, generated or given map is from what it was made of, a union from the first of its parts. Where a map
        that the caller made is at the end, one that carries its name will do.

        Raises:
            ValueError: the stride is not a multiple of the factor.
        """
        factor = per_axis("stride", factor, self.dimension)
        if any(s % f for s, f in zip(key.stride, factor, strict=True)):
            raise ValueError(
                f"stride of a transposed layer must divide the stride {key.stride} of its input, got {factor}"
            )
        stride = tuple(s // f for s, f in zip(key.stride, factor, strict=True))
        step: CoordinateMapKey | None = key
        while step is not None:  # a name that a map got here says nothing: other maps of another origin carry it too
            root = self._parents.get(step, step)
            for found in (self._derived.get(("stride", root, stride)), root):
                if found is not None and found.stride == stride:
                    return found
            step = self._origins.get(root)
        named = CoordinateMapKey(stride, root.name)
        return named if named in self.maps else None

    def generate(self, key: CoordinateMapKey, kernel: Kernel, factor: Size) -> CoordinateMapKey:
        """The map of all c + offset, offsets in the finer stride: where a generative transposed convolution writes."""
        factor = per_axis("stride", factor, self.dimension)
        if any(s % f for s, f in zip(key.stride, factor, strict=True)):
            raise ValueError(
                f"stride of a transposed layer must divide the stride {key.stride} of its input, got {factor}"
            )
        stride = tuple(s // f for s, f in zip(key.stride, factor, strict=True))
        known = self._derived.get(("generate", key, kernel, stride))
        if known is None:
            made = generate(self.coordinates(key), kernel.table(stride), stride)
            known = self._add(CoordinateMapKey(stride, "generated"), CoordinateMap(*made))
            self._derived["generate", key, kernel, stride] = known
            self.is_from(known, key)
        return known

    def union(self, keys: Sequence[CoordinateMapKey]) -> tuple[CoordinateMapKey, list[Tensor]]:
        """The union of maps of one stride, sorted, and the row there of each row of each.

        Raises:
            ValueError: the strides differ.
        """
        stride = keys[0].stride
        if any(key.stride != stride for key in keys):
            raise ValueError(f"a union needs equal strides, got {[key.stride for key in keys]}")
        known = self._derived.get(("union", *keys))
        if known is not None:
            return known, [self.find(known, self.coordinates(key)) for key in keys]
        coordinates, made, rows = union([self.coordinates(key) for key in keys], _at_least_one(stride))
        known = self._add(CoordinateMapKey(stride, "union"), CoordinateMap(coordinates, made))
        self._derived["union", *keys] = known
        self.is_from(known, keys[0])
        return known, rows

    def prune(self, key: CoordinateMapKey, keep: Tensor) -> CoordinateMapKey:
        """The map of the rows where `keep` is true, in their order."""
        rows = self.map(key).coordinates[keep]
        made = CoordinateMap(rows, index(rows, _at_least_one(key.stride))[0])
        pruned = self._add(CoordinateMapKey(key.stride, "pruned"), made)
        self.is_from(pruned, key)
        return pruned

    def find(self, key: CoordinateMapKey, coordinates: Tensor) -> Tensor:
        """The row of each coordinate (Q, 1 + D), int64, -1 where there is none."""
        return find(self.map(key).index, coordinates)

    def segments(self, key: CoordinateMapKey) -> Segments:
        """The rows of each batch entry; entries without rows are there too where the batch size was given."""
        known = self._segments.get((key, self.batch_size))
        if known is None:
            m = self.map(key)
            order = m.index.schedule.long()
            batch = m.coordinates[:, 0].long().contiguous()
            ordered = batch[order]
            batches = self._batches(ordered)
            starts = torch.cat([torch.searchsorted(ordered, batches), batches.new_tensor([len(m)])])
            known = Segments(order, starts, batches, torch.searchsorted(batches, batch))
            self._segments[key, self.batch_size] = known
        return known

    def _batches(self, ordered: Tensor) -> Tensor:
        """The batch ids that count, ascending, given those of the rows, ascending."""
        if self.batch_size is None:
            return torch.unique_consecutive(ordered)
        if len(ordered) and not 0 <= int(ordered[0]) <= int(ordered[-1]) < self.batch_size:
            raise ValueError(
                f"batch ids must be in [0, {self.batch_size}), got {int(ordered[0])} to {int(ordered[-1])}"
            )
        return torch.arange(self.batch_size, device=ordered.device)

    def origin(self, key: CoordinateMapKey) -> CoordinateMapKey:
        """The map of one voxel per batch id, at stride 0: where a global pool writes.

        Maps with the same batch ids share it, so that what was pooled from several levels can be combined.
        """
        known = self._derived.get(("origin", key, self.batch_size))
        if known is None:
            batches = self.segments(key).batches.to(self.coordinates(key).dtype)
            known = self._derived["origin", key, self.batch_size] = self._origin(batches)
        return known

    def _origin(self, batches: Tensor) -> CoordinateMapKey:
        zero = (0,) * self.dimension
        for known in self.keys(zero):
            if torch.equal(self.coordinates(known)[:, 0], batches):
                return known
        coordinates = batches.new_zeros(len(batches), self.dimension + 1)
        coordinates[:, 0] = batches
        made = index(coordinates, (1,) * self.dimension)[0]
        return self._add(CoordinateMapKey(zero), CoordinateMap(coordinates, made))

    # Kernel maps

    def kernel_map(self, source: CoordinateMapKey, target: CoordinateMapKey, kernel: Kernel) -> KernelMap:
        """The triples (i, o, k) with c_i = c_o + offset_k, offsets in the stride of the source; made once.

        A transposed layer from coarse to fine uses ``kernel_map(fine, coarse, kernel).transposed()``.
        """
        name = (source, target, kernel.size, kernel.dilation, kernel.shape, kernel.custom)
        known = self._kernel_maps.get(name)
        if known is None:
            if kernel.dimension != self.dimension:
                raise ValueError(f"kernel has {kernel.dimension} axes, the coordinates {self.dimension}")
            s, t = self.map(source), self.map(target)
            offsets = kernel.table(source.stride)
            forward = build(s.index, t.coordinates, t.index, offsets)
            mirrored = source == target and kernel.is_symmetric
            cells = (
                kernel.shape == "box"
                and set(kernel.dilation) == {1}
                and target.stride == tuple(n * step for n, step in zip(kernel.size, source.stride, strict=True))
            )
            known = KernelMap(
                forward,
                s.index.schedule,
                kernel.volume,
                mirrored=mirrored,
                # c_o = c_i - offset: where kernel and stride make cells, this search is faster than to regroup
                make_backward=partial(build, t.index, s.coordinates, s.index, -offsets) if cells else None,
            )
            self._kernel_maps[name] = known
        return known

    def pyramid(
        self, key: CoordinateMapKey, levels: int, kernel: Kernel | None = None, factor: Size = 2
    ) -> list[CoordinateMapKey]:
        """Make all maps of a U-Net in one call, so that its layers only look them up.

        Args:
            key: the finest level. levels: how many, each coarser by `factor`.
            kernel: of the layers within a level, by default 3 on every axis; between levels it is the factor wide.

        Returns:
            The keys of the levels.

        Raises:
            ValueError: levels below 1.

        Example:
            >>> import torch
            >>> manager = CoordinateManager(2)
            >>> key = manager.insert(torch.tensor([[0, 0, 0], [0, 5, 1], [1, 0, 0]])).key
            >>> [manager.size(level) for level in manager.pyramid(key, 3)]
            [3, 3, 3]
        """
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        within = kernel or Kernel.of(3, self.dimension)
        between = Kernel.of(factor, self.dimension)
        keys = [key]
        for level in range(levels):
            self.kernel_map(keys[-1], keys[-1], within)
            if level + 1 < levels:
                coarse = self.stride(keys[-1], factor)
                assert self.kernel_map(keys[-1], coarse, between).backward is not None
                keys.append(coarse)
        return keys

    def keys(self, stride: Size | None = None) -> list[CoordinateMapKey]:
        """The keys of all maps, or of those with this stride."""
        wanted = None if stride is None else per_axis("stride", stride, self.dimension, least=0)
        return [key for key in self.maps if wanted is None or key.stride == wanted]


def _first_duplicate(inverse: Tensor) -> int:
    rows = torch.arange(len(inverse), device=inverse.device)
    first = torch.full_like(inverse, len(inverse)).scatter_reduce(0, inverse, rows, "amin")
    return int((first[inverse] != rows).nonzero()[0])


def _at_least_one(stride: tuple[int, ...]) -> tuple[int, ...]:
    """The stride that an index is made with: a global pool's rows are at stride 0."""
    return tuple(max(s, 1) for s in stride)


def _as_integers(coordinates: Tensor) -> Tensor:
    if coordinates.dtype in (torch.int32, torch.int64):
        return coordinates.contiguous()
    wide = coordinates.to(torch.int64)
    small = not wide.numel() or bool((wide.abs() < 2**31).all())
    return wide.to(torch.int32) if small else wide
