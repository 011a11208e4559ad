"""The name of a coordinate map, which may be filled in later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import hepops.sparse as sparse


class CoordinateMapKey:
    """Stride and name of a coordinate map in a `CoordinateManager`; equal to, and found as, hepops' own key.

    Args:
        tensor_stride: the stride per axis; or the number of columns of the coordinates, for a key that is filled in
            by `set_key` or by what it is handed to as an output key.
        string_id: tells maps of one stride apart.

    Example:
        >>> key = CoordinateMapKey([2, 2], "pruned")
        >>> key.get_key(), key.get_coordinate_size()
        (([2, 2], 'pruned'), 3)
        >>> CoordinateMapKey(3).is_key_set()
        False
    """

    def __init__(self, tensor_stride: int | Sequence[int], string_id: str = "") -> None:
        self._size = tensor_stride if isinstance(tensor_stride, int) else len(tensor_stride) + 1
        self._key: sparse.CoordinateMapKey | None = None
        if not isinstance(tensor_stride, int):
            self.set_key(tensor_stride, string_id)

    @classmethod
    def of(cls, key: CoordinateMapKey | sparse.CoordinateMapKey) -> CoordinateMapKey:
        """The key in this form."""
        return key if isinstance(key, cls) else cls(key.stride, key.name)

    @property
    def native(self) -> sparse.CoordinateMapKey:
        """The key as hepops.sparse has it.

        Raises:
            ValueError: it is not set yet.
        """
        if self._key is None:
            raise ValueError("the coordinate map key is not set")
        return self._key

    def set_key(self, tensor_stride: Any, string_id: str = "") -> None:
        """Name a map: stride and name, or both as a pair."""
        if len(tensor_stride) == 2 and isinstance(tensor_stride[1], str):
            tensor_stride, string_id = tensor_stride
        if len(tensor_stride) + 1 != self._size:
            raise ValueError(f"tensor_stride must have {self._size - 1} entries, got {list(tensor_stride)}")
        self._key = sparse.CoordinateMapKey(tuple(int(s) for s in tensor_stride), string_id)

    def is_key_set(self) -> bool:
        return self._key is not None

    def get_key(self) -> tuple[list[int], str]:
        return list(self.native.stride), self.native.name

    def get_tensor_stride(self) -> list[int]:
        return list(self.native.stride)

    def get_coordinate_size(self) -> int:
        """1 + D."""
        return self._size

    @property
    def stride(self) -> tuple[int, ...]:
        return self.native.stride

    @property
    def name(self) -> str:
        return self.native.name

    def __iter__(self) -> Iterator[Any]:
        return iter(self.native)

    def __getitem__(self, index: int) -> Any:
        return self.native[index]

    def __hash__(self) -> int:
        return hash(self.native)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CoordinateMapKey):
            return self._key is not None and self._key == other._key
        return self._key == other if isinstance(other, tuple) else NotImplemented

    def __repr__(self) -> str:
        if self._key is None:
            return f"coordinate map key (not set, {self._size - 1} axes)"
        return f"coordinate map key:{self.get_tensor_stride()}" + (f":{self.name}" if self.name else "")
