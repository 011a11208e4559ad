"""Samplers, toys and drifting conditions: against what is known in closed form."""

import dataclasses
import math

import pytest
import torch
from hepops.lartpc import Parameters, conditions, fit
from hepops.lartpc.fit import Nuisance
from hepops.lartpc.fit.nuts import effective_size, sample, split_rhat

from lartpc.analytic import tracks
from lartpc.noisy import ExactLikelihood, NoisyDetector

THREE = ("lifetime", "efield", "birks_a")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_sampler_draws_a_gaussian():
    """Five dimensions, scales from .5 to 3, correlated: means, covariance, and the energy is conserved."""
    A = torch.diag(torch.tensor([0.5, 1, 1, 2, 3])).double()
    A += 0.3 * torch.randn((5, 5), generator=generator(1), dtype=torch.float64)
    covariance, mean = A @ A.T, torch.tensor([1.0, -2, 0, 3, 0]).double()
    precision = torch.linalg.inv(covariance)

    def density(z):
        g = -precision @ (z - mean)
        return float(0.5 * (z - mean) @ g), g

    chain = sample(density, mean + 1.0, 700, 150, generator(2))
    assert not chain.diverged.any() and 0.7 < float(chain.acceptance.mean()) < 0.95
    size = covariance.diagonal().sqrt()
    independent = torch.stack([effective_size(chain.draws[None, :, k]) for k in range(5)])
    assert (independent > 150).all()
    assert ((chain.draws.mean(0) - mean).abs() < 4 * size / independent.sqrt()).all()
    scaled = torch.cov(chain.draws.T) / (size * size[:, None]) - covariance / (size * size[:, None])
    assert float(scaled.abs().max()) < 4 * (2 / float(independent.min())) ** 0.5
    assert float(split_rhat(chain.draws[None, :, 0])) < 1.02


def test_sampler_draws_a_skewed_density():
    """An exponential in its logarithm, exp(z - e^z): mean -0.5772, variance pi^2/6."""

    def density(z):
        return float((z - torch.exp(z)).sum()), 1 - torch.exp(z)

    chain = sample(density, torch.zeros(2).double(), 1200, 150, generator(3))
    n = float(torch.stack([effective_size(chain.draws[None, :, k]) for k in range(2)]).min())
    assert float((chain.draws.mean(0) + 0.5772).abs().max()) < 4 * (math.pi**2 / 6 / n) ** 0.5
    assert float((chain.draws.var(0) / (math.pi**2 / 6) - 1).abs().max()) < 0.35


def test_effective_size_of_a_known_chain():
    """An autoregressive chain of coefficient a has n (1 - a) / (1 + a) independent draws."""
    noise = torch.randn((2, 20000), generator=generator(4), dtype=torch.float64)
    x, rows = torch.zeros(2).double(), []
    for k in range(noise.shape[1]):
        x = 0.8 * x + noise[:, k]
        rows.append(x)
    assert float(effective_size(torch.stack(rows, 1))) == pytest.approx(40000 / 9, rel=0.15)


@pytest.fixture(scope="module")
def result():
    segments, sim = tracks(4, spacing=1.5), NoisyDetector()
    with torch.no_grad():
        hits = sim(segments, seed=3)
    kinds = [Nuisance("time_offset", "event", prior=0.05)]
    return fit(sim, segments, hits, ("efield", "birks_a"), residual=ExactLikelihood(), nuisance=kinds, toys=10)


def test_nuts_agrees_with_the_gaussian_limit(result):
    drawn = fit.nuts(result, samples=32, warmup=12, chains=1, seed=1)
    assert drawn.divergences == 0 and (drawn.rhat < 1.15).all() and drawn.deviations.shape == (1, 32, 4)
    assert (drawn.effective > 12).all()
    error = result.errors
    assert ((drawn.mean - result.values).abs() < 4 * error / drawn.effective.sqrt() + 0.1 * error).all()
    # a dozen independent draws or more know a width to 20 %, the toys the information to 10 %
    torch.testing.assert_close(drawn.covariance.diagonal().sqrt(), error, rtol=0.4, atol=0)
    spread = drawn.deviations.flatten(0, 1).std(0)
    torch.testing.assert_close(spread, result.nuisance_errors, rtol=0.5, atol=0)
    again, same = (fit.nuts(result, samples=2, warmup=2, chains=1, seed=1) for _ in range(2))
    assert torch.equal(again.draws, same.draws)
    with pytest.raises(ValueError, match="samples, warmup and chains must be positive"):
        fit.nuts(result, samples=0)


