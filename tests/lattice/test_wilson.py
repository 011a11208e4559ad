"""Operators on links: contracts, and the laws that they must obey."""

import itertools
import math

import numpy as np
import pytest
import torch
from core.contract import Contract
from hepops.lattice import (
    SUN,
    group,
    loop_traces,
    wilson,
    wilson_action,
    wilson_action_and_force,
    wilson_force,
    wilson_formula,
    wilson_staples,
)
from torch.testing import assert_close

SHAPES = [(4, 4), (3, 5), (8, 8), (1, 2), (2, 2, 4), (3, 3, 2), (2, 3, 1, 4), (4, 4, 4, 4), (16, 2)]
HALF = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def links(n, shape, batch, dtype=torch.float64, device="cpu", stray=0.1):
    """Random links, off the group by `stray`: no law here asks for unitary ones."""
    torch.manual_seed(1)
    U = SUN(n, shape, 1.0).random(batch, 1, dtype=dtype).to(HALF[dtype])
    return (U + stray * torch.randn(U.shape, dtype=torch.complex128).to(U)).to(device)


class Links:
    """`size` is the number of configurations of a small lattice, which fills lanes in part."""

    sizes = (0, 1, 3)
    large = 24
    refused = (torch.int64, torch.float16, torch.float32)
    refusal = "must be complex64 or complex128"
    n, shape = 3, (2, 3)

    @classmethod
    def sample(cls, size, *, device, dtype):
        batch = size if size < 15 else 2
        lattice = {cls.large: (4, 4, 4), 15: (1, 2)}.get(size, cls.shape)  # of 15 every entry is varied twice
        return (links(cls.n, lattice, batch, dtype, device),)

    @staticmethod
    def rounding(dtype):
        # sums of up to 12 products of four links
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}


class TestAction(Links, Contract):
    op = torch.ops.hepops.lattice_wilson_action.default
    public = wilson_action
    function = staticmethod(lambda U: wilson_action(U, 1.3, -0.1))
    reference = staticmethod(lambda U: wilson_formula.wilson_action(U, 1.3, -0.1))
    twice = True

    def operands(self, args):
        return *args, 1.3, -0.1, False, False


class TestForce(Links, Contract):
    op = torch.ops.hepops.lattice_wilson_force.default
    public = wilson_force
    function = staticmethod(lambda U: wilson_force(U, 1.3, -0.1))
    reference = staticmethod(lambda U: wilson_formula.wilson_force(U, 1.3, -0.1))

    def operands(self, args):
        return *args, 1.3, -0.1, False


class TestStaples(Links, Contract):
    n = 2
    op = torch.ops.hepops.lattice_wilson_staples.default
    public = wilson_staples
    function = staticmethod(lambda U: wilson_staples(U, 0.7, 0.2))
    reference = staticmethod(lambda U: wilson_formula.wilson_staples(U, 0.7, 0.2))

    def operands(self, args):
        return *args, 0.7, 0.2, False


class TestTraces(Links, Contract):
    n, shape = 2, (2, 1, 3)
    op = torch.ops.hepops.lattice_loop_traces.default
    public = loop_traces
    function = staticmethod(lambda U: loop_traces(U, True))
    reference = staticmethod(lambda U: wilson_formula.loop_traces(U, True))

    def operands(self, args):
        return *args, True, False


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / (1 + theirs.abs().max())).item()


LAWS = [("wilson_action", (1.3,)), ("wilson_force", (1.3,)), ("wilson_staples", (1.3,)), ("loop_traces", ())]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_lattice(device, dtype, n, shape):
    """Values and gradients on extents that fill the lanes, leave them to the batch, wrap onto themselves."""
    exact = links(n, shape, 3, device=device)
    U = exact.to(HALF[dtype])
    bound = 64 * torch.finfo(dtype).eps
    for name, arguments in LAWS:
        for c1 in (0.0, -1 / 12):
            last = bool(c1) if name == "loop_traces" else c1
            results = []
            for module, field in ((wilson, U.clone()), (wilson_formula, U.to(torch.complex128, copy=True))):
                field.requires_grad_()
                out = getattr(module, name)(field, *arguments, last)
                torch.manual_seed(3)
                seed = torch.randn(out.shape, dtype=torch.complex128 if out.is_complex() else torch.float64)
                results.append((out, torch.autograd.grad(out, field, seed.to(out))[0]))
            assert relative(results[0][0], results[1][0]) < bound, name
            assert relative(results[0][1], results[1][1]) < bound, name


