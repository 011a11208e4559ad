"""The coordinate manager with MinkowskiEngine's methods, on top of hepops' own.

Two methods of MinkowskiEngine's carry the name of one of hepops' with other arguments: `kernel_map` and `origin`; they
tell by what they are given which is meant, since hepops' layers call theirs.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

import hepops.sparse as sparse
from hepops.sparse.kernel import Kernel

from .common import StrideType, absent, int_list
from .enums import CoordinateMapType, GPUMemoryAllocatorType, MinkowskiAlgorithm, RegionType
from .key import CoordinateMapKey
from .regions import region_kernel

Key = CoordinateMapKey | sparse.CoordinateMapKey
Maps = tuple[CoordinateMapKey, tuple[Tensor, Tensor]]

_coordinate_map_type = CoordinateMapType.CPU
_allocator_type = GPUMemoryAllocatorType.PYTORCH


def set_coordinate_map_type(coordinate_map_type: CoordinateMapType) -> None:
    """Noted and without effect: coordinates are searched where they are."""
    global _coordinate_map_type
    _coordinate_map_type = CoordinateMapType(coordinate_map_type)


def set_gpu_allocator(backend: GPUMemoryAllocatorType) -> None:
    """Noted and without effect: memory is PyTorch's.

    Raises:
        TypeError: not a GPUMemoryAllocatorType.
    """
    global _allocator_type
    if not isinstance(backend, GPUMemoryAllocatorType):
        raise TypeError(f"backend must be a GPUMemoryAllocatorType, got {backend!r}")
    _allocator_type = backend


def set_memory_manager_backend(backend: GPUMemoryAllocatorType) -> None:
    """As `set_gpu_allocator`."""
    set_gpu_allocator(backend)


class CoordsManager:
    """MinkowskiEngine's old name of `CoordinateManager`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise absent("CoordsManager", "MinkowskiEngine 0.5 replaced it by CoordinateManager")