def test_coverage_by_steps_and_by_fits():
    segments, sim = tracks(10), NoisyDetector()
    names = (*THREE, "time_offset")
    c = fit.coverage(sim, segments, names, 60, residual=ExactLikelihood(), priors={"lifetime": (0.0, 150.0)})
    assert c.pulls.shape == (60, 4) and c.converged.all()
    # 60 toys know a mean to .13, a width to .09
    assert (c.means.abs() < 0.5).all() and ((c.widths - 1).abs() < 0.36).all(), c.summary()
    assert c.errors[0] < 150.0 and ((c.within(2) > 0.85) & (c.within() > 0.5)).all()
    whole = fit.coverage(sim, segments, names[1:], 3, method="fit", residual=ExactLikelihood(), start="random")
    assert whole.converged.all() and (whole.pulls.abs() < 5).all()
    pytest.importorskip("matplotlib")
    assert len([a for a in c.plot().axes if a.axison]) == 4
    with pytest.raises(ValueError, match="needs 2 toys or more"):
        fit.coverage(sim, segments, names, 1)


def test_toys_that_do_not_converge_are_reported():
    segments = tracks(6)
    c = fit.coverage(
        NoisyDetector(), segments, THREE, 4, method="fit", residual=ExactLikelihood(), start="random", max_iterations=2
    )
    assert not c.converged.any() and len(c.good) == 0
    assert "4 of 4 did not converge" in c.summary()


def test_goodness_tells_a_good_fit_from_a_bad_one():
    segments, sim = tracks(10), NoisyDetector()
    with torch.no_grad():
        hits, quiet = sim(segments, seed=9), sim(segments)
    good = fit.goodness(fit(sim, segments, hits, THREE, residual=ExactLikelihood()), toys=12)
    assert abs(good.sigmas) < 4 and good.p_value > 1 / 13 - 1e-9
    loud = dataclasses.replace(hits, time=quiet.time.detach() + 1.5 * (hits.time - quiet.time.detach()))
    bad = fit.goodness(fit(sim, segments, loud, THREE, residual=ExactLikelihood()), toys=12)
    assert bad.sigmas > 5 and bad.p_value == pytest.approx(1 / 13)
    with pytest.raises(ValueError, match="needs 3 toys or more"):
        fit.goodness(fit(sim, segments, hits, ("efield",), residual=ExactLikelihood()), toys=2)


def drifting(t):
    """Lifetime over a month: falls from 2600 us to 1500 us, with a dip."""
    return 2600.0 - 1100.0 * t / 30 - 500.0 * torch.exp(-0.5 * ((t - 12) / 3) ** 2)


def test_smooth_learns_its_scale():
    t = torch.linspace(0, 30, 16).double()
    sigma = 0.03 / drifting(t)
    rates = 1 / drifting(t) + sigma * torch.randn(16, generator=generator(5), dtype=torch.float64)
    found = conditions.smooth(t, rates, torch.diag(sigma**2))
    assert found.evidence > found.evidence_constant + 10 and 1.0 < found.length < 60.0
    fine = torch.linspace(0, 30, 61).double()
    mean, error = found.rate(fine)
    assert (((mean - 1 / drifting(fine)) / error).abs() < 3.5).all()
    assert float((error / mean).mean()) < 0.03  # better than single periods
    value, low, high = found.lifetime(fine)
    assert ((low < value) & (value < high)).all()
    # a constant: the scale vanishes, or is too small to matter, and the error is that of the mean
    flat = 1 / 2000 + sigma * torch.randn(16, generator=generator(6), dtype=torch.float64)
    still = conditions.smooth(t, flat, torch.diag(sigma**2))
    assert still.evidence - still.evidence_constant < 3
    mean, error = still.rate(fine)
    assert (((mean * 2000 - 1) / (error * 2000)).abs() < 3.5).all() and float(error.mean()) < 0.6 * float(sigma.mean())


