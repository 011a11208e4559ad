"""NERSC and ILDG files, against bytes that are put together here, one link after the other."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hepops.lattice import SUN
from hepops.lattice.gaugefiles import read_ildg, read_nersc, write_nersc
from torch.testing import assert_close

SHAPE = (2, 3, 4, 5)
THEORY = SUN(3, SHAPE, 6.0)


def links(dtype=torch.float64):
    return THEORY.random(1, seed=4, dtype=dtype)


def stream(U, rows, kind):
    """The numbers in the order of the archive: t slowest, then z, y, x, mu, row, column, (re, im)."""
    out = []
    for t in range(SHAPE[3]):
        for z in range(SHAPE[2]):
            for y in range(SHAPE[1]):
                for x in range(SHAPE[0]):
                    for mu in range(4):
                        for row in range(rows):
                            for entry in U[0, mu, x, y, z, t, row].tolist():
                                out += [entry.real, entry.imag]
    return struct.pack(f">{len(out)}{kind}", *out)


def header(path):
    text = path.read_bytes().split(b"END_HEADER\n")[0].decode()
    return dict(line.split(" = ", 1) for line in text.splitlines()[1:])


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "f"), (torch.float64, "d")])
def test_nersc_bytes(tmp_path, rows, dtype, kind):
    path, U = tmp_path / "lat", links(dtype)
    write_nersc(path, U, rows=rows, label="test", sequence=7)
    data = path.read_bytes().split(b"END_HEADER\n", 1)[1]
    assert data == stream(U, rows, kind)
    words = struct.unpack(f">{len(data) // 4}I", data)
    head = header(path)
    assert int(head["CHECKSUM"], 16) == sum(words) % 2**32
    assert float(head["PLAQUETTE"]) == pytest.approx(THEORY.plaquette(U).item(), abs=1e-6)
    trace = U.diagonal(dim1=-2, dim2=-1).sum(-1).real.double().mean().item() / 3
    assert float(head["LINK_TRACE"]) == pytest.approx(trace, abs=1e-6)
    assert [int(head[f"DIMENSION_{i}"]) for i in range(1, 5)] == list(SHAPE)
    assert head["DATATYPE"] == ("4D_SU3_GAUGE" if rows == 2 else "4D_SU3_GAUGE_3x3")
    back = read_nersc(path)
    assert back.dtype == U.dtype
    if rows == 3:
        assert torch.equal(back, U)
    else:
        assert torch.equal(back[..., :2, :], U[..., :2, :])
        assert_close(back, U, rtol=0, atol=1e-14 if dtype == torch.float64 else 1e-6)


def test_nersc_double_as_single(tmp_path):
    write_nersc(tmp_path / "lat", links(), dtype=torch.float32)
    assert_close(read_nersc(tmp_path / "lat"), links().to(torch.complex64), rtol=0, atol=0)


def corrupted(tmp_path, old, new, U=None):
    path = tmp_path / "lat"
    write_nersc(path, links() if U is None else U)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def test_nersc_refuses(tmp_path):
    path = tmp_path / "lat"
    write_nersc(path, links())
    content, said = path.read_bytes(), header(path)["CHECKSUM"]
    broken = bytearray(content)
    broken[-1] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=rf"checksum of the links is [0-9a-f]+, the header says {said}") as error:
        read_nersc(path)
    assert error.value.args[0].count(said) == 1  # the other one differs
    read_nersc(path, verify=False)
    path.write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r"has \d+ bytes of links, \d+ are wanted"):
        read_nersc(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no NERSC file"):
        read_nersc(path)
    with pytest.raises(FileNotFoundError):
        read_nersc(tmp_path / "missing")
    for name, value in (("PLAQUETTE", b"0.5"), ("LINK_TRACE", b"0.5")):
        old = f"{name} = {header_of(content)[name]}".encode()
        with pytest.raises(ValueError, match=rf"{name} of the links is .*, the header says 0.5"):
            read_nersc(corrupted(tmp_path, old, f"{name} = ".encode() + value))
    for old, new, text in (
        (b"IEEE64BIG", b"IEEE16BIG", "FLOATING_POINT must be one of .* got IEEE16BIG"),
        (b"4D_SU3_GAUGE_3x3", b"4D_SU2_GAUGE", "DATATYPE must be one of .* got 4D_SU2_GAUGE"),
        (b"DIMENSION_4", b"DIMENSION_9", "the header has no DIMENSION_4"),
        (b"PLAQUETTE = ", b"PLAQUETTE = x", "PLAQUETTE is no number: 'x"),
        (b"CHECKSUM = ", b"CHECKSUM = x", "CHECKSUM is no hexadecimal number: x"),
        (b"IEEE64BIG", b"IEEE64LITTLE", "checksum of the links is"),
    ):
        with pytest.raises(ValueError, match=text):
            read_nersc(corrupted(tmp_path, old, new))


def header_of(content):
    text = content.split(b"END_HEADER\n")[0].decode()
    return dict(line.split(" = ", 1) for line in text.splitlines()[1:])


def test_nersc_refuses_to_write(tmp_path):
    path = tmp_path / "lat"
    with pytest.raises(ValueError, match=r"not in SU\(3\)"):
        write_nersc(path, 1.01 * links())
    with pytest.raises(ValueError, match=r"links must have shape .* got \(2, 4"):
        write_nersc(path, links().repeat(2, 1, 1, 1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="rows must be 2 or 3, got 1"):
        write_nersc(path, links(), rows=1)
    with pytest.raises(TypeError, match="links must be complex"):
        write_nersc(path, links().real)
    with pytest.raises(ValueError, match="must be one line"):
        write_nersc(path, links(), label="a\nb")
    assert not path.exists() and not list(tmp_path.glob(".*"))


def record(kind, data, begin=0, end=0):
    head = struct.pack(">IHHQ", 0x456789AB, 1, begin << 15 | end << 14, len(data)) + kind.encode().ljust(128, b"\0")
    return head + data + b"\0" * (-len(data) % 8)


def scidac(data):
    size, a, b = len(data) // np.prod(SHAPE), 0, 0
    for rank in range(np.prod(SHAPE)):
        crc = zlib.crc32(data[rank * size : (rank + 1) * size])
        a ^= (crc << rank % 29 | crc >> 32 - rank % 29) & 0xFFFFFFFF
        b ^= (crc << rank % 31 | crc >> 32 - rank % 31) & 0xFFFFFFFF
    return a, b


def ildg(U, kind, field="su3gauge", sums=None, drop=()):
    data = stream(U, 3, kind)
    extents = "".join(f"<l{name}>{extent}</l{name}>" for name, extent in zip("xyzt", SHAPE, strict=True))
    precision = 32 if kind == "f" else 64
    xml = f"<?xml version='1.0'?><ildgFormat><version>1.0</version><field>{field}</field>"
    xml += f"<precision>{precision}</precision>{extents}</ildgFormat>"
    a, b = scidac(data) if sums is None else sums
    check = f"<scidacChecksum><version>1.0</version><suma>{a:x}</suma><sumb>{b:x}</sumb></scidacChecksum>"
    parts = {
        "scidac-private-file-xml": b"<x/>",
        "ildg-format": xml.encode(),
        "ildg-binary-data": data,
        "scidac-checksum": check.encode(),
    }
    return b"".join(record(name, content, 1, 1) for name, content in parts.items() if name not in drop)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "f"), (torch.float64, "d")])
def test_ildg(tmp_path, dtype, kind):
    path = tmp_path / "lat.lime"
    path.write_bytes(ildg(links(dtype), kind))
    assert torch.equal(read_ildg(path), links(dtype))
    path.write_bytes(ildg(links(dtype), kind, drop=("scidac-checksum",)))
    assert torch.equal(read_ildg(path), links(dtype))


def test_ildg_refuses(tmp_path):
    path, U = tmp_path / "lat.lime", links()
    good = ildg(U, "d")
    for content, text in (
        (ildg(U, "d", sums=(1, 2)), "checksum suma of the links is [0-9a-f]+, the file says 1"),
        (ildg(U, "d", field="su2gauge"), "the field must be su3gauge, got su2gauge"),
        (ildg(U, "d", drop=("ildg-format",)), "has no record ildg-format, only scidac-private-file-xml"),
        (good[:-400], "ends within|is cut"),
        (good[: len(good) // 2], "record ildg-binary-data of .* is cut"),
        (b"0" * 200, "is no LIME file, byte 0 has 0x30303030"),
        (good.replace(b"<lx>2</lx>", b"<lx>3</lx>"), "bytes of links, .* are wanted"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=text):
            read_ildg(path)
    with pytest.raises(FileNotFoundError):
        read_ildg(tmp_path / "missing")
