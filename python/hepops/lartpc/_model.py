"""Immutable, validated records, with errors in one line."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """A frozen pydantic model: unknown names are refused, numbers must be finite, errors are one line that names them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(f"{type(self).__name__}: {_one_line(error)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; `from_dict` gives back an equal object."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**values)

    def to_json(self) -> str:
        """JSON with every digit of every number."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        import json

        return cls(**json.loads(text))


def _one_line(error: ValidationError) -> str:
    parts = []
    for e in error.errors():
        where = ".".join(str(part) for part in e["loc"])
        message = e["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {message}, got {e['input']!r}" if e["type"] != "value_error" else f"{where} {message}".strip())
    return "; ".join(parts)
