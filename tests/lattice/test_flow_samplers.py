"""Samplers that use a flow or its weights, against exact numbers; Metropolis sweeps."""

import math

import pytest
import torch
from hepops.flows import Compose, Flow, Transform
from hepops.lattice import HMC, SUN, U1, Heatbath, IndependenceMetropolis, Metropolis, Phi4, StochasticFlow
from hepops.lattice.samplers import Between, Langevin, metropolis_in_turn, resample
from torch.testing import assert_close

from .exact import assert_agrees, golden, phi4, plaquette

PHI4 = Phi4((8,), m2=-2.0, lam=1.0)
FREE = Phi4((4, 4), m2=1.0, lam=0.0, convention="B")


class Scale(Transform):
    """phi -> e^s phi."""

    def __init__(self, s, event_dim):
        super().__init__()
        self.s, self.event_dim = s, event_dim

    def forward(self, x, context=None):
        sites = math.prod(x.shape[x.dim() - self.event_dim :])
        return x * math.exp(self.s), self.no_volume(x) + self.s * sites

    def inverse(self, y, context=None):
        x, logdet = y * math.exp(-self.s), self.forward(y)[1]
        return x, -logdet


def flow_of(theory, s=0.0):
    return Flow(Scale(s, theory.dims).inv, theory.prior())


def square(f):
    return f.square().flatten(1).mean(1)


def free_log_z(theory):
    """ln Z_B = V/2 ln 2 pi - 1/2 sum_p ln(phat^2 + m2)."""
    p = [4 * torch.sin(math.pi * torch.arange(L, dtype=torch.float64) / L).square() for L in theory.shape]
    phat2 = p[0][:, None] + p[1][None, :]
    return theory.sites / 2 * math.log(2 * math.pi) - 0.5 * (phat2 + theory.m2).log().sum().item()


def test_independence_metropolis_is_exact():
    """A flow that is not trained: few proposals are taken, and the answer is right."""
    theory = Phi4((2, 4), m2=-4.0, lam=8.0)
    flow = flow_of(theory, -0.8)
    run = IndependenceMetropolis(flow, theory).run(
        400, chains=256, seed=3, thermalise=200, observables={"phi2": square}
    )
    assert 0.02 < run.acceptance < 0.9
    assert_agrees(run.mean("phi2"), phi4("2D_2x4_m2_-4.0_lam_8.0")["phi2"], relative=0.02)
    assert run.chains.state["log_w"].dtype == torch.float64
    log_w = theory.log_prob(run.chains.field) - flow.log_prob(run.chains.field)
    assert_close(run.chains.state["log_w"], log_w, rtol=0, atol=1e-10)


def test_independence_metropolis_resumes(tmp_path):
    def go(n, **options):
        sampler = IndependenceMetropolis(flow_of(PHI4), PHI4)
        return sampler.run(n, chains=4, seed=3, **options)

    path = tmp_path / "run"
    go(7, checkpoint=path)
    whole, resumed = go(20), go(20, checkpoint=path)
    assert torch.equal(resumed.chains.field, whole.chains.field)
    assert torch.equal(resumed.chains.state["log_w"], whole.chains.state["log_w"])
    assert torch.equal(resumed.history["log_w"], whole.history["log_w"])
    parts = [
        IndependenceMetropolis(flow_of(PHI4), PHI4).run(20, chains=2, seed=3, first=f).chains.field for f in (0, 2)
    ]
    assert torch.equal(torch.cat(parts), whole.chains.field)


def test_independence_metropolis_starts_anywhere():
    field = PHI4.random(2, seed=1)
    chains = IndependenceMetropolis(flow_of(PHI4), PHI4).start(field, 5)
    assert torch.equal(chains.field, field) and chains.state["log_w"].shape == (2,)
    with pytest.raises(ValueError, match="the flow has events"):
        IndependenceMetropolis(flow_of(PHI4), Phi4((9,), m2=1.0, lam=1.0))


