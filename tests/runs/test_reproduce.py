"""A run repeated from what it saved gives the same bits; where it does not, what differs is named."""

import json
import math
import shutil

import h5py
import hepops
import numpy as np
import pytest
import torch
from hepops.cli.app import app
from hepops.cli.reproduce import words_of
from hepops.runs import compare, repeat, start
from typer.testing import CliRunner


def shell(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tracks and noisy hits, by the commands."""
    place = tmp_path_factory.mktemp("files")
    tracks, hits = place / "tracks.h5", place / "hits.h5"
    words = ["-n", 1, "--particle", "proton", "--topology", "inside", "--energy", "60:70", "--seed", 4]
    made = shell("gun", "-o", tracks, *words)
    assert made.exit_code == 0, made.output
    made = shell("simulate", tracks, "-o", hits, "--seed", 3, "-p", "lifetime=1800")
    assert made.exit_code == 0, made.output
    return place


def test_a_simulation_gives_the_same_bits(files, tmp_path):
    made = shell("reproduce", files / "hits.h5", "-o", tmp_path / "again.h5")
    assert made.exit_code == 0 and made.output.startswith("the same bits: "), made.output
    assert compare(files / "hits.h5", tmp_path / "again.h5").parts > 50
    with h5py.File(files / "hits.h5") as a, h5py.File(tmp_path / "again.h5") as b:
        assert np.array_equal(a["hits/time"][()], b["hits/time"][()]) and len(a["hits/time"]) > 0


def test_hits_that_were_touched_are_named(files, tmp_path):
    for name in ("tracks.h5", "hits.h5"):
        shutil.copyfile(files / name, tmp_path / name)
    with h5py.File(tmp_path / "hits.h5", "r+") as file:
        charge = file["hits/charge"][()]
        charge[0] += 1
        file["hits/charge"][...] = charge
    made = shell("reproduce", tmp_path / "hits.h5")
    assert made.exit_code == 1
    assert f"hits.h5: hits/charge: 1 of {len(charge)} numbers differ, by up to 1" in made.output, made.output
    assert "1 differences in" in made.output


def test_a_fit_gives_the_same_bits_and_another_input_does_not(files, tmp_path):
    for name in ("tracks.h5", "hits.h5"):
        shutil.copyfile(files / name, tmp_path / name)
    words = ["--fit", "lifetime", "--residual", "hits", "--iterations", 2, "--no-plots", "-q"]
    made = shell("calibrate", tmp_path / "hits.h5", "--tracks", tmp_path / "tracks.h5", "-o", tmp_path / "fit", *words)
    assert made.exit_code == 0, made.output
    again = shell("reproduce", tmp_path / "fit")
    assert again.exit_code == 0, again.output
    made = shell("simulate", tmp_path / "tracks.h5", "-o", tmp_path / "hits.h5", "--seed", 9, "--overwrite", "-q")
    assert made.exit_code == 0, made.output
    again = shell("reproduce", tmp_path / "fit")
    assert again.exit_code != 0
    assert "hits.h5 is not the one that it was made from: SHA-256" in f"{again.output}{again.exception}"
    (tmp_path / "hits.h5").unlink()
    again = shell("reproduce", tmp_path / "fit")
    assert again.exit_code != 0 and "hits.h5 is not in" in f"{again.output}{again.exception}"


def test_versions_and_machines_that_differ_are_said(files, tmp_path):
    shutil.copyfile(files / "hits.h5", tmp_path / "hits.h5")
    with h5py.File(tmp_path / "hits.h5", "r+") as file:
        known = json.loads(file["config"].attrs["provenance"])
        file["config"].attrs["provenance"] = json.dumps({**known, "torch": "2.0", "processor": "Z80"})
    made = shell("reproduce", tmp_path / "hits.h5")
    assert "warning: torch: 2.0 then" in made.output and "warning: processor: Z80 then" in made.output


@pytest.mark.parametrize(
    "command",
    [
        "",
        "rm -rf /",
        "hepops demo -o x",
        "hepops",
        "python -c 'print(1)'",
        "hepops merge a b -o c",
        "hepops reproduce x",
    ],
)
def test_no_other_command_is_run(tmp_path, command):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["provenance"] = json.dumps({"command": command})
    made = shell("reproduce", tmp_path / "x.h5")
    assert made.exit_code == 1 and "was made by" in made.output and made.output.count("\n") == 1


def test_the_command_without_its_output(tmp_path):
    said = "hepops --log csv:runs/1 simulate 'a b.h5' -o out.h5 --overwrite --seed 3 --output=x -q"
    assert words_of(tmp_path, {"command": said}) == ["simulate", "a b.h5", "--seed", "3", "--quiet"]
    said = "hepops --log=csv:runs/1 --log mlflow:m simulate a.h5 --output out.h5"
    assert words_of(tmp_path, {"command": said}) == ["simulate", "a.h5", "--quiet"]
    for odd in ("hepops simulate 'a.h5", 3, ["hepops"]):
        with pytest.raises(ValueError, match="was made by"):
            words_of(tmp_path, {"command": odd})


def test_a_place_that_is_not_there(files, tmp_path):
    shutil.copyfile(files / "hits.h5", tmp_path / "hits.h5")
    with h5py.File(tmp_path / "hits.h5", "r+") as file:
        known = json.loads(file["config"].attrs["provenance"])
        file["config"].attrs["provenance"] = json.dumps({**known, "directory": str(tmp_path / "gone")})
    made = shell("reproduce", tmp_path / "hits.h5")
    assert made.exit_code == 1 and "gone, which is not there; --directory" in made.output
    made = shell("reproduce", tmp_path / "hits.h5", "-o", tmp_path / "hits.h5")
    assert made.exit_code == 1 and "exists already" in made.output


# ---- from saved configurations


def trainings():
    lattice = hepops.lattice
    theory = lattice.Phi4((4, 4), m2=-4.0, lam=8.0)
    start_from = lattice.flows.Curriculum(lattice.Phi4((4, 4), m2=1.0, lam=1.0), 0.5)
    data = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    yield "hepops.flows.fit", hepops.flows.nsf(2, layers=1, hidden=(4,)), (data,), {"steps": 4, "batch": 20, "ema": 0.9}
    yield "hepops.lattice.flows.train", lattice.flows.affine_flow(theory, layers=2), (theory,), {"steps": 3, "batch": 8}
    own = {"steps": 3, "batch": 8, "curriculum": start_from, "loss": "path"}
    yield "hepops.lattice.flows.train", lattice.flows.continuous(theory), (theory,), own


def test_trainings_are_repeated_to_the_bit(tmp_path):
    for k, (task, flow, positional, options) in enumerate(trainings()):
        before = {name: x.clone() for name, x in flow.state_dict().items()}
        training = start(tmp_path / f"{k}", task, flow, *positional, seed=7, **options)
        assert training.step == options["steps"]
        assert any(not torch.equal(x, before[n]) for n, x in flow.state_dict().items()), "it was trained in place"
        kept = hepops.load(tmp_path / f"{k}" / "model")
        assert all(torch.equal(x, kept.state_dict()[n]) for n, x in flow.state_dict().items())
        found = repeat(tmp_path / f"{k}", tmp_path / f"{k} again")
        assert found.same and found.notes == [] and found.parts > 30, (task, found.differences)


@pytest.fixture
def run(tmp_path):
    task, flow, positional, options = next(trainings())
    start(tmp_path / "run", task, flow, *positional, seed=7, **options)
    return tmp_path / "run"


def test_a_model_that_was_touched_is_named(run, tmp_path):
    model = hepops.load(run / "model")
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1.0
    hepops.save(model, run / "model", overwrite=True)
    made = shell("reproduce", run, "-o", tmp_path / "again")
    assert made.exit_code == 1
    assert "model/model.safetensors: transform.transforms.0" in made.output and "1 of 4 numbers differ" in made.output


def test_configurations_are_verified(run, tmp_path):
    text = (run / "configuration.yaml").read_text()
    (run / "configuration.yaml").write_text(text.replace("seed: 7", "seed: 8"))
    with pytest.raises(ValueError, match=r"configuration\.yaml: was changed"):
        repeat(run, tmp_path / "a")
    (run / "configuration.yaml").write_text(text)
    content = (run / "initial.safetensors").read_bytes()
    (run / "initial.safetensors").write_bytes(content[:-1] + b"x")
    with pytest.raises(ValueError, match=r"initial\.safetensors: was changed"):
        repeat(run, tmp_path / "a")
    (run / "initial.safetensors").write_bytes(content)
    from hepops.models.digests import of_bytes, read_sums, write_sums

    forged = text.replace("task: hepops.flows.fit", "task: os.system").encode()
    sums = read_sums((run / "SHA256SUMS").read_bytes(), "x") | {"configuration.yaml": of_bytes(forged)}
    (run / "configuration.yaml").write_bytes(forged)
    (run / "SHA256SUMS").write_text(write_sums(sums))
    with pytest.raises(ValueError, match=r"task must be of .* got 'os\.system'"):
        repeat(run, tmp_path / "a")


def test_a_run_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    task, flow, positional, options = next(trainings())
    other = hepops.flows.nsf(2, layers=1, hidden=(4,))
    other.load_state_dict(flow.state_dict())
    start(tmp_path / "whole", task, other, *positional, seed=7, **options)

    from hepops.flows.training import trainer

    advance = trainer.Run.advance

    def stops(self):
        if self.step == 2:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(trainer.Run, "advance", stops)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", task, flow, *positional, seed=7, **options)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is not finished"):
        repeat(tmp_path / "run", tmp_path / "x")
    with pytest.raises(ValueError, match="another run, it differs in seed"):
        start(tmp_path / "run", task, flow, *positional, seed=8, **options)
    start(tmp_path / "run", task, flow, *positional, seed=7, **options)
    assert compare(tmp_path / "whole", tmp_path / "run").differences == []
    with pytest.raises(ValueError, match="holds a finished run"):
        start(tmp_path / "run", task, other, *positional, seed=7, **options)


def test_what_a_configuration_cannot_hold(tmp_path):
    flow, data = hepops.flows.nsf(2, layers=1, hidden=(4,)), torch.randn(50, 2)
    for options, word in (({"optimizer": torch.optim.SGD}, "optimizer is"), ({"schedule": lambda o: o}, "schedule is")):
        with pytest.raises(TypeError, match=word):
            start(tmp_path / "r", "hepops.flows.fit", flow, data, seed=1, **options)
    with pytest.raises(ValueError, match="task must be of"):
        start(tmp_path / "r", "os.system", flow, seed=1)
    with pytest.raises(TypeError, match="seed must"):
        start(tmp_path / "r", "hepops.flows.fit", flow, data, seed=None)
    assert not (tmp_path / "r").exists()


# ---- the comparison


def test_every_kind_of_file_is_compared_and_nan_is_itself(tmp_path):
    from safetensors.torch import save_file

    a, b = tmp_path / "a", tmp_path / "b"
    x = torch.tensor([1.0, math.nan, 0.0])
    for folder, y in ((a, x), (b, torch.tensor([1.0, math.nan, -0.0]))):
        folder.mkdir()
        save_file({"same": x.clone(), "x": y}, folder / "w.safetensors")
        torch.save({"x": y, "spent": float(folder == a), "n": {"m": [1, "a"]}}, folder / "c.pt")
        (folder / "j.json").write_text(json.dumps({"v": y.tolist(), "began": str(folder)}))
        (folder / "y.yaml").write_text(f"v: {1 if folder == a else 1.0}\ncreated: {folder.name}\n")
        (folder / "t.txt").write_text(folder.name)
        (folder / "p.png").write_text(folder.name)
    (a / "only.txt").write_text("")
    found = compare(a, b)
    assert compare(a, a).same and found.files == 5
    assert found.differences == [
        "c.pt: x: differs in its bits",
        "only.txt: only before",
        "t.txt: 1 and 1 bytes that differ",
        "w.safetensors: x: differs in its bits",
        "y.yaml: v: 1 before, 1.0 now",
    ]
    (b / "c.pt").write_bytes(b"no checkpoint")
    assert any(line.startswith("c.pt: cannot be read") for line in compare(a, b).differences)
    with pytest.raises(FileNotFoundError):
        compare(a, tmp_path / "c")
