"""What is written for each kind of model, and how it is read again.

* constructed: modules that hepops can make from a configuration. Weights in `model.safetensors`, tensors among the
  arguments in `arguments.safetensors`.
* record: the immutable records of `hepops.lartpc` (`Detector`, `Parameters`): their content stands in the card.
* own: classes that have files of their own, which stay as they are and are read by the class itself.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepops.core import constructors

from . import changes, construction
from .tensors import decode, encode

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, ARGUMENTS = "model.safetensors", "arguments.safetensors"
Make = Callable[..., Any]


@dataclass(frozen=True)
class Own:
    """A class with files of its own."""

    module: str
    name: str
    files: tuple[str, ...]
    one: bool = False  # save and load take the one file, not its folder
    options: tuple[str, ...] = ()  # of its `load`
    more: bool = False  # its `save` takes further entries for its configuration

    @property
    def cls(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)


OWN = {
    f"{own.module}.{own.name}": own
    for own in (
        Own("hepops.segmentation", "Segmenter", (WEIGHTS, "config.json"), more=True),
        Own("hepops.flows", "Density", ("density.safetensors",), one=True, options=("flow", "device")),
        Own("hepops.flows.inference", "NeuralPosterior", ("posterior.safetensors", "posterior.json"),
            options=("embedding", "flow")),
        Own("hepops.flows.inference", "NeuralLikelihood", ("likelihood.safetensors", "likelihood.json"),
            options=("flow",)),
        Own("hepops.flows", "Integrator", ("integrator.safetensors",), one=True, options=(
            "f", "channels", "candidates", "backend", "invalid", "importance", "batch", "dtype", "device", "group")),
        Own("hepops.lartpc.fit", "FitResult", ("result.h5",), one=True),
    )
}  # fmt: skip


@dataclass
class Written:
    """What a model is, in bytes and plain data."""

    kind: str
    files: dict[str, bytes]
    configuration: Any = None
    why_not: str | None = None


def write(model: Any, more: Mapping[str, Any]) -> Written:
    """Bytes and configuration of a model.

    Raises:
        TypeError: neither a module, nor a record, nor of a class with files of its own.
    """
    from torch import nn

    own = next((k for k, o in OWN.items() if type(model).__name__ == o.name and type(model) is o.cls), None)
    if own is not None:
        return _write_own(own, model, more)
    if not isinstance(model, nn.Module) and not constructors.is_recorded(model) and not hasattr(model, "to_dict"):
        raise TypeError(f"model must be a torch module or an object of hepops that can be saved, got {model!r:.80}")
    encoder = construction.Encoder()
    tree, why_not = None, None
    try:
        tree = encoder.encode(model, type(model).__name__)
        if "values" in tree:
            return Written("record", {}, tree)
    except (construction.NotRecorded, ValueError) as error:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model cannot be saved: {error}") from None
        why_not, encoder.tensors = str(error), {}
    state = _state(model) if isinstance(model, nn.Module) else {}
    files = {WEIGHTS: encode(state)} if isinstance(model, nn.Module) else {}
    if encoder.tensors:
        files[ARGUMENTS] = encode(encoder.tensors)
    if tree is not None:
        tree = _checked_again(model, tree, encoder.tensors, state)
    return Written("constructed", files, tree, why_not)


def _state(model: Any) -> dict[str, Tensor]:
    import torch

    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"model: {name} of its state dict is a {type(value).__name__}, files hold tensors only")
    return dict(state)


def _checked_again(model: Any, tree: Any, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Any:
    """What is written must make the model again: better to hear it now than when it is needed."""
    from torch import nn

    made = construction.make(tree, tensors)
    if not isinstance(model, nn.Module):
        return tree
    try:
        construction.fill(made, state)
        changes.refuse(model, made)
        buffers = construction.other_buffers(model, made)
    except ValueError as error:
        raise ValueError(f"model was changed after it was made, its configuration does not give it: {error}") from None
    return {**tree, "buffers": buffers} if buffers else tree


def _write_own(key: str, model: Any, more: Mapping[str, Any]) -> Written:
    own = OWN[key]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / own.files[0] if own.one else Path(folder)
        model.save(place, more) if own.more else model.save(place)
        files = {name: (Path(folder) / name).read_bytes() for name in own.files}
    configuration = None
    for name, content in files.items():
        if name.endswith(".json"):
            configuration = json.loads(content)
    return Written(key, files, configuration)


def read(
    kind: str,
    cls: str,
    configuration: Any,
    why_not: str | None,
    files: Mapping[str, bytes],
    make: Make | None,
    options: Mapping[str, Any],
) -> Any:
    """The model of verified bytes.

    Raises:
        ValueError: an unknown kind, a class that is not allowed, tensors that do not fit, or make is needed.
        TypeError: an option that the kind does not take.
    """
    if kind in OWN:
        own = OWN[kind]
        if missing := [name for name in own.files if name not in files]:
            raise ValueError(f"{missing[0]}, which a {own.name} needs, is not among its files")
        if make is not None:
            raise TypeError(f"make: a {own.name} has files of its own and is made by {own.name}.load")
        _options(options, own.options, own.name)
        with tempfile.TemporaryDirectory() as folder:
            for name in own.files:
                (Path(folder) / name).write_bytes(files[name])
            return own.cls.load(Path(folder) / own.files[0] if own.one else Path(folder), **options)
    _options(options, (), cls)
    if kind == "record":
        if not isinstance(configuration, dict) or "values" not in configuration:
            raise ValueError("configuration of a record must have its values")
        return construction.make(configuration, {})
    if kind != "constructed":
        raise ValueError(f"kind {kind!r} is unknown; there are constructed, record, {', '.join(OWN)}")
    return _constructed(cls, configuration, why_not, files, make)


def _options(given: Mapping[str, Any], known: tuple[str, ...], cls: str) -> None:
    if strange := [name for name in given if name not in known]:
        raise TypeError(f"load: {strange[0]!r} is no option of a {cls}; there are {', '.join(known) or 'none'}")


def _constructed(
    cls: str, configuration: Any, why_not: str | None, files: Mapping[str, bytes], make: Make | None
) -> Any:
    import torch

    tensors = decode(files[ARGUMENTS], ARGUMENTS) if ARGUMENTS in files else {}
    if make is not None:
        with torch.random.fork_rng(devices=[]):
            model = make()
    elif configuration is None:
        raise ValueError(f"{cls} must be made by the caller, give make= ({why_not})")
    else:
        model = construction.make(configuration, tensors)
    if not isinstance(model, torch.nn.Module) and not constructors.is_recorded(model):
        raise ValueError(f"configuration gives a {type(model).__name__}, which is no model")
    if WEIGHTS in files:
        if not isinstance(model, torch.nn.Module):
            raise ValueError(f"{WEIGHTS}: belongs to a module, but {type(model).__name__} is none")
        try:
            construction.fill(model, decode(files[WEIGHTS], WEIGHTS))
        except ValueError as error:
            raise ValueError(f"{WEIGHTS}: does not fit {type(model).__name__}: {error}") from None
        model.eval()
    return model
