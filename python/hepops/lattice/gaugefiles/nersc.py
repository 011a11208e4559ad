"""Files in the format of the NERSC archive (Gauge Connection)."""

import datetime
import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import hepops
from hepops.core.files import atomic

from ..samplers.chains import check_start
from ..sun import SUN
from .order import from_file, to_file

KINDS = {"4D_SU3_GAUGE": 2, "4D_SU3_GAUGE_3X3": 3, "4D_SU3_GAUGE_3x3": 3}  # rows of a matrix
FLOATS = {"IEEE32BIG": ">f4", "IEEE64BIG": ">f8", "IEEE32LITTLE": "<f4", "IEEE64LITTLE": "<f8", "IEEE32": ">f4"}
HEAD = 1 << 16  # bytes, at most, that a header takes


def read_nersc(path: str | Path, *, verify: bool = True) -> Tensor:
    r"""The links of a NERSC file.

    A header of text (`DIMENSION_1` = x, ...), then for every site, x fastest, the links x, y, z, t as 3 x 3 matrices,
    or their first two rows. Checksum: the sum of the data as 32-bit words, modulo 2^32; plaquette: the mean of Re tr
    P / 3; link trace: that of Re tr U / 3.

    Args:
        path: The file.
        verify: Whether to compare checksum, plaquette and link trace with the header's.

    Returns:
        U, shape (1, 4, L_x, L_y, L_z, L_t, 3, 3), complex64 or complex128 as in the file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such header, another kind of field or number, too few or too many bytes; a checksum, plaquette or
            link trace that differs: the message says both.

    References:
        | G. Kilcup, The Gauge Connection, https://qcd.nersc.gov (header and layout)

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "ckpoint_lat.1")
        >>> U = hepops.lattice.SUN(3, (2, 2, 2, 4), beta=6.0).random(1, seed=1)
        >>> hepops.lattice.gaugefiles.write_nersc(path, U)
        >>> torch.equal(hepops.lattice.gaugefiles.read_nersc(path), U)
        True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    head, start = _header(path)
    rows, kind, extents = _layout(path, head)
    wanted = math.prod(extents) * 4 * rows * 6 * kind.itemsize
    got = path.stat().st_size - start
    if got != wanted:
        raise ValueError(f"{path}: has {got} bytes of links, {wanted} are wanted for {extents} with {rows} rows")
    raw = np.fromfile(path, kind, offset=start)
    native = raw.astype(kind.newbyteorder("="))
    links = from_file(native, extents, rows)
    if verify:
        _verify(path, head, native, links)
    return links


def write_nersc(
    path: str | Path,
    links: Tensor,
    *,
    rows: int = 3,
    dtype: torch.dtype | None = None,
    ensemble_id: str = "hepops",
    label: str = "",
    sequence: int = 0,
) -> None:
    """Write links as a NERSC file: big-endian, with checksum, plaquette and link trace; whole or not at all.

    Args:
        path: Where.
        links: U of one configuration, shape (1, 4, L_x, L_y, L_z, L_t, 3, 3).
        rows: 3, or 2: the reader rebuilds the third one.
        dtype: float32 or float64; that of the links where None.
        ensemble_id, label, sequence: For the header.

    Raises:
        TypeError: links are not complex.
        ValueError: another shape, links that are not in SU(3), another number of rows or dtype.
    """
    if not links.is_complex():
        raise TypeError(f"write_nersc: links must be complex, got {links.dtype}")
    if links.dim() != 8 or links.shape[:2] != (1, 4) or links.shape[-2:] != (3, 3):
        raise ValueError(f"write_nersc: links must have shape (1, 4, Lx, Ly, Lz, Lt, 3, 3), got {tuple(links.shape)}")
    if rows not in (2, 3):
        raise ValueError(f"write_nersc: rows must be 2 or 3, got {rows!r}")
    dtype = links.real.dtype if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"write_nersc: dtype must be float32 or float64, got {dtype}")
    theory = SUN(3, links.shape[2:6], 0.0)
    check_start("write_nersc", theory, links)
    stored = links.detach().cpu().to(torch.promote_types(dtype, torch.complex32))
    values = to_file(stored[0], rows)
    kind = np.dtype(">f4" if dtype == torch.float32 else ">f8")
    now = datetime.datetime.now(datetime.UTC).strftime("%a %b %d %H:%M:%S %Y UTC")
    lines = {
        "HDR_VERSION": "1.0",
        "DATATYPE": "4D_SU3_GAUGE" if rows == 2 else "4D_SU3_GAUGE_3x3",
        "STORAGE_FORMAT": "1.0",
        **{f"DIMENSION_{i + 1}": str(extent) for i, extent in enumerate(theory.shape)},
        "LINK_TRACE": f"{_link_trace(stored):.17g}",
        "PLAQUETTE": f"{float(theory.plaquette(stored)):.17g}",
        **{f"BOUNDARY_{i + 1}": "PERIODIC" for i in range(4)},
        "CHECKSUM": f"{checksum(values):x}",
        "ENSEMBLE_ID": ensemble_id,
        "ENSEMBLE_LABEL": label,
        "SEQUENCE_NUMBER": str(sequence),
        "CREATOR": f"hepops {hepops.__version__}",
        "CREATION_DATE": now,
        "ARCHIVE_DATE": now,
        "FLOATING_POINT": "IEEE32BIG" if dtype == torch.float32 else "IEEE64BIG",
    }
    bad = [k for k, v in lines.items() if "\n" in v]
    if bad:
        raise ValueError(f"write_nersc: {bad[0]} must be one line, got {lines[bad[0]]!r}")
    text = "\n".join(["BEGIN_HEADER", *(f"{k} = {v}" for k, v in lines.items()), "END_HEADER", ""])
    with atomic(path) as part, open(part, "wb") as file:
        file.write(text.encode("ascii", "replace"))
        values.astype(kind).tofile(file)


def checksum(values: np.ndarray) -> int:
    """The sum of the numbers' 32-bit words, modulo 2^32: words have the same value in either order of bytes."""
    return int(values.view(np.uint32).sum(dtype=np.uint64) & np.uint64(0xFFFFFFFF))


