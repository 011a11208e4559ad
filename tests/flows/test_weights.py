"""Statistics of log-weights: laws, exact cases, and the same bits for any number of ranks."""

import math

import pytest
import torch
from hepops.flows import weights
from torch import multiprocessing as mp


def _lognormal(n, sigma, seed=0):
    return sigma * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ess_and_ln_z_of_lognormal_weights(device):
    log_w = _lognormal(1_000_000, 0.5).to(device)  # <w> = e^(s^2/2), <w>^2/<w^2> = e^(-s^2)
    assert abs(weights.effective_sample_size(log_w).item() - math.exp(-0.25)) < 3e-3
    value, error = weights.log_normaliser(log_w)
    assert abs(error.item() / math.sqrt((math.exp(0.25) - 1) / 1e6) - 1) < 0.01
    assert abs(value.item() - 0.125) < 4 * error.item()


@pytest.mark.parametrize("shift", [-1e5, 700.0, 1e8])
def test_a_constant_in_the_logarithm_changes_ln_z_alone(shift, device):
    log_w = torch.tensor([0.0, 1.0, -2.0, -math.inf], dtype=torch.float64, device=device)
    moved = log_w + shift
    for function in (weights.effective_sample_size, weights.max_weight):
        torch.testing.assert_close(function(moved), function(log_w), rtol=1e-7, atol=0)
    torch.testing.assert_close(weights.log_mean_exp(moved), weights.log_mean_exp(log_w) + shift, rtol=1e-15, atol=0)


def test_all_weights_zero():
    log_w = torch.full((3,), -math.inf)
    assert weights.log_mean_exp(log_w) == -math.inf
    assert weights.effective_sample_size(log_w) == 0


def test_jackknife_agrees_with_delta_and_removes_the_bias():
    log_w = _lognormal(20_000, 0.7)
    delta, jackknife = weights.log_normaliser(log_w), weights.log_normaliser(log_w, method="jackknife", blocks=200)
    assert abs(jackknife.error / delta.error - 1) < 0.2
    # E[ln mean] = ln Z - var / 2N: small samples show it
    few = _lognormal(16 * 20_000, 1.0, seed=1).view(-1, 16)
    plain = weights.log_normaliser(few).value.mean() - 0.5
    corrected = weights.log_normaliser(few, method="jackknife", blocks=16).value.mean() - 0.5
    assert plain < -0.03 and abs(corrected) < 0.4 * abs(plain)


def test_error_of_ln_z_covers():
    trials = _lognormal(2000 * 500, 0.6, seed=2).view(2000, 500)
    value, error = weights.log_normaliser(trials)
    pulls = (value - 0.18) / error
    assert abs(pulls.std() - 1) < 0.06


def test_reweighted_mean_moves_a_gaussian_and_its_error_covers():
    # q = N(0, 1), p = N(1/2, 1): ln w = x/2 - 1/8
    x = _lognormal(1000 * 1000, 1.0, seed=3).view(1000, 1000)
    mean, error = weights.reweighted_mean(x, x / 2 - 0.125)
    assert abs(mean.mean() - 0.5) < 4 * mean.std() / math.sqrt(1000)
    assert abs(((mean - 0.5) / error).std() - 1) < 0.08


def test_double_double_where_sums_cancel():
    n = 100_000
    big = _lognormal(n, 1e12)
    observable = torch.cat([big, -big.flip(0), torch.ones(2 * n, dtype=torch.float64)])
    log_w = torch.zeros(4 * n, dtype=torch.float64)
    exact = 0.5
    assert abs(weights.reweighted_mean(observable, log_w, double_double=True).value - exact) < 1e-15
    observable = observable[torch.randperm(4 * n)]
    assert abs(weights.reweighted_mean(observable, log_w, double_double=True).value - exact) < 1e-15
    assert abs(weights.reweighted_mean(observable, log_w).value - exact) > 1e-12  # else the option has no use


