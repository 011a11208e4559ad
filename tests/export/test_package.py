"""Exported networks: the model's values on any voxels, and refusals of what is not as it was written."""

import hashlib
import json
import zipfile

import h5py
import hepops
import pytest
import torch
from hepops import export
from hepops.cli.app import app
from hepops.export import archive
from torch import nn
from torch.testing import assert_close


def batch(event):
    parts = [event(900, seed, number) for number, seed in ((4, 1), (7, 2))]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 40, 2500])
def test_values_are_the_models_on_events_of_any_size(segmenter, loaded, event, steps):
    coordinates, charge = event(steps, seed=steps)
    with torch.no_grad():
        expected = segmenter(coordinates, charge)
    logits = loaded(coordinates, charge)
    assert logits.shape == (len(coordinates), 4) and logits.dtype == torch.float32
    # the same convolutions; the compiled logarithm of the charge differs in the last bit
    assert_close(logits, expected, rtol=0, atol=1e-6)


def test_several_events_and_other_integers_do(segmenter, loaded, event):
    coordinates, charge = batch(event)
    with torch.no_grad():
        expected = segmenter(coordinates, charge)
    assert_close(loaded(coordinates.int(), charge.double()), expected, rtol=0, atol=1e-6)
    assert loaded(coordinates[:0], charge[:0]).shape == (0, 4)


def test_the_description_says_what_goes_in_and_out(package):
    made = export.describe(package)
    assert made["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert [(x["name"], x["dtype"], x["shape"]) for x in made["inputs"]] == [
        ("coordinates", "int64", ["voxels", 4]),
        ("charge", "float32", ["voxels"]),
    ]
    assert made["outputs"][0]["shape"] == ["voxels", 4] and made["classes"] == ["muon", "proton", "delta", "shower"]
    assert made["model"]["configuration"]["network"]["filters"] == 4
    assert made["versions"]["torch"] == torch.__version__


def test_a_failure_within_a_package_is_told_without_the_compilers_paths(loaded, event, monkeypatch):
    def fail(inputs):
        raise RuntimeError("run_func_ failed\n  at /var/cache/inductor/abc/wrapper.cpp:12: index out of range\n")

    monkeypatch.setattr(loaded, "_run", fail)
    coordinates, charge = event(50)
    message = rf"\.Segmenter: the package failed on these {len(charge)} rows: at wrapper\.cpp:12: index out of range$"
    with pytest.raises(RuntimeError, match=message):
        loaded(coordinates, charge)


def test_wrong_tensors_are_refused_by_name(loaded, event):
    coordinates, charge = event(50)
    with pytest.raises(ValueError, match="expected 2 tensors"):
        loaded(coordinates)
    with pytest.raises(TypeError, match=r"coordinates must be int64, got torch.float32"):
        loaded(coordinates.float(), charge)
    with pytest.raises(ValueError, match=r"charge must have shape \(\d+,\), got \(3,\)"):
        loaded(coordinates, charge[:3])
    with pytest.raises(ValueError, match=r"coordinates must have shape \(\d+, 4\)"):
        loaded(coordinates[:, :3], charge)
    twice = torch.cat([coordinates, coordinates[:1]])
    with pytest.raises(ValueError, match="hold a voxel twice"):
        loaded(twice, torch.cat([charge, charge[:1]]))


# ---- packages that are not as they were written


def rewrite(package, target, change):
    """A copy of a package whose members went through change(name, bytes) -> [(name, bytes)]."""
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for renamed, data in change(name, old.read(name)):
                new.writestr(renamed, data)
    return target


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def edited(digest=True, **changes):
    """The description with other entries, and with its own checksum made again or left."""

    def change(name, data):
        if not name.endswith("hepops.json"):
            return [(name, data)]
        text = json.loads(data) | changes
        return [(name, json.dumps(text | ({"digest": archive._own_digest(text)} if digest else {})))]

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda n, d: [(n, flipped(d) if n.endswith(".so") else d)], r"member 'data/.*\.so' was changed: SHA-256"),
        (lambda n, d: [] if n.endswith(".so") else [(n, d)], r"member 'data/.*\.so' is missing"),
        (
            lambda n, d: [(n, d)] + ([("model/data/more", b"x")] if n.endswith(".so") else []),
            "'data/more' is not in its",
        ),
        (
            lambda n, d: [(n, d)] + ([("model/../../evil", b"x")] if n.endswith(".so") else []),
            "'model/../../evil' has a",
        ),
        (lambda n, d: [(n, d)] + ([("/etc/evil", b"x")] if n.endswith(".so") else []), "'/etc/evil' has a name"),
        (
            lambda n, d: [(n, d)] + ([("other/x", b"x")] if n.endswith(".so") else []),
            r"members lie in \['model', 'other'",
        ),
        (lambda n, d: [] if n.endswith("hepops.json") else [(n, d)], "has no hepops.json"),
        (lambda n, d: [(n, b"{" if n.endswith("hepops.json") else d)], "hepops.json is not JSON"),
        (edited(format="other"), "not the description of a hepops.export"),
        (edited(version=99), "version 99 is newer"),
        (edited(members=[]), "lacks"),
        (edited(digest=False, classes=["electron", "muon"]), "hepops.json was changed: SHA-256"),
    ],
)
def test_a_changed_package_is_refused_with_its_name(package, tmp_path, change, message):
    target = rewrite(package, tmp_path / "changed.pt2", change)
    with pytest.raises(ValueError, match=message) as refused:
        export.load(target)
    assert str(target) in str(refused.value)