@pytest.mark.parametrize("c1", [0.0, -0.331])
@pytest.mark.parametrize("accurate", [False, True])
def test_action_and_force_in_one_pass(device, dtype, c1, accurate):
    U = links(3, (4, 3, 2), 2, dtype, device).requires_grad_()
    S, F = wilson_action_and_force(U, 1.3, c1, accurate=accurate)
    alone = wilson_action(U, 1.3, c1, accurate=accurate), wilson_force(U, 1.3, c1)
    assert_close(S, alone[0], rtol=16 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps)
    assert_close(F, alone[1], rtol=0, atol=0)
    seeds = torch.ones_like(S), torch.ones_like(F)
    assert_close(*(torch.autograd.grad(outs, U, seeds)[0] for outs in ((S, F), alone)))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("c1", [0.0, -1 / 12])
def test_force_is_the_slope_of_the_action(device, n, c1):
    """dS/dt along dU/dt = X U is -2 Re tr(X F); fourth-order differences of step 1e-2 err by 1e-9 at most."""
    theory = SUN(n, (4, 2, 3), 1.7, c1)
    U = theory.random(2, 1).to(device)
    X = theory.momenta(U, 5) / 4
    S = {k: theory.action(theory.move(U, X, k * 5e-3)) for k in (-2, -1, 1, 2)}
    slope = (8 * (S[1] - S[-1]) - (S[2] - S[-2])) / (12 * 5e-3)
    ours = -2 * (X @ theory.force(U)).diagonal(dim1=-2, dim2=-1).sum(-1).real.flatten(1).sum(1)
    assert_close(ours, slope, rtol=1e-9, atol=1e-9 * theory.sites)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("c1", [0.0, -0.331])
def test_gauge_invariance(device, n, c1):
    theory = SUN(n, (3, 4, 2), 1.7, c1)
    U = theory.random(2, 1).to(device)
    G = group.exp(theory.momenta(U, 9))[:, 0]
    ahead = [torch.roll(G, -1, 1 + mu) for mu in range(3)]
    V = torch.stack([G @ U[:, mu] @ ahead[mu].mH for mu in range(3)], 1)
    assert_close(theory.action(V), theory.action(U), rtol=1e-12, atol=1e-12)
    turned = torch.stack([G @ f @ G.mH for f in theory.force(U).unbind(1)], 1)
    assert_close(theory.force(V), turned, rtol=1e-12, atol=1e-12)


def loops_by_numpy(U, x, mu, nu, wide):
    """P (or R: two links along mu) at x of one configuration, a link at a time."""
    shape, at, product = U.shape[1:-2], list(x), np.eye(U.shape[-1])
    for along, way in [(mu, 1)] * (1 + wide) + [(nu, 1)] + [(mu, -1)] * (1 + wide) + [(nu, -1)]:
        if way < 0:
            at[along] = (at[along] - 1) % shape[along]
        link = U[(along, *at)]
        product = product @ (link if way > 0 else link.conj().T)
        if way > 0:
            at[along] = (at[along] + 1) % shape[along]
    return product.trace().real


