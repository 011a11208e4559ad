"""Learned posteriors and likelihoods against those that are known."""

import json
import math

import pytest
import torch
from hepops.flows.inference import (
    Box,
    NeuralLikelihood,
    NeuralPosterior,
    Reweighted,
    SampledPosterior,
    Summary,
    Training,
    corner,
    ensemble,
    nle,
    noise,
    npe,
    reweight,
    sbc,
    simulate,
    tarp,
)
from torch import nn
from torch.testing import assert_close

from .inference_models import Exact, Linear

MODEL = Linear()
MADE = simulate(MODEL.prior, MODEL, 3000, seed=1)
TEST = simulate(MODEL.prior, MODEL, 300, seed=2)
SHORT = Training(epochs=12)


@pytest.fixture(scope="module")
def posterior():
    return npe(MADE, training=SHORT)


@pytest.fixture(scope="module")
def likelihood():
    return nle(MADE, training=SHORT, network={"layers": 2, "hidden": [32, 32]})


def agrees(summary, x, mean=0.15, width=0.06, observations=1):
    """Mean within `mean` of the exact standard deviations, widths within `width`, correlations within 0.02 more.

    3000 simulations leave a regression of 4 numbers with an error of sqrt(4 / 3000) = 0.04 of a standard deviation,
    and of a width 1 / sqrt(6000) = 0.013; 4000 draws and the flow add to both.
    """
    covariance = MODEL.covariance(observations)
    sigma = covariance.diagonal().sqrt()
    total = x if observations == 1 else x.sum(0)
    assert float(((summary.mean - MODEL.mean(total, observations)) / sigma).abs().max()) < mean
    assert float((summary.errors / sigma - 1).abs().max()) < width
    assert float((summary.correlations - covariance / (sigma * sigma[:, None])).abs().max()) < width + 0.02


def test_npe_is_the_exact_posterior(posterior):
    for x in TEST.x[:5]:
        agrees(posterior.summary(x, 10_000), x)
    theta, x = TEST.theta, TEST.x
    difference = (posterior.log_prob(theta, x) - Exact(MODEL).log_prob(theta, x)).detach()
    assert abs(float(difference.mean())) < 0.02  # the Kullback-Leibler divergence
    assert float(difference.std()) < 0.2


def test_npe_passes_the_coverage_tests(posterior):
    assert sbc(posterior, TEST.theta, TEST.x).p_value > 0.01
    assert tarp(posterior, TEST.theta, TEST.x).p_value > 0.01


def test_nle_is_the_exact_likelihood_and_its_chain_the_posterior(likelihood):
    exact = MODEL.log_likelihood(TEST.x, TEST.theta) - MODEL.S.log().sum() - 2 * math.log(2 * math.pi)
    difference = (likelihood.log_prob(TEST.x, TEST.theta) - exact).detach()
    assert abs(float(difference.mean())) < 0.03 and float(difference.std()) < 0.25
    x = TEST.x[0]
    chain = likelihood.posterior().chain(4000, x, seed=1)
    assert float(chain.ess.min()) > 800 and 0.3 < float(chain.acceptance) < 0.9 and float(chain.rhat.max()) < 1.2
    agrees(Summary.of(MODEL.prior, chain.draws), x, mean=0.2, width=0.12)


def test_likelihoods_of_independent_observations_multiply(likelihood):
    theta = MODEL.prior.sample(1, seed=9)
    x = MODEL(theta.expand(10, 3), torch.arange(10))
    posterior = likelihood.posterior(repeated=True, walkers=64, warmup=100)
    value = posterior.log_prob(TEST.theta, x)
    one_by_one = sum(likelihood.log_prob(row, TEST.theta) for row in x)
    assert_close(value, MODEL.prior.log_prob(TEST.theta) + one_by_one, rtol=1e-5, atol=1e-4)
    # what is wrong with one likelihood is so ten times, in units of an error that is smaller by sqrt(10)
    agrees(posterior.summary(x, 2500, seed=3), x, mean=0.5, width=0.2, observations=10)
    # with the exact likelihood only the sampler's error remains
    exact = SampledPosterior(MODEL.prior, MODEL.log_likelihood, [4], repeated=True)
    agrees(exact.summary(x, 20_000, seed=3), x, mean=0.07, width=0.05, observations=10)


