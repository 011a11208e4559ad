"""SU(N) as a theory: choices, checks, trajectories."""

import math

import pytest
import torch
from hepops.lattice import SUN, group
from hepops.lattice.stages import stages
from hepops.lattice.sun import plain_trajectory
from torch.testing import assert_close

INTEGRATORS = ["leapfrog", "omelyan", "force_gradient"]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (2, 4, 3), (4, 2, 2, 4)], ids=str)
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_trajectory_is_its_stages(device, n, shape, integrator):
    theory = SUN(n, shape, 2.3, -1 / 12)
    U = theory.random(3, 1).to(device)
    P = theory.momenta(U, 2)
    ours = theory.trajectory(U, P, 0.1, 3, integrator)
    theirs = plain_trajectory(theory, U, P, stages(integrator, 0.1, 3))
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    single = SUN(n, shape, 2.3, -1 / 12).trajectory(U.to(torch.complex64), P.to(torch.complex64), 0.1, 3, integrator)
    assert_close(single, tuple(t.to(torch.complex64) for t in theirs), rtol=0, atol=1e-4)


def energy(theory, U, P):
    return theory.action(U) + theory.kinetic(P)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_reversibility(device, n, integrator):
    theory = SUN(n, (4, 4, 4), 5.0)
    U = theory.random(2, 1).to(device)
    P = theory.momenta(U, 2)
    there = theory.trajectory(U, P, 0.05, 20, integrator)
    back = theory.trajectory(there[0], -there[1], 0.05, 20, integrator)
    assert_close(back[0], U, rtol=0, atol=1e-12)
    assert (back[1] + P).abs().max() <= 1e-12 * P.abs().max()
    theory.check(there[0], unitary=True)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("integrator, order", [("leapfrog", 2), ("omelyan", 2), ("force_gradient", 4)])
def test_energy_errors_fall_as_the_order_says(device, n, integrator, order):
    """rms dH ~ eps^order at fixed length, and the mean ~ eps^(2 order).

    In equilibrium <f(dH)> = <f(-dH) e^-dH>, so that <dH> = <dH (1 - e^-dH)> / 2, to which no term odd in dH adds noise:
    its order is that of the mean, and the plain mean is the same within its error.
    """
    chains = 1024
    theory = SUN(n, (2, 2), 2.0)
    U = theory.random(chains, 1).to(device)
    torch.manual_seed(1)
    for step in range(10):  # towards equilibrium
        P = theory.momenta(U, 3, step)
        V, Q = theory.trajectory(U, P, 0.25, 4, "omelyan")
        accept = torch.rand(chains, device=device).log() < (energy(theory, U, P) - energy(theory, V, Q))
        U = torch.where(accept.view(-1, *[1] * (U.dim() - 1)), V, U)
    P = theory.momenta(U, 4)
    errors = [energy(theory, *theory.trajectory(U, P, 1 / m, m, integrator)) - energy(theory, U, P) for m in (8, 16)]
    rms = [e.square().mean().sqrt() for e in errors]
    mean = [(-e * torch.expm1(-e)).mean() / 2 for e in errors]
    assert abs(torch.log2(rms[0] / rms[1]) - order) < 0.15
    assert abs(torch.log2(mean[0] / mean[1]) - 2 * order) < 0.3
    for e, m in zip(errors, mean, strict=True):
        assert abs(e.mean() - m) < 4 * e.std() / math.sqrt(chains)
        assert abs((-e).exp().mean() - 1) < 4 * (-e).exp().std() / math.sqrt(chains)


@pytest.mark.parametrize("n", [2, 3])
def test_large_steps_stay_in_the_group(device, n):
    theory = SUN(n, (4, 4), 1.0)
    U = theory.random(2, 1).to(device)
    V, _ = theory.trajectory(U, theory.momenta(U, 2), 30.0, 1)
    theory.check(V, unitary=True)


def test_trajectory_bits(device, dtype):
    """They depend neither on the batch nor on threads."""
    for shape in ((3, 3), (8, 4, 4)):
        theory = SUN(3, shape, 5.0)
        U = theory.random(9, 1, dtype=dtype).to(device)
        P = theory.momenta(U, 2)
        threads = torch.get_num_threads()
        try:
            results = []
            for count in (1, 2):
                torch.set_num_threads(count)
                results.append(theory.trajectory(U, P, 0.1, 2))
        finally:
            torch.set_num_threads(threads)
        assert_close(results[0], results[1], rtol=0, atol=0)
        assert_close(theory.trajectory(U[4:5], P[4:5], 0.1, 2)[0], results[0][0][4:5], rtol=0, atol=0)


