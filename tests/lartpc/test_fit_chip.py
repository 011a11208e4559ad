"""Fits of the chips themselves, and nuisances, on the simulator's noisy hits with the exact likelihood."""

import pytest
import torch
from hepops.lartpc import Detector, Parameters, Simulator, fit
from hepops.lartpc.fit import Nuisance
from hepops.lartpc.gun import shoot
from hepops.lartpc.likelihood import Chip, HitLikelihood

TRUE = {"threshold": 5000.0, "gain": 4e-3, "pedestal": 580.0, "reset_noise": 900.0, "uncorrelated_noise": 500.0,
        "discriminator_noise": 650.0}  # fmt: skip
WRONG = {"threshold": 5600.0, "gain": 4.3e-3, "pedestal": 560.0, "reset_noise": 600.0, "uncorrelated_noise": 800.0,
         "discriminator_noise": 400.0}  # fmt: skip


@pytest.fixture(scope="module")
def protons():
    detector = Detector.module0()
    tracks = shoot(detector, events=6, particle="proton", topology="inside", energy=(60.0, 100.0), seed=1)
    return tracks, Simulator(detector)(tracks, seed=7)


def test_the_chip_is_found_from_wrong_values(protons):
    """Threshold, gain, pedestal and the three noises, all wrong by 4 to 60 %, from 400 hits: errors that hold."""
    sim = Simulator(Detector.module0())
    result = fit(sim, *protons, tuple(TRUE), residual="likelihood", start=WRONG)
    assert result.converged, result.message
    assert (result.pulls(TRUE).abs() < 4).all(), result.summary()
    assert (result.errors[:3] < torch.tensor([100.0, 6e-5, 1.0])).all(), result.summary()
    assert result["threshold"] == pytest.approx(5000.0, rel=0.03) and result["gain"] == pytest.approx(4e-3, rel=0.03)


def test_wrong_chips_are_refused_or_held(protons):
    detector = Detector.module0()
    sim, wrong = Simulator(detector), HitLikelihood(Chip.of(detector, threshold=5300.0))
    free = fit(sim, *protons, ("efield", "time_offset", "threshold"), residual=wrong)
    assert free.config["simulator"]["efield"] == 0.5 and free.starts[0].start[2] == 5300.0
    assert free.converged and abs(free["threshold"] - 5000.0) < 4 * float(free.errors[2])
    held = fit(sim, *protons, ("efield", "time_offset", "threshold"), residual=wrong, fixed="threshold")
    assert held.fixed == {"threshold": 5300.0} and held.value > free.value + 5
    with pytest.raises(ValueError, match="gain and birks_a are degenerate"):
        fit(sim, *protons, ("gain", "birks_a"), residual="likelihood")


def test_offsets_of_events_and_fields_of_tpcs(protons):
    tracks, _ = protons
    truth = Simulator(Detector.module0(), Parameters(efield=0.502))
    shift = 0.04 * torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ids, number = torch.unique(tracks.event, return_inverse=True)
    moved = tracks.__class__(**{**tracks.columns(), "t0": tracks.t0 + shift[number]})
    hits = truth(moved, seed=3)
    sim = Simulator(Detector.module0())
    kinds = [Nuisance("time_offset", "event", prior=0.04), Nuisance("efield", "tpc", prior=0.01)]
    result = fit(sim, tracks, hits, ("efield",), residual="likelihood", nuisance=kinds, toys=6)
    assert result.converged, result.message
    for k, event in enumerate(ids.tolist()):
        value, error = result.nuisance(f"time_offset[event {event}]")
        assert abs(value - float(shift[k])) < 4 * error and 0 < error < 0.0401
    for tpc in range(2):
        value, error = result.nuisance(f"efield[tpc {tpc}]")
        assert abs(result["efield"] * (1 + value) / 0.502 - 1) < 4 * (error + float(result.errors[0]) / 0.5)
