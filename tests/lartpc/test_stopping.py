"""Energy loss in argon against the published tables."""

import numpy as np
import pytest
from conftest import shared
from hepops.lartpc import stopping
from hepops.lartpc.gun import csda_range, stopping_power
from hypothesis import given
from hypothesis import strategies as st

PARTICLES = list(stopping.SPECIES)
HEAVY = [name for name in PARTICLES if name != "electron"]
# Muons in liquid argon, D. E. Groom et al. (2001) as the Particle Data Group's table muE_liquid_argon has it:
# kinetic energy [MeV], CSDA range [g/cm2].
MUONS = np.array(
    [
        (10, 0.9937), (14, 1.795), (20, 3.329), (30, 6.605), (40, 10.58), (80, 30.84), (100, 42.50), (140, 67.32),
        (200, 106.3), (300, 172.5), (400, 238.5), (800, 493.4), (1000, 616.3),
    ]
)  # fmt: skip


def pstar():
    """NIST PSTAR, protons in (gaseous) argon: kinetic energy [MeV], stopping power [MeV cm2/g], range [g/cm2]."""
    return np.loadtxt(shared("data/lartpc/NIST_proton_read.txt"), skiprows=1).T


@pytest.mark.parametrize("low, high, tolerance", [(10, 1000, 0.003), (2, 10, 0.012), (1e-3, 2, 0.02)])
def test_protons_lose_what_nist_has(low, high, tolerance):
    T, S, _ = pstar()
    here = (low <= T) & (high >= T)
    assert here.sum() > 10
    np.testing.assert_allclose(stopping_power("proton", T[here], density=1.0), S[here], rtol=tolerance)


def test_protons_go_as_far_as_nist_has():
    """Below 1 MeV nuclear stopping, which is not here, shortens the range of PSTAR."""
    T, _, R = pstar()
    here = (T >= 1) & (T <= 1000)
    np.testing.assert_allclose(csda_range("proton", T[here], density=1.0), R[here], rtol=0.006)


def test_muons_go_as_far_as_the_particle_data_group_has():
    T, R = MUONS.T
    np.testing.assert_allclose(csda_range("muon", T, density=1.0), R, rtol=0.005)
    np.testing.assert_allclose(csda_range("muon", T[5:], density=1.0), R[5:], rtol=0.0015)


def test_minimum_ionisation_is_2_105_MeV_per_cm():
    """PDG: 1.508 MeV cm2/g at 266 MeV, times 1.396 g/cm3."""
    T = np.geomspace(50, 3000, 4000)
    S = stopping_power("muon", T)
    assert S.min() == pytest.approx(1.508 * 1.396, rel=1e-3)
    assert T[S.argmin()] == pytest.approx(266, rel=0.02)


def test_the_density_effect_cancels_the_logarithm():
    """delta/2 -> ln(beta gamma) + ln(plasma energy / I) - 1/2: the loss no longer grows through the long range."""
    eta = np.array([1e4, 1e5])
    growth = np.diff(np.log(eta) - stopping.density_effect(eta) / 2)
    assert abs(growth[0]) < 1e-12
    assert stopping.density_effect(np.array([1.0]))[0] == 0.0
    below, above = stopping.density_effect(10.0 ** np.array([0.2 - 1e-9, 0.2 + 1e-9]))
    assert above - below == pytest.approx(0, abs=0.005)  # the table's own step, of its rounding
    below, above = stopping.density_effect(10.0 ** np.array([3 - 1e-9, 3 + 1e-9]))
    assert above - below == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", HEAVY)
def test_equal_velocity_means_equal_loss_times_charge_squared(name):
    """Where the maximal transfer does not know the mass: T much below M^2 / 2m."""
    kind, proton = stopping.SPECIES[name], stopping.SPECIES["proton"]
    per_mass = np.geomspace(1e-6, 3e-3, 50)
    S = stopping.mass_stopping_power(kind, per_mass * kind.mass) / kind.charge**2
    np.testing.assert_allclose(S, stopping.mass_stopping_power(proton, per_mass * proton.mass), rtol=5e-3)


