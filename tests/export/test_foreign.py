"""Packages that somebody made to be taken for ours: each is refused by the name of its file, before torch sees it."""

import json
import re
import struct
import zipfile

import pytest
import torch
from hepops import export
from hepops.export import archive, run
from torch.testing import assert_close

from .test_package import edited, rewrite


def described(package, change=lambda members: members, **changes):
    """(root, members, description) of a package, the description with its checksums made again."""
    with zipfile.ZipFile(package) as old:
        members = {name: old.read(name) for name in old.namelist()}
    (head,) = (name for name in members if name.endswith(archive.MEMBER))
    text, root = json.loads(members.pop(head)) | changes, head.partition("/")[0]
    members = change(members)
    text["members"] = {n.partition("/")[2]: archive.hashlib.sha256(d).hexdigest() for n, d in members.items()}
    text["digest"] = archive._own_digest(text)
    return members | {f"{root}/{archive.MEMBER}": json.dumps(text).encode()}


def write(target, members, **options):
    with zipfile.ZipFile(target, "w", **options) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return target


def refused(target, message):
    with pytest.raises(ValueError, match=message) as error:
        export.load(target)
    assert str(target) in str(error.value) and "\n" not in str(error.value)


def test_a_remade_package_is_sound_before(package, tmp_path, event):
    """So that what follows is refused for what it changes."""
    coordinates, charge = event(40)
    again = export.load(write(tmp_path / "again.pt2", described(package)))
    assert_close(again(coordinates, charge), export.load(package)(coordinates, charge), rtol=0, atol=0)


@pytest.mark.parametrize("end", [".so", "_metadata.json"])
def test_a_package_without_its_code_is_refused_though_its_checksums_agree(package, tmp_path, end):
    members = described(package, lambda members: {n: d for n, d in members.items() if not n.endswith(end)})
    refused(write(tmp_path / "empty.pt2", members), rf"a member data/aotinductor/model/\*{end} is missing")


def test_what_torch_does_not_load_is_named_too(package, tmp_path):
    members = described(package, lambda members: {n: b"" if n.endswith(".so") else d for n, d in members.items()})
    refused(write(tmp_path / "hollow.pt2", members), r"torch does not load it .*made with hepops .* \(here ")


def test_members_that_inflate_are_refused_before_they_do(package, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_digest", None)  # nothing is read
    bomb = described(package, lambda members: members | {"model/data/zeros": bytes(1 << 24)})
    refused(write(tmp_path / "bomb.pt2", bomb, compression=zipfile.ZIP_DEFLATED), r"member '.*' is compressed, \d+ to")


def lengthened(path, name, size):
    """The archive's directory says that a member has so many bytes."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name.encode()) - 46  # in the directory: signature, ..., sizes at 20 and 24, name at 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 20 : at + 28] = struct.pack("<II", size, size)
    path.write_bytes(data)


def test_lengths_that_the_file_does_not_have_are_refused(package, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_digest", None)
    target = write(tmp_path / "long.pt2", described(package))
    size = target.stat().st_size
    lengthened(target, "model/archive_format", 1 << 31)
    refused(target, rf"member 'model/archive_format' says {1 << 31} bytes, the file has {size}")
    write(target, described(package))
    lengthened(target, "model/archive_format", size - 200)
    refused(target, r"members of \d+ bytes overlap in a file of")


def test_bytes_around_the_archive_are_refused(package, tmp_path):
    target = tmp_path / "around.pt2"
    target.write_bytes(b"MZ" + package.read_bytes())
    refused(target, "other bytes before or behind")
    with zipfile.ZipFile(write(target, described(package)), "a") as changed:
        changed.comment = b"more"
    refused(target, "other bytes before or behind")


def test_a_member_that_is_there_twice_is_refused(package, tmp_path):
    target = write(tmp_path / "twice.pt2", described(package))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(target, "a") as changed:
        changed.writestr("model/archive_format", "pt2")
    refused(target, "'model/archive_format' is there twice")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "version 0 is not"),
        ({"version": True}, "version True is not"),
        ({"version": "1"}, "version '1' is not"),
        ({"machine": "fast"}, "machine must be one with its level, got 'fast'"),
        ({"model": {}}, "model must be one with its class"),
        ({"versions": {"torch": "2.10"}}, "versions must be those of hepops and torch"),
        ({"classes": [1]}, "classes must be words"),
        ({"inputs": []}, "inputs must be tensors"),
        ({"inputs": [{"name": "x", "dtype": "load", "shape": [1]}]}, "inputs must be tensors with name, dtype"),
        ({"outputs": [{"name": "x", "dtype": "int64", "shape": [-1]}]}, "outputs must be tensors with name, dtype"),
        ({"outputs": [{"name": "x", "dtype": "int64", "shape": 3}]}, "outputs must be tensors with name, dtype"),
    ],
)
def test_descriptions_of_another_kind_are_refused(package, tmp_path, changes, message):
    refused(rewrite(package, tmp_path / "odd.pt2", edited(**changes)), re.escape(message))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"format": "a", "format": "hepops.export"}', "'format' stands there twice"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not the description"),
    ],
)
def test_descriptions_that_are_no_plain_json_are_refused(package, tmp_path, text, message):
    def change(name, data):
        return [(name, text if name.endswith(archive.MEMBER) else data)]

    refused(rewrite(package, tmp_path / "text.pt2", change), message)


def test_another_version_is_warned_of_by_name(package, tmp_path):
    versions = {"hepops": "77.1.0", "torch": torch.__version__}
    target = rewrite(package, tmp_path / "later.pt2", edited(versions=versions))
    with pytest.warns(UserWarning, match=r"later\.pt2: was made with hepops 77\.1\.0 \(here "):
        export.load(target)


def test_what_was_verified_is_what_is_loaded(package, tmp_path, event, monkeypatch):
    """The file is exchanged between the two: what torch opens is the copy that was verified."""
    target, read = tmp_path / "changed.pt2", run.read_description
    target.write_bytes(package.read_bytes())

    def exchange(*arguments):
        found = read(*arguments)
        target.write_bytes(b"another file")
        return found

    monkeypatch.setattr(run, "read_description", exchange)
    loaded = export.load(target)
    assert target.read_bytes() == b"another file"
    coordinates, charge = event(40)
    assert_close(loaded(coordinates, charge), export.load(package)(coordinates, charge), rtol=0, atol=0)
