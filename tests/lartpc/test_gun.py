import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import TPC, Detector, read_segments, write_segments
from hepops.lartpc.gun import csda_range, shoot, stopping_power
from hepops.lartpc.stopping import SPECIES, density_effect, hard_loss, kinematics, range_of
from hepops.lartpc.volume import Volume
from hepops.lartpc.walk import Walk, collisions, follow

MODULE0 = Detector.module0()
# One volume, large enough to stop what is shot in its middle.
BOX = Detector(
    name="box",
    tpcs=(TPC(anode=-500.0, cathode=500.0, y=(-500.0, 500.0), z=(-500.0, 500.0), ny=2000, nx=2000),),
    pixel_pitch=0.5,
)


def lengths(segments):
    return (segments.end - segments.start).norm(dim=1)


def from_the_middle(particle, energy, direction=(0.6, 0.0, 0.8), volume=None, seed=0, **options):
    """A track of the box's middle."""
    options = dict(step=0.5, density=1.396, scattering=False, straggling=False, deltas=None) | options
    launch = energy, (0.0, 0.0, 0.0), direction, 0.0
    return follow(SPECIES[particle], launch, Walk(**options), volume or Volume(BOX), np.random.default_rng(seed))


# ---- energy


@pytest.mark.parametrize(
    "particle, energy",
    [("muon", 200.0), ("proton", 150.0), ("pion", 120.0), ("kaon", 300.0), ("alpha", 400.0), ("electron", 30.0)],
)
def test_a_stopping_particle_leaves_all_its_energy_on_its_range(particle, energy):
    track = from_the_middle(particle, energy)
    assert track.loss.sum() == pytest.approx(energy, rel=1e-12)
    assert np.linalg.norm(track.points[-1]) == pytest.approx(float(csda_range(particle, energy)), rel=1e-9)
    assert (track.loss > 0).all() and (np.diff(track.time) > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        dict(scattering=True),
        dict(straggling=True),
        dict(deltas=0.1),
        dict(scattering=True, straggling=True, deltas=0.3),
    ],
)
@pytest.mark.parametrize("particle, energy", [("muon", 600.0), ("proton", 500.0)])
def test_no_option_loses_energy(particle, energy, options):
    track = from_the_middle(particle, energy, **options)
    assert track.loss.sum() + sum(launch[0] for launch in track.knocked) == pytest.approx(energy, rel=1e-12)
    assert bool(track.knocked) == ("deltas" in options)
    assert (track.loss > 0).all()


def test_deltas_start_on_the_track_and_take_their_energy_along():
    inside = dict(energy=400.0, directions=(1, 0, 0), topology="inside", deltas=0.5, seed=2)
    box = Detector(
        name="slab",
        tpcs=(TPC(anode=-5000.0, cathode=5000.0, y=(-50.0, 50.0), z=(-50.0, 50.0), ny=200, nx=200),),
        pixel_pitch=0.5,
    )
    segments = shoot(box, 1, **inside)
    primary, electrons = segments[segments.track == 0], segments[segments.track > 0]
    assert segments.dE.sum().item() == pytest.approx(400.0, rel=1e-12)
    assert set(electrons.pdg.tolist()) == {11} and len(electrons.track.unique()) > 5
    first = electrons[torch.cat([torch.tensor([True]), electrons.track[1:] != electrons.track[:-1]])]
    torch.testing.assert_close(first.start[:, 1:], primary.start[:1, 1:].expand(len(first), 2))
    assert first.t0.min().item() >= 0 and first.t0.max().item() <= primary.t0.max().item()


def test_the_loss_per_length_is_bethes():
    segments = shoot(MODULE0, 20, energy=1000.0, directions="beam", step=0.1)
    first = segments[segments.start[:, 2] < -30.9]
    assert len(first) >= 20
    np.testing.assert_allclose(first.dEdx, stopping_power("muon", 1000.0), rtol=1e-3)
    torch.testing.assert_close(segments.dE / lengths(segments), segments.dEdx, rtol=1e-9, atol=0)
    assert bool((segments.pdg == 13).all())


def test_a_shorter_step_converges():
    """dE/dx is the mean over a step; what a fit sees of it near the stopping point must not depend on the step."""
    coarse, fine = (shoot(BOX, 1, "proton", topology="inside", energy=100.0, step=s, seed=5) for s in (0.5, 0.02))
    quenched = [(0.8 * s.dE / (1 + 0.0486 * s.dEdx / 0.69)).sum().item() for s in (coarse, fine)]
    assert quenched[0] == pytest.approx(quenched[1], rel=2e-3)


def test_density_scales_lengths():
    a, b = (shoot(BOX, 1, "proton", topology="inside", energy=100.0, density=d) for d in (1.4, 0.7))
    assert lengths(b).sum().item() == pytest.approx(2 * lengths(a).sum().item(), rel=1e-9)