def test_values_at_weights_of_zero_do_not_count():
    observable = torch.tensor([1.0, math.nan, math.inf])
    assert weights.reweighted_mean(observable, torch.tensor([0.0, -math.inf, -math.inf])).value == 1


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_exact_pareto_tails(k):
    u = torch.rand(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert abs(weights.pareto_k(-k * u.log()).item() - k) < 0.12  # w = u^-k; M = 1897 in the tail: (1+k)/sqrt M = .04


def test_pareto_k_of_no_tail_and_of_few():
    assert weights.pareto_k(torch.zeros(1000)) == -math.inf
    assert weights.pareto_k(torch.zeros(10)).isnan()


def test_weights_are_differentiable():
    log_w = _lognormal(50, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(weights.effective_sample_size, log_w)
    assert torch.autograd.gradcheck(weights.log_mean_exp, log_w)


@pytest.mark.parametrize("function", [weights.log_mean_exp, weights.effective_sample_size, weights.pareto_k])
def test_refused_by_name(function):
    with pytest.raises(ValueError, match="2 of 5 are NaN and 1 are \\+inf"):
        function(torch.tensor([math.nan, math.nan, math.inf, 0.0, -math.inf]))
    with pytest.raises(ValueError, match="at least one weight"):
        function(torch.zeros(0))
    with pytest.raises(TypeError, match="int64"):
        function(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match="list"):
        function([1.0])


def test_more_that_is_refused():
    log_w = torch.zeros(4)
    with pytest.raises(ValueError, match="blocks must lie between 2 and the number of weights 4, got 5"):
        weights.log_normaliser(log_w, method="jackknife", blocks=5)
    with pytest.raises(ValueError, match="method"):
        weights.log_normaliser(log_w, method="bootstrap")
    with pytest.raises(ValueError, match="as many samples"):
        weights.reweighted_mean(torch.zeros(3), log_w)
    with pytest.raises(ValueError, match="one dimension"):
        weights.pareto_k(torch.zeros(2, 9))


def test_summary_counts():
    log_w = torch.cat([_lognormal(1000, 0.3), torch.tensor([-math.inf, math.nan, math.inf])])
    s = weights.summary(log_w, invalid="exclude")
    assert (s.count, s.zeros, s.excluded) == (1001, 1, 2) and s.pareto_k < 0.5 and "good" in str(s)
    with pytest.raises(ValueError, match="NaN"):
        weights.summary(log_w)


def test_sums_do_not_depend_on_threads_or_on_what_stands_beside():
    x = _lognormal(3 * 70_001, 3.0).view(3, -1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = weights.ordered_sum(x)
        torch.set_num_threads(4)
        assert torch.equal(weights.ordered_sum(x), one)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.stack([weights.ordered_sum(row) for row in x]), one)
    assert weights.ordered_sum(x[:, :0]).tolist() == [0, 0, 0]


def _numbers(log_w, observable, group):
    mean = weights.reweighted_mean(observable, log_w, double_double=True, group=group)
    z = weights.log_normaliser(log_w, group=group)
    return torch.stack(
        [*z, weights.effective_sample_size(log_w, group=group), weights.max_weight(log_w, group=group), *mean]
    )


def _rank(rank, world, folder, cuts):
    torch.set_num_threads(1)  # a forked process has no pool of threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    log_w, observable = _lognormal(cuts[-1], 2.0), _lognormal(cuts[-1], 1.0, seed=9)
    part = slice(cuts[rank], cuts[rank + 1])
    torch.save(_numbers(log_w[part], observable[part], torch.distributed.group.WORLD), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("cuts", [[0, 8192, 20_000], [0, 4096, 8192, 12_288, 20_000], [0, 7000, 20_000]])
def test_the_same_bits_for_any_number_of_ranks(cuts, tmp_path):
    world = len(cuts) - 1
    mp.start_processes(_rank, (world, str(tmp_path), cuts), nprocs=world, start_method="fork")
    alone = _numbers(_lognormal(cuts[-1], 2.0), _lognormal(cuts[-1], 1.0, seed=9), None)
    ranks = [torch.load(tmp_path / f"{r}.pt") for r in range(world)]
    assert all(torch.equal(r, ranks[0]) for r in ranks)
    if all(c % weights.CHUNK == 0 for c in cuts[:-1]):
        assert torch.equal(ranks[0], alone)
    torch.testing.assert_close(ranks[0], alone, rtol=1e-13, atol=0)
