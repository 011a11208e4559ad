"""Integrators and half-done integrations in a file: tensors and JSON in one safetensors file, written whole or not.

Reading executes nothing: there are no pickles, and the kinds of proposals are looked up by name.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hepops.core.files import atomic

KEY = "hepops.flows.integration"


def write(path: str | Path, data: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """`data` must be JSON. The file takes the place of an older one in one step."""
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    whole[f"{KEY}.version"] = torch.tensor(1)
    with atomic(path) as part:
        save_file(whole, part, {KEY: json.dumps(data)})


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write` wrote; ValueError for another file or a part of one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file, truncated or foreign ({error})") from None
    version = tensors.pop(f"{KEY}.version", None)
    if KEY not in metadata or version is None or version.tolist() != 1:
        raise ValueError(f"{path}: not an integrator's file of version 1")
    with sound(path):
        data = json.loads(metadata[KEY])
        if not isinstance(data, dict):
            raise TypeError(type(data).__name__)
    return data, tensors


@contextmanager
def sound(path: str | Path) -> Iterator[None]:
    """ValueError for whatever goes wrong while a file is made sense of; what names a missing channel passes."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and "must be given again" in str(error):
            raise
        raise ValueError(f"{path}: damaged, or not of this version ({type(error).__name__}: {error})") from error


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def series(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    """The tensors name.0, name.1, ..."""
    return [tensors[f"{name}.{i}"] for i in range(sum(key.startswith(f"{name}.") for key in tensors))]
