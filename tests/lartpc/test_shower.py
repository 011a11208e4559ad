import numpy as np
import pytest
import torch
from hepops.lartpc import TPC, Detector
from hepops.lartpc.gun import shoot
from hepops.lartpc.radiation import compton_rate, pair_rate
from hepops.lartpc.shower import POSITRON, _photon, shower
from hepops.lartpc.stopping import M_E, RADIATION_LENGTH, SPECIES
from hepops.lartpc.volume import Volume
from hepops.lartpc.walk import Walk

# One volume, large enough to hold a shower of its middle.
BOX = Detector(
    name="box",
    tpcs=(TPC(anode=-600.0, cathode=600.0, y=(-600.0, 600.0), z=(-600.0, 600.0), ny=2400, nx=2400),),
    pixel_pitch=0.5,
)
WALK = Walk(0.5, 1.396, True, False, None, radiation=0.2)
X0 = RADIATION_LENGTH / 1.396  # [cm]


def made(kind, energy, seed=0, walk=WALK):
    launch = energy, (0.0, 0.0, -300.0), (0.0, 0.0, 1.0), 0.0
    return shower(kind, launch, walk, Volume(BOX), np.random.default_rng(seed))


def depths(kind, energy, showers):
    """Depth [X0] and energy of every step."""
    tracks = [track for seed in range(showers) for track in made(kind, energy, seed)]
    z = np.concatenate([(t.points[1:, 2] + t.points[:-1, 2]) / 2 + 300 for t in tracks]) / X0
    return z, np.concatenate([t.loss for t in tracks]) / showers


@pytest.mark.parametrize("kind, given", [("electron", 0.0), ("positron", 2 * M_E), (None, 0.0)])
def test_a_contained_shower_deposits_its_energy(kind, given):
    species = {"electron": SPECIES["electron"], "positron": POSITRON, None: None}[kind]
    totals = np.array([sum(t.loss.sum() for t in made(species, 150.0, seed)) for seed in range(6)])
    # A photon that leaves six metres of argon is rare; nothing may be made.
    assert (totals <= 150.0 + given + 1e-9).all() and np.median(totals) == pytest.approx(150.0 + given, rel=1e-9)


def test_the_maximum_moves_with_the_logarithm_of_the_energy():
    """Particle Data Group, ch. 34.5: t_max = ln(E/E_c) -+ 0.5, so a factor 10 moves the mean by about ln 10 = 2.3."""
    (z1, w1), (z2, w2) = depths(SPECIES["electron"], 100.0, 40), depths(SPECIES["electron"], 1000.0, 12)
    means = [(z * w).sum() / w.sum() for z, w in ((z1, w1), (z2, w2))]
    assert means[1] - means[0] == pytest.approx(np.log(10), abs=0.6)
    profile, edges = np.histogram(z2, np.arange(0, 20, 0.5), weights=w2)
    peak = edges[profile.argmax()] + 0.25
    assert peak == pytest.approx(np.log(1000 / 32.84) - 0.5, abs=1.3)


def test_a_photon_lives_nine_sevenths_of_a_radiation_length():
    """At 2 GeV: pairs within 5 % of the asymptotic rate."""
    rng, volume, way = np.random.default_rng(5), Volume(BOX), []
    while len(way) < 2000:
        made = _photon((2000.0, (0.0, 0.0, -300.0), (0.0, 0.0, 1.0), 0.0), 0.2, 1.396, volume, rng, [])
        way += [launch[1][2] + 300 for _, launch in made[:1]]
        assert len(made) in (1, 2)
    expected = X0 / (float(pair_rate(2000.0)) + float(compton_rate(2000.0)) * RADIATION_LENGTH)
    assert expected == pytest.approx(9 / 7 * X0, rel=0.05)
    assert np.mean(way) == pytest.approx(expected, abs=4 * expected / np.sqrt(2000))
    assert np.std(way) == pytest.approx(np.mean(way), rel=0.1)  # exponential


def test_most_of_the_energy_is_within_a_moliere_radius():
    """R_M = 21.2 MeV X0 / E_c = 9.04 cm holds 90 % (Particle Data Group, ch. 34.5)."""
    tracks = [track for seed in range(10) for track in made(SPECIES["electron"], 500.0, seed)]
    r = np.concatenate([np.hypot(t.points[1:, 0], t.points[1:, 1]) for t in tracks])
    w = np.concatenate([t.loss for t in tracks])
    assert w[r < 9.04].sum() / w.sum() == pytest.approx(0.9, abs=0.05)


def test_the_gun_shoots_showers():
    options = dict(energy=200.0, topology="inside", radiation=0.2, seed=3)
    for particle in ("electron", "positron", "photon"):
        segments = shoot(BOX, 2, particle, **options)
        again = shoot(BOX, 1, particle, first_event=1, **options)
        assert torch.equal(segments[segments.event == 1].dE, again.dE)
        assert set(segments.pdg.tolist()) <= {11, -11} and len(segments.track.unique()) > 20
        assert (segments.track == 0).any().item() == (particle != "photon")
    plain = shoot(BOX, 2, "electron", energy=200.0, topology="inside", seed=3)
    assert len(plain.track.unique()) == 1


def test_delta_rays_shower_where_radiation_is_asked_for():
    options = dict(energy=5000.0, topology="inside", deltas=1.0, seed=1)
    alone, with_photons = shoot(BOX, 1, **options), shoot(BOX, 1, radiation=0.2, **options)
    assert len(with_photons.track.unique()) > len(alone.track.unique())
    primary = [s[s.track == 0] for s in (alone, with_photons)]
    assert torch.equal(primary[0].dE, primary[1].dE)  # the muon itself does not radiate


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(particle="photon"), "particle 'photon' needs radiation"),
        (dict(particle="positron"), "particle 'positron' needs radiation"),
        (dict(particle="electron", radiation=0.01), "radiation must be None or at least 0.05 MeV, got 0.01"),
        (
            dict(particle="photon", radiation=0.2, topology="stopping"),
            "topology 'stopping' has no meaning for a photon",
        ),
        (dict(particle="photon", radiation=0.2, straggling=True), "straggling and deltas are not there for electrons"),
    ],
)
def test_refuses_what_has_no_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        shoot(BOX, **options)


def test_shower_needs_a_cut():
    with pytest.raises(ValueError, match="radiation must be an energy"):
        made(None, 10.0, walk=Walk(0.5, 1.396, True, False, None))
