"""Errors of chains whose autocorrelation is known: x' = a x + sqrt(1 - a^2) noise, tau = (1 + a) / 2 (1 - a)."""

import math

import pytest
import torch
from hepops.lattice.statistics import (
    Measurement,
    acceptance,
    autocorrelation,
    bootstrap,
    correlation,
    covariance,
    estimate,
    expected_acceptance,
    gamma_method,
    jackknife,
    rejection_runs,
    reweighted_mean,
    short,
)
from torch.testing import assert_close


def chains(a, n, count, seed=1):
    """`count` independent AR(1) chains in equilibrium, shape (n, count), of mean 0 and variance 1."""
    noise = torch.randn(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = [noise[0]]
    for step in noise[1:]:
        x.append(a * x[-1] + math.sqrt(1 - a * a) * step)
    return torch.stack(x)


@pytest.mark.parametrize("window", ["gamma", "madras-sokal"])
@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, -0.3])
def test_known_autocorrelation(a, window):
    """40 chains: tau and its spread are what is stated, and so is the error of the mean."""
    x = chains(a, 4000, 40)
    exact = (1 + a) / (2 * (1 - a))
    found = autocorrelation(x, window=window)
    pulls = (found.tau - exact) / found.tau_error
    assert abs(pulls.mean().item()) < 1.0  # the window's bias is below the error, as it is chosen to be
    assert 0.5 < pulls.std().item() < 1.5
    assert pulls.abs().max() < 5
    ratio = found.tau.std() / found.tau_error.mean()
    assert 0.6 < ratio < 1.5
    errors = found.error / math.sqrt(2 * exact / 4000)
    assert abs(errors.mean().item() - 1) < 0.1
    means = x.mean(0) / found.error
    assert 0.7 < means.std().item() < 1.35  # 40 draws know their spread to 11 %


def test_the_error_of_the_error():
    x = chains(0.8, 4000, 100, seed=3)
    found = gamma_method(x)
    assert_close(found.error_of_error.mean() / found.error.std(), torch.tensor(1.0).double(), rtol=0.35, atol=0)


def test_gamma_is_the_sum_over_pairs():
    x = chains(0.6, 200, 1)[:, 0]
    found = autocorrelation(x)
    d = x - x.mean()
    gamma = torch.stack([(d[: 200 - t] * d[t:]).sum() / (200 - t) for t in range(101)])
    W = int(found.window)
    full = gamma[0] + 2 * gamma[1 : W + 1].sum()
    gamma = gamma + full / 200
    assert_close(found.rho, gamma / gamma[0], rtol=0, atol=1e-13)
    assert_close(found.tau, 0.5 + (gamma[1 : W + 1] / gamma[0]).sum(), rtol=1e-12, atol=0)
    decay = lambda t: 1.5 / math.log((2 * t + 1) / (2 * t - 1))  # noqa: E731
    plain = torch.stack([(d[: 200 - t] * d[t:]).sum() / (200 - t) for t in range(101)])
    for w in range(1, W + 1):
        tau = decay(0.5 + (plain[1 : w + 1].sum() / plain[0]).item())
        assert (math.exp(-w / tau) - tau / math.sqrt(w * 200) < 0) == (w == W)


def test_the_error_of_rho():
    """Over many chains the autocorrelation function spreads as it says."""
    found = autocorrelation(chains(0.7, 2000, 100, seed=5))
    for t in (1, 3, 8):
        assert_close(found.rho[t].std(), found.rho_error[t].mean(), rtol=0.35, atol=0)


def test_replica_are_one_long_chain_with_gaps():
    x = chains(0.5, 3000, 4)
    parts = [x[:1500, 0], x[:, 1], x[:2000, 2], x[:, 3]]
    found = autocorrelation(parts)
    assert found.samples == 9500
    assert abs(found.tau.item() - 1.5) < 4 * found.tau_error.item()
    assert 1e-3 < found.replica_p.item() <= 1
    moved = autocorrelation([parts[0] + 0.4, *parts[1:]])
    assert moved.replica_p.item() < 1e-4  # chains that are not of one distribution


