"""What residuals compare of a detector with dead channels and thresholds that differ from pixel to pixel."""

import dataclasses

import pytest
import torch
from hepops.lartpc import Channels, Detector, Parameters, Simulator, fit, gun
from hepops.lartpc.fit import MatchedHits, PixelSums
from hepops.lartpc.fit.readout import thresholds
from hepops.lartpc.likelihood import HitLikelihood

DETECTOR = Detector.module0()
TRACKS = gun.shoot(DETECTOR, 3, "proton", topology="inside", energy=(120.0, 160.0), seed=1)
TRUTH = Parameters(lifetime=1700.0, birks_a=0.82)
NAMES = ("lifetime", "birks_a")


def simulator(parameters=None):
    return Simulator(DETECTOR, parameters, dtype=torch.float64)


@pytest.fixture(scope="module")
def uneven():
    """Thresholds 15 % apart, one channel in seven dead, one in nine noisy."""
    draw = torch.Generator().manual_seed(5)
    share = torch.rand(DETECTOR.num_pixels, generator=draw)
    plain = Channels.default(DETECTOR)
    spread = 1 + 0.15 * torch.randn(DETECTOR.num_pixels, generator=draw, dtype=torch.float64)
    status = torch.where(share < 1 / 7, 1, torch.where(share < 1 / 4, 2, 0))
    return plain.replace(threshold=plain.threshold * spread.clamp(0.5, 2), status=status)


@pytest.fixture(scope="module")
def measured(uneven):
    """Without noise, so that the fit must find the truth; noisy channels tell three times the charge."""
    with torch.no_grad():
        hits = simulator(TRUTH)(TRACKS, threshold=uneven.threshold)
    status = uneven.status[DETECTOR.pixel_id(hits.tpc, hits.ix, hits.iy)]
    assert int((status == 1).sum()) > 15 and int((status == 2).sum()) > 5
    return dataclasses.replace(hits, charge=torch.where(status == 2, 3 * hits.charge, hits.charge))[status != 1]


@pytest.mark.parametrize("kind", [PixelSums, MatchedHits])
def test_dead_channels_and_thresholds_are_those_of_the_chip(uneven, measured, kind):
    chip = uneven.chip(DETECTOR)
    found = fit(simulator(), TRACKS, measured, NAMES, residual=kind(chip=chip))
    assert found["lifetime"] == pytest.approx(1700, rel=1e-6) and found["birks_a"] == pytest.approx(0.82, rel=1e-6)
    assert found.counts["simulated_only"] == found.counts["measured_only"] == 0
    blind = fit(simulator(), TRACKS, measured, NAMES, residual=kind())
    assert blind.counts["simulated_only"] > 10  # what dead channels would have seen
    assert abs(blind["birks_a"] / 0.82 - 1) > 1e-4 or abs(blind["lifetime"] / 1700 - 1) > 1e-4


def test_the_stage_before_a_likelihood_has_its_chip(uneven, measured, tmp_path):
    chip = uneven.chip(DETECTOR)
    once = {"max_iterations": 1, "checkpoint": tmp_path}
    result = fit(simulator(), TRACKS, measured, NAMES, residual=HitLikelihood(chip), **once)
    first, last = result.target.problem.stages
    assert first.chip is chip and last.chip is chip
    with pytest.raises(ValueError, match="belongs to another fit, different in: chips"):
        fit(
            simulator(),
            TRACKS,
            measured,
            NAMES,
            residual=HitLikelihood(Channels.default(DETECTOR).chip(DETECTOR)),
            **once,
        )


def test_a_fitted_threshold_moves_all_pixels(uneven):
    chip = uneven.chip(DETECTOR)
    moved = thresholds(PixelSums(chip=chip), ("lifetime", "threshold"), torch.tensor([2000.0, 6000.0]).double())
    assert float(moved["threshold"].mean()) == pytest.approx(6000)
    torch.testing.assert_close(moved["threshold"] / moved["threshold"][0], chip.threshold / chip.threshold[0])
    assert thresholds(PixelSums(), ("threshold",), torch.tensor([6000.0])) == {}