def test_weights_bring_one_posterior_to_another(posterior, likelihood):
    weighted = reweight(posterior, likelihood, TEST.x[0], seed=1)
    assert 0.9 < float(weighted.ess) <= 1
    agrees(weighted.summary(), TEST.x[0], mean=0.2, width=0.12)
    # a wrong proposal is repaired: with the exact likelihood the answer is exact, at the price of the weights
    exact = SampledPosterior(MODEL.prior, MODEL.log_likelihood, [4])
    wide = Exact(MODEL, scale=1.5, bias=0.5)
    repaired = reweight(wide, exact, TEST.x[1], n=40_000, seed=1)
    assert 0.2 < float(repaired.ess) < 0.6
    agrees(repaired.summary(), TEST.x[1], mean=0.04, width=0.03)
    evidence = torch.distributions.MultivariateNormal(
        MODEL.mu @ MODEL.A, MODEL.A.T @ torch.diag(MODEL.sigma**2) @ MODEL.A + torch.diag(MODEL.S**2)
    ).log_prob(TEST.x[1])
    constant = MODEL.S.log().sum() + 2 * math.log(2 * math.pi)  # what log_likelihood leaves out
    assert float(repaired.log_evidence - constant) == pytest.approx(float(evidence), abs=0.03)
    assert sbc(Reweighted(wide, exact, 20), TEST.theta, TEST.x).p_value > 0.01
    assert sbc(wide, TEST.theta, TEST.x).p_value < 1e-4


def test_the_map_of_a_normal_posterior_is_its_mean(posterior):
    exact = SampledPosterior(MODEL.prior, MODEL.log_likelihood, [4])
    sigma = MODEL.covariance().diagonal().sqrt()
    for x in TEST.x[:3]:
        assert float(((exact.map(x, n=128) - MODEL.mean(x)) / sigma).abs().max()) < 1e-3
        assert float(((posterior.map(x) - MODEL.mean(x)) / sigma).abs().max()) < 0.15


def two_roots(theta, seeds):
    """x = theta^2 + noise whose width depends on theta: two peaks, neither normal."""
    return theta.square() + (0.05 + 0.1 * theta.abs()) * noise(seeds, 1)


def test_npe_and_nle_learn_what_a_regression_cannot():
    prior = Box([-1.0], [1.0])
    made = simulate(prior, two_roots, 4000, seed=1)
    q, like = npe(made, training=Training(epochs=30)), nle(made, training=Training(epochs=30))
    grid = torch.linspace(-1, 1, 2001).double()[:, None]
    width = 0.05 + 0.1 * grid.abs()
    for x in (torch.tensor([0.04]), torch.tensor([0.36]), torch.tensor([0.8])):
        log = -0.5 * ((x - grid.square()) / width).square() - width.log()
        exact = (log[:, 0].exp() / torch.trapezoid(log[:, 0].exp(), grid[:, 0])).double()
        with torch.no_grad():
            learned = q.log_prob(grid, x).exp()
            follows = like.posterior().log_prob(grid, x).exp()
        assert float(torch.trapezoid(learned, grid[:, 0])) == pytest.approx(
            1, abs=0.01
        )  # nothing leaks; the grid is coarse at the ends
        follows = follows / torch.trapezoid(follows, grid[:, 0])
        for density in (learned, follows):  # half the L1 distance: the largest error of any probability
            assert float(torch.trapezoid((density - exact).abs(), grid[:, 0])) / 2 < 0.12
        draws = q.sample(2000, x, seed=1)
        assert bool(prior.inside(draws).all()) and 0.4 < float((draws > 0).double().mean()) < 0.6


