"""A program of someone else's, for type checkers in their strict modes: mypy and pyright (make check)."""

from typing import TYPE_CHECKING

import hepops
import torch
from hepops.flows import nsf
from hepops.lartpc import Detector, Hits, Segments, Simulator, gun
from hepops.lattice import SUN
from hepops.sparse import SparseTensor
from torch import Tensor


def simulate(events: int) -> Hits:
    detector = Detector.module0()
    segments: Segments = gun.shoot(detector, events=events, particle="proton", seed=1)
    hits: Hits = Simulator(detector)(segments)  # torch leaves the call of a module untyped
    return hits


def charge(dedx: Tensor) -> Tensor:
    return hepops.lartpc.recombine(dedx, field=0.5)


def action(beta: float) -> Tensor:
    theory = SUN(3, (4, 4), beta=beta)
    return theory.action(theory.cold(2))


def density(x: Tensor) -> float:
    return float(nsf(features=2).log_prob(x).mean())


def voxels(features: Tensor, coordinates: Tensor) -> int:
    return len(SparseTensor(features, coordinates).features)


if TYPE_CHECKING:  # names that are misspelt are errors: mypy complains of an ignore that nothing needs
    misspelt = hepops.lartpcs  # type: ignore[attr-defined]
    absent = hepops.compat.minkowsky  # type: ignore[attr-defined]


if __name__ == "__main__":
    print(hepops.__version__, hepops.cmake_path, simulate(1).charge.sum(), charge(torch.ones(1)), action(4.0))
