import itertools
import json

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract, assert_same_bits, differentiable
from hepops.sparse import segment_reduce
from hepops.sparse.segment import MODES
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sparse.segments import owners, random_segments

modes = pytest.mark.parametrize("mode", MODES)


class ReduceContract:
    op = torch.ops.hepops.sparse_segment_reduce.default
    function = staticmethod(segment_reduce)
    twice = True
    refused = (torch.int64, torch.complex64, torch.int16)
    refusal = "features must be float16, bfloat16, float32 or float64|order must be int32 or int64"
    index = torch.int64

    @pytest.fixture(autouse=True)
    def _compile_afresh(self):
        """The contracts share one function, whose compilations torch counts."""
        torch._dynamo.reset()

    @classmethod
    def sample(cls, size, **at):
        order, starts = random_segments(size, index=cls.index, device=at["device"])
        return torch.randn(size, 3, **at), order, starts, cls.mode

    @staticmethod
    def rounding(dtype):
        """The reference too adds up to 60 numbers of order 1 in float64."""
        eps = torch.finfo(dtype).eps
        return {"rtol": 16 * eps, "atol": 64 * eps}

    def operands(self, args):
        return *args[:-1], MODES.index(args[-1])

    @staticmethod
    def reference(x, order, starts, mode):
        segments = [x[order.long()[a:b]] for a, b in itertools.pairwise(starts)]
        one = {"sum": lambda s: s.sum(0), "mean": lambda s: s.mean(0), "max": lambda s: s.max(0).values}[mode]
        return torch.stack([one(s) if len(s) else s.sum(0) for s in segments])


class TestSum(ReduceContract, Contract):
    mode = "sum"


class TestMean(ReduceContract, Contract):
    mode = "mean"
    index = torch.int32


class TestMax(ReduceContract, Contract):
    mode = "max"
    index = torch.int32


class TestMaxLong(ReduceContract, Contract):
    mode = "max"


@pytest.mark.parametrize(
    ("kind", "mode"), [("globalsumpool", "sum"), ("globalavgpool", "mean"), ("globalmaxpool", "max")]
)
def test_agrees_with_golden_values(device, kind, mode):
    names = [n for n in json.loads(shared("golden/sparse/index.json").read_text()) if n.endswith(kind)]
    assert len(names) >= 4
    for name in names:
        file = np.load(shared(f"golden/sparse/{name}.npz"))
        ids = file["coords_out"][:, 0]
        batch = torch.tensor(file["coords_in"][:, 0])
        order = batch.sort(stable=True).indices.to(device)
        starts = torch.searchsorted(batch.sort().values, torch.arange(ids.max() + 2)).to(device)
        x = torch.tensor(file["feats_in"], device=device, requires_grad=True)
        y = segment_reduce(x, order, starts, mode)[ids]
        (grad,) = torch.autograd.grad(y, x, torch.tensor(file["grad_out"], device=device))
        assert_close(y.detach().cpu(), torch.tensor(file["feats_expected"]), rtol=1e-10, atol=1e-10)
        assert_close(grad.cpu(), torch.tensor(file["grad_in_expected"]), rtol=1e-10, atol=1e-10)


@modes
@pytest.mark.parametrize("channels", [0, 1, 32, 33, 300])
def test_any_number_of_channels_and_rows(device, mode, channels):
    for rows in (0, 1, 255, 256, 257, 3000):
        order, starts = random_segments(rows, 5, device=device)
        x = torch.randn(rows, channels, device=device, dtype=torch.float64)
        exact = TestSum.reference(x, order, starts, mode)
        assert_close(segment_reduce(x, order, starts, mode), exact, rtol=1e-13, atol=1e-13)


@modes
def test_no_segment_at_all(device, mode):
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assert segment_reduce(torch.zeros(0, 4, device=device), none, none.new_zeros(1), mode).shape == (0, 4)


