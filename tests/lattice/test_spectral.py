"""The spectral coupling of SU(2) and SU(3)."""

import math

import pytest
import torch
from core.contract import Contract
from hepops.flows import Haar
from hepops.lattice import group, spectral
from hepops.lattice.group.exponential import formula as exp_formula
from hepops.lattice.spectral import formula
from torch.testing import assert_close

from lattice.jacobian import numeric_logdet


class Spectral:
    """Of exp(X), so that differences stay on the group."""

    op = torch.ops.hepops.lattice_spectral.default
    public = staticmethod(spectral)
    inverse = False
    twice = True
    large = 5_000
    sizes = (0, 11)
    refused = (torch.int64, torch.float64)
    refusal = "must be complex64 or complex128"

    def function(self, X, raw):
        return spectral(group.exp(X), raw, self.inverse)

    def reference(self, X, raw):
        return formula(exp_formula(X), raw, self.inverse)

    def sample(self, size, device="cpu", dtype=torch.float64):
        bins = 2 if size == 15 else 4
        size = 1 if size == 15 else size  # whose second derivatives would take long
        X = torch.randn(size, self.n, self.n, device=device, dtype=torch.complex128)
        raw = torch.randn(size, self.n - 1, 3 * bins + 1, device=device, dtype=torch.float64)
        return [X.to(torch.promote_types(dtype, torch.complex64)), raw.to(dtype)]

    def operands(self, args):
        return group.exp(args[0]).detach(), args[1], self.inverse

    @staticmethod
    def rounding(dtype):
        # rounding of the loop over a gap, with slopes up to 30
        bound = 4e-3 if dtype == torch.float32 else 1e-10
        return {"rtol": bound, "atol": bound}


class TestOfSU2(Spectral, Contract):
    n = 2


class TestOfSU3(Spectral, Contract):
    n = 3


class TestInverseOfSU2(Spectral, Contract):
    n, inverse = 2, True


class TestInverseOfSU3(Spectral, Contract):
    n, inverse = 3, True


def loops(phases, device="cpu", seed=3):
    """Matrices with these phases, shape (N), and random vectors."""
    phases = torch.tensor(phases, dtype=torch.float64, device=device)
    V = Haar(f"SU{len(phases)}", dtype=torch.float64).to(device).draw(1, seed=seed)
    return V * torch.polar(torch.ones_like(phases), phases) @ V.mH


def parameters(n, bins=8, scale=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n - 1, 3 * bins + 1, dtype=torch.float64, generator=generator)


THIRD = 2 * math.pi / 3
NEAR = [
    ([0.7, -0.7], 1e-3),
    ([1e-3, -1e-3], 2e-5),
    ([1e-6, -1e-6], 2e-8),
    ([math.pi - 1e-5, 1e-5 - math.pi], 2e-7),
    ([0.5, 1.0, -1.5], 1e-3),
    ([0.5, 0.5 + 2e-4, -1.0 - 2e-4], 5e-6),
    ([-2.0, 1.0, 1.0 + 1e-3], 2e-5),
    ([1.0, math.pi - 1e-4 - 0.5, 0.5 + 1e-4 - math.pi], 5e-6),
    ([1e-4, 2e-4, -3e-4], 2e-6),
    ([THIRD + 1e-4, THIRD + 3e-4, THIRD - 4e-4], 2e-6),
    ([-THIRD + 1e-4, -THIRD - 3e-4, -THIRD + 2e-4], 2e-6),
    ([0.5, -0.5, 1e-3], 1e-4),
]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("phases, step", NEAR)
def test_jacobian(phases, step, inverse, device):
    """Differences of eighth order within the alcove: near degenerate eigenvalues, the identity, the centre's corners.

    What is left is rounding over the step.
    """
    n = len(phases)
    W, raw = loops(phases, device), parameters(n).to(device)
    logdet = spectral(W, raw, inverse)[1].item()
    numeric = numeric_logdet(lambda W: spectral(W, raw, inverse)[0], W, h=step)
    assert numeric == pytest.approx(logdet, abs=1e-8 + 40 * 1e-16 / step)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("gap", [1e-4, 1e-8, 1e-12, 1e-15, 0.0])
