"""What a run has measured, and its file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepops.core.files import atomic

from .chains import Chains

VERSION = 1
HUGE = 1000.0  # |dH| from which a trajectory counts as diverged: it would be accepted once in e^1000


class Estimate(NamedTuple):
    """A mean and its standard error, float64."""

    mean: Tensor
    error: Tensor


@dataclass
class Run:
    """The record of a run.

    Attributes:
        chains: Where the chains stand; hand them to `run` to go on.
        history: Of every update after thermalisation, shape (n, B): "accepted", for HMC "dH" as well.
        observables: Of every `every`-th update, by name: shape (measurements, B, ...), float64.
        steps: The step number of every measurement.
        thermalisation: Like `history`, of the updates before.
        settings: The sampler's, tuned ones included (`step_size`).
    """

    chains: Chains
    history: dict[str, Tensor]
    observables: dict[str, Tensor]
    steps: list[int]
    thermalisation: dict[str, Tensor]
    settings: dict[str, Any]

    @property
    def acceptance(self) -> float:
        """The share of proposals that were accepted; NaN where there were none."""
        accepted = self.history.get("accepted")
        return math.nan if accepted is None or not accepted.numel() else float(accepted.double().mean())

    @property
    def dH(self) -> Tensor:
        """The change of H of every trajectory after thermalisation, shape (n, B), float64: HMC alone has it.

        Raises:
            KeyError: another sampler, or no update after thermalisation.
        """
        return _found("dH", self.history)

    @property
    def diverged(self) -> int:
        """Trajectories whose dH is NaN or above 1000 in size: all were rejected."""
        return 0 if "dH" not in self.history else int((~(self.dH.abs() < HUGE)).sum())

    def mean(self, name: str) -> Estimate:
        """The mean of an observable over chains and measurements, with an error that knows its autocorrelation.

        With 16 chains or more: the spread of the chains' own means, which are independent. With fewer: the largest
        error of bins of 1, 2, 4, ... measurements, as long as there are 16 of them in all.

        Raises:
            KeyError: no such observable.
            ValueError: fewer than two numbers to compare.
        """
        x = _found(name, self.observables)
        M, B = x.shape[:2]
        if B >= 16:
            means = x.mean(0)
            return Estimate(means.mean(0), means.std(0) / math.sqrt(B))
        if M * B < 2:
            raise ValueError(f"mean: {M} measurement of {B} chain has no error")
        errors = []
        size = 1
        while size == 1 or (M // size) * B >= 16:
            bins = x[: M // size * size].unflatten(0, (M // size, size)).mean(1).flatten(0, 1)
            errors.append(bins.std(0) / math.sqrt(len(bins)))
            size *= 2
        return Estimate(x.flatten(0, 1).mean(0), torch.stack(errors).amax(0))


def _found(name: str, tables: dict[str, Tensor]) -> Tensor:
    if name not in tables:
        raise KeyError(f"{name!r} was not recorded; there are: {', '.join(tables) or 'none'}")
    return tables[name]


class Record:
    """What grows as a run goes on, without a look at it: lists of tables (k, B), a row or more each."""

    def __init__(self) -> None:
        self.done = 0  # updates of this run, thermalisation included
        self.thermalisation: dict[str, list[Tensor]] = {}
        self.history: dict[str, list[Tensor]] = {}
        self.observables: dict[str, list[Tensor]] = {}
        self.steps: list[int] = []

    def tables(self) -> dict[str, dict[str, Tensor]]:
        return {
            kind: {name: stacked(rows) for name, rows in getattr(self, kind).items() if rows}
            for kind in ("thermalisation", "history", "observables")
        }


def stacked(parts: list[Tensor]) -> Tensor:
    """One table of parts (k, B); the list is left with it alone, so that the next time is cheap."""
    parts[:] = [torch.cat(parts)]
    return parts[0]


def write(path: Path, mark: dict[str, Any], chains: Chains, record: Record, settings: dict[str, Any]) -> None:
    """The whole state as safetensors, in one step: a kill leaves the old file or the new one."""
    from safetensors.torch import save_file

    tensors = {"field": chains.field, **{f"state/{k}": v for k, v in chains.state.items()}}
    for kind, tables in record.tables().items():
        tensors |= {f"{kind}/{name}": table for name, table in tables.items()}
    head = {
        "version": VERSION,
        "mark": mark,
        "seed": chains.seed,
        "first": chains.first,
        "step": chains.step,
        "done": record.done,
        "steps": record.steps,
        "settings": settings,
        "complex": [name for name, t in tensors.items() if t.is_complex()],
    }
    plain = {k: torch.view_as_real(t) if t.is_complex() else t for k, t in tensors.items()}
    with atomic(path) as part:
        save_file({k: t.detach().cpu().contiguous() for k, t in plain.items()}, part, {"hepops": json.dumps(head)})


def read(path: Path, marks: list[dict[str, Any]], device: torch.device) -> tuple[Chains, Record, dict[str, Any]]:
    """What `write` wrote, for a run of one of the marks, of which the first becomes the one of the file.

    Raises:
        ValueError: no file of a run, or of another run: the message says in what it differs from the first mark.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            head = json.loads((file.metadata() or {})["hepops"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise ValueError(f"{path}: not a readable checkpoint of a run ({error})") from None
    if head["version"] != VERSION:
        raise ValueError(f"{path}: has version {head['version']}, this program reads {VERSION}")
    theirs, (mark, *others) = head["mark"], json.loads(json.dumps(marks))
    other = [k for k in {**theirs, **mark} if theirs.get(k) != mark.get(k)]
    marks[0] = theirs
    if other and theirs not in others:
        text = ", ".join(f"{k} ({theirs.get(k)}, not {mark.get(k)})" for k in other)
        raise ValueError(f"{path}: belongs to another run, it differs in {text}")
    whole = {k: torch.view_as_complex(t) if k in head["complex"] else t for k, t in tensors.items()}
    whole = {k: t.to(device) for k, t in whole.items()}
    state = {k.removeprefix("state/"): t for k, t in whole.items() if k.startswith("state/")}
    chains = Chains(whole["field"], head["seed"], head["first"], head["step"], state)
    record = Record()
    record.done, record.steps = head["done"], head["steps"]
    for kind in ("thermalisation", "history", "observables"):
        prefix = f"{kind}/"
        setattr(record, kind, {k.removeprefix(prefix): [t] for k, t in whole.items() if k.startswith(prefix)})
    return chains, record, head["settings"]
