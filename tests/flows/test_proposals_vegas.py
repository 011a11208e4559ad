"""VEGAS+: the map has an exact inverse, flattens what is separable, and its strata are unbiased."""

import math

import pytest
import torch
from hepops.flows.integration import VegasMap
from hepops.flows.integration.integrands import camel
from torch.testing import assert_close


def adapted(f, dim, iterations=8, n=8192, **kwargs):
    proposal = VegasMap(dim, **kwargs)
    for step in range(iterations):
        x, log_q = proposal.sample(n, 1, step=step)
        log_f = f(x).abs().log()
        kept = log_f > -math.inf
        proposal.refine(x[kept], (2 * log_f - log_q)[kept], 1.0)
    return proposal


def ess(w):
    return (w.sum().square() / w.square().sum() / len(w)).item()


def peak(x):  # separable: one map per axis says all
    return torch.exp(-0.5 * ((x - torch.tensor([0.3, 0.8], dtype=x.dtype)) / 0.02).square().sum(1))


def test_inverse_of_the_map_is_exact():
    proposal = adapted(peak, 2)
    y = torch.rand(20_000, 2, dtype=torch.float64)
    x, there = proposal.to_x(y)
    back, home = proposal.to_y(x)
    assert_close(back, y, atol=1e-9, rtol=0)  # an increment of 1e-7 magnifies rounding of x
    assert (there == -home).double().mean() > 0.999  # else rounding put x on the other side of an edge
    assert_close(proposal.to_x(back)[0], x, atol=1e-15, rtol=0)


def test_map_flattens_what_is_separable():
    proposal = adapted(peak, 2, iterations=12)
    x, log_q = proposal.sample(20_000, 9)
    assert ess(peak(x) * torch.exp(-log_q)) > 0.96


def test_strata_say_what_the_map_cannot():
    f = camel(2)
    proposal = adapted(f, 2, strata=40)
    x, log_q = proposal.sample(100_000, 5)
    before = ess(f(x) * torch.exp(-log_q))
    proposal.stratify(x, f(x).log(), log_q + math.log(len(x)))
    x, log_q = proposal.sample(50_000, 6)
    assert before < 0.75 and ess(f(x) * torch.exp(-log_q)) > 0.95


def test_stratified_estimate_is_unbiased_with_the_right_error():
    f = camel(2)
    proposal = adapted(f, 2, iterations=4, strata=10)
    x, log_q = proposal.sample(20_000, 5)
    proposal.stratify(x, f(x).log(), log_q + math.log(len(x)))
    pulls, sdevs = [], []
    for seed in range(60):
        s = proposal.stratified(1000, seed)
        mean, sdev = proposal.stratified_estimate(f(s.x) * torch.exp(-s.log_q), s.stratum)
        pulls.append((mean - f.exact) / sdev)
        sdevs.append(sdev)
    pulls = torch.tensor(pulls)
    assert pulls.mean().abs() < 4 / math.sqrt(60) and 0.7 < pulls.std() < 1.35
    plain = VegasMap(2)
    plain.edges.copy_(proposal.edges)
    x, log_q = plain.sample(60_000, 7)
    independent = (f(x) * torch.exp(-log_q)).std().item() / math.sqrt(1000)
    assert torch.tensor(sdevs).mean() < 0.8 * independent  # strata are why


def test_stratified_samples_do_not_depend_on_the_batch():
    proposal = VegasMap(2, strata=5)
    proposal.spread.copy_(torch.rand(25, dtype=torch.float64))
    assert proposal.allocation(777).sum() == 777 and proposal.allocation(777).min() >= 2
    whole = proposal.stratified(777, 3)
    part = proposal.stratified(777, 3, first=200, n=100)
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[200:300], b)
    assert_close((-whole.log_q).exp().mean(), torch.tensor(1.0, dtype=torch.float64), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="at least 50"):
        proposal.allocation(49)


def test_refining_on_nothing_or_a_spike_keeps_a_density():
    proposal = VegasMap(2, increments=16)
    proposal.refine(torch.empty(0, 2, dtype=torch.float64), torch.empty(0, dtype=torch.float64))
    assert torch.equal(proposal.edges, VegasMap(2, increments=16).edges)
    for x in (0.0, 0.5, 1.0):  # one point, at the walls as well, again and again
        spike = VegasMap(2, increments=16)
        for _ in range(60):
            spike.refine(torch.full((1, 2), x, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 1.5)
        assert (spike.edges.diff() > 0).all() and (spike.edges[:, -1] == 1).all()
        y = torch.rand(1000, 2, dtype=torch.float64)
        assert spike.to_x(y)[1].isfinite().all()
        assert spike.log_prob(torch.rand(1000, 2)).isfinite().all()
