"""Immutable, validated records, with errors in one line."""

import dataclasses
import difflib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """A frozen pydantic model: unknown names are refused, numbers finite, an error is one line and names the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(f"{type(self).__name__}: {_one_line(error, list(type(self).model_fields))}") from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated anew."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; `from_dict` gives back an equal object."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The object that `to_dict` wrote."""
        return cls(**values)

    def to_json(self) -> str:
        """One line of JSON, with every digit of every number; `from_json` gives back an equal object."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The object that `to_json` wrote."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{cls.__name__}: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__}: JSON must hold an object, got {text[:40]!r}")
        return cls(**values)


def nearest(name: str, known: list[str]) -> str:
    """The hint of an error about an unknown name: the nearest known one, or all of them."""
    match = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known are {', '.join(sorted(known))}"


def _one_line(error: ValidationError, names: list[str]) -> str:
    return "; ".join(_sentence(e, names) for e in error.errors())


def _sentence(e: Any, names: list[str]) -> str:
    where, message = ".".join(str(part) for part in e["loc"]), e["msg"]
    match e["type"]:
        case "extra_forbidden":
            return f"unknown name {where!r}, {nearest(where, names)}"
        case "missing":
            return f"{where!r} is missing"
        case "value_error":
            return f"{where} {message.removeprefix('Value error, ')}".strip()
        case _:
            return f"{where}: {message}, got {e['input']!r}"


def contents(thing: Any) -> dict[str, Any]:
    """A dataclass by its fields."""
    return {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}


def present(sim: Any) -> dict[str, Any]:
    """Arguments of a simulator that follow what it is now: the chunk, the map, and tables in place of their paths."""
    groups = getattr(sim, "groups", None)
    if groups is None:
        return {"response": sim.table or "builtin", "chunk": sim.chunk, "field_map": sim.field_map}
    tables = {n: group.table or "builtin" for group in groups for n in group.modules_of}
    return {"response": tables, "chunk": sim.chunk, "field_map": sim.field_map}
