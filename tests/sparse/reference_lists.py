"""Which rows meet under which kernel offset."""

from typing import NamedTuple

import torch
from torch import Tensor

from hepops.sparse.coordinates import Index, find

TILE_ON_CPU, TILE_ON_GPU = 256, 64


class Pairs(NamedTuple):
    pairs: Tensor
    entries: Tensor
    tiles: Tensor
    schedule: Tensor


def tile_rows(device: torch.device) -> int:
    return TILE_ON_CPU if device.type == "cpu" else TILE_ON_GPU


def _group(rows: Tensor, places: Tensor, offsets: Tensor, schedule: Tensor) -> Pairs:
    """Triples (row, place, k), int64 in any order."""
    tile, n, kind = tile_rows(schedule.device), len(schedule), schedule.dtype
    volume = int(offsets.max()) + 1 if len(offsets) else 1
    order = ((places // tile * volume + offsets) * tile + places % tile).argsort()
    rows, places, offsets = rows[order], places[order], offsets[order]
    group = places // tile * volume + offsets
    new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    new[1:] = group[1:] != group[:-1]
    first = new.nonzero()[:, 0]
    entries = torch.stack([first, offsets[first]], 1)
    entries = torch.cat([entries, entries.new_tensor([[len(rows), -1]])])
    bounds = torch.arange((n + tile - 1) // tile + 1, device=rows.device)
    tiles = torch.searchsorted(places[first] // tile, bounds)
    return Pairs(torch.stack([rows, places], 1).to(kind), entries.to(kind), tiles.to(kind), schedule)


def build(source: Index, target_coordinates: Tensor, target: Index, offsets: Tensor, wide: bool = False) -> Pairs:
    """Triples c_source = c_target + offset_k, grouped by the target."""
    c = target_coordinates.long()[target.schedule.long()]
    rows, places, ks = [], [], []
    for k, offset in enumerate(torch.nn.functional.pad(offsets.to(c.device), (1, 0))):
        found = find(source, c + offset)
        place = (found >= 0).nonzero()[:, 0]
        rows.append(found[place])
        places.append(place)
        ks.append(torch.full_like(place, k))
    empty = [c.new_empty(0)]
    schedule = target.schedule.long() if wide else target.schedule
    return _group(torch.cat(rows + empty), torch.cat(places + empty), torch.cat(ks + empty), schedule)


def regroup(pairs: Pairs, source_schedule: Tensor) -> Pairs:
    """The same triples grouped by the rows that are read."""
    count = pairs.entries[1:, 0] - pairs.entries[:-1, 0]
    offsets = torch.repeat_interleave(pairs.entries[:-1, 1].long(), count.long())
    rows, places = pairs.pairs.long().unbind(1)
    place = torch.empty(len(source_schedule), dtype=torch.int64, device=rows.device)
    place[source_schedule.long()] = torch.arange(len(source_schedule), device=rows.device)
    return _group(pairs.schedule.long()[places], place[rows], offsets, source_schedule.to(pairs.pairs.dtype))


class KernelMap:
    """Triples (i, o, k) with c_i = c_o + offset_k: `forward` grouped by o (reads i), `backward` by i (reads o).

    Where `mirrored`, the backward list is the forward one, read with K - 1 - k in the place of k.
    `flip` says that both lists are to be read with K - 1 - k (the transposed map of a mirrored one).
    """

    def __init__(
        self,
        forward: Pairs,
        source_schedule: Tensor,
        volume: int,
        backward: Pairs | None = None,
        mirrored: bool = False,
    ) -> None:
        self._lists: list[Pairs | None] = [forward, forward if mirrored else backward]
        self._schedules = [forward.schedule, source_schedule]
        self._swapped = 0
        self.mirrored, self.volume = mirrored, volume

    def _list(self, which: int) -> Pairs:
        pairs = self._lists[which]
        if pairs is None:
            other = self._lists[1 - which]
            assert other is not None
            self._lists[which] = pairs = regroup(other, self._schedules[which])
        return pairs

    @property
    def forward(self) -> Pairs:
        return self._list(self._swapped)

    @property
    def backward(self) -> Pairs:
        return self._list(1 - self._swapped)

    @property
    def flip(self) -> bool:
        return self.mirrored and bool(self._swapped)

    @property
    def num_in(self) -> int:
        return len(self._schedules[1 - self._swapped])

    @property
    def num_out(self) -> int:
        return len(self._schedules[self._swapped])

    def transposed(self) -> "KernelMap":
        other = KernelMap.__new__(KernelMap)
        other.__dict__.update(self.__dict__)
        other._swapped = 1 - self._swapped
        return other
