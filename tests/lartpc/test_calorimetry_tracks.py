"""Tracks without dE/dx: what they deposit and how it fluctuates."""

import numpy as np
import pytest
import torch
from hepops.lartpc import Detector, Parameters, Simulator, stopping
from hepops.lartpc.calorimetry import PixelCharges, RangeTable, StoppingTrack, ThroughTrack, Tracks
from hepops.lartpc.walk import Walk, _soft, collisions

MODULE0 = Detector.module0()


def line(n=21, start=(-20.0, 3.0, 4.0), direction=(0.35, 0.15, 0.1)):
    return torch.tensor(start).double() + torch.arange(n).double()[:, None] * torch.tensor(direction).double()


def simulator(**values):
    return Simulator(MODULE0, Parameters(**values), dtype=torch.float64, step=0.4, reach=1, length=40)


def three(n=21):
    return Tracks(
        [
            StoppingTrack(line(n), "proton"),
            ThroughTrack(line(n, start=(-15.0, 9.0, 1.0)), number=1),
            StoppingTrack(line(n, start=(-10.0, -8.0, 4.0)), event=3),
        ]
    )


def latent(tracks, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: size * torch.randn(n, generator=generator, dtype=torch.float64)  # noqa: E731
    return 0.4 * draw(len(tracks)), draw(tracks.num_segments)


def test_a_stopping_particle_deposits_its_energy():
    for particle in ("muon", "proton", "kaon"):
        track = StoppingTrack(line(), particle)
        deposited = Tracks([track]).segments().dE.sum()
        torch.testing.assert_close(deposited, RangeTable(particle).energy(track.length.sum()))


def test_beyond_its_end_a_particle_deposits_nothing():
    track = StoppingTrack(line(), "muon", offset=-1.0)
    segments = Tracks([track]).segments()
    dark = track.to_end + track.length < 1.0
    assert int(dark.sum()) == 2
    assert bool((segments.dE[dark] == 0).all()) and bool((segments.dE[~dark] > 0).all())
    whole = RangeTable("muon").energy(track.length.sum() - 1.0)
    torch.testing.assert_close(segments.dE.sum(), whole)
    simulator().waveforms(segments)  # which refuses segments that make no sense


def test_gaps_count_as_range():
    segments = Tracks([StoppingTrack(line(), "muon")]).segments()
    gap = torch.ones(20, dtype=torch.bool)
    gap[12:15] = False
    with_gap = Tracks([StoppingTrack.from_segments(segments[gap], particle="muon")]).segments()
    torch.testing.assert_close(with_gap.dE, segments.dE[gap])


def test_a_fluctuation_moves_the_energy_of_those_before_it_alone():
    """A proton that lost 1 MeV more near its end was, farther up, one of a longer range: faster, losing less."""
    tracks = three()
    w, z = torch.zeros(3).double(), torch.zeros(60).double()
    moved = z.clone()
    moved[15] = 1.0
    change = tracks.segments(w, moved).dE - tracks.segments(w, z).dE
    assert float(change[15]) > 0
    assert bool((change[:15] < 0).all()) and bool((change[16:] == 0).all())
    assert float(-change[:15].sum()) < float(change[15])


def test_losses_have_the_spread_of_the_collisions():
    """Mean and variance over draws against the variance of the spectrum, xi W (1 - beta^2/2), unshifted."""
    short = line(2, direction=(0.4, 0.0, 0.0))
    tracks = Tracks([StoppingTrack(short, "proton", number=i, offset=5.0) for i in range(1500)])
    draws = tracks.segments(z=torch.randn(1500).double()).dE
    table = RangeTable("proton")
    T = float(table.energy(5.2))
    _, beta2, W = (float(x) for x in stopping.kinematics(stopping.species("proton"), np.array(T)))
    xi = stopping.K / 2 * stopping.Z / stopping.A / beta2 * 0.4 * stopping.DENSITY
    assert float(draws.var()) == pytest.approx(xi * W * (1 - beta2 / 2), rel=0.15)
    mean = float(table.energy(5.4) - table.energy(5.0))
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * float(draws.std()) / 1500**0.5)


