"""Files of weights are read, and what would run code is named instead of run."""

import argparse
import pickle

import pytest
import torch
from hepops.core.tensor_files import read_tensors, state_of
from safetensors.torch import save_file
from torch import nn

STATE = {"kernel": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in b)


def test_tensors_come_out_of_both_formats_old_and_new(tmp_path):
    torch.save(STATE, tmp_path / "new.pt")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "a.safetensors")
    for name in ("new.pt", "old.pt", "a.safetensors"):
        assert same(read_tensors(tmp_path / name), STATE), name


@pytest.mark.parametrize("holder", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_in_a_checkpoint(holder):
    assert same(state_of({"epoch": 3, holder: STATE}), STATE)
    assert same(state_of(STATE), STATE)
    assert state_of(3) == 3


def whole(path, new=True):
    torch.save(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), path, _use_new_zipfile_serialization=new)


def with_objects(path, new=True):
    content = {"state_dict": STATE, "arguments": argparse.Namespace(rate=0.1)}
    torch.save(content, path, _use_new_zipfile_serialization=new)


def script(path):
    with pytest.warns(Warning):  # torch is done with it; its files are still about
        torch.jit.script(nn.Linear(3, 2)).save(path)


def python_pickle(path):
    path.write_bytes(pickle.dumps({"weights": STATE}))


def cut(path):
    whole(path)
    path.write_bytes(path.read_bytes()[:-50])


CASES = {
    "whole": (whole, [r"whole model or object, pickled \(torch.nn.modules.container.Sequential, torch.nn.modules.lin"]),
    "whole, before 1.6": (lambda p: whole(p, False), [r"pickled \(torch.nn.modules.container.Sequential"]),
    "objects": (
        with_objects,
        [r"a checkpoint with objects in it \(argparse.Namespace\)", r"save\(checkpoint\['state_"],
    ),
    "objects, before 1.6": (lambda p: with_objects(p, False), [r"with objects in it \(argparse.Namespace\)"]),
    "TorchScript": (
        script,
        [r"is a program \(TorchScript\), which is not run", r"jit.load\('old.pt'\).state_dict\(\)"],
    ),
    "Python's pickle": (python_pickle, ["holds more than tensors: a checkpoint"]),
    "cut": (cut, ["holds no weights that can be read: neither safetensors nor a whole file of torch.save"]),
    "rubbish": (lambda p: p.write_bytes(b"\x89HDF\r\n"), ["holds no weights that can be read"]),
    "empty": (lambda p: p.write_bytes(b""), ["holds no weights that can be read"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_file_is_instead_is_said_with_its_name_and_a_way_out(case, tmp_path, recwarn):
    write, words = CASES[case]
    write(tmp_path / "old.pt")
    recwarn.clear()
    for word in words:
        with pytest.raises(ValueError, match=word) as caught:
            read_tensors(tmp_path / "old.pt")
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "old.pt")) and "\n" not in text and len(text) < 700
    # torch's own advice is to run the file
    assert "weights_only" not in text and "weights only" not in text.lower() and "safe_globals" not in text
    assert not recwarn.list
    if "holds more" in text:
        assert "save the tensors alone" in text and "docs/checkpoints.md" in text


def test_nothing_of_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"weight": Evil()}, tmp_path / "a.pt")
    torch.save(Evil(), tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("a.pt", "b.pt", "c.pt"):
        with pytest.raises(ValueError, match="holds more than tensors"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_missing_files_and_bad_safetensors_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file"):
        read_tensors(tmp_path / "none.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=r"bad\.safetensors holds no weights that can be read"):
        read_tensors(tmp_path / "bad.safetensors")
