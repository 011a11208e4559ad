"""Where a fit stands: everything that its next iteration depends on, written after every iteration.

The file is written beside and renamed, so that at any moment there is a whole one; floats are written with all their
digits. A fit that is started again with the same folder and the same input goes on from there and ends with the same
bits as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepops.core.files import atomic

VERSION = 3
NAME = "state.json"


@dataclass(frozen=True)
class Step:
    """One iteration: what was tried and what came of it."""

    start: int
    stage: int
    iteration: int
    accepted: bool
    value: float  # of the objective, before the step
    relative_step: float  # largest change of a parameter, relative to its value
    damping: float  # Levenberg-Marquardt: lambda; Adam: the learning rate
    gain: float  # actual over predicted decrease; Adam: 0
    parameters: tuple[float, ...]  # after the step, physical
    report: dict[str, int]


@dataclass(frozen=True)
class Finish:
    """How one start ended."""

    start: tuple[float, ...]  # physical
    u: tuple[float, ...]
    parameters: tuple[float, ...]
    value: float
    converged: bool
    message: str
    iterations: int


@dataclass
class State:
    """The whole state of a fit; plain numbers only."""

    fingerprint: dict[str, str]
    starts: list[list[float]]  # physical values at which each start begins
    u: list[float]
    start: int = 0
    stage: int = 0
    iteration: int = 0  # of this start
    in_stage: int = 0
    damping: float = 1e-3
    growth: float = 2.0
    diagonal: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)  # where a likelihood's metric was made; empty: it is to be made
    pairs: list[list[list[float]]] = field(default_factory=list)  # accepted steps since then, and what they changed
    moments: dict[str, list[float]] = field(default_factory=dict)  # Adam's
    ended: str = ""  # why this start is done, once it is
    converged: bool = False
    trace: list[Step] = field(default_factory=list)
    finished: list[Finish] = field(default_factory=list)

    @property
    def point(self) -> Tensor:
        return torch.tensor(self.u, dtype=torch.float64)


class Store:
    """Reads and writes the state in a folder; without one it does nothing."""

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, state: State) -> None:
        if self.folder is not None:
            text = json.dumps({"version": VERSION, **dataclasses.asdict(state)})
            with atomic(self.folder / NAME) as path:
                path.write_text(text)

    def read(self, fingerprint: dict[str, str]) -> State | None:
        """The state of the same fit, None if there is none.

        Raises:
            ValueError: the folder holds another fit, or something else.
        """
        if self.folder is None or not (self.folder / NAME).exists():
            return None
        path = self.folder / NAME
        try:
            content = json.loads(path.read_text())
            version = content.pop("version")
            content["trace"] = [Step(**tuples(step)) for step in content["trace"]]
            content["finished"] = [Finish(**tuples(finish)) for finish in content["finished"]]
            state = State(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"checkpoint: {path} is not the state of a fit ({error})") from None
        if version != VERSION:
            raise ValueError(f"checkpoint: {path} has version {version}, this program reads {VERSION}")
        different = sorted(
            k for k in {*fingerprint, *state.fingerprint} if fingerprint.get(k) != state.fingerprint.get(k)
        )
        if different:
            raise ValueError(f"checkpoint: {path} belongs to another fit, different in: {', '.join(different)}")
        return state


def tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def digest(*things: object) -> str:
    """A hash of tensors (by value and dtype), of what holds them, and of whatever else by its repr."""
    hasher = hashlib.sha256()

    def take(thing: object) -> None:
        if isinstance(thing, Tensor):
            data = thing.detach().cpu().contiguous()
            hasher.update(f"{data.dtype}{tuple(data.shape)}".encode())
            hasher.update(data.numpy().tobytes())
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            take([(f.name, getattr(thing, f.name)) for f in dataclasses.fields(thing)])
        elif isinstance(thing, dict):
            take([*thing.items()])
        elif isinstance(thing, (list, tuple)):
            hasher.update(f"[{len(thing)}]".encode())
            for part in thing:
                take(part)
        else:
            hasher.update(describe(thing).encode() + b";")

    take(things)
    return hasher.hexdigest()[:32]


def describe(thing: object) -> str:
    """A repr without memory addresses."""
    plain = type(thing).__repr__ is object.__repr__
    return f"{type(thing).__module__}.{type(thing).__qualname__}" if plain else repr(thing)
