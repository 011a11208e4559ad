"""LIME: records of a type and some bytes, one after the other (SciDAC; C-LIME 1.3)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = 0x456789AB
HEADER = struct.Struct(">IHHQ128s")  # magic, version, message begin and end, bytes, type


class Record(NamedTuple):
    """What a record holds, and where in the file."""

    kind: str
    start: int
    length: int


def records(path: Path) -> Iterator[Record]:
    """The records of a file.

    Raises:
        ValueError: no LIME file, or one that ends within a record.
    """
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(HEADER.size)
            if len(head) < HEADER.size:
                raise ValueError(f"{path}: ends within the header of a record, at byte {at}")
            magic, _, _, length, kind = HEADER.unpack(head)
            if magic != MAGIC:
                raise ValueError(f"{path}: is no LIME file, byte {at} has {magic:#x} and not {MAGIC:#x}")
            start = at + HEADER.size
            name = kind.split(b"\0")[0].decode("ascii", "replace")
            if start + length > size:
                raise ValueError(f"{path}: record {name} of {length} bytes is cut, {size - start} are there")
            yield Record(name, start, length)
            at = start + (length + 7) // 8 * 8


def text(path: Path, record: Record) -> str:
    with open(path, "rb") as file:
        file.seek(record.start)
        return file.read(record.length).rstrip(b"\0").decode("utf-8", "replace")
