"""Events with every kind of track, each deposit with its class: what a network learns to tell apart.

From one vertex, uniform in the active volume, come a muon, protons and showers, as from a neutrino's interaction; a
cosmic muon may cross. Directions are isotropic, so that only the deposits tell a class. Muons bend, fluctuate, and
knock electrons on; those above `DELTA` are delta rays. Electrons and photons shower, delta rays too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .detector import Detector
from .gun import after, direction_of, first, rows_of
from .segments import Segments
from .shower import PHOTON
from .stopping import DENSITY, SPECIES, Species
from .volume import Volume
from .walk import Array, Rng, Track, Walk

CLASSES = ("muon", "proton", "delta", "shower")
MUON, PROTON, DELTA_RAY, SHOWER = range(4)
DELTA = 1.0  # electrons knocked on with more are delta rays [MeV]: their range is 0.4 cm, a pixel's pitch
RADIATION = 0.2  # photons above are followed [MeV]; one alone below makes no hit


@dataclass(frozen=True)
class Mixture:
    """What comes from a vertex: numbers and kinetic energies [MeV] are uniform between their ends."""

    muons: tuple[int, int] = (1, 1)
    muon_energy: tuple[float, float] = (100.0, 800.0)
    protons: tuple[int, int] = (1, 3)
    proton_energy: tuple[float, float] = (40.0, 300.0)
    showers: tuple[int, int] = (1, 2)
    shower_energy: tuple[float, float] = (50.0, 400.0)
    cosmics: tuple[int, int] = (0, 1)
    cosmic_energy: tuple[float, float] = (1000.0, 10000.0)

    def __post_init__(self) -> None:
        for name, (low, high) in vars(self).items():
            least = 1e-3 if name.endswith("_energy") else 0
            if not least <= low <= high < 1e6:
                raise ValueError(f"Mixture: {name} must be two rising numbers from {least:g} on, got {(low, high)}")


def interactions(
    detector: Detector, events: int = 10, *, mixture: Mixture | None = None, seed: int = 0, first_event: int = 0
) -> tuple[Segments, Tensor]:
    """Events of muons, protons, delta rays and showers, and the class of every segment.

    Args:
        detector: Its TPCs are the active volume.
        events: Number of events.
        mixture: How many of what, and their energies; None: `Mixture()`. A shower begins with an electron or a
            photon, one as often as the other.
        seed: Event i depends on (seed, first_event + i) alone.
        first_event: Id of the first event.

    Returns:
        Segments, float64 on the CPU, events in order, tracks numbered in each event; and the class of every
        segment, int64 (num_segments), an index of `CLASSES`. What a delta ray or a shower's photon makes is of
        their class. Not differentiable; deterministic for a seed.

    Raises:
        ValueError: an argument out of its range, named with its value.

    Example:
        >>> segments, label = interactions(Detector.module0(), events=4, seed=2)
        >>> [CLASSES[i] for i in label.unique()]
        ['muon', 'proton', 'delta', 'shower']
    """
    for name, number, least in (("events", events, 1), ("seed", seed, 0), ("first_event", first_event, 0)):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    mixture, volume = mixture or Mixture(), Volume(detector)
    rows: list[dict[str, Array]] = []
    labels = []
    for event in range(first_event, first_event + events):
        rng = np.random.default_rng([seed, event])
        for number, (track, label) in enumerate(_event(mixture, volume, rng)):
            rows.append(rows_of(track, volume, event, number))
            labels.append(np.full(len(rows[-1]["dE"]), label, np.int64))
    columns: dict[str, Any] = {name: torch.from_numpy(np.concatenate([r[name] for r in rows])) for name in rows[0]}
    return Segments(**columns), torch.from_numpy(np.concatenate(labels))


def _event(mixture: Mixture, volume: Volume, rng: Rng) -> list[tuple[Track, int]]:
    """Tracks of an event with their classes."""
    vertex, made = volume.point(rng), []
    for _ in range(_number(mixture.muons, rng)):
        made += _tracks(SPECIES["muon"], mixture.muon_energy, vertex, volume, MUON, rng)
    for _ in range(_number(mixture.protons, rng)):
        made += _tracks(SPECIES["proton"], mixture.proton_energy, vertex, volume, PROTON, rng)
    for _ in range(_number(mixture.showers, rng)):
        kind = SPECIES["electron"] if rng.uniform() < 0.5 else PHOTON
        made += _tracks(kind, mixture.shower_energy, vertex, volume, SHOWER, rng)
    for _ in range(_number(mixture.cosmics, rng)):
        made += _tracks(SPECIES["muon"], mixture.cosmic_energy, None, volume, MUON, rng)
    return made


def _number(ends: tuple[int, int], rng: Rng) -> int:
    return int(rng.integers(ends[0], ends[1] + 1))


def _tracks(
    kind: Species, energy: tuple[float, float], vertex: Array | None, volume: Volume, label: int, rng: Rng
) -> list[tuple[Track, int]]:
    """A particle from the vertex, or from outside through the volume, with all that follows."""
    direction = direction_of("isotropic" if vertex is not None else "cosmic", rng)
    start = vertex if vertex is not None else volume.entry(volume.point(rng), direction)
    launch = float(rng.uniform(*energy)), tuple(start.tolist()), tuple(direction.tolist()), 0.0
    walk = Walk(0.5, DENSITY, True, True, DELTA, RADIATION)
    tracks = first(kind, launch, walk, volume, rng)
    secondary = label if kind is PHOTON or abs(kind.pdg) == 11 else DELTA_RAY
    return [(tracks[0], label), *((track, secondary) for track in after(tracks, walk, volume, rng))]
