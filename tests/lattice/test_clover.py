"""Clover field strength, energy and charge: site by site, on constant fields, under gauge transformations."""

import math

import numpy as np
import pytest
import torch
from hepops.lattice import SUN, U1
from hepops.lattice.observables import (
    charge_density,
    energy,
    energy_density,
    field_strength,
    gauge_transform,
    random_transformation,
    topological_charge,
)
from torch.testing import assert_close

from .gauge_fields import Walker, constant_flux, standing_wave


def planes(dims):
    return [(mu, nu) for mu in range(dims) for nu in range(mu + 1, dims)]


@pytest.mark.parametrize(("n", "shape"), [(2, (3, 4)), (3, (2, 3, 4)), (3, (2, 3, 2, 2)), (4, (2, 3))])
def test_site_by_site(n, shape, device):
    U = SUN(n, shape, 1.0).random(2, seed=1).to(device)
    F, E, P = (x[1].cpu().numpy() for x in (field_strength(U), energy_density(U), energy_density(U, "plaquette")))
    walker = Walker(U[1].cpu())
    for x in walker.sites():
        clovers = [walker.clover(x, mu, nu) for mu, nu in planes(len(shape))]
        for k, clover in enumerate(clovers):
            assert np.abs(F[(k, *x)] - clover).max() < 1e-14
        assert abs(E[x] + sum(np.trace(c @ c).real for c in clovers)) < 1e-13
        plaquettes = [n - np.trace(walker.product(x, (mu, nu, ~mu, ~nu))).real for mu, nu in planes(len(shape))]
        assert abs(P[x] - 2 * sum(plaquettes)) < 1e-13


@pytest.mark.parametrize("n", [2, 3])
def test_charge_site_by_site(n, device):
    U = SUN(n, (2, 2, 3, 2), 1.0).random(1, seed=2).to(device)
    q = charge_density(U)[0].cpu().numpy()
    walker = Walker(U[0].cpu())
    for x in walker.sites():
        F = {p: walker.clover(x, *p) for p in planes(4)}
        pairs = F[0, 1] @ F[2, 3] - F[0, 2] @ F[1, 3] + F[0, 3] @ F[1, 2]
        assert abs(q[x] + np.trace(pairs).real / (4 * np.pi**2)) < 1e-14


@pytest.mark.parametrize(("shape", "n", "m"), [((4,) * 4, 1, 1), ((8,) * 4, 1, 1), ((4, 6, 3, 5), 2, -1)])
def test_charge_of_a_constant_field(shape, n, m, device):
    """Q = (V / 2 pi^2) sin(2 pi n / L0 L1) sin(2 pi m / L2 L3)."""
    U = constant_flux(shape, n, m).to(device)
    a, b = 2 * math.pi * n / (shape[0] * shape[1]), 2 * math.pi * m / (shape[2] * shape[3])
    exact = math.prod(shape) / (2 * math.pi**2) * math.sin(a) * math.sin(b)
    assert abs(topological_charge(U).item() - exact) < 1e-12 * abs(exact)
    assert abs(energy(U).item() - 2 * (math.sin(a) ** 2 + math.sin(b) ** 2)) < 1e-13
    assert abs(energy(U, "plaquette").item() - 4 * (2 - math.cos(a) - math.cos(b))) < 1e-13
    if n == m == 1:
        assert abs(exact - {4: 1.8993, 8: 1.99358}[shape[0]]) < 5e-5  # as the golden page quotes it


def test_energy_of_a_standing_wave(device):
    """Neighbouring plaquettes of opposite angle: the clover averages them away, the plaquettes see them."""
    U = standing_wave(4, 0.3).to(device)
    assert energy(U).abs().item() < 1e-28
    assert abs(energy(U, "plaquette").item() - 4 * (1 - math.cos(0.6))) < 1e-14


@pytest.mark.parametrize("n", [2, 3])
def test_gauge_invariance(n, device):
    U = SUN(n, (2, 3, 2, 4), 1.0).random(2, seed=4).to(device)
    V = gauge_transform(U, random_transformation(U, seed=9))
    for observable in (topological_charge, energy, lambda U: energy(U, "plaquette")):
        assert_close(observable(V), observable(U), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_gradients(n, device):
    U = SUN(n, (2, 1, 2, 2), 1.0).random(1, seed=3).to(device).requires_grad_()
    for function in (topological_charge, energy):
        assert torch.autograd.gradcheck(function, U, atol=1e-8, rtol=1e-6)


def test_float32(device):
    U = SUN(3, (4, 4, 4, 4), 1.0).random(1, seed=5).to(device)
    assert_close(topological_charge(U.to(torch.complex64)), topological_charge(U), rtol=0, atol=1e-5)
    assert topological_charge(U.to(torch.complex64)).dtype == torch.float64


def test_geometric_charge_is_an_integer(device, dtype):
    theta = U1((6, 4), beta=1.0).random(200, seed=1, dtype=dtype).to(device)
    Q = topological_charge(theta)
    assert (Q - Q.round()).abs().max() < (1e-12 if dtype == torch.float64 else 1e-5)
    assert Q.round().unique().numel() > 3
    moved = gauge_transform(theta, random_transformation(theta, seed=2))
    assert_close(topological_charge(moved), Q, rtol=0, atol=1e-4)


def test_geometric_charge_site_by_site(device):
    theta = U1((3, 4), beta=1.0).random(1, seed=7).to(device)
    q, link = charge_density(theta)[0].cpu(), theta[0].cpu().numpy()
    for x in range(3):
        for y in range(4):
            angle = link[0, x, y] + link[1, (x + 1) % 3, y] - link[0, x, (y + 1) % 4] - link[1, x, y]
            assert abs(q[x, y].item() - np.angle(np.exp(1j * angle)) / (2 * np.pi)) < 1e-14


def test_golden_charge(device):
    """shared/golden/flows: U(1) in two dimensions."""
    from conftest import shared

    golden = np.load(shared("golden/flows/lattice_kernels.npz"))
    names = [name for name in golden.files if "2d" in name and "Q" in name]
    assert names
    theta = torch.from_numpy(golden["u1_2d_theta"]).to(device)
    for name in names:
        assert_close(topological_charge(theta).cpu(), torch.from_numpy(golden[name]).double(), rtol=0, atol=1e-12)


def test_refuses():
    with pytest.raises(ValueError, match="the charge of SU\\(N\\) is that of 4 dimensions, got 3"):
        topological_charge(SUN(2, (2, 2, 2), 1.0).cold(1))
    with pytest.raises(ValueError, match="the geometric charge of U\\(1\\) is that of 2 dimensions, got 3"):
        topological_charge(U1((2, 2, 2), 1.0).cold(1))
    with pytest.raises(ValueError, match="form must be 'clover' or 'plaquette', got 'leaf'"):
        energy(SUN(2, (2, 2), 1.0).cold(1), "leaf")
    with pytest.raises(
        TypeError, match=r"U must be complex64 or complex128, for float32 or float64, got torch.float64"
    ):
        field_strength(torch.zeros(1, 2, 2, 2, 2, 2, dtype=torch.float64))
