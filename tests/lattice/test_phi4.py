"""phi^4: its operators against plain loops, its laws, its conventions, its refusals."""

import itertools
import math

import numpy as np
import pytest
import torch
from core.contract import Contract
from hepops.lattice import Phi4
from hepops.lattice import phi4_kernels as kernels
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

SHAPES = [(1,), (2,), (7,), (24,), (3, 5), (2, 2), (4, 40), (17, 19), (2, 3, 4), (2, 3, 1, 5), (2, 2, 3, 40)]
LAW = (-2.0, 4.5, 0.7)  # of m2 = 0.5, lam = 0.7 in two dimensions
ops = torch.ops.hepops


def field(shape, batch=3, **at):
    return torch.randn(batch, *shape, **at)


def loop(phi, law):
    """Action and force by plain loops over the sites of one configuration: every bond by its ends."""
    hop, square, quartic = law
    action, force = 0.0, np.zeros(phi.shape)
    for x in itertools.product(*map(range, phi.shape)):
        action += square * phi[x] ** 2 + quartic * phi[x] ** 4
        force[x] += 2 * square * phi[x] + 4 * quartic * phi[x] ** 3
        for mu in range(phi.ndim):
            y = tuple((c + (d == mu)) % phi.shape[d] for d, c in enumerate(x))
            action += hop * phi[x] * phi[y]
            force[x] += hop * phi[y]
            force[y] += hop * phi[x]
    return action, force


class Case(Contract):
    sizes = (0, 9)
    large = 3000
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "must be"
    options = ()

    def sample(self, size, device, dtype):
        return (torch.randn(size, 3, 4, device=device, dtype=dtype),)

    def operands(self, args):
        return *args, *LAW, *self.options

    @staticmethod
    def rounding(dtype):
        # sums of 12 sites of terms up to 100
        return {"rtol": 100 * torch.finfo(dtype).eps, "atol": 300 * torch.finfo(dtype).eps}

    def test_refuses_other_dtypes(self, device):
        theory = Phi4((3, 4), m2=0.5, lam=0.7)
        for kind in self.refused:
            with pytest.raises(TypeError, match=f"field must be torch.float32 or torch.float64, got {kind}"):
                theory.action(torch.zeros(2, 3, 4, dtype=kind, device=device))


class TestAction(Case):
    op = ops._lattice_phi4_action.default
    options = (False, False)
    function = staticmethod(lambda phi: ops._lattice_phi4_action(phi, *LAW, False, False))
    reference = staticmethod(lambda phi: kernels.action_formula(phi, *LAW))


class TestForce(Case):
    op = ops._lattice_phi4_force.default
    options = (False,)
    function = staticmethod(lambda phi: ops._lattice_phi4_force(phi, *LAW, False))
    reference = staticmethod(lambda phi: kernels.force_formula(phi, *LAW))


class TestBoth(Case):
    op = ops._lattice_phi4_action_and_force.default
    options = (False, False)
    function = staticmethod(lambda phi: ops._lattice_phi4_action_and_force(phi, *LAW, False, False))
    reference = staticmethod(lambda phi: (kernels.action_formula(phi, *LAW), kernels.force_formula(phi, *LAW)))


class TestDensity(Case):
    op = ops._lattice_phi4_density.default
    function = staticmethod(lambda phi: ops._lattice_phi4_density(phi, *LAW))
    reference = staticmethod(lambda phi: kernels.density_formula(phi, *LAW))