@modes
def test_thousands_of_segments(device, mode):
    """Clusters as batch entries."""
    order, starts = random_segments(20_000, 9000, device=device)
    x = torch.randn(20_000, 2, device=device, dtype=torch.float64)
    owner = owners(order, starts)
    kind = {"sum": "sum", "mean": "mean", "max": "amax"}[mode]
    exact = x.new_zeros(9000, 2).index_reduce(0, owner, x, "amax", include_self=False)
    if kind != "amax":
        exact = x.new_zeros(9000, 2).index_add(0, owner, x)
        exact = exact / starts.diff().clamp(min=1)[:, None] if kind == "mean" else exact
    assert_close(segment_reduce(x, order, starts, mode), exact, rtol=1e-13, atol=1e-13)


def test_of_equal_maxima_the_first_is_taken(device):
    """Across blocks too."""
    for rows in (4, 1000):
        x = torch.zeros(rows, 1, device=device)
        x[rows // 2 :] = 1
        x.requires_grad_()
        order = torch.arange(rows - 1, -1, -1, device=device)
        y = segment_reduce(x, order, torch.tensor([0, rows], device=device), "max")
        assert y.item() == 1
        assert torch.autograd.grad(y, x)[0].flatten().nonzero().tolist() == [[rows - 1]]


def test_a_nan_is_more_than_any_number(device):
    for rows, place in ((3, 1), (2000, 700)):
        x = torch.rand(rows, 1, device=device)
        x[place], x[place + 1] = float("nan"), float("inf")
        x.requires_grad_()
        y = segment_reduce(x, torch.arange(rows, device=device), torch.tensor([0, rows], device=device), "max")
        assert y.isnan().all()
        assert torch.autograd.grad(y, x)[0].flatten().nonzero().tolist() == [[place]]


@modes
def test_halves_are_summed_in_double_and_rounded_once(device, mode):
    order, starts = random_segments(5000, device=device)
    for kind in (torch.float16, torch.bfloat16):
        x = torch.randn(5000, 5, device=device).to(kind)
        exact = segment_reduce(x.double(), order, starts, mode)
        assert_same_bits(segment_reduce(x, order, starts, mode), exact.to(kind))


@modes
def test_third_derivatives(mode):
    order, starts = random_segments(9, 4)
    args = differentiable([torch.randn(9, 2, dtype=torch.float64)])

    def slope(x):
        return torch.autograd.grad((segment_reduce(x, order, starts, mode) ** 3).sum(), x, create_graph=True)[0]

    assert gradcheck(slope, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(slope, args, atol=1e-8, rtol=1e-6)


def test_refuses_what_has_no_meaning():
    order, starts = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 3])
    x = torch.rand(3, 2)
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'avg'"):
        segment_reduce(x, order, starts, "avg")
    with pytest.raises(ValueError, match=r"order has 3 rows, features have shape \(2, 2\)"):
        segment_reduce(x[:2], order, starts)
    with pytest.raises(ValueError, match=r"starts must go from 0 to the 3 rows of order, got 0 to 1"):
        segment_reduce(x, order, starts[:2])
    with pytest.raises(ValueError, match=r"starts must go from 0 to the 3 rows of order, got 1 to 3"):
        segment_reduce(x, order, starts[1:])
    with pytest.raises(ValueError, match=r"starts must not descend, got 2 before 1"):
        segment_reduce(x, order, torch.tensor([0, 2, 1, 3]))
    with pytest.raises(ValueError, match=r"starts must be \(B \+ 1\), got shape \(0\)"):
        segment_reduce(x, order, starts[:0])
    with pytest.raises(ValueError, match=r"order must name each of the 3 rows once, got row 3"):
        segment_reduce(x, order + 1, starts)
    with pytest.raises(ValueError, match=r"order must name each of the 3 rows once, got row -1"):
        segment_reduce(x, order - 1, starts)
    with pytest.raises(ValueError, match=r"features must be \(N, C\), got shape \(3\)"):
        segment_reduce(x[:, 0], order, starts)
    with pytest.raises(TypeError, match="order must be int32 or int64, got Float"):
        segment_reduce(x, order.float(), starts)