def test_a_posterior_at_the_end_of_its_box_does_not_leak():
    prior = Box([0.0, 0.0], [1.0, 1.0])
    made = simulate(prior, lambda theta, seeds: theta + 0.3 * noise(seeds, 2), 3000, seed=1)
    q = npe(made, training=SHORT)
    x = torch.tensor([1.1, 0.5])
    draws = q.sample(20_000, x, seed=1)
    assert bool(prior.inside(draws).all())
    assert float(q.log_prob(torch.tensor([1.01, 0.5]), x)) == -math.inf
    # the exact posterior: normal numbers cut at the ends of the box; where they are cut, 3000 simulations find the
    # width to a third only, on the wide side
    t = torch.linspace(0, 1, 4001).double()
    for k in range(2):
        p = torch.exp(-0.5 * ((x[k] - t) / 0.3) ** 2)
        p = p / p.sum()
        mean = float((p * t).sum())
        sigma = float((p * (t - mean) ** 2).sum() ** 0.5)
        assert float(draws[:, k].mean()) == pytest.approx(mean, abs=0.3 * sigma)
        assert float(draws[:, k].std()) == pytest.approx(sigma, rel=0.35)


def test_the_same_seed_gives_the_same_bits(posterior):
    x = TEST.x[0]
    again = npe(MADE, training=Training(epochs=2), seed=3)
    torch.manual_seed(123)  # torch's own generator has no say
    other = npe(MADE, training=Training(epochs=2), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), other.parameters(), strict=True))
    assert torch.equal(again.sample(10, x, seed=1), other.sample(10, x, seed=1))
    assert torch.equal(posterior.sample(50, x, seed=1)[:10], posterior.sample(10, x, seed=1))
    assert not torch.equal(posterior.sample(10, x, seed=1), posterior.sample(10, x, seed=2))


def test_an_ensemble_averages_densities():
    made = simulate(Box([-1.0], [1.0]), two_roots, 500, seed=1)
    q = npe(made, members=3, training=Training(epochs=2))
    x, theta = made.x[:7], made.theta[:7]
    c, middle, half = q._condition(x.double())
    u, logdet = q.prior.to_normal(theta)
    parts = torch.stack([member.log_prob((u - middle) / half, c) for member in q.density.members])
    assert_close(q.log_prob(theta, x), parts.exp().mean(0).log() + logdet - half.log().sum(-1))
    assert float(parts.detach().std(0).max()) > 0
    draws = q.sample(10, x, seed=1)
    assert_close(draws[1::3], q.prior.from_normal(middle + half * q.density.members[1].sample(3, c, 1, 1))[0])


def test_an_embedding_is_trained_with_the_flow(tmp_path):
    """Data whose mean says nothing: the embedding has to find their spread."""
    prior = Box([0.5], [2.0])
    made = simulate(prior, lambda theta, seeds: theta * noise(seeds, 30), 2000, seed=1)

    def embedding():
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 4))

    training = Training(epochs=25, rate=3e-3)
    q = npe(made, embedding=embedding, embedded=4, training=training)
    test = simulate(prior, lambda theta, seeds: theta * noise(seeds, 30), 300, seed=2)
    found = q.sample(200, test.x, seed=1).mean(0)
    assert float(torch.corrcoef(torch.cat([found, test.theta], 1).T)[0, 1]) > 0.75
    q.save(tmp_path)
    with pytest.raises(ValueError, match="has an own embedding, give load it"):
        NeuralPosterior.load(tmp_path)
    again = NeuralPosterior.load(tmp_path, embedding=embedding)
    assert torch.equal(again.log_prob(test.theta, test.x), q.log_prob(test.theta, test.x))


