"""The command `hepops posterior`: what it leaves, what it refuses."""

import json

import pytest
from hepops.flows.inference import NeuralPosterior

from .test_cli import done, refused

TINY = ["--muons", 1, "--protons", 1, "--simulations", 60, "--held-out", 40, "--epochs", 2, "--seed", 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("posterior") / "out"
    result = done("posterior", "-o", place, *TINY)
    assert "SBC: 40 simulations" in result.stdout and "lifetime" in result.stdout
    return place


def test_it_leaves_a_posterior_its_tests_and_pictures(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"posterior.safetensors", "posterior.json", "result.json", "summary.txt", "provenance.json"} <= names
    assert {"corner.png", "sbc.png", "tarp.png", "fit", "simulations"} <= names
    result = json.loads((folder / "result.json").read_text())
    posterior = NeuralPosterior.load(folder)
    assert list(posterior.prior.names) == result["parameters"] and len(result["mean"]) == 6
    low, high = result["prior"]["low"], result["prior"]["high"]
    assert all(a < m < b for a, m, b in zip(low, result["mean"], high, strict=True))


def test_killed_it_goes_on_with_the_same_numbers(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "a")
    for name in ("provenance.json", "result.json", "posterior.safetensors"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "simulations" / "batch_000000050.safetensors").unlink()
    done("posterior", "-o", tmp_path / "a", *TINY, "--no-plots", "-q")
    for name in ("result.json", "posterior.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (folder / name).read_bytes()


def test_it_refuses_what_has_no_meaning(folder, tmp_path):
    assert "holds a finished posterior" in refused("posterior", "-o", folder, *TINY)
    assert "--muons must be at least 1, got 0" in refused("posterior", "-o", tmp_path / "b", "--muons", 0)
    for name, value, bound in (("simulations", 20, 50), ("held-out", 39, 40), ("width", "nan", 1), ("workers", -1, 0)):
        text = refused("posterior", "-o", tmp_path / "c", f"--{name}", value)
        assert f"--{name} must be at least {bound}, got {value}" in text
        assert not (tmp_path / "c").exists(), "refused before any work"
    assert "sigma_time must be positive" in refused("posterior", "-o", tmp_path / "b", "--time-noise", 0)
    assert "epochs must be at least 1" in refused("posterior", "-o", tmp_path / "b", "--epochs", 0)
    assert "--seed must lie between" in refused("posterior", "-o", tmp_path / "b", "--seed", -1)
    assert "there is no folder" in refused("posterior", "-o", tmp_path / "no" / "b", *TINY)
    assert not (tmp_path / "b").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "holds other files" in refused("posterior", "-o", tmp_path / "mine", *TINY)
