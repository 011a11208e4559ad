import math

import pytest
import torch
from hepops.lartpc import space_charge_alpha, space_charge_map
from hepops.lartpc.argon import mobility
from hepops.lartpc.space_charge import anode_field
from torch.autograd import gradcheck
from torch.testing import assert_close

from .scenes import MODULE0

TPC = MODULE0.tpcs[0]
ALPHAS = (0.0, 1e-4, 0.3, 0.9, 1.6, 1.95)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_voltage_between_anode_and_cathode_is_kept(alpha):
    x = torch.linspace(0, 1, 20001, dtype=torch.float64)
    E = torch.sqrt(anode_field(alpha) ** 2 + (alpha * x) ** 2)
    assert torch.trapezoid(E, x).item() == pytest.approx(1, abs=1e-7)  # of the trapezoids


@pytest.mark.parametrize("alpha", [1e-4, 0.3, 1.5])
def test_gauss_law_with_a_current_of_ions_that_grows_from_the_anode(alpha):
    """E dE/dx = alpha^2 x in units of E_0 and L: the charge is the current over the ions' speed."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64, requires_grad=True)
    E = torch.sqrt(anode_field(alpha) ** 2 + (alpha * x) ** 2)
    (slope,) = torch.autograd.grad(E.sum(), x)
    assert_close(E * slope, alpha**2 * x, rtol=1e-12, atol=1e-15)


def test_anode_field_in_weak_and_in_critical_space_charge():
    assert anode_field(0.0).item() == 1
    assert anode_field(0.01).item() == pytest.approx(1 - 0.01**2 / 6, abs=1e-9)  # to first order in alpha^2
    assert anode_field(1.9999).item() < 0.01
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 2\), got 2.0"):
        anode_field(2.0)


@pytest.mark.parametrize("alpha", [5e-4, 0.5, 1.5])
def test_slope_of_the_anode_field(alpha):
    a = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    assert gradcheck(anode_field, (a,), eps=1e-7, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("tpc", MODULE0.tpcs)
def test_drift_time_is_the_integral_of_slowness(tpc):
    """Apparent depth over the nominal speed, against a fine sum along the drift."""
    alpha, E0, T = 0.8, 0.5, 87.17
    map = space_charge_map(tpc, alpha, field=E0)
    d = torch.linspace(0, tpc.drift_length, 65, dtype=torch.float64)
    shift = map.displacement[:, 0, 0, 0] if tpc.direction > 0 else map.displacement.flip(0)[:, 0, 0, 0]
    v0 = mobility(E0, T) * E0 / 1000
    ours = (d + tpc.direction * shift) / v0
    x = torch.linspace(0, tpc.drift_length, 64001, dtype=torch.float64)
    E = E0 * torch.sqrt(anode_field(alpha) ** 2 + (alpha * x / tpc.drift_length) ** 2)
    slowness = 1000 / (mobility(E, T) * E)
    fine = torch.cat([x[:1], torch.cumulative_trapezoid(slowness, x)])[::1000]
    assert_close(ours, fine, rtol=1e-8, atol=1e-8)


def test_the_field_bends_the_path_as_far_as_the_charge_is_displaced():
    """dy/dx = E_y / E_x along the drift, integrated, is the transverse displacement; and |E| holds both."""
    map = space_charge_map(TPC, 0.5, bowing=(1.0, 0.0), nodes=(2001, 5, 3))
    d = torch.linspace(0, TPC.drift_length, 2001, dtype=torch.float64)
    along = 0.5 * torch.sqrt(anode_field(0.5) ** 2 + (0.5 * d / TPC.drift_length) ** 2)
    across = torch.sqrt((map.field[:, -1, 1] ** 2 - along**2).clamp(min=0))
    path = torch.cat([d[:1], torch.cumulative_trapezoid(across / along, d)])
    assert_close(path, -map.displacement[:, -1, 1, 1], rtol=0, atol=1e-6)
    assert map.displacement[-1, -1, 1, 1].item() == pytest.approx(-1.0)  # inwards from the upper wall
    assert (map.displacement[:, 2, :, 1].abs() < 1e-15).all()  # and not at all in the middle


def test_map_follows_alpha():
    """Reverse mode through the field at the anode, the profile and the drift times."""
    weights = torch.randn(5, 3, 3, 4, dtype=torch.float64)

    def sums(alpha):
        map = space_charge_map(TPC, alpha, bowing=(0.3, 0.2), nodes=(5, 3, 3))
        return (torch.cat([map.displacement, map.field[..., None]], 3) * weights).sum()

    assert gradcheck(sums, (torch.tensor(0.7, dtype=torch.float64, requires_grad=True),), atol=1e-8, rtol=1e-6)


def test_strength_of_space_charge_in_a_detector_at_the_surface():
    """256 cm of drift at 0.273 kV/cm, as MicroBooNE, have much; a short module at 0.5 kV/cm has little."""
    assert 0.8 < space_charge_alpha(2e-10, 256.0, 0.273) < 1.1
    assert space_charge_alpha(2e-10, 30.27) < 0.1
    assert space_charge_alpha(4e-10, 30.27) == pytest.approx(math.sqrt(2) * space_charge_alpha(2e-10, 30.27))


def test_refuses():
    with pytest.raises(ValueError, match="injection must not be negative"):
        space_charge_alpha(-1.0, 30.0)
    with pytest.raises(ValueError, match="drift_length must be positive, got 0"):
        space_charge_alpha(1.0, 0)
    with pytest.raises(ValueError, match="two nodes or more"):
        space_charge_map(TPC, 0.1, nodes=(1, 5, 5))