def test_electrons_lose_what_heavy_particles_of_their_velocity_nearly_do():
    """Moeller's exchange and the smaller maximal transfer: 5 to 15 % less than a muon of equal velocity."""
    for gamma in (1.5, 3.0, 10.0):
        electron = stopping_power("electron", (gamma - 1) * stopping.M_E)
        muon = stopping_power("muon", (gamma - 1) * stopping.SPECIES["muon"].mass)
        assert 0.85 < electron / muon < 0.97


def test_the_electrons_logarithm_is_that_of_berger_and_seltzer():
    """NBSIR 82-2550, written out once more at 1 MeV."""
    tau = 1 / 0.51099895
    beta2 = 1 - 1 / (1 + tau) ** 2
    x = np.log10(np.sqrt(tau * (tau + 2)))
    delta = 2 * np.log(10) * x - 5.2146 + 0.19559 * (3 - x) ** 3
    bracket = np.log(tau**2 * (tau + 2) / 2 / (188e-6 / 0.51099895) ** 2)
    bracket += 1 - beta2 + (tau**2 / 8 - (2 * tau + 1) * np.log(2)) / (1 + tau) ** 2 - delta
    expected = 0.307075 / 2 * 18 / 39.948 / beta2 * bracket
    assert stopping_power("electron", 1.0, density=1.0) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(1.3688, rel=1e-4)


@given(st.sampled_from(PARTICLES), st.floats(-4, 5))
def test_range_and_energy_are_inverses(name, exponent):
    table, T = stopping.range_of(stopping.SPECIES[name]), 10.0**exponent
    assert table.energy(table.length(T)) == pytest.approx(T, rel=1e-12)


@pytest.mark.parametrize("name", PARTICLES)
@pytest.mark.parametrize("cut", [None, 0.02, 1.0])
def test_the_slope_of_the_range_is_one_over_the_loss(name, cut):
    kind = stopping.SPECIES[name]
    if name == "electron" and cut:
        pytest.skip("electrons have no cut")
    table, T = stopping.range_of(kind, cut), np.geomspace(0.1, 1e5, 100)
    step = 1.01
    slope = (table.length(T * step) - table.length(T / step)) / (T * step - T / step)
    loss = stopping.mass_stopping_power(kind, T) - (stopping.hard_loss(kind, T, cut)[1] if cut else 0)
    np.testing.assert_allclose(slope * loss, 1, rtol=2e-3)


@given(st.sampled_from(HEAVY), st.floats(0, 4), st.floats(-2, 0.5))
def test_hard_and_soft_collisions_are_the_whole(name, exponent, cut_exponent):
    """The number and the loss above the cut are the moments of the spectrum that the gun draws from."""
    kind, T, cut = stopping.SPECIES[name], np.array(10.0**exponent), 10.0**cut_exponent
    _, beta2, W = (float(v) for v in stopping.kinematics(kind, T))
    number, loss = stopping.hard_loss(kind, T, cut)
    if W <= cut:
        assert number == loss == 0
        return
    E = np.geomspace(cut, W, 20001)
    spectrum = stopping.K / 2 * kind.charge**2 * stopping.Z / stopping.A / beta2 * (1 - beta2 * E / W) / E**2
    assert number == pytest.approx(np.trapezoid(spectrum, E), rel=1e-4)
    assert loss == pytest.approx(np.trapezoid(spectrum * E, E), rel=1e-4)
    assert 0 < loss < stopping.mass_stopping_power(kind, T)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: stopping_power("muons", 1.0), "particle must be one of electron, muon, .* got 'muons'"),
        (lambda: stopping_power("muon", 0.0), "energy must be positive and finite, got 0.0"),
        (lambda: csda_range("muon", [1.0, float("nan")]), "energy must be positive and finite"),
        (lambda: stopping_power("muon", 1.0, density=-1.0), "density must be positive and finite, got -1.0"),
    ],
)
def test_refuses_what_has_no_meaning(call, message):
    with pytest.raises(ValueError, match=message):
        call()
