"""Residuals against plain loops, their Jacobians against differences, and the robust losses."""

import dataclasses

import pytest
import torch
from hepops.lartpc import Hits
from hepops.lartpc.fit import MatchedHits, Noise, PixelSums, Residual, Robust

from lartpc.analytic import AnalyticDetector, tracks

SIX = ("lifetime", "efield", "birks_a", "birks_k", "transverse_diffusion", "longitudinal_diffusion")


def hits(rows, **more):
    """Hits of rows (event, tpc, ix, iy, rank, time, charge)."""
    event, tpc, ix, iy, rank, time, charge = zip(*rows, strict=True) if rows else [()] * 7
    ints = (torch.tensor(column, dtype=torch.int64) for column in (event, tpc, ix, iy))
    t, q = torch.tensor(time, dtype=torch.float64), torch.tensor(charge, dtype=torch.float64)
    rank = torch.tensor(rank, dtype=torch.int64)
    return Hits(*ints, t, t, t, t, q, q, rank, rank, **more)


def shuffled(table):
    order = torch.randperm(len(table.event))
    return dataclasses.replace(
        table, **{f: getattr(table, f)[order] for f in ("event", "tpc", "ix", "iy", "rank", "time", "charge")}
    )


HUGE = 2**40  # an event id whose product with anything overflows 32 bits, and 53


def test_sums_per_pixel_by_hand():
    noise = Noise()
    simulated = hits([(HUGE, 0, 1, 2, 0, 10.0, 8000.0), (HUGE, 0, 1, 2, 1, 20.0, 24000.0), (3, 1, 0, 0, 0, 5.0, 1e4)])
    measured = hits([(HUGE, 0, 1, 2, 0, 16.0, 30000.0), (HUGE + 1, 0, 1, 2, 0, 9.0, 9e3), (3, 1, 0, 1, 0, 5.0, 1e4)])
    r = PixelSums(noise)(simulated, measured)
    sigma_t = noise.time(torch.tensor(30000.0, dtype=torch.float64)).item()
    assert r.values.tolist() == pytest.approx([2000 / noise.charge, (17.5 - 16.0) / sigma_t], rel=1e-14)
    assert r.kind.tolist() == [0, 1]
    assert r.report == {"matched": 1, "simulated_only": 1, "measured_only": 2}
    assert r.missing == 6


def test_matched_hits_by_hand():
    noise = Noise()
    simulated = hits([(HUGE, 0, 1, 2, 0, 10.0, 8000.0), (HUGE, 0, 1, 2, 1, 20.0, 24000.0)])
    measured = hits([(HUGE, 0, 1, 2, 1, 20.5, 24000.0), (HUGE, 0, 1, 2, 2, 10.0, 8000.0)])
    r = MatchedHits(noise)(simulated, measured)
    sigma_t = noise.time(torch.tensor(24000.0, dtype=torch.float64)).item()
    assert r.values.tolist() == pytest.approx([0.0, -0.5 / sigma_t], rel=1e-14)
    assert r.report == {"matched": 1, "simulated_only": 1, "measured_only": 1}


def test_noise_whitens_with_the_stated_widths():
    noise = Noise(reset=900, uncorrelated=500, discriminator=650, lsb=1000.0, threshold=5000, clock=0.1, hold=1.8)
    assert noise.charge == pytest.approx((900**2 + 500**2 + 1000**2 / 12) ** 0.5)
    jitter = (900**2 + 500**2 + 650**2) / (18000 / 1.8) ** 2
    assert noise.time(torch.tensor(23000.0)).item() == pytest.approx((0.01 / 12 + jitter) ** 0.5)
    # a hit below threshold has a finite width
    assert torch.isfinite(noise.time(torch.tensor(0.0)))
    with pytest.raises(ValueError, match="reset must not be negative, got -1"):
        Noise(reset=-1)
    with pytest.raises(ValueError, match="clock, hold, threshold and the noise of the charge must be positive"):
        Noise(clock=0.0)


