"""The update of one link: its exact log-determinant, both derivatives, and the way back."""

import math

import pytest
import torch
from core.contract import Contract, differentiable, strided
from hepops.lattice import SUN, group, residual, residual_inverse
from hepops.lattice.residual import formula
from torch.autograd import gradcheck
from torch.library import opcheck
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet


def links_and_staples(n, size, dtype=torch.float64, device="cpu", norm=0.8):
    """Links, and staples whose largest singular value is at most `norm`."""
    kind = torch.complex64 if dtype == torch.float32 else torch.complex128
    p = torch.randn(size, n * n - 1, dtype=torch.float64)
    A = torch.randn(size, n, n, dtype=torch.complex128)
    scale = norm / torch.linalg.matrix_norm(A, 2).clamp_min(1e-9) if size else 1.0
    A = A * torch.as_tensor(scale)[..., None, None]
    U = torch.linalg.matrix_exp(group.from_coordinates(p, n))
    return U.to(device=device, dtype=kind), A.to(device=device, dtype=kind)


class ResidualCase:
    op = torch.ops.hepops.lattice_residual.default
    function = staticmethod(residual)
    reference = staticmethod(formula)
    sizes = (0, 1, 9, 40)
    large = 4000
    refused = (torch.float32, torch.int64)
    n: int

    def sample(self, size, device="cpu", dtype=torch.float64):
        return links_and_staples(self.n, size, dtype, device)

    @staticmethod
    def rounding(dtype):
        # S is inverted in the backward: its condition is (1 + .8) / (1 - .8)
        return {"rtol": 1e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}


class TestResidualSU3(ResidualCase, Contract):
    n = 3


class TestResidualSU2(ResidualCase, Contract):
    n = 2


@pytest.mark.parametrize("n", [2, 3])
def test_logdet_is_that_of_the_numeric_jacobian(n, device):
    """A link alone, and a product of staples that do not see it."""
    U, A = links_and_staples(n, 3, device=device)
    for u, a in zip(U.split(1), A.split(1), strict=True):
        exact = residual(u, a)[1].item()
        assert numeric_logdet(lambda v, a=a: residual(v, a.expand_as(v))[0], u) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_near_the_identity(n):
    """X = 0 and dX/dY = c: every direction is stretched by 1 + c."""
    one = torch.eye(n, dtype=torch.complex128)
    V, logdet = residual(one, 0.3 * one)
    assert_close(V, one)
    assert logdet.item() == pytest.approx((n * n - 1) * math.log(1.3), abs=1e-14)


@pytest.mark.parametrize("n", [2, 3])
def test_equivariance(n, dtype, device):
    """U -> g U h^+ with A -> h A g^+: U' goes along, the log-determinant stays."""
    U, A = links_and_staples(n, 20, dtype, device)
    g, h = (links_and_staples(n, 20, dtype, device)[0] for _ in range(2))
    V, logdet = residual(U, A)
    turned, same = residual(g @ U @ h.mH, h @ A @ g.mH)
    eps = torch.finfo(dtype).eps
    assert_close(turned, g @ V @ h.mH, rtol=0, atol=20 * eps)
    assert_close(same, logdet, rtol=0, atol=200 * eps)
    assert_close(V.mH @ V, torch.eye(n, device=device).to(V).expand_as(V), rtol=0, atol=20 * eps)


@pytest.mark.parametrize("norm", [0.5, 0.95])
@pytest.mark.parametrize("n", [2, 3])
def test_there_and_back(n, norm, dtype, device):
    """To the stated error, r / (1 - r) of the tolerance, and the rounding of what was given."""
    U, A = links_and_staples(n, 50, dtype, device, norm)
    V, logdet = residual(U, A)
    back, minus = residual_inverse(V, A, iterations=1000)
    eps = torch.finfo(dtype).eps
    assert (back - U).abs().max() <= norm / (1 - norm) * 1e-13 + 20 * eps / (1 - norm)
    assert_close(minus, -logdet, rtol=0, atol=400 * eps / (1 - norm) ** 2)


@pytest.mark.parametrize("n", [2, 3])
def test_inverse_is_differentiable(n, device):
    V, A = links_and_staples(n, 3, device=device, norm=0.5)
    function = lambda V, A: residual_inverse(V, A, tolerance=1e-15)  # noqa: E731
    assert gradcheck(function, differentiable([V, A]), atol=1e-8, rtol=1e-6)


def test_inverse_is_registered(device, dtype):
    op = torch.ops.hepops._lattice_residual_inverse.default
    for size in (0, 9):
        args = [*links_and_staples(3, size, dtype, device), 100, 1e-12]
        opcheck(op, differentiable(args))
        opcheck(op, strided(args))


def test_what_does_not_come_to_rest_is_reported():
    V, A = links_and_staples(3, 40, norm=0.9)
    with pytest.raises(ArithmeticError, match=r"of 40 links have not come to rest in 3 iterations"):
        residual_inverse(V, A, iterations=3)
    V[7] = torch.nan
    with pytest.raises(ArithmeticError, match=r"1 of 40 links"):
        residual_inverse(V, A, iterations=2000)


def test_a_link_does_not_depend_on_its_neighbours():
    U, A = links_and_staples(3, 21)
    V, logdet = residual(U, A)
    alone = [residual(u, a) for u, a in zip(U, A, strict=True)]
    assert_close(V, torch.stack([v for v, _ in alone]), rtol=0, atol=0)
    assert_close(logdet, torch.stack([d for _, d in alone]), rtol=0, atol=0)


def test_refuses():
    U = SUN(2, (2, 2), 1.0).cold(1)
    with pytest.raises(ValueError, match="N = 2 or 3"):
        residual(torch.zeros(4, 4, dtype=torch.complex64), torch.zeros(4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="staples has shape"):
        residual(U, U[0])
    with pytest.raises(TypeError, match="staples has dtype"):
        residual(U, U.to(torch.complex64))
    with pytest.raises(ValueError, match="tolerance must lie"):
        residual_inverse(U, U, tolerance=0.0)
    with pytest.raises(ValueError, match="iterations"):
        residual_inverse(U, U, iterations=0)
