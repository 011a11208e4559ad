"""Packages in Python: verified, loaded, called."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepops import _core

from .adapt import VOXELS
from .package import describe

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
            TypeError, ValueError: another number of tensors, another kind or shape, or a voxel that is there twice.
        """
        given = self._checked(inputs)
        rows = len(given[0])
        if rows == 0:
            return torch.empty(0, *self.description["outputs"][0]["shape"][1:])
        if rows == 1:  # packages take two rows or more: a second one, of another event, is taken off again
            given = [torch.cat([x, x + 1 if i == 0 else x]) for i, x in enumerate(given)]
        try:
            results = self._run(tuple(given))
        except RuntimeError as error:
            if "Expected Eq(" in str(error):
                raise ValueError(f"{given[0].shape[0]} coordinates hold a voxel twice") from None
            raise
        results = [results] if isinstance(results, Tensor) else list(results)
        results = [x[:rows] for x in results] if rows == 1 else results
        return results[0] if len(results) == 1 else tuple(results)

    def _checked(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        expected = self.description["inputs"]
        if len(inputs) != len(expected):
            raise ValueError(f"expected {len(expected)} tensors ({[x['name'] for x in expected]}), got {len(inputs)}")
        return [_check(x, wanted, len(inputs[0])) for x, wanted in zip(inputs, expected, strict=True)]


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

    Args:
        path: A package that `export` wrote.
        sha256: That of the file, as its maker told it: what differs is not loaded. Without it the checksums within show
            damage and careless changes, not a package that somebody else has made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a package, one that was changed (the message names the member), another SHA-256, or one that was
            compiled for more than this processor has.
    """
    description = describe(path)
    if sha256 is not None and sha256.lower() != description["sha256"]:
        raise ValueError(f"{path}: has SHA-256 {description['sha256']}, expected {sha256.lower()}")
    level, ours = description["machine"]["level"], _core.cpu_level()
    if level not in _LEVELS or _LEVELS.index(level) > _LEVELS.index(ours):
        raise ValueError(f"{path}: was compiled for x86-64-{level}, this processor has {ours}")
    return Exported(description, torch._inductor.aoti_load_package(str(path)))
