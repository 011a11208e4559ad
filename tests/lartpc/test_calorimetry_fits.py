"""Fits of tracks whose dE/dx is not given: moments of the charges, the marginal fit, latent losses by reverse mode."""

import dataclasses

import pytest
import torch
from hepops.lartpc import Detector, HitLikelihood, Parameters, Simulator, recombine
from hepops.lartpc.calorimetry import (
    HitObjective,
    HitResiduals,
    LatentPosterior,
    PixelCharges,
    StoppingTrack,
    ThroughTrack,
    Tracks,
    fit_charges,
)
from hepops.lartpc.calorimetry.charges import Shares, covariance, law_of, moments, recombined
from hepops.lartpc.fit.nuts import effective_size

MODULE0 = Detector.module0()
NAMES = ("birks_a", "birks_k", "lifetime")


def line(n=21, start=(-20.0, 3.0, 4.0), direction=(0.1, 0.35, 0.2)):
    return torch.tensor(start).double() + torch.arange(n).double()[:, None] * torch.tensor(direction).double()


def simulator(**values):
    return Simulator(MODULE0, Parameters(**values), dtype=torch.float64, step=0.4, reach=1, length=40)


def three(n=21, cut=1.0):
    return Tracks(
        [
            StoppingTrack(line(n), "proton", sigma=0.2),
            ThroughTrack(line(n, start=(-15.0, 9.0, 1.0)), number=1),
            StoppingTrack(line(n, start=(-10.0, -8.0, 4.0)), event=3, sigma=0.2),
        ],
        cut=cut,
    )


def scores(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("model", ["birks", "box", "ellipsoid"])
def test_charges_of_a_segment_are_those_of_the_operator(model):
    dE, length, cos2 = (
        torch.tensor([0.5, 2.0, 9.0]).double(),
        torch.tensor([0.3, 0.4, 0.2]).double(),
        scores(3) ** 2 % 1,
    )
    nominal = {name: getattr(Parameters(), name) for name in Parameters.SPEC}
    ours = recombined(nominal, dE, length, nominal["efield"], model, cos2)
    p = Parameters()
    theirs = recombine(
        dE / length,
        p.birks_a,
        p.birks_k,
        p.efield,
        p.density,
        model,
        cos2 if model == "ellipsoid" else None,
        p.box_alpha,
        p.box_beta,
        p.ellipsoid_ratio,
    )
    torch.testing.assert_close(ours, theirs * dE / p.w_ion, rtol=1e-14, atol=0)  # a dozen roundings


def test_shares_times_charges_are_the_simulators_pixels():
    """At other values than those of the shares; what remains is that the lifetime acts within a segment, 1e-5."""
    tracks = three()
    sim, other = simulator(), simulator(birks_a=0.75, birks_k=0.06, lifetime=1500.0)
    segments = tracks.segments(z=scores(60))
    data = PixelCharges.measure(other, segments, 1e-9, 0)
    shares = Shares(sim, tracks, data)
    values = {name: getattr(other, name).item() for name in Parameters.SPEC}
    q = shares.charge(values, segments.dE, tracks.layout.length)
    for used, ours, _, M in shares.events:
        torch.testing.assert_close(M @ q[ours], data.charge[used], rtol=1e-5, atol=0.5)


def test_moments_of_the_charges_are_those_of_draws():
    """Of 400 protons with 10 segments and range straggling, in errors of the draws; first order in the straggling."""
    copies, n = 400, 10
    tracks = Tracks([StoppingTrack(line(n + 1), "proton", number=i, offset=2.0) for i in range(copies)])
    one = Tracks([StoppingTrack(line(n + 1), "proton", offset=2.0)])
    values = {name: float(getattr(Parameters(), name)) for name in Parameters.SPEC}
    data = PixelCharges.measure(simulator(), one.segments(), 1.0, 0)
    shares = Shares(simulator(), one, data)
    draws = tracks.segments(z=scores(copies * n, 4)).dE.reshape(copies, n)
    q = shares.charge(values, draws.T.contiguous(), one.layout.length).T
    law = law_of(one, one.nuisance())
    at = moments(shares, one, law, NAMES, values, one.nuisance())
    qq, lq, ll = covariance(one, law, at, torch.arange(n))
    pulls = (q.mean(0) - at.mean) / (qq.diagonal() / copies).sqrt()
    assert float(pulls.abs().max()) < 4
    own = torch.cov(torch.cat([q, draws], 1).T)
    ours = torch.cat([torch.cat([qq, lq.T], 1), torch.cat([lq, ll], 1)])
    size = ours.diagonal().sqrt()
    assert float(((own - ours) / size / size[:, None]).abs().max()) < 5 * (2 / copies) ** 0.5
    assert float((lq.diagonal() / (qq.diagonal() * ll.diagonal()).sqrt()).min()) > 0.97  # nearly linear


def test_derivatives_of_the_mean_are_those_of_differences():
    tracks, sim = three(8), simulator()
    shares = Shares(sim, tracks, PixelCharges.measure(sim, tracks.segments(), 1.0, 0))
    law = law_of(tracks, tracks.nuisance())
    base = dict(shares.reference)

    def mean(values, nuisance):
        return moments(shares, tracks, law, NAMES, values, nuisance)

    at = mean(base, tracks.nuisance())
    for k, name in enumerate(NAMES):
        ends = [mean({**base, name: base[name] * (1 + s)}, tracks.nuisance()).mean for s in (1e-4, -1e-4)]
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-4, at.to_shared[k], rtol=1e-6, atol=1e-3)
    up, down = (mean(base, tracks.nuisance() + s) for s in (1e-3, -1e-3))
    away = tracks.layout.to_end > 0.5  # of the kink at the end
    for name, slope in (("mean", at.to_nuisance), ("loss", at.loss_to_nuisance)):
        difference = (getattr(up, name) - getattr(down, name)) / 2e-3
        torch.testing.assert_close(difference[away], slope[away], rtol=1e-4, atol=1e-6)


