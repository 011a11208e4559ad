"""Where the numbers of a run go: a folder with CSV, or TensorBoard's event files; services.py has two more.

All take the same five calls. None needs a service; packages are imported when they are asked for.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hepops.core.files import atomic

METRICS, RUN, ARTEFACTS = "metrics.csv", "run.yaml", "artefacts"
_ESCAPES = {"\\": "\\", "\n": "n", "\r": "r"}  # so that every number is one line


class Logger(Protocol):
    """What a run asks of an adapter; one of your own needs these five and nothing else.

    An exception in `begin` ends the run before it has begun. One in the others is warned of, and the adapter is left
    out from then on. Words are such as UTF-8 can hold; they may be long, and hold any character.
    """

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        """The run's name, and what is known of it: command, environment, when it began."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Flat: numbers, words, or what is printed."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, by names such as "training/loss"."""

    def artefact(self, path: Path) -> None:
        """A file, or a folder with all its files."""

    def end(self, status: str) -> None:
        """ "finished", "failed" or "interrupted"."""


class CSV:
    """A folder with `run.yaml` (who, what, where, with which parameters), `metrics.csv`, and copies of artefacts.

    Args:
        folder: Where. Rows are added to those that are there, and are whole after a kill but for the last one.

    One row and one line per number: seconds, step, name, value. Line ends within a name, and backslashes, are written
    as backslash and letter. What a resumed training repeats stands there twice; `read_metrics` takes the later one. A
    second artefact of the same name from elsewhere gets a number: "fit.2.h5". What an earlier run in the
    folder has recorded is kept as "run.1.yaml", "run.2.yaml" ...
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record: dict[str, Any] = {}
        self.sources: dict[str, Path] = {}  # of artefacts, by the name of the copy

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _set_aside(self.folder / RUN)
        self.record = {"format": "hepops.run", "version": 1, "name": name, **record, "status": "running"}
        self._write()
        _drop_a_cut_line(self.folder / METRICS)
        self.file = open(self.folder / METRICS, "a", newline="", buffering=1, encoding="utf-8")
        self.writer = csv.writer(self.file, lineterminator="\n")
        if self.file.tell() == 0:
            self.writer.writerow(["seconds", "step", "name", "value"])
        self.began = time.monotonic()

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.record.setdefault("parameters", {}).update({name: plain(value) for name, value in values.items()})
        self._write()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        spent = f"{time.monotonic() - self.began:.3f}"
        self.writer.writerows([spent, step, _escape(name), repr(float(value))] for name, value in values.items())

    def artefact(self, path: Path) -> None:
        from hepops.models.digests import of_data

        name = self._name(path)
        place = self.folder / ARTEFACTS / name
        if path.absolute() != place.absolute():
            place.parent.mkdir(exist_ok=True)
            _copy(path, place)
        self.record.setdefault("artefacts", {})[name] = of_data(name, place)
        self._write()

    def end(self, status: str) -> None:
        self.file.close()
        self.record |= {"status": status, "seconds": round(time.monotonic() - self.began, 3)}
        self._write()

    def _name(self, path: Path) -> str:
        """Of the copy: what is written again at the same place replaces it, another file does not."""
        path = path.absolute()
        name, count = path.name, 1
        while self.sources.setdefault(name, path) != path:
            count += 1
            name = f"{path.stem}.{count}{path.suffix}"
        return name

    def _write(self) -> None:
        from hepops.models.text import dump

        with atomic(self.folder / RUN) as part:
            part.write_text(dump(self.record), encoding="utf-8")


def _set_aside(path: Path) -> None:
    """An earlier record gets the next number that is free."""
    if path.exists():
        count = 1
        while (aside := path.with_stem(f"{path.stem}.{count}")).exists():
            count += 1
        os.rename(path, aside)


def _copy(path: Path, place: Path) -> None:
    """Whole or not at all, in place of what an earlier copy has left."""
    if not path.is_dir():
        with atomic(place) as part:
            shutil.copyfile(path, part)
        return
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent))
    try:
        shutil.copytree(path, beside / "copy", ignore_dangling_symlinks=True)
        if place.exists():
            os.rename(place, beside / "before")
        os.rename(beside / "copy", place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _drop_a_cut_line(path: Path) -> None:
    """What a kill has cut is no number: 1.2 may have been 1.25."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _escape(name: str) -> str:
    for character, letter in _ESCAPES.items():
        name = name.replace(character, f"\\{letter}")
    return name


def _unescape(name: str) -> str:
    letters = {letter: character for character, letter in _ESCAPES.items()}
    return re.sub(r"\\(.)", lambda found: letters.get(found[1], found[0]), name)


class TensorBoard:
    """Event files for `tensorboard --logdir`; parameters and artefacts as text. Numbers are in float32.

    Args:
        folder: Of the event files. They are written out every ten seconds: a kill loses no more.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard logs need tensorboard: pip install hepops[tensorboard]") from None
        self.folder, self._make = Path(folder), SummaryWriter

    def begin(self, name: str, record: Mapping[str, Any]) -> None:
        self.writer: Any = self._make(str(self.folder), flush_secs=10)
        self._text("run", {"name": name, **flat(record)})

    def parameters(self, values: Mapping[str, Any]) -> None:
        self._text("parameters", values)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def artefact(self, path: Path) -> None:
        from hepops.models.digests import of_data

        self._text(f"artefacts/{path.name}", {"path": str(path.absolute()), "sha256": of_data(path.name, path)})

    def end(self, status: str) -> None:
        self._text("status", {"status": status})
        self.writer.close()

    def _text(self, tag: str, values: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items())
        self.writer.add_text(tag, f"| | |\n|---|---|\n{rows}")


def _cell(value: Any) -> str:
    """A cell of a table in Markdown."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>")


def read_metrics(folder: str | Path) -> dict[str, dict[int, float]]:
    """The numbers of a run's `metrics.csv`: by name, then by step. A row that a kill has cut is left out.

    Raises:
        FileNotFoundError: no such run.
    """
    found: dict[str, dict[int, float]] = {}
    with open(Path(folder) / METRICS, newline="\n", encoding="utf-8", errors="replace") as file:
        for line in file:  # each by itself: a quote that a kill has left open ends with its line
            if not line.endswith("\n"):
                continue  # cut, perhaps within the number
            try:
                ((_, step, name, value),) = csv.reader([line])
                at, number = int(step), float(value)
            except (ValueError, csv.Error):  # the head, or a row that was cut
                continue
            found.setdefault(_unescape(name), {})[at] = number
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings within mappings by names such as "environment/git/revision"."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}/")
        else:
            out[words(f"{prefix}{name}")] = words(value) if isinstance(value, str) else value
    return out


def words(text: str) -> str:
    """Such as UTF-8 can hold: a name of a file in another encoding has half characters."""
    return text.encode("utf-8", "backslashreplace").decode()


def plain(value: Any) -> Any:
    """Numbers, words and lists of them, as YAML and JSON keep them; else what is printed."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return words(str(value))
    for kind in (bool, int, float, str):  # YAML writes these, but none derived from them, such as numpy's float64
        if isinstance(value, kind):
            value = kind(value) if type(value) is not kind else value
            return words(value) if isinstance(value, str) else value
    if value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return words(str(value))
