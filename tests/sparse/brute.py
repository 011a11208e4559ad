"""Coordinates and kernel maps from their definitions, by dictionaries and whole numbers of any size."""

from collections.abc import Sequence

import torch
from torch import Tensor

Row = tuple[int, ...]


def rows(coordinates: Tensor) -> list[Row]:
    return [tuple(row) for row in coordinates.tolist()]


def canonical_key(row: Sequence[int], stride: Sequence[int]) -> tuple[int, int]:
    """Batch, and the 64 planes of floor(c / stride) with the sign flipped, the first axis first in each."""
    shifted = [c // s + (1 << 63) for c, s in zip(row[1:], stride, strict=True)]
    planes = [x >> plane & 1 for plane in reversed(range(64)) for x in shifted]
    return row[0], int("".join(map(str, planes)), 2)


def in_canonical_order(some: Sequence[Row], stride: Sequence[int]) -> list[Row]:
    return sorted(set(some), key=lambda row: canonical_key(row, stride))


def cells(some: Sequence[Row], stride: Sequence[int]) -> list[Row]:
    floored = {(row[0], *(c // s * s for c, s in zip(row[1:], stride, strict=True))) for row in some}
    return in_canonical_order(list(floored), stride)


def triples(source: Sequence[Row], target: Sequence[Row], offsets: Sequence[Row]) -> set[tuple[int, int, int]]:
    """(row of the source, row of the target, k) with c_source = c_target + offset_k."""
    at = {row: i for i, row in enumerate(source)}
    return {
        (i, o, k)
        for o, row in enumerate(target)
        for k, offset in enumerate(offsets)
        if (i := at.get((row[0], *(c + x for c, x in zip(row[1:], offset, strict=True))))) is not None
    }


def check_list(pairs, tile: int, num_in: int) -> set[tuple[int, int, int]]:
    """That a list keeps the laws of csrc/sparse/pairs.h; its triples (row that is read, row that is written, k)."""
    kind = pairs.pairs.dtype
    assert kind in (torch.int32, torch.int64) and all(tensor.dtype == kind for tensor in pairs)
    assert all(tensor.is_contiguous() for tensor in pairs)
    n, P, E = len(pairs.schedule), len(pairs.pairs), len(pairs.entries) - 1
    T = (n + tile - 1) // tile
    assert pairs.pairs.shape == (P, 2) and pairs.entries.shape == (E + 1, 2) and pairs.tiles.shape == (T + 1,)
    schedule, tiles, entries = pairs.schedule.tolist(), pairs.tiles.tolist(), pairs.entries.tolist()
    assert sorted(schedule) == list(range(n))
    assert tiles[0] == 0 and tiles[-1] == E and tiles == sorted(tiles)
    assert entries[-1] == [P, -1] and (E == 0 or entries[0][0] == 0)
    listed = pairs.pairs.tolist()
    found = []
    for t in range(T):
        offsets = [k for _, k in entries[tiles[t] : tiles[t + 1]]]
        assert offsets == sorted(set(offsets))  # ascending, each once
        for e in range(tiles[t], tiles[t + 1]):
            (first, k), last = entries[e], entries[e + 1][0]
            assert first < last  # only what exists
            places = [place for _, place in listed[first:last]]
            assert places == sorted(set(places)) and all(place // tile == t for place in places)
            found += [(row, schedule[place], k) for row, place in listed[first:last]]
    assert all(0 <= row < num_in for row, _, _ in found) and len(found) == P == len(set(found))
    return set(found)