def test_saved_and_loaded_to_the_last_bit(tmp_path, posterior, likelihood):
    posterior.save(tmp_path)
    likelihood.save(tmp_path)
    q, like = NeuralPosterior.load(tmp_path), NeuralLikelihood.load(tmp_path)
    assert torch.equal(q.sample(20, TEST.x[0], 1), posterior.sample(20, TEST.x[0], 1))
    assert torch.equal(q.log_prob(TEST.theta, TEST.x), posterior.log_prob(TEST.theta, TEST.x))
    assert torch.equal(like.log_prob(TEST.x, TEST.theta), likelihood.log_prob(TEST.x, TEST.theta))
    assert q.prior.names == ("a", "b", "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{kind}.{end}" for kind in ("posterior", "likelihood") for end in ("json", "safetensors")
    )


def test_bad_files_are_refused(tmp_path, posterior):
    with pytest.raises(FileNotFoundError, match=r"posterior\.json: no such file"):
        NeuralPosterior.load(tmp_path)
    posterior.save(tmp_path)
    config, weights = tmp_path / "posterior.json", tmp_path / "posterior.safetensors"
    whole = json.loads(config.read_text())
    for change, message in (
        ({"format": "other"}, "not a posterior of"),
        ({"kind": "likelihood"}, "not a posterior of"),
        ({"version": 99}, "version 99 is not this library's"),
        ({"prior": {"kind": "os.system"}}, "kind must be one of"),
        ({"features": "x"}, "incomplete or damaged"),
        ({"members": 2}, "posterior.safetensors: Error"),
    ):
        config.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=message):
            NeuralPosterior.load(tmp_path)
    config.write_text(json.dumps(whole))
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"posterior\.safetensors"):
        NeuralPosterior.load(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        NeuralPosterior.load(tmp_path)


@pytest.mark.filterwarnings("default")
def test_data_beyond_the_simulations_are_warned_of(posterior):
    with pytest.warns(UserWarning, match="posterior is extrapolated"):
        posterior.sample(10, torch.full((4,), 100.0), seed=1)


def test_what_has_no_meaning_is_refused(posterior, likelihood):
    x = TEST.x[0]
    for bad, message in ((x[:3], r"shape \(..., 4\), got \(3,\)"), (x * math.nan, "NaN or infinity")):
        with pytest.raises(ValueError, match=message):
            posterior.sample(10, bad)
        with pytest.raises(ValueError, match=message):
            likelihood.log_prob(bad, TEST.theta[0])
    with pytest.raises(ValueError, match="data of one experiment"):
        posterior.summary(TEST.x)
    with pytest.raises(ValueError, match="levels must lie between"):
        posterior.summary(x, levels=[1.0])
    with pytest.raises(ValueError, match=r"unknown options .'layer'"):
        npe(MADE, network={"layer": 3})
    with pytest.raises(ValueError, match="belong together"):
        npe(MADE, embedded=3)
    with pytest.raises(ValueError, match="members must be at least 1"):
        nle(MADE, members=0)
    with pytest.raises(ValueError, match="too few for a validation set"):
        npe(MADE[:4], network={"hidden": [4]})
    for change in ({"epochs": 0}, {"rate": -1.0}, {"validation": 1.0}, {"clip": math.inf}, {"decay": -1.0}):
        with pytest.raises(ValueError, match=f"training: {next(iter(change))}"):
            Training(**change)
    with pytest.raises(ValueError, match="do not vary in as many directions"):
        nle(simulate(MODEL.prior, lambda theta, seeds: torch.cat([theta, theta], 1), 100, seed=1))
    with pytest.raises(ValueError, match="even number of walkers"):
        ensemble(lambda u: u.sum(-1), torch.zeros(5, 2), 10, 1)
    with pytest.raises(ValueError, match="no walker starts"):
        ensemble(lambda u: u.sum(-1) - math.inf, torch.zeros(8, 2), 10, 1)


def test_the_corner_plot_is_drawn(posterior):
    pytest.importorskip("matplotlib")
    figure = posterior.corner(TEST.x[0], n=2000, truth=TEST.theta[0])
    assert len(figure.axes) == 9
    with pytest.raises(ValueError, match=r"must have shape \(n, 2\)"):
        corner({"a": TEST.theta}, ["x", "y"])
