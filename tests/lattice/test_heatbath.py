"""Sweeps against their form in torch, against exact results, and where lattices are odd or small."""

import pytest
import torch
from hepops.core.philox import _signed
from hepops.lattice import SUN, U1, Heatbath, Phi4
from hepops.lattice.samplers import formula
from torch.testing import assert_close

from .exact import assert_agrees, plaquette

SHAPES = [(4, 4), (3, 5), (2, 3, 2), (3, 2, 2, 2)]


def theory(group, shape, beta):
    return U1(shape, beta) if group == "U1" else SUN(int(group[2:]), shape, beta)


def mean_plaquette(theory):
    if isinstance(theory, U1):
        return lambda f: theory.plaquette_angles(f).cos().flatten(1).mean(1)
    return theory.plaquette


def swept(t, field, seed, step=0, first=0):
    sampler = Heatbath(t)
    chains = sampler.start(field, seed, first=first)
    chains.step = step
    sampler.update(chains)
    return chains.field


@pytest.mark.parametrize("beta", [6.0, -1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", ["U1", "SU2", "SU3"])
def test_a_sweep_is_that_of_the_formula(group, shape, beta, device):
    """The same numbers, link after link: an illegal order of links would show, as would any sign."""
    t = theory(group, shape, beta)
    field = t.random(1, seed=3)
    wanted = formula.heatbath(t, field, formula.named(11, 5), first=7)
    ours = swept(t, field.to(device), 11, step=5, first=7).cpu()
    if group == "U1":
        off = (ours - wanted).abs()
        assert torch.minimum(off, 2 * torch.pi - off).max() < 1e-9
        assert (ours > -torch.pi).all() and (ours <= torch.pi).all()
    else:
        assert_close(ours, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1), (1, 4, 2)])
def test_u1_with_extents_of_one(shape):
    """Plaquettes around an extent of 1 do not depend on the links that go across it."""
    t = U1(shape, 1.5)
    field = t.random(2, seed=3)
    off = (swept(t, field, 11) - formula.heatbath(t, field, formula.named(11, 0))).abs()
    assert torch.minimum(off, 2 * torch.pi - off).max() < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", ["U1", "SU2", "SU3"])
def test_reflections_keep_the_action(group, shape, device):
    t = theory(group, shape, 2.0)
    field = t.random(3, seed=5, device=device)
    sampler = Heatbath(t)
    again = sampler.reflect(field)
    assert (again - field).abs().max() > 0.1  # it does move
    assert_close(t.action(again), t.action(field), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("group", "L", "beta"), [("U1", 4, 2.0), ("U1", 8, 1.0), ("SU2", 4, 2.2), ("SU2", 8, 4.0), ("SU3", 4, 6.0)]
)
@pytest.mark.parametrize("overrelax", [0, 1])
def test_plaquette_is_the_exact_one(group, L, beta, overrelax):
    t = theory(group, (L, L), beta)
    run = Heatbath(t, overrelax=overrelax).run(
        40, chains=64, seed=2, thermalise=20, observables={"plaquette": mean_plaquette(t)}
    )
    assert_agrees(run.mean("plaquette"), plaquette(group, L, beta), relative=0.015)


def test_negative_beta_is_the_mirror_image():
    """On even extents beta -> -beta turns the plaquette's sign, for U(1) and SU(2)."""
    for group in ("U1", "SU2"):
        t = theory(group, (4, 4), -2.0)
        run = Heatbath(t).run(60, chains=64, seed=2, thermalise=30, observables={"p": mean_plaquette(t)})
        assert_agrees(run.mean("p"), -plaquette(group, 4, 2.0), relative=0.015)


def test_beta_zero_is_haar():
    t = SUN(3, (4, 4), 0.0)
    run = Heatbath(t).run(1, chains=256, seed=2, start="cold")
    trace = run.chains.field.diagonal(dim1=-2, dim2=-1).sum(-1)
    # in SU(3) three subgroups do not make one Haar element of a cold one; ten sweeps do
    run = Heatbath(t).run(10, run.chains)
    trace = run.chains.field.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert trace.abs().square().mean().item() == pytest.approx(1, abs=0.05)  # <|tr U|^2> = 1
    assert trace.mean().abs() < 0.05


def test_float32_is_computed_in_double():
    t = SUN(3, (4, 4), 5.0)
    field = t.random(2, seed=3, dtype=torch.float32)
    wide = swept(t, field.to(torch.complex128), 1)
    # the links of a sweep see rounded neighbours, so the comparison is of the first direction's first colour
    at = formula.colours(t, 0) == 0
    assert_close(swept(t, field, 1)[:, 0][:, at].to(torch.complex128), wide[:, 0][:, at], rtol=0, atol=1e-5)


