"""Files of hits too large for the memory, read a few events at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepops.core.files import open_hdf5
from hepops.lartpc import hits as layout
from hepops.lartpc.hits import Hits

from .index import BLOCK, Array, runs_of


@dataclass(frozen=True)
class HitFiles:
    """Which events stand where in files of `Hits.save`; one entry per run of hits of one event.

    Truth and tangents stay in the files: a fit has no use for them.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]  # (num_files) of events, times, charges and counts
    event: Array  # int64 (num_runs), rising
    file: Array  # int64 (num_runs)
    begin: Array  # int64 (num_runs) row of the file
    end: Array  # int64 (num_runs)

    @classmethod
    def scan(cls, paths: Sequence[str | Path]) -> HitFiles:
        """Read the columns of events once.

        Raises:
            ValueError: no file, a truncated or foreign one, or an event in two of them.
            FileNotFoundError: no such file.
        """
        if not paths:
            raise ValueError("hits: the list of files is empty")
        runs, digests = [], []
        for number, path in enumerate(paths):
            found, digest = _scan(Path(path))
            runs.append(np.concatenate([found, np.full((len(found), 1), number)], 1))
            digests.append(digest)
        table = np.concatenate(runs)
        table = table[np.lexsort((table[:, 1], table[:, 3], table[:, 0]))]
        same = (table[1:, 0] == table[:-1, 0]) & (table[1:, 3] != table[:-1, 3])
        if same.any():
            k = int(np.flatnonzero(same)[0])
            first, second = (paths[int(n)] for n in table[k : k + 2, 3])
            raise ValueError(f"hits: event {table[k, 0]} stands in two files, {first} and {second}")
        event, begin, end, file = table.T.copy()
        return cls(tuple(map(Path, paths)), tuple(digests), event, file, begin, end)

    @property
    def events(self) -> Array:
        """Ids of the events that have hits, rising, int64 (num_events)."""
        return np.unique(self.event)

    def __len__(self) -> int:
        return int((self.end - self.begin).sum())

    def config(self) -> dict[str, Any]:
        """What the hits of the first file were made with; see `hepops.lartpc.read_config`."""
        return layout.read_config(self.paths[0])

    def read(self, events: Array) -> Hits:
        """The hits of some events, in rising order of the events."""
        runs = runs_of(self.event, events)
        parts = [self._run(int(k)) for k in runs]
        if not parts:
            return _none(self.paths[0])
        columns: dict[str, Any] = {n: torch.cat([part[n] for part in parts]) for n in layout._COLUMNS}
        return Hits(**columns)

    def _run(self, k: int) -> dict[str, torch.Tensor]:
        with open_hdf5(self.paths[self.file[k]]) as file:
            group = file["hits"]
            return {n: torch.from_numpy(group[n][self.begin[k] : self.end[k]]) for n in layout._COLUMNS}


def _scan(path: Path) -> tuple[Array, str]:
    """(num_runs, 3): event, begin and end of each run; and a digest."""
    digest, runs = hashlib.blake2b(digest_size=16), []
    with open_hdf5(path) as file:
        layout._check_format(path, file)
        try:
            group = file["hits"]
            columns = [group[name] for name in ("event", "tpc", "ix", "iy", "time", "charge", "adc")]
        except KeyError as error:
            raise ValueError(f"{path}: incomplete, {error.args[0]}") from None
        for first in range(0, len(columns[0]), BLOCK):
            for column in columns:
                digest.update(np.ascontiguousarray(column[first : first + BLOCK]).tobytes())
            event = columns[0][first : first + BLOCK]
            begin = np.flatnonzero(np.diff(event, prepend=event[0] - 1))
            end = np.append(begin[1:], len(event))
            runs.append(np.stack([event[begin], begin + first, end + first], 1))
    return np.concatenate([np.zeros((0, 3), np.int64), *runs]), digest.hexdigest()


def _none(path: Path) -> Hits:
    with open_hdf5(path) as file:
        columns: dict[str, Any] = {n: torch.from_numpy(file["hits"][n][:0]) for n in layout._COLUMNS}
    return Hits(**columns)
