"""HMC: exactness, orders of the integrators, reversibility, what diverges."""

import math

import pytest
import torch
from hepops.lattice import HMC, SUN, U1, Heatbath, Phi4
from hepops.lattice.samplers import Chains
from hepops.lattice.samplers.integrate import plain_trajectory, trajectory
from hepops.lattice.samplers.project import gram_schmidt
from torch.testing import assert_close

from .exact import assert_agrees, phi4, plaquette

THEORIES = {
    "phi4": lambda: Phi4((4, 4), m2=-1.0, lam=1.0),
    "u1": lambda: U1((4, 4), 2.0),
    "su2": lambda: SUN(2, (2, 3), 2.2),
    "su3": lambda: SUN(3, (2, 2), 6.0),
}
EACH = pytest.mark.parametrize("name", THEORIES)


def equilibrium(name, chains=24):
    t = THEORIES[name]()
    return t, HMC(t, 0.1, 8, tune=0.9).run(0, chains=chains, seed=1, thermalise=40).chains.field


@pytest.fixture(scope="module")
def equilibria():
    return {name: equilibrium(name) for name in THEORIES}


@EACH
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_order_of_the_integrators(equilibria, name, integrator):
    """At fixed length rms dH ~ eps^2 (eps^4 for force-gradient), mean dH ~ the square of it; <e^-dH> = 1."""
    t, field = equilibria[name]
    order = 4 if integrator == "force_gradient" else 2
    length, coarse = 0.8, 10
    rms, mean = [], []
    for steps in (coarse, 2 * coarse):
        P = t.momenta(field, seed=5)
        moved, after = trajectory(t, field, P, length / steps, steps, integrator)
        dH = t.action(moved) + t.kinetic(after) - t.action(field) - t.kinetic(P)
        rms.append(dH.square().mean().sqrt().item())
        # e^-dH has mean 1, so <dH> = <dH^2>/2 up to <dH^3>/6: the even part has less noise than the mean
        mean.append((dH + torch.expm1(-dH)).mean().item())
    assert math.log2(rms[0] / rms[1]) == pytest.approx(order, abs=0.35)
    assert math.log2(mean[0] / mean[1]) == pytest.approx(2 * order, abs=0.7)


@EACH
def test_exponential_of_dH_has_mean_one(equilibria, name):
    t, field = equilibria[name]
    run = HMC(t, 0.12, 5).run(30, field, seed=8)
    x = torch.exp(-run.dH).mean(0)
    assert abs(x.mean() - 1) < 3 * x.std() / math.sqrt(len(x))
    assert run.dH.std() > 1e-3  # there is something to test


@EACH
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_reversibility(equilibria, name, integrator):
    t, field = equilibria[name]
    left = HMC(t, 0.1, 10, integrator=integrator).reversibility(field)
    assert left.field < 1e-12 and left.momenta < 1e-12 and left.energy < 1e-11


@EACH
@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_trajectory_is_that_of_force_and_move(name, integrator):
    """The theory's own trajectory against kicks and drifts one after the other."""
    t = THEORIES[name]()
    field = 0.3 * t.random(2, seed=1) if name == "phi4" else t.random(2, seed=1)
    P = t.momenta(field, seed=2)
    ours = trajectory(t, field, P, 0.07, 4, integrator)
    wanted = plain_trajectory(t, field, P, 0.07, 4, integrator)
    for a, b in zip(ours, wanted, strict=True):
        assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("key", ["1D_L8_m2_-4.0_lam_8.0", "1D_L16_m2_1.0_lam_0.5", "2D_2x8_m2_-4.0_lam_8.0"])
def test_phi4_against_the_transfer_matrix(key):
    shape = (2, 8) if key.startswith("2D") else (int(key.split("_")[1][1:]),)
    m2, lam = (float(key.split("_")[i]) for i in (3, 5))
    t = Phi4(shape, m2=m2, lam=lam)
    observables = {k: lambda f, p=p: f.pow(p).flatten(1).mean(1) for k, p in (("phi2", 2), ("phi4", 4))}
    run = HMC(t, 0.1, 6, tune=0.9).run(100, chains=256, seed=4, thermalise=100, observables=observables)
    for name in observables:
        assert_agrees(run.mean(name), phi4(key)[name], relative=0.02)


def test_free_field_action():
    """<S> = V/2."""
    t = Phi4((8, 8), m2=0.25, lam=0.0, convention="B")
    run = HMC(t, 0.15, 10, tune=0.9).run(100, chains=128, seed=1, thermalise=60, observables={"S": t.action})
    assert_agrees(run.mean("S"), 32.0, relative=0.01)


@pytest.mark.parametrize(("group", "L", "beta"), [("U1", 4, 2.0), ("U1", 8, 1.0), ("SU2", 4, 2.2), ("SU3", 4, 6.0)])
def test_plaquette_is_the_exact_one(group, L, beta):
    t = U1((L, L), beta) if group == "U1" else SUN(int(group[2]), (L, L), beta)
    mean = (lambda f: t.plaquette_angles(f).cos().flatten(1).mean(1)) if group == "U1" else t.plaquette
    run = HMC(t, 0.25, 4, tune=0.85).run(40, chains=48, seed=6, thermalise=40, observables={"p": mean})
    assert_agrees(run.mean("p"), plaquette(group, L, beta), relative=0.02)