# ---- geometry


def test_through_going_tracks_cross_the_whole_volume_in_straight_lines():
    segments = shoot(MODULE0, 50, energy=5000.0)
    for event in segments.events.tolist():
        track = segments.select([event])
        line = torch.nn.functional.normalize(track.end[-1] - track.start[0], dim=0)
        off = torch.linalg.cross(track.start - track.start[0], line.expand(len(track), 3)).norm(dim=1)
        assert off.max().item() < 1e-9
        joined = (track.start[1:] - track.end[:-1]).norm(dim=1)
        assert int((joined > 1e-9).sum()) <= 1  # the gap between the two cathodes
        low, high = torch.tensor([-30.431, -62.076, -31.038]), torch.tensor([30.431, 62.076, 31.038])
        for point in (track.start[0], track.end[-1]):
            assert torch.minimum((point - low).abs(), (point - high).abs()).min().item() < 1e-6


@pytest.mark.parametrize("options", [dict(), dict(scattering=True, straggling=True, deltas=0.2)])
def test_every_segment_lies_in_one_tpc(options):
    segments = shoot(MODULE0, 20, tracks=2, energy=(100.0, 2000.0), **options)
    start, end = (MODULE0.tpc_of(p, margin=1e-9) for p in (segments.start, segments.end))
    assert bool((start >= 0).all()) and torch.equal(start, end)
    assert lengths(segments).max().item() <= 0.5 + 1e-9


def test_overlapping_tpcs_count_a_step_once():
    tpc = dict(y=(-10.0, 10.0), z=(-10.0, 10.0), ny=40, nx=40)
    one = Detector(name="one", tpcs=(TPC(anode=-10.0, cathode=10.0, **tpc),), pixel_pitch=0.5)
    two = Detector(
        name="two", tpcs=(TPC(anode=-10.0, cathode=2.0, **tpc), TPC(anode=10.0, cathode=-3.0, **tpc)), pixel_pitch=0.5
    )
    points = np.array([[-12.0, 0, 0], [-5, 1, 0], [1.5, 1, 1], [4, 1, 2], [4, 1, 30]])
    loss, time = np.arange(1.0, 5), np.arange(5.0)
    a, b = (Volume(d).clip(points, loss, time) for d in (one, two))
    assert a["dE"].sum() == pytest.approx(b["dE"].sum(), rel=1e-12)
    assert np.linalg.norm(a["end"] - a["start"], axis=1).sum() == pytest.approx(
        np.linalg.norm(b["end"] - b["start"], axis=1).sum()
    )
    assert a["dE"].sum() == pytest.approx(1 * 5 / 7 + 2 + 3 + 4 * 8 / 28)


def test_a_step_along_a_face_is_counted():
    volume = Volume(MODULE0)
    on, off = (np.array([[-10.0, y, 0], [-12, y, 0]]) for y in (62.076, 62.077))
    assert len(volume.clip(on, np.ones(1), np.zeros(2))["dE"]) == 1
    assert len(volume.clip(off, np.ones(1), np.zeros(2))["dE"]) == 0


def test_stopping_tracks_end_inside():
    segments = shoot(MODULE0, 100, topology="stopping")
    last = segments[torch.cat([segments.event[1:] != segments.event[:-1], torch.tensor([True])])]
    assert len(last) > 90  # some end in the first hundredth of a centimetre of a TPC, or in the cathode's gap
    assert bool((last.dEdx > 30).all())  # the Bragg peak
    inside = (last.end.abs() < torch.tensor([30.431, 62.076, 31.038])).all(dim=1)
    assert bool(inside.all())


def test_directions():
    def unit(**options):
        segments = shoot(BOX, 600, topology="inside", energy=50.0, seed=3, **options)
        first = segments[torch.cat([torch.tensor([True]), segments.event[1:] != segments.event[:-1]])]
        return torch.nn.functional.normalize(first.end - first.start, dim=1)

    isotropic, cosmic = unit(), unit(directions="cosmic")
    # 600 directions: the mean of a coordinate has sigma 0.024, that of its square 0.012
    assert isotropic.mean(0).abs().max().item() < 0.1
    torch.testing.assert_close((isotropic**2).mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0, atol=0.05)
    assert bool((cosmic[:, 1] < 0).all())
    assert (cosmic[:, 1] ** 2).mean().item() == pytest.approx(3 / 5, abs=0.05)  # of cos^2 per solid angle
    assert unit(directions="beam")[0].tolist() == [0, 0, 1]
    assert unit(directions=(0, -3, 4))[5].tolist() == pytest.approx([0, -0.6, 0.8])


