"""One small network, exported once for all tests: tracing and compiling take half a minute of a processor."""

import pytest
import torch
from hepops import export
from hepops.segmentation import Segmenter


@pytest.fixture(scope="session")
def segmenter():
    torch.manual_seed(0)
    return Segmenter({"filters": 4, "depth": 2, "reps": 1}).eval()


@pytest.fixture(scope="session")
def folder(segmenter, tmp_path_factory):
    """The network as `hepops segment` saves it."""
    place = tmp_path_factory.mktemp("saved")
    segmenter.save(place)
    return place


@pytest.fixture(scope="session")
def package(folder, tmp_path_factory):
    """The package as the command writes it, with its Triton repository beside."""
    from hepops.cli.app import app

    place = tmp_path_factory.mktemp("package")
    words = ["export", str(folder), "-o", str(place / "model.pt2"), "--triton", str(place / "triton")]
    assert app(words, standalone_mode=False) in (None, 0)
    return place / "model.pt2"


@pytest.fixture(scope="session")
def loaded(package):
    return export.load(package)


@pytest.fixture
def event():
    """event(steps, seed): coordinates and charges of a random walk's voxels, in random order."""

    def make(steps, seed=0, number=0):
        random = torch.Generator().manual_seed(seed)
        walk = torch.unique(torch.randint(-1, 2, (steps, 3), generator=random).cumsum(0), dim=0)
        walk = walk[torch.randperm(len(walk), generator=random)]
        coordinates = torch.cat([torch.full((len(walk), 1), number), walk], 1)
        return coordinates, torch.rand(len(walk), generator=random) * 100

    return make