@pytest.mark.parametrize("residual", [PixelSums(), MatchedHits()], ids=["sums", "matched"])
def test_jacobian_is_that_of_differences_and_of_autograd(residual):
    segments, sim = tracks(4), AnalyticDetector()
    measured = sim(segments)
    with torch.no_grad():
        sim.lifetime.fill_(1500.0)
        sim.efield.fill_(0.51)
    r = residual(sim(segments, tangents=SIX), measured)
    assert r.jacobian.shape == (len(r.values), 6)
    for k, name in enumerate(SIX):
        parameter = getattr(sim, name)
        value, h = parameter.item(), 1e-6 * parameter.item()
        sides = []
        for p in (value - h, value + h):
            with torch.no_grad():
                parameter.fill_(p)
            sides.append(residual(sim(segments), measured))
        with torch.no_grad():
            parameter.fill_(value)
        assert sides[0].report == sides[1].report == r.report  # the set of hits is unchanged
        slope = (sides[1].values - sides[0].values).detach() / (2 * h)
        torch.testing.assert_close(r.jacobian[:, k], slope, rtol=1e-6, atol=1e-6 * slope.abs().max().item())
    weight = torch.randn(len(r.values), dtype=torch.float64)
    values = residual(sim(segments), measured).values
    gradient = torch.autograd.grad(values @ weight, [getattr(sim, name) for name in SIX])
    torch.testing.assert_close(torch.stack(gradient), weight @ r.jacobian, rtol=1e-9, atol=0)


@pytest.mark.parametrize("residual", [PixelSums(), MatchedHits()], ids=["sums", "matched"])
def test_the_order_of_hits_and_threads_has_no_influence(residual):
    segments, sim = tracks(5, gap=HUGE // 4), AnalyticDetector()
    simulated, measured = sim(segments), sim(segments)
    measured = dataclasses.replace(measured, time=measured.time + 0.3, charge=1.1 * measured.charge)
    first = residual(simulated, measured)
    second = residual(simulated, shuffled(measured))
    torch.testing.assert_close(first.values, second.values, rtol=1e-12, atol=0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        third = residual(simulated, measured)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.values, third.values)


@pytest.mark.parametrize("residual", [PixelSums(), MatchedHits()], ids=["sums", "matched"])
def test_empty_sides_are_counted(residual):
    some, none = hits([(1, 0, 1, 2, 0, 10.0, 8000.0)]), hits([])
    assert isinstance(residual, Residual)
    assert residual(some, none).report == {"matched": 0, "simulated_only": 1, "measured_only": 0}
    assert residual(none, some).report == {"matched": 0, "simulated_only": 0, "measured_only": 1}
    assert residual(none, none).values.shape == (0,)


@pytest.mark.parametrize("kind", ["quadratic", "huber", "geman_mcclure", "tukey"])
def test_weight_is_the_slope_of_rho(kind):
    robust, scale = Robust(kind), torch.tensor(1.7, dtype=torch.float64)
    r = torch.linspace(-12, 12, 401, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(robust.rho(r, scale).sum(), r)
    torch.testing.assert_close(robust.weight(r, scale) * r, slope, rtol=1e-12, atol=1e-14)
    tiny = torch.tensor([1e-9], dtype=torch.float64)
    torch.testing.assert_close(robust.rho(tiny, scale), tiny**2 / 2, rtol=1e-12, atol=0)
    assert robust.missing(scale).item() == pytest.approx(1.7**2 / 2)


def test_scale_is_that_of_a_gaussian_and_has_a_floor():
    r = 3.0 * torch.randn(200_000, dtype=torch.float64)
    assert Robust("tukey").scale(r).item() == pytest.approx(3.0, rel=0.02)  # 1 % statistical
    assert Robust("tukey", floor=0.5).scale(1e-6 * r).item() == 0.5
    with pytest.raises(ValueError, match="kind must be one of"):
        Robust("l1")
    with pytest.raises(ValueError, match="floor must be positive, got 0"):
        Robust("huber", floor=0)
