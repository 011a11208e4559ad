"""Which events stand where in a list of edep-sim files, and reading them a few at a time.

An index holds one entry per run of rows of one event, never the rows: 24 bytes where a row has over a hundred. One
pass over the files finds the events and a digest of every byte of their rows, so that a run can be divided into pieces,
taken up again after a kill, and refused where a file has changed in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hepops.core.files import open_hdf5
from hepops.lartpc import edepsim
from hepops.lartpc.segments import Segments

Array = np.ndarray[Any, Any]
BLOCK = 1 << 18  # rows read at once
GAP = 512  # rows: reading so many more costs less than reading twice


@dataclass(frozen=True)
class Source:
    """A list of files and how they are read; see `hepops.lartpc.read_segments`."""

    files: tuple[str | Path, ...]
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    on_bad: Literal["raise", "exclude"] = "raise"
    same_event: Literal["raise", "merge", "renumber"] = "raise"

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("source: the list of files is empty")
        edepsim._check_choice("on_bad", self.on_bad, ("raise", "exclude"))
        edepsim._check_choice("same_event", self.same_event, ("raise", "merge", "renumber"))
        edepsim._offset(self.offset)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(map(Path, self.files))

    @property
    def shift(self) -> Array:
        """The offset, (3) [cm]."""
        return edepsim._offset(self.offset)


@dataclass(frozen=True)
class Index:
    """The events of a `Source`, in rising order of id, and the rows of each.

    Rows are counted through all files in turn; `skipped` are those that `read_segments` leaves out.
    """

    source: Source
    digests: tuple[str, ...]  # (num_files) of the rows of each file
    first_row: Array  # int64 (num_files + 1) of each file
    event: Array  # int64 (num_runs), sorted; runs of one event in the order of their rows
    begin: Array  # int64 (num_runs) row
    end: Array  # int64 (num_runs) row
    skipped: Array  # int64 (num_skipped) rows, rising
    excluded: dict[str, int] = field(default_factory=dict)  # reason -> rows left out
    notes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def scan(cls, source: Source) -> Index:
        """Read the files once (with on_bad="exclude" a second time, since what is left out depends on every row).

        Raises:
            ValueError: a foreign or truncated file, a missing field, an event id that is negative or no integer, an
                event in two files (see `Source.same_event`), or no segments.
            FileNotFoundError: no such file.
        """
        parts = [_scan(path, source.on_bad == "raise") for path in source.paths]
        first_row = np.cumsum([0, *(part.rows for part in parts)])
        event = np.concatenate([p.event + s for p, s in zip(parts, _shifts(parts, source), strict=True)])
        begin, end, skipped = (
            np.concatenate([getattr(p, name) + row for p, row in zip(parts, first_row, strict=False)])
            for name in ("begin", "end", "skipped")
        )
        order = np.argsort(event, kind="stable")
        found = cls(
            source,
            tuple(part.digest for part in parts),
            first_row,
            event[order],
            begin[order],
            end[order],
            skipped,
            {edepsim.EMPTY: len(skipped)} if len(skipped) else {},
            _notes(parts, source),
        )
        if source.on_bad == "exclude":
            found = found._judged()
        if not len(found.events):
            raise ValueError(f"no segments in {source.files[0]}; excluded: {found.excluded}")
        return found

    @property
    def events(self) -> Array:
        """Ids of the events, each once, in rising order, int64 (num_events)."""
        return np.unique(self.event)

    def select(self, events: Array) -> Index:
        """The index of some events; what was left out of all files stays in the counts.

        Raises:
            ValueError: an id that is not there.
        """
        if len(missing := np.setdiff1d(events, self.event)):
            raise ValueError(f"events: there is no event {missing[0]} among {len(self.events)}")
        mine = runs_of(self.event, events)
        return replace(self, event=self.event[mine], begin=self.begin[mine], end=self.end[mine])

    def rows(self, events: Array) -> Array:
        """How many rows each of some events has, int64 (num_events)."""
        last, first = np.searchsorted(self.event, events, "right"), np.searchsorted(self.event, events)
        rows: Array = self._before[last] - self._before[first]
        return rows

    @cached_property
    def _before(self) -> Array:
        """Rows of the runs before each, int64 (num_runs + 1)."""
        return np.concatenate([[0], np.cumsum(self.end - self.begin)])

    def read(self, events: Array) -> tuple[Segments, Array]:
        """The segments of some events, in the order of the files.

        Returns:
            `Segments`, and the number of each among all segments of the source, int64 (num_segments).

        Raises:
            ValueError: a bad segment, with on_bad="raise".
        """
        parts, numbers = [], []
        for path, first, table, row, event in self._tables(events):
            kept = ~np.isin(row, self.skipped)
            columns = edepsim._columns(str(path), list(table.dtype.names or ()), table[kept].__getitem__)
            if self.source.on_bad == "raise":
                where = f"{path} (rows without energy and of other events not counted, from row {row[0] - first} on)"
                edepsim.judge(where, columns, self.source.shift, True)
            part = edepsim.columns_to_segments(columns, self.source.shift, {})
            parts.append(replace(part, event=torch.from_numpy(event[kept]), notes={}))
            numbers.append(row[kept] - np.searchsorted(self.skipped, row[kept]))
        if not parts:
            return _none(), np.zeros(0, np.int64)
        return Segments.cat(parts), np.concatenate(numbers)

    def _tables(self, events: Array) -> Iterator[tuple[Path, int, Array, Array, Array]]:
        """For each file that has any of the events: path, its first row, their rows, the rows' numbers and events."""
        runs = runs_of(self.event, events)
        runs = runs[np.argsort(self.begin[runs], kind="stable")]
        number = np.searchsorted(self.first_row, self.begin[runs], "right") - 1
        for k in np.unique(number).tolist():
            mine, first = runs[number == k], int(self.first_row[k])
            begin, end = self.begin[mine], self.end[mine]
            with open_hdf5(self.source.paths[k]) as file:
                data = file["segments"]
                row = np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)])
                parts = []
                for a, b in _spans(begin, end):
                    here = row[np.searchsorted(row, a) : np.searchsorted(row, b)]
                    parts.append(_rows(data, a - first, b - first, here - first))
                table = np.concatenate(parts)
            if len(row) != len(table):
                raise ValueError(f"{self.source.paths[k]}: changed since it was first read")
            yield self.source.paths[k], first, table, row, np.repeat(self.event[mine], end - begin)

    def _judged(self) -> Index:
        """Every row looked at, a group of events at a time: a row that stands twice does so within its event."""
        skipped, excluded, none = [self.skipped], dict(self.excluded), np.zeros(0, np.int64)
        for group in groups(self.events, self.rows(self.events), BLOCK):
            for path, _, table, row, _ in self._tables(group):
                columns = edepsim._columns(str(path), list(table.dtype.names or ()), table.__getitem__)
                keep, counts = edepsim.judge(str(path), columns, self.source.shift, False)
                skipped.append(row[~keep])
                for reason, count in counts.items():
                    excluded[reason] = excluded.get(reason, 0) + count
        rows = np.sort(np.concatenate([*skipped, none]))
        good = (self.end - self.begin) > np.searchsorted(rows, self.end) - np.searchsorted(rows, self.begin)
        runs = {name: getattr(self, name)[good] for name in ("event", "begin", "end")}
        return replace(self, **runs, skipped=rows, excluded=excluded)


