"""Energy deposits along straight segments, as edep-sim writes them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Straight segments of charged tracks in the file's frame: x drift, y up, z beam, any device.

    What a reader left out is counted in `excluded`, what it kept but noticed in `notes`; nothing is silent.
    """

    event: Tensor  # int64 (num_segments)       >= 0
    start: Tensor  # float64 (num_segments, 3)  x y z [cm]
    end: Tensor  # float64 (num_segments, 3)    x y z [cm]
    dE: Tensor  # float64 (num_segments)        energy deposited [MeV]
    dEdx: Tensor  # float64 (num_segments)      energy per unit length of the true path [MeV/cm]
    t0: Tensor  # float64 (num_segments)        time of the deposit [us]
    pdg: Tensor  # int64 (num_segments)         particle code of the Particle Data Group
    track: Tensor  # int64 (num_segments)
    excluded: dict[str, int] = field(default_factory=dict)  # reason -> segments left out
    notes: dict[str, int] = field(default_factory=dict)  # remark -> how many it concerns

    def __len__(self) -> int:
        return self.event.shape[0]


def read_segments(
    source: str | Path | Sequence[str | Path] | np.ndarray[Any, Any] | Mapping[str, Any],
    *,
    events: slice | Iterable[int] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    on_bad: Literal["raise", "exclude"] = "raise",
    same_event: Literal["raise", "merge", "renumber"] = "raise",
) -> Segments:
    """Read edep-sim segments."""
    raise NotImplementedError


__all__ = ["Segments", "read_segments"]
