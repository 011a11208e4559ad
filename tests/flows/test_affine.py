import pytest
import torch
from core.contract import Contract
from hepops.flows import affine
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas


class AffineCase(Bijection):
    op = torch.ops.hepops.flows_affine.default
    public = staticmethod(affine)
    forward = staticmethod(lambda x, raw: affine(x, raw, scale="tanh"))
    backwards = staticmethod(lambda x, raw: affine(x, raw, scale="tanh", inverse=True))
    formula = staticmethod(lambda x, raw: formulas["affine"](x, raw, 2, 5.0))

    @staticmethod
    def raw(size, **at):
        return (torch.randn(size, 2, **at),)

    @staticmethod
    def x(size, **at):
        return torch.randn(size, **at)

    def operands(self, args):
        return *args, 2, 5.0, self.inverted


class TestAffine(AffineCase, Contract):
    function = staticmethod(AffineCase.forward)


class TestAffineInverse(AffineCase, Contract):
    function = staticmethod(AffineCase.backwards)
    inverted = True


CONVENTIONS = {  # scale: e^g of s, as the libraries write it
    "exp": torch.exp,
    "softclip": lambda s: (s / (1 + (s / torch.tensor(1e-3, dtype=s.dtype).log()).abs())).exp(),  # zuko
    "tanh": lambda s: (5 * (s / 5).tanh()).exp(),
    "softplus": lambda s: torch.nn.functional.softplus(s) + 1e-3,  # nflows, autoregressive
    "sigmoid": lambda s: torch.sigmoid(s + 2) + 1e-3,  # nflows, coupling
}


@pytest.mark.parametrize("scale", CONVENTIONS)
@pytest.mark.parametrize("inverse", [False, True])
def test_conventions(device, scale, inverse):
    x, raw = torch.randn(2, 50, device=device, dtype=torch.float64)[0], 2 * torch.randn(50, 2, device=device).double()
    factor = CONVENTIONS[scale](raw[:, 0])
    expected = ((x - raw[:, 1]) / factor, -factor.log()) if inverse else (x * factor + raw[:, 1], factor.log())
    assert_close(affine(x, raw, scale=scale, inverse=inverse), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", CONVENTIONS)
@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_of_all_conventions(device, scale, inverse):
    args = [torch.randn(6, *p, device=device, dtype=torch.float64, requires_grad=True) for p in ((), (2,))]
    function = lambda x, raw: affine(x, raw, scale=scale, inverse=inverse)  # noqa: E731
    assert torch.autograd.gradcheck(function, args, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "cosh"}, "scale must be one of .*, got 'cosh'"),
        ({"scale": "tanh", "limit": 0.0}, "limit must be positive, got 0.0"),
        ({"scale": "softplus", "limit": -1.0}, "limit must be at least 0, got -1.0"),
        ({"scale": "tanh", "limit": float("nan")}, "limit must be positive, got nan"),
        ({"raw": torch.zeros(3, 3)}, r"raw has shape \(3, 3\), expected that of x and 2 parameters"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        affine(torch.zeros(3), **({"raw": torch.zeros(3, 2)} | arguments))


def test_refuses_parameters_of_less_precision():
    with pytest.raises(TypeError, match="raw has dtype Float, which does not go with x of dtype Double"):
        affine(torch.zeros(3, dtype=torch.float64), torch.zeros(3, 2))
