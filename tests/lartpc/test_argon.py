import pytest
import torch
from hepops.lartpc import argon, velocity
from torch.autograd import gradcheck
from torch.testing import assert_close


@pytest.mark.parametrize("temperature", [84.0, 87.17, 95.0])
@pytest.mark.parametrize("field", [0.02, 0.273, 0.5, 1.0, 4.0])
def test_mobility_is_that_of_the_simulator(field, temperature):
    """One law in two languages."""
    assert argon.mobility(field, temperature).item() * field / 1000 == pytest.approx(
        velocity(field, temperature), rel=1e-14
    )


def test_liquid_argon_boils_at_87_kelvin_under_one_atmosphere_and_weighs_1395_grams_per_litre():
    """87.302 K and 1395.4 kg/m3: NIST's webbook, from the same equation of state; the ancillary formulas keep 1e-4."""
    assert argon.boiling_point() == pytest.approx(87.302, abs=1e-3)
    assert argon.density(87.302).item() == pytest.approx(1.3954, abs=2e-4)
    assert argon.vapour_pressure(83.8058).item() == pytest.approx(0.68891, rel=1e-4)


def test_pressure_and_boiling_point_are_inverse():
    for pressure in (0.7, 1.05, 3.0, 40.0):
        assert argon.vapour_pressure(argon.boiling_point(pressure)).item() == pytest.approx(pressure, rel=1e-12)


def test_warmer_argon_is_lighter_by_four_tenths_of_a_percent_per_kelvin():
    T = torch.tensor(87.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(argon.density(T).log(), T)
    assert slope.item() == pytest.approx(-0.0045, abs=3e-4)


def test_diffusion_at_half_a_kilovolt_is_what_another_program_computes():
    """GAMPixPy prints 1.323997803506287e-05 and 6.627023218939979e-06 cm2/us at 87 K for the same formulas."""
    transverse, longitudinal = argon.nominal_diffusion(0.5, 87.0)
    assert transverse.item() == pytest.approx(1.323997803506287e-05, rel=1e-12)
    assert longitudinal.item() == pytest.approx(6.627023218939979e-06, rel=1e-12)


def test_electrons_in_a_weak_field_diffuse_alike_in_all_directions_with_the_heat_of_the_argon():
    """Einstein: D = mu k T / e. The fit's b0 = 7.5 meV at 87 K is k T = 7.497 meV."""
    transverse, longitudinal = argon.nominal_diffusion(1e-6, 87.0)
    assert_close(transverse, longitudinal, rtol=1e-4, atol=0)
    thermal = argon.mobility(1e-6, 87.0) * 8.617333e-5 * 87.0 * 1e-6
    assert longitudinal.item() == pytest.approx(thermal.item(), rel=2e-3)


@pytest.mark.parametrize("law", [argon.mobility, argon.density, argon.vapour_pressure])
def test_slopes(law):
    x = torch.tensor([85.0, 90.0], dtype=torch.float64, requires_grad=True)
    field = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    assert gradcheck(law, (field, x) if law is argon.mobility else (x,), atol=1e-8, rtol=1e-6)


def test_refuses_what_is_not_liquid():
    with pytest.raises(
        ValueError, match=r"between the triple point 83.8058 K and the critical point 150.687 K, got 80"
    ):
        argon.density(80.0)
    with pytest.raises(ValueError, match="pressure must lie in"):
        argon.boiling_point(100.0)
    with pytest.raises(ValueError, match="field must be positive"):
        argon.nominal_diffusion(-0.5)
