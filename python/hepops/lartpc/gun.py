"""A particle gun: charged tracks through the drift volumes of a detector, as segments.

Along the path s the kinetic energy follows the range, T(s) = T_R(R(T_0) - rho s); steps are cut at the borders of the
TPCs, and what is deposited outside is dropped. Options, each off by default:

* scattering: a turn by Highland's angle at the end of each step of thickness x [g/cm2],
  sigma = 13.6 MeV z / (beta c p) sqrt(x/X0) (1 + 0.088 log10(x z^2 / (X0 beta^2)));
* straggling: collisions above 20 keV are drawn from their spectrum, (1 - beta^2 E/W) / E^2, the rest is the restricted
  loss;
* deltas: electrons above a threshold leave the step as tracks of their own, at the angle of the collision, and scatter;
* radiation: electrons radiate, photons make pairs and are scattered: showers (`hepops.lartpc.radiation`).

References:
    | Particle Data Group, Review of Particle Physics (2024), ch. 34
    | `hepops.lartpc.stopping`, for the energy loss
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from .detector import Detector
from .segments import Segments
from .shower import PHOTON, POSITRON, shower
from .stopping import (
    DENSITY,
    SPECIES,
    Species,
    csda_range,
    range_of,
    species,
    stopping_power,
)
from .volume import Volume
from .walk import Array, Launch, Rng, Track, Walk, follow

__all__ = ["csda_range", "shoot", "stopping_power"]

_MIN_DELTA = 0.05  # electrons below leave no track of their own [MeV]: their range is 0.005 cm


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
    radiation: float | None = None,
    time: float = 0.0,
    density: float = DENSITY,
    seed: int = 0,
    first_event: int = 0,
) -> Segments:
    """Tracks through a detector.

    Args:
        detector: Its TPCs are the active volume.
        events: Number of events.
        particle: A name of `stopping.SPECIES`: muon, pion, kaon, proton, deuteron, alpha, electron; with `radiation`
            also positron and photon.
        energy: Kinetic energy, or the ends of a uniform distribution [MeV]; by default 1000 MeV. It is not given for
            "stopping".
        topology: "through": along a line through a uniform point of the active volume, from the edge of the box around
            it, until it leaves or stops, as its energy has it. "stopping": the same, with the energy that its range
            needs to end in that point. "inside": from a uniform point.
        directions: "isotropic"; "cosmic", downwards with cos^2 of the angle to the vertical; "beam", along z; or a
            vector.
        tracks: Tracks per event.
        step: Longest step [cm]; near its end a track's steps are a fifth of the range that remains, down to 0.01 cm.
        scattering: Multiple scattering; tracks bend, and a "stopping" one does not end in its point.
        straggling: The loss fluctuates.
        deltas: Electrons knocked on with more than this, at least 0.05, become tracks [MeV]; None: their energy stays
            in the step's loss.
        radiation: Electrons, knocked on or shot, make showers: photons above this, at least 0.05, are followed [MeV];
            None: electrons lose by collisions alone.
        time: When the particles start [us].
        density: Density of the argon [g/cm3]. (Laws of recombination use `Parameters.density`, 1.38 in larnd-sim.)
        seed: Seed; event i depends on (seed, first_event + i) alone.
        first_event: Id of the first event.

    Returns:
        Segments in float64 on the CPU, events in order. Tracks are numbered in each event, primaries first (a photon
        has a number and no segment). An event none of whose tracks crosses a TPC is noted.
        Not differentiable; deterministic for a seed.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:
        >>> segments = shoot(Detector.module0(), events=3, particle="proton", topology="inside", energy=100.0)
        >>> len(segments.events)
        3
    """
    kind = _kind(particle, radiation, topology)
    walk = Walk(_positive("step", step), _positive("density", density), scattering, straggling, deltas, radiation)
    for name, least in (("deltas", deltas), ("radiation", radiation)):
        if least is not None and not least >= _MIN_DELTA:
            raise ValueError(f"{name} must be None or at least {_MIN_DELTA} MeV, got {least}")
    if abs(kind.pdg) in (11, PHOTON.pdg) and (straggling or deltas):
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
    volume = Volume(detector)
    rows, empty = [], 0
    for event in range(first_event, first_event + events):
        rng = np.random.default_rng([seed, event])
        launches = [_launch(kind, volume, topology, directions, (low, high), walk, time, rng) for _ in range(tracks)]
        primaries = [first(kind, launch, walk, volume, rng) for launch in launches]
        others = [track for tracks in primaries for track in after(tracks, walk, volume, rng)]
        parts = [rows_of(track, volume, event, i) for i, track in enumerate([t[0] for t in primaries] + others)]
        rows += parts
        empty += not any(len(p["dE"]) for p in parts)
    columns: dict[str, Any] = {name: torch.from_numpy(np.concatenate([r[name] for r in rows])) for name in rows[0]}
    return Segments(**columns, notes={"events outside every TPC": empty} if empty else {})


def first(kind: Species, launch: Launch, walk: Walk, volume: Volume, rng: Rng) -> list[Track]:
    """The track of a primary, one without steps of a photon, and those of its shower where it makes one."""
    if kind is PHOTON:
        _, point, _, time = launch
        nothing = Track(kind, np.array([point]), np.zeros(0), np.array([time]), [])
        return [nothing, *shower(None, launch, walk, volume, rng)]
    if walk.radiation is not None and abs(kind.pdg) == 11:
        return shower(kind, launch, walk, volume, rng)
    return [follow(kind, launch, replace(walk, radiation=None), volume, rng)]


def after(tracks: list[Track], walk: Walk, volume: Volume, rng: Rng) -> list[Track]:
    """The tracks that follow a primary's: its shower's, or those of the electrons that it knocked on."""
    primary, rest = tracks[0], tracks[1:]
    electron, alone = SPECIES["electron"], Walk(min(walk.step, 0.1), walk.density, True, False, None)
    for knock in primary.knocked:
        if walk.radiation is not None:
            rest += shower(electron, knock, walk, volume, rng)
        else:
            rest.append(follow(electron, knock, alone, volume, rng))
    return rest


def rows_of(track: Track, volume: Volume, event: int, number: int) -> dict[str, Array]:
    """Columns of Segments: the parts of a track inside the TPCs."""
    inside = volume.clip(track.points, track.loss, track.time)
    names = dict(event=event, pdg=track.particle.pdg, track=number)
    return inside | {name: np.full(len(inside["dE"]), value, np.int64) for name, value in names.items()}


def _kind(particle: str, radiation: float | None, topology: str) -> Species:
    """The species of a name; those that only showers know need `radiation`."""
    if particle not in (kinds := {"positron": POSITRON, "photon": PHOTON}):
        return species(particle)
    if radiation is None:
        raise ValueError(f"particle {particle!r} needs radiation, an energy [MeV], got None")
    if particle == "photon" and topology == "stopping":
        raise ValueError("topology 'stopping' has no meaning for a photon, which has no range")
    return kinds[particle]


def _launch(
    kind: Species,
    volume: Volume,
    topology: str,
    directions: str | Sequence[float],
    energy: tuple[float, float],
    walk: Walk,
    time: float,
    rng: Rng,
) -> Launch:
    """Energy, point, direction and time of a primary."""
    point, direction = volume.point(rng), direction_of(directions, rng)
    T = rng.uniform(*energy)
    if topology != "inside":
        target, point = point, volume.entry(point, direction)
        if topology == "stopping":
            T = float(range_of(kind).energy(np.linalg.norm(target - point) * walk.density))
    return T, tuple(point.tolist()), tuple(direction.tolist()), time


def direction_of(directions: str | Sequence[float], rng: Rng) -> Array:
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
