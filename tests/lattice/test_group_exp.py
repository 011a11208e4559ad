"""The exponential map of su(N)."""

import pytest
import torch
from core.contract import Contract
from hepops.lattice import group
from hepops.lattice.group.exponential import formula
from torch.testing import assert_close


def matrices(n, *shape, device="cpu", dtype=torch.float64, scale=1.0):
    return (scale * torch.randn(*shape, n, n, device=device, dtype=torch.complex128)).to(
        torch.promote_types(dtype, torch.complex64)
    )


class Exponential:
    op = torch.ops.hepops._lattice_exp.default
    function = staticmethod(group.exp)
    reference = staticmethod(formula)
    twice = True
    large = 20_000
    sizes = (0, 11)
    refused = (torch.int64, torch.float64)
    refusal = "must be complex64 or complex128"

    def sample(self, size, **at):
        return [matrices(self.n, 3 if size == 15 else size, **at)]  # 15 for second derivatives takes long

    @staticmethod
    def rounding(dtype):
        # entries of size 1 from eigenvalues up to 4: e^2 of the terms' size, and a squaring
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}


class TestOfSU2(Exponential, Contract):
    n = 2


class TestOfSU3(Exponential, Contract):
    n = 3


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e-3, 1.0, 30.0, 1e3])
def test_of_any_size(n, scale, device):
    """The error grows as the angle does, whose own rounding it is; nothing is singular where X is small."""
    X = group.traceless_antihermitian(matrices(n, 200, device=device, scale=scale)).requires_grad_()
    exact = formula(X)
    seed = torch.randn_like(X)
    close = {"rtol": 0, "atol": 4e-15 * (1 + scale)}
    assert_close(group.exp(X), exact, **close)
    ours, theirs = (torch.autograd.grad(U, X, seed)[0] for U in (group.exp(X), exact))
    assert_close(ours, theirs, rtol=0, atol=2e-14 * (1 + scale))


@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, -2.0), (-1.0, -1.0, 2.0), (1e-9, 0.0, -1e-9), (0.0, 0.0, 0.0)])
def test_where_eigenvalues_coincide(eigenvalues, device):
    V = torch.linalg.qr(matrices(3, device=device))[0]
    phases = torch.tensor(eigenvalues, dtype=torch.float64, device=device)
    X = (V * 1j * phases @ V.mH).requires_grad_()
    assert_close(group.exp(X), V * torch.exp(1j * phases) @ V.mH, rtol=0, atol=4e-15)
    assert torch.autograd.gradcheck(group.exp, X, atol=1e-8, rtol=1e-6)


def test_is_a_rotation_of_the_plane(device):
    """e^{i a T^2 2} turns by a."""
    a = torch.linspace(-7, 7, 50, dtype=torch.float64, device=device)
    p = torch.stack([0 * a, 2 * a, 0 * a], -1)
    U = group.exp(group.from_coordinates(p, 2))
    wanted = torch.stack([torch.stack([a.cos(), a.sin()], -1), torch.stack([-a.sin(), a.cos()], -1)], -2)
    assert_close(U, wanted.to(U.dtype), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_lies_in_the_group(n, device):
    U = group.exp(matrices(n, 100, device=device, scale=2))
    assert_close(U @ U.mH, torch.eye(n, dtype=U.dtype, device=device).expand_as(U), rtol=0, atol=1e-13)
    assert_close(torch.linalg.det(U), torch.ones(100, dtype=U.dtype, device=device), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [2, 3])
def test_nan_stays_in_its_matrix(n, device):
    X = matrices(n, 20, device=device)
    X[3, 0, 1] = torch.nan
    X[7, 1, 1] = complex(0, torch.inf)
    U = group.exp(X)
    bad = torch.zeros(20, dtype=torch.bool, device=device)
    bad[[3, 7]] = True
    assert U.isnan().any((-1, -2)).equal(bad)
    assert_close(U[~bad], formula(X[~bad]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1), (4, 3, 2)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"exp: X must have shape \(..., N, N\)"):
        group.exp(torch.zeros(shape, dtype=torch.complex128))
