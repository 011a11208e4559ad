"""A particle gun: charged tracks through the drift volumes of a detector, as segments.

Along the path s the kinetic energy follows the range, T(s) = T_R(R(T_0) - rho s); steps are cut at the borders of the TPCs,
and what is deposited outside is dropped. Options, each off by default:

* scattering: Highland's angle at the end of each step, sigma = 13.6 MeV z / (beta c p) sqrt(x/X0) (1 + 0.088 log10(x z^2 / X0 beta^2)).
* straggling: collisions above 20 keV are drawn from their spectrum, (1 - beta^2 E/W) / E^2, the rest is the restricted loss.
* deltas: electrons above a threshold leave the step as tracks of their own, at the angle of the collision, and scatter.

References:
    | Particle Data Group, Review of Particle Physics (2024), ch. 34
    | `hepops.lartpc.stopping`, for the energy loss
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .detector import Detector
from .segments import Segments
from .stopping import (
    DENSITY,
    M_E,
    RADIATION_LENGTH,
    SPECIES,
    A,
    K,
    Species,
    Z,
    csda_range,
    kinematics,
    range_of,
    species,
    stopping_power,
)

__all__ = ["csda_range", "shoot", "stopping_power"]

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Vector = tuple[float, float, float]
_Launch = tuple[float, Vector, Vector, float]  # kinetic energy [MeV], point [cm], direction, time [us]

LIGHT = 29979.2458  # speed of light [cm/us]
_STRAGGLING_CUT = 0.02  # collisions above this are drawn one by one [MeV]
_SHARE = 0.2  # a step is at most this share of the range that remains ...
_SHORTEST = 0.01  # ... but not shorter than this [cm]: there the track ends
_AROUND = 5.0  # tracks that scatter are followed so far outside [cm]
_MIN_DELTA = 0.05  # electrons below leave no track of their own [MeV]: their range is 0.003 cm


@dataclass(frozen=True)
class _Walk:
    """How a track is followed."""

    step: float  # longest step [cm]
    density: float  # [g/cm3]
    scattering: bool
    straggling: bool
    deltas: float | None  # [MeV]

    @property
    def cut(self) -> float | None:
        """Collisions above this are drawn one by one [MeV]."""
        cuts = ([_STRAGGLING_CUT] if self.straggling else []) + ([self.deltas] if self.deltas else [])
        return min(cuts) if cuts else None


@dataclass(frozen=True)
class _Track:
    """The steps of one particle."""

    particle: Species
    points: Array  # (num_steps + 1, 3) [cm]
    loss: Array  # (num_steps) deposited on the step [MeV]
    time: Array  # (num_steps + 1) [us]
    knocked: list[_Launch]


def shoot(
    detector: Detector,
    events: int = 10,
    particle: str = "muon",
    *,
    energy: float | tuple[float, float] | None = None,
    topology: Literal["through", "stopping", "inside"] = "through",
    directions: Literal["isotropic", "cosmic", "beam"] | Sequence[float] = "isotropic",
    tracks: int = 1,
    step: float = 0.5,
    scattering: bool = False,
    straggling: bool = False,
    deltas: float | None = None,
    time: float = 0.0,
    density: float = DENSITY,
    seed: int = 0,
    first_event: int = 0,
) -> Segments:
    """Tracks through a detector.

    Args:
        detector: Its TPCs are the active volume.
        events: Number of events.
        particle: A name of `stopping.SPECIES`: muon, pion, kaon, proton, deuteron, alpha, electron.
        energy: Kinetic energy, or the ends of a uniform distribution [MeV]; by default 1000 MeV. It is not given for
            "stopping".
        topology: "through": along a line through a uniform point of the active volume, from the edge of the box around it;
            the track ends there or in the volume, as its energy has it. "stopping": the same, with the energy
            that its range needs to end in that point. "inside": from a uniform point.
        directions: "isotropic"; "cosmic", downwards with cos^2 of the angle to the vertical; "beam", along z; or a vector.
        tracks: Tracks per event.
        step: Longest step [cm]; near its end a track's steps are a fifth of the range that remains, down to 0.01 cm.
        scattering: Multiple scattering; tracks bend, and a "stopping" one does not end in its point.
        straggling: The loss fluctuates.
        deltas: Electrons knocked on with more than this become tracks, at least 0.05 [MeV]; None: they are in the step's loss.
        time: When the particles start [us].
        density: Density of the argon [g/cm3]. (Laws of recombination use `Parameters.density`, 1.38 in larnd-sim.)
        seed: Seed; event i depends on (seed, first_event + i) alone.
        first_event: Id of the first event.

    Returns:
        Segments in float64 on the CPU, events in order. Tracks are numbered in each event, primaries first. An event none of
        whose tracks crosses a TPC is noted.
        Not differentiable; deterministic for a seed.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:
        >>> segments = shoot(Detector.module0(), events=3, particle="proton", topology="inside", energy=100.0)
        >>> len(segments.events)
        3
    """
    kind = species(particle)
    walk = _Walk(_positive("step", step), _positive("density", density), scattering, straggling, deltas)
    if deltas is not None and not deltas >= _MIN_DELTA:
        raise ValueError(f"deltas must be None or at least {_MIN_DELTA} MeV, got {deltas}")
    if kind.pdg == 11 and (straggling or deltas):
        raise ValueError("straggling and deltas are not there for electrons")
    for name, number, least in (
        ("events", events, 1),
        ("tracks", tracks, 1),
        ("seed", seed, 0),
        ("first_event", first_event, 0),
    ):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    low, high = _energies(energy, topology)
    volume = _Volume(detector)
    electron_walk = _Walk(min(walk.step, 0.1), walk.density, True, False, None)
    rows, empty = [], 0
    for event in range(first_event, first_event + events):
        rng = np.random.default_rng([seed, event])
        launches = [_launch(kind, volume, topology, directions, (low, high), walk, time, rng) for _ in range(tracks)]
        primaries = [_follow(kind, launch, walk, volume, rng) for launch in launches]
        knocked = [launch for track in primaries for launch in track.knocked]
        electrons = [_follow(SPECIES["electron"], launch, electron_walk, volume, rng) for launch in knocked]
        parts = [volume.clip(t, event, i) for i, t in enumerate(primaries + electrons)]
        rows += parts
        empty += not any(len(p["dE"]) for p in parts)
    columns = {name: torch.from_numpy(np.concatenate([r[name] for r in rows])) for name in rows[0]}
    return Segments(**columns, notes={"events outside every TPC": empty} if empty else {})


def _launch(
    kind: Species,
    volume: "_Volume",
    topology: str,
    directions: str | Sequence[float],
    energy: tuple[float, float],
    walk: _Walk,
    time: float,
    rng: Rng,
) -> _Launch:
    """Energy, point, direction and time of a primary."""
    point, direction = volume.point(rng), _direction(directions, rng)
    T = rng.uniform(*energy)
    if topology != "inside":
        target, point = point, volume.entry(point, direction)
        if topology == "stopping":
            T = float(range_of(kind).energy(np.linalg.norm(target - point) * walk.density))
    return T, tuple(point.tolist()), tuple(direction.tolist()), time


def _follow(kind: Species, launch: _Launch, walk: _Walk, volume: "_Volume", rng: Rng) -> _Track:
    """Step by step until the particle stops or has left the box around the TPCs."""
    by_chance = walk.scattering or walk.cut is not None
    return _wander(kind, launch, walk, volume, rng) if by_chance else _glide(kind, launch, walk, volume)


def _glide(kind: Species, launch: _Launch, walk: _Walk, volume: "_Volume") -> _Track:
    """A straight track that loses the mean."""
    T, start, direction, time = launch
    table = range_of(kind)
    left = float(table.length(T)) / walk.density
    s = [0.0]
    way = min(left, volume.exit(np.array(start), np.array(direction)))
    while s[-1] < way:
        s.append(s[-1] + _step(left - s[-1], walk.step))
    path = np.array(s)
    energies = table.energy((left - path) * walk.density)
    energies[0] = T
    length = np.diff(path)
    times = time + np.concatenate([[0.0], np.cumsum(length / _speed(kind, (energies[1:] + energies[:-1]) / 2))])
    return _Track(kind, np.array(start) + path[:, None] * np.array(direction), -np.diff(energies), times, [])


def _wander(kind: Species, launch: _Launch, walk: _Walk, volume: "_Volume", rng: Rng) -> _Track:
    """A track that scatters, fluctuates, or both."""
    T, point, direction, time = launch
    table = range_of(kind, walk.cut)
    points, times, loss, knocked = [point], [time], [], []
    while T > 0 and volume.near(point):
        left = float(table.length(T)) / walk.density
        ds = _step(left, walk.step)
        after = float(table.energy((left - ds) * walk.density))
        middle = (T + after) / 2
        duration = ds / float(_speed(kind, middle))
        deposit = T - after
        for given in _collisions(kind, middle, ds * walk.density, walk.cut, rng):
            if given > after:
                continue  # the particle has not so much left
            after -= given
            if walk.deltas and given >= walk.deltas:
                share = rng.uniform()
                knock = _knock(kind, T, given, direction, rng)
                knocked.append((given, _ahead(point, direction, share * ds), knock, time + share * duration))
            else:
                deposit += given
        point, time, T = _ahead(point, direction, ds), time + duration, after
        if walk.scattering:
            direction = _scatter(kind, direction, middle, ds * walk.density, rng)
        points.append(point)
        times.append(time)
        loss.append(deposit)
    return _Track(kind, np.array(points), np.array(loss), np.array(times), knocked)


def _step(left: float, longest: float) -> float:
    """The next step of a particle with a range `left` [cm]; all of it at the end."""
    ds = min(longest, max(_SHARE * left, _SHORTEST))
    return left if left - ds < _SHORTEST / 2 else ds


def _speed(kind: Species, T: Array | float) -> Array:
    """[cm/us]"""
    return LIGHT * np.sqrt(kinematics(kind, np.asarray(T))[1])


def _collisions(kind: Species, T: float, thickness: float, cut: float | None, rng: Rng) -> list[float]:
    """Energies [MeV] given to electrons above the cut over a thickness [g/cm2], drawn from 1/E^2 and kept with 1 - beta^2 E/W."""
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
    return _turn(direction, math.acos(min(given * (T + kind.mass + M_E) / (p * p_e), 1.0)), rng.uniform(0, 2 * math.pi))


def _scatter(kind: Species, direction: Vector, T: float, thickness: float, rng: Rng) -> Vector:
    """The direction after a thickness [g/cm2]."""
    gamma, beta2, _ = (float(k) for k in kinematics(kind, np.array(T)))
    x = thickness / RADIATION_LENGTH
    correction = max(1 + 0.088 * math.log10(x * kind.charge**2 / beta2), 0.1)
    sigma = 13.6 * abs(kind.charge) / (beta2 * gamma * kind.mass) * math.sqrt(x) * correction
    # Two independent plane angles: the space angle has Rayleigh's distribution.
    return _turn(direction, sigma * math.sqrt(2 * rng.standard_exponential()), rng.uniform(0, 2 * math.pi))


def _turn(direction: Vector, angle: float, azimuth: float) -> Vector:
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


def _ahead(point: Vector, direction: Vector, length: float) -> Vector:
    (x, y, z), (dx, dy, dz) = point, direction
    return x + length * dx, y + length * dy, z + length * dz


class _Volume:
    """The active volume: the TPCs' boxes."""

    def __init__(self, detector: Detector) -> None:
        boxes = [[sorted((t.anode, t.cathode)), t.y, t.z] for t in detector.tpcs]
        self.low, self.high = np.array(boxes, np.float64).transpose(2, 0, 1)  # (num_tpcs, 3) each
        self.size = np.prod(self.high - self.low, axis=1)
        self.outer = self.low.min(0), self.high.max(0)

    def point(self, rng: Rng) -> Array:
        """Uniform in the TPCs."""
        i = rng.choice(len(self.size), p=self.size / self.size.sum())
        return rng.uniform(self.low[i], self.high[i])

    def entry(self, point: Array, direction: Array) -> Array:
        """Where a line to `point` enters the box around all TPCs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            back = np.where(direction > 0, point - self.outer[0], point - self.outer[1]) / direction
        return point - np.nanmin(np.where(direction == 0, np.inf, back)) * direction

    def exit(self, point: Array, direction: Array) -> float:
        """The way to where a line leaves the box around all TPCs [cm]; 0 behind it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(direction > 0, self.outer[1] - point, self.outer[0] - point) / direction
        return max(float(np.nanmin(np.where(direction == 0, np.inf, ahead))), 0.0)

    def near(self, point: Vector) -> bool:
        """Inside the box around all TPCs, or not far from it: a track that scatters may come back."""
        low, high = self.outer
        return all(low[i] - _AROUND <= point[i] <= high[i] + _AROUND for i in range(3))

    def clip(self, track: _Track, event: int, number: int) -> dict[str, Array]:
        """Columns of Segments for the parts of the steps inside the TPCs; where TPCs overlap, once."""
        a, b = track.points[:-1, None], track.points[1:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            faces = np.stack([(self.low - a) / (b - a), (self.high - a) / (b - a)])
        # A step parallel to a pair of faces is between them for ever, or never.
        parallel = np.broadcast_to(b == a, faces.shape[1:])
        between = (a >= self.low) & (a <= self.high)
        near = np.where(parallel, np.where(between, -np.inf, np.inf), faces.min(0)).max(-1)
        far = np.where(parallel, np.where(between, np.inf, -np.inf), faces.max(0)).min(-1)
        near, far = np.clip(near, 0, 1), np.clip(far, 0, 1)
        order = np.argsort(near, axis=1, kind="stable")
        near, far = np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)
        reached = np.maximum.accumulate(far, axis=1)
        near[:, 1:] = np.maximum(near[:, 1:], reached[:, :-1])
        step, box = np.nonzero((far - near > 1e-12) & (track.loss > 0)[:, None])
        t0, t1 = near[step, box], far[step, box]
        first, move = track.points[step], np.diff(track.points, axis=0)[step]
        length, loss = np.linalg.norm(move, axis=1), track.loss[step]
        middle = track.time[step] + (t0 + t1) / 2 * np.diff(track.time)[step]
        n = len(step)
        return dict(
            event=np.full(n, event, np.int64),
            start=first + t0[:, None] * move,
            end=first + t1[:, None] * move,
            dE=loss * (t1 - t0),
            dEdx=loss / length,
            t0=middle,
            pdg=np.full(n, track.particle.pdg, np.int64),
            track=np.full(n, number, np.int64),
        )


