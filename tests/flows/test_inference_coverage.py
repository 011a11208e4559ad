"""Coverage tests pass the exact posterior, and see one that is too narrow or beside the truth."""

import pytest
import torch
from hepops.flows.inference import Normal, SampledPosterior, sbc, simulate, tarp
from hepops.flows.inference.statistics import chi2_tail, uniform_ks

from .inference_models import Exact, Linear

MODEL = Linear()
TEST = simulate(MODEL.prior, MODEL, 500, seed=77)


def both(posterior, seed):
    return sbc(posterior, TEST.theta, TEST.x, seed=seed), tarp(posterior, TEST.theta, TEST.x, seed=seed)


def one_side(posterior, seed):
    return tarp(posterior, TEST.theta, TEST.x, references="corner", seed=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_exact_posterior_passes(seed):
    ranks, coverage = both(Exact(MODEL), seed)
    assert ranks.p_value > 0.01 and coverage.p_value > 0.01 and one_side(Exact(MODEL), seed).p_value > 0.01
    assert ranks.counts.sum(0).tolist() == [500] * 3 and ranks.names == ("a", "b", "c")
    inside = (coverage.band[0] <= coverage.alpha) & (coverage.alpha <= coverage.band[1])
    assert inside.double().mean() > 0.8


@pytest.mark.parametrize("wrong", [{"scale": 0.5**0.5}, {"scale": 2**0.5}, {"bias": 0.5}], ids=str)
def test_a_wrong_posterior_fails(wrong):
    posterior = Exact(MODEL, **wrong)
    ranks, coverage = both(posterior, 1)
    assert ranks.p_value < 1e-4 and one_side(posterior, 1).p_value < 1e-3
    if "bias" not in wrong:  # references on all sides do not see a bias to one
        assert coverage.p_value < 1e-4


def test_overconfidence_shows_as_too_little_coverage():
    coverage = tarp(Exact(MODEL, scale=0.5), TEST.theta, TEST.x)
    assert float(coverage.coverage[90]) < 0.85 and float(coverage.coverage[10]) > 0.15
    u = sbc(Exact(MODEL, scale=0.5), TEST.theta, TEST.x)
    assert bool((u.counts[[0, -1]].sum(0) > 4 * u.counts[[14, 15]].sum(0)).all())  # ranks pile up at the ends


class Two:
    """The posterior of theta = x + L n under a flat prior; its correlation may be dropped, its marginals stay."""

    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)

    def __init__(self, correlated=True):
        self.normal = Normal([0.0, 0.0], self.covariance if correlated else [1.0, 1.0])

    def sample(self, n, x, seed=None):
        return x + self.normal.sample(n * len(x), seed).reshape(n, len(x), 2)


def test_tarp_sees_what_sbc_does_not():
    x = Normal([0.0, 0.0], [3.0, 3.0]).sample(500, seed=1)
    theta = x + Two().normal.sample(500, seed=2)
    near = x + 3.0  # references may depend on x: along the diagonal the spread is 1 + 0.8, without correlation 1
    right, wrong = Two(), Two(correlated=False)
    assert sbc(right, theta, x, seed=9).p_value > 0.01 and sbc(wrong, theta, x, seed=9).p_value > 0.01
    assert tarp(right, theta, x, references=near, seed=9).p_value > 0.01
    assert tarp(wrong, theta, x, references=near, seed=9).p_value < 1e-4


def test_p_values_are_uniform_over_repetitions():
    """2 K tests of 60 independent sets: their p-values are uniform themselves."""
    p = []
    for k in range(60):
        made = simulate(MODEL.prior, MODEL, 200, seed=1000 + k)
        result = sbc(Exact(MODEL), made.theta, made.x, draws=31, seed=k)
        p += [result.chi2_p[0], result.ks_p[1], torch.tensor(tarp(Exact(MODEL), made.theta, made.x, seed=k).p_value)]
    assert uniform_ks(torch.stack(p))[1] > 0.01


def test_the_sampler_passes_with_the_exact_likelihood():
    posterior = SampledPosterior(MODEL.prior, MODEL.log_likelihood, [4], walkers=64, warmup=300, thin=20)
    result = sbc(posterior, TEST.theta, TEST.x, draws=63, chunk=500)
    assert result.p_value > 0.01


def test_tails_of_known_distributions():
    assert chi2_tail(3.841458820694124, 1) == pytest.approx(0.05, abs=1e-9)
    assert chi2_tail(18.307038053275146, 10) == pytest.approx(0.05, abs=1e-9)
    D, p = uniform_ks(torch.full((100,), 0.5))
    assert D == pytest.approx(0.5) and p < 1e-20
    assert uniform_ks(torch.tensor([0.95, 0.96, 0.97, 0.98, 0.99]))[1] < 1e-3
    # asymptotic quantile: P(lambda > 1.3581) = 0.05
    n = 10_000
    u = ((torch.arange(n) + 0.5) / n + 1.3581 / n**0.5).clamp(max=1)
    assert uniform_ks(u)[1] == pytest.approx(0.05, abs=0.002)


def test_figures_are_drawn():
    pytest.importorskip("matplotlib")
    ranks, coverage = both(Exact(MODEL), 1)
    assert len(ranks.plot().axes) == 3 and len(coverage.plot().axes) == 1
    assert "Bonferroni" in ranks.summary() and "TARP: 500 simulations" in coverage.summary()


def test_what_has_no_meaning_is_refused():
    posterior = Exact(MODEL)
    with pytest.raises(ValueError, match="at least 40 simulations, got 39"):
        sbc(posterior, TEST.theta[:39], TEST.x[:39])
    with pytest.raises(ValueError, match=r"theta must be \(N, K\)"):
        sbc(posterior, TEST.theta, TEST.x[:100])
    with pytest.raises(ValueError, match="draws and chunk must be at least 1"):
        sbc(posterior, TEST.theta, TEST.x, draws=0)
    with pytest.raises(ValueError, match="references must be"):
        tarp(posterior, TEST.theta, TEST.x, references="far")
    with pytest.raises(ValueError, match="references must have shape"):
        tarp(posterior, TEST.theta, TEST.x, references=TEST.theta[:5])

    class Broken(Exact):
        def sample(self, n, x, seed=None):
            return super().sample(n, x, seed) * torch.nan

    with pytest.raises(ValueError, match="returned NaN"):
        tarp(Broken(MODEL), TEST.theta, TEST.x)


def test_nan_is_no_truth_and_every_seed_is_one():
    class Any:  # takes what seeds it is given
        def sample(self, n, x, seed=None):
            assert 0 <= seed < 2**64
            return torch.zeros(n, len(x), 3)

    exact, made = Any(), TEST[:120]
    for test in (sbc, tarp):
        with pytest.raises(ValueError, match="theta holds NaN"):
            test(exact, made.theta * torch.nan, made.x)
        test(exact, made.theta, made.x, seed=2**64 - 1)
    with pytest.raises(ValueError, match="references hold NaN"):
        tarp(exact, made.theta, made.x, references=made.theta * torch.nan)