def test_time_runs_with_the_particle():
    segments = shoot(MODULE0, 1, energy=1e5, directions="beam", time=7.0)
    middle = (segments.start + segments.end)[:, 2] / 2
    expected = 7.0 + (middle + 31.038) / 29979.2458
    torch.testing.assert_close(segments.t0, expected, rtol=0, atol=3e-9)  # 1 - beta is 6e-7


# ---- chance


def test_scattering_has_highlands_width():
    """The plane angle after 10 cm of a muon of 1 GeV/c; Highland's formula for the whole thickness, good to 11 %."""
    T, thickness = np.sqrt(1000.0**2 + 105.66**2) - 105.66, 10 * 1.396
    small = Detector(
        name="small",
        tpcs=(TPC(anode=-10.0, cathode=10.0, y=(-10.0, 10.0), z=(-1.0, 10.0), ny=40, nx=22),),
        pixel_pitch=0.5,
    )
    volume, angles = Volume(small), []
    for seed in range(400):
        points = from_the_middle("muon", T, (0.0, 0.0, 1.0), volume, seed, scattering=True).points
        move = points[21] - points[20]
        angles += [np.arctan2(move[0], move[2]), np.arctan2(move[1], move[2])]
    x = thickness / 19.55
    highland = 13.6 / (1000 * 0.9945) * np.sqrt(x) * (1 + 0.088 * np.log10(x))
    assert np.std(angles) == pytest.approx(highland, rel=0.2)  # steps add in quadrature: the logarithm is of a step
    assert np.mean(angles) == pytest.approx(0, abs=4 * highland / np.sqrt(800))


def test_straggling_keeps_the_mean_and_has_landaus_width():
    """5 cm of muons of 3 GeV, without the rare collisions above 5 MeV, whose variance no sample averages out."""
    kind, T, n = SPECIES["muon"], 3000.0, 1500
    thin = Detector(
        name="thin",
        tpcs=(TPC(anode=-10.0, cathode=10.0, y=(-10.0, 10.0), z=(-1.0, 0.0), ny=40, nx=2),),
        pixel_pitch=0.5,
    )
    volume, losses = Volume(thin), []
    for seed in range(n):
        track = from_the_middle("muon", T, (0.0, 0.0, 1.0), volume, seed, straggling=True, deltas=5.0)
        losses.append(track.loss[:10].sum())
    losses = np.array(losses)
    restricted = range_of(kind, 5.0)
    mean = T - float(restricted.energy(restricted.length(T) - 5 * 1.396))
    assert losses.mean() == pytest.approx(mean, abs=4 * losses.std() / np.sqrt(n))
    # The variance of the sum of collisions between 20 keV and 5 MeV: K/2 Z/A x / beta^2 (5 MeV - 20 keV), nearly.
    variance = 0.307075 / 2 * 18 / 39.948 * 5 * 1.396 * 5.0
    assert losses.var() == pytest.approx(variance, rel=0.15)
    # Landau's most probable loss, PDG: xi (ln(2 m beta^2 gamma^2 / I) + ln(xi / I) + 0.2 - beta^2 - delta).
    xi, gamma, mean_excitation = 0.307075 / 2 * 18 / 39.948 * 5 * 1.396, 1 + T / kind.mass, 188e-6
    delta = float(density_effect(np.sqrt(gamma**2 - 1)))
    logarithms = np.log(2 * 0.511 * (gamma**2 - 1) / mean_excitation) + np.log(xi / mean_excitation)
    probable = xi * (logarithms + 0.2 - 1 - delta)
    counts, edges = np.histogram(losses, bins=40, range=(7, 15))
    peak = edges[np.convolve(counts, np.ones(5), "same").argmax()] + 0.1
    assert peak == pytest.approx(probable, abs=0.3)  # a bin is 0.2 wide, xi is 0.48


def test_collisions_are_drawn_from_their_spectrum():
    """Number and loss above a cut near the maximum, where (1 - beta^2 E/W) takes a third of the collisions away."""
    kind, T, cut, thickness = SPECIES["proton"], 800.0, 0.5, 4000.0
    drawn = np.array(collisions(kind, T, thickness, cut, np.random.default_rng(0)))
    number, loss = (float(v) * thickness for v in hard_loss(kind, np.array(T), cut))
    assert number > 400
    assert len(drawn) == pytest.approx(number, abs=4 * np.sqrt(number))
    assert drawn.mean() == pytest.approx(loss / number, abs=4 * drawn.std() / np.sqrt(number))
    assert drawn.min() >= cut and drawn.max() <= float(kinematics(kind, np.array(T))[2])
    assert collisions(kind, 10.0, 1e9, cut, np.random.default_rng(0)) == []  # W is below the cut


