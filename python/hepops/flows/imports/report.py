"""Which key of a state dict went where, what had to be assumed, and what is left over."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

Convert = Callable[[Tensor], Tensor]


@dataclass
class Report:
    """What an import did. It prints.

    Attributes:
        library: Where the state dict is from.
        placed: Key of the state dict to the parameter or buffer of the flow that holds it, and what was done to it.
        inferred: What shapes and values told.
        assumed: What a state dict cannot tell, and the argument or the library's default said.
        ignored: Keys that are not needed, and why.
        unexpected: Keys that belong to nothing that was recognised.
        missing: Keys that something recognised should have.
    """

    library: str
    placed: dict[str, str] = field(default_factory=dict)
    inferred: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.placed) + len(self.ignored) + len(self.unexpected)
        lines = [f"{self.library}: {len(self.placed)} of {total} keys placed"]
        for title, arrow in (("placed", "->"), ("inferred", "="), ("assumed", "="), ("ignored", ":")):
            entries: dict[str, str] = getattr(self, title)
            lines += [f"{title}:", *(f"  {k} {arrow} {v}" for k, v in entries.items())] if entries else []
        for title in ("unexpected", "missing"):
            keys: list[str] = getattr(self, title)
            lines += [f"{title}:", *(f"  {k}" for k in keys)] if keys else []
        return "\n".join(lines)


class StateDictError(ValueError):
    """A state dict that cannot be imported; `report` tells how far it came."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(f"{message}\n{report}")
        self.report = report


class State:
    """A state dict that is read key by key, and keeps account.

    Args:
        source: The dict, or the path of a file of torch.save (loaded with weights_only: nothing in it is executed) or
            of safetensors.
        library: For the report.
        prefix: What is taken off every key ("module.").
    """

    def __init__(self, source: Mapping[str, Tensor] | str | Path, library: str, prefix: str = "") -> None:
        self.report = Report(library)
        tensors = _load(source) if isinstance(source, (str, Path)) else source
        if not isinstance(tensors, Mapping) or not tensors:
            raise ValueError(f"from_{library}: a state dict maps names to tensors, got {_kind(tensors)}")
        for key, value in tensors.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"from_{library}: a state dict maps names to tensors, got {_kind(value)} at {key!r}")
            if not key.startswith(prefix):
                raise ValueError(f"from_{library}: key {key!r} does not begin with the prefix {prefix!r}")
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"from_{library}: {key} has NaN or infinite numbers")
        self.tensors = {k.removeprefix(prefix): v.detach() for k, v in tensors.items()}
        floats = {
            v.dtype for k, v in self.tensors.items() if v.is_floating_point() and not k.endswith(("mask", "_log_z"))
        }
        self.dtype = torch.float64 if torch.float64 in floats else torch.float32
        self._left = dict.fromkeys(self.tensors)
        self._held: dict[int, list[tuple[str, str]]] = {}
        self._kept: list[object] = []  # identities are names only while what they name lives

    def error(self, message: str) -> StateDictError:
        self.report.unexpected = list(self._left)
        return StateDictError(f"from_{self.report.library}: {message}", self.report)

    def children(self, prefix: str) -> list[str]:
        """Names that follow `prefix`, numbers in their order."""
        names = dict.fromkeys(k[len(prefix) :].split(".")[0] for k in self.tensors if k.startswith(prefix))
        return sorted(names, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0))

    def has(self, key: str) -> bool:
        return key in self.tensors

    def look(self, key: str) -> Tensor:
        """A tensor that must be there, and stays unread."""
        if key not in self.tensors:
            self.report.missing.append(key)
            raise self.error(f"key {key!r} is missing")
        return self.tensors[key]

    def take(self, key: str, holder: object = None, note: str = "") -> Tensor:
        """A tensor that must be there, in the flow's dtype if it is of real numbers; `holder` is where it goes."""
        value = self.look(key)
        self._left.pop(key, None)
        value = value.to(self.dtype) if value.is_floating_point() else value
        if holder is not None:
            self.hold(key, holder, note)
        else:
            self.report.ignored[key] = note
        return value

    def hold(self, key: str, holder: object, note: str = "") -> None:
        self._kept.append(holder)
        self._held.setdefault(id(holder), []).append((key, note))
        self.report.ignored.pop(key, None)

    def parameter(self, key: str, convert: Convert | None = None, note: str = "") -> nn.Parameter:
        value = self.take(key)
        parameter = nn.Parameter((convert(value) if convert else value).clone())
        self.hold(key, parameter, note)
        return parameter

    def buffer(self, key: str) -> Tensor:
        value = self.take(key).clone()
        self.hold(key, value)
        return value

    def into(self, key: str, target: Tensor, value: Tensor, note: str = "") -> None:
        """Fills a parameter or buffer of the flow."""
        if target.shape != value.shape:
            raise self.error(f"{key} has shape {tuple(value.shape)}, and {tuple(target.shape)} is needed")
        with torch.no_grad():
            target.copy_(value)
        self.hold(key, target, note)

    def ignore(self, key: str, why: str) -> None:
        self.take(key, note=why)

    def shaped(self, key: str, *shape: int) -> None:
        """Refuses another shape by name."""
        if tuple(self.look(key).shape) != shape:
            raise self.error(f"{key} must have shape {shape}, got {tuple(self.look(key).shape)}")

    def finish(self, flow: nn.Module) -> Report:
        """The report, when every key has been read; an error when some were not."""
        held_by = [*flow.named_modules(), *flow.named_parameters(), *flow.named_buffers()]
        places = {id(t): name for name, t in held_by}
        held = {key: (holder, note) for holder, entries in self._held.items() for key, note in entries}
        for key in self.tensors:
            if key in held:
                holder, note = held[key]
                self.report.placed[key] = places.get(holder, "constants") + (f" ({note})" if note else "")
        if self._left:
            names = ", ".join(list(self._left)[:5]) + (" ..." if len(self._left) > 5 else "")
            raise self.error(f"{len(self._left)} unexpected keys: {names}")
        return self.report


def _kind(value: object) -> str:
    return "an empty one" if isinstance(value, Mapping) else type(value).__name__


def _load(path: str | Path) -> Mapping[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: holds more than tensors, which is not executed ({error})") from None
