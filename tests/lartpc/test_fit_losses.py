"""Chamfer, soft-DTW and MMD against brute force and finite differences."""

import itertools
import math

import pytest
import torch
from hepops.lartpc.fit import HitLoss, chamfer, mmd, mmd_charge, soft_dtw

from lartpc.analytic import AnalyticDetector, tracks

f64 = {"dtype": torch.float64}


def gradcheck(function, *inputs):
    return torch.autograd.gradcheck(function, inputs, atol=1e-8, rtol=1e-6)


def paths(n, m):
    """Every monotone alignment of two sequences, as lists of index pairs."""
    if n == 1 and m == 1:
        return [[(0, 0)]]
    before = [(n - 1, m - 1), (n - 1, m), (n, m - 1)]
    return [[*path, (n - 1, m - 1)] for i, j in before if i >= 1 and j >= 1 for path in paths(i, j)]


def costs(a, b):
    """The cost of every alignment of two sequences (N, D), (M, D)."""
    D = ((a[:, None] - b) ** 2).sum(-1)
    return torch.stack([sum(D[i, j] for i, j in path) for path in paths(len(a), len(b))])


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 3), (4, 3), (2, 5)])
def test_soft_dtw_is_the_soft_minimum_over_all_alignments(n, m):
    a, b = torch.randn(n, 2, **f64), torch.randn(m, 2, **f64)
    for gamma in (0.3, 2.0):
        expected = -gamma * torch.logsumexp(-costs(a, b) / gamma, 0)
        torch.testing.assert_close(soft_dtw(a[None], b[None], gamma)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 3)])
def test_soft_dtw_without_softness_is_dtw(n, m):
    a, b = torch.randn(n, 2, **f64), torch.randn(m, 2, **f64)
    # the soft minimum of k terms lies below the minimum by gamma ln k at most
    torch.testing.assert_close(soft_dtw(a[None], b[None], 1e-8)[0], costs(a, b).min(), rtol=0, atol=1e-6)


def test_soft_dtw_gradients_and_padding():
    a, b = torch.randn(3, 4, 2, **f64).requires_grad_(), torch.randn(3, 5, 2, **f64).requires_grad_()
    n, m = torch.tensor([4, 1, 3]), torch.tensor([2, 5, 5])
    assert gradcheck(lambda x, y: soft_dtw(x, y, 0.5, n, m), a, b)
    whole = soft_dtw(a, b, 0.5, n, m)
    for i in range(3):
        alone = soft_dtw(a[i : i + 1, : n[i]], b[i : i + 1, : m[i]], 0.5)
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=0)
    # a batch cut in single sequences has the same bits
    assert torch.equal(whole, soft_dtw(a, b, 0.5, n, m, pairs=1))


def test_soft_dtw_refuses():
    x = torch.rand(2, 3, 1)
    with pytest.raises(ValueError, match="gamma must be positive, got 0"):
        soft_dtw(x, x, 0.0)
    with pytest.raises(ValueError, match=r"length_a must be \(2,\) numbers from 1 to 3, got \[0, 3\]"):
        soft_dtw(x, x, 1.0, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"must be \(B, N, D\)"):
        soft_dtw(x, x[0])
    grad = torch.autograd.grad(soft_dtw(x.requires_grad_(), x).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="soft_dtw is differentiable once"):
        grad.sum().backward()


@pytest.mark.parametrize("pairs", [1, 7, 1 << 20])
def test_chamfer_against_all_pairs(pairs):
    a, b = torch.randn(20, 3, **f64).requires_grad_(), torch.randn(13, 3, **f64).requires_grad_()
    D = ((a[:, None] - b) ** 2).sum(-1)
    expected = D.min(1).values.mean() + D.min(0).values.mean()
    torch.testing.assert_close(chamfer(a, b, pairs=pairs)[0], expected, rtol=1e-14, atol=0)
    assert gradcheck(lambda x, y: chamfer(x, y, pairs=pairs), a, b)