def test_knocked_on_electrons_are_as_many_as_the_spectrum_has():
    tracks = [from_the_middle("muon", 10000.0, (0.0, 0.0, 1.0), seed=s, deltas=5.0, step=5.0) for s in range(40)]
    launches = [launch for track in tracks for launch in track.knocked]
    number, _ = hard_loss(SPECIES["muon"], np.array(9500.0), 5.0)
    expected = 40 * 500 * 1.396 * float(number)
    assert expected > 300
    assert len(launches) == pytest.approx(expected, abs=4 * np.sqrt(expected))
    energy, cosine = np.array([launch[0] for launch in launches]), np.array([launch[2][2] for launch in launches])
    assert energy.min() >= 5.0
    np.testing.assert_allclose(cosine, np.sqrt(energy / (energy + 2 * 0.51099895)), rtol=2e-2)  # of a projectile at c


# ---- repetition and files


def test_the_seed_decides_and_events_are_independent():
    options = dict(scattering=True, straggling=True, deltas=0.5, energy=500.0)
    a, b, c = (shoot(MODULE0, 4, seed=s, **options) for s in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a.columns().values(), b.columns().values(), strict=True))
    assert not torch.equal(a.dE[:10], c.dE[:10])
    later = shoot(MODULE0, 2, seed=1, first_event=2, **options)
    rest = a.select([2, 3])
    assert all(torch.equal(x, y) for x, y in zip(later.columns().values(), rest.columns().values(), strict=True))


def test_tracks_are_numbered_and_written(tmp_path):
    segments = shoot(MODULE0, 3, tracks=4, energy=2000.0)
    assert segments.event.unique().tolist() == [0, 1, 2] and segments.track.unique().tolist() == [0, 1, 2, 3]
    write_segments(tmp_path / "a.h5", segments, positions="f8")
    again = read_segments(tmp_path / "a.h5")
    assert all(torch.equal(x, y) for x, y in zip(segments.columns().values(), again.columns().values(), strict=True))
    write_segments(tmp_path / "b.h5", segments)
    torch.testing.assert_close(read_segments(tmp_path / "b.h5").start, segments.start, rtol=1e-7, atol=1e-7)


def test_events_outside_are_noted():
    pieces = [TPC(anode=x, cathode=x + 1, y=(-1.0, 1.0), z=(-1.0, 1.0), ny=4, nx=4) for x in (-50.0, 50.0)]
    detector = Detector(name="two", tpcs=tuple(pieces), pixel_pitch=0.5)
    segments = shoot(detector, 30, "proton", energy=20.0, directions=(1, 0, 0))  # stops between the two
    assert len(segments.events) == 30 and not segments.notes
    segments = shoot(detector, 30, "proton", energy=20.0, directions=(0.001, 0.999, 0))
    assert segments.notes.get("events outside every TPC", 0) == 30 - len(segments.events)


def test_looks_like_the_muons_at_hand():
    """edep-sim's muon files: loss per length of muons, without the electrons that have tracks of their own."""
    theirs = read_segments(shared("data/lartpc/edepsim/muons_9.h5"))
    theirs = theirs[theirs.pdg == 13]
    ours = shoot(MODULE0, 20, energy=3000.0, straggling=True, deltas=1.0)
    ours = ours[ours.pdg == 13]
    loss = [(s.dE.sum() / lengths(s).sum()).item() for s in (theirs, ours)]
    assert loss[0] == pytest.approx(loss[1], rel=0.1)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(particle="muons"), "particle must be one of"),
        (dict(energy=0.0), r"energy must be positive, rising and below 1e6 \[MeV\], got 0.0"),
        (dict(energy=(3.0, 2.0)), "energy must be positive, rising"),
        (dict(energy=float("nan")), "energy must be positive, rising"),
        (dict(energy=3.0, topology="stopping"), "energy follows from the range"),
        (dict(topology="across"), "topology must be through, stopping or inside, got 'across'"),
        (dict(directions="up"), "directions must be isotropic, cosmic, beam or a vector, got 'up'"),
        (dict(directions=(0, 0, 0)), "directions must be a name or a vector"),
        (dict(step=0.0), "step must be positive and finite, got 0.0"),
        (dict(density=float("inf")), "density must be positive and finite, got inf"),
        (dict(deltas=0.01), "deltas must be None or at least 0.05 MeV, got 0.01"),
        (dict(particle="electron", straggling=True), "straggling and deltas are not there for electrons"),
        (dict(events=0), "events must be at least 1, got 0"),
        (dict(tracks=0), "tracks must be at least 1"),
        (dict(seed=-1), "seed must be at least 0"),
        (dict(first_event=-1), "first_event must be at least 0"),
    ],
)
def test_refuses_what_has_no_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        shoot(MODULE0, **options)