def test_the_marginal_fit_finds_the_detector_the_ends_and_the_losses():
    """From values 6 % away; errors that ignore the fluctuations are several times too small."""
    tracks = three(31)
    w, z = torch.tensor([0.4, -0.3, 0.7]).double(), scores(90, 5)
    true = tracks.segments(w, z)
    data = PixelCharges.measure(simulator(), true, 500.0, seed=2)
    start = simulator(birks_a=0.85)
    result = fit_charges(start, tracks, data, ["birks_a", "birks_k"])
    assert result.converged
    assert bool(((result.values - torch.tensor([0.8, 0.0486])).abs() < 4 * result.errors).all())
    assert bool(((result.nuisance - tracks.nuisance(w)).abs() < 4 * result.nuisance_errors).all())
    bare = fit_charges(start, tracks, data, ["birks_a", "birks_k"], straggling=False)
    assert float(result.errors[0]) > 3 * float(bare.errors[0])
    inner = (tracks.layout.to_end > 1) & (tracks.layout.track != 1)
    pulls = ((result.losses - true.dE) / result.loss_errors)[inner]
    assert 0.5 < float(pulls.square().mean().sqrt()) < 1.5
    better = (result.losses - true.dE)[inner].square().mean() / (result.prior_losses - true.dE)[inner].square().mean()
    assert float(better) < 0.5
    assert start.birks_a.item() == 0.85
    result.apply(start)
    assert start.birks_a.item() == result["birks_a"]
    assert len(result.segments(tracks)) == 90


