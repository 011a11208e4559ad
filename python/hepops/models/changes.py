"""What a model has become since it was made, and what neither its configuration nor its weights would give again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hepops.core import constructors

if TYPE_CHECKING:
    from torch import nn

_PLAIN = (bool, int, float, str)


def refuse(model: nn.Module, made: nn.Module) -> None:
    """Compare a model with the one that its configuration makes.

    Raises:
        ValueError: modules of other classes, hooks, a forward that was replaced, a plain attribute of another value, or
            parameters that are one here and two there; the message names the first.
    """
    others = dict(made.named_modules())
    for name, module in model.named_modules():
        where = name or type(module).__name__
        other = others.get(name)
        if other is None or type(other) is not type(module):
            raise ValueError(f"{where} is a {type(module).__name__}, and was {type(other).__name__}")
        if _hooks(module) != _hooks(other):
            raise ValueError(f"{where} has hooks, which no file holds")
        if "forward" in vars(module) and "forward" not in vars(other):
            raise ValueError(f"{where} has another forward, which no file holds")
        _attributes(where, module, other)
    if (tied := _tied(model)) != _tied(made):
        raise ValueError(f"parameters that share memory were {_tied(made) or 'none'}, and are {tied or 'none'}")


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def _attributes(where: str, a: Any, b: Any) -> None:
    """Public attributes that are plain, and those of recorded objects such as bijections."""
    for key, value in vars(a).items():
        if key.startswith("_") or key in ("training", "forward") or key not in vars(b):
            continue
        other = vars(b)[key]
        if isinstance(value, _PLAIN) and repr(value) != repr(other):  # NaN is NaN
            raise ValueError(f"{where}.{key} is {value!r}, and was {other!r}")
        if constructors.is_recorded(value) and type(value) is type(other) and hasattr(value, "__dict__"):
            _attributes(f"{where}.{key}", value, other)


def _tied(model: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(group for group in names.values() if len(group) > 1)
