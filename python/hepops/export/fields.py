"""What stands in a package's description, each of the kind that is read from it."""

from typing import Any

import torch

from .adapt import VOXELS


def check_fields(where: str, description: dict[str, Any]) -> None:
    """Refuse what no package says of itself.

    Args:
        where: The file, for errors.
        description: Of the right format, with all that is required.

    Raises:
        ValueError: a field of another kind, with its name and what it holds.
    """

    def check(good: bool, name: str, wanted: str, value: Any) -> None:
        if not good:
            raise ValueError(f"{where}: {name} must be {wanted}, got {value!r:.80}")

    model, machine, versions, classes = (description[name] for name in ("model", "machine", "versions", "classes"))
    check(isinstance(machine, dict) and isinstance(machine.get("level"), str), "machine", "one with its level", machine)
    check(isinstance(model, dict) and isinstance(model.get("class"), str), "model", "one with its class", model)
    check(isinstance(versions, dict) and all(isinstance(versions.get(n), str) for n in ("hepops", "torch")), "versions",
          "those of hepops and torch", versions)  # fmt: skip
    check(isinstance(classes, list) and all(isinstance(name, str) for name in classes), "classes", "words", classes)
    for kind in ("inputs", "outputs"):
        tensors = description[kind]
        check(isinstance(tensors, list) and bool(tensors) and all(map(_is_tensor, tensors)), kind,
              "tensors with name, dtype and shape", tensors)  # fmt: skip


def _is_tensor(x: Any) -> bool:
    if not isinstance(x, dict) or not isinstance(x.get("name"), str) or not isinstance(x.get("dtype"), str):
        return False
    shape = x.get("shape")
    return (
        isinstance(getattr(torch, x["dtype"], None), torch.dtype)
        and isinstance(shape, list)
        and all(map(_is_size, shape))
    )


def _is_size(n: Any) -> bool:
    return n == VOXELS or (isinstance(n, int) and not isinstance(n, bool) and n >= 0)