def test_a_fit_refuses_by_name():
    tracks, sim = three(), simulator()
    data = PixelCharges.measure(sim, tracks.segments(), 500.0, 1)
    with pytest.raises(ValueError, match="'birks_b' is not one of"):
        fit_charges(sim, tracks, data, ["birks_b"])
    with pytest.raises(ValueError, match="transverse_diffusion moves charge from pixel to pixel"):
        fit_charges(sim, tracks, data, ["transverse_diffusion"])
    with pytest.raises(ValueError, match="w_ion and birks_a are degenerate"):
        fit_charges(sim, tracks, data, ["w_ion", "birks_a"])
    with pytest.raises(ValueError, match="these tracks do not determine box_beta"):
        fit_charges(sim, tracks, data, ["box_beta"])
    with pytest.raises(ValueError, match="max_iterations and tolerance must be positive"):
        fit_charges(sim, tracks, data, max_iterations=0)
    with pytest.raises(ValueError, match=r"kappa = xi/W is .* for particle 13, below 0.001"):
        fit_charges(sim, three(cut=None), data, ["birks_a"])
    with pytest.raises(ValueError, match="no measured pixel sees any of the tracks"):
        fit_charges(sim, tracks, dataclasses.replace(data, event=data.event + 50))
    with pytest.raises(ValueError, match="a pixel is there twice"):
        dataclasses.replace(data, **{n: torch.cat([getattr(data, n)[:1]] * 2) for n in vars(data)})
    with pytest.raises(KeyError, match="lifetime is not in this fit"):
        fit_charges(sim, tracks, data, ["birks_a"], max_iterations=1)["lifetime"]
    with pytest.raises(ValueError, match=r"latent variables need torch.float64, got torch.float32"):
        LatentPosterior(Simulator(MODULE0), tracks, data)
    with pytest.raises(ValueError, match="time_offset is not one of the simulator's"):
        LatentPosterior(sim, tracks, data, ["time_offset"])


# ---- latent variables


def pair():
    return Tracks(
        [StoppingTrack(line(7), "proton", offset=1.0), ThroughTrack(line(5, start=(-15.0, 9.0, 1.0)), number=1)]
    )


@pytest.mark.parametrize("kind", ["charges", "hits"])
def test_the_gradient_of_the_whole_chain_is_that_of_differences(kind):
    """Parameters, ends and scores of losses, through ranges, fluctuations, recombination, drift, induction, chip: 1e-5.

    Hits: the likelihood as computed leaves out histories below its tolerance, here none.
    """
    tracks, sim = pair(), simulator()
    x = 0.3 * scores(3 + 2 + 10, 3)
    x[:3] *= 0.2  # within the laws
    if kind == "charges":
        objective = PixelCharges.measure(sim, tracks.segments(z=scores(10)), 500.0, seed=1)
    else:
        objective = HitObjective(sim(tracks.segments(z=scores(10)), seed=1), tolerance=0.0)
    posterior = LatentPosterior(sim, tracks, objective, NAMES, {"lifetime": (2000.0, 100.0)})
    gradient = posterior(x)[1]
    for i in (0, 1, 2, 3, 4, 6, 9, 13):
        step = torch.zeros_like(x)
        step[i] = 1e-4
        slope = (posterior(x + step)[0] - posterior(x - step)[0]) / 2e-4
        assert float(gradient[i]) == pytest.approx(slope, abs=1e-5 * float(gradient.abs().max()))


def test_the_hits_as_an_objective_have_their_likelihood():
    tracks, sim = pair(), simulator()
    hits = sim(tracks.segments(z=scores(10)), seed=1)
    expected = -HitLikelihood().intervals(sim, tracks.segments(), hits).log_likelihood
    assert float(HitObjective(hits)(sim, tracks.segments())) == pytest.approx(expected, rel=1e-12)


def test_draws_are_the_posterior_of_the_losses():
    """Three losses and an end, measured without a simulator: means and widths against 3000 weighted prior draws.

    Both have errors of draws: 4 sigma of them together, by the effective numbers.
    """
    copies = 3000
    seen, sigma = torch.tensor([1.35, 1.15, 1.2]).double(), 0.12

    def measured(sim, segments):
        return (((segments.dE - seen) / sigma) ** 2).sum() / 2

    tracks = Tracks([StoppingTrack(line(4), offset=8.0, sigma=0.5)])
    chain = LatentPosterior(simulator(), tracks, measured).sample(120, 40, seed=2)
    assert not bool(chain.chain.diverged.any())
    many = Tracks([StoppingTrack(line(4), offset=8.0, sigma=0.5, number=i) for i in range(copies)])
    w = scores(copies, 5)
    dE = many.segments(w, scores(3 * copies, 6)).dE.reshape(copies, 3)
    weight = torch.softmax(-(((dE - seen) / sigma) ** 2).sum(1) / 2, 0)
    everything = torch.cat([dE, many.nuisance(w)[:, None]], 1)
    mean = weight @ everything
    width = (weight @ (everything - mean) ** 2).sqrt()
    draws = torch.cat([chain.losses, chain.nuisance], 1)
    effective = torch.stack([effective_size(column[None]) for column in draws.T]).clamp(max=len(draws))
    assert float(effective.min()) > 60
    error = (1 / effective + weight.square().sum()).sqrt()
    assert bool(((draws.mean(0) - mean).abs() < 4 * error * width).all())
    assert bool(((draws.std(0) / width - 1).abs() < 4 * error / 2**0.5).all())