def test_goes_on_to_coinciding_eigenvalues(n, gap, device):
    """The image stays in the group and the round trip closes; a gap's ratio tends to the splines' slopes."""
    phases = [gap, -gap] if n == 2 else [0.4 + gap, 0.4, -0.8 - gap]
    W, raw = loops(phases, device).requires_grad_(), parameters(n).to(device).requires_grad_()
    image, logdet = spectral(W, raw)
    assert_close(image @ image.mH, torch.eye(n, dtype=W.dtype, device=device)[None], rtol=0, atol=1e-14)
    back, _ = spectral(image, raw, inverse=True)
    assert_close(back, W, rtol=0, atol=1e-13)
    limit = spectral(loops([1e-4, -1e-4] if n == 2 else [0.4 + 1e-4, 0.4, -0.8 - 1e-4], device), raw)[1]
    assert_close(logdet, limit, rtol=0, atol=3e-3)
    for out in (image.real.sum(), logdet.sum()):
        for grad in torch.autograd.grad(out, (W, raw), retain_graph=True):
            assert grad.isfinite().all()
            assert grad.abs().max() < 1e4


@pytest.mark.parametrize("n", [2, 3])
def test_commutes_with_conjugation(n, device):
    W, by = (Haar(f"SU{n}", dtype=torch.float64).to(device).draw(50, seed=seed) for seed in (1, 2))
    raw = parameters(n).to(device)
    (image, logdet), (turned, same) = spectral(W, raw), spectral(by @ W @ by.mH, raw)
    assert_close(turned, by @ image @ by.mH, rtol=0, atol=1e-12)
    assert_close(same, logdet, rtol=0, atol=1e-11)
    assert_close(image @ W, W @ image, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [2, 3])
def test_straight_splines_leave_the_loop(n, device, dtype):
    raw = torch.zeros(n - 1, 16, dtype=dtype, device=device)
    raw[..., 10:] = math.log(math.exp(1 - 1e-3) - 1)  # slope 1
    W = Haar(f"SU{n}", dtype=dtype).to(device).draw(50, seed=1)
    image, logdet = spectral(W, raw)
    eps = torch.finfo(dtype).eps
    assert_close(image, W, rtol=0, atol=16 * eps)
    assert_close(logdet, torch.zeros_like(logdet), rtol=0, atol=64 * eps)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("bins", [1, 2, 40])
def test_round_trip(n, bins, device):
    W = Haar(f"SU{n}", dtype=torch.float64).to(device).draw(100, seed=1)
    raw = parameters(n, bins).to(device)
    image, logdet = spectral(W, raw)
    back, minus = spectral(image, raw, inverse=True)
    assert_close(back, W, rtol=0, atol=1e-11)
    assert_close(minus, -logdet, rtol=0, atol=1e-10)


def test_keeps_the_mean_of_densities(device):
    """<J> = 1 over the Haar measure, a law of any bijection."""
    W = Haar("SU3", dtype=torch.float64).to(device).draw(100_000, seed=1)
    J = spectral(W, parameters(3, 4, 0.3).to(device))[1].exp()
    assert abs(J.mean() - 1) < 4 * J.std() / math.sqrt(len(J))


@pytest.mark.parametrize("n", [2, 3])
def test_nan_stays_in_its_loop(n, device):
    W = Haar(f"SU{n}", dtype=torch.float64).to(device).draw(20, seed=1)
    raw = parameters(n).to(device).expand(20, -1, -1).clone()
    W[3, 1, 0] = torch.nan
    raw[11, 0, 2] = torch.nan
    image, logdet = spectral(W, raw)
    bad = torch.zeros(20, dtype=torch.bool, device=device)
    bad[[3, 11]] = True
    assert logdet.isnan().equal(bad)
    assert image.isnan().any(-1).any(-1).equal(bad)


@pytest.mark.parametrize(
    "W, raw",
    [((3, 3), (1, 13)), ((4, 4), (3, 13)), ((2, 2), (1, 12)), ((2, 3), (1, 13)), ((3, 3), (13,)), ((2, 2), (1, 1))],
)
def test_refuses_shapes(W, raw):
    with pytest.raises(ValueError, match=r"spectral: (W|raw) must have shape"):
        spectral(torch.zeros(W, dtype=torch.complex128), torch.zeros(raw))


def test_refuses_real_loops():
    with pytest.raises(TypeError, match=r"spectral: W must be complex64 or complex128, got torch.float64"):
        spectral(torch.eye(3, dtype=torch.float64), torch.zeros(2, 13))
    with pytest.raises(TypeError, match="spectral: raw must be float32 or float64"):
        spectral(torch.eye(3, dtype=torch.complex128), torch.zeros(2, 13, dtype=torch.int64))
