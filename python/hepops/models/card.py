"""What is known of a saved model, as a person reads it and a program checks it: `model.yaml`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from . import text

FORMAT, VERSION = "hepops.model", 1
NAME = "model.yaml"
HEAD = "# Written by hepops.save; hepops.load verifies it, and so does `sha256sum -c SHA256SUMS`.\n"
_SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Card:
    """The description of a saved model.

    Attributes:
        kind: How the files are to be read: "constructed", "record", or the name of a class with files of its own.
        cls: The class, as a person looks for it.
        configuration: How the model is made (`construction`), or None: then `hepops.load` must be told.
        why_not: The reason for None.
        files, tensors: Size and SHA-256 of each file; dtype, shape and SHA-256 of each tensor in it.
        name, description, authors, licence, doi, seed, metrics, data, more: What the caller said. `data` are SHA-256 of
            what the model learnt from.
        code: Versions, git revision and machine of the program that saved it.
        created: When (UTC).
    """

    kind: str
    cls: str
    files: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    configuration: Any = None
    why_not: str | None = None
    name: str | None = None
    description: str | None = None
    authors: list[str] = field(default_factory=list)
    licence: str | None = None
    doi: str | None = None
    seed: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    created: str = ""

    def to_yaml(self) -> bytes:
        """The text of the file; what a person looks for comes first."""
        first = (
            "cls",
            "name",
            "description",
            "authors",
            "licence",
            "doi",
            "created",
            "seed",
            "metrics",
            "data",
            "more",
        )
        last = ("code", "kind", "configuration", "why_not", "files", "tensors")
        content = {"format": FORMAT, "version": VERSION} | {
            "class" if name == "cls" else name: asdict(self)[name] for name in (*first, *last)
        }
        return (HEAD + text.dump(content)).encode()

    @classmethod
    def from_yaml(cls, content: bytes, where: str) -> Card:
        """The card of a text.

        Raises:
            ValueError: no card, one of a later version, or a field that is unknown, missing or of another type.
        """
        found = text.parse(content, where)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{where}: not the description of a {FORMAT}")
        if found.get("version") != VERSION:
            raise ValueError(f"{where}: has version {found.get('version')!r}, this program reads {VERSION}")
        values = {"cls" if n == "class" else n: v for n, v in found.items() if n not in ("format", "version")}
        known = {f.name for f in fields(cls)}
        strange = [n for n in values if n not in known] or [n for n in ("kind", "cls", "files") if n not in values]
        if strange:
            raise ValueError(
                f"{where}: {strange[0]!r} is {'missing' if strange[0] not in values else 'no field of a card'}"
            )
        card = cls(**values)
        card._check(where)
        return card

    def _check(self, where: str) -> None:
        from .digests import check_name

        for name, kinds in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kinds):
                raise ValueError(f"{where}: {name} must be {' or '.join(k.__name__ for k in kinds)}, got {value!r:.80}")
        for name, words in (("authors", self.authors), ("data", self.data.values())):
            if not all(isinstance(word, str) for word in words):
                raise ValueError(f"{where}: {name} must be words, got {list(words)!r:.80}")
        for name, entry in self.files.items():
            check_name(name, f"{where}: files")
            sound = isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"}
            if (
                not sound
                or not isinstance(entry["bytes"], int)
                or entry["bytes"] < 0
                or not _SHA.fullmatch(str(entry["sha256"]))
            ):
                raise ValueError(f"{where}: files: {name} must have bytes and a sha256, got {entry!r:.80}")
        for name, tensors in self.tensors.items():
            if name not in self.files or not isinstance(tensors, dict):
                raise ValueError(f"{where}: tensors: {name!r} is none of the files")
            for tensor, entry in tensors.items():
                if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "sha256"}:
                    raise ValueError(f"{where}: tensors: {tensor} must have dtype, shape and sha256, got {entry!r:.80}")

    def __str__(self) -> str:
        """A few lines for the terminal."""
        rows: dict[str, Any] = {"class": self.cls, "name": self.name, "description": self.description}
        rows |= {"authors": ", ".join(self.authors), "licence": self.licence, "doi": self.doi, "created": self.created}
        rows |= {
            "seed": self.seed,
            "metrics": ", ".join(
                f"{n} {v:.6g}" if isinstance(v, float) else f"{n} {v}" for n, v in self.metrics.items()
            ),
        }
        rows["data"] = ", ".join(f"{n} {digest[:12]}" for n, digest in self.data.items())
        rows["made by"] = ", ".join(f"{n} {self.code[n]}" for n in ("hepops", "torch", "python") if n in self.code)
        count = sum(len(part) for part in self.tensors.values())
        size = sum(entry["bytes"] for entry in self.files.values())
        rows["files"] = f"{', '.join(self.files) or 'none'}; {size} bytes, {count} tensors"
        rows["load"] = None if self.why_not is None else f"needs make=: {self.why_not}"
        return "\n".join(f"{n:<12} {v}" for n, v in rows.items() if v not in (None, ""))


_TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "cls": (str,),
    "files": (dict,),
    "tensors": (dict,),
    "metrics": (dict,),
    "data": (dict,),
    "more": (dict,),
    "code": (dict,),
    "authors": (list,),
    "seed": (int, type(None)),
    "name": (str, type(None)),
    "description": (str, type(None)),
    "licence": (str, type(None)),
    "doi": (str, type(None)),
    "why_not": (str, type(None)),
    "created": (str,),
}
