"""What differs between two outputs of a run, bit by bit; what says when, where and by which command is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# When, where, by whom and how long: not what came of it.
TRANSIENT = {
    "provenance", "run", "began", "created", "code", "environment", "finished", "seconds", "spent", "host", "starts",
    "command", "directory", "status", "hepops",
}  # fmt: skip
SKIPPED = {".png", ".pdf", ".svg"}  # pictures of what is compared, stamped by the library that drew them
LEFT_OUT = {"SHA256SUMS", "lock", "metrics.csv", "run.yaml"}  # follows from the others, or holds clocks


@dataclass
class Comparison:
    """Differences in words, each with the name of what differs, and how much was compared."""

    differences: list[str] = field(default_factory=list)
    files: int = 0
    parts: int = 0  # tensors, datasets, entries
    notes: list[str] = field(default_factory=list)  # of versions and machine that differ

    @property
    def same(self) -> bool:
        return not self.differences and self.parts > 0


def compare(old: str | Path, new: str | Path) -> Comparison:
    """Compare two files, or all files of two folders: tensors, datasets and entries one by one, other files by bytes.

    Args:
        old, new: Both files or both folders. Pictures, hidden files and clocks are not compared.

    Raises:
        FileNotFoundError: one is not there.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     a, b = pathlib.Path(folder, "a.json"), pathlib.Path(folder, "b.json")
        ...     _ = a.write_text('{"x": 1, "began": 3}'), b.write_text('{"x": 2, "began": 4}')
        ...     hepops.runs.compare(a, b).differences
        ['a.json: x: 1 before, 2 now']
    """
    old, new = Path(old), Path(new)
    for path in (old, new):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    found = Comparison()
    if old.is_file() or new.is_file():
        _files(old, new, old.name, found)
        return found
    here, there = ({p.relative_to(f).as_posix(): p for p in _kept(f)} for f in (old, new))
    for name in sorted(here.keys() | there.keys()):
        if name not in there or name not in here:
            found.differences.append(f"{name}: only {'before' if name in here else 'now'}")
        else:
            _files(here[name], there[name], name, found)
    return found


def _kept(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix not in SKIPPED and path.name not in LEFT_OUT:
            yield path


def _files(old: Path, new: Path, name: str, found: Comparison) -> None:
    found.files += 1
    read = _READERS.get(old.suffix)
    try:
        before, now = (dict(read(path)) if read else {"": path.read_bytes()} for path in (old, new))
    except Exception as error:
        found.differences.append(f"{name}: cannot be read ({' '.join(str(error).split())[:160]})")
        return
    for part in [*before, *(p for p in now if p not in before)]:
        found.parts += 1
        where = f"{name}: {part}" if part else name
        if part not in now or part not in before:
            found.differences.append(f"{where}: only {'before' if part in before else 'now'}")
        elif (said := _differ(before[part], now[part])) is not None:
            found.differences.append(f"{where}: {said}")


def _differ(old: Any, new: Any) -> str | None:
    """None where two values have the same bits, else how they differ."""
    import numpy as np

    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if old.dtype != new.dtype or old.shape != new.shape:
            return f"{old.dtype} {old.shape} before, {new.dtype} {new.shape} now"
        if old.tobytes() == new.tobytes():
            return None
        return _how_far(old, new)
    if isinstance(old, bytes):
        return None if old == new else f"{len(old)} and {len(new)} bytes that differ"
    same = old == new or (old != old and new != new)
    return None if same and type(old) is type(new) else f"{old!r:.60} before, {new!r:.60} now"


def _how_far(old: Any, new: Any) -> str:
    import numpy as np

    if old.dtype.kind not in "fiu":
        return "differs"
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(old.astype(np.float64) - new.astype(np.float64))
    count = int((~(old == new) & ~((old != old) & (new != new))).sum())
    return f"{count} of {old.size} numbers differ, by up to {np.nanmax(far):.3g}" if count else "differs in its bits"


def _hdf5(path: Path) -> Iterator[tuple[str, Any]]:
    import numpy as np

    from hepops.core.files import open_hdf5

    found: list[tuple[str, Any]] = []

    def visit(name: str, thing: Any) -> None:
        for key, value in thing.attrs.items():
            found.extend(_attribute(f"{name}.{key}" if name else key, key, value))
        if hasattr(thing, "shape"):
            data = thing[()]
            if isinstance(data, (bytes, str)):
                found.extend(_attribute(name, name.rpartition("/")[2], data))
            else:
                found.append((name, np.asarray(data) if data.dtype.kind != "O" else data.tolist()))

    with open_hdf5(path) as file:
        visit("", file)
        file.visititems(visit)
    yield from found


def _attribute(name: str, key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if key in TRANSIENT:
        return
    value = value.decode() if isinstance(value, bytes) else value
    if isinstance(value, str):
        try:
            yield from _flat(json.loads(value), name)
            return
        except ValueError:
            pass
    yield name, value.tolist() if hasattr(value, "tolist") else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of JSON by their path, transient ones left out."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key not in TRANSIENT:
                yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _flat(part, f"{name}[{i}]")
    else:
        yield name, value


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    return _flat(json.loads(path.read_text()))


def _yaml(path: Path) -> Iterator[tuple[str, Any]]:
    from hepops.models.text import parse

    return _flat(parse(path.read_bytes(), path.name))


def _array(x: torch.Tensor) -> Any:
    import torch

    data = x.detach().cpu().contiguous()
    return data.view(torch.uint8).numpy() if data.dtype in (torch.bfloat16,) else data.numpy()


def _safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors.torch import load_file

    for name, x in sorted(load_file(path).items()):
        yield name, _array(x)


def _checkpoint(path: Path) -> Iterator[tuple[str, Any]]:
    import torch

    from hepops.core.tensor_files import read_tensors

    def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, torch.Tensor):
            yield name, _array(value)
        elif isinstance(value, Mapping):
            for key, part in value.items():
                if key not in TRANSIENT:
                    yield from leaves(part, f"{name}.{key}" if name else str(key))
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                yield from leaves(part, f"{name}[{i}]")
        else:
            yield name, value

    return leaves(read_tensors(path), "")


_READERS = {
    ".h5": _hdf5, ".hdf5": _hdf5, ".json": _json, ".yaml": _yaml, ".safetensors": _safetensors, ".pt": _checkpoint
}  # fmt: skip
