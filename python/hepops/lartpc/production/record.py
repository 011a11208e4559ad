"""The record of a run: its starts, when and where each was made, by which version, and how long it lasted."""

from __future__ import annotations

import fcntl
import json
import platform
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hepops.core.files import atomic

Starts = list[dict[str, Any]]
STARTS = "starts.json"


def begin(folder: Path, processes: int, found: int, results: Iterable[Path]) -> Starts:
    """Add a start to the record of a folder.

    Args:
        folder: Where the record stands.
        processes: That share the run.
        found: Pieces or iterations that earlier starts had done.
        results: Files of what is done. A start that was killed lasted until the last of them was written, at least.

    Returns:
        All starts, this one last; without "seconds" until `end`.
    """
    from hepops import _core
    from hepops.core import libraries

    starts = read(folder)
    if starts and "seconds" not in starts[-1]:
        began = datetime.fromisoformat(starts[-1]["began"]).timestamp()
        last = max([began, *(path.stat().st_mtime for path in results)])
        starts[-1] |= {"seconds": round(last - began, 3), "interrupted": True}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    where = {
        "host": platform.node(),
        "processes": processes,
        "hepops": _core.version,
        "cpu_level": libraries.cpu_level(),
    }
    starts.append({"began": now, **where, "found": found})
    with atomic(folder / STARTS) as part:
        part.write_text(json.dumps(starts, indent=2) + "\n")
    return starts


class Work:
    """What one process of a start did: how long it worked, and how much of that it computed rather than waited."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def done(self, **counts: int) -> dict[str, Any]:
        """Since it was made, for JSON: `counts`, seconds, and seconds of a processor (of all threads together)."""
        wall, processor = time.perf_counter() - self._began, time.process_time() - self._used
        return {**counts, "seconds": round(wall, 3), "processor": round(processor, 3)}


def end(starts: Starts, seconds: float, workers: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The whole record, for JSON: starts, seconds of all of them, and the time of the end (UTC).

    Args:
        starts: Of `begin`.
        seconds: That this start lasted.
        workers: What each of its processes did, see `Work`.
    """
    starts[-1]["seconds"] = round(seconds, 3)
    if workers is not None:
        starts[-1]["workers"] = workers
    total = round(sum(start["seconds"] for start in starts), 3)
    return {"starts": starts, "seconds": total, "finished": datetime.now(UTC).isoformat(timespec="milliseconds")}


def read(folder: Path) -> Starts:
    """The starts so far; none where there is no record, or half a one."""
    try:
        starts: Starts = json.loads((folder / STARTS).read_text())
    except (FileNotFoundError, ValueError):
        return []
    return starts


def locked(path: Path) -> Any:
    """The open file, locked until it is closed or the process dies, however it dies.

    Raises:
        ValueError: another process holds it.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"{path.parent}: another process is at work there") from None
    except OSError:  # a file system without locks: better unlocked than not at all
        pass
    return file
