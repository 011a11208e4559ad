"""Sparse tensors and their managers as pytrees, so that torch.export sees plain tensors.

A manager's leaves are the tensors of its maps and of the kernel maps that were built when it was flattened; all that
names them is the context. A network whose maps are given in this way needs to build none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .coordinates import Index
from .kernel_map import KernelMap, Pairs
from .manager import CoordinateManager, CoordinateMap, CoordinateMapKey, Segments
from .tensor import SparseTensor

Context = tuple[Any, ...]


def _flatten_manager(manager: CoordinateManager) -> tuple[list[Tensor], Context]:
    leaves: list[Tensor] = []
    for m in manager.maps.values():
        leaves += [m.coordinates, m.index.packing, m.index.keys, m.index.schedule]
    kernel_maps = []
    for name, k in manager._kernel_maps.items():
        lists = [k.forward] if k.mirrored or not k.has_backward else [k.forward, k.backward]
        for pairs in lists:
            leaves += pairs[:3]  # the schedules are those of the maps
        kernel_maps.append((name, k.volume, k.mirrored, len(lists)))
    for segments in manager._segments.values():
        leaves += segments
    context = (
        manager.dimension,
        manager.batch_size,
        tuple((tuple(key), m.index.stride) for key, m in manager.maps.items()),
        tuple(kernel_maps),
        tuple(manager._segments),
        tuple(manager._derived.items()),
        tuple(manager._parents.items()),
        tuple(manager._origins.items()),
    )
    return leaves, _plain(context)


def _unflatten_manager(leaves: Iterable[Tensor], context: Context) -> CoordinateManager:
    dimension, batch_size, maps, kernel_maps, segments, derived, parents, origins = context
    manager, rest = CoordinateManager(dimension, batch_size), iter(leaves)
    for key, stride in maps:
        coordinates, packing, keys, schedule = (next(rest) for _ in range(4))
        manager.maps[_key(key)] = CoordinateMap(coordinates, Index(packing, keys, schedule, stride))
    for name, volume, mirrored, count in kernel_maps:
        source, target = (manager.maps[_key(key)].index.schedule for key in name[:2])
        lists = [Pairs(next(rest), next(rest), next(rest), schedule) for schedule in (target, source)[:count]]
        manager._kernel_maps[(_key(name[0]), _key(name[1]), *name[2:])] = KernelMap(
            lists[0], source, volume, backward=lists[1] if count == 2 else None, mirrored=mirrored
        )
    for key, size in segments:
        manager._segments[_key(key), size] = Segments(*(next(rest) for _ in Segments._fields))
    manager._derived = {_names(name): _key(key) for name, key in derived}
    manager._parents = {_key(child): _key(parent) for child, parent in parents}
    manager._origins = {_key(child): _key(parent) for child, parent in origins}
    return manager


def _key(key: tuple[Any, ...]) -> CoordinateMapKey:
    return CoordinateMapKey(tuple(key[0]), key[1])


def _is_key(x: object) -> bool:
    return isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], tuple) and isinstance(x[1], str)


def _names(name: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_key(part) if _is_key(part) else part for part in name)


def _plain(x: Any) -> Any:
    """Nested tuples of numbers and words alone, so that contexts compare and can be written to a file."""
    if isinstance(x, (tuple, list)):
        return tuple(_plain(part) for part in x)
    if hasattr(x, "custom"):  # a Kernel within a name
        return ("kernel", x.size, x.dilation, x.shape, x.custom)
    return x


def _tuples(x: Any) -> Any:
    return tuple(_tuples(part) for part in x) if isinstance(x, list) else x


def _flatten(x: SparseTensor) -> tuple[list[Any], Context]:
    return [x.features, x.coordinate_manager], (tuple(x.coordinate_map_key),)


def _unflatten(leaves: Iterable[Any], context: Context) -> SparseTensor:
    # No checks: a transformation may put anything in the place of a leaf.
    x: SparseTensor = object.__new__(SparseTensor)
    x.features, x.coordinate_manager = leaves
    x.coordinate_map_key = _key(context[0])
    x.unique_index = x.inverse_mapping = None
    return x


def _with_keys(flatten: Any) -> Any:
    def keyed(x: Any) -> tuple[list[tuple[pytree.KeyEntry, Any]], Context]:
        leaves, context = flatten(x)
        return [(pytree.SequenceKey(i), leaf) for i, leaf in enumerate(leaves)], context

    return keyed


def register() -> None:
    """Tell torch of both classes."""
    kinds: list[tuple[type, Any, Any]] = [
        (CoordinateManager, _flatten_manager, _unflatten_manager),
        (SparseTensor, _flatten, _unflatten),
    ]
    for kind, flatten, unflatten in kinds:
        pytree.register_pytree_node(
            kind,
            flatten,
            unflatten,
            serialized_type_name=f"hepops.sparse.{kind.__name__}",
            to_dumpable_context=lambda context: context,
            from_dumpable_context=_tuples,
            flatten_with_keys_fn=_with_keys(flatten),
        )


def dynamic_shapes(example: Any) -> Any:
    """What torch.export is to be told of an example: that every tensor's first axis may have any length.

    Example:
        >>> # torch.export.export(network, (x,), dynamic_shapes=dynamic_shapes((x,)))
    """

    if isinstance(example, Tensor):
        return {0: torch.export.Dim.DYNAMIC} if example.dim() else None
    if isinstance(example, SparseTensor):  # to torch.export, a list of its leaves
        return [dynamic_shapes(leaf) for leaf in _flatten(example)[0]]
    if isinstance(example, CoordinateManager):
        return [dynamic_shapes(leaf) for leaf in _flatten_manager(example)[0]]
    if isinstance(example, dict):
        return {name: dynamic_shapes(part) for name, part in example.items()}
    if isinstance(example, (tuple, list)):
        return type(example)(dynamic_shapes(part) for part in example)
    return None


def mark_dynamic(x: Any) -> None:
    """Tell torch.compile that every tensor in x may have any number of rows next time.

    It would find out by itself at the second size, but a number that happens to be the same twice (the tiles of a
    coarse level) counts as fixed until it changes: this saves that compilation.

    Example:
        >>> # x = SparseTensor(...); network(x) builds the maps; mark_dynamic(x); torch.compile(network)(x)
    """
    import torch._dynamo

    sparse = pytree.tree_leaves(x, is_leaf=lambda part: isinstance(part, SparseTensor))
    rows = [t for part in sparse if isinstance(part, SparseTensor) for t in (part.unique_index, part.inverse_mapping)]
    for leaf in [*pytree.tree_leaves(x), *rows]:
        if isinstance(leaf, Tensor) and leaf.dim() and leaf.device.type != "meta":
            torch._dynamo.maybe_mark_dynamic(leaf, 0)


register()