class TestHessian(Case):
    op = ops._lattice_phi4_hessian.default
    options = (False,)
    function = staticmethod(lambda phi, v: ops._lattice_phi4_hessian(phi, v, *LAW, False))

    @staticmethod
    def reference(phi, v):
        hop, square, quartic = LAW
        return hop * (kernels.ahead(v) + kernels.behind(v)) + (2 * square + 12 * quartic * phi**2) * v

    def sample(self, size, device, dtype):
        return tuple(torch.randn(size, 3, 4, device=device, dtype=dtype) for _ in range(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_against_a_loop(shape, device):
    phi = field(shape, device=device, dtype=torch.float64)
    theory = Phi4(shape, m2=-4.0, lam=8.0)
    exact = [loop(one, theory.law) for one in phi.cpu().numpy()]
    actions, forces = (torch.from_numpy(np.array(x)) for x in zip(*exact, strict=True))
    close = {"rtol": 1e-12, "atol": 1e-12}
    both = theory.action_and_force(phi)
    assert_close(theory.action(phi).cpu(), actions, **close)
    assert_close(both[0].cpu(), actions, **close)
    assert_close(theory.force(phi).cpu(), forces, **close)
    assert_close(both[1].cpu(), forces, **close)
    assert_close(theory.density(phi).flatten(1).sum(-1).cpu(), actions, **close)
    v = torch.randn_like(phi)
    h = 1e-4
    slope = (theory.force(phi + h * v) - theory.force(phi - h * v)) / (2 * h)  # leaves h^2 F''' v^3 / 6
    assert_close(theory.hessian_vector(phi, v), slope, rtol=1e-6, atol=1e-5)


def test_constant_field_in_closed_form(device, dtype):
    """S / V = m2 c^2 + lam c^4, F = 2 m2 c + 4 lam c^3: bonds cost nothing."""
    theory = Phi4((4, 5, 6), m2=0.5, lam=0.25)
    phi = torch.full((2, 4, 5, 6), 2.0, device=device, dtype=dtype)
    assert_close(theory.action(phi), torch.full((2,), 120 * (0.5 * 4 + 0.25 * 16), device=device).double())
    assert_close(theory.force(phi), torch.full_like(phi, 2 * 0.5 * 2 + 4 * 0.25 * 8))


def test_density_of_a_box_is_its_part(device):
    theory = Phi4((6, 5), m2=-4.0, lam=8.0)
    phi = field((6, 5), device=device, dtype=torch.float64)
    density = theory.density(phi)
    assert density.dtype == torch.float64
    wide = phi[:, 1:4, :]  # what a box of 2 x 4 needs: its own sites and one ahead
    own = Phi4((3, 5), m2=-4.0, lam=8.0).density(wide)[:, :2, :4]
    assert_close(density[:, 1:3, :4], own, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["action", "force", "density"])
def test_derivatives_twice(name, device):
    theory = Phi4((2, 3, 2), m2=-4.0, lam=8.0)
    phi = field((2, 3, 2), 2, device=device, dtype=torch.float64).requires_grad_()
    assert gradcheck(getattr(theory, name), phi, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(getattr(theory, name), phi, atol=1e-8, rtol=1e-6)


def test_force_is_the_gradient_of_the_action(device):
    for shape in ((5, 5), (16, 32), (3, 4, 5, 6)):
        theory = Phi4(shape, m2=-4.0, lam=8.0)
        phi = field(shape, device=device, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(kernels.action_formula(phi, *theory.law).sum(), phi)
        assert_close(theory.force(phi), slope, rtol=1e-9, atol=1e-9)


def test_couplings_can_be_learned(device):
    m2, lam = (torch.tensor(x, dtype=torch.float64, device=device, requires_grad=True) for x in (-4.0, 8.0))
    phi = field((4, 4), device=device, dtype=torch.float64)

    def everything(m2, lam):
        theory = Phi4((4, 4), m2=m2, lam=lam)
        return theory.action(phi), theory.force(phi), theory.density(phi)

    plain = Phi4((4, 4), m2=-4.0, lam=8.0)
    assert_close(everything(m2, lam), (plain.action(phi), plain.force(phi), plain.density(phi)))
    assert gradcheck(everything, (m2, lam), atol=1e-8, rtol=1e-6)
    assert_close(torch.autograd.grad(everything(m2, lam)[0].sum(), lam)[0], (phi**4).sum())


def test_precisions(device):
    """float32 storage: mathematics in float32 or in double; halves are computed in float32."""
    phi = field((16, 16), 8, device=device, dtype=torch.float32)
    theory, wide = Phi4((16, 16), m2=-4.0, lam=8.0), Phi4((16, 16), m2=-4.0, lam=8.0, compute=torch.float64)
    exact = theory.action(phi.double())
    assert_close(wide.action(phi), exact, rtol=1e-14, atol=0)
    error = (theory.action(phi) / exact - 1).abs().max()
    assert 0 < error < 1e-6  # rounding of each site's term, averaged
    assert_close(wide.force(phi), theory.force(phi.double()).float(), rtol=1e-7, atol=0)
    for half in (torch.bfloat16, torch.float16):
        stored = phi.to(half)
        assert_close(theory.action(stored), theory.action(stored.float()), rtol=0, atol=0)
        assert theory.force(stored).dtype == half
        assert_close(theory.force(stored), theory.force(stored.float()).to(half), rtol=0, atol=0)
        assert theory.trajectory(stored, stored, 0.1, 2)[0].dtype == half


@pytest.mark.parametrize("shape", [(8, 8), (64, 64)])
def test_sums_in_double_double(shape, device):
    """Terms of 1e16 that cancel: double loses the rest, double-double keeps it."""
    V = math.prod(shape)
    phi = torch.ones(1, V, dtype=torch.float64, device=device)
    phi[0, : V // 2] = 1e4
    phi = phi[:, torch.arange(V).view(2, -1).T.flatten()].view(1, *shape)
    exact = sum(math.fsum(x) for x in [Phi4(shape, m2=-4.0, lam=1.0).density(phi).flatten().tolist()])
    accurate = Phi4(shape, m2=-4.0, lam=1.0, accumulate="double-double").action(phi)
    assert accurate.item() == exact


@pytest.mark.parametrize("shape", [(8, 8), (40, 33)])
def test_bits_do_not_depend_on_the_batch(shape, device, dtype):
    theory = Phi4(shape, m2=-4.0, lam=8.0)
    phi = field(shape, 21, device=device, dtype=dtype)
    whole = theory.action_and_force(phi)
    for i in (0, 7, 20):
        one = theory.action_and_force(phi[i : i + 1])
        assert torch.equal(one[0], whole[0][i : i + 1]) and torch.equal(one[1], whole[1][i : i + 1])


@pytest.mark.parametrize(
    "theory",
    [
        Phi4((4, 5), m2=-4.0, lam=8.0),
        Phi4((4, 5), m2=-1.0, lam=0.5, convention="B"),
        Phi4((4, 5), m2=-1.0, lam=0.5, convention="B", kappa=0.3),
        Phi4((4, 5), lam=1.145, convention="C", kappa=0.18),
        Phi4((4, 5), lam=0.0, convention="C", kappa=0.2),
        Phi4((4, 5), m2=1.5, lam=0.0),
    ],
)
def test_conventions_agree(theory, device):
    phi = field((4, 5), device=device, dtype=torch.float64)
    for convention in "ABC":
        other, scale, log_z = theory.to_convention(convention)
        assert other.convention == convention
        assert_close(other.action(scale * phi), theory.action(phi), rtol=1e-12, atol=1e-12)
        assert_close(scale * other.force(scale * phi), theory.force(phi), rtol=1e-12, atol=1e-12)
        assert log_z == pytest.approx(20 * math.log(scale))
    if theory.lam == 0:
        other, _, log_z = theory.to_convention("A")
        assert other.exact_log_z() == pytest.approx(theory.exact_log_z() + log_z, abs=1e-12)


def test_conventions_as_the_literature_has_them():
    """A(m2, lam) = B(m2, lam / 4), phi_B = sqrt 2 phi_A; C: m2 = (1 - 2 lam) / kappa - 2 D, lam_A = lam / kappa^2."""
    a = Phi4((8, 8), m2=-4.0, lam=8.0)
    b, scale, log_z = a.to_convention("B")
    assert (b.m2, b.lam, scale) == pytest.approx((-4.0, 2.0, math.sqrt(2)))
    assert log_z == pytest.approx(32 * math.log(2))
    c = Phi4((8, 8), lam=1.145, convention="C", kappa=0.18)
    back, scale, log_z = c.to_convention("A")
    assert (back.m2, back.lam) == pytest.approx(((1 - 2.29) / 0.18 - 4, 1.145 / 0.18**2))
    assert (scale, log_z) == pytest.approx((math.sqrt(0.18), 32 * math.log(0.18)))


def test_standard_couplings():
    assert Phi4.standard("E2").shape == (8, 8) and Phi4.standard("E2").lam == 6.008
    with pytest.raises(ValueError, match=r"name must be one of E1, .*, got 'E6'"):
        Phi4.standard("E6")


@pytest.mark.parametrize("shape", [(8, 8), (5,), (40, 33), (3, 3, 3, 20)])
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_trajectory_is_its_plain_form_and_reversible(shape, integrator, device):
    from hepops.lattice.stages import plain_trajectory, stages

    theory = Phi4(shape, m2=-4.0, lam=8.0)
    phi, p = (0.5 * field(shape, device=device, dtype=torch.float64) for _ in range(2))
    ends = theory.trajectory(phi, p, 0.05, 10, integrator)
    assert_close(ends, plain_trajectory(theory.force, phi, p, stages(integrator, 0.05, 10)), rtol=1e-12, atol=1e-12)
    back = theory.trajectory(ends[0], -ends[1], 0.05, 10, integrator)
    assert_close((back[0], -back[1]), (phi, p), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("integrator", "order"), [("leapfrog", 2), ("omelyan", 2), ("force_gradient", 4)])
def test_order_of_integrators(integrator, order):
    """|dH| ~ eps^order at fixed length."""
    theory = Phi4((8, 8), m2=-4.0, lam=8.0)
    phi, p = (0.3 * field((8, 8), 64, dtype=torch.float64) for _ in range(2))
    energy = lambda phi, p: theory.action(phi) + theory.kinetic(p)  # noqa: E731
    errors = []
    for steps in (16, 32):
        ends = theory.trajectory(phi, p, 0.5 / steps, steps, integrator)
        errors.append((energy(*ends) - energy(phi, p)).square().mean().sqrt())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_trajectory_with_gradient(device):
    theory = Phi4((2, 3), m2=-4.0, lam=8.0)
    phi, p = (0.3 * field((2, 3), 2, device=device, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert gradcheck(lambda *x: theory.trajectory(*x, 0.1, 2), (phi, p), atol=1e-8, rtol=1e-6)
    assert_close(theory.trajectory(phi, p, 0.1, 2), theory.trajectory(phi.detach(), p.detach(), 0.1, 2))


REFUSED = [
    ({"m2": 1.0, "lam": -0.5}, "lam must not be negative .*, got -0.5"),
    ({"m2": 0.0, "lam": 0.0}, "m2: the action has no lower bound at lam = 0 .*, got 0.0"),
    ({"m2": -1.0, "lam": 0.0}, "m2: the action has no lower bound"),
    ({"lam": 0.0, "kappa": 0.25, "convention": "C"}, "kappa: .*kappa too large.*, got 0.25"),
    ({"lam": 0.0, "kappa": -0.25, "convention": "C"}, "kappa: .*, got -0.25"),
    ({"m2": -0.1, "lam": 0.0, "convention": "B"}, "m2: the action has no lower bound"),
    ({"lam": 1.0}, "convention A needs m2, got None"),
    ({"m2": 1.0}, "convention A needs lam, got None"),
    ({"m2": 1.0, "lam": 1.0, "kappa": 0.1}, "convention A takes no kappa, got 0.1"),
    ({"m2": 1.0, "lam": 1.0, "kappa": 0.1, "convention": "C"}, "convention C takes no m2, got 1.0"),
    ({"lam": 1.0, "convention": "C"}, "convention C needs kappa, got None"),
    ({"m2": math.nan, "lam": 1.0}, "m2 must be a finite number, got nan"),
    ({"m2": 1.0, "lam": math.inf}, "lam must be a finite number, got inf"),
    ({"m2": 1.0, "lam": 1.0, "convention": "D"}, 'convention must be "A", "B" or "C", got \'D\''),
    ({"m2": 1.0, "lam": 1.0, "compute": torch.float32}, "compute must be None or torch.float64, got torch.float32"),
    ({"m2": 1.0, "lam": 1.0, "accumulate": "float"}, "accumulate must be .*, got 'float'"),
    ({"m2": torch.zeros(2), "lam": 1.0}, r"m2 must hold one number, got shape \(2,\)"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Phi4((4, 4), **arguments)


def test_legal_limits():
    Phi4((3, 3), lam=0.0, kappa=-0.25, convention="C")  # odd extents have no staggered mode
    with pytest.raises(ValueError, match="needs kappa > 0"):
        Phi4((4, 4), lam=1.0, kappa=-0.1, convention="C").to_convention("A")


def test_refuses_fields(device):
    theory = Phi4((4, 4), m2=1.0, lam=1.0)
    with pytest.raises(ValueError, match=r"field must have shape \(B, 4, 4\), got \(1, 4, 5\)"):
        theory.force(torch.zeros(1, 4, 5, device=device))
    with pytest.raises(ValueError, match=r"momenta must have shape \(B, 4, 4\), got \(1, 4\)"):
        theory.trajectory(torch.zeros(1, 4, 4, device=device), torch.zeros(1, 4, device=device), 0.1, 1)
    for arguments, message in [
        ((0.1, 0), "steps must be .*, got 0"),
        ((math.inf, 2), "step_size must be a finite number, got inf"),
        ((0.1, 2, "euler"), "integrator must be one of .*, got 'euler'"),
    ]:
        with pytest.raises(ValueError, match=message):
            theory.trajectory(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), *arguments)
