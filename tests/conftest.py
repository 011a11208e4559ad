import os
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent

settings.register_profile("hepops", deadline=None)  # the first call of an operator takes long
settings.load_profile("hepops")


def shared(path: str) -> Path:
    """A file of the shared folder beside the checkout; the test skips without it, and fails in CI."""
    places = [
        Path(p) for p in (os.environ.get("HEPOPS_SHARED"), ROOT.parent / "shared", ROOT.parent.parent / "shared") if p
    ]
    for place in places:
        if (place / path).exists():
            return place / path
    if os.environ.get("CI"):
        pytest.fail(f"CI needs ../shared/{path}")
    pytest.skip(f"needs ../shared/{path}")


# A shared machine has no deadlines; the same examples in every run.
hypothesis.settings.register_profile("hepops", deadline=None, derandomize=True)
hypothesis.settings.load_profile("hepops")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)