def test_derived_quantities(dtype):
    """<x^4> / <x^2>^2 of normal numbers: 3, with the error that many chains show."""
    x = chains(0.5, 4000, 40, seed=7).to(dtype)
    ratio = lambda m: m[1] / m[0] ** 2  # noqa: E731
    data = torch.stack([x**2, x**4], -1)
    found = [gamma_method(data[:, k], ratio) for k in range(40)]
    values, errors = (torch.stack([getattr(m, name) for m in found]) for name in ("value", "error"))
    pulls = (values - 3) / errors
    assert abs(pulls.mean().item()) < 0.6 and 0.7 < pulls.std().item() < 1.4
    jack = torch.stack([jackknife(data[:, k], ratio, bin_size=40).error for k in range(40)])
    boot = torch.stack([bootstrap(data[:, k], ratio, bin_size=40, seed=1, resamples=300).error for k in range(10)])
    assert_close(jack.mean(), errors.mean(), rtol=0.12, atol=0)
    assert_close(boot.mean(), errors[:10].mean(), rtol=0.2, atol=0)


def test_jackknife_of_a_mean_is_the_standard_error():
    x = torch.randn(50, 3, dtype=torch.float64)
    assert_close(jackknife(x).error, x.std(0) / 50**0.5)
    assert_close(jackknife(x).value, x.mean(0))


def test_jackknife_leaves_out_bins():
    x = torch.randn(23, dtype=torch.float64)  # bins of 5, 5, 5 and 8
    bins = [range(5), range(5, 10), range(10, 15), range(15, 23)]
    each = torch.stack([x[[i for i in range(23) if i not in b]].mean().exp() for b in bins])
    expected = (((each - each.mean()) ** 2).sum() * 3 / 4).sqrt()
    for vectorised in (True, False):
        assert_close(jackknife(x, torch.exp, bin_size=5, vectorised=vectorised).error, expected)


def test_bootstrap_draws_are_named_by_the_seed():
    x = torch.randn(100, 2, dtype=torch.float64)
    assert torch.equal(bootstrap(x, seed=1).error, bootstrap(x, seed=1).error)
    assert not torch.equal(bootstrap(x, seed=1).error, bootstrap(x, seed=2).error)
    assert_close(bootstrap(x, seed=1, resamples=4000).error, x.std(0) / 10, rtol=0.06, atol=0)


def test_binning_sees_autocorrelation():
    """Errors of single measurements are too small by sqrt(2 tau); long bins have it right."""
    x = chains(0.9, 4000, 30, seed=9)
    naive, binned = jackknife(x).error.mean(), jackknife(x, bin_size=100).error.mean()
    assert_close(binned / naive, torch.tensor((1.9 / 0.1) ** 0.5).double(), rtol=0.12, atol=0)


def test_reweighting():
    """Normal numbers of mean 0 reweighted to mean 1/2; the error is the one of the ratio."""
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    log_w = 0.5 * x - 0.125
    known = reweighted_mean(x, log_w)
    for method, options in (("gamma", {}), ("jackknife", {}), ("bootstrap", {"seed": 1})):
        found = estimate(x, log_w=log_w + 700, method=method, **options)
        assert abs(found.sigmas(0.5).item()) < 4
        assert_close(found.value, known.value)
        assert_close(found.error, known.error, rtol=0.12, atol=0)
    second = estimate(x[:, None] ** torch.arange(3), lambda m: m[2] - m[1] ** 2, log_w=log_w)
    assert abs(second.sigmas(1.0).item()) < 4


def test_covariance():
    mixing = torch.tensor([[1.0, 0.5], [0.0, 0.8]], dtype=torch.float64)
    x = torch.randn(30_000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) @ mixing
    assert_close(covariance(x) * 30_000, mixing.T @ mixing, rtol=0.05, atol=0)
    assert_close(covariance(x[:50]), torch.cov(x[:50].T) / 50)
    assert_close(covariance(x, bin_size=100).diagonal().sqrt(), jackknife(x, bin_size=100).error)
    assert_close(correlation(covariance(x)).diagonal(), torch.ones(2, dtype=torch.float64))


def test_acceptance():
    flags = torch.rand(5000, generator=torch.Generator().manual_seed(1)) < 0.3
    rate = acceptance(flags)
    assert abs(rate.sigmas(0.3).item()) < 4
    assert_close(rate.error, torch.tensor((0.21 / 5000) ** 0.5).double(), rtol=0.1, atol=0)
    assert acceptance(torch.zeros(9, dtype=torch.bool)).error == 0
    assert rejection_runs(torch.tensor([False, True, False, False, True])).tolist() == [1, 2]