@pytest.mark.parametrize("name, T, ds", [("proton", 38.0, 0.2), ("muon", 50.0, 0.4)])
def test_a_step_of_the_gun_loses_the_mean_and_fluctuates_as_the_spectrum(name, T, ds):
    """Soft collisions as a Gaussian and hard ones drawn: together the loss and the variance of the whole spectrum."""
    kind, walk, rng, n = stopping.species(name), Walk(0.5, 1.396, False, True, None), np.random.default_rng(3), 6000
    x, table = ds * 1.396, stopping.range_of(stopping.species(name), 0.02)
    after = T - float(table.loss(T, x))
    soft = [T - _soft(kind, T, after, x, table, walk, rng) for _ in range(n)]
    losses = np.array([s + sum(collisions(kind, (T + after) / 2, x, 0.02, rng)) for s in soft])
    assert losses.mean() == pytest.approx(float(stopping.range_of(kind).loss(T, x)), abs=4 * losses.std() / np.sqrt(n))
    _, beta2, W = (float(v) for v in stopping.kinematics(kind, np.array((T + after) / 2)))
    variance = stopping.K / 2 * stopping.Z / stopping.A / beta2 * x * W * (1 - beta2 / 2)
    assert losses.var() == pytest.approx(variance, rel=0.25)  # a muon's rests on rare collisions


def test_losses_are_differentiable():
    """Against central differences, float64; a step of 1e-4, for T differs by little over a segment and rounds."""
    tracks = three(6)
    w, z = (x.requires_grad_() for x in latent(tracks))
    assert torch.autograd.gradcheck(lambda w, z: tracks.segments(w, z).dE, (w, z), eps=1e-4, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: StoppingTrack(line(1)), "points: a track needs at least 2, got 1"),
        (lambda: StoppingTrack(line()[:, :2]), r"points must be finite, of shape \(n, 3\), got \(21, 2\)"),
        (lambda: StoppingTrack(line() * float("nan")), "points must be finite"),
        (lambda: StoppingTrack(torch.zeros(3, 3)), "two that follow each other are the same"),
        (lambda: StoppingTrack(line(), "electron"), "particle must be one of .* got 'electron'"),
        (lambda: StoppingTrack(line(), sigma=0.0), "sigma must be positive and finite .*, got 0.0"),
        (lambda: ThroughTrack(line(), energy=2e4), "energy must be positive and at most 8000 MeV .*, got 20000.0"),
        (lambda: ThroughTrack(line(), sigma=-1.0), "sigma must be positive and finite, got -1.0"),
        (lambda: Tracks([]), "tracks: there are none"),
        (
            lambda: Tracks([StoppingTrack(line()), StoppingTrack(line())]),
            r"two have the same event and number \(0, 0\)",
        ),
        (lambda: Tracks([StoppingTrack(line())], cut=0.0), "cut must be positive .*, got 0.0"),
        (lambda: Tracks([StoppingTrack(line())], density=-1.0), "density must be positive and finite, got -1.0"),
        (lambda: three().segments(z=torch.zeros(3)), r"z must have shape \(60,\), got \(3,\)"),
        (lambda: three().segments(torch.zeros(2)), r"w must have shape \(3,\), got \(2,\)"),
        (lambda: Tracks([StoppingTrack(line(), offset=5000.0)]).segments(), "residual_range is beyond the table"),
        (lambda: StoppingTrack.from_segments(three().segments()), "segments: belong to events"),
        (lambda: StoppingTrack.from_segments(three().segments()[:0]), "segments: there are none"),
        (lambda: PixelCharges.measure(simulator(), three().segments(), 0.0, 1), "sigma must be positive"),
    ],
)
def test_refuses_what_has_no_meaning(call, message):
    with pytest.raises(ValueError, match=message):
        call()
