import json

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract, assert_same_bits, differentiable
from hepops.sparse import pool
from hepops.sparse.pool import MODES
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sparse import lists

modes = pytest.mark.parametrize("mode", MODES)


def plain(x, found, num_out, mode):
    """Pooling by the definition, in torch: found are triples (i, o, k)."""
    i, o, k = torch.as_tensor(found, device=x.device).T
    zeros = x.new_zeros(num_out, x.shape[1])
    if mode == "max":  # the first of the greatest by (o, k)
        order = np.lexsort((k.cpu(), o.cpu()))
        y = []
        for row in range(num_out):
            mine = [n for n in order if o[n] == row]
            y.append(x[i[mine]].max(0).values if mine else 0 * x[0])
        return torch.stack(y) if y else x.sum() * zeros
    n_o, n_i = torch.bincount(o, minlength=num_out), torch.bincount(i, minlength=len(x))
    weight = {"sum": torch.ones(len(i)).to(x), "avg": 1 / n_o[o].to(x), "spread": 1 / n_i[i].to(x)}[mode]
    return zeros.index_add(0, o, weight[:, None] * x[i])


class PoolContract:
    op = torch.ops.hepops.sparse_pool.default
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "features must be float16, bfloat16, float32 or float64|kernel map must be all int32 or all int64"
    index = torch.int32

    @pytest.fixture(autouse=True)
    def _compile_afresh(self):
        """The contracts share one function, whose compilations torch counts."""
        torch._dynamo.reset()

    @classmethod
    def sample(cls, size, **at):
        found = lists.random_triples(size, size, 8)
        forward, backward = lists.lists(found, size, size, cls.index, at["device"])
        return torch.randn(size, 3, **at), *forward, *backward, cls.mode

    @staticmethod
    def function(x, *arguments):
        return pool(x, arguments[:4], arguments[4:8], arguments[8])

    def operands(self, args):
        return *args[:-1], MODES.index(args[-1])

    @staticmethod
    def reference(x, *arguments):
        return plain(x, triples_of(arguments[:4], x.device), len(arguments[3]), arguments[8])


def triples_of(forward, device):
    pairs, entries, _tiles, schedule = (t.cpu().long() for t in forward)
    k = torch.repeat_interleave(entries[:-1, 1], entries[1:, 0] - entries[:-1, 0])
    return torch.stack([pairs[:, 0], schedule[pairs[:, 1]], k], 1)


class TestSum(PoolContract, Contract):
    mode = "sum"
    public = staticmethod(pool)


class TestAverage(PoolContract, Contract):
    mode = "avg"
    public = staticmethod(pool)
    index = torch.int64


class TestSpread(PoolContract, Contract):
    mode = "spread"
    public = staticmethod(pool)


class TestMax(PoolContract, Contract):
    mode = "max"
    public = staticmethod(pool)


class TestMaxLong(PoolContract, Contract):
    mode = "max"
    public = staticmethod(pool)
    index = torch.int64


def golden(kind):
    names = [n for n in json.loads(shared("golden/sparse/index.json").read_text()) if kind in n]
    assert names
    return [np.load(shared(f"golden/sparse/{name}.npz")) for name in names]


@pytest.mark.parametrize("kind", ["sumpool", "avgpool", "maxpool"])
def test_agrees_with_golden_values(device, kind):
    for file in golden(f"_{kind}"):
        meta = json.loads(str(file["meta"]))
        if not meta["op"].endswith("_pool") or meta["op"].startswith("global"):
            continue
        assert_golden(file, lists.box(meta["ks"], meta["D"]), meta["op"][:3], device)


def test_agrees_with_golden_values_of_the_transposed(device):
    for file in golden("_pooltr"):
        assert_golden(file, -lists.box(2, file["coords_in"].shape[1] - 1), "avg", device)


def assert_golden(file, offsets, mode, device):
    coords, pooled = file["coords_in"], file["coords_out"]
    found = lists.triples(coords, pooled, offsets)
    forward, backward = lists.lists(found, len(coords), len(pooled), device=device)
    x = torch.tensor(file["feats_in"], device=device, requires_grad=True)
    y = pool(x, forward, backward, mode)
    (grad,) = torch.autograd.grad(y, x, torch.tensor(file["grad_out"], device=device))
    assert_close(y.detach().cpu(), torch.tensor(file["feats_out"]), rtol=1e-10, atol=1e-10)
    assert_close(grad.cpu(), torch.tensor(file["grad_in"]), rtol=1e-10, atol=1e-10)


def one_row(values, device="cpu", index=torch.int32):
    """All values meet in one row, in the order of their offsets."""
    found = np.array([[k, 0, k] for k in range(len(values))]).reshape(-1, 3)
    x = torch.as_tensor(values, device=device).reshape(-1, 1).requires_grad_()
    return x, *lists.lists(found, len(values), 1, index, device)


