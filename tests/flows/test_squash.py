import math

import pytest
import torch
from core.contract import Contract
from hepops.flows import squash
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas

KINDS = ("softplus", "tanh", "sigmoid")


class SquashCase(Bijection):
    op = torch.ops.hepops.flows_squash.default
    public = staticmethod(squash)
    forward = staticmethod(lambda x: squash(x, "sigmoid"))
    backwards = staticmethod(lambda x: squash(x, "sigmoid", inverse=True))
    formula = staticmethod(lambda x: formulas["squash"](x, 2))

    @staticmethod
    def raw(size, **at):
        return ()

    @staticmethod
    def x(size, **at):
        return torch.randn(size, **at)

    def operands(self, args):
        return *args, 2, self.inverted


class TestSquash(SquashCase, Contract):
    function = staticmethod(SquashCase.forward)


class TestSquashInverse(SquashCase, Contract):
    function = staticmethod(SquashCase.backwards)
    inverted = True


def exact(kind, x):
    """In double, where float32 arguments leave it digits to spare."""
    e = (-x.abs()).exp()
    if kind == "softplus":
        return x.clamp(min=0) + e.log1p(), x.clamp(max=0) - e.log1p()
    if kind == "tanh":
        near, far = (-x.tanh().square()).log1p(), 2 * (math.log(2) - x.abs() - (e * e).log1p())
        return x.tanh(), torch.where(x.abs() < 0.5, near, far)
    return torch.where(x < 0, e, 1) / (1 + e), -x.abs() - 2 * e.log1p()


@pytest.mark.parametrize("kind", KINDS)
def test_is_right_in_both_tails(device, kind):
    x = torch.cat([torch.linspace(-80, 80, 4001), torch.logspace(-30, 1, 200)]).to(device)
    for ours, theirs in zip(squash(x, kind), exact(kind, x.double()), strict=True):
        assert_close(ours.double(), theirs, rtol=8 * 2**-23, atol=1e-37)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_is_right_to_rounding(device, kind):
    """Of numbers close to 0 and, for sigmoid and tanh, to 1; against the formulas in double of the same numbers."""
    y = torch.cat([torch.logspace(-30, -0.01, 300), 1 - torch.logspace(-7, -0.5, 100)]).to(device)
    x, logdet = squash(y, kind, inverse=True)
    w = y.double()
    if kind == "softplus":
        expected = w.expm1().log(), -(-(-w).expm1()).log()
    elif kind == "tanh":
        expected = w.atanh(), -(-w * w).log1p()
    else:
        expected = w.log() - (-w).log1p(), -w.log() - (-w).log1p()
    # ln y has a zero: at ln(e^y - 1) = 0 and at the half of the sigmoid the argument of 1 ulp is what counts
    assert_close(x.double(), expected[0], rtol=8 * 2**-23, atol=2**-23)
    assert_close(logdet.double(), expected[1], rtol=8 * 2**-23, atol=4 * 2**-23)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inverse", [False, True])
def test_gradients(device, kind, inverse):
    x = (0.05 + 0.9 * torch.rand(10, device=device, dtype=torch.float64)).requires_grad_()
    function = lambda x: squash(x, kind, inverse=inverse)  # noqa: E731
    assert torch.autograd.gradcheck(function, x, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, x, atol=1e-8, rtol=1e-6)


def test_ends_are_infinite_and_beyond_is_nan(device, dtype):
    for kind, ends, outside in (
        ("softplus", {0.0: -math.inf, math.inf: math.inf}, [-1e-3]),
        ("tanh", {-1.0: -math.inf, 1.0: math.inf}, [-1.01, 1.01]),
        ("sigmoid", {0.0: -math.inf, 1.0: math.inf}, [-1e-3, 1.01]),
    ):
        x, _ = squash(torch.tensor(list(ends), device=device, dtype=dtype), kind, inverse=True)
        assert x.tolist() == list(ends.values())
        for result in squash(torch.tensor([*outside, math.nan], device=device, dtype=dtype), kind, inverse=True):
            assert result.isnan().all()


def test_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="kind must be one of softplus, tanh, sigmoid, got 'cosh'"):
        squash(torch.zeros(3), "cosh")
