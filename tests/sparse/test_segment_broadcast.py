import json

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops.sparse import segment_broadcast, segment_reduce
from torch.testing import assert_close

from sparse.segments import owners, random_segments

both = pytest.mark.parametrize("mean", [False, True])


class BroadcastContract:
    op = torch.ops.hepops.sparse_segment_broadcast.default
    function = staticmethod(segment_broadcast)
    twice = True
    refused = (torch.int64, torch.complex64, torch.int16)
    refusal = "values must be float16, bfloat16, float32 or float64|order must be int32 or int64"

    @pytest.fixture(autouse=True)
    def _compile_afresh(self):
        """The contracts share one function, whose compilations torch counts."""
        torch._dynamo.reset()

    @classmethod
    def sample(cls, size, **at):
        order, starts = random_segments(size, index=cls.index, device=at["device"])
        return torch.randn(len(starts) - 1, 3, **at), order, starts, cls.mean

    @staticmethod
    def reference(v, order, starts, mean):
        owner = owners(order, starts)
        return v[owner] / starts.diff()[owner][:, None] if mean else v[owner]


class TestCopy(BroadcastContract, Contract):
    mean, index = False, torch.int64


class TestShare(BroadcastContract, Contract):
    mean, index = True, torch.int32


def test_agrees_with_golden_values(device):
    """Without the one in 4D, where MinkowskiEngine takes the row of another batch entry."""
    names = [n for n in json.loads(shared("golden/sparse/index.json").read_text()) if n.endswith("_broadcast")]
    names.remove("4d_broadcast")
    assert len(names) >= 4
    for name in names:
        file = np.load(shared(f"golden/sparse/{name}.npz"))
        ids, batch = file["coords_glob"][:, 0], torch.tensor(file["coords_in"][:, 0])
        order = batch.sort(stable=True).indices.to(device)
        starts = torch.searchsorted(batch.sort().values, torch.arange(ids.max() + 2)).to(device)
        v = torch.zeros(len(starts) - 1, file["feats_glob"].shape[1], dtype=torch.float64, device=device)
        v[ids] = torch.tensor(file["feats_glob"], device=device)
        assert_close(segment_broadcast(v, order, starts).cpu(), torch.tensor(file["feats_out"]), rtol=0, atol=0)


@both
def test_adjoint_of_the_sum_and_of_the_mean(device, mean):
    """<A x, y> = <x, A^T y>"""
    order, starts = random_segments(3000, device=device)
    x, y = (torch.randn(n, 4, dtype=torch.float64, device=device) for n in (3000, 7))
    there = segment_reduce(x, order, starts, "mean" if mean else "sum")
    assert_close((there * y).sum(), (x * segment_broadcast(y, order, starts, mean)).sum())


@both
@pytest.mark.parametrize("channels", [0, 1, 32, 300])
def test_any_number_of_channels_and_rows(device, mean, channels):
    for rows in (0, 1, 256, 3000):
        order, starts = random_segments(rows, 5, device=device)
        v = torch.randn(5, channels, device=device, dtype=torch.float64)
        exact = TestCopy.reference(v, order, starts, mean)
        assert_close(segment_broadcast(v, order, starts, mean), exact, rtol=1e-15, atol=0)


def test_refuses_what_has_no_meaning():
    order, starts = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 3])
    with pytest.raises(ValueError, match=r"values must be \(B, C\) with B = 2 segments, got shape \(3, 2\)"):
        segment_broadcast(torch.rand(3, 2), order, starts)
    with pytest.raises(ValueError, match=r"order must name each of the 3 rows once, got row 4"):
        segment_broadcast(torch.rand(2, 2), order * 2, starts)
    with pytest.raises(ValueError, match=r"starts must go from 0 to the 3 rows"):
        segment_broadcast(torch.rand(2, 2), order, starts - 1)
