"""Simulation of files larger than the memory, in pieces of whole events: killed at any moment, it goes on from there.

Beside the output stands, while the run lasts, a folder `<output>.parts`: `run.json` says what the run is, `starts.json`
who was at work, and each piece that is done is a file of its own, written beside and renamed. At the end the pieces are
joined and the folder goes. A piece is the same whoever computes it, so that any number of processes may share a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hepops.core.files import open_hdf5
from hepops.lartpc.hits import Hits

from . import record
from .folder import WHOLE, parts_of, pieces_folder, remove
from .index import Array, Index, groups
from .join import join_hits
from .ranks import Ranks

if TYPE_CHECKING:
    from hepops.lartpc.segments import Segments

PIECE = 20_000  # segments of one piece, about
Progress = Callable[[int, int], None]  # (segments done, segments in all)
Simulate = Callable[["Segments", Progress], Hits]


@dataclass(frozen=True)
class Done:
    """What a run did."""

    hits: int
    pieces: int
    resumed: int  # pieces that an earlier start had done
    segments: int
    seconds: float  # of this start
    reports: dict[str, Any]


def simulate_files(
    simulate: Simulate,
    index: Index,
    events: Array,
    output: str | Path,
    config: Mapping[str, Any],
    *,
    ranks: Ranks | None = None,
    piece: int = PIECE,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Done:
    """Simulate some events of a list of files into one file of hits.

    Args:
        simulate: Segments in, hits out, on the CPU; a function of the segments alone, event by event, such as a
            `Simulator` with its arguments bound. It may tell a function, its second argument, how far it is (done, of).
        index: Of the files.
        events: Ids, rising, int64 (num_events).
        output: The file; it is whole or not there.
        config: What the run is, for `Hits.save`: all that its result depends on. An interrupted run goes on only where
            it is the same, the files' digests and the version of hepops included. The output has it with a further
            entry, "run": pieces, segments, every start (when, where, by how many processes, seconds, of the
            last one what each process did and how long) and the end.
        ranks: The processes that share the run, every one of which calls this function; None: this one alone.
        piece: Segments computed at once; whole events, one at least.
        fresh: Begin anew where an earlier start left pieces.
        progress: Called with (segments done, in all) of this rank; those of an earlier start are not among them.

    Returns:
        `Done`, the same on every rank but for the seconds.

    Raises:
        ValueError: pieces of another run or foreign files stand there, an input has changed since, or another process
            is at work.
        OSError: no space or no permission; what is done stays, and the run goes on once there is.
    """
    if piece < 1:
        raise ValueError(f"piece must be at least 1 segment, got {piece}")
    began, ranks, output = time.perf_counter(), ranks or Ranks(), Path(output)
    sizes = index.rows(events)
    pieces = groups(events, sizes, piece)
    folder = parts_of(output)
    plan = _plan(index, events, config, piece)
    with pieces_folder(folder, plan, ranks, fresh) as starts:
        paths = [folder / f"{k:06d}.h5" for k in range(max(len(pieces), 1))]
        there = ranks.agree(lambda: [path.exists() for path in paths])
        mine = [k for k in ranks.mine(len(paths)) if not there[k]]
        work, events_done, rows_done = record.Work(), 0, 0
        tell = _Progress(progress, sum(int(index.rows(pieces[k]).sum()) for k in mine if pieces))
        for k in mine:
            segments, rows = index.read(pieces[k] if pieces else events)
            hits = simulate(segments, tell.within(len(segments)))
            if hits.truth is not None:  # segments are counted in the whole input
                numbers = torch.from_numpy(rows)
                hits = replace(hits, truth=hits.truth._replace(segment=numbers[hits.truth.segment]))
            energy = float(segments.dE.sum()) if len(segments) else 0.0
            replace(hits, reports={"energy": energy, **hits.reports}).save(paths[k])
            tell.add(len(segments) if k < len(paths) - 1 else tell.total)
            events_done, rows_done = events_done + (len(pieces[k]) if pieces else 0), rows_done + len(segments)
        workers = ranks.gather(work.done(pieces=len(mine), events=events_done, segments=rows_done))

        def finish() -> tuple[int, dict[str, Any]]:
            of = {"pieces": len(paths), "piece": piece, "segments": int(sizes.sum())}
            run = {**of, **record.end(starts, time.perf_counter() - began, workers)}
            count = join_hits(paths, folder / WHOLE, {**config, "run": run})
            os.replace(folder / WHOLE, output)
            remove(folder)
            return count, reports_of(output)

        count, reports = ranks.agree(finish)
    return Done(count, len(paths), sum(there), int(sizes.sum()), time.perf_counter() - began, reports)


class _Progress:
    """Segments done by this rank."""

    def __init__(self, tell: Progress | None, total: int) -> None:
        self.tell, self.total, self.done = tell, total, 0

    def add(self, segments: int) -> None:
        self.done = min(self.total, self.done + segments)
        if self.tell is not None:
            self.tell(self.done, self.total)

    def within(self, segments: int) -> Progress:
        """For the part of a piece that is done."""

        def tell(done: int, of: int) -> None:
            if self.tell is not None and done < of:
                self.tell(min(self.total, self.done + segments * done // of), self.total)

        return tell


def reports_of(path: Path) -> dict[str, Any]:
    """The reports of a file of hits."""
    with open_hdf5(path) as file:
        reports: dict[str, Any] = json.loads(file["reports"].attrs["json"])
        return reports


def _plan(index: Index, events: Array, config: Mapping[str, Any], piece: int) -> dict[str, Any]:
    """What must be the same for a run to go on: by name, so that a refusal can say what differs."""

    def digest(value: Any) -> str:
        return hashlib.blake2b(value, digest_size=16).hexdigest()

    from hepops import _core

    plain = {name: v.to_dict() if hasattr(v, "to_dict") else v for name, v in config.items() if name != "provenance"}
    return {
        "files": {str(p): d for p, d in zip(index.source.files, index.digests, strict=True)},
        "events": digest(events.tobytes()),
        "piece": piece,
        "version of hepops": _core.version,
        **{name: digest(json.dumps(value, sort_keys=True).encode()) for name, value in plain.items()},
    }
