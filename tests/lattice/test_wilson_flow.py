"""The Wilson flow on fields whose flow is known, its order, its group, and the scales t0 and w0."""

import itertools
import math

import pytest
import torch
from hepops.lattice import SUN
from hepops.lattice.observables import gauge_transform, random_transformation
from hepops.lattice.wilson_flow import FlowHistory, crossing, flow_derivative, generator, t0, w0, wilson_flow
from torch.testing import assert_close

from .gauge_fields import constant_flux, standing_wave


def exact_angle(a, t):
    """theta_1 = (-1)^{x_0} a: da/dt = -2 sin 2a, so tan a falls as e^{-4t}."""
    return math.atan(math.tan(a) * math.exp(-4 * t))


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_a_standing_wave_in_closed_form(dims, device):
    history = wilson_flow(standing_wave(dims, 0.6).to(device), 0.3, step=0.002, every=50)
    for t, E in zip(history.times.tolist(), history.plaquette[0].tolist(), strict=True):
        assert abs(E - 4 * (1 - math.cos(2 * exact_angle(0.6, t)))) < 1e-7


def test_the_order_of_the_integrator(device):
    """Third order: halving the step divides the error by 8."""
    U = standing_wave(2, 0.6).to(device)
    errors = []
    for step in (0.04, 0.02, 0.01):
        V = wilson_flow(U, 0.4, step=step, every=1000).field
        errors.append(abs(V[0, 1, 0, 0, 0, 0].angle().item() - exact_angle(0.6, 0.4)))
    for coarse, fine in itertools.pairwise(errors):
        assert 2.8 < math.log2(coarse / fine) < 3.3


@pytest.mark.parametrize("n", [2, 3])
def test_the_order_on_a_random_field(n, device):
    U = SUN(n, (2, 3, 2), 1.0).random(1, seed=3).to(device)
    exact = wilson_flow(U, 0.2, step=0.0025, every=1000).field
    coarse, fine = (
        (wilson_flow(U, 0.2, step=step, every=1000).field - exact).abs().max().item() for step in (0.04, 0.02)
    )
    assert 2.6 < math.log2(coarse / fine) < 3.5


