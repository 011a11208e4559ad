import math

import numpy as np
import pytest
from hepops.lartpc.radiation import (
    bremsstrahlung,
    compton,
    compton_rate,
    pair,
    pair_rate,
    pair_share,
    radiated,
    screening,
)
from hepops.lartpc.stopping import M_E, RADIATION_LENGTH, SPECIES, A, K, Z, mass_stopping_power


def test_complete_screening_is_the_particle_data_groups():
    """Ch. 34.4, 34.5: k dN/dk = 4/3 - 4/3 y + y^2 and dN/dv = 1 - 4/3 v (1 - v), but for R2 < 1."""
    y = np.linspace(0.01, 0.9, 50)
    R1, R2 = screening(0.0)
    assert float(R1) == 1.0 and 0.95 < float(R2) < 1.0
    E = 1e7
    np.testing.assert_allclose(bremsstrahlung(y * E, E), 4 / 3 - 4 / 3 * y + y**2, atol=2 / 3 * (1 - float(R2)) + 1e-3)
    np.testing.assert_allclose(pair_share(y, E), 1 - 4 / 3 * y * (1 - y), atol=1 / 6 * (1 - float(R2)) + 1e-3)
    assert float(pair_rate(1e6)) == pytest.approx(7 / 9, rel=0.01)


def test_screening_functions_join_where_their_form_changes():
    below, above = screening(1.0 - 1e-9), screening(1.0 + 1e-9)
    np.testing.assert_allclose(below, above, rtol=0.01)  # the published coefficients join no better
    d = np.geomspace(1e-3, 1e3, 400)
    assert all((np.diff(R) <= 8e-3).all() and (R >= 0).all() for R in screening(d))


def test_an_electron_of_high_energy_loses_itself_in_a_radiation_length():
    E = 1e6
    k = np.geomspace(1e-6 * E, E - M_E, 20001)
    assert np.trapezoid(bremsstrahlung(k, E), k) == pytest.approx(E, rel=0.015)


def test_the_critical_energy_is_the_published_one():
    """Rossi's: what collisions would take in a radiation length; Particle Data Group, liquid argon: 32.84 MeV."""
    T = 32.84
    assert float(mass_stopping_power(SPECIES["electron"], np.array(T))) * RADIATION_LENGTH == pytest.approx(T, rel=1e-3)


def test_compton_is_thomson_at_low_and_logarithmic_at_high_energy():
    thomson = K / (2 * M_E) * Z / A * 4 / 3  # 8/3 pi r_e^2 per electron
    assert float(compton_rate(1e-4)) == pytest.approx(thomson, rel=1e-3)
    q = 1e6
    assert float(compton_rate(q * M_E)) == pytest.approx(
        K / (2 * M_E) * Z / A * (math.log(2 * q) + 0.5) / (2 * q), rel=1e-4
    )


def test_compton_photons_follow_klein_and_nishina():
    rng = np.random.default_rng(0)
    for k in (0.3, 2.0, 30.0):
        drawn = np.array([compton(k, rng) for _ in range(4000)])
        q = k / M_E
        np.testing.assert_allclose(drawn[:, 0], k / (1 + q * (1 - drawn[:, 1])), rtol=1e-9)  # two-body kinematics
        e = np.linspace(1 / (1 + 2 * q), 1, 20001)
        t = (1 - e) / (q * e)
        spectrum = (1 / e + e) * (1 - e * t * (2 - t) / (1 + e * e))
        mean = np.trapezoid(e * spectrum, e) / np.trapezoid(spectrum, e)
        assert drawn[:, 0].mean() / k == pytest.approx(mean, abs=4 * drawn[:, 0].std() / k / math.sqrt(4000))


def test_pairs_share_what_is_left_of_the_photon():
    rng = np.random.default_rng(1)
    for k in (1.03, 3.0, 100.0):
        drawn = np.array([pair(k, rng) for _ in range(1000)])
        np.testing.assert_allclose(drawn.sum(1), k - 2 * M_E, rtol=1e-9)
        assert (drawn >= 0).all()
        assert drawn[:, 0].mean() == pytest.approx(drawn[:, 1].mean(), abs=6 * drawn.std() / math.sqrt(500) + 1e-9)


def test_no_pair_below_the_threshold():
    assert float(pair_rate(2 * M_E * 0.999)) == 0.0
    assert float(pair_rate(3.0)) > 0.0


@pytest.mark.parametrize("T", [5.0, 200.0])
def test_photons_radiated_are_as_many_and_as_hard_as_the_spectrum_has(T):
    rng, thickness, cut = np.random.default_rng(2), 0.2 * RADIATION_LENGTH, 0.2
    drawn = [radiated(T, thickness, cut, rng) for _ in range(3000)]
    k = np.geomspace(cut, T, 20001)
    spectrum = bremsstrahlung(k, T + M_E) / k
    number, energy = (3000 * 0.2 * float(np.trapezoid(f, k)) for f in (spectrum, spectrum * k))
    every = np.concatenate(drawn)
    assert number > 400
    assert len(every) == pytest.approx(number, abs=4 * math.sqrt(number))
    assert every.sum() == pytest.approx(
        energy, abs=4 * every.std() * math.sqrt(number) + 4 * every.mean() * math.sqrt(number)
    )
    assert every.min() >= cut and every.max() <= T
    assert radiated(cut, 1e9, cut, rng) == []