def _direction(directions: str | Sequence[float], rng: Rng) -> Array:
    if isinstance(directions, str):
        azimuth = rng.uniform(0, 2 * np.pi)
        match directions:
            case "isotropic":
                cosine = rng.uniform(-1, 1)
            case "cosmic":
                cosine = -(rng.uniform() ** (1 / 3))  # cos^2 per solid angle
            case "beam":
                return np.array([0.0, 0.0, 1.0])
            case _:
                raise ValueError(f"directions must be isotropic, cosmic, beam or a vector, got {directions!r}")
        sine = np.sqrt(1 - cosine**2)
        return np.array([sine * np.cos(azimuth), cosine, sine * np.sin(azimuth)])
    vector = np.asarray(directions, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"directions must be a name or a vector x y z, got {directions}")
    return vector / np.linalg.norm(vector)


def _energies(energy: float | tuple[float, float] | None, topology: str) -> tuple[float, float]:
    if topology not in ("through", "stopping", "inside"):
        raise ValueError(f"topology must be through, stopping or inside, got {topology!r}")
    if topology == "stopping" and energy is not None:
        raise ValueError(f"energy follows from the range where topology is 'stopping', got {energy}")
    low, high = energy if isinstance(energy, tuple) else (energy or 1000.0,) * 2 if energy is None else (energy, energy)
    if not 0 < low <= high < 1e6:
        raise ValueError(f"energy must be positive, rising and below 1e6 [MeV], got {energy}")
    return float(low), float(high)


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)
