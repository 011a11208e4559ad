"""Correlators of scalar fields: sums over pairs, the free field exactly, ensembles of it within errors."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lattice.observables import (
    binder,
    correlation_length,
    correlator,
    effective_mass,
    magnetisation_moments,
    pole_mass,
    propagator,
    susceptibility,
    topological_susceptibility,
    two_point,
)
from hepops.lattice.statistics import estimate
from torch.testing import assert_close


@pytest.fixture(scope="module")
def exact():
    return json.loads(shared("golden/flows/scalar_exact.json").read_text())


def case(name):
    """(L, D, m2) of free_L8_D2_m2_0.25."""
    _, L, D, _, m2 = name.split("_")
    return int(L[1:]), int(D[1:]), float(m2)


def free_propagator(L, D, m2):
    """1 / (phat^2 + m2), convention B."""
    p = 4 * torch.sin(torch.pi * torch.arange(L, dtype=torch.float64) / L) ** 2
    total = sum(p.view([-1 if nu == mu else 1 for nu in range(D)]) for mu in range(D))
    return 1 / (total + m2)


def free_fields(L, D, m2, count, seed):
    """Samples of the free field of convention B."""
    noise = torch.randn(count, *[L] * D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    where = tuple(range(1, D + 1))
    return torch.fft.ifftn(torch.fft.fftn(noise, dim=where) * free_propagator(L, D, m2).sqrt(), dim=where).real


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (2, 1, 3, 2)])
def test_two_point_pair_by_pair(shape, device, dtype):
    phi = torch.randn(2, *shape, device=device, dtype=dtype)
    field = phi.double().cpu().numpy()
    axes = tuple(range(1, 1 + len(shape)))
    expected = np.zeros_like(field)
    for x in np.ndindex(*shape):
        expected[(slice(None), *x)] = (field * np.roll(field, [-c for c in x], axes)).mean(axes)
    assert_close(two_point(phi).cpu(), torch.from_numpy(expected), rtol=0, atol=1e-14)
    for mu in range(len(shape)):
        others = tuple(nu for nu in axes if nu != mu + 1)
        assert_close(correlator(phi, mu).cpu(), torch.from_numpy(expected.sum(others)), rtol=0, atol=1e-13)
    assert_close(correlator(phi), correlator(phi, len(shape) - 1), rtol=0, atol=0)
    spectrum = torch.fft.fftn(two_point(phi), dim=axes)
    assert_close(propagator(phi), spectrum.real, rtol=0, atol=1e-12)


def test_gradients(device):
    phi = torch.randn(1, 3, 4, device=device, dtype=torch.float64, requires_grad=True)
    for function in (two_point, correlator, propagator, magnetisation_moments):
        assert torch.autograd.gradcheck(function, phi, atol=1e-8, rtol=1e-6)


def test_the_free_field_exactly(exact):
    """Pole mass, correlation length and sums of the golden correlators: no statistics, rounding alone."""
    names = [name for name in exact if name.startswith("free_")]
    assert len(names) >= 4
    for name in names:
        L, D, m2 = case(name)
        C = torch.tensor(exact[name]["C_t_convB"], dtype=torch.float64)
        mass = exact[name]["pole_mass"]
        assert_close(effective_mass(C)[1:], torch.full((L - 1,), mass, dtype=torch.float64), rtol=1e-9, atol=0)
        assert_close(pole_mass(C).item(), mass, rtol=1e-9, atol=0)
        assert_close(pole_mass(C, 1, 1).item(), mass, rtol=1e-9, atol=0)
        assert_close(C.sum().item(), exact[name]["chi2_convB"], rtol=1e-12, atol=0)
        assert_close(correlation_length(free_propagator(L, D, m2), D).item(), m2**-0.5, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["free_L8_D2_m2_0.25", "free_L6_D3_m2_0.3"])
@pytest.mark.parametrize("method, options", [("gamma", {}), ("jackknife", {"bin_size": 10})])
def test_an_ensemble_of_the_free_field(exact, name, method, options):
    """Independent samples: every derived quantity within 4 of its errors of what is exact."""
    L, D, m2 = case(name)
    known = exact[name]
    phi = free_fields(L, D, m2, 4000, seed=11)
    C = estimate(correlator(phi), method=method, **options)
    assert (C.sigmas(torch.tensor(known["C_t_convB"])).abs() < 4).all()
    mass = estimate(correlator(phi), lambda C: pole_mass(C, 1, 2), method=method, **options)
    assert abs(mass.sigmas(known["pole_mass"]).item()) < 4
    assert mass.error < 0.05 * mass.value
    G0 = estimate(two_point(phi).flatten(1)[:, 0], method=method, **options)
    assert abs(G0.sigmas(known["G(0)_convB"]).item()) < 4
    moments = magnetisation_moments(phi)
    chi = estimate(moments, lambda m: susceptibility(m, L**D), method=method, **options)
    assert abs(chi.sigmas(known["chi2_convB"]).item()) < 4
    assert abs(estimate(moments, binder, method=method, **options).sigmas(0.0).item()) < 4
    xi = estimate(propagator(phi), lambda G: correlation_length(G, D), method=method, **options)
    assert abs(xi.sigmas(m2**-0.5).item()) < 4


def test_reweighting_to_another_mass(exact):
    """Samples at m2 = 0.4 with weights exp(-(0.25 - 0.4)/2 sum phi^2): the numbers at m2 = 0.25."""
    known = exact["free_L8_D2_m2_0.25"]
    phi = free_fields(8, 2, 0.4, 20_000, seed=5)
    log_w = 0.075 * phi.square().sum((1, 2))
    mass = estimate(correlator(phi), lambda C: pole_mass(C, 1, 3), log_w=log_w)
    assert abs(mass.sigmas(known["pole_mass"]).item()) < 4
    assert abs(estimate(correlator(phi), lambda C: pole_mass(C, 1, 3)).sigmas(known["pole_mass"]).item()) > 10
    C = estimate(correlator(phi), log_w=log_w, method="jackknife", bin_size=20)
    assert (C.sigmas(torch.tensor(known["C_t_convB"])).abs() < 4).all()


def test_functions_of_means():
    moments = torch.tensor([[1.0, 2.0, 12.0], [0.5, 1.0, 1.0]])
    assert_close(binder(moments), torch.tensor([0.0, 2 / 3]))
    assert_close(susceptibility(moments, 10), torch.tensor([20.0, 10.0]))
    assert_close(susceptibility(moments, 10, connected=True), torch.tensor([10.0, 7.5]))
    assert_close(topological_susceptibility(torch.tensor([[1.0, 3.0]]), 8), torch.tensor([0.25]))
    falling = torch.exp(-0.3 * torch.arange(6).double())
    assert_close(effective_mass(falling, "log")[:5], torch.full((5,), 0.3, dtype=torch.float64))
    assert effective_mass(torch.tensor([1.0, 2.0, 1.0, 0.5])).isnan().any()  # noise


def test_refuses():
    phi = torch.randn(2, 4, 4)
    with pytest.raises(TypeError, match=r"two_point: phi must be float32 or float64, got torch.complex64"):
        two_point(phi.to(torch.complex64))
    with pytest.raises(ValueError, match=r"correlator: phi must have shape .*, got \(3,\)"):
        correlator(torch.zeros(3))
    with pytest.raises(ValueError, match=r"B >= 1, got \(0, 4\)"):
        propagator(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="direction must be from -2 to 1, got 2"):
        correlator(phi, 2)
    with pytest.raises(ValueError, match="C must hold 3 times or more"):
        effective_mass(torch.ones(2))
    with pytest.raises(ValueError, match="form must be 'acosh' or 'log', got 'cosh'"):
        effective_mass(torch.ones(4), "cosh")
    with pytest.raises(ValueError, match="1 <= first <= last < 4, got first 0, last 2"):
        pole_mass(torch.ones(4), 0)
    with pytest.raises(ValueError, match="3 sites or more"):
        correlation_length(torch.ones(2, 2), 2)
    assert math.isnan(correlation_length(torch.tensor([1.0, 2.0, 2.0]), 1).item())
