"""Packages in Python: verified, loaded, called."""

import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepops import _core

from .adapt import VOXELS
from .archive import read_description

_LEVELS = ("generic", "v2", "v3", "v4")


class Exported:
    """A package that was verified and loaded; call it with the tensors of its `inputs`.

    Attributes:
        description: What `describe` says of it.
    """

    def __init__(self, description: dict[str, Any], run: Any) -> None:
        self.description, self._run = description, run

    def __repr__(self) -> str:
        inputs = ", ".join(f"{x['name']} {x['dtype']} {x['shape']}" for x in self.description["inputs"])
        return f"Exported({self.description['model']['class']}: {inputs})"

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        """The outputs; one tensor where there is one.

        Args:
            inputs: As `description["inputs"]` says. Integers and floating-point numbers are converted to its dtypes.

        Raises:
            TypeError, ValueError: another number of tensors, another kind or shape, a voxel that is there
                twice, or one row for a network that mixes rows.
        """
        given = self._checked(inputs)
        rows = len(given[0])
        if rows < 2:
            results = self._few(given, rows)
        else:
            results = self._all(given)
        return results[0] if len(results) == 1 else tuple(results)

    def _all(self, given: list[Tensor]) -> list[Tensor]:
        try:
            results = self._run(tuple(given))
        except RuntimeError as error:
            if "Expected Eq(" in str(error):
                raise ValueError(f"{given[0].shape[0]} coordinates hold a voxel twice") from None
            lines = [line for line in str(error).splitlines() if line.strip()]
            text = re.sub(r"\S*/(?=\w+\.\w+)", "", lines[-1].strip() if lines else "no reason given")[:300]
            name = self.description["model"]["class"]
            raise RuntimeError(f"{name}: the package failed on these {len(given[0])} rows: {text}") from error
        return [results] if isinstance(results, Tensor) else list(results)

    def _few(self, given: list[Tensor], rows: int) -> list[Tensor]:
        """No row, or one: packages take two or more, so that another row is lent to it and taken off again."""
        outputs = self.description["outputs"]
        for x in outputs:
            if x["shape"][:1] != [VOXELS]:
                raise ValueError(f"{x['name']} has no row for each of the input's: two rows or more are needed")
        if rows == 0:
            return [torch.empty(0, *x["shape"][1:], dtype=getattr(torch, x["dtype"])) for x in outputs]
        if self.description["inputs"][0]["name"] == "coordinates":  # a voxel of another event
            pads = [[torch.cat([x, x + 1 if i == 0 else x]) for i, x in enumerate(given)]]
        else:
            pads = [[torch.cat([x, lent]) for x, lent in zip(given, more, strict=True)] for more in
                    (given, [x + 1 for x in given])]  # fmt: skip
        first, *others = [[x[:1] for x in self._all(pad)] for pad in pads]
        for other in others:
            if not all(torch.allclose(a, b, equal_nan=True) for a, b in zip(first, other, strict=True)):
                raise ValueError("the network mixes its rows, and its package takes two or more: got one")
        return first

    def _checked(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        expected = self.description["inputs"]
        if len(inputs) != len(expected):
            raise ValueError(f"expected {len(expected)} tensors ({[x['name'] for x in expected]}), got {len(inputs)}")
        rows = len(inputs[0]) if isinstance(inputs[0], Tensor) and inputs[0].dim() else 0
        return [_check(x, wanted, rows) for x, wanted in zip(inputs, expected, strict=True)]


def _check(x: Tensor, wanted: dict[str, Any], rows: int) -> Tensor:
    name, kind = wanted["name"], getattr(torch, wanted["dtype"])
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.is_floating_point() != kind.is_floating_point or x.is_complex():
        raise TypeError(f"{name} must be {wanted['dtype']}, got {x.dtype}")
    shape = tuple(rows if n == VOXELS else n for n in wanted["shape"])
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
    return x.detach().to("cpu", kind).contiguous()


def load(path: str | Path, *, sha256: str | None = None) -> Exported:
    """Verify a package and load it. Loading executes the machine code that it holds.

    What is verified is what is loaded: the file is copied once into a folder that only this user may enter, and
    nothing but this copy is read; a file that is exchanged meanwhile changes nothing.

    Args:
        path: A package that `export` wrote.
        sha256: That of the file, as its maker told it: what differs is not loaded. Without it the checksums within show
            damage and careless changes, not a package that somebody else has made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a package, one that was changed or lacks a member (the message names file and member), another
            SHA-256, one that was compiled for more than this processor has, or code that torch does not load.

    Warns where the package was made with another version of torch or hepops (the first two numbers).
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with tempfile.TemporaryDirectory(prefix="hepops.") as folder:  # of mode 0700
        copy = Path(folder) / "package.pt2"
        shutil.copyfile(path, copy)
        description = read_description(copy, path)
        if sha256 is not None and sha256.lower() != description["sha256"]:
            raise ValueError(f"{path}: has SHA-256 {description['sha256']}, expected {sha256.lower()}")
        level, ours = description["machine"]["level"], _core.cpu_level()
        if level not in _LEVELS or _LEVELS.index(level) > _LEVELS.index(ours):
            raise ValueError(f"{path}: was compiled for x86-64-{level}, this processor has {ours}")
        return Exported(description, _load_code(copy, str(path), description["versions"]))


def _load_code(copy: Path, name: str, versions: dict[str, str]) -> Any:
    """torch's loader, which unpacks what it needs: the copy is not read again."""
    now = {"hepops": _core.version, "torch": str(torch.__version__)}
    other = ", ".join(f"{n} {versions[n]} (here {now[n]})" for n in now if _release(versions[n]) != _release(now[n]))
    if other:
        warnings.warn(f"hepops: {name}: was made with {other}", stacklevel=3)
    try:
        return torch._inductor.aoti_load_package(str(copy))
    except (RuntimeError, ValueError, OSError) as error:
        text = re.sub(r"\S*aotinductor_\w+/", "", str(error).partition("\n")[0])[:200]  # where torch has unpacked it
        made = ", ".join(f"{n} {versions[n]} (here {now[n]})" for n in now)
        raise ValueError(f"{name}: torch does not load it ({text}); it was made with {made}") from error


def _release(version: str) -> list[str]:
    return version.split(".")[:2]
