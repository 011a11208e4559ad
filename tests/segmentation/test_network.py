import json

import pytest
import torch
from hepops.segmentation import Score, Segmenter, make

SMALL = {"filters": 4, "depth": 3}


@pytest.fixture(scope="module")
def sample():
    return make(3, seed=1)


@pytest.fixture
def saved(tmp_path):
    segmenter = Segmenter(SMALL)
    segmenter.save(tmp_path / "net", {"made by": "a test"})
    return segmenter, tmp_path / "net"


def test_a_saved_network_gives_the_same_labels(sample, saved):
    segmenter, folder = saved
    again = Segmenter.load(folder)
    segmenter.eval()
    arguments = sample.coordinates, sample.charge
    assert torch.equal(segmenter(*arguments), again(*arguments))
    assert torch.equal(segmenter.label(*arguments), again.label(*arguments))
    config = json.loads((folder / "config.json").read_text())
    assert config["made by"] == "a test" and config["network"]["filters"] == 4
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_other_programs_read_the_weights(saved):
    from safetensors.torch import load_file

    segmenter, folder = saved
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == segmenter.network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in segmenter.network.state_dict().items())


def test_how_events_are_taken_together_makes_no_difference(sample):
    segmenter = Segmenter(SMALL)
    arguments = sample.coordinates, sample.charge
    together = segmenter.label(*arguments)
    assert torch.equal(segmenter.label(*arguments, voxels=1), together) and segmenter.training
    order = torch.randperm(len(sample))
    assert torch.equal(segmenter.label(sample.coordinates[order], sample.charge[order]), together[order])


def test_no_voxels_have_no_labels():
    assert Segmenter(SMALL).label(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0)).shape == (0,)


def test_a_score_counts():
    score = Score.of(torch.tensor([0, 0, 0, 1, 3, -1]), torch.tensor([0, 0, 1, 1, 2, 0]))
    assert score.matrix.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert score.accuracy == 3 / 5
    assert score.recall[:2] == [2 / 3, 1.0] and score.recall[3] == 0.0 and score.recall[2] != score.recall[2]
    assert score.precision[:3] == [1.0, 0.5, 0.0]
    assert score.balanced == pytest.approx((2 / 3 + 1) / 3)
    assert "66.7%" in score.table() and score.to_dict()["accuracy by class"]["delta"] is None


def test_load_refuses_what_is_no_network(saved, tmp_path):
    _, folder = saved
    with pytest.raises(FileNotFoundError, match=r"config.json: no such file"):
        Segmenter.load(tmp_path)
    config = json.loads((folder / "config.json").read_text())

    def changed(**values):
        (folder / "config.json").write_text(json.dumps(config | values))
        return pytest.raises(ValueError)

    with changed(format="other") as error:
        Segmenter.load(folder)
    assert "not the configuration of a hepops.segmentation" in str(error.value)
    with changed(version=99) as error:
        Segmenter.load(folder)
    assert "newer than this library's" in str(error.value)
    with changed(classes=["cat", "dog"]) as error:
        Segmenter.load(folder)
    assert "classes are ['cat', 'dog']" in str(error.value)
    with changed(network={"filters": 8, "depth": 3}) as error:
        Segmenter.load(folder)
    assert "model.safetensors" in str(error.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        Segmenter.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"123")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Segmenter.load(folder)