def test_damaged_and_foreign_files_are_refused(package, tmp_path):
    broken = tmp_path / "broken.pt2"
    data = package.read_bytes()
    for content in (data[: len(data) // 2], b"", b"not a zip", data[:5000] + flipped(data[5000:6000]) + data[6000:]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.pt2"):
            export.load(broken)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt2"):
        export.load(tmp_path / "nothing.pt2")


def test_another_sha256_and_another_processor_are_refused(package, tmp_path):
    with pytest.raises(ValueError, match=r"has SHA-256 .*, expected 00ff"):
        export.load(package, sha256="00FF")
    target = rewrite(package, tmp_path / "more.pt2", edited(machine={"device": "cpu", "level": "v9"}))
    with pytest.raises(ValueError, match="compiled for x86-64-v9"):
        export.load(target)


def test_what_does_not_export_is_refused_before_any_work(tmp_path):
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got str"):
        export.export("model", tmp_path / "x.pt2")
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        export.export(nn.Linear(1, 1), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="Flow has no forward"):
        export.export(hepops.flows.nsf(features=2, layers=1, hidden=(4,)), tmp_path / "x.pt2", (torch.ones(3, 2),))
    with pytest.raises(ValueError, match="Linear needs an example"):
        export.export(nn.Linear(1, 1), tmp_path / "x.pt2")
    with pytest.raises(ValueError, match="metadata must be what JSON can say"):
        export.export(nn.Linear(1, 1), tmp_path / "x.pt2", metadata={"x": torch.ones(1)})

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Identity()
            self.config = type("Config", (), {"num_input": 1, "data_dim": 3})()

        def forward(self, x):
            from hepops.sparse import functional

            return functional.global_pool(x, "sum")

    with pytest.raises(ValueError, match="event by event"):
        export.export(Pooled(), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


# ---- the command


def test_the_command_labels_a_file(segmenter, package, event, tmp_path, capsys):
    coordinates, charge = batch(event)
    with h5py.File(tmp_path / "voxels.h5", "w") as file:
        file["coordinates"], file["charge"] = coordinates.int().numpy(), charge.numpy()
    sha = export.describe(package)["sha256"]
    words = ["run", str(package), str(tmp_path / "voxels.h5"), "-o", str(tmp_path / "labels.h5"), "--sha256", sha]
    assert app(words, standalone_mode=False) in (None, 0)
    assert f"{len(charge)} voxels" in capsys.readouterr().out
    with h5py.File(tmp_path / "labels.h5") as file:
        label, logits = torch.from_numpy(file["label"][...]), torch.from_numpy(file["logits"][...])
        assert list(file["label"].attrs["classes"]) == ["muon", "proton", "delta", "shower"]
        assert json.loads(file.attrs["package"])["sha256"] == sha
    with torch.no_grad():
        expected = segmenter(coordinates, charge)
    assert_close(logits, expected, rtol=0, atol=1e-6)
    assert torch.equal(label, logits.argmax(1))
    assert app(words, standalone_mode=False) == 1 and "exists" in capsys.readouterr().err


def test_files_without_the_inputs_are_refused(package, tmp_path, capsys):
    with h5py.File(tmp_path / "voxels.h5", "w") as file:
        file["coordinates"] = torch.zeros(3, 4, dtype=torch.int64).numpy()
    words = ["run", str(package), str(tmp_path / "voxels.h5"), "-o", str(tmp_path / "labels.h5")]
    assert app(words, standalone_mode=False) == 1
    assert "no dataset 'charge'" in capsys.readouterr().err
    with h5py.File(tmp_path / "voxels.h5", "a") as file:
        file["charge"] = torch.zeros(2).numpy()
    assert app(words, standalone_mode=False) == 1
    assert "must have one length" in capsys.readouterr().err
    assert not (tmp_path / "labels.h5").exists()


def test_the_command_refuses_what_is_no_saved_network(tmp_path, capsys):
    assert app(["export", str(tmp_path / "nothing"), "-o", str(tmp_path / "x.pt2")], standalone_mode=False) == 1
    assert "nothing: no such file" in capsys.readouterr().err
