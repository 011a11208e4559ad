"""What a model of visibility answers, and the frame in which it is asked.

The frame is that of a TPC, the same for both orientations of the drift, so that one model serves all TPCs of a kind:

    along    from the low edge along z where the drift runs to greater x, from the high edge where it runs to smaller x
    up       y from the low edge
    depth    distance from the anode

The other orientation is the first one turned by half a turn about y (larnd-sim's convention for its tables as well).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..detector import Detector

AXES = ("along", "up", "depth")


class Seen(NamedTuple):
    """What each of a TPC's channels sees of points in its volume."""

    share: Tensor  # float64 (channels, N): of the photons made there, that reach the detector and are converted [1]
    delay: Tensor  # float64 (channels, N): from the deposit to the first of them [us]
    profile: Tensor | None = None  # float64 (channels, N, bins): how they spread over later times; sums to 1
    bin: float = 0.0  # width of the profile's bins [us]


def frame_size(detector: Detector, device: torch.device | None = None) -> Tensor:
    """Extents of the TPCs in their frames, float64 (num_tpcs, 3) [cm]."""
    sizes = [(t.z[1] - t.z[0], t.y[1] - t.y[0], t.drift_length) for t in detector.tpcs]
    return torch.tensor(sizes, dtype=torch.float64, device=device)


def to_frame(points: Tensor, tpc: Tensor, detector: Detector) -> Tensor:
    """Points x y z (N, 3) of the detector in the frames of their TPCs (N) [cm]; differentiable."""
    g = detector._on(points.device)
    direction = g.direction[tpc]
    along = torch.where(direction > 0, points[:, 2] - g.z[tpc, 0], g.z[tpc, 1] - points[:, 2])
    return torch.stack((along, points[:, 1] - g.y[tpc, 0], (points[:, 0] - g.anode[tpc]) * direction), 1)


def turned(at: Tensor, tpc: Tensor, detector: Detector) -> Tensor:
    """Points u v depth of the pixel planes (`Pieces`), u along z, in the frames of their TPCs (N, 3) [cm]."""
    g = detector._on(at.device)
    along = torch.where(g.direction[tpc] > 0, at[:, 0], g.z[tpc, 1] - g.z[tpc, 0] - at[:, 0])
    return torch.stack((along, at[:, 1], at[:, 2]), 1)
