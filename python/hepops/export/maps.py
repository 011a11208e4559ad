"""Coordinate maps and kernel maps as a part of an exported graph, whatever the number of voxels.

The operators that build maps return as many rows as the data ask for. Their fakes say so (unbacked sizes), and what a
network asks of its `CoordinateManager` is found out once, by running it on an example: the same maps are then built in
the graph from the voxels that it is given.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import get_ctx, register_fake

from hepops.sparse import SparseTensor
from hepops.sparse.coordinates import Index
from hepops.sparse.kernel import Kernel
from hepops.sparse.kernel_map import KernelMap, Pairs
from hepops.sparse.manager import CoordinateManager, CoordinateMap, CoordinateMapKey
from hepops.sparse.pytree import _flatten_manager, _key, _names

ops = torch.ops.hepops


def _keys(like: Tensor, axes: int) -> tuple[Any, Tensor, Tensor]:
    """Number of rows, packing and keys of an index that is yet to be made."""
    context = get_ctx()
    rows, words = context.new_dynamic_size(), context.new_dynamic_size(min=1, max=2)
    packing = torch.empty(4 + 3 * axes, dtype=torch.int64)
    return rows, packing, like.new_empty((rows, words), dtype=torch.int64)


@register_fake("hepops::_sparse_index")
def _(coordinates: Tensor, stride: list[int], wide: bool, plain: bool) -> tuple[Tensor, ...]:
    rows, packing, keys = _keys(coordinates, len(stride))
    schedule = coordinates.new_empty(rows, dtype=torch.int64 if wide else torch.int32)
    first = coordinates.new_empty(rows, dtype=torch.int64)
    return packing, keys, schedule, first, coordinates.new_empty(coordinates.shape[0], dtype=torch.int64)


@register_fake("hepops::_sparse_canonical")
def _(coordinates: Tensor, stride: list[int], on_stride: bool, plain: bool) -> tuple[Tensor, ...]:
    rows, packing, keys = _keys(coordinates, len(stride))
    unique = coordinates.new_empty((rows, coordinates.shape[1]))
    return packing, keys, unique, coordinates.new_empty(coordinates.shape[0], dtype=torch.int64)


@register_fake("hepops::_sparse_pairs")
def _(_packing: Tensor, _keys: Tensor, _schedule: Tensor, _target: Tensor, keys: Tensor, *rest: Any) -> Any:
    kind = torch.int64 if rest[3] else torch.int32
    pairs, entries, tiles = (get_ctx().new_dynamic_size() for _ in range(3))
    return (
        keys.new_empty((pairs, 2), dtype=kind),
        keys.new_empty((entries, 2), dtype=kind),
        keys.new_empty(tiles, dtype=kind),
    )


class Recipe:
    """The maps that a network asked for, to be built again from other voxels.

    Args:
        example: What the network was run on.

    Raises:
        ValueError: a map of a kind that depends on more than the voxels (pruned, generated, a union, per event).
    """

    def __init__(self, example: SparseTensor) -> None:
        manager = example.coordinate_manager
        self.dimension = manager.dimension
        context: Any = _flatten_manager(manager)[1]
        _, _, maps, self.kernel_maps, segments, derived, self.parents, self.origins = context
        if segments:
            raise ValueError("export: the network pools or normalises event by event, which has no exported form")
        kinds = {name[0] for name, _ in derived}
        if kinds - {"stride"}:
            raise ValueError(
                f"export: the network makes maps by {sorted(kinds - {'stride'})}: only strided ones export"
            )
        self.maps = [(_key(key), tuple(stride)) for key, stride in maps]
        self.root = self.maps[0][0]
        self.derived = {_names(name): _key(key) for name, key in derived}
        others = {key for key, _ in self.maps[1:]} - set(self.derived.values())
        if others or example.coordinate_map_key != self.root:
            raise ValueError(
                f"export: the maps {sorted(others)} were given to the network, or pruned: they do not export"
            )

    def build(self, coordinates: Tensor, features: Tensor) -> SparseTensor:
        """Features (N, C) on voxels (N, 1 + D), each of them once, with all maps; can be traced."""
        manager = CoordinateManager(self.dimension)
        manager._derived = dict(self.derived)
        manager._parents = {_key(child): _key(parent) for child, parent in self.parents}
        manager._origins = {_key(child): _key(parent) for child, parent in self.origins}
        for key, stride in self.maps:
            manager.maps[key] = self._map(coordinates, key, stride)
        for name, volume, mirrored, lists in self.kernel_maps:
            self._kernel_map(manager, name, volume, mirrored, lists)
        made: SparseTensor = object.__new__(SparseTensor)
        made.features, made.coordinate_manager, made.coordinate_map_key = features, manager, self.root
        made.unique_index = made.inverse_mapping = None
        return made

    def _map(self, coordinates: Tensor, key: CoordinateMapKey, stride: tuple[int, ...]) -> CoordinateMap:
        if key == self.root:
            packing, keys, schedule, _, _ = ops._sparse_index(coordinates, stride, False, False)
            torch._check(keys.shape[0] == coordinates.shape[0])  # each voxel once
            return CoordinateMap(coordinates, Index(packing, keys, schedule, stride))
        packing, keys, cells, _ = ops._sparse_canonical(coordinates, stride, False, False)
        schedule = torch.arange(cells.shape[0], dtype=torch.int32, device=cells.device)
        return CoordinateMap(cells, Index(packing, keys, schedule, stride))

    def _kernel_map(self, manager: CoordinateManager, name: Any, volume: int, mirrored: bool, lists: int) -> None:
        source_key, target_key = _key(name[0]), _key(name[1])
        source, target = manager.maps[source_key].index, manager.maps[target_key].index
        offsets = Kernel(*name[2:]).table(source_key.stride)
        back = _pairs(target, source, -offsets) if lists == 2 else None
        made = KernelMap(_pairs(source, target, offsets), source.schedule, volume, backward=back, mirrored=mirrored)
        manager._kernel_maps[(source_key, target_key, *name[2:])] = made


def _pairs(source: Index, target: Index, offsets: Tensor) -> Pairs:
    given = (source.packing, source.keys, source.schedule, target.packing, target.keys, target.schedule)
    pairs, entries, tiles = ops._sparse_pairs(*given, offsets, 0, False, False)
    return Pairs(pairs, entries, tiles, target.schedule)