def test_a_constant_field_does_not_flow(device):
    U = constant_flux((4, 4, 4, 4), 1, 1).to(device)
    history = wilson_flow(U, 0.5, step=0.1)
    assert_close(history.field, U, rtol=0, atol=1e-13)
    assert history.charge is not None
    assert_close(history.charge, history.charge[:, :1].expand(1, 6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_it_stays_in_the_group_and_goes_downhill(n, device):
    U = SUN(n, (2, 4, 2), 1.0).random(2, seed=1).to(device)
    history = wilson_flow(U, 1.0, step=0.05, every=5)
    V = history.field
    assert_close(V @ V.mH, torch.eye(n, dtype=V.dtype, device=V.device).expand_as(V), rtol=0, atol=1e-13)
    assert_close(torch.linalg.det(V), torch.ones_like(V[..., 0, 0]), rtol=0, atol=1e-13)
    assert (history.plaquette.diff(dim=1) < 0).all()


def test_it_commutes_with_gauge_transformations(device):
    U = SUN(3, (2, 2, 3, 2), 1.0).random(1, seed=2).to(device)
    g = random_transformation(U, seed=1)
    ours, theirs = (wilson_flow(x, 0.3, step=0.05) for x in (gauge_transform(U, g), U))
    assert_close(ours.field, gauge_transform(theirs.field, g), rtol=0, atol=1e-12)
    assert_close(ours.energy, theirs.energy, rtol=0, atol=1e-12)


def test_the_generator_is_that_of_the_action(device):
    """Z = -(2N / beta) F, whatever beta."""
    theory = SUN(3, (3, 2, 3), 6.0)
    U = theory.random(1, seed=1).to(device)
    Z = generator(3, (3, 2, 3))(U)
    assert_close(Z, -2 * 3 / theory.beta * theory.force(U), rtol=0, atol=1e-13)


def test_adaptive_steps(device):
    """Looser far out, where the field is smooth; each configuration has its own, whatever the batch."""
    U = SUN(2, (4, 4, 4), 1.0).random(2, seed=4).to(device)
    fine = wilson_flow(U, 1.0, step=0.005, every=40)
    found = wilson_flow(U, 1.0, step=0.2, tolerance=1e-4)
    assert_close(found.times, fine.times, rtol=0, atol=1e-12)
    assert_close(found.energy, fine.energy, rtol=0, atol=2e-4)
    better = wilson_flow(U, 1.0, step=0.2, tolerance=1e-6)
    assert (better.energy - fine.energy).abs().max() < 0.1 * (found.energy - fine.energy).abs().max()
    assert (found.steps < better.steps).all() and (better.steps < fine.steps).all()
    alone = wilson_flow(U[1:], 1.0, step=0.2, tolerance=1e-4)
    assert_close(alone.energy, found.energy[1:], rtol=0, atol=1e-14)
    assert torch.equal(alone.steps, found.steps[1:])


def test_float32(device):
    U = SUN(3, (2, 2, 2, 2), 1.0).random(1, seed=1).to(device)
    single = wilson_flow(U.to(torch.complex64), 0.2, step=0.05)
    assert single.field.dtype == torch.complex64
    assert_close(single.energy, wilson_flow(U, 0.2, step=0.05).energy, rtol=1e-5, atol=0)


def ensemble(curves):
    t = torch.linspace(0, 4, 81, dtype=torch.float64)
    E = torch.stack([torch.where(t > 0, curve(t) / t.square().clamp_min(1e-9), 0) for curve in curves])
    return FlowHistory(t, E, E, None, torch.zeros(0), torch.zeros(len(E)))


def test_scales_of_known_curves():
    """t^2 E = c t: t0 = 0.3 / c, W = c t, w0 = sqrt(0.3 / c); c t^2: sqrt(0.3 / c), (0.15 / c)^(1/4)."""
    cs = 0.1 + 0.001 * torch.arange(-10, 11).double()
    linear = ensemble([lambda t, c=c: c * t for c in cs])
    assert_close(t0(linear).value.item(), 3.0, rtol=1e-12, atol=0)
    assert_close(w0(linear).value.item(), math.sqrt(3.0), rtol=1e-12, atol=0)
    spread = (cs.std() / cs.numel() ** 0.5).item()
    assert_close(t0(linear).error.item(), 3.0 * spread / 0.1, rtol=1e-2, atol=0)
    assert_close(w0(linear).error.item(), 0.5 * math.sqrt(3.0) * spread / 0.1, rtol=1e-2, atol=0)
    square = ensemble([lambda t, c=c: c * t * t for c in cs])
    assert_close(t0(square).value.item(), math.sqrt(3.0), rtol=1e-12, atol=0)
    assert_close(w0(square).value.item(), 1.5**0.25, rtol=1e-4, atol=0)  # cubic interpolation of W = 2 c t^2


def test_crossing():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    values = torch.stack([t**3, t - 2, 1 + t])
    found = crossing(t, values, 0.4)
    assert_close(found[0].item(), 0.4 ** (1 / 3), rtol=1e-12, atol=0)
    assert found[1:].isnan().all()  # not reached; above from the start
    assert_close(flow_derivative(t, torch.ones_like(t)), 2 * t.square(), rtol=0, atol=1e-12)


def test_refuses():
    U = SUN(2, (2, 2), 1.0).cold(2)
    with pytest.raises(ValueError, match=r"the links are not unitary: U U\^\+ differs from 1 by 0.21"):
        wilson_flow(1.1 * U, 1.0)
    with pytest.raises(ValueError, match="the links are not unitary"):
        wilson_flow(torch.full_like(U, math.nan), 1.0)
    for name, value in (("step", 0.0), ("tolerance", -1.0), ("every", 0)):
        with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
            wilson_flow(U, 1.0, **{name: value})
    with pytest.raises(ValueError, match="time must be positive, got inf"):
        wilson_flow(U, math.inf)
    history = wilson_flow(U, 0.5, step=0.05)
    with pytest.raises(ValueError, match=r"t0: the target is not reached by t = 0.5: flow longer"):
        t0(history)
    with pytest.raises(ValueError, match="w0: form must be 'clover' or 'plaquette', got 'leaf'"):
        w0(history, form="leaf")
    with pytest.raises(ValueError, match="t0: 5 times or more are needed, got 2"):
        t0(wilson_flow(U, 0.5, step=0.5))