def test_trajectory_has_a_gradient(device):
    theory = SUN(2, (2, 2), 1.5)
    U = theory.random(1, 1).to(device)
    P = theory.momenta(U, 2).requires_grad_()
    plain = theory.trajectory(U, P.detach(), 0.2, 2)
    S = theory.action(theory.trajectory(U, P, 0.2, 2)[0])
    assert_close(S, theory.action(plain[0]))
    (slope,) = torch.autograd.grad(S.sum(), P)
    h, X = 1e-4, theory.momenta(U, 7)
    up, down = (theory.action(theory.trajectory(U, P.detach() + s * h * X, 0.2, 2)[0]) for s in (1, -1))
    assert_close((slope.conj() * X).real.sum()[None], (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("c1", [0.0, -1 / 12])
def test_density_is_the_action_site_by_site(device, n, c1):
    theory = SUN(n, (4, 3, 2), 1.7, c1)
    U = theory.random(2, 1).to(device)
    density = theory.density(U)
    assert density.shape == (2, 4, 3, 2)
    assert_close(density.flatten(1).sum(1), theory.action(U), rtol=1e-13, atol=0)
    # what is not ahead of a site does not enter
    V = U.clone()
    V[:, :, 3] = theory.cold(2, device=device)[:, :, 3]
    assert_close(theory.density(V)[:, 0, :, :], density[:, 0, :, :], rtol=0, atol=1e-14)
    assert (theory.density(V)[:, 2] - density[:, 2]).abs().max() > 1e-2


def test_larger_groups(device):
    theory = SUN(4, (3, 2), 2.0, -1 / 12)
    U = theory.random(2, 1).to(device).requires_grad_()
    S, F = theory.action_and_force(U)
    (slope,) = torch.autograd.grad(S.sum(), U)
    # dS along X U is Re tr(slope^+ X U) = -2 Re tr(X F)
    X = theory.momenta(U.detach(), 3)
    assert_close((slope.conj() * (X @ U)).real.sum(), -2 * (X @ F).diagonal(dim1=-2, dim2=-1).sum().real)
    there = theory.trajectory(U.detach(), X, 0.1, 2)
    back = theory.trajectory(there[0], -there[1], 0.1, 2)
    assert_close(back[0], U.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_momenta_and_kinetic_energy(device, n):
    theory = SUN(n, (2, 3), 1.0)
    P = theory.momenta(theory.cold(4, device=device), seed=3, first=5)
    assert_close(P, group.from_coordinates(group.to_coordinates(P), n))
    assert_close(theory.kinetic(P), group.to_coordinates(P).square().flatten(1).sum(1) / 2)
    alone = theory.momenta(theory.cold(1, device=device), seed=3, first=7)
    assert_close(alone[0], P[2], rtol=0, atol=1e-15)
    many = SUN(n, (16, 16), 1.0)
    K = many.kinetic(many.momenta(many.cold(16), seed=1)).mean() / (2 * 256 * (n * n - 1) / 2)
    assert abs(K - 1) < 5 * math.sqrt(2 / (16 * 2 * 256 * (n * n - 1)))


@pytest.mark.parametrize("name, c1", [("symanzik", -1 / 12), ("iwasaki", -0.331)])
def test_improvements_by_name(name, c1):
    U = SUN(2, (3, 4), 1.0).random(1, 1)
    assert_close(SUN(2, (3, 4), 1.7, improvement=name).action(U), SUN(2, (3, 4), 1.7, c1).action(U), rtol=0, atol=0)


def test_deviation_of_links_outside_the_group(device, dtype):
    theory = SUN(3, (2, 2), 1.0)
    U = theory.random(2, 1, dtype=dtype).to(device)
    theory.check(U, unitary=True)
    U[1, 0, 1, 1] *= 1.01
    with pytest.raises(ValueError, match=r"links outside SU\(3\): U U\^\+ - 1 or det U - 1 reach 0\.0303"):
        theory.check(U, unitary=True)
    U[1, 0, 1, 1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="reach nan"):
        theory.check(U, unitary=True)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1, (4, 4), 1.0), {}, ValueError, "n must be at least 2, got 1"),
        ((2.5, (4, 4), 1.0), {}, TypeError, "n must be an integer, got 2.5"),
        ((3, (4,), 1.0), {}, ValueError, r"shape must hold 2 to 4 extents, got \(4,\)"),
        ((3, (4, 0), 1.0), {}, ValueError, "shape"),
        ((3, (4, 4), math.nan), {}, ValueError, "beta must be a finite number, got nan"),
        ((3, (4, 4), math.inf), {}, ValueError, "beta must be a finite number, got inf"),
        ((3, (4, 4), 1.0, math.nan), {}, ValueError, "c1 must be a finite number"),
        ((3, (4, 4), 1.0), {"improvement": "dbw2"}, ValueError, "improvement must be one of symanzik, iwasaki"),
        ((3, (4, 4), 1.0), {"compute": torch.float16}, ValueError, "compute must be"),
        ((3, (4, 4), 1.0), {"accumulate": "float"}, ValueError, "accumulate must be"),
    ],
)
def test_refuses_theories(arguments, options, error, message):
    with pytest.raises(error, match=message):
        SUN(*arguments, **options)


def test_refuses_fields():
    theory = SUN(3, (4, 4), 1.0)
    U = theory.cold(1)
    with pytest.raises(TypeError, match=r"field must be torch.complex64 or torch.complex128, got torch.float64"):
        theory.action(U.real)
    with pytest.raises(ValueError, match=r"shape \(B, 2, 4, 4, 3, 3\), got \(1, 2, 4, 4, 2, 2\)"):
        theory.force(U[..., :2, :2])
    with pytest.raises(TypeError, match="momenta must be as the field"):
        theory.trajectory(U, U.to(torch.complex64), 0.1, 1)
    with pytest.raises(TypeError, match="momenta must be as the field"):
        theory.trajectory(U, torch.cat([U, U]), 0.1, 1)
    with pytest.raises(ValueError, match="integrator must be one of"):
        theory.trajectory(U, U, 0.1, 1, "euler")
    with pytest.raises(TypeError, match=r"must be torch.complex64 for compute=torch.float32"):
        SUN(3, (4, 4), 1.0, compute=torch.float32).action(U)
