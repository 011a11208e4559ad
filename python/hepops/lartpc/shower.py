"""Electromagnetic showers in liquid argon, particle by particle; the laws are in `radiation`.

An electron of energy E loses E in a radiation length of 14 cm by photons, a photon of high energy lives 9/7 of one;
the cascade grows until the electrons are at the critical energy, 33 MeV, and lose as much by collisions. Photons
make pairs or are scattered; a positron at rest becomes two photons of 511 keV. Angles of radiation and of pairs are the
characteristic ones, m/E and m/k, as in EGS4 (SLAC-265, ch. 2): scattering spreads the cascade far more.
"""

import math
from dataclasses import replace

import numpy as np

from .radiation import compton, compton_rate, pair, pair_rate
from .stopping import M_E, RADIATION_LENGTH, SPECIES, Species
from .volume import Vector, Volume
from .walk import LIGHT, Launch, Rng, Track, Walk, ahead, follow, turn

POSITRON, PHOTON = Species(-11, M_E, 1), Species(22, 0.0, 0)
_LONGEST = 0.3  # of an electron's step [cm]


def shower(kind: Species | None, launch: Launch, walk: Walk, volume: Volume, rng: Rng) -> list[Track]:
    """All electrons and positrons of a cascade, as tracks, the primary first.

    Args:
        kind: The primary, electron or positron; None: a photon, which leaves no track.
        launch: Its energy [MeV], point [cm], direction and time [us].
        walk: How electrons are followed; `walk.radiation` is the energy [MeV] above which photons are followed: one
            that comes below leaves its energy where it is.
        volume: What leaves the box around its TPCs is not followed.
        rng: Draws the cascade.

    Returns:
        Tracks. What they deposit and what leaves the box add up to the energy of the primary, of a positron to 2 m_e
        more.
    """
    if walk.radiation is None:
        raise ValueError("shower: walk.radiation must be an energy [MeV], got None")
    cut = walk.radiation
    walk = replace(
        walk, step=min(walk.step, _LONGEST), scattering=True, straggling=False, deltas=None, share=0.4, shortest=0.03
    )
    electrons, photons = ([(kind, launch)], []) if kind is not None else ([], [launch])
    tracks: list[Track] = []
    while electrons or photons:
        while photons:
            electrons += _photon(photons.pop(), cut, walk.density, volume, rng, photons)
        if electrons:
            particle, start = electrons.pop()
            track = follow(particle, start, walk, volume, rng)
            tracks.append(track)
            photons += track.radiated
            end = tuple(track.points[-1].tolist())
            if particle.pdg == POSITRON.pdg and volume.near(end):
                photons += _annihilation(end, float(track.time[-1]), rng)
    return tracks


def _photon(
    launch: Launch, cut: float, density: float, volume: Volume, rng: Rng, photons: list[Launch]
) -> list[tuple[Species, Launch]]:
    """The next thing that happens to a photon: the electrons it makes; a scattered photon joins `photons`."""
    k, point, direction, time = launch
    if k < cut:
        return [(SPECIES["electron"], launch)]
    pairs, scatterings = float(pair_rate(k)) / RADIATION_LENGTH, float(compton_rate(k))
    way = rng.exponential() / ((pairs + scatterings) * density)
    if way > volume.exit(np.array(point), np.array(direction)):
        return []
    point, time = ahead(point, direction, way), time + way / LIGHT
    azimuth = rng.uniform(0, 2 * math.pi)
    if rng.uniform() * (pairs + scatterings) < pairs:
        minus, plus = pair(k, rng)
        angle = min(M_E / k, 1.0)
        made = ((SPECIES["electron"], minus, azimuth), (POSITRON, plus, azimuth + math.pi))
        return [(kind, (max(T, 1e-6), point, turn(direction, angle, phi), time)) for kind, T, phi in made]
    left, cosine = compton(k, rng)
    away = turn(direction, math.acos(max(-1.0, min(cosine, 1.0))), azimuth)
    photons.append((left, point, away, time))
    p = [k * d - left * a for d, a in zip(direction, away, strict=True)]
    norm = math.hypot(*p)
    if k - left <= 0 or norm == 0:
        return []
    return [(SPECIES["electron"], (k - left, point, (p[0] / norm, p[1] / norm, p[2] / norm), time))]


def _annihilation(point: Vector, time: float, rng: Rng) -> list[Launch]:
    """Two photons of m_e, back to back."""
    cosine, azimuth = rng.uniform(-1, 1), rng.uniform(0, 2 * math.pi)
    sine = math.sqrt(1 - cosine**2)
    x, y, z = sine * math.cos(azimuth), sine * math.sin(azimuth), cosine
    return [(M_E, point, (x, y, z), time), (M_E, point, (-x, -y, -z), time)]
