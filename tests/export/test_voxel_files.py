"""Voxel files that are none, and packages that are broken where no checksum reaches, are refused by name."""

import hashlib
import json
import zipfile

import h5py
import numpy as np
import pytest
import torch
from hepops.export import describe, label_file
from hepops.export.archive import _own_digest
from hepops.export.run import Exported

VOXELS = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [1, 0, 0, 0]])
CHARGE = np.array([1.0, 2.0, 4.0], np.float32)
DESCRIPTION = {
    "format": "hepops.export",
    "version": 1,
    "model": {"class": "a.Model"},
    "inputs": [
        {"name": "coordinates", "dtype": "int64", "shape": ["voxels", 4]},
        {"name": "charge", "dtype": "float32", "shape": ["voxels"]},
    ],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["voxels", 2]}],
    "machine": {"level": "v2"},
    "versions": {"hepops": "0.1", "torch": "2.10"},
    "classes": ["a", "b"],
    "sha256": "0" * 64,
}


@pytest.fixture
def label(tmp_path):
    """Labels of a file with these datasets, from a package that takes the charge as its logit."""
    package = Exported(DESCRIPTION, lambda given: torch.stack((given[1], given[0].sum(1).float()), 1))

    def run(coordinates, charge):
        with h5py.File(tmp_path / "voxels.h5", "w") as file:
            for name, x in (("coordinates", coordinates), ("charge", charge)):
                if x is None:
                    file.create_group(name)
                else:
                    file[name] = x
        return label_file(package, tmp_path / "voxels.h5", tmp_path / "labels.h5").tolist()

    return run


@pytest.mark.parametrize("kind", ["<i8", ">i8", "<i4", ">i2", "u1", "<u2", ">u8"])
def test_whole_numbers_of_every_width_and_order(label, kind):
    assert label(VOXELS.astype(kind), CHARGE.astype(">f8")) == label(VOXELS, CHARGE) == [1, 1, 0]


@pytest.mark.parametrize(
    ("coordinates", "charge", "word"),
    [
        (None, CHARGE, "coordinates must be a dataset of numbers.*a group"),
        (np.int64(3), CHARGE, "coordinates must be a dataset of numbers"),
        (VOXELS, np.array([b"a", b"b", b"c"]), "charge must be a dataset of numbers"),
        (VOXELS, ["a", "b", "c"], "charge must be a dataset of numbers"),
        (VOXELS, CHARGE.astype(complex), "charge must be a dataset of numbers"),
        (VOXELS, h5py.Empty("f4"), "charge must be a dataset of numbers"),
        (VOXELS.astype(bool), CHARGE, "coordinates must be numbers"),
        (np.full((3, 4), 2**63, np.uint64), CHARGE, "coordinates must lie below"),
        (VOXELS[:, 0], CHARGE, "coordinates must have shape"),
        (VOXELS[:, 1:], CHARGE, "coordinates must have shape"),
        (VOXELS, CHARGE[:, None], "charge must have shape"),
        (VOXELS, np.array([1.0, np.nan, 2.0]), "charge of voxel 1 is nan"),
        (VOXELS, np.array([1.0, 2.0, -np.inf]), "charge of voxel 2 is -inf"),
    ],
)
def test_datasets_that_are_no_voxels(label, tmp_path, coordinates, charge, word):
    with pytest.raises(ValueError, match=word) as error:
        label(coordinates, charge)
    assert "voxels.h5" in str(error.value) and not (tmp_path / "labels.h5").exists()


def plain(outputs, run):
    inputs = [{"name": "input0", "dtype": "float32", "shape": ["voxels", 2]}]
    made = [{"name": f"y{i}", "dtype": kind, "shape": shape} for i, (kind, shape) in enumerate(outputs)]
    return Exported(DESCRIPTION | {"inputs": inputs, "outputs": made}, lambda given: run(*given))


def test_one_row_and_none_of_a_network_without_voxels():
    """A package takes two rows or more: the one that is lent must not be seen in what comes back."""
    x = torch.tensor([[1.0, 2.0]])
    rowwise = plain([("float32", ["voxels", 2]), ("int64", ["voxels"])], lambda x: (2 * x, x.sum(1).long()))
    doubled, total = rowwise(x)
    assert doubled.tolist() == [[2.0, 4.0]] and total.tolist() == [3]
    doubled, total = rowwise(x[:0])
    assert doubled.shape == (0, 2) and total.shape == (0,) and total.dtype == torch.int64
    with pytest.raises(ValueError, match="mixes its rows"):
        plain([("float32", ["voxels", 2])], lambda x: x - x.mean(0))(x)
    mean = plain([("float32", [2])], lambda x: x.mean(0))
    assert mean(torch.cat([x, x])).tolist() == [1.0, 2.0]
    for few in (x, x[:0]):
        with pytest.raises(ValueError, match="y0 has no row for each"):
            mean(few)
    for other in (None, torch.tensor(1.0)):
        with pytest.raises((TypeError, ValueError), match="input0 must"):
            mean(other)


CODE = "data/aotinductor/model/a.so"


def package(path, **change):
    members = {CODE: bytes(range(256)) * 9, CODE.replace(".so", "_metadata.json"): b"{}"}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    description = {**DESCRIPTION, "members": digests, **change}
    description["digest"] = _own_digest(description)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "hepops.json": json.dumps(description)}.items():
            archive.writestr(f"model/{name}", content)
    return path


def test_broken_packages(tmp_path):
    path = package(tmp_path / "m.pt2")
    assert describe(path)["machine"] == {"level": "v2"}
    content = bytearray(path.read_bytes())
    begin = content.find(CODE.encode()) + len(CODE)
    content[begin + 3] ^= 0xFF
    content[begin + 5] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.pt2"):
        describe(path)


@pytest.mark.parametrize(
    "change",
    [{"machine": []}, {"machine": {}}, {"inputs": 3}, {"inputs": [3]}, {"inputs": [{"name": "x"}]}, {"outputs": []}],
)
def test_descriptions_that_say_nothing(tmp_path, change):
    with pytest.raises(ValueError, match=rf"m\.pt2: hepops\.json: {next(iter(change))} must"):
        describe(package(tmp_path / "m.pt2", **change))
