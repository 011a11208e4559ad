"""A package as a zip archive: which members it may have, and their checksums."""

import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

FORMAT, VERSION = "hepops.export", 1
MEMBER = "hepops.json"  # beneath the archive's folder
_PART = re.compile(r"[A-Za-z0-9_.+@=-]{1,255}")
_MOST = 64 << 20  # bytes of the description
_TENSOR = {"name", "dtype", "shape"}
_REQUIRED = ("format", "version", "model", "inputs", "outputs", "machine", "members", "digest")


def add_description(path: Path, description: dict[str, Any]) -> None:
    """Write the description into a package that torch has written, with the checksums of all else."""
    with zipfile.ZipFile(path, "a") as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0]
        members = {name.partition("/")[2]: _digest(archive, name) for name in names}
        whole = description | {"members": members}
        text = json.dumps(whole | {"digest": _own_digest(whole)}, indent=1, sort_keys=True)
        archive.writestr(f"{root}/{MEMBER}", text)


def read_description(path: str | Path) -> dict[str, Any]:
    """The description of a package whose every byte is as it was written.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a package, or one that was changed: the message names the member.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(path, archive)
            description = _parse(path, archive, root)
            _compare(path, archive, root, description["members"])
            return description
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole .pt2 package ({error})") from None


def file_digest(path: str | Path) -> str:
    """SHA-256 of a whole file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _root(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder that all members lie in; loading unpacks them, so names that lead elsewhere are refused."""
    names = archive.namelist()
    count = Counter(names)
    for name in names:
        parts = name.split("/")
        if not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
            raise ValueError(f"{path}: member {name!r} has a name that no package has")
        if count[name] > 1:
            raise ValueError(f"{path}: member {name!r} is there twice")
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1:
        raise ValueError(f"{path}: not a .pt2 package: its members lie in {sorted(roots)[:4]}")
    return roots.pop()


def _parse(path: Path, archive: zipfile.ZipFile, root: str) -> dict[str, Any]:
    name = f"{root}/{MEMBER}"
    if name not in archive.namelist():
        raise ValueError(f"{path}: has no {MEMBER}: not written by hepops.export")
    if archive.getinfo(name).file_size > _MOST:
        raise ValueError(f"{path}: {MEMBER} is too long, {archive.getinfo(name).file_size} bytes")
    try:
        description = json.loads(archive.read(name))
    except ValueError as error:
        raise ValueError(f"{path}: {MEMBER} is not JSON ({error})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path}: {MEMBER} is not the description of a {FORMAT}")
    if not isinstance(description.get("version"), int) or description["version"] > VERSION:
        raise ValueError(f"{path}: version {description.get('version')!r} is newer than this library's {VERSION}")
    missing = [key for key in _REQUIRED if key not in description]
    if missing or not isinstance(description["members"], dict):
        raise ValueError(f"{path}: {MEMBER} lacks {missing or ['members']}")
    if (found := _own_digest(description)) != description["digest"]:
        raise ValueError(f"{path}: {MEMBER} was changed: SHA-256 {found}, expected {description['digest']!r:.80}")
    if not isinstance(description["machine"], dict) or not isinstance(description["machine"].get("level"), str):
        raise ValueError(f"{path}: {MEMBER}: machine must say its level, got {description['machine']!r:.80}")
    for kind in ("inputs", "outputs"):
        sound = isinstance(description[kind], list) and description[kind]
        if not sound or not all(isinstance(x, dict) and x.keys() >= _TENSOR for x in description[kind]):
            raise ValueError(f"{path}: {MEMBER}: {kind} must be tensors, got {description[kind]!r:.80}")
    return description


def _own_digest(description: dict[str, Any]) -> str:
    """SHA-256 of the description itself, in one way of writing it."""
    others = {key: value for key, value in description.items() if key != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _compare(path: Path, archive: zipfile.ZipFile, root: str, members: dict[str, Any]) -> None:
    there = {name.partition("/")[2] for name in archive.namelist()} - {MEMBER}
    for name in sorted(there ^ set(members)):
        raise ValueError(f"{path}: member {name!r} is {'not in its description' if name in there else 'missing'}")
    for name, expected in members.items():
        found = _digest(archive, f"{root}/{name}")
        if found != expected:
            raise ValueError(f"{path}: member {name!r} was changed: SHA-256 {found}, expected {expected}")


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
        return sha.hexdigest()
