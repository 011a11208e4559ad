"""The sample: events of the gun, simulated with noise, in voxels with their classes; kept in files of some events."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic
from hepops.lartpc import Detector, Simulator, corner, voxel_labels, voxelize
from hepops.lartpc.interactions import CLASSES as CLASSES
from hepops.lartpc.interactions import Mixture, interactions

VERSION = 1
PER_FILE = 25  # events


@dataclass(frozen=True)
class Sample:
    """Voxels of many events, sorted by event.

    Raises:
        ValueError: lengths differ.
    """

    coordinates: Tensor  # int32 (num_voxels, 4)  event x y z
    charge: Tensor  # float32 (num_voxels)        [ke]
    label: Tensor  # int64 (num_voxels)           index of CLASSES, -1 where noise alone made the charge

    def __post_init__(self) -> None:
        n = len(self.coordinates)
        if self.coordinates.shape != (n, 4) or self.charge.shape != (n,) or self.label.shape != (n,):
            shapes = [tuple(part.shape) for part in vars(self).values()]
            raise ValueError(f"Sample: expected shapes (n, 4), (n), (n), got {shapes}")

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def events(self) -> Tensor:
        """Ids, sorted, each once."""
        return torch.unique(self.coordinates[:, 0])

    def split(self) -> list["Sample"]:
        """Event by event."""
        _, counts = torch.unique_consecutive(self.coordinates[:, 0], return_counts=True)
        parts = zip(*(part.split(counts.tolist()) for part in vars(self).values()), strict=True)
        return [Sample(*columns) for columns in parts]

    @classmethod
    def cat(cls, parts: "list[Sample]") -> Self:
        """One after the other."""
        if not parts:
            return cls(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        return cls(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))

    def class_counts(self) -> Tensor:
        """Voxels of each class, int64 (num_classes)."""
        return torch.bincount(self.label[self.label >= 0], minlength=len(CLASSES))


def make(events: int, *, seed: int = 0, first_event: int = 0, mixture: Mixture | None = None) -> Sample:
    """Events of muons, protons, delta rays and showers in DUNE's module0, simulated with the chip's noise, in voxels.

    Args:
        events: Number of events; one without a hit has no voxel.
        seed: Event i depends on (seed, first_event + i) alone.
        first_event: Id of the first event.
        mixture: What comes from a vertex; None: `Mixture()`.

    Returns:
        A `Sample`; voxels are cubes of one pixel's pitch. Deterministic for a seed, for any number of threads.

    Example:
        >>> sample = make(2, seed=1)
        >>> sample.coordinates.shape[1], int(sample.label.max()) < len(CLASSES)
        (4, True)
    """
    detector = Detector.module0()
    segments, label = interactions(detector, events, mixture=mixture, seed=seed, first_event=first_event)
    with torch.no_grad():
        hits = Simulator(detector)(segments, seed=seed, truth=True)
    voxels = voxelize(hits, detector.pixel_pitch, corner(detector))
    truth = voxel_labels(hits, voxels, label, len(CLASSES))
    return Sample(voxels.coordinates.to(torch.int32), (voxels.charge / 1000).to(torch.float32), truth)


def prepare(
    folder: Path, events: int, *, seed: int, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Sample:
    """Events 0 ... events - 1 of a seed, from the files of a folder as far as they are there; the others are made.

    Each file is whole or not there, so what was made before a kill is not made again. The result does not depend on
    the number of workers (processes).
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (folder / f"{first:06d}.npz", min(PER_FILE, events - first), seed, first)
        for first in range(0, events, PER_FILE)
    ]
    parts: dict[Path, Sample | None] = {job[0]: _read(*job) for job in jobs}
    missing = [job for job in jobs if parts[job[0]] is None]
    done = events - sum(job[1] for job in missing)
    if progress is not None:
        progress(done, events)
    for path, count in _made(missing, workers):
        done += count
        if progress is not None:
            progress(done, events)
        parts[path] = None
    return Sample.cat([parts[job[0]] or _whole(*job) for job in jobs])


def _made(jobs: list[tuple[Path, int, int, int]], workers: int) -> Iterator[tuple[Path, int]]:
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            _write(*job)
            yield job[:2]
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for job, _ in zip(jobs, pool.map(_write, *zip(*jobs, strict=True)), strict=True):
            yield job[:2]


def _write(path: Path, events: int, seed: int, first: int) -> None:
    sample = make(events, seed=seed, first_event=first)
    arrays: dict[str, Any] = {name: column.numpy() for name, column in vars(sample).items()}
    with atomic(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, made=json.dumps(_made_with(events, seed, first)), **arrays)


def _made_with(events: int, seed: int, first: int) -> dict[str, Any]:
    return {"version": VERSION, "events": events, "seed": seed, "first": first, "mixture": str(Mixture())}


def _read(path: Path, events: int, seed: int, first: int) -> Sample | None:
    """What a file holds; None where there is none, or one that was made otherwise."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            if json.loads(str(file["made"])) != _made_with(events, seed, first):
                return None
            return Sample(*(torch.from_numpy(file[name]) for name in ("coordinates", "charge", "label")))
    except Exception as error:
        raise ValueError(f"{path}: not a readable file of events ({error})") from None


def _whole(path: Path, events: int, seed: int, first: int) -> Sample:
    sample = _read(path, events, seed, first)
    assert sample is not None
    return sample
