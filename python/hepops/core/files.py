"""Files that are either whole or not there, and errors about them in one line."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def umask() -> int:
    """The process's file mode mask, read without setting it: another thread may be making a file."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it takes the place of `path` in one step, on failure it is removed.

    A reader, or a kill at any moment, finds the old file or the new one, never a part.

    Raises:
        OSError: no space, no permission or no folder, with the name of `path`.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None
    os.close(handle)
    try:
        os.chmod(name, 0o666 & ~umask())  # mkstemp's 0600 would stay on the finished file
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        with suppress(FileNotFoundError):  # its folder may be gone, too
            os.unlink(name)
        if number := _errno(error):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _errno(error: BaseException) -> int:
    """The system's error that stopped a write, such as a full disk, where the exception names no file; else 0."""
    if isinstance(error, OSError) and error.errno:
        return 0 if error.filename else error.errno
    found = re.search(r"errno = (\d+)", str(error))  # HDF5 says it in a RuntimeError's or OSError's text
    return int(found[1]) if found and isinstance(error, RuntimeError | OSError) else 0


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """An HDF5 file to read; a foreign or truncated one is a ValueError of one line, a missing one FileNotFoundError.

    Raises:
        IsADirectoryError: it is a folder.
    """
    import h5py

    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file in it")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file, truncated or foreign ({error})") from None
    with file:
        try:
            yield file
        except OSError as error:  # cut after its head: the data are missing
            raise ValueError(f"{path}: truncated HDF5 file ({error})") from None
