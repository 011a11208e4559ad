"""Every proposal is sampled by number, knows its density, and is rebuilt from plain data."""

import json
import math

import pytest
import torch
from hepops.flows.integration import (
    Channels,
    FlowProposal,
    GaussianMixture,
    Mapped,
    Proposal,
    Uniform,
    VegasMap,
    build,
    describe,
    learn_shares,
)
from hepops.flows.integration.proposal import inside, substream
from safetensors.torch import load, save
from torch.testing import assert_close


def vegas_map(dim, strata=1):
    generator = torch.Generator().manual_seed(dim)
    proposal = VegasMap(dim, increments=20, strata=strata)
    widths = torch.rand(dim, 20, dtype=torch.float64, generator=generator) + 0.05
    proposal.edges[:, 1:] = widths.cumsum(1) / widths.sum(1, keepdim=True)
    shares = torch.rand(len(proposal.shares), dtype=torch.float64, generator=generator) + 0.1
    proposal.shares.copy_(shares / shares.sum())
    proposal.spread.copy_(shares.flip(0) / shares.sum())
    return proposal


def mixture(dim):
    generator = torch.Generator().manual_seed(dim)
    scales = 0.1 * torch.randn(3, dim, dim, dtype=torch.float64, generator=generator).tril()
    scales.diagonal(dim1=1, dim2=2).copy_(torch.full((3, dim), 0.15))
    means = torch.rand(3, dim, dtype=torch.float64, generator=generator)
    return GaussianMixture.of(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, scales)


def flow(dim):
    torch.manual_seed(dim)
    proposal = FlowProposal(vegas_map(dim), bins=4, hidden=(16,))
    with torch.no_grad():
        for p in proposal.couplings.parameters():
            p += 0.3 * torch.randn_like(p)
    return proposal


def squared(dim):  # x = u^2, q = prod 1/(2 sqrt x)
    return Mapped(
        dim,
        lambda u: (u * u, (2 * u).log().sum(1)),
        lambda x: (x.sqrt(), -(2 * x.sqrt()).log().sum(1)),
    )


def channels(dim):
    inner = Channels([Uniform(dim), mixture(dim)], [0.4, 0.6])
    return Channels([inner, vegas_map(dim, strata=3), Uniform(dim), mixture(dim)], [0.5, 0.3, 0.2, 0.0])


KINDS = {
    "uniform": Uniform,
    "map": vegas_map,
    "strata": lambda dim: vegas_map(dim, strata=4),
    "mixture": mixture,
    "flow": flow,
    "mapped": squared,
    "channels": channels,
}


@pytest.fixture(params=KINDS)
def proposal(request):
    return KINDS[request.param](2)


def test_log_q_of_samples_is_log_prob(proposal):
    x, log_q = proposal.sample(5000, 3)
    within = inside(x)
    assert torch.equal(log_q.isfinite(), within) and torch.equal(log_q == math.inf, ~within)
    assert_close(proposal.log_prob(x)[within], log_q[within], rtol=0, atol=1e-6)  # float32 networks
    assert (proposal.log_prob(x)[~within] == -math.inf).all()


def test_samples_follow_the_density(proposal):
    """The mean of 1/q over samples in a box is the box's volume."""
    x, log_q = proposal.sample(60_000, 5)
    for low, high in (((0.1, 0.3), (0.4, 0.9)), ((0.5, 0.0), (1.0, 0.5)), ((0.0, 0.6), (0.3, 1.0))):
        low, high = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
        box = ((x > low) & (x < high)).all(1) & log_q.isfinite()
        w = torch.where(box, (-log_q).exp().clamp(max=1e6), 0.0)
        volume = (high - low).prod()
        assert (w.mean() - volume).abs() < 5 * w.std() / math.sqrt(len(w)) + 1e-9


def test_density_integrates_to_the_share_inside(proposal):
    n = 600
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    grid = torch.cartesian_prod(centres, centres)
    integral = proposal.log_prob(grid).exp().mean()
    _, log_q = proposal.sample(40_000, 1)
    kept = log_q.isfinite().to(torch.float64).mean()
    # the grid resolves steps of a map to 1/n, and 1/sqrt(x) to 1/sqrt(n)
    assert abs(integral - kept) < 0.02 if not isinstance(proposal, Mapped) else abs(integral - kept) < 0.06


