"""Data of a fit in files: batches of whole events that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hepops.lartpc.production.hit_files import HitFiles
from hepops.lartpc.production.index import Index, groups

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.segments import Segments


class Files:
    """Segments and hits of the same events; holds what was read last, and no more."""

    def __init__(self, index: Index, hits: HitFiles, shift: float, device: torch.device):
        self.index, self.hits, self.shift, self.device = index, hits, shift, device
        self._last: tuple[int, Segments, Hits] | None = None

    def read(self, batch: FileBatch) -> tuple[Segments, Hits]:
        """The data of a batch, on the simulator's device."""
        if self._last is None or self._last[0] != batch.number:
            ids = batch.ids.numpy()
            segments = self.index.read(ids)[0]
            if self.shift:
                segments = replace(segments, t0=segments.t0 + self.shift)
            self._last = (batch.number, segments.to(self.device), self.hits.read(ids).to(self.device))
        return self._last[1:]


@dataclass(frozen=True)
class FileBatch:
    """Whole events of files; as `Batch`, but read anew each time."""

    files: Files
    number: int
    ids: Tensor  # int64 (events) on the CPU

    @property
    def events(self) -> int:
        """How many."""
        return len(self.ids)

    @property
    def segments(self) -> Segments:
        """Their energy deposits."""
        return self.files.read(self)[0]

    @property
    def measured(self) -> Hits:
        """Their hits."""
        return self.files.read(self)[1]


def file_batches(files: Files, size: int, events: int | None) -> tuple[Sequence[FileBatch], int]:
    """Batches of at most `size` segments (one event at least) and `events` events, and hits of events without segments.

    Raises:
        ValueError: no event in common.
    """
    ids = files.index.events
    known = np.isin(files.hits.event, ids)
    if not known.any():
        raise ValueError(
            f"measured: none of its events ({_few(files.hits.events)}) is among those of the segments ({_few(ids)})"
        )
    parts = groups(ids, files.index.rows(ids), size, events)
    others = int((files.hits.end - files.hits.begin)[~known].sum())
    return [FileBatch(files, k, torch.from_numpy(part)) for k, part in enumerate(parts)], others


def _few(ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")
