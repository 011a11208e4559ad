"""One charged particle's way through liquid argon, step by step; the laws are in `gun` and `radiation`."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .radiation import radiated
from .stopping import M_E, RADIATION_LENGTH, A, K, Range, Species, Z, hard_loss, kinematics, range_of
from .volume import Vector, Volume

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Launch = tuple[float, Vector, Vector, float]  # kinetic energy [MeV], point [cm], direction, time [us]

LIGHT = 29979.2458  # speed of light [cm/us]
_STRAGGLING_CUT = 0.02  # collisions above this are drawn one by one [MeV]


@dataclass(frozen=True)
class Walk:
    """How a track is followed."""

    step: float  # longest step [cm]
    density: float  # [g/cm3]
    scattering: bool
    straggling: bool
    deltas: float | None  # [MeV]
    radiation: float | None = None  # electrons radiate photons above this [MeV]
    share: float = 0.2  # a step is at most this share of the range that remains ...
    shortest: float = 0.01  # ... but not shorter than this [cm]: there the track ends

    @property
    def cut(self) -> float | None:
        """Collisions above this are drawn one by one [MeV]."""
        cuts = ([_STRAGGLING_CUT] if self.straggling else []) + ([self.deltas] if self.deltas else [])
        return min(cuts) if cuts else None


@dataclass(frozen=True)
class Track:
    """The steps of one particle."""

    particle: Species
    points: Array  # (num_steps + 1, 3) [cm]
    loss: Array  # (num_steps) deposited on the step [MeV]
    time: Array  # (num_steps + 1) [us]
    knocked: list[Launch]  # electrons
    radiated: list[Launch] = field(default_factory=list)  # photons


def follow(kind: Species, launch: Launch, walk: Walk, volume: Volume, rng: Rng) -> Track:
    """Step by step until the particle stops or has left the box around the TPCs."""
    by_chance = walk.scattering or walk.cut is not None or walk.radiation is not None
    return _wander(kind, launch, walk, volume, rng) if by_chance else _glide(kind, launch, walk, volume)


def _glide(kind: Species, launch: Launch, walk: Walk, volume: Volume) -> Track:
    """A straight track that loses the mean."""
    T, start, direction, time = launch
    table = range_of(kind)
    left = float(table.length(T)) / walk.density
    s = [0.0]
    way = min(left, volume.exit(np.array(start), np.array(direction)))
    while s[-1] < way:
        s.append(s[-1] + _step(left - s[-1], walk))
    path = np.array(s)
    energies = table.energy((left - path) * walk.density)
    energies[0] = T
    length = np.diff(path)
    times = time + np.concatenate([[0.0], np.cumsum(length / _speed(kind, (energies[1:] + energies[:-1]) / 2))])
    return Track(kind, np.array(start) + path[:, None] * np.array(direction), -np.diff(energies), times, [])


def _wander(kind: Species, launch: Launch, walk: Walk, volume: Volume, rng: Rng) -> Track:
    """A track that scatters, fluctuates, or both."""
    T, point, direction, time = launch
    table = range_of(kind, walk.cut)
    points, times, loss, knocked, photons = [point], [time], [], [], []
    while T > 0 and volume.near(point):
        left = float(table.length(T)) / walk.density
        ds = _step(left, walk)
        after = float(table.energy((left - ds) * walk.density))
        middle = (T + after) / 2
        duration = ds / float(_speed(kind, middle))
        if walk.straggling and ds < left:
            after = _soft(kind, T, after, ds * walk.density, table, walk, rng)
        deposit = T - after
        for given in collisions(kind, middle, ds * walk.density, walk.cut, rng):
            if given > after:
                continue  # the particle has not so much left
            after -= given
            if walk.deltas and given >= walk.deltas:
                share = rng.uniform()
                knock = _knock(kind, T, given, direction, rng)
                knocked.append((given, ahead(point, direction, share * ds), knock, time + share * duration))
            else:
                deposit += given
        if walk.radiation is not None:
            for k in radiated(middle, ds * walk.density, walk.radiation, rng):
                if k > after:
                    continue
                after -= k
                share, azimuth = rng.uniform(), rng.uniform(0, 2 * math.pi)
                away = turn(direction, M_E / (middle + M_E), azimuth)  # at the characteristic angle m/E
                photons.append((k, ahead(point, direction, share * ds), away, time + share * duration))
        point, time, T = ahead(point, direction, ds), time + duration, after
        if walk.scattering:
            direction = _scatter(kind, direction, middle, ds * walk.density, rng)
        points.append(point)
        times.append(time)
        loss.append(deposit)
    return Track(kind, np.array(points), np.array(loss), np.array(times), knocked, photons)


def _soft(kind: Species, T: float, after: float, thickness: float, table: Range, walk: Walk, rng: Rng) -> float:
    """The energy after a step's collisions below the cut, which fluctuate as a Gaussian.

    Their variance is the spectrum's, xi (cut - beta^2 cut^2 / 2W). A hard collision in the step makes the particle
    slower, and what follows costs more: half of the hard loss, in the mean, acts on the soft one.
    """
    assert walk.cut is not None
    at = np.array((T + after) / 2)
    _, beta2, W = (float(k) for k in kinematics(kind, at))
    cut = min(walk.cut, W)
    xi = K / 2 * kind.charge**2 * Z / A / beta2 * thickness
    hard = float(hard_loss(kind, at, walk.cut)[1]) * thickness
    slope = (T - after) - float(table.loss(T - hard, thickness)) if hard < T else 0.0
    spread = math.sqrt(max(xi * cut * (1 - beta2 * cut / (2 * W)), 0.0))
    soft = T - after - slope / 2 + spread * float(rng.standard_normal())
    return T - min(max(soft, 0.0), T)


def _step(left: float, walk: Walk) -> float:
    """The next step of a particle with a range `left` [cm]; all of it at the end."""
    ds = min(walk.step, max(walk.share * left, walk.shortest))
    return left if left - ds < walk.shortest / 2 else ds


def _speed(kind: Species, T: Array | float) -> Array:
    """[cm/us]"""
    return LIGHT * np.sqrt(kinematics(kind, np.asarray(T))[1])


def collisions(kind: Species, T: float, thickness: float, cut: float | None, rng: Rng) -> list[float]:
    """Energies [MeV] given to electrons above the cut over a thickness [g/cm2]: 1/E^2, kept with 1 - beta^2 E/W."""
    if cut is None:
        return []
    _, beta2, W = (float(k) for k in kinematics(kind, np.array(T)))
    if W <= cut:
        return []
    span = 1 / cut - 1 / W
    drawn = rng.uniform(size=(rng.poisson(thickness * K / 2 * kind.charge**2 * Z / A / beta2 * span), 2))
    energies = 1 / (1 / cut - drawn[:, 0] * span)
    return [float(E) for E in energies[drawn[:, 1] > beta2 * energies / W]]


def _knock(kind: Species, T: float, given: float, direction: Vector, rng: Rng) -> Vector:
    """Direction of the electron: cos = E (T + M + m) / (p p_e), from the collision's kinematics."""
    p, p_e = math.sqrt(T * (T + 2 * kind.mass)), math.sqrt(given * (given + 2 * M_E))
    return turn(direction, math.acos(min(given * (T + kind.mass + M_E) / (p * p_e), 1.0)), rng.uniform(0, 2 * math.pi))


