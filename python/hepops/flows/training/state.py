"""The checkpoint of a training: one file, whole or not there; loading it executes nothing."""

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from hepops.core.files import atomic
from hepops.core.tensor_files import read_tensors

if TYPE_CHECKING:
    from .trainer import Trainer

NAME, VERSION = "training.pt", 1
# what may change between a kill and the resumption without changing the end
_FREE = ("folder", "save_every", "seconds", "progress", "group")


class Checkpoint:
    """Writes and reads `training.pt` of a folder; without a folder it does nothing."""

    def __init__(self, folder: str | Path | None, mark: dict[str, str]) -> None:
        self.path = None if folder is None else Path(folder) / NAME
        self.mark = mark
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, content: dict[str, Any]) -> None:
        if self.path is not None:
            with atomic(self.path) as part:
                torch.save({"version": VERSION, "mark": self.mark, **content}, part)

    def read(self) -> dict[str, Any] | None:
        """What was written; None where there is nothing.

        Raises:
            ValueError: no checkpoint, one of another version, or of another training: says in what it differs.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            content = read_tensors(self.path)
            version, mark = content["version"], content["mark"]
        except Exception as error:
            text = " ".join(str(error).removeprefix(f"{self.path} ").split())[:200]
            raise ValueError(f"{self.path}: not a readable checkpoint ({text})") from None
        if version != VERSION:
            raise ValueError(f"{self.path}: has version {version}, this program reads {VERSION}")
        names = [*self.mark, *(name for name in mark if name not in self.mark)]
        other = [n for n in names if mark.get(n) != self.mark.get(n)]
        if other:
            text = ", ".join(f"{n} ({mark.get(n)}, not {self.mark.get(n)})" for n in other)
            raise ValueError(f"{self.path}: belongs to another training, it differs in {text}")
        return content


def signature(plan: "Trainer", module: nn.Module, mark: dict[str, Any]) -> dict[str, str]:
    """All that the end of a training depends on, by name; functions by theirs."""
    out = {f.name: describe(getattr(plan, f.name)) for f in fields(plan) if f.name not in _FREE}
    shapes = [f"{n} {tuple(p.shape)} {p.dtype} {p.requires_grad}" for n, p in module.named_parameters()]
    out["module"] = hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16]
    return out | {name: describe(value) for name, value in mark.items()}


def describe(value: Any) -> str:
    """Tensors by their bits, functions by their name, the rest by its repr."""
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        head = f"{data.dtype}{tuple(data.shape)}".encode()
        return hashlib.sha256(head + data.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)


@torch.no_grad()
def broadcast(module: nn.Module, group: "dist.ProcessGroup") -> None:
    """Parameters and buffers of rank 0 for all."""
    source = dist.get_global_rank(group, 0)
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.data, source, group)