def _header(path: Path) -> tuple[dict[str, str], int]:
    with open(path, "rb") as file:
        text = file.read(HEAD)
    match = re.match(rb"\s*BEGIN_HEADER\r?\n(.*?)END_HEADER\r?\n", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{path}: is no NERSC file, it does not begin with BEGIN_HEADER ... END_HEADER")
    pairs = (line.partition("=") for line in match[1].decode("ascii", "replace").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}, match.end()


def _layout(path: Path, head: dict[str, str]) -> tuple[int, np.dtype, list[int]]:
    """Rows of a matrix, the type of a number, the extents."""
    missing = [k for k in ("DATATYPE", "FLOATING_POINT", *(f"DIMENSION_{i}" for i in range(1, 5))) if k not in head]
    if missing:
        raise ValueError(f"{path}: the header has no {', '.join(missing)}")
    if head["DATATYPE"] not in KINDS:
        raise ValueError(f"{path}: DATATYPE must be one of {', '.join(KINDS)}, got {head['DATATYPE']}")
    if head["FLOATING_POINT"] not in FLOATS:
        raise ValueError(f"{path}: FLOATING_POINT must be one of {', '.join(FLOATS)}, got {head['FLOATING_POINT']}")
    try:
        extents = [int(head[f"DIMENSION_{i}"]) for i in range(1, 5)]
    except ValueError as error:
        raise ValueError(f"{path}: a DIMENSION is no whole number ({error})") from None
    if min(extents) < 1:
        raise ValueError(f"{path}: the extents must be positive, got {extents}")
    return KINDS[head["DATATYPE"]], np.dtype(FLOATS[head["FLOATING_POINT"]]), extents


def _link_trace(links: Tensor) -> float:
    return float(links.diagonal(dim1=-2, dim2=-1).real.double().mean())


def _verify(path: Path, head: dict[str, str], native: np.ndarray, links: Tensor) -> None:
    """Checksum, then plaquette and link trace to what the digits of a header and float32 leave."""
    if "CHECKSUM" in head:
        try:
            wanted = int(head["CHECKSUM"], 16)
        except ValueError:
            raise ValueError(f"{path}: CHECKSUM is no hexadecimal number: {head['CHECKSUM']}") from None
        got = checksum(native)
        if got != wanted & 0xFFFFFFFF:
            raise ValueError(f"{path}: the checksum of the links is {got:x}, the header says {wanted:x}")
    wide = links.to(torch.complex128)
    found = {
        "PLAQUETTE": lambda: float(SUN(3, links.shape[2:6], 0.0).plaquette(wide)),
        "LINK_TRACE": lambda: _link_trace(wide),
    }
    for name, value in found.items():
        if name not in head:
            continue
        try:
            said, got_value = float(head[name]), value()
        except ValueError:
            raise ValueError(f"{path}: {name} is no number: {head[name]!r}") from None
        if not abs(said - got_value) <= 2e-5:  # headers have been written with six digits
            raise ValueError(f"{path}: {name} of the links is {got_value:.8g}, the header says {said:.8g}")
