"""What the front end reads: hits, with their truth, and one HDF5 layout for them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Truth(NamedTuple):
    """Which segments made which hit, as a sparse matrix (num_hits, num_segments) in coordinate form, without a cap."""

    hit: Tensor  # int64 (num_entries)
    segment: Tensor  # int64 (num_entries)
    fraction: Tensor  # float (num_entries)    share of the hit's charge


@dataclass(frozen=True)
class Hits:
    """Hits of a simulated or measured detector; one row per hit."""

    event: Tensor  # int64 (num_hits)
    tpc: Tensor  # int64 (num_hits)
    ix: Tensor  # int64 (num_hits)           pixel along z
    iy: Tensor  # int64 (num_hits)           pixel along y
    x: Tensor  # float (num_hits)            drift coordinate reconstructed from the time [cm]
    y: Tensor  # float (num_hits)            pixel centre [cm]
    z: Tensor  # float (num_hits)            pixel centre [cm]
    time: Tensor  # float (num_hits)         threshold crossing [us]
    charge: Tensor  # float (num_hits)       [e]
    adc: Tensor  # (num_hits)                ADC counts, integer or, where a gradient is asked for, float
    row: Tensor  # int64 (num_hits)          row of the Waveforms
    rank: Tensor  # int64 (num_hits)         0, 1, ... within the pixel
    time_tangents: Tensor | None = None  # float (num_tangents, num_hits)
    charge_tangents: Tensor | None = None  # float (num_tangents, num_hits)
    tangent_names: tuple[str, ...] = ()
    truth: Truth | None = None
    reports: dict[str, Any] = field(default_factory=dict)  # rejections, losses, ...

    def __len__(self) -> int:
        return self.event.shape[0]