def test_of_equal_maxima_the_lowest_offset_is_taken(device):
    x, forward, backward = one_row([1.0, 4.0, 2.0, 4.0], device)
    y = pool(x, forward, backward)
    assert y.item() == 4
    assert torch.autograd.grad(y, x)[0].flatten().tolist() == [0, 1, 0, 0]


def test_a_nan_is_more_than_any_number(device):
    nan, inf = float("nan"), float("inf")
    for values in ([1.0, nan, inf], [nan, inf, nan], [-inf, inf, nan]):
        x, forward, backward = one_row(values, device)
        y = pool(x, forward, backward)
        assert y.isnan().all()
        first = next(i for i, v in enumerate(values) if v != v)
        assert torch.autograd.grad(y, x)[0].flatten().tolist() == [float(i == first) for i in range(3)]


def test_minus_infinity_can_be_a_maximum(device):
    x, forward, backward = one_row([-float("inf")] * 2, device)
    y = pool(x, forward, backward)
    assert y.item() == -float("inf")
    assert torch.autograd.grad(y, x)[0].flatten().tolist() == [1, 0]


@modes
def test_rows_that_meet_nothing_are_zero(device, mode):
    found = np.array([[0, 1, 0]])
    forward, backward = lists.lists(found, 3, 4, device=device)
    x = torch.full((3, 2), -5.0, device=device, requires_grad=True)
    y = pool(x, forward, backward, mode)
    assert y.tolist() == [[0, 0], [-5, -5], [0, 0], [0, 0]]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[1, 1], [0, 0], [0, 0]]


@modes
@pytest.mark.parametrize("channels", [0, 1, 16, 31, 64, 65, 200])
def test_any_number_of_channels(device, mode, channels):
    found = lists.random_triples(700, 500, 27, density=0.3)
    forward, backward = lists.lists(found, 700, 500, device=device)
    x = torch.randn(700, channels, device=device, dtype=torch.float64)
    assert_close(pool(x, forward, backward, mode), plain(x, found, 500, mode), rtol=1e-14, atol=1e-14)


@modes
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_are_summed_in_double_and_rounded_once(device, mode, kind):
    found = lists.random_triples(400, 300, 27)
    forward, backward = lists.lists(found, 400, 300, device=device)
    x = torch.randn(400, 5, device=device).to(kind)
    exact = pool(x.double(), forward, backward, mode)
    assert_same_bits(pool(x, forward, backward, mode), exact.to(kind))


def test_average_and_spread_are_adjoint(device):
    """<A x, y> = <x, A^T y>"""
    found = lists.random_triples(300, 200, 8)
    forward, backward = lists.lists(found, 300, 200, device=device)
    x, y = (torch.randn(n, 4, device=device, dtype=torch.float64) for n in (300, 200))
    there, back = pool(x, forward, backward, "avg"), pool(y, backward, forward, "spread")
    assert_close((there * y).sum(), (x * back).sum())


@modes
def test_third_derivatives(mode):
    forward, backward = lists.random_lists(12, 9)
    args = differentiable([torch.randn(12, 2, dtype=torch.float64)])

    def slope(x):
        y = pool(x, forward, backward, mode)
        return torch.autograd.grad((y**3).sum(), x, create_graph=True)[0]

    assert gradcheck(slope, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(slope, args, atol=1e-8, rtol=1e-6)


def test_a_sum_of_many_keeps_its_digits(device):
    x, forward, backward = one_row([1.0] + [2.0**-24] * 4096, device)
    assert pool(x, forward, backward, "sum").item() == 1 + 2.0**-12


def test_refuses_what_has_no_meaning():
    forward, backward = lists.random_lists(12, 9)
    x = torch.rand(12, 2)
    with pytest.raises(ValueError, match=r"mode must be one of .*, got 'mean'"):
        pool(x, forward, backward, "mean")
    with pytest.raises(ValueError, match=r"reads 12 rows, features have shape \(11, 2\)"):
        pool(x[:11], forward, backward)
    with pytest.raises(ValueError, match=r"features must be \(N, C\), got shape \(12\)"):
        pool(x[:, 0], forward, backward)
    with pytest.raises(ValueError, match="needs the backward list"):
        pool(x.requires_grad_(), forward)
    with pytest.raises(ValueError, match="'spread' needs the backward list"):
        pool(x.detach(), forward, mode="spread")
    with pytest.raises(ValueError, match=r"forward must be \(pairs, entries, tiles, schedule\), got 3 tensors"):
        pool(x, forward[:3], backward)
    with pytest.raises(TypeError, match="both lists must be of one integer type"):
        pool(x, forward, [t.long() for t in backward])
    with pytest.raises(ValueError, match="does not suit a schedule"):
        pool(x, (*forward[:3], forward[3].repeat(100)), backward)
