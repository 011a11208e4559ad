"""A package as a zip archive: which members it must and may have, and their checksums.

torch stores members as they are, without compression. So a compressed member is foreign, and no member can be longer
than the file: what is read of a package, and what torch unpacks of it, is bounded by the file's own size.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from .fields import check_fields

FORMAT, VERSION = "hepops.export", 1
MEMBER = "hepops.json"  # beneath the archive's folder
_PART = re.compile(r"[A-Za-z0-9_.+@=-]{1,255}")
_MOST = 64 << 20  # bytes of the description
_REQUIRED = ("format", "version", "model", "inputs", "outputs", "classes", "machine", "versions", "members", "digest")
_CODE = "data/aotinductor/model/"  # where torch looks for the compiled model


def add_description(path: Path, description: dict[str, Any]) -> None:
    """Write the description into a package that torch has written, with the checksums of all else."""
    with zipfile.ZipFile(path, "a") as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0]
        members = {name.partition("/")[2]: _digest(archive, name) for name in names}
        whole = description | {"members": members}
        text = json.dumps(whole | {"digest": _own_digest(whole)}, indent=1, sort_keys=True)
        archive.writestr(f"{root}/{MEMBER}", text)


def read_description(path: str | Path, name: str | Path | None = None) -> dict[str, Any]:
    """The description of a package whose every byte is as it was written, with `sha256`, that of the whole file.

    Args:
        path: The file; it is opened once.
        name: What errors call it, where `path` is a copy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a package, or one that was changed: the message names the member.
    """
    name = str(path if name is None else name)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: no such file")
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            with zipfile.ZipFile(file) as archive:
                root = _root(name, archive)
                _check_sizes(name, archive, file.seek(0, 2))
                description = _parse(name, archive, root)
                _compare(name, archive, root, description["members"])
                _check_code(name, description["members"])
                return description | {"sha256": sha256}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{name}: not a whole .pt2 package ({error})") from None


def _root(path: str, archive: zipfile.ZipFile) -> str:
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


def _check_sizes(path: str, archive: zipfile.ZipFile, size: int) -> None:
    """Before anything is read: a member that inflates, or lengths that the file does not have."""
    members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ValueError(f"{path}: member {member.filename!r} is compressed, {member.compress_size} to "
                             f"{member.file_size} bytes; packages store theirs as they are")  # fmt: skip
        if member.file_size > size:
            raise ValueError(f"{path}: member {member.filename!r} says {member.file_size} bytes, the file has {size}")
    if (total := sum(member.file_size for member in members)) > size:
        raise ValueError(f"{path}: members of {total} bytes overlap in a file of {size}")
    if archive.comment or min(member.header_offset for member in members):
        raise ValueError(f"{path}: has other bytes before or behind the archive")


def _parse(path: str, archive: zipfile.ZipFile, root: str) -> dict[str, Any]:
    name = f"{root}/{MEMBER}"
    if name not in archive.namelist():
        raise ValueError(f"{path}: has no {MEMBER}: not written by hepops.export")
    if archive.getinfo(name).file_size > _MOST:
        raise ValueError(f"{path}: {MEMBER} is too long, {archive.getinfo(name).file_size} bytes")
    try:
        description = json.loads(archive.read(name), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {MEMBER} is not JSON ({error})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{path}: {MEMBER} is not the description of a {FORMAT}")
    if (version := description.get("version")) != VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > VERSION
        raise ValueError(
            f"{path}: version {version!r:.80} is {'newer than' if newer else 'not'} this library's {VERSION}"
        )
    missing = [key for key in _REQUIRED if key not in description]
    if missing or not isinstance(description["members"], dict):
        raise ValueError(f"{path}: {MEMBER} lacks {missing or ['members']}")
    if (found := _own_digest(description)) != description["digest"]:
        raise ValueError(f"{path}: {MEMBER} was changed: SHA-256 {found}, expected {description['digest']!r:.80}")
    check_fields(f"{path}: {MEMBER}", description)
    return description


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key stands twice: a reader must see what the program reads."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(
            f"{next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)!r:.80} stands there twice"
        )
    return found


def _own_digest(description: dict[str, Any]) -> str:
    """SHA-256 of the description itself, in one way of writing it."""
    others = {key: value for key, value in description.items() if key != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _compare(path: str, archive: zipfile.ZipFile, root: str, members: dict[str, Any]) -> None:
    there = {name.partition("/")[2] for name in archive.namelist()} - {MEMBER}
    for name in sorted(there ^ set(members)):
        raise ValueError(f"{path}: member {name!r} is {'not in its description' if name in there else 'missing'}")
    for name, expected in members.items():
        found = _digest(archive, f"{root}/{name}")
        if found != expected:
            raise ValueError(f"{path}: member {name!r} was changed: SHA-256 {found}, expected {expected}")


def _check_code(path: str, members: dict[str, Any]) -> None:
    """Without these torch finds no model, and says so without the file's name."""
    for what, end in (("compiled code", ".so"), ("description of the machine", "_metadata.json")):
        if not any(name.startswith(_CODE) and name.endswith(end) for name in members):
            raise ValueError(f"{path}: has no {what}: a member {_CODE}*{end} is missing")


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
        return sha.hexdigest()