def test_a_whole_fit_from_noisy_hits():
    """A proton's chips, losses and end unknown, A_b 6 % off at the start: found within 3 of its errors."""
    sim = Simulator(MODULE0, dtype=torch.float64, step=0.4, reach=1)
    tracks = Tracks([StoppingTrack(line(8), "proton", offset=3.0, sigma=0.2)])
    true = tracks.segments(torch.tensor([0.5]).double(), scores(7, 1))
    start = Simulator(MODULE0, Parameters(birks_a=0.85), dtype=torch.float64, step=0.4, reach=1)
    posterior = LatentPosterior(start, tracks, HitObjective(sim(true, seed=4)), ["birks_a"])
    found = posterior.sample(24, 12, seed=1)
    assert float((found.mean[0] - 0.8).abs()) < 3 * float(found.errors[0])
    assert 0.005 < float(found.errors[0]) < 0.04
    error, spread = found.losses.mean(0) - true.dE, tracks.segments().dE - true.dE
    assert float(error.norm()) < float(spread.norm())


def test_losses_found_from_hits_are_better_than_the_mean():
    """The residuals of `hepops.lartpc.fit` as objective: a maximum that climbing from the true losses does not beat."""
    sim = Simulator(MODULE0, dtype=torch.float64, step=0.4)
    tracks = Tracks([StoppingTrack(line(7), "proton", offset=3.0, sigma=1e-3)])
    z = 0.7 * scores(6)
    true = tracks.segments(z=z)
    posterior = LatentPosterior(sim, tracks, HitResiduals(sim(true)))
    best = posterior.maximum(iterations=60)
    truth = torch.cat([torch.zeros(1).double(), z])
    assert posterior.value(best) > posterior.value(truth) + 1
    assert posterior.value(best) > posterior._climb(truth, 60, 0)[1] - 1e-6
    error, spread = posterior.segments(best).dE - true.dE, tracks.segments().dE - true.dE
    assert float(error.detach().norm()) < float(spread.norm())


@pytest.mark.parametrize("smooth", [True, False])
def test_a_maximum_lies_beyond_a_seam(smooth):
    """-ln L falls by 1 where the loss exceeds that of a score of 0.5: at a cost of 0.125 in the prior."""
    tracks = Tracks([StoppingTrack(line(2), "muon", offset=8.0, sigma=1e-6)])
    edge = tracks.segments(z=torch.full((1,), 0.5).double()).dE

    def stepped(sim, segments):
        return (segments.dE < edge).double().sum() + 0 * segments.dE.sum()

    stepped.smooth = smooth
    posterior = LatentPosterior(simulator(), tracks, stepped)
    best = posterior.maximum()
    assert posterior.value(best) == pytest.approx(-1.0 if smooth else -0.125, abs=0.03)


def test_the_curvature_of_several_events_is_that_of_single_steps():
    tracks, sim = three(4), simulator()
    data = PixelCharges.measure(sim, tracks.segments(z=scores(9)), 500.0, seed=1)
    posterior = LatentPosterior(sim, tracks, data, ["birks_a"])
    x = 0.3 * scores(posterior.size, 7)
    H = posterior.curvature(x)
    rows = torch.stack([posterior._difference(x, torch.tensor([i])) for i in range(posterior.size)])
    torch.testing.assert_close(H, (rows + rows.T) / 2, rtol=1e-5, atol=1e-5 * float(H.abs().max()))
