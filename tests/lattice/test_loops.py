"""Wilson and Polyakov loops against site-by-site products, gauge invariance, exact U(1)."""

import itertools

import numpy as np
import pytest
import torch
from hepops.lattice import SUN, U1
from hepops.lattice.observables import (
    creutz_ratios,
    gauge_transform,
    polyakov_correlator,
    polyakov_loops,
    random_transformation,
    wilson_loops,
)
from torch.testing import assert_close

from .gauge_fields import Walker, constant_flux

CASES = [(2, (4, 3)), (3, (3, 4)), (2, (3, 2, 4)), (3, (3, 2, 3, 4)), (4, (3, 3))]


def random(n, shape, device, batch=2):
    return SUN(n, shape, 1.0).random(batch, seed=5).to(device)


@pytest.mark.parametrize(("n", "shape"), CASES)
def test_wilson_loops_site_by_site(n, shape, device):
    U = random(n, shape, device)
    walker = Walker(U[1].cpu())
    for mu, nu in itertools.permutations(range(len(shape)), 2):
        loops = wilson_loops(U, shape[mu] - 1, 1, planes=[(mu, nu)])[1, 0, :, 0]
        for R, loop in enumerate(loops.tolist(), 1):
            path = [mu] * R + [nu] + [~mu] * R + [~nu]
            mean = np.mean([np.trace(walker.product(x, path)).real / n for x in walker.sites()])
            assert abs(loop - mean) < 1e-13


@pytest.mark.parametrize(("n", "shape"), [(2, (4, 4)), (3, (2, 2, 4, 4))])
def test_the_smallest_is_the_plaquette(n, shape, device):
    theory = SUN(n, shape, 1.0)
    U = random(n, shape, device)
    assert_close(wilson_loops(U, 1, 1).mean((1, 2, 3)), theory.plaquette(U), rtol=0, atol=1e-14)


def test_chosen_planes_and_their_order(device):
    U = random(2, (4, 5, 3), device)
    both = wilson_loops(U, 2, (1, 2), planes=[(1, 2), (2, 1)])
    assert_close(both[:, 0], both[:, 1].mT, rtol=0, atol=1e-14)
    assert_close(both[:, 0], wilson_loops(U, 2, 2)[:, 2], rtol=0, atol=0)


def test_constant_field_obeys_the_area_law_of_angles(device):
    """Each loop of area A in 01 is cos(2 pi n A / L0 L1)."""
    U = constant_flux((5, 4, 2, 3), 1, 0).to(device)
    loops = wilson_loops(U, 4, 3, planes=[(0, 1)])[0, 0].cpu()
    area = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 4)).double()
    assert_close(loops, torch.cos(2 * torch.pi * area / 20), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "shape"), [(2, (4, 3)), (3, (3, 2, 4)), (3, (2, 3, 2, 4))])
def test_polyakov_loops_site_by_site(n, shape, device):
    U = random(n, shape, device)
    walker = Walker(U[0].cpu())
    for mu, extent in enumerate(shape):
        loops = polyakov_loops(U, mu)
        assert loops.shape == (2, *shape[:mu], *shape[mu + 1 :])
        for x in walker.sites():
            if x[mu] == 0:
                expected = np.trace(walker.product(x, [mu] * extent)) / n
                assert abs(loops[(0, *x[:mu], *x[mu + 1 :])].item() - expected) < 1e-13
    assert_close(polyakov_loops(U), polyakov_loops(U, len(shape) - 1), rtol=0, atol=0)


def test_polyakov_correlator_site_by_site(device):
    P = polyakov_loops(random(3, (3, 4, 2), device))
    C = polyakov_correlator(P).cpu()
    P = P.cpu().numpy()
    for dx in range(3):
        for dy in range(4):
            expected = np.mean((P * np.roll(P, (-dx, -dy), (1, 2)).conj()).real, (1, 2))
            assert_close(C[:, dx, dy], torch.from_numpy(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "shape"), [(2, (4, 4)), (3, (4, 3, 4)), (3, (3, 2, 3, 4))])
