"""Gauge transformations and stout smearing."""

import pytest
import torch
from hepops.lattice import SUN, U1, group
from hepops.lattice.observables import gauge_transform, random_transformation, stout
from torch.testing import assert_close


@pytest.mark.parametrize(("n", "shape"), [(2, (3, 4)), (3, (2, 3, 4)), (3, (2, 1, 2, 3))])
def test_site_by_site(n, shape, device):
    U = SUN(n, shape, 1.0).random(2, seed=1).to(device)
    g = random_transformation(U, seed=2)
    V = gauge_transform(U, g)
    for mu in range(len(shape)):
        ahead = g.roll(-1, 1 + mu)
        assert_close(V[:, mu], g @ U[:, mu] @ ahead.mH, rtol=0, atol=1e-14)


def test_angles_are_those_of_the_phases(device, dtype):
    theta = U1((3, 4), beta=1.0).random(2, seed=1, dtype=dtype).to(device)
    alpha = random_transformation(theta, seed=2)
    moved = gauge_transform(theta, alpha)
    links, g = (torch.polar(torch.ones_like(a), a)[..., None, None] for a in (theta, alpha))
    expected = gauge_transform(links, g)[..., 0, 0]
    assert_close(torch.polar(torch.ones_like(moved), moved), expected, rtol=0, atol=4 * torch.finfo(dtype).eps * 10)
    assert (moved > -torch.pi - 1e-6).all() and (moved <= torch.pi + 1e-6).all()


def test_the_action_does_not_change(device):
    for theory in (SUN(3, (4, 4, 2, 2), 6.0), SUN(2, (4, 4), 2.0), U1((4, 4, 4), 1.5)):
        U = theory.random(2, seed=1).to(device)
        V = gauge_transform(U, random_transformation(U, seed=5))
        assert_close(theory.action(V), theory.action(U), rtol=1e-12, atol=1e-11)


def test_random_transformations_have_names():
    U = SUN(2, (2, 2), 1.0).cold(6)
    whole = random_transformation(U, seed=1)
    assert_close(random_transformation(U[2:4], seed=1, first=2), whole[2:4], rtol=0, atol=0)
    assert (random_transformation(U, seed=1, step=1) - whole).abs().max() > 0.1


@pytest.mark.parametrize("n", [2, 3])
def test_stout_is_the_exponential_of_the_staples(n, device):
    theory = SUN(n, (3, 2, 3), 2.0 * n)
    U = theory.random(1, seed=1).to(device)
    expected = group.exp(-0.1 * group.traceless_antihermitian(U @ theory.staples(U))) @ U
    assert_close(stout(U, 0.1), expected, rtol=0, atol=1e-13)
    assert_close(stout(U, 0.1, steps=2), stout(stout(U, 0.1), 0.1), rtol=0, atol=0)
    assert_close(stout(U, 0.1, steps=0), U, rtol=0, atol=0)


def test_stout_in_space_alone(device):
    theory = SUN(2, (3, 3, 4), 1.0)
    U = theory.random(1, seed=1).to(device)
    V = stout(U, 0.1, directions=(0, 1))
    assert_close(V[:, 2], U[:, 2], rtol=0, atol=0)
    slice_of = lambda W: W[:, :2, :, :, 1]  # noqa: E731
    assert_close(slice_of(V), stout(slice_of(U), 0.1), rtol=0, atol=1e-14)


def test_stout_commutes_with_gauge_transformations(device):
    U = SUN(3, (2, 3, 2, 2), 1.0).random(1, seed=1).to(device)
    g = random_transformation(U, seed=2)
    assert_close(stout(gauge_transform(U, g), 0.12, 2), gauge_transform(stout(U, 0.12, 2), g), rtol=0, atol=1e-12)
    V = stout(U, 0.12, 5)
    assert_close(V @ V.mH, torch.eye(3, dtype=V.dtype, device=V.device).expand_as(V), rtol=0, atol=1e-13)


def test_gradients(device):
    U = SUN(2, (2, 2), 1.0).random(1, seed=1).to(device)
    g = random_transformation(U, seed=2)
    args = U.requires_grad_(), g.requires_grad_()
    assert torch.autograd.gradcheck(gauge_transform, args, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradcheck(lambda U: stout(U, 0.1, 2), args[:1], atol=1e-8, rtol=1e-6)


def test_refuses():
    U = SUN(2, (4, 4), 1.0).cold(2)
    with pytest.raises(ValueError, match=r"g must have shape \(2, 4, 4, 2, 2\), got \(1, 4, 4, 2, 2\)"):
        gauge_transform(U, random_transformation(U[:1], seed=1))
    with pytest.raises(TypeError, match=r"g must have the dtype of U, torch.complex128, got torch.complex64"):
        gauge_transform(U, random_transformation(U, seed=1).to(torch.complex64))
    with pytest.raises(ValueError, match=r"directions must be two or more different ones, got \(1,\)"):
        stout(U, 0.1, directions=(1,))
    with pytest.raises(ValueError, match="steps must not be negative, got -1"):
        stout(U, 0.1, steps=-1)
