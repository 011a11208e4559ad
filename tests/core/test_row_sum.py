import math
from fractions import Fraction

import pytest
import torch
from hepops.core import row_sum
from torch.testing import assert_close

from core.contract import Contract, assert_same_bits


class TestRowSum(Contract):
    op = torch.ops.hepops.row_sum.default
    function = staticmethod(row_sum)
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "row_sum: x must be float16, bfloat16, float32 or float64"

    @staticmethod
    def reference(x):
        return x.double().sum(-1)

    @staticmethod
    def sample(size, **at):
        return (torch.randn(size, 5, **at),)

    @staticmethod
    def rounding(dtype):
        return {"rtol": 1e-14, "atol": 1e-13}


class TestLongRowSum(TestRowSum, Contract):
    sizes = (0, 1, 20)

    @staticmethod
    def sample(size, **at):
        return (torch.randn(size if size > 1000 else min(size, 3), 2, 35, **at),)


def exact(row):
    return sum((Fraction(v) for v in row.double().tolist()), Fraction(0))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 31, 32, 33, 1000])
def test_lengths(device, dtype, length):
    x = torch.randn(7, length, device=device, dtype=dtype)
    high, low = row_sum(x, accurate=True)
    for row, plain, h, l in zip(x, row_sum(x), high, low, strict=True):  # noqa: E741
        assert abs(exact(row) - Fraction(plain.item())) <= 1e-14 * length
        assert abs(exact(row) - Fraction(h.item()) - Fraction(l.item())) <= 1e-28 * length


def test_double_double_keeps_what_cancels(device):
    x = torch.tensor([[1e16, 1.0, -1e16, 1e-10], [1.0, 1e100, 1.0, -1e100]], device=device, dtype=torch.float64)
    high, low = row_sum(x, accurate=True)
    assert_close(high, torch.tensor([1.0 + 1e-10, 2.0], device=device, dtype=torch.float64), rtol=1e-15, atol=0)
    assert abs(high[0].item() + low[0].item() - 1 - 1e-10) < 1e-16


def test_infinities_and_nan(device, dtype):
    x = torch.tensor([[1, -math.inf], [math.inf, math.inf], [math.inf, -math.inf], [math.nan, 1]], device=device)
    for sums in (row_sum(x.to(dtype)), row_sum(x.to(dtype), accurate=True)[0]):
        assert sums[:2].tolist() == [-math.inf, math.inf]
        assert sums[2:].isnan().all()


@pytest.mark.parametrize("length", [2, 5, 40])
def test_the_bits_do_not_depend_on_the_batch_or_layout(device, dtype, length):
    x = torch.randn(70, length, device=device, dtype=dtype)
    whole = row_sum(x)
    assert_same_bits(torch.stack([row_sum(row) for row in x]), whole)
    assert_same_bits(row_sum(x.T.contiguous().T), whole)
    assert_same_bits(row_sum(x.view(7, 10, length)), whole.view(7, 10))
    assert_same_bits(row_sum(torch.cat([x, x], 1)[:, :length]), whole)
    assert_same_bits(row_sum(x[:1].expand(9, length)), whole[:1].expand(9))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves(device, kind):
    x = torch.randn(20, 6, device=device).to(kind).requires_grad_()
    sums = row_sum(x)
    assert_same_bits(sums, row_sum(x.detach().double()))
    sums.sum().backward()
    assert_same_bits(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("accurate", [False, True])
def test_vmap_and_derivatives(device, accurate):
    x = torch.randn(4, 6, 3, device=device, dtype=torch.float64)
    first = lambda x: row_sum(x, accurate=True)[0] if accurate else row_sum(x)  # noqa: E731
    assert_same_bits(torch.vmap(first, in_dims=1)(x), first(x.transpose(0, 1)))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(first(x).square().sum(), x)
    assert_same_bits(slope, 2 * first(x)[..., None].expand(4, 6, 3))


@pytest.mark.parametrize("accurate", [False, True])
def test_transforms_of_torch_func(device, accurate):
    x = torch.randn(4, 3, device=device, dtype=torch.float64)
    loss = lambda x: (row_sum(x, accurate=True)[0] if accurate else row_sum(x)).pow(3).sum()  # noqa: E731
    assert_close(torch.vmap(torch.func.grad(loss))(x), 3 * x.sum(-1, keepdim=True).square().expand(4, 3))
    assert_close(torch.func.hessian(loss)(x[0]), 6 * x[0].sum().expand(3, 3))


def test_refuses_a_number(device):
    with pytest.raises(ValueError, match=r"x must have a dimension to sum over, got shape \(\)"):
        row_sum(torch.tensor(1.0, device=device))