def test_gauge_invariance(n, shape, device):
    U = random(n, shape, device)
    V = gauge_transform(U, random_transformation(U, seed=3))
    assert (U - V).abs().max() > 0.1
    assert_close(wilson_loops(V, 1, 1), wilson_loops(U, 1, 1), rtol=0, atol=1e-12)
    assert_close(polyakov_loops(V), polyakov_loops(U), rtol=0, atol=1e-12)


def test_gradients(device):
    U = random(2, (3, 3), device, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda U: wilson_loops(U, 2, 2), U, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradcheck(lambda U: polyakov_loops(U, 0), U, atol=1e-8, rtol=1e-6)


def test_float32_fields_are_computed_in_double(device):
    U = random(3, (4, 4), device).to(torch.complex64)
    assert_close(wilson_loops(U, 1, 1), wilson_loops(U.to(torch.complex128), 1, 1), rtol=0, atol=1e-7)
    assert wilson_loops(U, 2, 2).dtype == torch.float64


def test_creutz_ratios_of_an_area_and_perimeter_law():
    sizes = torch.arange(1, 5, dtype=torch.float64)
    log = -0.3 * torch.outer(sizes, sizes) - 0.2 * (sizes[:, None] + sizes)
    chi = creutz_ratios(log.exp())
    assert_close(chi[1:, 1:], torch.full((3, 3), 0.3, dtype=torch.float64), rtol=0, atol=1e-14)
    assert_close(chi[0, 0], -log[0, 0], rtol=0, atol=1e-14)
    assert creutz_ratios(torch.tensor([[-0.1]])).isnan().all()


def test_u1_wilson_loops_of_angles(device):
    theory = U1((4, 4), beta=2.0)
    theta = theory.random(3, seed=1).to(device)
    loops = wilson_loops(theta, 2, 1)
    angles = theory.plaquette_angles(theta)[:, 0]
    assert_close(loops[:, 0, 0, 0], angles.cos().mean((1, 2)), rtol=0, atol=1e-14)
    assert_close(loops[:, 0, 1, 0], (angles + angles.roll(-1, 1)).cos().mean((1, 2)), rtol=0, atol=1e-14)


def test_refuses():
    with pytest.raises(ValueError, match=r"creutz_ratios: loops must have shape \(..., R, T\), got \(3,\)"):
        creutz_ratios(torch.ones(3))
    U = SUN(2, (4, 3), 1.0).cold(1)
    with pytest.raises(ValueError, match=r"r must be lengths from 1 to 3, below the extent 4 .* got 4"):
        wilson_loops(U, 4, 1)
    with pytest.raises(ValueError, match=r"t must be lengths from 1 to 2, .* got \(0, 1\)"):
        wilson_loops(U, 1, (0, 1))
    with pytest.raises(ValueError, match=r"pairs of different directions, got \(1, 1\)"):
        wilson_loops(U, 1, 1, planes=[(1, 1)])
    with pytest.raises(ValueError, match=r"directions must be integers from 0 to 1, got 2"):
        wilson_loops(U, 1, 1, planes=[(0, 2)])
    with pytest.raises(ValueError, match=r"directions must be integers from 0 to 1, got 2"):
        polyakov_loops(U, 2)
    with pytest.raises(TypeError, match=r"U must be complex64 or complex128, .* got torch.int64"):
        wilson_loops(U.real.long(), 1, 1)
    with pytest.raises(ValueError, match=r"U must have shape .*, got \(1, 2, 4, 2, 2\)"):
        wilson_loops(U[:, :, :, 0], 1, 1)
    with pytest.raises(ValueError, match=r"angles must have shape .*, got \(1, 2, 4, 3, 2, 2\)"):
        wilson_loops(U.real, 1, 1)  # a complex field whose imaginary part was lost
    with pytest.raises(TypeError, match=r"loops must be complex, got torch.float64"):
        polyakov_correlator(torch.ones(1, 3, dtype=torch.float64))
