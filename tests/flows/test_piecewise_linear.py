import pytest
import torch
from core.contract import Contract
from hepops.flows import piecewise_linear
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas


class PiecewiseLinearCase(Bijection):
    op = torch.ops.hepops.flows_piecewise_linear.default
    public = staticmethod(piecewise_linear)
    forward = staticmethod(lambda x, raw: piecewise_linear(x, raw))
    backwards = staticmethod(lambda x, raw: piecewise_linear(x, raw, inverse=True))
    formula = staticmethod(formulas["piecewise_linear"])

    @staticmethod
    def raw(size, **at):
        return (torch.randn(size, 4, **at),)

    @staticmethod
    def x(size, **at):
        return (
            torch.randint(4, (size,), device=at["device"]) + 0.1 + 0.8 * torch.rand(size, **at)
        ) / 4  # no kink within a step

    def operands(self, args):
        return *args, self.inverted


class TestPiecewiseLinear(PiecewiseLinearCase, Contract):
    function = staticmethod(PiecewiseLinearCase.forward)


class TestPiecewiseLinearInverse(PiecewiseLinearCase, Contract):
    function = staticmethod(PiecewiseLinearCase.backwards)
    inverted = True


def test_ends_and_what_is_outside(device, dtype):
    x = torch.tensor([0.0, 1.0, -1e-6, 1.001, torch.inf, torch.nan], device=device, dtype=dtype)
    raw = torch.randn(6, 5, device=device, dtype=dtype)
    for inverse in (False, True):
        y, logdet = piecewise_linear(x, raw, inverse=inverse)
        assert y[:2].tolist() == [0, 1]
        assert logdet[:2].isfinite().all()
        assert y[2:].isnan().all() and logdet[2:].isnan().all()


def test_density_integrates_to_one(device):
    raw = 3 * torch.randn(5, device=device, dtype=torch.float64)
    x = (torch.arange(100_000, device=device, dtype=torch.float64) + 0.5) / 100_000
    y, logdet = piecewise_linear(x, raw)
    assert (y.diff() >= 0).all()
    assert_close(logdet.exp().mean(), torch.tensor(1.0, device=device, dtype=torch.float64), rtol=0, atol=1e-4)


def test_as_nflows(device):
    splines = pytest.importorskip("nflows.transforms.splines")
    x, raw = torch.rand(500, dtype=torch.float64), torch.randn(500, 8, dtype=torch.float64)
    for inverse in (False, True):
        assert_close(
            piecewise_linear(x, raw, inverse=inverse), splines.linear_spline(x, raw, inverse), rtol=0, atol=1e-11
        )


@pytest.mark.parametrize("parameters", [0, 129])
def test_refuses(parameters):
    with pytest.raises(ValueError, match=f"raw must hold 1 to 128 parameters, one for each bin, got {parameters}"):
        piecewise_linear(torch.zeros(3), torch.zeros(3, parameters))
