"""Files that are either whole or not there, and errors about them in one line."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it takes the place of `path` in one step, on failure it is removed.

    A reader, or a kill at any moment, finds the old file or the new one, never a part.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 would stay on the finished file
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """An HDF5 file to read; a foreign or truncated one is a ValueError of one line, a missing one FileNotFoundError."""
    import h5py

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