def test_evidence_is_that_of_the_normal_distribution():
    """Against torch's own multivariate normal, and the posterior against conditioning of the joint one."""
    t = torch.tensor([0.0, 1, 3, 4, 7]).double()
    C = torch.diag(torch.tensor([1.0, 2, 1, 3, 1]).double()) * 1e-10
    rates = torch.tensor([5.0, 5.4, 4.8, 4.6, 5.1]).double() * 1e-4
    found = conditions.smooth(t, rates, C)
    S = C + found._kernel(t, t) + (10 * rates.mean()) ** 2
    normal = torch.distributions.MultivariateNormal(rates.mean().expand(5), S)
    assert float(normal.log_prob(rates)) == pytest.approx(found.evidence, abs=1e-6)
    for a, length in ((0.7, 1.0), (1.4, 1.0), (1.0, 0.6), (1.0, 1.6)):
        other = dataclasses.replace(found, amplitude=a * found.amplitude, length=length * found.length)
        S = C + other._kernel(t, t) + (10 * rates.mean()) ** 2
        normal = torch.distributions.MultivariateNormal(rates.mean().expand(5), S)
        inside = 0.5 * 7 / 5 <= other.length <= 5 * 7
        assert not inside or float(normal.log_prob(rates)) <= found.evidence + 1e-3


def test_lifetime_in_time_is_followed(tmp_path):
    """Events over a month, the lifetime of each as it was: the band covers it, and knows it better than any period."""
    segments = tracks(64, seed=11, spacing=0.6)
    times = {e: 30 * (e * 37 % 64) / 63 for e in range(64)}
    at = torch.tensor([times[e] for e in range(64)]).double()
    parts = []
    for e in range(64):
        sim = NoisyDetector(Parameters(lifetime=float(drifting(at[e]))))
        with torch.no_grad():
            parts.append(sim(segments[segments.event == e], seed=e))
    columns = {n: torch.cat([getattr(p, n).detach() for p in parts]) for n in parts[0].columns()}
    hits = dataclasses.replace(parts[0], **columns)
    found = conditions.lifetime_in_time(
        NoisyDetector(), segments, hits, times, periods=8, parameters=("birks_a", "efield"), residual=ExactLikelihood()
    )
    assert found.result.converged and len(found.edges) == 9 and found.period[0] == 0
    fine = torch.linspace(2, 28, 40).double()
    mean, error = found.smooth.rate(fine)
    assert (((mean - 1 / drifting(fine)) / error).abs() < 4).all()
    single = found.smooth.covariance.diagonal().sqrt() / found.smooth.rates
    assert float((error / mean).mean()) < float(single.mean())
    pytest.importorskip("matplotlib")
    found.plot(drifting, "days").savefig(tmp_path / "lifetime.png")
    assert (tmp_path / "lifetime.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="lifetime is what every period has for itself"):
        conditions.lifetime_in_time(NoisyDetector(), segments, hits, times, parameters=("lifetime",))
    with pytest.raises(ValueError, match="event 5 has no time"):
        conditions.lifetime_in_time(NoisyDetector(), segments, hits, {e: t for e, t in times.items() if e != 5})
    with pytest.raises(ValueError, match="needs 3 periods or more"):
        conditions.lifetime_in_time(NoisyDetector(), segments, hits, times, periods=2)


def test_smooth_refuses_what_it_cannot_use():
    t, C = torch.arange(4).double(), torch.eye(4).double() * 1e-10
    rates = torch.full((4,), 5e-4).double()
    for message, arguments in {
        "needs three periods or more": (t[:2], rates[:2], C[:2, :2]),
        "not positive definite": (t, rates, C - 2 * C),
        "all periods have the same time": (0 * t, rates, C),
    }.items():
        with pytest.raises(ValueError, match=message):
            conditions.smooth(*arguments)
