"""Files of the International Lattice Data Grid."""

import math
import re
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from . import lime
from .order import from_file


def read_ildg(path: str | Path, *, verify: bool = True) -> Tensor:
    r"""The links of an ILDG file: LIME records `ildg-format` (XML), `ildg-binary-data` and `scidac-checksum`.

    Numbers are big-endian; sites with x fastest, then the links x, y, z, t as 3 x 3 matrices. SciDAC's checksums: the
    CRC-32 of every site's bytes, turned left by its number modulo 29 (suma) and 31 (sumb), all of them by exclusive or.

    Args:
        path: The file.
        verify: Whether to compare the SciDAC checksums, where the file has them.

    Returns:
        U, shape (1, 4, L_x, L_y, L_z, L_t, 3, 3), complex64 or complex128 as in the file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no LIME file or a truncated one, a record that is missing, another field, a length that does not
            fit; a checksum that differs: the message says both.

    References:
        | ILDG Metadata Working Group, ILDG binary file format, rev. 1.2 (2008)
        | SciDAC QIO, DML_checksum_accum; C-LIME 1.3
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found: dict[str, lime.Record] = {}
    for record in lime.records(path):
        found.setdefault(record.kind, record)  # the first message is the gauge field's
    for name in ("ildg-format", "ildg-binary-data"):
        if name not in found:
            raise ValueError(f"{path}: has no record {name}, only {', '.join(found) or 'none'}")
    kind, extents = _format(path, lime.text(path, found["ildg-format"]))
    data = found["ildg-binary-data"]
    wanted = math.prod(extents) * 4 * 18 * kind.itemsize
    if data.length != wanted:
        raise ValueError(f"{path}: has {data.length} bytes of links, {wanted} are wanted for {extents}")
    raw = np.fromfile(path, kind, count=wanted // kind.itemsize, offset=data.start)
    if verify and "scidac-checksum" in found:
        _verify(path, lime.text(path, found["scidac-checksum"]), raw, math.prod(extents))
    return from_file(raw.astype(kind.newbyteorder("=")), extents, 3)


def scidac_checksums(raw: np.ndarray, sites: int) -> tuple[int, int]:
    """suma and sumb of the bytes of a file, `sites` pieces of equal length."""
    pieces = raw.view(np.uint8).reshape(sites, -1)
    crc = np.fromiter((zlib.crc32(piece.tobytes()) for piece in pieces), np.uint64, sites)
    sums = []
    for period in (29, 31):
        by = np.arange(sites, dtype=np.uint64) % np.uint64(period)
        turned = (crc << by | crc >> (np.uint64(32) - by)) & np.uint64(0xFFFFFFFF)
        sums.append(int(np.bitwise_xor.reduce(turned)))
    return sums[0], sums[1]


def _format(path: Path, xml: str) -> tuple[np.dtype, list[int]]:
    """The type of a number and the extents."""
    field, precision = _element(path, xml, "field"), _element(path, xml, "precision")
    if field != "su3gauge":
        raise ValueError(f"{path}: the field must be su3gauge, got {field}")
    if precision not in ("32", "64"):
        raise ValueError(f"{path}: the precision must be 32 or 64, got {precision}")
    extents = [_element(path, xml, name) for name in ("lx", "ly", "lz", "lt")]
    if not all(extent.isdigit() and int(extent) > 0 for extent in extents):
        raise ValueError(f"{path}: the extents must be positive, got {extents}")
    return np.dtype(f">f{int(precision) // 8}"), [int(extent) for extent in extents]


def _element(path: Path, xml: str, name: str) -> str:
    match = re.search(rf"<{name}>\s*(.*?)\s*</{name}>", xml, re.DOTALL)
    if match is None:
        raise ValueError(f"{path}: has no element {name}")
    return match[1]


def _verify(path: Path, xml: str, raw: np.ndarray, sites: int) -> None:
    for name, got in zip(("suma", "sumb"), scidac_checksums(raw, sites), strict=True):
        said = _element(path, xml, name)
        if int(said, 16) != got:
            raise ValueError(f"{path}: checksum {name} of the links is {got:x}, the file says {said}")
