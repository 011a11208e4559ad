"""Residual range, energy and loss against NIST, the Particle Data Group and the law itself."""

import numpy as np
import pytest
import torch
from hepops.lartpc import stopping
from hepops.lartpc.calorimetry import PARTICLES, RangeTable, pdg_most_probable
from hepops.lartpc.calorimetry.curve import Curve

from lartpc.test_stopping import MUONS, pstar

SOME = np.geomspace(1.3e-3, 9.9e3, 400)


@pytest.mark.parametrize("low, high, tolerance", [(10, 1000, 0.003), (2, 10, 0.012), (1e-3, 2, 0.02)])
def test_protons_lose_at_their_residual_range_what_nist_has_at_their_energy(low, high, tolerance):
    T, S, _ = (torch.from_numpy(x) for x in pstar())
    here = (T >= low) & (T <= high)
    proton = RangeTable("proton", density=1.0)
    loss = proton.dedx(proton.residual_range(T[here]))
    torch.testing.assert_close(loss, S[here], rtol=tolerance, atol=0)


def test_protons_of_nists_ranges_have_nists_energies():
    """1 MeV to 1 GeV: 0.6 % of the range is 0.35 % of the energy, R growing as T^1.8."""
    T, _, R = (torch.from_numpy(x) for x in pstar())
    here = (T >= 1) & (T <= 1000)
    torch.testing.assert_close(RangeTable("proton", density=1.0).energy(R[here]), T[here], rtol=0.0035, atol=0)


def test_muons_of_the_particle_data_groups_ranges_have_its_energies():
    T, R = (torch.from_numpy(x) for x in MUONS.T)
    torch.testing.assert_close(RangeTable("muon", density=1.0).energy(R), T, rtol=0.004, atol=0)
    torch.testing.assert_close(RangeTable("muon", density=1.0).energy(R[5:]), T[5:], rtol=0.0015, atol=0)


@pytest.mark.parametrize("name", PARTICLES)
def test_the_tables_are_the_law(name):
    """Range and energy within 1e-7 of `stopping`'s finer table's nodes, the loss within 2e-5 of the formula."""
    kind, table = stopping.SPECIES[name], RangeTable(name, density=1.0)
    T = torch.from_numpy(SOME)
    fine = stopping.range_of(kind)
    nodes = np.exp(fine._lnT[1:2800:7])
    R = torch.from_numpy(fine.length(nodes))
    torch.testing.assert_close(table.energy(R), torch.from_numpy(nodes), rtol=1e-7, atol=0)
    torch.testing.assert_close(table.residual_range(torch.from_numpy(nodes)), R, rtol=1e-7, atol=0)
    loss = torch.from_numpy(stopping.mass_stopping_power(kind, SOME))
    torch.testing.assert_close(table.stopping_power(T), loss, rtol=2e-5, atol=0)
    torch.testing.assert_close(table.energy(table.residual_range(T)), T, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", PARTICLES)
def test_energy_rises_with_residual_range_and_its_slope_is_the_loss(name):
    table = RangeTable(name)
    R = torch.logspace(-6, 2.5, 3001, dtype=torch.float64).requires_grad_()
    T = table.energy(R)
    assert bool((T[1:] > T[:-1]).all())
    (slope,) = torch.autograd.grad(T.sum(), R)
    torch.testing.assert_close(slope, table.dedx(R.detach()), rtol=2e-4, atol=0)  # of a cubic between its nodes


def test_what_is_denser_stops_sooner():
    light, dense = RangeTable("muon", 1.0), RangeTable("muon", 1.4)
    R = torch.tensor([0.1, 3.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(dense.energy(R / 1.4), light.energy(R))
    torch.testing.assert_close(dense.dedx(R / 1.4), 1.4 * light.dedx(R))


def test_derivatives_agree_with_differences():
    R = torch.tensor([0.1, 0.3, 2.0, 40.0, 900.0], dtype=torch.float64, requires_grad=True)
    density = torch.tensor(1.39, dtype=torch.float64, requires_grad=True)

    def everything(R, density):
        table = RangeTable("muon", density)
        T = table.energy(R)
        return T, table.residual_range(10 * R), table.dedx(R), table.dedx(R, 0.05), table.most_probable(R, 0.3)

    assert torch.autograd.gradcheck(everything, (R, density), eps=1e-5, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("energy, thickness", [(300.0, 0.4), (1000.0, 0.3), (4000.0, 5.0)])
def test_the_most_probable_loss_is_the_particle_data_groups(energy, thickness):
    """Their formula without the shell correction, 0.200 for 0.20000: 1e-4 of the loss."""
    muon = RangeTable("muon")
    ours = float(muon.most_probable(muon.residual_range(energy), thickness)) * thickness
    assert ours == pytest.approx(pdg_most_probable("muon", energy, thickness), rel=1e-4)


@pytest.mark.parametrize("name, energy", [("muon", 20.0), ("proton", 400.0), ("pion", 1000.0)])
def test_the_restricted_loss_leaves_out_the_hard_collisions(name, energy):
    table, kind = RangeTable(name, density=1.0), stopping.SPECIES[name]
    R = table.residual_range(energy)
    hard = stopping.hard_loss(kind, np.array(energy), 0.1)[1]
    assert float(table.dedx(R) - table.dedx(R, 0.1)) == pytest.approx(float(hard), rel=1e-6)
    assert float(table.dedx(R, 1e6)) == pytest.approx(float(table.dedx(R)), rel=1e-12)


def test_a_curve_is_monotone_between_nodes_that_rise():
    x = np.arange(5.0)
    curve = Curve(x, np.array([0.0, 0.01, 1.0, 1.01, 5.0]), np.full(5, 30.0), monotone=True)
    y = curve(torch.linspace(0, 4, 1001, dtype=torch.float64))
    assert bool((y[1:] >= y[:-1]).all())
    with pytest.raises(ValueError, match="must rise"):
        Curve(x, -x, x, monotone=True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RangeTable("muons"), "particle must be one of muon, .* got 'muons'"),
        (lambda: RangeTable("alpha"), "particle must be one of .* got 'alpha'"),
        (lambda: RangeTable("muon", 0.0), "density must be positive and finite, got 0.0"),
        (lambda: RangeTable("muon").energy(-0.1), "residual_range must not be negative .*, got -0.1"),
        (lambda: RangeTable("muon").energy(1e5), "residual_range is beyond the table, which ends at 3877"),
        (lambda: RangeTable("proton").residual_range(2e4), "energy is beyond the table, which ends at 10000 MeV, got"),
        (lambda: RangeTable("proton").residual_range(-1.0), "energy must not be negative"),
        (lambda: RangeTable("muon").dedx(float("nan")), "residual_range must be finite"),
        (lambda: RangeTable("muon").dedx(1.0, cut=0.0), "cut must be positive"),
        (lambda: RangeTable("muon").most_probable(1.0, 0.0), "thickness must be positive"),
    ],
)
def test_refuses_what_has_no_meaning(call, message):
    with pytest.raises(ValueError, match=message):
        call()
