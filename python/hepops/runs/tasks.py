"""Trainings from a configuration that is saved before they begin, so that they can be done again.

    configuration.yaml     task, arguments, the model as it was made, seed, threads, environment
    *.safetensors          initial weights, and tensors among the arguments (the data)
    SHA256SUMS             of these
    model/                 what was learned, as `hepops.save` writes it
    history.csv            numbers of every step, clocks left out

What runs is what is read from the folder: nothing reaches a training that its configuration does not hold.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepops.core.files import atomic

from .compare import Comparison, compare
from .environment import differences, environment

if TYPE_CHECKING:
    from torch import nn

CONFIGURATION, INITIAL, ARGUMENTS, HISTORY, MODEL = (
    "configuration.yaml", "initial.safetensors", "arguments.safetensors", "history.csv", "model"
)  # fmt: skip
FORMAT, VERSION = "hepops.configuration", 1

# What a configuration may name: a function of (model, ...) that trains it in place and returns a `Training`.
TASKS = ("hepops.flows.fit", "hepops.lattice.flows.train")


def start(folder: str | Path, task: str, model: nn.Module, *positional: Any, seed: int, **arguments: Any) -> Any:
    """Save a configuration, and do what it says.

    Args:
        folder: Of the run, new; or of the same run, which was interrupted and goes on.
        task: "hepops.flows.fit" or "hepops.lattice.flows.train".
        model: A flow of hepops; it is trained in place.
        positional, arguments: Of the task: data, theories, numbers. No functions: a file could not give them back.
        seed: Of the task; it must be given.

    Returns:
        What the task returns, a `Training`.

    Raises:
        ValueError: another task, or a folder that holds another run or a finished one.
        TypeError: something that a configuration cannot hold, named by where it stands.

    Deterministic: `repeat` gives the same bits on the same kind of machine.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow = hepops.flows.nsf(2, layers=2, hidden=(8,))
        ...     data = torch.randn(200, 2)
        ...     training = hepops.runs.start(f"{folder}/a", "hepops.flows.fit", flow, data, steps=3, batch=50, seed=1)
        ...     again = hepops.runs.repeat(f"{folder}/a", f"{folder}/b")
        >>> again.same, again.differences
        (True, [])
    """
    import torch

    from hepops.models import construction, digests, tensors, text

    folder = Path(folder)
    if task not in TASKS:
        raise ValueError(f"task must be of {', '.join(TASKS)}, got {task!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    encoder = construction.Encoder()
    said = {
        "format": FORMAT,
        "version": VERSION,
        "task": task,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "model": encoder.encode(model, "model"),
        "positional": [encoder.encode(thing, f"positional[{i}]") for i, thing in enumerate(positional)],
        "arguments": {name: encoder.encode(thing, name) for name, thing in arguments.items()},
    }
    said["model"] |= {"buffers": buffers} if (buffers := _buffers(model, said["model"], encoder.tensors)) else {}
    files = {INITIAL: tensors.encode(model.state_dict())}
    if encoder.tensors:
        files[ARGUMENTS] = tensors.encode(encoder.tensors)
    said["files"] = {name: digests.of_bytes(content) for name, content in files.items()}
    _settle(folder, said, {**files, CONFIGURATION: text.dump({**said, "environment": environment()}).encode()})
    training, trained = _execute(folder)
    model.load_state_dict(trained.state_dict())
    return training


def _buffers(model: nn.Module, tree: Any, arguments: Mapping[str, Any]) -> dict[str, str]:
    from hepops.models import construction

    made = construction.make(tree, arguments)
    construction.fill(made, model.state_dict())
    return construction.other_buffers(model, made)


def _settle(folder: Path, said: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """The folder of the run: written anew, or one of the same run that is not finished."""
    from hepops.models import digests

    if (folder / CONFIGURATION).exists():
        if (folder / MODEL).exists():
            raise ValueError(f"{folder}: holds a finished run; hepops.runs.repeat does it again elsewhere")
        there = {name: value for name, value in read(folder)[0].items() if name != "environment"}
        if other := [name for name in said if there.get(name) != said[name]]:
            raise ValueError(f"{folder}: holds another run, it differs in {', '.join(other)}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: holds other files; give a folder of its own")
    sums = digests.write_sums({name: digests.of_bytes(content) for name, content in files.items()})
    for name, content in {**files, digests.SUMS: sums.encode()}.items():
        with atomic(folder / name) as part:
            part.write_bytes(content)


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The configuration of a run, its initial weights, and tensors among its arguments; verified.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no configuration, or a file that was changed.
    """
    from hepops.models import digests, tensors, text

    folder = Path(folder)
    where = folder / CONFIGURATION
    if not where.is_file():
        raise FileNotFoundError(f"{where}: no such file")
    content = where.read_bytes()
    sums = digests.read_sums((folder / digests.SUMS).read_bytes(), str(folder / digests.SUMS))
    if sums.get(CONFIGURATION) != digests.of_bytes(content):
        raise ValueError(
            f"{where}: was changed: SHA-256 expected {sums.get(CONFIGURATION)}, got {digests.of_bytes(content)}"
        )
    said = text.parse(content, str(where))
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("version") != VERSION:
        raise ValueError(f"{where}: not the configuration of a run, of version {VERSION}")
    if said.get("task") not in TASKS:
        raise ValueError(f"{where}: task must be of {', '.join(TASKS)}, got {said.get('task')!r}")
    found = {}
    for name, expected in said["files"].items():
        part = (folder / digests.check_name(name, str(where))).read_bytes()
        if digests.of_bytes(part) != expected:
            raise ValueError(f"{folder / name}: was changed: SHA-256 expected {expected}, got {digests.of_bytes(part)}")
        found[name] = tensors.decode(part, str(folder / name))
    return said, found.get(INITIAL, {}), found.get(ARGUMENTS, {})


