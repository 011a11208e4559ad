"""Gaussian mixtures, their EM, and the pool of weighted samples that they are fitted to."""

import math

import pytest
import torch
from hepops.flows.integration import GaussianMixture, Uniform, VegasMap
from hepops.flows.integration.gaussians import fit, split
from hepops.flows.integration.pool import Counted, Pool, effective, resample
from hepops.flows.integration.tempered import defended, raise_power, tempered
from torch.testing import assert_close

f64 = torch.float64


def two(dim):
    eye = torch.eye(dim, dtype=f64).repeat(2, 1, 1)
    means = torch.stack([torch.full((dim,), 0.3, dtype=f64), torch.full((dim,), 0.7, dtype=f64)])
    return GaussianMixture.of(
        torch.tensor([0.25, 0.75], dtype=f64), means, eye * torch.tensor([0.05, 0.1])[:, None, None]
    )


def test_log_density_is_torchs():
    torch.manual_seed(3)
    scales = torch.randn(4, 3, 3, dtype=f64).tril() * 0.2
    scales.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    q = GaussianMixture.of(torch.rand(4, dtype=f64), torch.rand(4, 3, dtype=f64), scales)
    expected = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(q.shares), torch.distributions.MultivariateNormal(q.means, scale_tril=scales)
    )
    x = torch.rand(1000, 3, dtype=f64)
    assert_close(q.log_prob(x), expected.log_prob(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 6])
@pytest.mark.parametrize("components", [1, 3, 8])
def test_em_never_lowers_the_likelihood(dim, components):
    x = torch.rand(2000, dim, dtype=f64)
    w = torch.rand(2000, dtype=f64) * torch.exp(-20 * (x - 0.5).square().sum(1))
    _, trace = fit(x, w, components, steps=40, tolerance=0.0)
    trace = torch.tensor(trace, dtype=f64)
    assert len(trace) > 1
    assert (trace.diff() > -1e-9 * trace.abs().max()).all()
    assert components == 1 or trace[-1] > trace[0] + 1


def test_em_finds_a_mixture_from_samples_of_another():
    truth = two(3)
    x = torch.rand(60_000, 3, dtype=f64)  # uniform points, weighted
    found, _ = fit(x, truth.log_prob(x).exp(), 2, steps=100, tolerance=1e-7)
    order = found.means[:, 0].argsort()
    assert_close(found.shares[order], truth.shares, atol=0.03, rtol=0)
    assert_close(found.means[order], truth.means, atol=0.01, rtol=0)
    assert_close(found.scales[order], truth.scales, atol=0.01, rtol=0)


def test_points_that_span_nothing_give_a_density():
    line = torch.rand(500, 1, dtype=f64).repeat(1, 4)  # collinear
    for x in (line, torch.full((500, 4), 0.3, dtype=f64), line[:1], line[:2]):
        q, _ = fit(x, torch.ones(len(x), dtype=f64), 4)
        assert q.scales.isfinite().all() and q.log_prob(x).isfinite().all()


def test_split_keeps_mean_and_covariance():
    torch.manual_seed(2)
    scale = torch.randn(1, 3, 3, dtype=f64).tril() * 0.1
    scale.diagonal(dim1=1, dim2=2).abs_().add_(0.05)
    one = GaussianMixture.of(torch.ones(1, dtype=f64), torch.full((1, 3), 0.5, dtype=f64), scale)
    halves = split(one, torch.ones(1), 2)
    assert halves.components == 2
    apart = halves.means - one.means
    covariance = (halves.scales @ halves.scales.mT + apart[:, :, None] * apart[:, None, :]).mean(0)
    assert_close(halves.means.mean(0), one.means[0])
    assert_close(covariance, (scale @ scale.mT)[0])
    assert split(two(2), torch.tensor([0.0, 1.0]), 3).components == 3


