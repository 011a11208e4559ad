"""Landau's and Vavilov's distributions against their integrals, their moments and each other."""

import math

import numpy as np
import pytest
import torch
from hepops.lartpc.calorimetry import landau_cdf, landau_log_density, landau_quantile, vavilov
from hepops.lartpc.calorimetry.ranges import EULER
from hepops.lartpc.calorimetry.vavilov import distribution, quantiles


def integral(lam, power=0):
    """Landau's integral through the saddle, by composite Gauss-Legendre: other contours, other rule than the module."""
    s0 = max(math.exp(-1 - lam), 0.35)
    x, w = np.polynomial.legendre.leggauss(40)
    edges = np.concatenate([np.linspace(0, 60 * max(1.0, math.sqrt(s0)), 400)])
    half = np.diff(edges) / 2
    v = (edges[:-1, None] + half[:, None] * (1 + x)).ravel()
    s = s0 + 1j * v
    # relative to the value at the saddle, where the left tail underflows
    top = s0 * math.log(s0) + lam * s0
    f = np.exp(s * np.log(s) + lam * s - top) * s**power
    return math.log((f.real * (half[:, None] * w).ravel()).sum() / math.pi) + top


@pytest.mark.parametrize("lam", [-7.0, -4.5, -3.0, -1.7, -1.01, -0.99, -0.2, 1.0, 1.6, 3.9, 4.1, 9.0, 14.0])
def test_the_density_is_its_integral(lam):
    """Far right the contour of the test cancels: exp(0.35 lambda) times 1e-16."""
    assert float(landau_log_density(lam)) == pytest.approx(
        integral(lam), rel=1e-12, abs=1e-12 * math.exp(0.5 * max(lam, 0))
    )


@pytest.mark.parametrize("lam", [-6.0, -3.0, -1.2])
def test_the_left_tail_is_its_integral(lam):
    assert float(torch.log(landau_cdf(lam))) == pytest.approx(integral(lam, -1), rel=1e-12)


@pytest.mark.parametrize("lam", [1e3, 1e5, 1e7, 1e9, 1e12])
def test_the_right_tail_is_that_of_single_collisions(lam):
    """f = 1/lambda^2 [1 + (2 ln lambda + 2 gamma - 3)/lambda + ...] (the integral's expansion at small t)."""
    first = 1 + (2 * math.log(lam) + 2 * EULER - 3) / lam
    second = 10 * (math.log(lam) / lam) ** 2
    assert float(landau_log_density(lam)) + 2 * math.log(lam) == pytest.approx(math.log(first), abs=second + 4e-7)


def test_known_numbers():
    """Mode, height and median as the literature has them (Koelbig and Schorr; Wolfram)."""
    lam = torch.linspace(-0.3, -0.15, 15001, dtype=torch.float64)
    density = landau_log_density(lam)
    assert float(lam[density.argmax()]) == pytest.approx(-0.22278, abs=2e-5)
    assert float(density.max().exp()) == pytest.approx(0.1806556, abs=1e-7)
    assert float(landau_quantile(0.5)) == pytest.approx(1.35578, abs=1e-5)
    half = density.max() - math.log(2)
    x = torch.linspace(-3, 6, 90001, dtype=torch.float64)
    above = x[landau_log_density(x) > half]
    assert float(above[-1] - above[0]) == pytest.approx(4.018, abs=1e-3)


def test_density_and_distribution_belong_together():
    lam = torch.cat([torch.linspace(-4, 50, 200), torch.logspace(2, 6, 50)]).double().requires_grad_()
    upper = lam.detach() > 1
    p = torch.where(upper, -landau_cdf(lam, upper=True), landau_cdf(lam))
    (slope,) = torch.autograd.grad(p.sum(), lam)
    torch.testing.assert_close(slope, landau_log_density(lam.detach()).exp(), rtol=1e-9, atol=0)
    both = landau_cdf(lam.detach()) + landau_cdf(lam.detach(), upper=True)
    torch.testing.assert_close(both, torch.ones_like(both), rtol=0, atol=1e-13)


def test_pieces_join():
    """A step of 1e-9 across each joint changes the logarithm by its slope."""
    for joint in (-1 + math.log(0.03), -1 + math.log(0.2), -1.0, 1.5, 4.0, 30.0, 1e3, 1e5, 1e8):
        ends = torch.tensor(
            [joint - 1e-9 * abs(joint), joint + 1e-9 * abs(joint)], dtype=torch.float64
        ).requires_grad_()
        value = landau_log_density(ends)
        (slope,) = torch.autograd.grad(value.sum(), ends)
        assert float((value[1] - value[0] - slope[0] * (ends[1] - ends[0])).abs()) < 2e-13 * max(
            1, float(value[0].abs())
        )
        assert float((slope[1] - slope[0]).abs()) < 1e-6 * float(slope[0].abs())