def runs_of(event: Array, wanted: Array) -> Array:
    """Numbers of the entries of a rising `event` that are among `wanted`, rising."""
    wanted = np.unique(wanted)
    first = np.searchsorted(event, wanted)
    count = np.searchsorted(event, wanted, "right") - first
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())


def groups(events: Array, sizes: Array, most: int, count: int | None = None) -> list[Array]:
    """Events, in order, in groups of at most `most` rows and `count` events, one event at least."""
    found: list[Array] = []
    begin = filled = 0
    for k, size in enumerate(sizes.tolist()):
        if k > begin and (filled + size > most or k - begin == count):
            found.append(events[begin:k])
            begin, filled = k, 0
        filled += size
    return [*found, events[begin:]] if len(events) else []


@dataclass(frozen=True)
class _File:
    """What one pass over a file finds; rows are those of the file."""

    path: Path
    rows: int
    digest: str
    event: Array  # of each run
    begin: Array
    end: Array
    skipped: Array  # without energy, or (on_bad="exclude") without a valid event


def _scan(path: Path, refuse: bool) -> _File:
    """Runs of kept rows of one event; rows that are skipped interrupt none."""
    digest, skipped = hashlib.blake2b(digest_size=16), []
    runs: list[Array] = []
    last: Array | None = None
    with open_hdf5(path) as file:
        if "segments" not in file:
            raise ValueError(f"{path}: there is no dataset 'segments', only {sorted(file)}")
        data = file["segments"]
        names = getattr(getattr(data, "dtype", None), "names", None)
        if names is None:
            raise ValueError(f"{path}: 'segments' must be a dataset of named fields")
        digest.update(repr((data.shape, data.dtype)).encode())
        for first in range(0, max(len(data), 1), BLOCK):
            table = data[first : first + BLOCK]
            digest.update(np.ascontiguousarray(table).tobytes())
            columns = edepsim._columns(str(path), list(names), table.__getitem__)
            event, wrong = edepsim._integers(columns["event"])
            wrong = wrong | (event < 0)
            if refuse and wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ValueError(
                    f"{path}: {wrong.sum()} segments with an event id that is negative or no integer, the first is "
                    f"row {first + row}, {columns['event'][row].item()}"
                )
            empty = (columns["dE"] == 0) if refuse else np.zeros(len(event), bool)
            skipped.append(np.flatnonzero(empty) + first)
            kept = np.flatnonzero(~empty)
            starts = np.flatnonzero(np.diff(event[kept], prepend=event[kept][:1] - 1))
            if len(kept) and last is not None and event[kept[0]] == last[0]:  # it began in the block before
                starts = starts[1:]
                last[2] = first + int(kept[starts[0] - 1] if len(starts) else kept[-1]) + 1
            ends = np.append(starts[1:], len(kept))[: len(starts)]
            runs.append(np.stack([event[kept[starts]], first + kept[starts], first + kept[ends - 1] + 1], 1))
            last = runs[-1][-1] if len(starts) else last  # a view: what follows in the next block moves its end
        rows = len(data)
    event, begin, end = np.concatenate([np.zeros((0, 3), np.int64), *runs]).T.copy()
    return _File(path, rows, digest.hexdigest(), event, begin, end, np.concatenate(skipped))


