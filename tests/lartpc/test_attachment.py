import pytest
import torch
from hepops.lartpc import Parameters, Simulator, argon, attachment_rate
from hepops.lartpc.attachment import IMPURITIES, lifetime_ratio
from torch.autograd import gradcheck
from torch.testing import assert_close

from .scenes import MODULE0, changed, segments


def test_a_part_per_billion_of_oxygen_leaves_electrons_300_microseconds():
    """The field's rule of thumb at 0.5 kV/cm; the two measurements differ by 7 %."""
    assert 1 / attachment_rate(0.5).item() == pytest.approx(300, rel=0.01)
    assert 1 / attachment_rate(0.5, "O2-Bakale").item() == pytest.approx(300, rel=0.08)


def test_two_measurements_of_oxygen_agree_on_how_it_follows_the_field():
    """Relative to 0.5 kV/cm, from 0.1 to 2: within 10 %, the size of either's errors."""
    E = torch.linspace(0.1, 2.0, 50, dtype=torch.float64)
    assert_close(lifetime_ratio(E, 0.5), lifetime_ratio(E, 0.5, "O2-Bakale"), rtol=0.1, atol=0)


def test_oxygen_and_sf6_capture_less_in_a_stronger_field_and_nitrous_oxide_more():
    """The abstract of Bakale et al."""
    E = torch.linspace(0.1, 2.0, 100, dtype=torch.float64)
    for impurity, sign in (("O2", -1), ("O2-Bakale", -1), ("SF6", -1), ("N2O", 1)):
        assert (sign * attachment_rate(E, impurity).diff() > 0).all(), impurity


@pytest.mark.parametrize("impurity", IMPURITIES)
def test_slope_with_the_field(impurity):
    E = torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda E: lifetime_ratio(E, 0.5, impurity), (E,), atol=1e-8, rtol=1e-6)


def test_refuses():
    with pytest.raises(ValueError, match=r"impurity must be one of \['O2', .*got 'H2O'"):
        attachment_rate(0.5, "H2O")
    with pytest.raises(ValueError, match=r"field must lie in \(0, 2.0\] kV/cm for O2, got 3.0"):
        attachment_rate(3.0)
    with pytest.raises(ValueError, match=r"attachment must be one of .*got 'water'"):
        Simulator(MODULE0, attachment="water")
    with pytest.raises(ValueError, match="density_law must be"):
        Simulator(MODULE0, density_law="x")


POINTS = segments([[-5.0, 3.0, 4.0], [-28.0, -20.0, 4.0], [12.0, 3.0, 4.0]])


def test_in_the_nominal_field_the_lifetime_is_the_parameter():
    constant, oxygen = (Simulator(MODULE0, attachment=a).drift(POINTS).electrons for a in ("constant", "O2"))
    assert_close(oxygen, constant, rtol=1e-14, atol=0)


def test_more_field_means_a_longer_life_by_the_slope_of_the_capture():
    """ln q = ... - t_d / tau(E): attachment adds t_d / tau d ln tau / d ln E to d ln q / d ln E; the latter is 0.36."""
    E = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (per_E,) = torch.autograd.grad(lifetime_ratio(E, 0.5).log(), E)
    assert 0.5 * per_E.item() == pytest.approx(0.36, abs=0.005)
    slopes = []
    for attachment in ("constant", "O2"):
        sim = Simulator(MODULE0, attachment=attachment)
        out = sim.drift(POINTS)
        slopes.append(
            torch.stack([torch.autograd.grad(q.log(), sim.efield, retain_graph=True)[0] for q in out.electrons])
        )
    assert_close(slopes[1] - slopes[0], out.time.detach() / 2200 * per_E, rtol=1e-10, atol=0)


@pytest.mark.parametrize("options", [{"attachment": "O2"}, {"density_law": "boiling"}, {"attachment": "N2O"}])
@pytest.mark.parametrize("name", ["lifetime", "efield", "temperature"])
def test_tangents_are_differences_of_two_simulations(name, options):
    sim = Simulator(MODULE0, Parameters(lifetime=300.0), dtype=torch.float64, **options)
    value = getattr(sim, name).item()
    h = 1e-4 * value
    charge = []
    for x in (value - h, value + h):
        with changed(sim, **{name: x}), torch.no_grad():
            charge.append(sim.waveforms(POINTS).values.sum())  # rows and windows are wider than the change
    with torch.no_grad():
        waves = sim.waveforms(POINTS, tangents=(name,))
    difference = (charge[1] - charge[0]) / (2 * h)
    assert_close(waves.tangents[0].sum(), difference, rtol=1e-5, atol=1e-5 * float(waves.values.abs().sum()) / value)


def test_density_of_boiling_argon_takes_the_place_of_the_parameter():
    boiling = Simulator(MODULE0, Parameters(temperature=88.5), density_law="boiling").drift(POINTS)
    set_by_hand = Simulator(MODULE0, Parameters(temperature=88.5, density=argon.density(88.5).item())).drift(POINTS)
    assert_close(boiling.electrons, set_by_hand.electrons, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="density follows the temperature"):
        Simulator(MODULE0, density_law="boiling").waveforms(POINTS, tangents=("density",))
