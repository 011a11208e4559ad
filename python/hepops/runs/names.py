"""Names and words as MLflow takes them: what it refuses would otherwise end a log in the midst of a training."""

import hashlib
import re

LONGEST_NAME = 250  # bytes, which is also what a file system takes


class Names:
    """A key for each name, always the same and never that of another.

    MLflow's keys are paths in its file store: of letters, digits, "_", "-", ".", "/" and " ", without "..", and none
    the folder of another. A name that is none of that gets a key that resembles it, with eight digits of its SHA-256.

    Attributes:
        changed: Key to name, where they differ.
    """

    def __init__(self) -> None:
        self.changed: dict[str, str] = {}
        self._keys: dict[str, str] = {}  # by name
        self._folders: set[str] = set()

    def key(self, name: str) -> str:
        """The key of a name."""
        if name not in self._keys:
            key = _path(name)
            if key != name or self._is_taken(key):
                mark = hashlib.sha256(name.encode()).hexdigest()[:8]
                key = f"{_cut(key.replace('/', '_') if self._is_taken(key) else key, LONGEST_NAME - 9)}-{mark}"
                self.changed[key] = name
            self._keys[name] = key
            self._folders |= set(_folders(key))
        return self._keys[name]

    def _is_taken(self, key: str) -> bool:
        taken = set(self._keys.values())
        return key in taken or key in self._folders or not taken.isdisjoint(_folders(key))


def _folders(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:k]) for k in range(1, len(parts))]


def _path(name: str) -> str:
    """A relative path of plain characters that resembles a name."""
    plain = "".join(c if re.match(r"[\w.\- /]", c) else "_" for c in name)
    parts = [part if part.strip(". ") else "_" * len(part) for part in plain.split("/") if part]
    return _cut("/".join(parts), LONGEST_NAME) or "_"


def _cut(text: str, most: int) -> str:
    """The first `most` bytes of UTF-8, in whole characters; a path does not end with its separator."""
    return text.encode()[:most].decode(errors="ignore").rstrip("/")


def shortened(text: str, most: int, where: str) -> str:
    """A text of `most` characters at most, that says how long it was and where the whole stands."""
    if len(text) <= most:
        return text
    note = f"... [{len(text)} characters, all in {where}]"
    return text[: most - len(note)] + note
