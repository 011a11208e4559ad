"""Gauge couplings: log-determinants against differences, gauge equivariance, inverses."""

import pytest
import torch
from hepops.lattice import SUN, U1
from hepops.lattice.flows import lines, parity, spectral, sweep, u1_coupling

from lattice.gauge_flows import Leaking, stir, sun_layer, turned, u1_layer
from lattice.jacobian import numeric_logdet, numeric_logdet_of_angles

LINES = sweep((4, 4), "lines")
PARITY = [mask for shape in ((2, 4), (2, 2, 2), (2, 2, 2, 2)) for mask in sweep(shape, "parity")]


def close(numeric, layer, field):
    # a spline's second derivative jumps at its knots: none of them lies within the 4 h of the differences
    assert numeric(lambda x: layer(x)[0], field, h=2e-4) == pytest.approx(layer(field)[1].item(), abs=1e-8)


@pytest.mark.parametrize("mask", LINES + PARITY, ids=str)
@pytest.mark.parametrize("bijection", ["spline", "ncp"])
@pytest.mark.parametrize("loop", ["plaquette", "staples"])
def test_log_determinant_of_u1(mask, bijection, loop):
    theta = U1(mask.shape, 1.0).random(1, seed=2)
    close(numeric_logdet_of_angles, u1_layer(mask, bijection, loop=loop), theta)


@pytest.mark.parametrize("mask", LINES + PARITY[:10] + PARITY[12:13], ids=str)
@pytest.mark.parametrize("loop", ["plaquette", "staples"])
def test_log_determinant_of_su2(mask, loop):
    close(numeric_logdet, sun_layer(mask, 2, loop=loop), SUN(2, mask.shape, 1.0).random(1, seed=3))


@pytest.mark.parametrize("mask", [LINES[1], LINES[6], *PARITY[2:6], PARITY[11]], ids=str)
@pytest.mark.parametrize("loop", ["plaquette", "staples"])
def test_log_determinant_of_su3(mask, loop):
    close(numeric_logdet, sun_layer(mask, 3, loop=loop), SUN(3, mask.shape, 1.0).random(1, seed=4))


@pytest.mark.parametrize("mask", [lines((4, 4), 0, 1), parity((2, 2, 2), 1, 0)], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_leaked_passive_loop_shows_in_the_jacobian(mask, n):
    """Unitarity, determinant and gauge equivariance do not see it: only the Jacobian does."""
    leaking = Leaking(mask.shape, mask.mu, mask.sites, mask.pattern, mask.residue)
    if n == 1:
        layer, field, numeric = u1_layer(leaking), U1(mask.shape, 1.0).random(1, seed=2), numeric_logdet_of_angles
    else:
        layer, field, numeric = sun_layer(leaking, n), SUN(n, mask.shape, 1.0).random(1, seed=3), numeric_logdet
    assert abs(numeric(lambda x: layer(x)[0], field) - layer(field)[1].item()) > 1e-3


@pytest.mark.parametrize("mask", [LINES[0], LINES[7], parity((2, 4), 0, 1), parity((2, 2, 4), 2, 0)], ids=str)
@pytest.mark.parametrize("loop", ["plaquette", "staples"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_commutes_with_gauge_transformations(mask, loop, n):
    theory = U1(mask.shape, 1.0) if n == 1 else SUN(n, mask.shape, 1.0)
    layer = u1_layer(mask, loop=loop) if n == 1 else sun_layer(mask, n, loop=loop)
    U = theory.random(5, seed=1)
    (image, logdet), (of_turned, logdet_of_turned) = layer(U), layer(turned(U))
    off = of_turned - turned(image)
    off = off.sin() if n == 1 else off.abs()
    # an eigenvalue is good to rounding over its distance to the next
    assert off.abs().max() < (1e-12 if n < 3 else 1e-11)
    assert (logdet - logdet_of_turned).abs().max() < 1e-11
    assert (image - U).abs().max() > 0.1


@pytest.mark.parametrize("mask", [LINES[2], parity((2, 2, 4), 1, 1)], ids=str)
@pytest.mark.parametrize("loop", ["plaquette", "staples"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_inverse(mask, loop, n, dtype):
    theory = U1(mask.shape, 1.0) if n == 1 else SUN(n, mask.shape, 1.0)
    layer = (u1_layer(mask, loop=loop) if n == 1 else sun_layer(mask, n, loop=loop)).to(dtype)
    U = theory.random(6, seed=1, dtype=dtype)
    image, logdet = layer(U)
    back, minus = layer.inverse(image)
    off = (back - U).sin() if n == 1 else back - U
    tolerance = 1e-10 if dtype == torch.float64 else 2e-3
    assert off.abs().max() < tolerance
    assert (logdet + minus).abs().max() < 100 * tolerance
    assert logdet.dtype == torch.float64 and image.dtype == U.dtype


@pytest.mark.parametrize("n", [2, 3])
def test_links_stay_in_the_group(n):
    mask = parity((2, 2, 2, 2), 3, 0)
    image, _ = sun_layer(mask, n)(SUN(n, mask.shape, 1.0).random(3, seed=1))
    assert (image @ image.mH - torch.eye(n)).abs().max() < 1e-13
    assert (torch.linalg.det(image) - 1).abs().max() < 1e-13
    kept = ~mask.active()
    assert torch.equal(image[:, kept], SUN(n, mask.shape, 1.0).random(3, seed=1)[:, kept])


def test_sweeps_take_their_loops_in_turn():
    flow = spectral(SUN(2, (4, 4), 1.0), layers=17, loop=("plaquette", "staples"), hidden=(4,))
    assert [layer.loop for layer in flow.transform.inv.transforms] == ["plaquette"] * 8 + ["staples"] * 8 + [
        "plaquette"
    ]


def test_gradients_reach_links_and_weights(device):
    """Finite ones, of the log density."""
    for theory, build in ((U1((4, 4), 1.0), u1_coupling), (SUN(3, (4, 4), 1.0), spectral)):
        flow = stir(build(theory, layers=2, hidden=(4,), loop="staples"), 0.1).to(device)
        U = theory.random(2, seed=1, device=device).requires_grad_()
        flow.log_prob(U).sum().backward()
        assert U.grad.isfinite().all() and U.grad.abs().max() > 1e-3
        assert all(p.grad.isfinite().all() for p in flow.parameters())
