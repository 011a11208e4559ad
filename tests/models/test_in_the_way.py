"""What stands where a model's files should be, and places that cannot be written: named, and nothing half written."""

import errno
import os
import shutil
import tempfile

import hepops
import pytest
import torch

from .test_tampered import CARD, SUMS, WEIGHTS, folder, forge, refused  # noqa: F401


def model():
    return hepops.flows.MLP(2, 3, hidden=(4,))


def contents(place):
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def in_place_of(file, what):
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "link to itself":
        file.symlink_to(file.name)
    else:
        file.symlink_to("nothing")


@pytest.mark.parametrize("what", ["folder", "pipe", "link to itself", "link to nothing"])
@pytest.mark.parametrize("name", [WEIGHTS, CARD, SUMS])
def test_what_is_no_file(folder, name, what):  # noqa: F811
    in_place_of(folder / name, what)
    with pytest.raises(ValueError, match=f"{name}: is no plain file"):
        hepops.models.verify(folder)


def test_paths_that_name_nothing(folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    for path in ("", "a\0b"):
        for use in (lambda p=path: hepops.save(model(), p), lambda p=path: hepops.load(p)):
            with pytest.raises(ValueError, match="is no path"):
                use()
    with pytest.raises(ValueError, match=f"{WEIGHTS}: is a file; a saved model is a folder"):
        hepops.load(folder / WEIGHTS)
    (tmp_path / "link").symlink_to("nowhere/at/all")
    with pytest.raises(ValueError, match="link: is a link that leads nowhere"):
        hepops.save(model(), tmp_path / "link")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "m"]


@pytest.mark.parametrize("name", [WEIGHTS, CARD, SUMS])
def test_nothing_is_replaced_where_something_is_in_the_way(folder, name):  # noqa: F811
    in_place_of(folder / name, "folder")
    before = contents(folder)
    with pytest.raises(ValueError, match=f"{name}: is in the way, and is no file"):
        hepops.save(model(), folder, overwrite=True)
    assert contents(folder) == before


def test_weights_of_another_model_are_named(folder, tmp_path):  # noqa: F811
    other = model()
    torch.nn.init.ones_(other.layers[0].bias)
    hepops.save(other, tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / WEIGHTS, folder / WEIGHTS)
    refused(folder, WEIGHTS, "was changed in layers.0.bias")


@pytest.mark.parametrize("full", [1, 2, 3])
def test_a_full_disk_leaves_the_model_that_was_there(folder, monkeypatch, full):  # noqa: F811
    """Whichever of the three files it is that does not fit."""
    from pathlib import Path

    write, count, before = Path.write_bytes, [0], contents(folder)

    def until(self, content):
        count[0] += 1
        if count[0] == full:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    other = model()
    torch.nn.init.ones_(other.layers[0].bias)
    monkeypatch.setattr(Path, "write_bytes", until)
    with pytest.raises(OSError, match="No space") as error:
        hepops.save(other, folder, overwrite=True)
    assert count[0] == full and str(folder) in str(error.value)
    assert contents(folder) == before and hepops.load(folder) is not None
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_a_full_disk_leaves_no_new_folder(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        hepops.save(model(), tmp_path / "new")
    assert error.value.filename == str(tmp_path / "new") and list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """By its own name, not by that of a temporary file; root may write everywhere, so the refusal is made here."""

    def refuse(*arguments, dir=None, **options):
        raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/.new.part")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError) as error:
        hepops.save(model(), tmp_path / "new")
    assert error.value.filename == str(tmp_path / "new") and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_keeps_what_it_has(folder):  # noqa: F811
    before = contents(folder)
    folder.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match=str(folder)):
            hepops.save(model(), folder, overwrite=True)
    finally:
        folder.chmod(0o755)
    assert contents(folder) == before


def test_the_longest_name_that_a_folder_may_have(tmp_path):
    hepops.save(model(), tmp_path / ("n" * 255))
    with pytest.raises(OSError, match="too long"):
        hepops.save(model(), tmp_path / ("n" * 256))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checksum_in_capitals_is_the_same(folder):  # noqa: F811
    import hashlib

    known = hashlib.sha256((folder / CARD).read_bytes()).hexdigest()
    assert torch.is_tensor(next(hepops.load(folder, sha256=known.upper()).parameters()))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c: c["files"][WEIGHTS].pop("sha256"), "must have bytes and a sha256"),
        (lambda c: c["files"][WEIGHTS].update(sha256=None), "must have bytes and a sha256"),
        (lambda c: c["files"][WEIGHTS].update(sha256="0" * 63), "must have bytes and a sha256"),
        (lambda c: c["tensors"][WEIGHTS]["layers.0.bias"].pop("sha256"), "must have dtype, shape and sha256"),
        (lambda c: c["tensors"][WEIGHTS]["layers.0.bias"].update(sha256=None), "layers.0.bias: sha256 expected None"),
        (lambda c: c.update(data={"train": 3}), "data must be words, got [3]"),
        (lambda c: c.update(authors=[3]), "authors must be words, got [3]"),
    ],
)
def test_checksums_and_words_that_are_missing(folder, change, word):  # noqa: F811
    def changed(card):
        change(card)
        return card

    forge(folder, changed)
    refused(folder, word)
