"""U(1): its operators against plain loops, its laws, its refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import shared
from core.contract import Contract
from hepops.lattice import U1
from hepops.lattice import u1_kernels as kernels
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

SHAPES = [(1, 1), (2, 2), (1, 5), (3, 5), (17, 19), (4, 40), (2, 3, 4), (3, 2, 1, 4), (2, 2, 3, 40)]
BETA = 1.7
ops = torch.ops.hepops


def loop(theta, beta):
    """Action, force and angles by plain loops over the plaquettes of one configuration."""
    D, *shape = theta.shape
    action, force, angles = 0.0, np.zeros(theta.shape), []
    for mu, nu in itertools.combinations(range(D), 2):
        plane = np.zeros(shape)
        for x in itertools.product(*map(range, shape)):
            ahead = [tuple((c + (d == m)) % shape[d] for d, c in enumerate(x)) for m in (mu, nu)]
            links = [((mu, *x), 1), ((nu, *ahead[0]), 1), ((mu, *ahead[1]), -1), ((nu, *x), -1)]
            plane[x] = sum(sign * theta[link] for link, sign in links)
            action -= beta * math.cos(plane[x])
            for link, sign in links:
                force[link] += sign * beta * math.sin(plane[x])
        angles.append(plane)
    return action, force, np.array(angles)


class Case(Contract):
    sizes = (0, 7)
    large = 1000
    twice = True
    refused = (torch.int64, torch.complex64)
    options = (BETA,)

    def sample(self, size, device, dtype):
        return (3 * torch.randn(size, 2, 3, 4, device=device, dtype=dtype),)

    def operands(self, args):
        return *args, *self.options

    @staticmethod
    def rounding(dtype):
        # angles of some turns, and sums of 12 plaquettes
        return {"rtol": 100 * torch.finfo(dtype).eps, "atol": 300 * torch.finfo(dtype).eps}

    def test_refuses_other_dtypes(self, device):
        for kind in self.refused:
            with pytest.raises(TypeError, match=f"field must be torch.float32 or torch.float64, got {kind}"):
                U1((3, 4), BETA).action(torch.zeros(2, 2, 3, 4, dtype=kind, device=device))


class TestAction(Case):
    op = ops._lattice_u1_action.default
    options = (BETA, False, False)
    function = staticmethod(lambda theta: ops._lattice_u1_action(theta, BETA, False, False))
    reference = staticmethod(lambda theta: kernels.action_formula(theta, BETA))


class TestForce(Case):
    op = ops._lattice_u1_force.default
    options = (BETA, False)
    function = staticmethod(lambda theta: ops._lattice_u1_force(theta, BETA, False))
    reference = staticmethod(lambda theta: kernels.force_formula(theta, BETA))


class TestBoth(Case):
    op = ops._lattice_u1_action_and_force.default
    options = (BETA, False, False)
    function = staticmethod(lambda theta: ops._lattice_u1_action_and_force(theta, BETA, False, False))
    reference = staticmethod(lambda theta: (kernels.action_formula(theta, BETA), kernels.force_formula(theta, BETA)))


class TestDensity(Case):
    op = ops._lattice_u1_density.default
    function = staticmethod(lambda theta: ops._lattice_u1_density(theta, BETA))
    reference = staticmethod(lambda theta: kernels.density_formula(theta, BETA))


class TestAngles(Case):
    op = ops._lattice_u1_angles.default
    options = ()
    function = staticmethod(lambda theta: ops._lattice_u1_angles(theta))
    reference = staticmethod(kernels.angles_formula)


class TestHessian(Case):
    op = ops._lattice_u1_hessian.default
    options = (BETA, False)
    function = staticmethod(lambda theta, v: ops._lattice_u1_hessian(theta, v, BETA, False))

    @staticmethod
    def reference(theta, v):
        angles = kernels.angles_formula
        return kernels.gather_formula(BETA * angles(theta).cos() * angles(v), theta.shape[1])

    def sample(self, size, device, dtype):
        return tuple(torch.randn(size, 2, 3, 4, device=device, dtype=dtype) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_against_a_loop(shape, device):
    theory = U1(shape, BETA)
    theta = theory.random(2, seed=1, device=device)
    rows = [loop(one, BETA) for one in theta.cpu().numpy()]
    actions, forces, angles = (torch.from_numpy(np.array(x)) for x in zip(*rows, strict=True))
    close = {"rtol": 1e-12, "atol": 1e-12}
    both = theory.action_and_force(theta)
    assert_close(theory.plaquette_angles(theta).cpu(), angles, **close)
    assert_close(theory.action(theta).cpu(), actions, **close)
    assert_close(both[0].cpu(), actions, **close)
    assert_close(theory.force(theta).cpu(), forces, **close)
    assert_close(both[1].cpu(), forces, **close)
    assert_close(theory.density(theta).flatten(1).sum(-1).cpu(), actions, **close)
    v = torch.randn_like(theta)
    h = 1e-4
    slope = (theory.force(theta + h * v) - theory.force(theta - h * v)) / (2 * h)  # leaves h^2 F''' v^3 / 6
    assert_close(theory.hessian_vector(theta, v), slope, rtol=1e-6, atol=1e-6)


def test_golden_charge_and_plaquettes(device):
    data = np.load(shared("golden/flows/lattice_kernels.npz"))
    theta, charge, plaquettes = (torch.from_numpy(data[f"u1_2d_{key}"]).to(device) for key in ("theta", "Q", "plaq"))
    theory = U1((8, 8), 2.0)
    assert_close(theory.charge(theta), charge, rtol=0, atol=1e-12)
    theirs = theory.plaquette_angles(theta)[:, 0]
    off = torch.remainder(theirs - plaquettes + math.pi, 2 * math.pi) - math.pi
    cosine = (theirs.cos() - plaquettes).abs().max()
    assert min(off.abs().max(), cosine) < 1e-12  # stored as angles, or as their cosines


def test_constant_flux_in_closed_form(device):
    """theta_1 = f x_0, theta_0 = - f L_0 x_1 at the edge, f = 2 pi n / V: every plaquette is f, and Q = n."""
    L, n = 6, 2
    f = 2 * math.pi * n / L**2
    theta = torch.zeros(1, 2, L, L, dtype=torch.float64, device=device)
    theta[0, 1] = f * torch.arange(L, dtype=torch.float64, device=device)[:, None]
    theta[0, 0, -1] = -f * L * torch.arange(L, dtype=torch.float64, device=device)
    theory = U1((L, L), 2.0)
    assert theory.charge(theta).item() == pytest.approx(n, abs=1e-12)
    assert theory.action(theta).item() == pytest.approx(-2.0 * L**2 * math.cos(f), rel=1e-13)
    assert theory.force(theta).abs().max() < 1e-12
    assert theory.plaquette(theta).item() == pytest.approx(math.cos(f), rel=1e-13)


def test_angles_of_many_turns(device):
    """Sines and cosines of angles outside of (-pi, pi], and of every quadrant."""
    theory = U1((16, 32), 1.0)
    theta = 1000 * torch.randn(2, 2, 16, 32, dtype=torch.float64, device=device)
    assert_close(theory.action(theta), kernels.action_formula(theta, 1.0), rtol=0, atol=1e-10)
    assert_close(theory.force(theta), kernels.force_formula(theta, 1.0), rtol=0, atol=1e-11)
    theta[0, 0, 0, 0] = math.nan
    assert theory.action(theta).isnan().tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2), (2, 3, 2, 4)])
def test_gauge_invariance(shape, device):
    theory = U1(shape, BETA)
    theta = theory.random(3, seed=2, device=device)
    alpha = 6 * torch.rand(3, *shape, dtype=torch.float64, device=device)
    turned = theory.gauge_transform(theta, alpha)
    assert turned.abs().max() <= math.pi
    assert_close(theory.action(turned), theory.action(theta), rtol=1e-12, atol=1e-12)
    assert_close(theory.force(turned), theory.force(theta), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="alpha must have shape"):
        theory.gauge_transform(theta, alpha[:, :1])


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2), (2, 3, 2, 4)])
def test_action_of_a_link_by_its_staple(shape, device):
    """S depends on a link as -beta Re(e^{i theta} V), and F = beta Im(e^{i theta} V)."""
    theory = U1(shape, BETA)
    theta = theory.random(2, seed=3, device=device)
    V = theory.staple(theta)
    link = torch.polar(torch.ones_like(theta), theta) * V
    assert_close(BETA * link.imag, theory.force(theta), rtol=1e-12, atol=1e-12)
    moved = theta.clone()
    moved.flatten(2)[:, 1, 2] += 0.7
    turned = torch.polar(torch.ones_like(theta), moved) * V
    change = -BETA * (turned - link).real.flatten(2)[:, 1, 2]
    assert_close(theory.action(moved) - theory.action(theta), change, rtol=1e-11, atol=1e-11)
    assert_close(theory.staple(moved).flatten(2)[:, 1, 2], V.flatten(2)[:, 1, 2])  # of which it is no part


@pytest.mark.parametrize("name", ["action", "force", "density", "plaquette_angles"])
def test_derivatives_twice(name, device):
    theory = U1((2, 3), BETA)
    theta = theory.random(2, seed=4, device=device).requires_grad_()
    assert gradcheck(getattr(theory, name), theta, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(getattr(theory, name), theta, atol=1e-8, rtol=1e-6)


def test_force_is_the_gradient_of_the_action(device):
    for shape in ((5, 5), (16, 32), (3, 4, 5, 6)):
        theta = U1(shape, BETA).random(2, seed=5, device=device).requires_grad_()
        (slope,) = torch.autograd.grad(kernels.action_formula(theta, BETA).sum(), theta)
        assert_close(U1(shape, BETA).force(theta), slope, rtol=1e-9, atol=1e-9)


def test_precisions(device):
    theta = U1((16, 16), BETA).random(4, seed=6, device=device, dtype=torch.float32)
    exact = U1((16, 16), BETA).action(theta.double())
    wide = U1((16, 16), BETA, compute=torch.float64, accumulate="double-double")
    assert_close(wide.action(theta), exact, rtol=1e-13, atol=1e-12)
    error = (U1((16, 16), BETA).action(theta) - exact).abs().max() / 256
    assert 0 < error < 1e-6  # rounding of each angle, averaged
    assert_close(wide.force(theta), U1((16, 16), BETA).force(theta.double()).float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (40, 33)])
def test_bits_do_not_depend_on_the_batch(shape, device, dtype):
    theory = U1(shape, BETA)
    theta = theory.random(21, seed=7, device=device, dtype=dtype)
    whole = theory.action_and_force(theta)
    for i in (0, 7, 20):
        one = theory.action_and_force(theta[i : i + 1])
        assert torch.equal(one[0], whole[0][i : i + 1]) and torch.equal(one[1], whole[1][i : i + 1])


@pytest.mark.parametrize("shape", [(8, 8), (40, 33), (2, 3, 3, 20)])
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_trajectory_is_its_plain_form_and_reversible(shape, integrator, device):
    from hepops.lattice.stages import plain_trajectory, stages

    theory = U1(shape, BETA)
    theta = theory.random(3, seed=8, device=device)
    p = theory.momenta(theta, seed=9)
    ends = theory.trajectory(theta, p, 0.05, 10, integrator)
    plain = plain_trajectory(theory.force, theta, p, stages(integrator, 0.05, 10))
    angle = lambda a, b: torch.remainder(a - b + math.pi, 2 * math.pi) - math.pi  # noqa: E731
    assert angle(ends[0], plain[0]).abs().max() < 1e-12 and (ends[1] - plain[1]).abs().max() < 1e-12
    assert ends[0].abs().max() <= math.pi + 1e-15
    back = theory.trajectory(ends[0], -ends[1], 0.05, 10, integrator)
    assert angle(back[0], theta).abs().max() < 1e-12 and (back[1] + p).abs().max() < 1e-12


@pytest.mark.parametrize(("integrator", "order"), [("leapfrog", 2), ("omelyan", 2), ("force_gradient", 4)])
def test_order_of_integrators(integrator, order):
    """|dH| ~ eps^order at fixed length."""
    theory = U1((8, 8), 2.0)
    theta = theory.random(64, seed=10)
    p = theory.momenta(theta, seed=11)
    energy = lambda theta, p: theory.action(theta) + theory.kinetic(p)  # noqa: E731
    errors = []
    for steps in (16, 32):
        ends = theory.trajectory(theta, p, 1.0 / steps, steps, integrator)
        errors.append((energy(*ends) - energy(theta, p)).square().mean().sqrt())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((4,), 1.0), ValueError, r"shape must hold 2 to 4 extents, got \(4,\)"),
        (((4, 0), 1.0), ValueError, "extents of at least 1"),
        (((4, 4), math.nan), ValueError, "beta must be a finite number, got nan"),
        (((4, 4), 1.0, torch.float32), ValueError, "compute must be None or torch.float64"),
        (((4, 4), 1.0, None, "single"), ValueError, "accumulate must be .*, got 'single'"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        U1(*arguments)


def test_refuses_fields(device):
    theory = U1((4, 4), -2.0)  # any real beta is legal
    with pytest.raises(ValueError, match=r"field must have shape \(B, 2, 4, 4\), got \(1, 4, 4\)"):
        theory.action(torch.zeros(1, 4, 4, device=device))
    with pytest.raises(ValueError, match=r"v must have shape \(B, 2, 4, 4\), got \(1, 2, 4\)"):
        theory.hessian_vector(torch.zeros(1, 2, 4, 4, device=device), torch.zeros(1, 2, 4, device=device))
    with pytest.raises(ValueError, match=r"charge: needs two dimensions, got shape \(2, 2, 2\)"):
        U1((2, 2, 2), 1.0).charge(torch.zeros(1, 3, 2, 2, 2, device=device))
