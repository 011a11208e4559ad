"""What a file was made by: versions and the command line, stored in the file itself."""

import json
import platform
from contextvars import ContextVar
from pathlib import Path
from typing import Any

COMMAND: ContextVar[str] = ContextVar("command", default="hepops")


def provenance() -> dict[str, Any]:
    """Command line and versions, for JSON."""
    import torch

    from hepops import _core

    return {
        "command": COMMAND.get(),
        "hepops": _core.version,
        "cpu_level": _core.cpu_level(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not there."""
    from hepops.core.files import atomic

    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, an output that exists already or whose folder does not."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, the output must be a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: exists already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