def test_expected_acceptance_is_the_sum_over_pairs():
    w = torch.rand(40, dtype=torch.float64).log() * 3
    pairs = torch.minimum(w.exp()[:, None], w.exp()).sum() / (40 * w.exp().sum())
    assert_close(expected_acceptance(w), pairs)
    assert_close(expected_acceptance(w + 800), pairs)


def test_short_form():
    assert short(1.23412, 0.0051) == "1.234(5)"
    assert short(1.23412, 0.00194) == "1.2341(19)"
    assert short(-3.0, 0.096) == "-3.00(10)"
    assert short(12.34, 1.23) == "12.3(1.2)"
    assert short(12.34, 3.4) == "12(3)"
    assert short(12346.0, 96.0) == "12350(100)"
    assert short(0.5, math.nan) == "0.5(nan)"
    many = Measurement(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.02]))
    assert str(many) == "[1.0(5), 2.00(2)]"
    assert str(many[1]) == "2.00(2)"


@pytest.mark.parametrize(
    "method", [autocorrelation, gamma_method, jackknife, lambda x: bootstrap(x, seed=1), covariance]
)
def test_refuses_nan(method):
    x = torch.randn(100, 2)
    x[3, 1] = math.nan
    x[7] = math.inf
    with pytest.raises(ValueError, match="2 of 100 measurements are NaN or infinite"):
        method(x)
    with pytest.raises(TypeError, match=r"data must be floating-point tensors, got torch.int64"):
        method(torch.arange(100))


def test_refuses_too_few():
    with pytest.raises(ValueError, match="16 measurements or more are needed in each chain, got 15"):
        gamma_method(torch.randn(15))
    with pytest.raises(ValueError, match="too few samples for this autocorrelation time"):
        autocorrelation(torch.linspace(0, 1, 40))
    with pytest.raises(ValueError, match="2 bins or more are needed, got 1 of size 60"):
        jackknife(torch.randn(100), bin_size=60)
    with pytest.raises(ValueError, match="1 measurements or more are needed in each chain, got 0"):
        jackknife(torch.randn(0))
    with pytest.raises(ValueError, match="at least one chain, got none"):
        gamma_method([])


def test_refuses_other_input():
    with pytest.raises(ValueError, match="no fluctuations"):
        gamma_method(torch.ones(100))
    with pytest.raises(ValueError, match="window must be 'gamma' or 'madras-sokal', got 'wide'"):
        autocorrelation(torch.randn(100), window="wide")
    with pytest.raises(ValueError, match="S and c must be positive"):
        autocorrelation(torch.randn(100), S=0)
    with pytest.raises(ValueError, match="bin_size must be a whole number of 1 or more, got 0"):
        jackknife(torch.randn(100), bin_size=0)
    with pytest.raises(ValueError, match=r"log_w must hold a number for each measurement, \[100\], got \[\(99,\)\]"):
        estimate(torch.randn(100), log_w=torch.zeros(99))
    with pytest.raises(ValueError, match=r"log_w holds NaN or \+inf"):
        estimate(torch.randn(100), log_w=torch.full((100,), math.nan))
    with pytest.raises(ValueError, match="method must be one of gamma, jackknife, bootstrap, got 'mean'"):
        estimate(torch.randn(100), method="mean")
    with pytest.raises(ValueError, match=r"chains must have shape \(N, ...\), the same but for N, got \(20, 3\)"):
        gamma_method([torch.randn(20, 2), torch.randn(20, 3)])
    with pytest.raises(ValueError, match="its gradient is not finite"):
        gamma_method(torch.randn(100) - 5, torch.log)
    with pytest.raises(ValueError, match="resamples must be 2 or more, got 1"):
        bootstrap(torch.randn(100), seed=1, resamples=1)
    with pytest.raises(TypeError, match=r"accepted must be bool, got torch.float32"):
        acceptance(torch.ones(20))
    with pytest.raises(ValueError, match=r"expected_acceptance: log_w must have shape \(N\)"):
        expected_acceptance(torch.zeros(0))