def test_weights_are_those_of_the_field_and_of_the_flow(tmp_path):
    """HMC between, or a flow trained further: the chain's old ln w would be of something else."""
    layer = torch.nn.Linear(1, 1)  # stands for the weights of a flow
    flow = flow_of(PHI4, -0.3)
    flow.register_module("more", layer)
    sampler = IndependenceMetropolis(flow, PHI4)
    run = sampler.run(5, chains=4, seed=3, checkpoint=tmp_path / "run")
    old = run.chains.state["log_w"].clone()
    between = HMC(PHI4, 0.1, 5).run(3, run.chains).chains
    assert between is run.chains and not between.state
    sampler.prepare(between)
    wanted = PHI4.log_prob(between.field) - flow.log_prob(between.field)
    assert_close(between.state["log_w"], wanted, rtol=0, atol=1e-12)
    assert (old - wanted).abs().max() > 1e-3  # there is something to test
    between.state["log_w"] += 1
    sampler.prepare(between)
    assert_close(between.state["log_w"], wanted + 1, rtol=0, atol=1e-12)  # kept, as the proposal gave it
    with torch.no_grad():
        layer.weight += 1
    sampler.prepare(between)
    assert_close(between.state["log_w"], wanted, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"belongs to another run, it differs in sampler .*'flow'"):
        sampler.run(9, chains=4, seed=3, checkpoint=tmp_path / "run")


def test_metropolis_in_turn_against_a_loop():
    """Stationary on three states of known weights, and never moved by a weight that is NaN."""
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    which = torch.randint(0, 3, (60_000,), generator=torch.Generator().manual_seed(1))
    at = metropolis_in_turn(weights.log()[which], seed=2)
    share = torch.bincount(which[at], minlength=3) / len(at)
    assert_close(share, weights.float(), rtol=0, atol=0.01)
    assert metropolis_in_turn(torch.tensor([0.0, math.nan, 1.0]), seed=1).tolist() == [0, 0, 2]
    assert metropolis_in_turn(torch.tensor([-math.inf]), seed=1, start=0.0).tolist() == [-1]


def test_resampling():
    w = torch.tensor([0.1, 0.0, 0.25, 0.65], dtype=torch.float64)
    n = 1000
    counts = torch.bincount(resample(w.log(), n, seed=1), minlength=4)
    assert ((counts - n * w).abs() <= 1).all() and counts.sum() == n
    independent = torch.bincount(resample(w.log() + 700, n, seed=1, method="importance"), minlength=4)
    assert ((independent - n * w).abs() <= 4.5 * (n * w * (1 - w)).sqrt()).all()
    assert (independent - n * w).abs().max() > 1.5  # independent draws are not systematic
    assert resample(w.log(), seed=1).shape == (4,)
    for log_w, text in (
        (torch.tensor([0.0, math.nan]), "1 of 2 weights are NaN"),
        (torch.tensor([-math.inf]), "all 1 weights are 0"),
        (torch.zeros(0), "log_w must have shape"),
    ):
        with pytest.raises(ValueError, match=text):
            resample(log_w, seed=1)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        resample(w.log(), 0, seed=1)
    with pytest.raises(ValueError, match=r"method must be .* got 'other'"):
        resample(w.log(), seed=1, method="other")


LADDERS = {
    "hmc": lambda t: [HMC(Between(t, k / 6), 0.3, 3) for k in range(1, 6)],
    "langevin": lambda t: [Langevin(Between(t, k / 12), 0.05) for k in range(1, 12)],
    "metropolis": lambda t: [Metropolis(t, 1.0)],
    "layers": lambda t: [Scale(-0.1, 2), HMC(Between(t, 0.5), 0.3, 3), Scale(-0.15, 2), HMC(t, 0.3, 3)],
}


@pytest.mark.parametrize("name", LADDERS)
def test_jarzynski_on_the_free_field(name):
    """Z_N / Z_0 and <S> of a theory that is exactly known, by every kind of update."""
    work = StochasticFlow(FREE, LADDERS[name](FREE)).run(4000, seed=2)
    value, error = work.log_z
    exact = free_log_z(FREE)
    assert error < 0.5 and abs(value - exact) < 3.5 * error, (value, error, exact)
    S, dS = work.mean(FREE.action)
    assert dS < 1 and abs(S - FREE.sites / 2) < 4 * dS


