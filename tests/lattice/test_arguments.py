"""What a theory is given: layouts, empty and single batches, numbers of every kind; and what it refuses."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hepops.lattice import HMC, SUN, U1, Phi4, exact, group, spectral
from hepops.lattice.distributed import Decomposed, Grid, halo
from torch.testing import assert_close

THEORIES = {
    "phi4": Phi4((4, 3), m2=-1.0, lam=1.0),
    "phi4_1d": Phi4((5,), m2=1.0, lam=0.0),
    "u1": U1((1, 2), -2.5),
    "u1_4d": U1((2, 2, 1, 3), 1e5),
    "su2": SUN(2, (3, 2), 2.2, improvement="iwasaki"),
    "su3": SUN(3, (2, 1, 2), -4.0),
    "su4": SUN(4, (2, 2), 3.0),
}
EACH = pytest.mark.parametrize("theory", THEORIES.values(), ids=THEORIES)
GAUGE = pytest.mark.parametrize("theory", [THEORIES[k] for k in ("su2", "su3", "su4")], ids=["su2", "su3", "su4"])


def everything(theory, field):
    momenta = theory.momenta(field, seed=3)
    ends = theory.trajectory(field, momenta, 0.01, 2, "omelyan")
    return *theory.action_and_force(field), theory.action(field), theory.force(field), theory.density(field), *ends


def slope(theory, field):
    weights = torch.arange(1, len(field) + 1, dtype=torch.float64, device=field.device)
    return torch.autograd.grad((theory.action(field) * weights).sum(), field)[0]


@EACH
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_batch(theory, batch, device):
    field = theory.random(batch, seed=1, device=device)
    S, F, *_ = everything(theory, field)
    assert S.shape == (batch,) and S.dtype == torch.float64 and F.shape == field.shape
    assert_close(theory.density(field).flatten(1).sum(1), S, rtol=1e-12, atol=1e-9 * abs(getattr(theory, "beta", 1)))
    assert slope(theory, field.requires_grad_()).shape == field.shape


@EACH
def test_layouts_do_not_matter(theory, device):
    field = theory.random(3, seed=1, device=device)
    spread = torch.stack([field, field], -1)[..., 0]
    turned = field.transpose(0, -1).contiguous().transpose(0, -1)
    for other in (spread, turned):
        assert not other.is_contiguous()
        assert_close(everything(theory, other), everything(theory, field), rtol=1e-14, atol=0)
    one = field[:1].expand(3, *theory.event_shape)
    assert_close(everything(theory, one), everything(theory, one.clone()), rtol=1e-14, atol=0)


@GAUGE
@pytest.mark.parametrize("view", [torch.Tensor.conj, lambda U: U.mH, lambda U: U.mT], ids=["conj", "mH", "mT"])
def test_conjugated_views(theory, view, device):
    """Lazy conjugation is seen by every operator, and by what comes back through it."""
    U = theory.random(2, seed=1, device=device)
    plain = view(U).resolve_conj().contiguous()
    assert_close(everything(theory, view(U)), everything(theory, plain), rtol=1e-14, atol=1e-14)
    for law in (theory.staples, theory.traces, theory.plaquettes, theory.plaquette, theory.deviation):
        assert_close(law(view(U)), law(plain), rtol=1e-14, atol=1e-14)
    U.requires_grad_()
    plain.requires_grad_()
    weights = torch.arange(1, 3, dtype=torch.float64, device=device)
    (through,) = torch.autograd.grad((theory.action(view(U)) * weights).sum(), U)
    assert_close(view(through), slope(theory, plain), rtol=1e-14, atol=1e-14)


@EACH
def test_a_nan_stays_in_its_configuration(theory, device):
    field = theory.random(3, seed=1, device=device)
    clean = theory.action_and_force(field)
    field.view(3, -1)[1, 0] = math.nan
    S, F = theory.action_and_force(field)
    assert S.isnan().tolist() == [False, True, False]
    assert F.isnan().flatten(1).any(1).tolist() == [False, True, False]
    assert_close(S[[0, 2]], clean[0][[0, 2]], rtol=0, atol=0)


@EACH
def test_theories_are_copied_and_pickled(theory):
    field = theory.random(1, seed=1)
    for other in (copy.deepcopy(theory), pickle.loads(pickle.dumps(theory)), theory.on(np.array(theory.shape))):
        assert_close(other.action(field), theory.action(field), rtol=0, atol=0)
        assert other.event_shape == theory.event_shape


@EACH
def test_without_data(theory):
    field = torch.empty((2, *theory.event_shape), dtype=theory.cold(1).dtype, device="meta")
    S, F = theory.action_and_force(field)
    assert S.shape == (2,) and F.shape == field.shape and theory.density(field).shape == (2, *theory.shape)
    assert all(end.shape == field.shape for end in theory.trajectory(field, field, 0.1, 2, "leapfrog"))


@pytest.mark.parametrize("name", ["phi4", "u1", "su2"])
def test_trajectories_compile_whole(name, device):
    theory = THEORIES[name]
    field = theory.random(2, seed=1, device=device)

    def run(field):
        return theory.trajectory(field, theory.momenta(field, 2), 0.1, 2, "omelyan")

    compiled = torch.compile(run, fullgraph=True, backend="eager")  # traced; AOT takes ten seconds for SU(2)
    assert_close(compiled(field), run(field), rtol=0, atol=0)


@EACH
def test_gradients_are_as_wanted(theory, device):
    field = theory.random(1, seed=1, device=device).requires_grad_()
    assert all(end.requires_grad for end in theory.trajectory(field, field.detach(), 0.01, 1, "omelyan"))
    with torch.no_grad():
        assert not theory.action(field).requires_grad
        assert not theory.trajectory(field, field, 0.01, 1, "omelyan")[0].requires_grad


@pytest.mark.parametrize("name", ["su2", "su3", "su4"])
def test_hessian_times_a_vector(name, device):
    """Against differences of the gradient, which is at most a quintic of the links: h^4 is left."""
    theory, h = THEORIES[name], 1e-3
    U = theory.random(1, seed=1, device=device)
    v = torch.randn_like(U)
    at = {k: slope(theory, (U + k * h * v).requires_grad_()) for k in (-2, -1, 1, 2)}
    product = theory.hessian_vector(U, v)
    assert not product.requires_grad
    assert_close(product, (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h), rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match=r"v must have shape \(1, .*, got \(2, "):
        theory.hessian_vector(U, torch.cat([v, v]))


def test_numbers_of_numpy_and_torch():
    field = Phi4((4, 4), m2=1.0, lam=1.0).random(1, seed=1)
    for shape in (tuple(np.array([4, 4])), np.array([4, 4]), torch.tensor([4, 4]), (L for L in (4, 4)), [4, 4]):
        theory = Phi4(shape, m2=np.float64(1), lam=torch.tensor(1))
        assert theory.shape == (4, 4) and all(type(L) is int for L in theory.shape)
        assert_close(theory.action(field), Phi4((4, 4), m2=1.0, lam=1.0).action(field), rtol=0, atol=0)
    assert U1((4, 4), torch.tensor(2.0)).beta == 2.0
    assert SUN(np.int64(3), (4, 4), np.float32(2)).n == 3
    end = U1((4, 4), 1.0).trajectory(*[torch.zeros(1, 2, 4, 4)] * 2, np.float32(0.5), np.int64(2))
    assert end[0].dtype == torch.float32


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_halves_are_stored_and_computed_wider(half):
    """HMC of a field in half precision: energies are those of its rounded values."""
    theory = Phi4((4, 4), m2=1.0, lam=0.5)
    start = theory.random(4, seed=1).to(half)
    p = theory.momenta(start, seed=2)
    assert p.dtype == half
    assert_close(theory.kinetic(p), theory.kinetic(p.double()), rtol=1e-6, atol=0)
    run = HMC(theory, 0.02, 2).run(3, start, seed=1)
    assert run.chains.field.dtype == half
    assert 0 < run.dH.abs().max() < 2  # 3 digits of energies of order 20


def test_density_in_double():
    """What ranks add up is as wide as the action is."""
    theory = SUN(3, (4, 4, 4), 6.0, compute=torch.float64)
    U = theory.random(1, seed=1, dtype=torch.float32)
    assert_close(theory.density(U).flatten(1).sum(1), theory.action(U.to(torch.complex128)), rtol=1e-13, atol=0)


def test_generators_are_nobody_elses():
    group.generators(3).zero_()
    assert group.generators(3).abs().sum() > 1


LEARNED = torch.tensor(2.0, requires_grad=True)
REFUSED = [
    (lambda: Phi4(4, 1.0, 1.0), TypeError, "Phi4: shape must be a sequence of extents, got 4"),
    (lambda: Phi4("44", 1.0, 1.0), TypeError, "Phi4: shape must be a sequence of extents, got '44'"),
    (lambda: U1((4.0, 4), 1.0), TypeError, r"U1: shape must be a sequence of extents, got \(4.0, 4\)"),
    (lambda: SUN(3, (2,) * 5, 1.0), ValueError, r"SUN: shape must hold 1 to 4 extents .*, got \(2, 2, 2, 2, 2\)"),
    (lambda: Phi4((4, 4), "1", 1.0), TypeError, "Phi4: m2 must be a real number, got '1'"),
    (lambda: Phi4((4, 4), 1.0, 1j), TypeError, "Phi4: lam must be a real number, got 1j"),
    (lambda: U1((4, 4), None), TypeError, "U1: beta must be a real number, got None"),
    (lambda: U1((4, 4), LEARNED), TypeError, "U1: beta has no gradient here .*, got tensor"),
    (lambda: SUN(3, (4, 4), LEARNED), TypeError, "SUN: beta has no gradient here .*, got tensor"),
    (lambda: SUN(3, (4, 4), torch.ones(2)), TypeError, "SUN: beta must be a real number, got tensor"),
    (lambda: SUN(True, (4, 4), 1.0), TypeError, "SUN: n must be an integer, got True"),
    (lambda: SUN(4, (4, 4), 1.0, accumulate="double-double"), ValueError, "needs n = 2 or 3, got 4"),
    (lambda: THEORIES["phi4"].cold(1, dtype=torch.int64), TypeError, "Phi4: cold must be .*, got torch.int64"),
    (lambda: THEORIES["u1"].cold(1, dtype=torch.float16), TypeError, "U1: cold must be .*, got torch.float16"),
    (lambda: THEORIES["su3"].cold(-1), ValueError, "SUN: batch must be a whole number of at least 0, got -1"),
    (lambda: THEORIES["su3"].action([1.0]), TypeError, "SUN: field must be .*, got list"),
    (lambda: THEORIES["phi4"].momenta(torch.zeros(1, 4), 1), ValueError, r"field must have shape .*, got \(1, 4\)"),
    (lambda: THEORIES["u1"].kinetic(torch.zeros(1, 4)), ValueError, r"momenta must have shape .*, got \(1, 4\)"),
    (lambda: THEORIES["su2"].kinetic(torch.zeros(1, 4)), TypeError, "momenta must be .*, got torch.float32"),
    (lambda: group.exp([[1]]), TypeError, "exp: X must be complex64 or complex128, got list"),
    (lambda: group.generators(1), ValueError, "generators: n must be at least 2, got 1"),
    (lambda: group.from_coordinates(torch.ones(3, 7), 3), ValueError, r"p must have shape \(..., 8\).*got \(3, 7\)"),
    (lambda: group.from_coordinates(torch.ones(8).long(), 3), TypeError, "p must be .*, got torch.int64"),
    (lambda: group.to_coordinates(torch.ones(2, 2)), TypeError, "to_coordinates: X must be .*, got torch.float32"),
    (lambda: group.traceless_antihermitian(1j * torch.ones(2, 3)), ValueError, r"M must have shape .* got \(2, 3\)"),
    (lambda: spectral(1j * torch.ones(2, 3, 3), torch.ones(3, 2, 4)), ValueError, r"got \(3, 2, 4\) and \(2, 3, 3\)"),
    (lambda: exact.log_z("U1", 1.0, 0), ValueError, "volume must be a whole number of at least 1, got 0"),
    (lambda: exact.plaquette("SU2", 1.0, 2.5), ValueError, "volume must be a whole number of at least 1, got 2.5"),
    (lambda: exact.wilson_loop("SU3", 1.0, 1.5, 4), ValueError, "area must lie in .*, got 1.5"),
    (lambda: exact.torus("U1", (2, 2, 2), 1.0), ValueError, r"must hold two extents, got \(2, 2, 2\)"),
    (lambda: exact.log_z("SU3", 1e6, 16), ValueError, "beta of SU3 must lie within 10000 of 0, got 1000000.0"),
    (lambda: exact.chi_top(1e6, 16), ValueError, "beta of chi_top must lie within 1000 of 0, got 1000000.0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refuses_what_cannot_be_cut():
    grid = Grid((4, 4), (1, 1))
    improved = SUN(2, (4, 4), 1.0, improvement="symanzik")
    with pytest.raises(ValueError, match="reach must be at least 2 for this theory, got 1"):
        Decomposed(improved, grid, reach=1)
    with pytest.raises(TypeError, match="got one that is cut already"):
        Decomposed(Decomposed(improved, grid), grid)
    with pytest.raises(NotImplementedError, match=r"cut the theory on \(8, 8\) with a Grid of that shape"):
        Decomposed(improved, grid).on((8, 8))
    for width in (1.5, (1, "2")):
        with pytest.raises(TypeError, match="halo: width must be a whole number, or one for each direction"):
            halo(torch.zeros(1, 4, 4), grid, width)
    assert halo(torch.zeros(1, 4, 4), grid, np.int64(1)).shape == (1, 6, 6)


def test_large_beta_is_known():
    """<1 - cos theta_P> = 1 / 2 beta for two dimensions and many plaquettes; chi_top is not given there."""
    known = U1((8, 8), 1e5).exact()
    assert "chi_top" not in known
    assert 1 - known["plaquette"] == pytest.approx(63 / 64 / 2e5, rel=1e-4)