def _execute(folder: Path) -> tuple[Any, Any]:
    """Do what the configuration of a folder says; what came of it stands beside."""
    import torch

    from hepops.models import construction, save

    said, initial, tensors = read(folder)
    decoder = construction.Decoder(tensors)
    model = construction.make(said["model"], tensors)
    construction.fill(model, initial)
    positional = [decoder.decode(node) for node in said["positional"]]
    arguments = {name: decoder.decode(node) for name, node in said["arguments"].items()}
    module, _, name = said["task"].rpartition(".")
    before = torch.get_num_threads()
    torch.set_num_threads(said["threads"])  # their number may decide the order of torch's own sums
    try:
        training = getattr(importlib.import_module(module), name)(
            model, *positional, seed=said["seed"], folder=folder / "checkpoint", **arguments
        )
    finally:
        torch.set_num_threads(before)
    with atomic(folder / HISTORY) as part:
        part.write_text(_history(training))
    metrics = {"step": training.step, "best_step": training.best_step, "best_validation": training.best_validation}
    save(model, folder / MODEL, seed=said["seed"], metrics=metrics, data=said["files"])
    return training, model


def _history(training: Any) -> str:
    """Every number with all its digits; no clocks."""
    names = ["step", *(name for name in training.history.columns if name not in ("step", "seconds"))]
    validation = dict(training.history.validation)
    rows = zip(*(training.history[name] for name in names), strict=True)
    lines = [
        ",".join([str(int(step)), *map(repr, map(float, row)), str(validation.get(int(step), ""))])
        for step, *row in rows
    ]
    return "\n".join([",".join([*names, "validation"]), *lines]) + "\n"


def repeat(run: str | Path, folder: str | Path) -> Comparison:
    """Do a saved run again, from its configuration alone, and compare what comes of it bit by bit.

    Args:
        run: The folder of a finished run that `start` did.
        folder: A new one.

    Returns:
        `Comparison`; its `notes` say which versions and what of the machine differ.

    Raises:
        FileNotFoundError, ValueError: no run, or one whose files were changed.
    """
    run, folder = Path(run), Path(folder)
    said, _, _ = read(run)
    if not (run / MODEL).is_dir():
        raise ValueError(f"{run}: holds a run that is not finished")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: holds other files; give a folder of its own")
    from hepops.models.digests import SUMS

    for name in (*said["files"], CONFIGURATION, SUMS):
        with atomic(folder / name) as part:
            part.write_bytes((run / name).read_bytes())
    _execute(folder)
    found = compare(run, folder)
    found.notes = differences(said.get("environment", {}), environment())
    return found