@pytest.mark.parametrize("group", ["U1", "SU2", "SU3"])
def test_threads_batches_and_ranks_do_not_matter(group):
    t = theory(group, (4, 3, 4), 2.5)
    sampler = Heatbath(t, overrelax=1)
    threads = torch.get_num_threads()
    try:
        fields = []
        for n in (1, 2):
            torch.set_num_threads(n)
            fields.append(sampler.run(3, chains=6, seed=9).chains.field)
    finally:
        torch.set_num_threads(threads)
    parts = [sampler.run(3, chains=n, seed=9, first=first).chains.field for n, first in ((2, 0), (4, 2))]
    assert torch.equal(fields[0], fields[1])
    assert torch.equal(torch.cat(parts), fields[0])


@pytest.mark.parametrize("beta", [1e300, -1e300, 1e-300])
@pytest.mark.parametrize("group", ["U1", "SU2", "SU3"])
def test_any_real_beta_is_legal(group, beta):
    field = Heatbath(theory(group, (3, 4), beta), overrelax=1).run(3, chains=2, seed=1).chains.field
    assert field.isfinite().all()


def test_links_stay_in_the_group():
    t = SUN(3, (4, 4), 6.0)
    field = Heatbath(t, overrelax=2, project_every=50).run(100, chains=4, seed=1).chains.field
    assert_close(field.mH @ field, torch.eye(3, dtype=field.dtype).expand_as(field), rtol=0, atol=1e-13)
    assert_close(torch.linalg.det(field), torch.ones(field.shape[:-2], dtype=field.dtype), rtol=0, atol=1e-13)


def test_refuses_what_has_no_heatbath():
    with pytest.raises(TypeError, match="Phi4 has no heatbath"):
        Heatbath(Phi4((4, 4), m2=1.0, lam=1.0))
    with pytest.raises(TypeError, match=r"SU\(4\) has no heatbath"):
        Heatbath(SUN(4, (4, 4), 1.0))
    with pytest.raises(ValueError, match=r"extent of 1 .* got shape \(4, 1\)"):
        Heatbath(SUN(2, (4, 1), 1.0))
    with pytest.raises(ValueError, match=r"overrelax must be .* got -1"):
        Heatbath(U1((4, 4), 1.0), overrelax=-1)
    with pytest.raises(ValueError, match=r"project_every must be .* got 0"):
        Heatbath(U1((4, 4), 1.0), project_every=0)
    improved = SUN(2, (4, 4), 1.0)
    improved.c1 = -1 / 12
    with pytest.raises(ValueError, match="the action has rectangles"):
        Heatbath(improved)


def test_operators_refuse_by_name():
    ops = torch.ops.hepops
    links = torch.zeros(1, 2, 4, 4)
    with pytest.raises(RuntimeError, match=r"ValueError: heatbath: N must be 1, 2 or 3, got 5"):
        ops._lattice_heatbath(links, 5, 1.0, 0, 0, 0)
    with pytest.raises(RuntimeError, match=r"ValueError: heatbath: links must have shape .* got \(1, 3, 4, 4\)"):
        ops._lattice_heatbath(torch.zeros(1, 3, 4, 4), 1, 1.0, 0, 0, 0)
    with pytest.raises(RuntimeError, match=r"ValueError: heatbath: sweep must be in \[0, 2\^32\), got -1"):
        ops._lattice_heatbath(links, 1, 1.0, _signed(1), -1, 0)
    with pytest.raises(RuntimeError, match="TypeError: heatbath: links must be float32 or float64"):
        ops._lattice_heatbath(links.long(), 1, 1.0, 0, 0, 0)


def test_operators_are_registered():
    links = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    torch.library.opcheck(torch.ops.hepops._lattice_heatbath.default, (links, 1, 1.0, 0, 0, 0))
    torch.library.opcheck(torch.ops.hepops._lattice_overrelax.default, (links, 1))
    torch.library.opcheck(torch.ops.hepops._lattice_metropolis.default, (links, 1, 1.0, 0.5, 2, 0, 0, 0))
    phi = torch.randn(2, 4, 4, dtype=torch.float64)
    torch.library.opcheck(torch.ops.hepops._lattice_metropolis_phi4.default, (phi, -2.0, 1.0, 1.0, 0.5, 2, 0, 0, 0))
