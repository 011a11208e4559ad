import math

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops.flows import circular
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas


class CircularCase(Bijection):
    op = torch.ops.hepops.flows_circular.default
    public = staticmethod(circular)
    forward = staticmethod(lambda x, raw: circular(x, raw, weights=True))
    backwards = staticmethod(lambda x, raw: circular(x, raw, weights=True, inverse=True))
    formula = staticmethod(lambda x, raw: formulas["circular"](x, raw, True))

    @staticmethod
    def raw(size, **at):
        return (torch.cat([0.7 * torch.randn(size, 6, **at), torch.full((size, 1), 0.3, **at)], -1),)

    @staticmethod
    def x(size, **at):
        return 4 * torch.rand(size, **at) - 2

    def operands(self, args):
        return *args, True, self.inverted


class TestCircular(CircularCase, Contract):
    function = staticmethod(CircularCase.forward)


class TestCircularInverse(CircularCase, Contract):
    function = staticmethod(CircularCase.backwards)
    inverted = True


def turned(a, b):
    """The angle between, up to a sign."""
    return (torch.remainder(a - b + torch.pi, 2 * torch.pi) - torch.pi).abs()


def test_golden_projections(device):
    data = np.load(shared("golden/flows/rqs_ncp.npz"))
    x, s, t, before, y, logdet = (
        torch.from_numpy(data[f"ncp_{key}"]).to(device) for key in ("x", "s", "t", "mix_y_before_shift", "y", "logdet")
    )
    raw = torch.cat([s, t[:, None]], -1)
    ours = circular(x, raw)
    assert (turned(ours[0], y) < 1e-12).all()
    assert_close(ours[1], logdet, rtol=0, atol=1e-12)
    assert_close(circular(x, torch.cat([s, 0 * t[:, None]], -1))[0], before, rtol=0, atol=1e-12)
    back = circular(y, raw, inverse=True)
    assert_close(back, (x, -logdet), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("components", [1, 5])
def test_inverse_of_steep_mixtures(device, dtype, weights, components):
    """Shifts up to e^8: the residual is what rounding of x leaves of y."""
    raw = 8 * torch.rand(2000, components * (2 if weights else 1) + 1, device=device, dtype=dtype) - 4
    y = 2 * torch.pi * torch.rand(2000, device=device, dtype=dtype) - torch.pi
    x, logdet = circular(y, raw, weights=weights, inverse=True)
    again, forward = circular(x, raw, weights=weights)
    eps = torch.finfo(dtype).eps
    assert (turned(again, y) <= 8 * eps * (1 + forward.exp())).all()
    assert logdet.isfinite().all()


def test_nothing_is_singular_at_pi(device, dtype):
    pi = torch.tensor([torch.pi, -torch.pi], device=device, dtype=dtype)
    raw = torch.tensor([[-3.0, 2.0, 0.0]], device=device, dtype=dtype).requires_grad_()
    y, logdet = circular(pi, raw)
    assert_close(y.abs(), pi.abs())
    assert_close(logdet, torch.full_like(pi, 0.5 * (math.exp(3) + math.exp(-2))).log())
    (slope,) = torch.autograd.grad(logdet.sum(), raw)
    assert slope.isfinite().all()


def test_a_turn_changes_nothing(device):
    x, raw = torch.randn(50, device=device, dtype=torch.float64), torch.randn(50, 4, device=device).double()
    (y, logdet), (again, other) = circular(x, raw), circular(x + 6 * torch.pi, raw)
    assert (turned(y, again) < 1e-13).all()
    assert_close(logdet, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("parameters", "weights"), [(1, False), (4, True), (66, False)])
def test_refuses(parameters, weights):
    with pytest.raises(ValueError, match=f"raw must hold K \\+ 1 .* 1 to 64 components, got {parameters}"):
        circular(torch.zeros(3), torch.zeros(3, parameters), weights=weights)