def test_bits_do_not_depend_on_the_batch(proposal):
    x, log_q = proposal.sample(9000, 7, step=2)
    for first, n in ((0, 1), (1, 17), (4000, 300), (4096, 4096), (8999, 1)):
        part, part_q = proposal.sample(n, 7, first=first, step=2)
        assert torch.equal(part, x[first : first + n]) and torch.equal(part_q, log_q[first : first + n])


def test_streams_are_their_own(proposal):
    x = proposal.sample(100, 7)[0]
    assert torch.equal(x, proposal.sample(100, 7)[0])
    for other in ({"seed": 8}, {"seed": 7, "step": 1}, {"seed": 7, "first": 100}):
        assert not (x == proposal.sample(100, **other)[0]).any(1).any()


def test_rebuilt_from_plain_data_and_tensors(proposal):
    if isinstance(proposal, Mapped):
        with pytest.raises(TypeError, match="plain description"):
            describe(proposal)
        return
    again = build(json.loads(json.dumps(describe(proposal))))
    again.load_state_dict(load(save(proposal.state_dict())))
    for a, b in zip(proposal.sample(3000, 1), again.sample(3000, 1), strict=True):
        assert torch.equal(a, b)


def test_outside_the_cube_the_density_is_zero(proposal):
    x = torch.tensor([[0.5, 1.1], [-1e-9, 0.5], [math.nan, 0.5], [math.inf, 0.2]])
    assert (proposal.log_prob(x) == -math.inf).all()
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    assert not proposal.log_prob(corners).isnan().any()


def test_parts_that_nest_share_no_numbers():
    picks = [substream(seed, k) for seed in range(50) for k in range(-1, 20)]
    assert len(set(picks)) == len(picks)
    halves = Channels([Uniform(1), Channels([Uniform(1), mixture(1)])])
    # half the samples are the outer channel's, a quarter each the inner ones': unbiased only if the picks differ
    x, log_q = halves.sample(40_000, 3)
    inner = x[log_q.isfinite()]
    w = (-log_q[log_q.isfinite()]).exp()
    assert abs((w * inner[:, 0]).sum() / 40_000 - 0.5) < 5 * (w * inner[:, 0]).std() / 200


def test_learned_shares_have_the_least_variance():
    uniform, peak = Uniform(2), vegas_map(2)
    both = Channels([uniform, peak])
    x, log_q = both.sample(20_000, 1)
    log_f = Channels([uniform, peak], [0.3, 0.7]).log_prob(x)  # the best shares are these
    shares = learn_shares(both.terms(x), 2 * log_f - log_q, torch.tensor([0.01, 0.0], dtype=torch.float64), steps=300)
    assert_close(shares, torch.tensor([0.3, 0.7], dtype=torch.float64), atol=0.02, rtol=0)
    kept = learn_shares(both.terms(x), 2 * log_f - log_q, torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert_close(kept, torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_bad_arguments_are_refused_by_name():
    for call, message in (
        (lambda: Uniform(0), "dim must be"),
        (lambda: Channels([]), "must not be empty"),
        (lambda: Channels([Uniform(1), Uniform(2)]), "one dim"),
        (lambda: Channels([Uniform(1)], [-1.0]), "shares"),
        (lambda: Uniform(2).log_prob(torch.zeros(3, 3)), r"\(n, 2\)"),
        (lambda: Uniform(2).sample(-1, 0), "negative"),
        (lambda: VegasMap(2, 0), "increments"),
        (lambda: GaussianMixture(2, 0), "components"),
        (lambda: FlowProposal(VegasMap(1)), "one coordinate"),
        (lambda: FlowProposal(VegasMap(2, strata=2)), "no strata"),
        (lambda: build({"kind": "Nothing"}), "kind must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_no_samples_are_an_empty_batch(proposal):
    x, log_q = proposal.sample(0, 1)
    assert x.shape == (0, 2) and log_q.shape == (0,) and proposal.log_prob(x).shape == (0,)


def test_every_kind_is_known():
    assert {"Uniform", "VegasMap", "GaussianMixture", "FlowProposal", "Channels"} <= set(Proposal.kinds)