@pytest.mark.parametrize("n", [2, 3])
def test_loops_against_a_plain_loop(device, n):
    U = links(n, (3, 2, 4), 1, device=device)
    plain, d = U[0].cpu().numpy(), 3
    pairs = [(m, k, 0) for m, k in itertools.combinations(range(d), 2)]
    pairs += [(m, k, 1) for m, k in itertools.permutations(range(d), 2)]
    theirs = [
        [loops_by_numpy(plain, x, mu, nu, wide) for x in itertools.product(range(3), range(2), range(4))]
        for mu, nu, wide in pairs
    ]
    theirs = torch.tensor(np.array(theirs)).view(len(pairs), 3, 2, 4)
    assert_close(loop_traces(U, True)[0].cpu(), theirs, rtol=1e-12, atol=1e-12)
    c1, beta = -0.331, 1.3
    S = -beta / n * ((1 - 8 * c1) * theirs[:3].sum() + c1 * theirs[3:].sum())
    assert_close(wilson_action(U, beta, c1).cpu(), S[None], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_constant_flux_in_closed_form(device, n):
    """U_1 = exp(i a x_0 T), U_0 = 1 but for the twist, a L_0 L_1 = 2 pi: P_01 = exp(i a T), R_01 = exp(2 i a T)
    everywhere, T = diag(1, -1, ...): traces are cosines, and the force vanishes."""
    L0, L1 = 6, 4
    a = 2 * math.pi / (L0 * L1)
    phases = torch.zeros(2, L0, L1, dtype=torch.float64)
    phases[1] = a * torch.arange(L0, dtype=torch.float64)[:, None]
    phases[0, L0 - 1] = -a * L0 * torch.arange(L1, dtype=torch.float64)
    diagonal = torch.tensor([1.0, -1.0, 0.0][:n], dtype=torch.float64)
    U = torch.diag_embed(torch.exp(1j * phases[..., None] * diagonal))[None].to(device)
    cosine, wider = 2 * math.cos(a) + n - 2, 2 * math.cos(2 * a) + n - 2
    for c1 in (0.0, -1 / 12):
        theory = SUN(n, (L0, L1), 2.0, c1)
        S = -2.0 / n * L0 * L1 * ((1 - 8 * c1) * cosine + 2 * c1 * wider)
        assert_close(theory.action(U).cpu(), torch.tensor([S], dtype=torch.float64), rtol=1e-13, atol=0)
        assert theory.force(U).abs().max() < 1e-13


def test_hessian_of_a_plain_loop(device):
    """Hessian-vector products against differences of the gradient, and the symmetry u H v = v H u."""
    U = links(3, (3, 2), 1, device=device).requires_grad_()
    v, w = (torch.randn_like(U) for _ in range(2))

    def product(v):
        (slope,) = torch.autograd.grad(wilson_action(U, 1.3, -0.2).sum(), U, create_graph=True)
        return torch.autograd.grad(slope, U, v)[0]

    gradient = lambda U: torch.autograd.grad(wilson_formula.wilson_action(U, 1.3, -0.2).sum(), U)[0]  # noqa: E731
    h = 1e-3  # the gradient is a cubic (rectangles: a quintic) of the links: the rest of two differences is h^4
    at = {k: gradient((U + k * h * v).detach().requires_grad_()) for k in (-2, -1, 1, 2)}
    assert_close(product(v), (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h), rtol=1e-9, atol=1e-9)
    inner = lambda a, b: (a.conj() * b).real.sum()  # noqa: E731
    assert_close(inner(w, product(v)), inner(v, product(w)), rtol=1e-12, atol=1e-12)


def test_ladder_of_precision(device):
    """The action of 16^4 float32 links against double ones: mathematics in float32, then in double."""
    U = SUN(3, (16, 16, 16, 16), 6.0).random(1, 1, dtype=torch.float32, device=device)
    exact = wilson_action(U.to(torch.complex128), 6.0, accurate=True)
    single, wide = wilson_action(U, 6.0), wilson_action(U, 6.0, wide=True)
    assert 0 < (single - exact).abs() < 3e-4
    assert (wide - exact).abs() < 1e-9
    assert (wilson_action(U.to(torch.complex128), 6.0) - exact).abs() < 1e-9
    force = wilson_force(U, 6.0, wide=True)
    assert force.dtype == torch.complex64
    assert_close(force, wilson_force(U.to(torch.complex128), 6.0).to(torch.complex64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_kept_for_backward(dtype):
    """The links of a 4D SU(3) action and nothing more: 288 (576) bytes a site."""
    U = links(3, (4, 4, 4, 4), 1, dtype).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        wilson_action(U, 6.0)
    size = sum(t.numel() * t.element_size() for t in kept) / 256
    assert 0 < size <= (300 if dtype == torch.float32 else 600)


def test_bits_do_not_depend_on_the_batch(device, dtype):
    for shape in ((3, 3), (4, 6), (4, 4, 4)):
        U = links(3, shape, 5, dtype, device)
        for law in (lambda U: wilson_action(U, 1.3, -0.1), lambda U: wilson_force(U, 1.3, -0.1)):
            assert_close(torch.cat([law(u[None]) for u in U]), law(U), rtol=0, atol=0)


@pytest.mark.parametrize("law", [wilson_action, wilson_force, wilson_action_and_force])
def test_refuses(law):
    good = links(3, (2, 2), 1)
    with pytest.raises(ValueError, match=r"with N = 2 or 3, got \(1, 2, 2, 2, 4, 4\)"):
        law(torch.zeros(1, 2, 2, 2, 4, 4, dtype=torch.complex128), 1.0)
    with pytest.raises(ValueError, match=r"with N = 2 or 3, got \(1, 2, 2, 2, 3, 2\)"):
        law(good[..., :2], 1.0)
    with pytest.raises(ValueError, match="with D = 2, 3 or 4"):
        law(good[:, :, 0], 1.0)
    with pytest.raises(ValueError, match=r"must have shape .*, got \(1, 1, 2, 2, 3, 3\)"):
        law(good[:, :1], 1.0)
    with pytest.raises(TypeError, match="complex64 or complex128"):
        law(good.real, 1.0)
    for beta in (math.nan, math.inf):
        with pytest.raises(ValueError, match="beta must be a finite number"):
            law(good, beta)
    with pytest.raises(ValueError, match="c1 must be a finite number"):
        law(good, 1.0, math.inf)