def test_quantiles_invert_probabilities_and_have_a_slope():
    p = torch.tensor([1e-12, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64, requires_grad=True)
    lam = landau_quantile(p)
    torch.testing.assert_close(landau_cdf(lam), p, rtol=1e-11, atol=0)
    (slope,) = torch.autograd.grad(lam.sum(), p)
    torch.testing.assert_close(slope, (-landau_log_density(lam.detach())).exp(), rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match=r"p must lie inside \(0, 1\), got 1.0"):
        landau_quantile(1.0)


def test_the_logarithm_of_the_density_is_smooth():
    lam = torch.tensor([-3.0, -0.8, 0.5, 2.0, 10.0, 500.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(landau_log_density, (lam,), atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(landau_log_density, (lam,), atol=1e-7, rtol=1e-5)


# ---- Vavilov


@pytest.mark.parametrize("kappa, beta2", [(1e-3, 0.9), (0.01, 0.5), (0.1, 1.0), (1.0, 0.3), (30.0, 0.1)])
def test_the_inversion_has_vavilovs_moments(kappa, beta2):
    """Mean 0, and the spectrum's own second and third moments."""
    y, f, F, Q = distribution(kappa, beta2)
    h = y[1] - y[0]
    assert f.sum() * h == pytest.approx(1, abs=1e-12)
    assert (f * y).sum() * h == pytest.approx(0, abs=1e-11)
    assert (f * y**2).sum() * h == pytest.approx((1 - beta2 / 2) / kappa, rel=1e-10)
    assert (f * y**3).sum() * h == pytest.approx((1 / 2 - beta2 / 3) / kappa**2, rel=1e-9)
    np.testing.assert_allclose(F + Q, 1, atol=1e-12)


def test_the_table_is_the_inversion():
    """In units of the normal score: within 2e-3 for |z| < 2.5, 0.02 for |z| < 4."""
    rng, z = np.random.default_rng(1), np.linspace(-3.97, 3.97, 60)
    for _ in range(6):
        kappa, beta2 = float(np.exp(rng.uniform(np.log(1e-3), np.log(30)))), rng.uniform()
        y, slope = quantiles(kappa, beta2, z)
        off = (vavilov(torch.from_numpy(z), torch.tensor(kappa), torch.tensor(beta2)).numpy() - y) / slope
        assert np.abs(off[np.abs(z) < 2.5]).max() < 2e-3
        assert np.abs(off).max() < 0.02


def test_a_thin_layer_is_landaus():
    """kappa 1e-3: up to probability 0.9 within 5 % of lambda's spread; farther out the largest transfer is felt."""
    kappa, beta2 = torch.tensor(1e-3).double(), torch.tensor(0.9).double()
    p = torch.tensor([1e-4, 0.01, 0.16, 0.5, 0.84], dtype=torch.float64)
    y = vavilov(torch.special.ndtri(p), kappa, beta2)
    lam = y - (1 - EULER + beta2 + torch.log(kappa))
    torch.testing.assert_close(lam, landau_quantile(p), rtol=0.03, atol=0.03)


def test_a_thick_layer_is_gaussian():
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    kappa, beta2 = torch.tensor(1e6).double(), torch.tensor(0.2).double()
    torch.testing.assert_close(vavilov(z, kappa, beta2), z * torch.sqrt((1 - beta2 / 2) / kappa), atol=1e-5, rtol=0)


def test_the_loss_rises_with_its_score_and_is_continuous_where_the_table_ends():
    z = torch.linspace(-9, 8, 3001, dtype=torch.float64)
    for kappa in (1e-5, 1e-3, 0.05, 1.0, 29.0, 200.0):
        y = vavilov(z, torch.tensor(kappa), torch.tensor(0.7))
        assert bool((y[1:] > y[:-1]).all())
    for edge in (1e-3, 30.0):
        a, b = (vavilov(z, torch.tensor(edge * s).double(), torch.tensor(0.7)) for s in (1 - 1e-9, 1 + 1e-9))
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_vavilov_is_differentiable():
    z = torch.tensor([-7.0, -2.03, 0.0, 0.52, 3.3, 6.0], dtype=torch.float64, requires_grad=True)
    kappa = torch.tensor([0.3, 2e-3, 0.02, 0.5, 5.0, 60.0], dtype=torch.float64, requires_grad=True)
    beta2 = torch.tensor([0.1, 0.9, 0.95, 0.5, 0.2, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(vavilov, (z, kappa, beta2), eps=1e-7, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="kappa must be positive"):
        vavilov(z, -kappa, beta2)