def test_crooks_on_the_free_field():
    """<f(W)>_forward = <f(-W') e^(-W')>_reverse Z_0 / Z_N ... with Bennett's f both ways give the same Z ratio."""
    flow = StochasticFlow(FREE, LADDERS["hmc"](FREE))
    forward = flow.run(3000, seed=2).work
    # exact samples of the free field: a spectrum of normal numbers
    p = 4 * torch.sin(math.pi * torch.arange(4, dtype=torch.float64) / 4).square()
    kernel = (p[:, None] + p[None, :] + FREE.m2).rsqrt()
    g = torch.randn(3000, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    field = torch.fft.ifft2(torch.fft.fft2(g) * kernel).real
    backward = flow.reverse(field, seed=9).work
    dF = -free_log_z(FREE)
    # Bennett: sum over forward of 1/(1 + e^(W - dF)) = sum over reverse of 1/(1 + e^(W_r + dF))
    a, b = torch.sigmoid(dF - forward), torch.sigmoid(-dF - backward)
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    assert abs(a.mean() - b.mean()) < 4 * error and error < 0.02
    assert forward.mean() > dF > -backward.mean()  # the second law, both ways


def test_stochastic_gauge_flow():
    """A ladder of heatbaths in beta: ln Z of 2D U(1) and of SU(2)."""
    for group, theory in (("U1", lambda b: U1((4, 4), b)), ("SU2", lambda b: SUN(2, (4, 4), b))):
        beta = 1.0
        ladder = [Heatbath(theory(beta * k / 10)) for k in range(1, 10)]
        work = StochasticFlow(theory(beta), ladder).run(500, seed=4)
        exact = golden("exact_2d_gauge.json")[f"{group}_2D"]["1.0"]["L4"]
        value, error = work.log_z
        assert error < 0.05 and abs(value - float(exact["lnZ"])) < 3.5 * error


def test_stochastic_flow_does_not_depend_on_the_split():
    flow = StochasticFlow(FREE, LADDERS["layers"](FREE))
    whole = flow.run(5, seed=1)
    parts = [flow.run(n, seed=1, first=first) for n, first in ((2, 0), (3, 2))]
    assert_close(torch.cat([p.work for p in parts]), whole.work, rtol=0, atol=1e-11)


def test_stochastic_flow_refuses():
    with pytest.raises(TypeError, match="step 0 is neither a Transform nor a Sampler: int"):
        StochasticFlow(FREE, [1])
    with pytest.raises(ValueError, match=r"step 0 is of events \(8,\), not \(4, 4\)"):
        StochasticFlow(FREE, [HMC(PHI4, 0.1, 2)])
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\], got 2"):
        Between(FREE, 2)
    with pytest.raises(TypeError, match="U1 has a compact field"):
        Langevin(U1((4, 4), 1.0), 0.1)
    assert len(Compose([])) == 0


@pytest.mark.parametrize("key", ["1D_L8_m2_-2.0_lam_1.0", "2D_2x8_m2_-4.0_lam_8.0"])
def test_metropolis_of_phi4(key):
    shape, m2, lam = ((8,), -2.0, 1.0) if key.startswith("1D") else ((2, 8), -4.0, 8.0)
    run = Metropolis(Phi4(shape, m2=m2, lam=lam), 1.0, hits=2, tune=0.5).run(
        300, chains=256, seed=2, thermalise=150, observables={"phi2": square}
    )
    assert_agrees(run.mean("phi2"), phi4(key)["phi2"], relative=0.01)
    assert run.acceptance == pytest.approx(0.5, abs=0.05)


def test_metropolis_with_extents_of_one_and_three():
    """Against HMC, whose action and force know such lattices by index alone."""
    t = Phi4((1, 3), m2=-1.0, lam=1.0)
    runs = [
        s.run(400, chains=128, seed=2, thermalise=100, observables={"phi2": square})
        for s in (Metropolis(t, 1.0, hits=3), HMC(t, 0.2, 4, tune=0.85))
    ]
    (a, da), (b, db) = (r.mean("phi2") for r in runs)
    assert abs(a - b) < 4 * (da**2 + db**2).sqrt() and da < 0.01 * a


@pytest.mark.parametrize("group", ["U1", "SU2", "SU3"])
def test_metropolis_of_links(group):
    t = U1((4, 4), 2.0) if group == "U1" else SUN(int(group[2]), (4, 4), 2.0)
    mean = (lambda f: t.plaquette_angles(f).cos().flatten(1).mean(1)) if group == "U1" else t.plaquette
    run = Metropolis(t, 1.0, hits=3, tune=0.6).run(40, chains=64, seed=2, thermalise=40, observables={"p": mean})
    assert_agrees(run.mean("p"), plaquette(group, 4, 2.0), relative=0.02)


def test_metropolis_refuses():
    with pytest.raises(ValueError, match="width must be positive and finite, got 0"):
        Metropolis(PHI4, 0)
    with pytest.raises(ValueError, match=r"hits must be .* got 0"):
        Metropolis(PHI4, 1.0, hits=0)
    with pytest.raises(ValueError, match=r"tune = 0.5 needs thermalise > 0"):
        Metropolis(PHI4, 1.0, tune=0.5).run(3)
    with pytest.raises(TypeError, match=r"Metropolis: SU\(4\)"):
        Metropolis(SUN(4, (4, 4), 1.0), 1.0)
