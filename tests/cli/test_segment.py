"""The command `hepops segment`: what it leaves, what it refuses."""

import json

import pytest
import torch
from hepops.segmentation import Segmenter, make

from .test_cli import done, refused, run

TINY = ["--events", 4, "--test-events", 2, "--epochs", 1, "--batch", 2, "--filters", 4, "--depth", 2, "--seed", 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("segment") / "out"
    result = done("segment", "-o", place, *TINY)
    assert "mean of the classes" in result.stdout and "2 steps of 2 events" in result.stdout
    return place


def test_it_leaves_a_network_its_accuracy_and_pictures(folder):
    names = {path.name for path in folder.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "history.csv",
        "metrics.json",
        "summary.txt",
        "provenance.json",
    } <= names
    assert {"curves.png", "confusion.png", "state.pt", "events"} <= names
    assert len([name for name in names if name.startswith("event_")]) == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    test = make(2, seed=3, first_event=4)
    label = Segmenter.load(folder).label(test.coordinates, test.charge)
    known = test.label >= 0
    assert metrics["accuracy"] == pytest.approx((label == test.label)[known].double().mean().item(), abs=1e-12)
    assert metrics["voxels"] == int(known.sum())


def test_it_goes_on_where_it_stopped(folder, tmp_path):
    first = run("segment", "-o", tmp_path / "a", *TINY, "--minutes", 1e-9, "--no-plots")
    assert first.exit_code == 0 and "not finished, step 1 of 2" in first.stderr
    done("segment", "-o", tmp_path / "a", *TINY, "--no-plots", "--threads", torch.get_num_threads())
    for name in ("model.safetensors", "history.csv", "metrics.json"):
        assert (tmp_path / "a" / name).read_bytes() == (folder / name).read_bytes()


def test_it_refuses_what_has_no_meaning(folder, tmp_path):
    assert "holds a finished training" in refused("segment", "-o", folder, *TINY)
    assert "--events must be at least 1, got 0" in refused("segment", "-o", tmp_path / "b", "--events", 0)
    assert "epochs must be at least 1" in refused("segment", "-o", tmp_path / "b", "--epochs", 0)
    assert "--seed must lie between" in refused("segment", "-o", tmp_path / "b", "--seed", -1)
    assert "filters must be at least 1" in refused("segment", "-o", tmp_path / "b", *TINY, "--filters", 0)
    assert "there is no folder" in refused("segment", "-o", tmp_path / "no" / "b", *TINY)
    assert not (tmp_path / "b").exists()
    (tmp_path / "file").write_text("")
    assert "exists and is not a folder" in refused("segment", "-o", tmp_path / "file", *TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "holds other files" in refused("segment", "-o", tmp_path / "mine", *TINY)
    refused("segment", "--filter", 3, code=2)


def test_another_training_in_the_folder_is_refused(tmp_path):
    run("segment", "-o", tmp_path / "a", *TINY, "--minutes", 1e-9, "--no-plots")
    message = refused("segment", "-o", tmp_path / "a", *TINY, "--rate", 0.01, "--no-plots", "-q")
    assert "belongs to another training, it differs in rate (0.003, not 0.01)" in message
    done("segment", "-o", tmp_path / "a", *TINY, "--rate", 0.01, "--no-plots", "--overwrite")
