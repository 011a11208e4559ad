r"""A registry of models: names, versions that never change, tags that move.

    <name>/files/<sha256>/     the files of a model, under the SHA-256 of its model.yaml
    <name>/versions/3.json     what makes it version 3: one small object, which is made and never replaced
    <name>/tags/best           the number of a version

A version is there when its object is there. This is the last thing that `add` writes, by an operation that fails where
another was first; who was second takes the next number. So two processes lose nothing, and one that is killed
leaves files that no version names: nobody sees them, `unfinished` reports them, `clean` removes them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import digests, files
from .card import NAME, Card
from .store import open_store

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_VERSION = re.compile(r"([1-9][0-9]{0,8})\.json")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SHA = re.compile(r"[0-9a-f]{64}")
HOUR = 3600.0


@dataclass(frozen=True)
class Entry:
    """A version of a model: which files it is, and when it was added (UTC)."""

    name: str
    version: int
    sha256: str  # of model.yaml, which names all others
    added: str
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Registry:
    """Models in a folder or at a URL.

    Args:
        url: A folder, or a URL that fsspec knows: "s3://bucket/models", "https://host/models" (read alone, from a
            server that lists folders), "memory://models".
        cache: Folder for what was fetched from a URL; None: `hepops/models` in the user's cache.
        options: Of the file system, such as credentials; see fsspec.

    Deterministic, and safe where several processes add at once: see the head of this file. On a URL this needs a store
    with conditional writes, as S3 has them.

    Raises:
        ImportError: a URL, and fsspec is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     registry = hepops.models.Registry(folder)
        ...     entry = registry.add("ring", hepops.flows.nsf(2, layers=2), tags=["best"], licence="CC0-1.0")
        ...     again = registry.load("ring@best")
        ...     print(entry, registry.names(), registry.entry("ring").tags, again.event_shape)
        ring@1 ['ring'] ('best',) torch.Size([2])
    """

    def __init__(self, url: str | Path, *, cache: str | Path | None = None, **options: Any) -> None:
        self.url, self.store = str(url), open_store(url, options)
        self.cache = Path(cache) if cache is not None else None

    # What there is

    def names(self) -> list[str]:
        """Of models with at least one version."""
        return [name for name in self.store.names("") if _WORD.fullmatch(name) and self._numbers(name)]

    def entries(self, name: str | None = None) -> list[Entry]:
        """All versions, of one model or of all, in their order.

        Raises:
            ValueError: no such model.
        """
        if name is None:
            return [entry for one in self.names() for entry in self.entries(one)]
        numbers = self._taken(_word("name", name))
        tags = self.tags(name) if numbers else {}
        found = [e for n in numbers if (e := self._entry(name, n, tags)) is not None]
        if not found and numbers:
            known = ", ".join(map(str, numbers))
            raise ValueError(f"{self.url}: {name}: none of its versions can be read ({name}/versions: {known})")
        if not found:
            raise ValueError(f"{self.url}: has no model {name!r}, but {', '.join(self.names()) or 'none at all'}")
        return found

    def entry(self, reference: str) -> Entry:
        """The entry of "name" (its last version), "name@3" or "name@tag".

        Raises:
            ValueError: no such model, version or tag.
            ValueError: no reference.
        """
        name, at, which = reference.partition("@")
        entries = self.entries(name)
        if not at or which == "latest":
            return entries[-1]
        tagged = None if _NUMBER.fullmatch(which) else self.tags(name).get(_word("tag", which))
        number = int(which) if _NUMBER.fullmatch(which) else tagged
        found = next((entry for entry in entries if entry.version == number), None)
        if found is None and tagged is not None:
            raise ValueError(f"{self.url}: {name}: the tag {which!r} names version {tagged}, which is not there")
        if found is None:
            known = ", ".join([*(str(e.version) for e in entries), *self.tags(name)])
            raise ValueError(f"{self.url}: {name} has no version or tag {which!r}, but {known}")
        return found

    def tags(self, name: str) -> dict[str, int]:
        """Tags of a model, and the version of each."""
        found = {}
        for tag in self.store.names(f"{_word('name', name)}/tags"):
            content = self._read(f"{name}/tags/{tag}") if _WORD.fullmatch(tag) else None
            if content is not None and content.strip().isdigit():
                found[tag] = int(content)
        return found

    def card(self, reference: str | Entry) -> Card:
        """The description of a version, verified.

        Args:
            reference: "name", "name@3" or "name@tag"; or an entry, which is not looked for again.

        Raises:
            ValueError: no such version.
            FileNotFoundError, ValueError: its model.yaml is gone, or was changed; the message names registry, version
                and file.
        """
        entry = self._resolve(reference)
        where = f"{self.url}: {entry}: {NAME}"
        content = self._file(entry, NAME)
        if digests.of_bytes(content) != entry.sha256:
            raise ValueError(f"{where} was changed: SHA-256 expected {entry.sha256}, got {digests.of_bytes(content)}")
        return Card.from_yaml(content, where)

    # In and out

    def add(self, name: str, model: Any, *, tags: Sequence[str] = (), **description: Any) -> Entry:
        """Add a version.

        Args:
            name: Letters, digits, ".", "_" and "-".
            model: A model, or the folder of a saved one, which is verified first.
            tags: That shall name this version from now on.
            description: Of `hepops.save`: metrics, data, licence, doi ...; of a model alone.

        Returns:
            The entry; the one that is there already where the very same files were added before. What has become of
            those since is mended.

        Raises:
            ValueError: a name or tag that is none, or a folder that is not what its card says.
            TypeError: a description of a folder, which has its own.
            PermissionError: a registry that can be read only.
        """
        import tempfile

        _word("name", name)
        for tag in tags:
            _tag(tag)
        if not isinstance(model, (str, Path)):
            with tempfile.TemporaryDirectory() as folder:
                files.save(model, Path(folder) / "model", **{"name": name, **description})
                return self.add(name, Path(folder) / "model", tags=tags)
        if description:
            raise TypeError(f"add: {sorted(description)[0]} of a folder stands in its {NAME}, give it to save")
        _, content = files.verify(model)
        content |= {n: (Path(model) / n).read_bytes() for n in (NAME, digests.SUMS)}
        sha256 = digests.of_bytes(content[NAME])
        entry = next((e for e in self.entries(name) if e.sha256 == sha256), None) if self._numbers(name) else None
        if entry is None:
            for one, part in content.items():
                self.store.write(f"{name}/files/{sha256}/{one}", part)
            entry = self._publish(name, sha256)
        else:  # the version is there: what its files have lost or suffered is mended
            for one, part in content.items():
                if self._read(f"{name}/files/{sha256}/{one}") != part:
                    self.store.write(f"{name}/files/{sha256}/{one}", part)
        for tag in tags:
            self.tag(str(entry), tag)
        return self.entry(str(entry))

    def _publish(self, name: str, sha256: str) -> Entry:
        number = max(self._taken(name), default=0) + 1
        added = datetime.now(UTC).isoformat(timespec="seconds")
        while True:
            content = json.dumps({"name": name, "version": number, "sha256": sha256, "added": added}) + "\n"
            if self.store.create(f"{name}/versions/{number}.json", content.encode()):
                return Entry(name, number, sha256, added)
            other = self._entry(name, number, {})
            if other is not None and other.sha256 == sha256:
                return other  # the same files, by another process; or by us, and a network has lost the answer
            number += 1  # another process was first

    def tag(self, reference: str, tag: str) -> None:
        """Let a tag name a version; it may have named another.

        Raises:
            ValueError: no such version.
            ValueError: a tag that is none: it must not look like a version.
        """
        entry = self.entry(reference)
        self.store.write(f"{entry.name}/tags/{_tag(tag)}", f"{entry.version}\n".encode())

    def get(self, reference: str | Entry, path: str | Path | None = None) -> Path:
        """A folder with the verified files of a version.

        Args:
            reference: "name", "name@3" or "name@tag"; or an entry.
            path: A folder to make; None: where they are, or the cache, from which they are taken the next time if
                they are still what they were.

        Raises:
            ValueError: no such version.
            FileNotFoundError, ValueError: files that are gone, or were changed; the message names registry, version and
                file. Or a folder that holds a model.
        """
        entry = self._resolve(reference)
        if path is None and self.store.local:
            place = Path(self.store.root) / entry.name / "files" / entry.sha256  # type: ignore[attr-defined]
            self._verify(entry, place)
            return place
        place = Path(path) if path is not None else self._cache() / entry.sha256
        if path is None and place.exists():
            try:
                files.verify(place, sha256=entry.sha256)
                return place
            except (ValueError, FileNotFoundError):
                import shutil

                shutil.rmtree(place)
        elif path is not None:
            files._check_place(place, False)
        self._fetch(entry, place)
        return place

    def _fetch(self, entry: Entry, place: Path) -> None:
        """Into a folder of its own, which takes its place when it is verified."""
        import tempfile

        place.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.absolute().parent, prefix=".fetch.") as folder:
            fetched = Path(folder) / "model"
            fetched.mkdir()
            names = [*self.card(entry).files, NAME, digests.SUMS]
            for name in names:
                (fetched / name).write_bytes(self._file(entry, name))
            self._verify(entry, fetched)
            try:
                os.rename(fetched, place)
            except OSError:  # another process has fetched it meanwhile
                files.verify(place, sha256=entry.sha256)

    def load(self, reference: str, **options: Any) -> Any:
        """The model of a version; options as of `hepops.load`.

        Raises:
            FileNotFoundError, ValueError: as for `get` and `hepops.load`.
        """
        entry = self._resolve(reference)  # once: a tag may move meanwhile
        return files.load(self.get(entry), sha256=entry.sha256, **options)

    def _resolve(self, reference: str | Entry) -> Entry:
        return reference if isinstance(reference, Entry) else self.entry(reference)

    def _file(self, entry: Entry, name: str) -> bytes:
        """A file of a version, whose absence is said as a person looks for it."""
        path = f"{entry.name}/files/{entry.sha256}/{name}"
        try:
            return self.store.read(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}: {entry}: {name} is missing ({path})") from None
        except (IsADirectoryError, NotADirectoryError):
            raise ValueError(f"{self.url}: {entry}: {name} is no file ({path})") from None

    def _verify(self, entry: Entry, place: Path) -> None:
        """A folder with the files of a version; what differs is named by registry and version, too."""
        try:
            files.verify(place, sha256=entry.sha256)
        except (ValueError, FileNotFoundError) as error:
            text = str(error).removeprefix(f"{place}/").replace(f"{place}: no such folder", "its files are missing")
            path = f"{entry.name}/files/{entry.sha256}"
            raise type(error)(f"{self.url}: {entry}: {text} ({path})") from None

    # What was left behind

    def unfinished(self, older: float = HOUR) -> list[str]:
        """What additions that were killed have left, longer ago than `older` seconds; no version names it."""
        found = []
        for name in self.store.names(""):
            if not _WORD.fullmatch(name):
                continue
            used = self._used(name)
            paths = [f"{name}/files/{sha}" for sha in self.store.names(f"{name}/files") if sha not in used]
            for folder in (f"{name}/versions", f"{name}/tags", *(f"{name}/files/{sha}" for sha in used)):
                paths += [f"{folder}/{part}" for part in self.store.hidden(folder)]
            found += [path for path in paths if self.store.age(path) >= older]
        return found

    def clean(self, older: float = 24 * HOUR) -> list[str]:
        """Remove what `unfinished` reports, and say it; an addition under way is younger than `older` seconds.

        Raises:
            ValueError: `older` is negative.
        """
        if not older >= 0:
            raise ValueError(f"clean: older must not be negative [s], got {older}")
        removed = []
        for path in self.unfinished(older):
            name, kind, part = path.split("/", 2)
            if kind == "files" and "/" not in part and part in self._used(name):
                continue  # a version has come to name it since
            self.store.remove(path)
            removed.append(path)
        return removed

    def _used(self, name: str) -> set[str]:
        """Checksums that versions of a model name."""
        return {e.sha256 for n in self._numbers(name) if (e := self._entry(name, n, {})) is not None}

    def _numbers(self, name: str) -> list[int]:
        """Versions that can be read, in their order."""
        return [n for n in self._taken(name) if self._entry(name, n, {}) is not None]

    def _taken(self, name: str) -> list[int]:
        found = (_VERSION.fullmatch(part) for part in self.store.names(f"{name}/versions"))
        return sorted(int(match[1]) for match in found if match)

    def _entry(self, name: str, number: int, tags: dict[str, int]) -> Entry | None:
        content = self._read(f"{name}/versions/{number}.json")
        try:
            found = json.loads(content or b"")
            if (found["name"], found["version"]) != (name, number) or not _SHA.fullmatch(found["sha256"]):
                return None
            mine = tuple(tag for tag, version in tags.items() if version == number)
            return Entry(name, number, found["sha256"], str(found["added"]), mine)
        except (ValueError, KeyError, TypeError):
            return None

    def _read(self, path: str) -> bytes | None:
        try:
            return self.store.read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _cache(self) -> Path:
        if self.cache is not None:
            return self.cache
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "hepops" / "models"


def _word(what: str, text: str) -> str:
    if not isinstance(text, str) or not _WORD.fullmatch(text) or ".." in text:
        raise ValueError(f"{what} must be of letters, digits, '.', '_' and '-', got {text!r}")
    return text


def _tag(text: str) -> str:
    if _word("tag", text).isdigit() or text == "latest":
        raise ValueError(f"tag must not be a number or 'latest', which name versions, got {text!r}")
    return text