@pytest.mark.parametrize(("n", "beta"), [(2, 2.3), (3, 5.7)])
def test_hmc_and_heatbath_agree_in_four_dimensions(n, beta):
    """Where nothing is exact: two algorithms without a line in common, from opposite starts."""
    t = SUN(n, (2, 2, 2, 2), beta)
    plan = {"chains": 32, "thermalise": 40, "observables": {"p": t.plaquette}}
    a = HMC(t, 0.12, 5, tune=0.85).run(60, seed=1, start="cold", **plan).mean("p")
    b = Heatbath(t, overrelax=1).run(200, seed=2, **plan).mean("p")
    sigma = math.hypot(a.error, b.error)
    assert sigma < 5e-3 * b.mean  # there is something to test
    assert abs(a.mean - b.mean) < 3 * sigma


@pytest.mark.parametrize("integrator", ["leapfrog", "omelyan", "force_gradient"])
def test_tuning_finds_the_acceptance(integrator):
    for start in (1e-2, 2.0):
        hmc = HMC(Phi4((4, 4), m2=-4.0, lam=8.0), start, 6, integrator=integrator, tune=0.8)
        run = hmc.run(50, chains=32, seed=1, thermalise=120)
        assert run.acceptance == pytest.approx(0.8, abs=0.1)
        assert run.settings["tuned"] and run.settings["step_size"] == hmc.step_size


def test_a_chain_does_not_depend_on_the_others():
    for name in THEORIES:
        hmc = HMC(THEORIES[name](), 0.1, 4)
        whole = hmc.run(5, chains=5, seed=3)
        parts = [hmc.run(5, chains=n, seed=3, first=first) for n, first in ((2, 0), (3, 2))]
        assert_close(torch.cat([p.chains.field for p in parts]), whole.chains.field, rtol=0, atol=1e-13)
        assert torch.equal(torch.cat([p.history["accepted"] for p in parts], 1), whole.history["accepted"])


def test_a_step_size_that_diverges_is_rejected_and_reported():
    t = Phi4((4, 4), m2=-4.0, lam=8.0)
    with pytest.warns(RuntimeWarning, match=r"all 20 updates were rejected, with step_size = 5.0; 20 diverged"):
        run = HMC(t, 5.0, 20).run(5, chains=4, seed=1)
    assert run.diverged == 20 and run.acceptance == 0
    assert torch.equal(run.chains.field, t.random(4, seed=1))  # nothing moved


def test_links_are_put_back_to_the_group():
    t = SUN(3, (2, 2), 6.0)
    start = t.random(2, seed=1) * (1 + 1e-9)
    run = HMC(t, 0.05, 2, project_every=2).run(2, start, seed=1)
    off = (run.chains.field.mH @ run.chains.field - torch.eye(3)).abs().max()
    assert off < 1e-14


def test_gram_schmidt():
    U = SUN(3, (2, 2), 1.0).random(3, seed=2)
    assert_close(gram_schmidt(U), U, rtol=0, atol=1e-14)
    back = gram_schmidt(U * 1.1 + 1e-3)
    assert_close(torch.linalg.det(back), torch.ones(back.shape[:-2], dtype=back.dtype), rtol=0, atol=1e-14)


def test_start_that_is_not_unitary_is_reported():
    t = SUN(2, (2, 2), 1.0)
    with pytest.raises(ValueError, match=r"not in SU\(2\): they are off by 0.01"):
        HMC(t, 0.1, 2).run(1, t.cold(1) * math.sqrt(1.01), seed=1)
    with pytest.raises(ValueError, match="NaN or infinite"):
        HMC(Phi4((2, 2), m2=1.0, lam=0.0), 0.1, 2).start(torch.full((1, 2, 2), math.nan, dtype=torch.float64), 1)


@pytest.mark.parametrize("step_size", [0.0, -0.1, math.nan, math.inf, "0.1", True])
def test_refuses_step_sizes(step_size):
    with pytest.raises(ValueError, match="step_size must be positive and finite, got"):
        HMC(U1((4, 4), 1.0), step_size, 5)


def test_refuses_other_arguments():
    t = U1((4, 4), 1.0)
    for steps in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"steps must be .* got {steps}"):
            HMC(t, 0.1, steps)
    with pytest.raises(ValueError, match=r"integrator must be one of .* got 'euler'"):
        HMC(t, 0.1, 5, integrator="euler")
    with pytest.raises(ValueError, match=r"tune must be an acceptance in \(0, 1\), got 1.5"):
        HMC(t, 0.1, 5, tune=1.5)
    with pytest.raises(ValueError, match=r"tune = 0.8 needs thermalise > 0"):
        HMC(t, 0.1, 5, tune=0.8).run(5)
    with pytest.raises(ValueError, match="n must be a whole number of at least 0, got -1"):
        HMC(t, 0.1, 5).run(-1)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        HMC(t, 0.1, 5).run(1, every=0)
    with pytest.raises(ValueError, match="chains must be a whole number of at least 1, got 0"):
        HMC(t, 0.1, 5).run(1, chains=0)
    with pytest.raises(ValueError, match="start must be 'hot' or 'cold', got 'warm'"):
        HMC(t, 0.1, 5).run(1, start="warm")
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\^64\), got -1"):
        Chains(t.cold(1), -1)
    with pytest.raises(ValueError, match="field must have shape"):
        HMC(t, 0.1, 5).run(1, torch.zeros(1, 2, 4, 5, dtype=torch.float64))
