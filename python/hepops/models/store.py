"""Where a registry keeps its files: a folder, or whatever fsspec reaches (S3, HTTP, memory).

Two operations carry the weight. `write` replaces an object in one step; `create` makes one that was not there, or says
that somebody else was first. Both leave a reader the whole object or none.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hepops.core.files import atomic, umask


class Store(Protocol):
    """Objects by paths such as "flow/versions/3.json"."""

    local: bool

    def read(self, path: str) -> bytes:
        """The content; FileNotFoundError where there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Put or replace, in one step."""

    def create(self, path: str, content: bytes) -> bool:
        """Put where nothing is; False where something is."""

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none where there is no folder. Hidden ones are left out."""

    def hidden(self, path: str) -> list[str]:
        """What a write that was killed may have left in a folder."""

    def age(self, path: str) -> float:
        """Seconds since an object, or the newest in a folder, was written; 0 where this is not known."""

    def remove(self, path: str) -> None:
        """An object, or a folder with all that is in it."""


class Folder:
    """A folder of this machine, or one that several machines see."""

    local = True

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.root / path) as part:
            part.write_bytes(content)

    def create(self, path: str, content: bytes) -> bool:
        final = self.root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~umask())
            try:
                os.link(name, final)  # with its content or not at all, and never over another
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _create_in_place(final, content)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
        return True

    def names(self, path: str) -> list[str]:
        return sorted(name for name in self._all(path) if not name.startswith("."))

    def hidden(self, path: str) -> list[str]:
        return sorted(name for name in self._all(path) if name.startswith(".") and name.endswith(".part"))

    def _all(self, path: str) -> list[str]:
        try:
            return os.listdir(self.root / path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def age(self, path: str) -> float:
        at = self.root / path
        times = (
            [at.stat().st_mtime, *(p.stat().st_mtime for p in at.rglob("*"))] if at.is_dir() else [at.stat().st_mtime]
        )
        return time.time() - max(times)

    def remove(self, path: str) -> None:
        import shutil

        at = self.root / path
        if at.is_dir():
            shutil.rmtree(at)
        else:
            at.unlink(missing_ok=True)


# What file systems without hard links answer, as EOS, some CIFS and FAT are
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def _create_in_place(final: Path, content: bytes) -> bool:
    """Never over another, either, but a kill may leave a part: `Registry` reads none and counts its number as taken."""
    try:
        with open(final, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


_BUCKETS = ("s3:", "s3a:", "gs:", "gcs:", "az:", "abfs:", "abfss:")
_WAITS = (0.1, 0.3, 1.0, 3.0)  # seconds; S3 asks a conditional write to come again that met another one


class Remote:
    """What fsspec reaches. An object appears whole; `create` needs a store with conditional writes, as S3 has them."""

    local = False

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError:
            raise ImportError(f"{url}: registries at URLs need fsspec: pip install hepops[registry]") from None
        self.url = url
        self.fs, root = url_to_fs(url, **options)
        self.root = root.rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")

    def read(self, path: str) -> bytes:
        content: bytes = self.fs.cat_file(self._at(path))
        return content

    def write(self, path: str, content: bytes) -> None:
        self._put(path, content, "overwrite")

    def create(self, path: str, content: bytes) -> bool:
        for wait in (*_WAITS, None):
            try:
                self._put(path, content, "create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if wait is None or "ConditionalRequestConflict" not in f"{error} {error.__cause__}":
                    raise
                time.sleep(wait)
        return False

    def _put(self, path: str, content: bytes, mode: str) -> None:
        if self.url.startswith(("http:", "https:")):  # a server may take a PUT, but has no way to refuse the second
            raise PermissionError(f"{self.url}: can be read, not written")
        parent = self._at(path).rpartition("/")[0]
        try:
            if not self.url.startswith(_BUCKETS):  # which know no folders, and would make the bucket of a misspelt name
                with suppress(NotImplementedError):
                    self.fs.makedirs(parent, exist_ok=True)
            self.fs.pipe_file(self._at(path), content, mode=mode)
        except NotImplementedError:
            raise PermissionError(f"{self.url}: can be read, not written") from None
        except (FileNotFoundError, PermissionError) as error:  # such as a bucket that is not there
            raise type(error)(f"{self.url}: {error}") from error

    def names(self, path: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self._at(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(name).rstrip("/").rpartition("/")[2] for name in found if str(name).rstrip("/") != self._at(path)}
        return sorted(name for name in names if not name.startswith("."))

    def hidden(self, path: str) -> list[str]:
        return []  # an object is there when it is whole

    def age(self, path: str) -> float:
        from datetime import UTC, datetime

        ages = []
        for name in self.fs.find(self._at(path)) or [self._at(path)]:
            try:
                when = self.fs.modified(name)
            except (NotImplementedError, KeyError, FileNotFoundError):
                return 0.0
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            ages.append((datetime.now(UTC) - when).total_seconds())
        return min(ages)

    def remove(self, path: str) -> None:
        self.fs.rm(self._at(path), recursive=True)


def open_store(url: str | Path, options: dict[str, Any]) -> Store:
    """The store of a path or URL."""
    text = str(url)
    if text.startswith("file://"):
        return Folder(text.removeprefix("file://"))
    return Remote(text, options) if "://" in text else Folder(text)
