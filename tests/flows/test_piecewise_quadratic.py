import pytest
import torch
from core.contract import Contract
from hepops.flows import piecewise_quadratic
from torch.testing import assert_close

from .bijection_contract import Bijection, formulas


class PiecewiseQuadraticCase(Bijection):
    op = torch.ops.hepops.flows_piecewise_quadratic.default
    public = staticmethod(piecewise_quadratic)
    forward = staticmethod(lambda x, raw: piecewise_quadratic(x, raw))
    backwards = staticmethod(lambda x, raw: piecewise_quadratic(x, raw, inverse=True))
    formula = staticmethod(formulas["piecewise_quadratic"])

    @staticmethod
    def raw(size, **at):
        return (torch.randn(size, 9, **at),)

    @staticmethod
    def x(size, **at):
        return 0.01 + 0.98 * torch.rand(size, **at)

    def operands(self, args):
        return *args, self.inverted


class TestPiecewiseQuadratic(PiecewiseQuadraticCase, Contract):
    function = staticmethod(PiecewiseQuadraticCase.forward)


class TestPiecewiseQuadraticInverse(PiecewiseQuadraticCase, Contract):
    function = staticmethod(PiecewiseQuadraticCase.backwards)
    inverted = True


def test_ends_and_what_is_outside(device, dtype):
    x = torch.tensor([0.0, 1.0, -1e-6, 1.001, torch.inf, torch.nan], device=device, dtype=dtype)
    raw = torch.randn(6, 11, device=device, dtype=dtype)
    for inverse in (False, True):
        y, logdet = piecewise_quadratic(x, raw, inverse=inverse)
        assert y[:2].tolist() == [0, 1]
        assert logdet[:2].isfinite().all()
        assert y[2:].isnan().all() and logdet[2:].isnan().all()


def test_density_integrates_to_one(device):
    raw = 3 * torch.randn(11, device=device, dtype=torch.float64)
    x = (torch.arange(100_000, device=device, dtype=torch.float64) + 0.5) / 100_000
    y, logdet = piecewise_quadratic(x, raw)
    assert (y.diff() >= 0).all()
    assert_close(logdet.exp().mean(), torch.tensor(1.0, device=device, dtype=torch.float64), rtol=0, atol=1e-4)


def test_as_nflows(device):
    splines = pytest.importorskip("nflows.transforms.splines")
    x, raw = torch.rand(500, dtype=torch.float64), torch.randn(500, 17, dtype=torch.float64)
    for inverse in (False, True):
        theirs = splines.quadratic_spline(x, raw[:, :8], raw[:, 8:], inverse)
        assert_close(piecewise_quadratic(x, raw, inverse=inverse), theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("parameters", [1, 4, 131])
def test_refuses(parameters):
    with pytest.raises(ValueError, match=f"raw must hold 2 K \\+ 1 parameters for 1 to 64 bins, got {parameters}"):
        piecewise_quadratic(torch.zeros(3), torch.zeros(3, parameters))