def _shifts(parts: Sequence[_File], source: Source) -> list[int]:
    """What is added to the ids of each file, by the rules of `read_segments`."""
    ids = [np.unique(part.event) for part in parts]
    every, count = np.unique(np.concatenate(ids), return_counts=True)
    shared = every[count > 1]
    if not len(shared) or source.same_event == "merge":
        return [0] * len(parts)
    if source.same_event == "raise":
        first, second = [p.path for p, i in zip(parts, ids, strict=True) if shared[0] in i][:2]
        raise ValueError(
            f"{len(shared)} events stand in several files, the first is {shared[0]}, {first} and {second}: "
            "same_event='merge' or 'renumber' decides"
        )
    stride = 10 ** len(str(int(every.max())))
    if stride * len(parts) > np.iinfo(np.int64).max:
        raise ValueError(f"same_event='renumber': {len(parts)} files of ids up to {every.max()} exceed 64 bits")
    return [k * stride for k in range(len(parts))]


def _notes(parts: Sequence[_File], source: Source) -> dict[str, int]:
    ids = [np.unique(part.event) for part in parts]
    several = sum(len(part.event) for part in parts) - sum(map(len, ids))
    shared = int((np.unique(np.concatenate(ids), return_counts=True)[1] > 1).sum())
    notes = {"further blocks of an earlier event": several} if several else {}
    return notes | ({"events in several files": shared} if shared and source.same_event == "merge" else {})


def _spans(begin: Array, end: Array) -> list[tuple[int, int]]:
    """Runs read in one go: neighbours, and those between which little is in vain, BLOCK rows at most."""
    found: list[tuple[int, int]] = []
    for a, b in zip(begin.tolist(), end.tolist(), strict=True):
        if found and (a == found[-1][1] or (a - found[-1][1] < GAP and b - found[-1][0] <= BLOCK)):
            found[-1] = found[-1][0], b
        else:
            found.append((a, b))
    return found


def _rows(data: Any, a: int, b: int, wanted: Array) -> Array:
    """The wanted of the rows a ... b of a dataset, as far as there are any."""
    table: Array = data[a:b]
    return table if len(wanted) == len(table) else table[wanted[wanted < a + len(table)] - a]


def _none() -> Segments:
    ids, points, numbers = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3).double(), torch.zeros(0).double()
    return Segments(ids, points, points, numbers, numbers, numbers, ids, ids)
