"""SHA-256 of files, tensors and of whatever a model was trained on, and the list of them that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


def of_bytes(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def of_file(path: str | Path) -> str:
    """Of a file, a part at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_tensor(x: Tensor) -> str:
    """Of dtype, shape and bits, wherever the tensor is."""
    import torch

    data = x.detach().cpu().contiguous()
    head = f"{str(data.dtype).removeprefix('torch.')} {list(data.shape)} ".encode()
    return of_bytes(head + data.reshape(-1).view(torch.uint8).numpy().tobytes())


def of_data(name: str, thing: Any) -> str:
    """Of a file, a folder (its files, by name), a tensor, an array; or a SHA-256 as it is.

    Raises:
        FileNotFoundError: no such file.
        TypeError: none of these.
    """
    import numpy as np
    import torch

    if isinstance(thing, str) and re.fullmatch(r"[0-9a-f]{64}", thing):
        return thing
    if isinstance(thing, (str, Path)):
        path = Path(thing)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            return of_bytes("".join(f"{of_file(p)}  {p.relative_to(path).as_posix()}\n" for p in files).encode())
        if not path.is_file():
            raise FileNotFoundError(f"data {name}: {path}: no such file")
        return of_file(path)
    if isinstance(thing, np.ndarray) or np.isscalar(thing):
        thing = torch.from_numpy(np.ascontiguousarray(thing))
    if isinstance(thing, torch.Tensor):
        return of_tensor(thing)
    raise TypeError(
        f"data {name} must be a file, a folder, a tensor, an array or a SHA-256, got {type(thing).__name__}"
    )


def check_name(name: str, where: str) -> str:
    """A plain name of a file: no folder, nothing hidden.

    Raises:
        ValueError: any other.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{where}: {name!r} is no plain name of a file; names that lead elsewhere are refused")
    return name


def write_sums(sums: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def read_sums(text: bytes, where: str) -> dict[str, str]:
    """Name to digest.

    Raises:
        ValueError: a line that is none, a name twice, or one that leads elsewhere.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{where}: line {number} is no checksum: {line[:80]!r}")
        name = check_name(found[2], f"{where}: line {number}")
        if name in sums:
            raise ValueError(f"{where}: line {number}: {name} stands there twice")
        sums[name] = found[1]
    return sums