class CoordinateManager(sparse.CoordinateManager):
    """Coordinate maps by key, the kernel maps between them, and coordinate fields (real coordinates).

    Args:
        D: number of spatial axes, 1 to 6.
        num_threads, coordinate_map_type, allocator_type, minkowski_algorithm: taken and without effect.

    Example:
        >>> manager = CoordinateManager(D=1)
        >>> key, (unique_map, inverse_map) = manager.insert_and_map(torch.tensor([[0, 0], [0, 0], [0, 1]]).int(), [1])
        >>> unique_map.tolist(), inverse_map.tolist(), manager.get_coordinates(key).tolist()
        ([0, 2], [0, 0, 1], [[0, 0], [0, 1]])
    """

    def __init__(
        self,
        D: int = 0,
        num_threads: int = -1,
        coordinate_map_type: CoordinateMapType | None = None,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
    ) -> None:
        if not 1 <= D <= 6:
            raise ValueError(f"D must be 1 to 6, got {D}")
        super().__init__(D)
        self.D = D
        self.minkowski_algorithm = MinkowskiAlgorithm.DEFAULT if minkowski_algorithm is None else minkowski_algorithm
        self._fields: dict[sparse.CoordinateMapKey, Tensor] = {}
        self._field_maps: dict[tuple[sparse.CoordinateMapKey, sparse.CoordinateMapKey], tuple[Tensor, Tensor]] = {}
        self._events: Tensor | None = None  # the batch ids of what was inserted first

    @property
    def _manager(self) -> CoordinateManager:
        return self

    def __repr__(self) -> str:
        return f"CoordinateManager(\n{self.print_coordinate_map()}\talgorithm={self.minkowski_algorithm}\n  )\n"

    def print_coordinate_map(self) -> str:
        """One line per map: its key and its number of voxels."""
        return "".join(f"\t{CoordinateMapKey.of(key)}: {len(m)} voxels\n" for key, m in self.maps.items())

    # Maps

    def insert(self, *args: Any, **kwargs: Any) -> Any:
        """As hepops' own; the events of the first one are remembered."""
        made = super().insert(*args, **kwargs)
        self._remember(self.coordinates(made.key)[:, 0])
        return made

    def insert_and_map(self, coordinates: Tensor, tensor_stride: StrideType = 1, string_id: str = "") -> Maps:
        """A map of these coordinates: (key, (first row of each voxel, voxel of each row)), in order of first rows.

        Raises:
            TypeError, ValueError: as `hepops.sparse.CoordinateManager.insert`.
        """
        made = self.insert(coordinates, int_list("tensor_stride", tensor_stride, self.D, least=0), string_id)
        return CoordinateMapKey.of(made.key), (made.first, made.inverse)

    def stride(self, coordinate_map_key: Key, stride: Any, string_id: str = "") -> Any:
        """The key of the map floor(c / (s f)) s f, sorted; it carries the name of the map it comes from."""
        key = super().stride(sparse.CoordinateMapKey(*coordinate_map_key), int_list("stride", stride, self.D))
        return CoordinateMapKey.of(key)

    def expand(self, key: Key, kernel: Kernel, stride: Sequence[int]) -> sparse.CoordinateMapKey:
        """The map of all c + offset that are multiples of the output's stride, for `expand_coordinates`."""
        wide = self.generate(sparse.CoordinateMapKey(*key), kernel, 1)
        if all(s == 1 for s in stride):
            return wide
        out = tuple(s * f for s, f in zip(key.stride, stride, strict=True))
        known = self._derived.get(("expand", wide, out))
        if known is None:
            c = self.coordinates(wide)
            made = super().insert(c[(c[:, 1:] % c.new_tensor(out) == 0).all(1)], out, "expanded")
            known = self._derived["expand", wide, out] = made.key
        return known

    def union(self, keys: Sequence[Any]) -> Any:
        """As hepops' own, also for strides that differ: the union has the smallest, as MinkowskiEngine's."""
        keys = [sparse.CoordinateMapKey(*key) for key in keys]
        strides = {key.stride for key in keys}
        if len(strides) == 1:
            return super().union(keys)
        least = tuple(min(s) for s in zip(*strides, strict=True))
        if any(s % m for stride in strides for s, m in zip(stride, least, strict=True)):
            raise ValueError(f"strides of a union must be multiples of the smallest, got {sorted(strides)}")
        finest = [k if k.stride == least else self._restride(k, least) for k in keys]
        return super().union(finest)

    def _restride(self, key: sparse.CoordinateMapKey, stride: tuple[int, ...]) -> sparse.CoordinateMapKey:
        known = self._derived.get(("restride", key, stride))
        if known is None:
            known = super().insert(self.coordinates(key), stride, "restrided").key
            self._derived["restride", key, stride] = known
        return known

    def size(self, coordinate_map_key: Key) -> int:
        """Number of voxels, or of points of a field."""
        key = sparse.CoordinateMapKey(*coordinate_map_key)
        return len(self._fields[key]) if key in self._fields and key not in self.maps else super().size(key)

    def get_coordinate_map_keys(self, tensor_stride: StrideType) -> list[CoordinateMapKey]:
        """The keys of all maps with this stride, in order of their making."""
        return [
            CoordinateMapKey.of(key) for key in self.keys(int_list("tensor_stride", tensor_stride, self.D, least=0))
        ]

    def _get_coordinate_map_key(self, key_or_tensor_strides: Any) -> CoordinateMapKey:
        if isinstance(key_or_tensor_strides, (CoordinateMapKey, sparse.CoordinateMapKey)):
            return CoordinateMapKey.of(key_or_tensor_strides)
        keys = self.get_coordinate_map_keys(key_or_tensor_strides)
        if not keys:
            raise ValueError(f"no coordinate map has the stride {key_or_tensor_strides}")
        return keys[0]

    def get_coordinates(self, coords_key_or_tensor_strides: Any) -> Tensor:
        """Coordinates (N, 1 + D) of a key, or of the first map with a stride."""
        return self.coordinates(self._get_coordinate_map_key(coords_key_or_tensor_strides).native)

    def get_unique_coordinate_map_key(self, tensor_stride: StrideType) -> CoordinateMapKey:
        """A key of this stride that no map has."""
        stride = int_list("tensor_stride", tensor_stride, self.D, least=0)
        for number in itertools.count():
            key = CoordinateMapKey(stride, str(number) if number else "")
            if key.native not in self.maps and key.native not in self._fields:
                return key
        raise AssertionError

    # Events

    def _remember(self, batch: Tensor) -> None:
        if self._events is None:
            self._events = torch.unique(batch.long())

    def _batches(self, ordered: Tensor) -> Tensor:
        """All events of what was inserted first, so that one that lost its voxels to pruning keeps its row."""
        own = super()._batches(ordered)
        all_events = self._events
        if all_events is None or self.batch_size is not None or all_events.device != own.device:
            return own
        return all_events if bool(torch.isin(own, all_events).all()) else own

    def origin(self, key: Key | None = None) -> Any:
        """The key of the map with one voxel per batch id, at stride 0; without a key, that of all events."""
        if key is not None:
            return super().origin(sparse.CoordinateMapKey(*key))
        if self._events is None:
            raise ValueError("the coordinate manager has no coordinates yet")
        return CoordinateMapKey.of(self._origin(self._events.int()))

    def origin_field(self) -> CoordinateMapKey:
        """As `origin`."""
        return CoordinateMapKey.of(self.origin())

    def number_of_unique_batch_indices(self) -> int:
        """Number of batch ids of what was inserted first."""
        return 0 if self._events is None else len(self._events)

    def origin_map(self, key: Key) -> tuple[Tensor, list[Tensor]]:
        """Batch ids, ascending, and the rows of every id from 0 to the largest, ascending."""
        return _rows_of_events(self.get_coordinates(key)[:, 0])

    def origin_field_map(self, key: Key) -> tuple[Tensor, list[Tensor]]:
        """As `origin_map`, of a field."""
        return _rows_of_events(self.get_coordinate_field(key)[:, 0].round())

    # Fields

    def insert_field(self, coordinates: Tensor, tensor_stride: StrideType, string_id: str = "") -> CoordinateMapKey:
        """Keep real coordinates (N, 1 + D); they are not merged.

        Raises:
            ValueError: wrong shape, or a value that is not finite.
        """
        if coordinates.dim() != 2 or coordinates.shape[1] != self.D + 1:
            raise ValueError(f"coordinates must be (N, {self.D + 1}), got {tuple(coordinates.shape)}")
        if not bool(torch.isfinite(coordinates).all()):
            raise ValueError("coordinates must be finite")
        stride, name = tuple(int_list("tensor_stride", tensor_stride, self.D, least=0)), string_id
        key = sparse.CoordinateMapKey(stride, name)
        for number in itertools.count(1):
            if key not in self._fields:
                break
            key = sparse.CoordinateMapKey(stride, f"{name}-{number}" if name else str(number))
        self._fields[key] = coordinates
        self._remember(coordinates[:, 0].round())
        return CoordinateMapKey.of(key)

    def get_coordinate_field(self, coords_key_or_tensor_strides: Any) -> Tensor:
        """The coordinates of a field.

        Raises:
            ValueError: there is no such field.
        """
        key = coords_key_or_tensor_strides
        if not isinstance(key, (CoordinateMapKey, sparse.CoordinateMapKey)):
            key = CoordinateMapKey(int_list("tensor_stride", key, self.D, least=0))
        native = sparse.CoordinateMapKey(*key)
        if native not in self._fields:
            raise ValueError(
                f"coordinate_field_map_key {native} is not in this manager, which has {list(self._fields)}"
            )
        return self._fields[native]

    def _quantized(self, field_key: Key, stride: Sequence[int]) -> Tensor:
        """The voxel that each point of a field lies in."""
        c = self.get_coordinate_field(field_key)
        step = c.new_tensor([1, *stride])
        low = torch.div(c, step, rounding_mode="floor") * step
        return torch.cat([c[:, :1].round(), low[:, 1:]], 1).to(torch.float64)

    def field_to_sparse_insert_and_map(
        self, field_map_key: Key, sparse_tensor_stride: StrideType, sparse_tensor_string_id: str = ""
    ) -> Maps:
        """A map of the voxels that the points lie in: (key, (first point of each voxel, voxel of each point))."""
        stride = int_list("tensor_stride", sparse_tensor_stride, self.D)
        made = self.insert(self._quantized(field_map_key, stride), stride, sparse_tensor_string_id)
        self._field_maps[sparse.CoordinateMapKey(*field_map_key), made.key] = (made.first, made.inverse)
        return CoordinateMapKey.of(made.key), (made.first, made.inverse)

    def exists_field_to_sparse(self, field_map_key: Key, sparse_map_key: Key) -> bool:
        """Whether the points of this field were put on this map."""
        return (sparse.CoordinateMapKey(*field_map_key), sparse.CoordinateMapKey(*sparse_map_key)) in self._field_maps

    def field_to_sparse_keys(self, field_map_key: Key) -> list[CoordinateMapKey]:
        """The maps that the points of this field were put on."""
        field = sparse.CoordinateMapKey(*field_map_key)
        return [CoordinateMapKey.of(to) for of, to in self._field_maps if of == field]

    def get_field_to_sparse_map(self, field_map_key: Key, sparse_map_key: Key) -> tuple[Tensor, Tensor]:
        """(first point of each voxel, voxel of each point) as `field_to_sparse_insert_and_map` found them.

        Raises:
            ValueError: it has not.
        """
        name = (sparse.CoordinateMapKey(*field_map_key), sparse.CoordinateMapKey(*sparse_map_key))
        if name not in self._field_maps:
            raise ValueError(f"the field {name[0]} was not put on the map {name[1]}")
        return self._field_maps[name]

    def field_rows(self, field_map_key: Key, sparse_map_key: Key) -> Tensor:
        """The row on any map of the voxel that each point lies in, int64 (N), -1 where there is none."""
        key = sparse.CoordinateMapKey(*sparse_map_key)
        known = self._field_maps.get((sparse.CoordinateMapKey(*field_map_key), key))
        return self.find(key, self._quantized(field_map_key, key.stride).long()) if known is None else known[1]

    def field_to_sparse_map(self, field_map_key: Key, sparse_map_key: Key) -> tuple[Tensor, Tensor]:
        """(row on the map, point) of each point that lies in a voxel of the map."""
        rows = self.field_rows(field_map_key, sparse_map_key)
        points = (rows >= 0).nonzero()[:, 0]
        return rows[points], points

    # Maps between maps

    def kernel_map(
        self,
        in_key: Any,
        out_key: Any,
        stride: Any = 1,
        kernel_size: StrideType = 3,
        dilation: StrideType = 1,
        region_type: RegionType | int = RegionType.HYPER_CUBE,
        region_offset: Tensor | None = None,
        is_transpose: bool = False,
        is_pool: bool = False,
    ) -> Any:
        """Which rows meet under which kernel offset: {k: int32 (2, n) [rows read, rows written]}, k with pairs only.

        A `hepops.sparse.Kernel` in the place of `stride` gives hepops' own kernel map.
        """
        if isinstance(stride, Kernel):
            return super().kernel_map(sparse.CoordinateMapKey(*in_key), sparse.CoordinateMapKey(*out_key), stride)
        source, target = (self._get_coordinate_map_key(key).native for key in (in_key, out_key))
        size, step = int_list("kernel_size", kernel_size, self.D), int_list("stride", stride, self.D)
        if is_pool and size == step and not is_transpose and set(step) != {1}:
            return {0: torch.stack(self.stride_map(source, target)).int()}
        region = RegionType(region_type) if set(size) != {1} else RegionType.HYPER_CUBE
        kernel = region_kernel(region, size, int_list("dilation", dilation, self.D), region_offset, self.D)
        if is_transpose:
            return _by_offset(super().kernel_map(target, source, kernel).transposed())
        return _by_offset(super().kernel_map(source, target, kernel))

    def get_kernel_map(self, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        """MinkowskiEngine's old name of `kernel_map`."""
        warnings.warn("get_kernel_map is deprecated: use kernel_map", DeprecationWarning, stacklevel=2)
        return self.kernel_map(*args, **kwargs)

    def stride_map(self, in_key: Key, stride_key: Key) -> tuple[Tensor, Tensor]:
        """(row of the finer map, row of the coarser one whose cell it lies in) of each row whose cell is there."""
        fine, coarse = (sparse.CoordinateMapKey(*key) for key in (in_key, stride_key))
        if any(c % f for c, f in zip(coarse.stride, fine.stride, strict=True)):
            raise ValueError(f"the stride {coarse.stride} is no multiple of {fine.stride}")
        c = self.coordinates(fine).long()
        step = c.new_tensor([1, *coarse.stride])
        rows = self.find(coarse, torch.div(c, step, rounding_mode="floor") * step)
        found = (rows >= 0).nonzero()[:, 0]
        return found, rows[found]

    def union_map(self, in_keys: Sequence[Key], out_key: CoordinateMapKey) -> list[Tensor]:
        """Sets `out_key` to the union of maps; for each, int64 (2, n) [its rows, their rows in the union].

        Raises:
            ValueError: `out_key` is set already.
        """
        if out_key.is_key_set():
            raise ValueError(f"out_key must not be set, got {out_key}")
        key, rows = self.union(in_keys)
        out_key.set_key(key.stride, key.name)
        return [torch.stack([torch.arange(len(r), device=r.device), r]) for r in rows]

    def interpolation_map_weight(self, key: Key, samples: Tensor) -> list[Tensor]:
        """Rows read, samples written and weights of the multilinear interpolation at real coordinates (Q, 1 + D)."""
        native = sparse.CoordinateMapKey(*key)
        rows, weights = corners(self, native, samples)
        sample, corner = (rows >= 0).nonzero(as_tuple=True)
        return [rows[sample, corner], sample, weights[sample, corner]]

    def get_batch_indices(self) -> NoReturn:
        raise absent("CoordinateManager.get_batch_indices", "use origin_map(key)[0]")


def corners(manager: sparse.CoordinateManager, key: Key, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the 2^D voxels around each sample, int64 (Q, 2^D), -1 where there is none, and their weights."""
    D = manager.dimension
    if samples.dim() != 2 or samples.shape[1] != D + 1:
        raise ValueError(f"coordinates must be (Q, {D + 1}), got {tuple(samples.shape)}")
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("coordinates must be finite")
    step = samples.new_tensor(key.stride)
    q = samples[:, 1:] / step
    low = q.detach().floor()
    corner = torch.cartesian_prod(*[torch.arange(2, device=samples.device)] * D).reshape(-1, D)  # first axis slowest
    voxel = (low.long()[:, None] + corner[None]) * step.long()
    batch = samples[:, :1].detach().round().long()[:, None].expand(-1, len(corner), 1)
    rows = manager.find(sparse.CoordinateMapKey(*key), torch.cat([batch, voxel], 2).reshape(-1, D + 1))
    fraction = (q - low)[:, None]
    weights = torch.where(corner[None] == 1, fraction, 1 - fraction).prod(2)
    return rows.reshape(-1, len(corner)), weights


def _rows_of_events(batch: Tensor) -> tuple[Tensor, list[Tensor]]:
    batch = batch.long()
    events, counts = torch.unique(batch, return_counts=True)
    rows = batch.argsort(stable=True).split(counts.tolist()) if len(events) else ()
    none = batch.new_zeros(0)
    if len(events) and int(events[0]) < 0:
        raise ValueError(f"batch ids must not be negative, got {int(events[0])}")
    lists = [none] * (int(events[-1]) + 1 if len(events) else 0)
    for event, members in zip(events.tolist(), rows, strict=True):
        lists[event] = members
    return events, lists


def _by_offset(kernel_map: sparse.kernel_map.KernelMap) -> dict[int, Tensor]:
    """The pairs of each kernel offset that has any."""
    pairs, entries, _, schedule = kernel_map.forward
    entries = entries.long()
    offset = torch.repeat_interleave(entries[:-1, 1], entries.diff(dim=0)[:, 0])
    if kernel_map.flip:
        offset = kernel_map.volume - 1 - offset
    order = offset.argsort(stable=True)
    pairs, offset = pairs[order].long(), offset[order]
    found, counts = torch.unique_consecutive(offset, return_counts=True)
    both = torch.stack([pairs[:, 0], schedule.long()[pairs[:, 1]]]).int()
    return dict(zip(found.tolist(), both.split(counts.tolist(), 1), strict=True))
