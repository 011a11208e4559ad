"""Which key of a state dict went where, what had to be assumed, and what does not fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from hepops.core.tensor_files import read_tensors, state_of

from .origin import hint

T = TypeVar("T")
Convert = Callable[[Tensor], Tensor]
MOST = 5  # entries of each kind that an error lists


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
        misshapen: Keys of another shape than the others want, with both.
        unknown: What was not recognised, in words.
    """

    library: str
    placed: dict[str, str] = field(default_factory=dict)
    inferred: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.placed) + len(self.ignored) + len(self.unexpected)
        lines = [f"{self.library}: {len(self.placed)} of {total} keys placed"]
        for title, arrow in (("placed", "->"), ("inferred", "="), ("assumed", "="), ("ignored", ":")):
            entries: dict[str, str] = getattr(self, title)
            lines += [f"{title}:", *(f"  {k} {arrow} {v}" for k, v in entries.items())] if entries else []
        return "\n".join([*lines, *self._differing(1 << 30)])

    def differences(self) -> str:
        """What does not fit, the first entries of each kind and how many there are."""
        return "\n".join(self._differing(MOST))

    def _differing(self, most: int) -> Iterator[str]:
        kinds = (("not recognised", self.unknown), ("missing", self.missing), ("of another shape", self.misshapen))
        for title, entries in (*kinds, ("unexpected", self.unexpected)):
            if entries:
                yield f"{len(entries)} {title}:"
                yield from (f"  {entry}" for entry in entries[:most])
                yield from [f"  ... {len(entries) - most} more"] if len(entries) > most else []


class StateDictError(ValueError):
    """A state dict that cannot be imported; `report` has all that does not fit, and how far it came."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def some(names: Iterable[str]) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:MOST]) + (f" ... ({len(names)} in all)" if len(names) > MOST else "") or "nothing"


class State:
    """A state dict that is read key by key, and keeps account.

    Args:
        source: The dict, a checkpoint that has it under "state_dict", "model_state_dict" or "model", or the path of a
            file of either: of torch.save (loaded with weights_only: nothing in it is executed) or of safetensors.
        library: For the report.
        prefix: What is taken off every key ("module.").
        roots: What the library's own keys begin with.
    """

    def __init__(
        self, source: Mapping[str, Tensor] | str | Path, library: str, prefix: str = "", roots: Sequence[str] = ()
    ) -> None:
        self.report = Report(library)
        who = f"from_{library}"
        tensors = state_of(read_tensors(source) if isinstance(source, (str, Path)) else source)
        if not isinstance(tensors, Mapping) or not tensors:
            raise ValueError(f"{who}: a state dict maps names to tensors, got {_kind(tensors)}")
        for key, value in tensors.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{who}: a state dict maps names to tensors, got {_kind(value)} at {key!r}")
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"{who}: {key} has NaN or infinite numbers")
        others = [key for key in tensors if not key.startswith(prefix)]
        if others:
            raise ValueError(f"{who}: keys must begin with the prefix {prefix!r}, but there are {some(others)}")
        self.tensors = {k.removeprefix(prefix): v.detach() for k, v in tensors.items()}
        floats = {
            v.dtype for k, v in self.tensors.items() if v.is_floating_point() and not k.endswith(("mask", "_log_z"))
        }
        self.dtype = torch.float64 if torch.float64 in floats else torch.float32
        self.features: int | None = None
        self.context = 0
        self._roots = set(roots) if any(k.split(".")[0] in roots for k in self.tensors) else None
        self._left = dict.fromkeys(self.tensors)
        self._whole: list[str] = []  # prefixes under which all was read that belongs there
        self._held: dict[int, list[tuple[str, str]]] = {}
        self._kept: list[object] = []  # identities are names only while what they name lives

    # What does not fit

    def error(self, message: str) -> StateDictError:
        """Something that is not recognised."""
        self.report.unknown.append(message)
        return self.stopped()

    def stopped(self) -> StateDictError:
        """The error that tells of all that was found not to fit so far."""
        whole = tuple(self._whole)
        outside = [k for k in self._left if self._roots is not None and k.split(".")[0] not in self._roots]
        self.report.unexpected = list(dict.fromkeys([*outside, *(k for k in self._left if k.startswith(whole))]))
        read = len(self.tensors) - len(self._left)
        lines = [
            f"from_{self.report.library}: the state dict does not fit, {read} of {len(self.tensors)} keys were read"
        ]
        advice = hint(list(self.tensors), self.report.library)
        return StateDictError(
            "\n".join([*lines, self.report.differences(), *([advice] if advice else [])]), self.report
        )

    def each(self, read: Callable[[str], T], prefixes: Iterable[str]) -> list[T]:
        """Reads what stands under every prefix; what does not fit is told of all of them at once."""
        found = []
        failed = False
        for prefix in prefixes:
            try:
                found.append(read(prefix))
                self._whole.append(prefix)
            except StateDictError:  # it is in the report
                failed = True
        if failed:
            raise self.stopped()
        return found

    def misshapen(self, key: str, needed: Sequence[int]) -> StateDictError:
        self.report.misshapen.append(f"{key}: {tuple(self.tensors[key].shape)}, needs {tuple(needed)}")
        return self.stopped()

    def shaped(self, key: str, *shape: int) -> Tensor:
        """A tensor that must be there and have this shape."""
        if tuple(self.look(key).shape) != shape:
            raise self.misshapen(key, shape)
        return self.tensors[key]

    def sized(self, features: int, where: str) -> int:
        """The number of features, which all transforms share."""
        if self.features not in (None, features):
            raise self.error(f"{where} has {features} features, transforms before it have {self.features}")
        self.features = features
        self.report.inferred["features"] = str(features)
        return features

    def conditioned(self, context: int, where: str) -> int:
        """The width of the context, which all transforms share that read one."""
        if context < 0:
            raise self.error(f"{where} has {-context} inputs too few for what it is to see")
        if context and self.context and context != self.context:
            raise self.error(f"{where} has a context of {context} numbers, transforms before it of {self.context}")
        self.context = context or self.context
        return context

    # Keys

    def children(self, prefix: str) -> list[str]:
        """Names that follow `prefix`, numbers in their order."""
        names = dict.fromkeys(k[len(prefix) :].split(".")[0] for k in self.tensors if k.startswith(prefix))
        return sorted(names, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0))

    def has(self, key: str) -> bool:
        return key in self.tensors

    def need(self, *keys: str) -> None:
        """Refuses with the names of all of these that are not there."""
        missing = [key for key in keys if key not in self.tensors]
        if missing:
            self.report.missing += [key for key in missing if key not in self.report.missing]
            raise self.stopped()

    def look(self, key: str) -> Tensor:
        """A tensor that must be there, and stays unread."""
        self.need(key)
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

    def buffer(self, key: str) -> Tensor:
        value = self.take(key).clone()
        self.hold(key, value)
        return value

    def into(self, key: str, target: Tensor, convert: Convert | None = None, note: str = "") -> None:
        """Fills a parameter or buffer of the flow."""
        value = self.take(key)
        if convert is not None:
            value = convert(value)
        if target.shape != value.shape:
            raise self.misshapen(key, target.shape)
        with torch.no_grad():
            target.copy_(value)
        self.hold(key, target, note)

    def ignore(self, key: str, why: str) -> None:
        self.take(key, note=why)

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
            self._whole.append("")
            raise self.stopped()
        return self.report


def _kind(value: object) -> str:
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}: give its state_dict()"
    return "an empty one" if isinstance(value, Mapping) else type(value).__name__