def test_clouds_are_separate_in_any_order():
    a, b = torch.randn(20, 3, **f64), torch.randn(13, 3, **f64)
    i, j = torch.arange(20) % 3, torch.arange(13) % 3
    for loss in (chamfer, mmd, lambda *x: mmd_charge(x[0], x[1], x[0][:, 0] ** 2, x[1][:, 0] ** 2, *x[2:])):
        together = loss(a, b, 10 * i, 10 * j) if loss is not mmd else mmd(a, b, None, None, 10 * i, 10 * j)
        alone = torch.cat([loss(a[i == k], b[j == k]) for k in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-15)


def test_a_cloud_on_one_side_only_is_refused_by_name():
    with pytest.raises(ValueError, match=r"chamfer: every cloud needs points on both sides, one side only: \[4\]"):
        chamfer(torch.zeros(2, 1), torch.zeros(1, 1), torch.tensor([3, 4]), torch.tensor([3]))
    with pytest.raises(ValueError, match="not empty"):
        mmd(torch.zeros(0, 1), torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"bandwidths must be positive, got \(0.0,\)"):
        mmd(torch.zeros(1, 1), torch.zeros(1, 1), bandwidths=(0.0,))


@pytest.mark.parametrize("pairs", [1, 1 << 20])
def test_mmd_against_all_pairs(pairs):
    a, b = torch.randn(7, 2, **f64).requires_grad_(), torch.randn(5, 2, **f64).requires_grad_()
    u, v = torch.rand(7, **f64).requires_grad_(), torch.rand(5, **f64).requires_grad_()

    def k(x, y):
        return sum(math.exp(-float(((x - y) ** 2).sum()) / (2 * h * h)) for h in (0.5, 2.0))

    points = [*zip(a, u / u.sum(), strict=True), *((y, -w) for y, w in zip(b, v / v.sum(), strict=True))]
    expected = sum((w * z).item() * k(x, y) for (x, w), (y, z) in itertools.product(points, points))
    options = {"bandwidths": (0.5, 2.0), "pairs": pairs}
    assert mmd(a, b, u, v, **options).item() == pytest.approx(expected, rel=1e-12)
    assert gradcheck(lambda *x: mmd(*x, **options), a, b, u, v)
    assert gradcheck(lambda *x: mmd_charge(*x, charge_weight=0.7, **options), a, b, u, v)


def test_mmd_of_equal_clouds_is_zero_and_the_charge_is_seen():
    a, q = torch.randn(9, 3, **f64), torch.rand(9, **f64)
    assert mmd(a, a, q, 3 * q).abs().max() < 1e-15
    torch.testing.assert_close(mmd_charge(a, a, 3 * q, q), torch.tensor([4.0], **f64))


@pytest.mark.parametrize("kind", ["chamfer", "soft_dtw", "mmd_charge"])
def test_hit_losses_have_their_minimum_at_the_truth_and_gradients(kind):
    segments = tracks(3)
    sim = AnalyticDetector()
    measured = sim(segments)
    loss = HitLoss(kind, gamma=1e-3)

    def at(a):
        with torch.no_grad():
            sim.birks_a.fill_(a)
        value = loss(sim(segments), measured)
        return value.item(), torch.autograd.grad(value, sim.birks_a)[0].item()

    # a point between thresholds: the set of hits does not change within the step
    low, high = at(0.83 - 1e-7)[0], at(0.83 + 1e-7)[0]
    assert at(0.83)[1] == pytest.approx((high - low) / 2e-7, rel=1e-5)
    assert at(0.80)[0] < min(at(0.79)[0], at(0.83)[0])


def test_hit_loss_counts_what_has_no_partner():
    segments = tracks(3)
    sim = AnalyticDetector()
    measured = sim(segments.select(events=[0, 1]))
    missing = (HitLoss(missing=5.0)(sim(segments), measured) - HitLoss()(sim(segments), measured)).item()
    clouds = torch.unique(sim(segments.select(events=[2])).tpc)
    assert missing == 5.0 * len(clouds)
    with pytest.raises(ValueError, match="kind must be one of chamfer, soft_dtw, mmd_charge, got 'l2'"):
        HitLoss("l2")
    with pytest.raises(ValueError, match="time_scale must be positive, got 0"):
        HitLoss(time_scale=0.0)