def test_pool_weights_sum_to_the_integral_whatever_was_drawn():
    truth = two(2)
    narrow = GaussianMixture.of(truth.shares[:1], truth.means[:1], truth.scales[:1])  # sees one peak alone
    f = Counted(lambda x: 5 * truth.log_prob(x).exp(), 10**6)
    pool = Pool(2)
    for i, q in enumerate((Uniform(2), narrow, VegasMap(2), defended(truth, 0.1))):
        f.draw(pool, q, 20_000, seed=i)
    w = pool.log_weights().exp()
    inside = truth.sample(200_000, 1)[1].isfinite().double().mean()
    assert abs(w.sum() / 5 - inside) < 0.01
    assert pool.ess(truth.log_prob(pool.x)) == pytest.approx(float(inside), abs=0.02)
    assert pool.drawn == 80_000 and f.used == len(pool.x) < 80_000  # what was thrown outside is no evaluation


def test_pools_merge_as_if_they_had_been_one():
    f = Counted(lambda x: two(2).log_prob(x).exp(), 10**6)
    one, a, b = Pool(2), Pool(2), Pool(2)
    for pool, part in ((a, (Uniform(2), 100)), (b, (two(2), 200)), (b, (VegasMap(2), 50))):
        f.draw(pool, *part, seed=1)
        f.draw(one, *part, seed=1)
    merged = a.merged(b)
    assert torch.equal(merged.x, one.x) and merged.drawn == one.drawn
    assert_close(merged.log_mix, one.log_mix, rtol=0, atol=1e-12)


def test_counted_never_exceeds_its_budget_and_excludes_what_is_not_finite():
    calls = []

    def f(x):
        calls.append(len(x))
        return torch.where(x[:, 0] < 0.1, math.nan, torch.where(x[:, 0] > 0.9, math.inf, -x[:, 1]))

    counted, pool = Counted(f, 1000), Pool(2)
    for _ in range(4):
        counted.draw(pool, Uniform(2), 300, seed=1)
    assert counted.used == sum(calls) == 1000 == pool.drawn
    assert counted.excluded == pytest.approx(200, abs=60) and len(pool.x) == 1000 - counted.excluded
    assert_close(pool.log_f, pool.x[:, 1].log())  # by the absolute value
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        Counted(lambda x: x, 10)(torch.rand(5, 2))


def test_resampling_keeps_proportions():
    log_w = torch.log(torch.tensor([1.0, 0.0, 3.0, 6.0], dtype=f64))
    assert torch.bincount(resample(log_w, 1000, 0.3), minlength=4).tolist() == [100, 0, 300, 600]
    assert effective(log_w) == pytest.approx(100 / 46)


def test_power_is_raised_as_far_as_the_weights_carry():
    x = torch.rand(20_000, 4, dtype=f64)
    log_f = -((x - 0.5) / 0.02).square().sum(1) / 2
    b = raise_power(log_f, torch.zeros_like(log_f), 0.0, 2000.0)
    assert effective(b * log_f) == pytest.approx(2000, rel=1e-3) and 0 < b < 0.1
    assert raise_power(1e-3 * log_f, torch.zeros_like(log_f), 0.0, 2000.0) == 1.0


def test_tempered_start_reaches_a_needle_that_uniform_points_miss():
    centre, dim = 0.37, 6

    def f(x):
        return torch.exp(-((x - centre) / 0.01).square().sum(1) / 2)  # uniform ESS 1e-10

    counted, seen = Counted(f, 200_000), []
    _, q, b = tempered(
        counted,
        dim,
        200_000,
        1,
        batch=5000,
        components=4,
        uniform_share=0.03,
        report=lambda **entry: seen.append(entry),
    )
    assert b == 1 and [entry["b"] for entry in seen] == sorted(entry["b"] for entry in seen)
    x, log_q = defended(q, 0.03).sample(20_000, 3)
    w = torch.where(log_q.isfinite(), f(x) * (-log_q).exp(), 0.0)
    assert w.sum() ** 2 / w.square().sum() / len(w) > 0.85
    assert w.mean() == pytest.approx((0.01 * math.sqrt(2 * math.pi)) ** dim, rel=0.02)
