"""What a file was made by: versions and the command line, stored in the file itself."""

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

COMMAND: ContextVar[str] = ContextVar("command", default="hepops")


def provenance() -> dict[str, Any]:
    """Command line and versions, for JSON."""
    import torch

    from hepops import _core
    from hepops.core import libraries
    from hepops.core.seeds import last_seed
    from hepops.runs.environment import processor

    made = {
        "command": COMMAND.get(),
        "directory": os.getcwd(),
        "inputs": inputs(COMMAND.get()),
        "hepops": _core.version,
        "cpu_level": libraries.cpu_level(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
    }
    seed = last_seed()
    return made if seed is None else {**made, "seed_everything": seed}


def inputs(command: str) -> dict[str, str]:
    """SHA-256 of every file that a command names, but for its output."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for before, word in zip(["", *words], words, strict=False):
        name = word.partition("=")[2] if word.startswith("--") else word
        output = before in ("-o", "--output") or word.startswith(("-o", "--output"))
        if name and not output and os.path.isfile(name):
            found[name] = sha256(name)
    return found


def sha256(path: str | Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not there."""
    from hepops.core.files import atomic

    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def check_output(path: Path, overwrite: bool, inputs: Iterable[Path | str | None] = ()) -> None:
    """Refuse, before any work, an output that exists already, is one of the inputs, or whose folder is not there."""
    check_apart(path, inputs)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, the output must be a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder into which nothing can be written."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: the folder is read-only, or not ours to write into")


def check_apart(path: Path, inputs: Iterable[Path | str | None]) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link."""
    if not path.is_file():
        return
    for given in inputs:
        if given is not None and os.path.isfile(given) and os.path.samefile(path, given):
            raise ValueError(f"{path}: is the input {given}; the output must be another file")
