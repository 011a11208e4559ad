import math

import pytest
import torch
from core.contract import Contract
from hepops.flows import sigmoid_mixture
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas


class SigmoidMixtureCase(Bijection):
    op = torch.ops.hepops.flows_sigmoid_mixture.default
    public = staticmethod(sigmoid_mixture)
    forward = staticmethod(lambda x, raw: sigmoid_mixture(x, raw))
    backwards = staticmethod(lambda x, raw: sigmoid_mixture(x, raw, inverse=True))
    formula = staticmethod(formulas["sigmoid_mixture"])

    @staticmethod
    def raw(size, **at):
        return (torch.randn(size, 9, **at),)

    @staticmethod
    def x(size, **at):
        return torch.randn(size, **at)

    def operands(self, args):
        return *args, self.inverted


class TestSigmoidMixture(SigmoidMixtureCase, Contract):
    function = staticmethod(SigmoidMixtureCase.forward)


class TestSigmoidMixtureInverse(SigmoidMixtureCase, Contract):
    function = staticmethod(SigmoidMixtureCase.backwards)
    inverted = True


def test_tails_to_any_distance(device, dtype):
    """Far out only the flattest component counts: y = a x + b + ln(w), where sigmoids themselves are 0 or 1."""
    x = torch.tensor([-1e6, -3e3, 3e3, 1e6], device=device, dtype=dtype).requires_grad_()
    raw = torch.tensor([0.5413, 3.0, 0.3, -1.0, 0.0, 0.7], device=device, dtype=dtype)
    y, logdet = sigmoid_mixture(x, raw)
    a, b = torch.nn.functional.softplus(raw[0]) + 1e-3, raw[2]
    log_w = raw[4:].log_softmax(-1)[0]
    expected = (a * x + b + x.sign() * -log_w).detach()
    assert_close(y, expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-5)
    assert_close(logdet, a.log().expand(4), rtol=0, atol=8 * torch.finfo(dtype).eps)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert_close(slope, a.expand(4), rtol=1e-6, atol=0)
    assert_close(sigmoid_mixture(y.detach(), raw, inverse=True)[0], x.detach(), rtol=4e-7, atol=0)


def test_inverse_of_steep_mixtures(device, dtype):
    raw = 4 * torch.randn(2000, 24, device=device, dtype=dtype)
    y = 8 * torch.randn(2000, device=device, dtype=dtype)
    x, _ = sigmoid_mixture(y, raw, inverse=True)
    again, forward = sigmoid_mixture(x, raw)
    eps = torch.finfo(dtype).eps
    assert ((again - y).abs() <= 4 * eps * (1 + y.abs() + forward.exp() * x.abs())).all()


def test_one_component_is_a_line(device, dtype):
    x = torch.randn(20, device=device, dtype=dtype)
    y, logdet = sigmoid_mixture(x, torch.tensor([0.5413, 2.0, -7.0], device=device, dtype=dtype))
    a = torch.nn.functional.softplus(torch.tensor(0.5413, dtype=torch.float64)).item() + 1e-3
    assert_close(y, a * x + 2)
    assert_close(logdet, torch.full_like(x, math.log(a)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("parameters", [1, 4, 147])
def test_refuses(parameters):
    with pytest.raises(ValueError, match=f"raw must hold 3 K parameters for 1 to 48 components, got {parameters}"):
        sigmoid_mixture(torch.zeros(3), torch.zeros(3, parameters))