def _scatter(kind: Species, direction: Vector, T: float, thickness: float, rng: Rng) -> Vector:
    """The direction after a thickness [g/cm2]."""
    gamma, beta2, _ = (float(k) for k in kinematics(kind, np.array(T)))
    x = thickness / RADIATION_LENGTH
    correction = max(1 + 0.088 * math.log10(x * kind.charge**2 / beta2), 0.1)
    sigma = 13.6 * abs(kind.charge) / (beta2 * gamma * kind.mass) * math.sqrt(x) * correction
    # Two independent plane angles: the space angle has Rayleigh's distribution.
    return turn(direction, sigma * math.sqrt(2 * rng.standard_exponential()), rng.uniform(0, 2 * math.pi))


def turn(direction: Vector, angle: float, azimuth: float) -> Vector:
    """A unit vector at an angle to `direction`, with an orthonormal basis after Duff et al., JCGT 6 (2017) 1."""
    x, y, z = direction
    sign = math.copysign(1.0, z)
    a, b = -1 / (sign + z), -x * y / (sign + z)
    c, u, v = math.cos(angle), math.sin(angle) * math.cos(azimuth), math.sin(angle) * math.sin(azimuth)
    turned = (
        c * x + u * (1 + sign * x * x * a) + v * b,
        c * y + u * sign * b + v * (sign + y * y * a),
        c * z - u * sign * x - v * y,
    )
    norm = math.hypot(*turned)
    return turned[0] / norm, turned[1] / norm, turned[2] / norm


def ahead(point: Vector, direction: Vector, length: float) -> Vector:
    (x, y, z), (dx, dy, dz) = point, direction
    return x + length * dx, y + length * dy, z + length * dz
