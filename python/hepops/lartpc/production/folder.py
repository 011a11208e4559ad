"""The folder of a run that is under way: its pieces, what it is, and who works there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hepops.core.files import atomic
from hepops.lartpc.hits import read_config

from . import record
from .ranks import Ranks

PIECES = "[0-9]*.h5"
PLAN, LOCK, WHOLE = "run.json", "lock", "whole.h5"


def parts_of(output: Path) -> Path:
    """The folder beside an output."""
    return output.with_name(f"{output.name}.parts")


@contextmanager
def pieces_folder(folder: Path, plan: dict[str, Any], ranks: Ranks, fresh: bool) -> Iterator[record.Starts]:
    """The folder of the pieces, made or found again, locked by rank 0 for as long as it works; the starts so far."""
    lock: Any = None
    known = folder / PLAN

    def enter() -> record.Starts:
        nonlocal lock
        folder.mkdir(exist_ok=True)
        _refuse_foreign(folder)
        lock = record.locked(folder / LOCK)
        if fresh or not known.exists() or not any(folder.glob(PIECES)):
            _clear(folder)
        for path in folder.glob(".*.part"):  # of a start that was killed as it wrote
            path.unlink()
        if known.exists():
            _compare(known, plan)
        else:
            with atomic(known) as part:
                part.write_text(json.dumps(plan, indent=2) + "\n")
        pieces = list(folder.glob(PIECES))
        return record.begin(folder, ranks.size, len(pieces), pieces)

    try:
        yield ranks.agree(enter)
    finally:
        if lock is not None:
            if known.exists() and not any(folder.glob(PIECES)):  # nothing worth keeping
                shutil.rmtree(folder)
            lock.close()


def _refuse_foreign(folder: Path) -> None:
    """What a run did not write is not for it to remove."""
    pieces, own = set(folder.glob(PIECES)), (PLAN, LOCK, WHOLE, record.STARTS)
    for path in folder.iterdir():
        if path.name not in own and not path.name.startswith(".") and path not in pieces:
            raise ValueError(f"{path}: is no file of a run; the pieces need the folder {folder.name} for themselves")


def _clear(folder: Path) -> None:
    """Removes the pieces first: without them, whatever stays is taken for nothing."""
    for path in folder.glob(PIECES):
        path.unlink()
    for path in folder.iterdir():
        if path.name not in (LOCK, record.STARTS):
            path.unlink()
    (folder / record.STARTS).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """The end of a run."""
    _clear(folder)
    shutil.rmtree(folder)


def tidy(output: Path) -> bool:
    """Whether the output was finished by a start that was killed before it had removed its pieces; they go now.

    Raises:
        ValueError: another process is at work there.
    """
    folder = parts_of(output)
    starts = record.read(folder)
    if not starts or not output.is_file():
        return False
    lock = record.locked(folder / LOCK)
    try:
        made = read_config(output).get("run", {}).get("starts", [{}])
        if any(made[0].get(name) != starts[0][name] for name in ("began", "host")):
            return False
        remove(folder)
        return True
    finally:
        lock.close()


def _compare(known: Path, plan: dict[str, Any]) -> None:
    found = json.loads(known.read_text())
    for path, digest in plan["files"].items():
        if path in found.get("files", {}) and found["files"][path] != digest:
            raise ValueError(f"{path}: has changed since the run in {known.parent} began; --overwrite begins anew")
    different = sorted(name for name in found.keys() | plan.keys() if found.get(name) != plan.get(name))
    if different:
        raise ValueError(
            f"{known.parent}: holds an interrupted run with another {', '.join(different)}; "
            "finish that one, or --overwrite begins anew"
        )
