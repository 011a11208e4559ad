"""Voxels: the hits of a pixel detector in cubes, as sparse convolutions take them.

  c_a = floor((r_a - origin_a) / size)        a = x (drift), y, z;        charge of a voxel = sum over its hits

The truth of a voxel is the class of segments that made most of its charge: sum over its hits of fraction x charge,
by class.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hepops.core.scatter_add import scatter_add

from .detector import Detector
from .hits import Hits

NO_TRUTH = -1  # a voxel without charge of any segment: noise


class Voxels(NamedTuple):
    """Hits in voxels, sorted by (event, x, y, z), each voxel once."""

    coordinates: Tensor  # int64 (num_voxels, 4)  event x y z
    charge: Tensor  # float (num_voxels)          [e]
    num_hits: Tensor  # int64 (num_voxels)
    voxel: Tensor  # int64 (num_hits)             row of the voxel that a hit lies in
    size: float  # [cm]
    origin: tuple[float, float, float]  # [cm]

    def centres(self) -> Tensor:
        """Middle of every voxel, x y z, float64 (num_voxels, 3) [cm]."""
        shift = torch.tensor(self.origin, dtype=torch.float64, device=self.coordinates.device)
        return shift + self.size * (self.coordinates[:, 1:] + 0.5)


def voxelize(hits: Hits, size: float, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Voxels:
    """Sum hits in cubes.

    Args:
        hits: Of any number of events.
        size: Side of a cube [cm].
        origin: A corner of the cube (0, 0, 0), x y z [cm]; `corner` gives a detector's.

    Returns:
        `Voxels`. The charge is differentiable with respect to `hits.charge`, any number of times.
        Deterministic, on a GPU too: sums are in the order of the hits.

    Raises:
        ValueError: size is not positive, or a hit's position is not finite or lies 2^31 voxels away.

    Example:
        >>> from hepops.lartpc import Detector, Simulator, gun
        >>> detector = Detector.module0()
        >>> hits = Simulator(detector)(gun.shoot(detector, events=1))
        >>> voxels = voxelize(hits, detector.pixel_pitch, corner(detector))
        >>> bool((voxels.charge.sum() - hits.charge.sum()).abs() < 1e-5 * hits.charge.sum())
        True
    """
    if not 0 < size < float("inf"):
        raise ValueError(f"voxelize: size must be positive and finite, got {size} [cm]")
    position = torch.stack((hits.x, hits.y, hits.z), 1).detach().to(torch.float64)
    shift = torch.tensor(origin, dtype=torch.float64, device=position.device)
    cell = torch.floor((position - shift) / size)
    bad = ~(cell.abs() < 2**31).all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"voxelize: hit {row} lies at {position[row].tolist()}, expected numbers below 2^31 voxels")
    keys = torch.cat([hits.event[:, None], cell.to(torch.int64)], 1)
    if len(keys):
        coordinates, voxel = torch.unique(keys, dim=0, return_inverse=True)
    else:
        coordinates, voxel = keys, hits.event
    charge: Tensor = scatter_add(voxel, hits.charge, len(coordinates))
    return Voxels(coordinates, charge, torch.bincount(voxel, minlength=len(coordinates)), voxel, float(size), origin)


def corner(detector: Detector) -> tuple[float, float, float]:
    """The lowest x, y, z of the TPCs [cm]: from there, in cubes of the pitch, a pixel is a column of voxels."""
    corners = [(min(t.anode, t.cathode), t.y[0], t.z[0]) for t in detector.tpcs]
    x, y, z = (min(along) for along in zip(*corners, strict=True))
    return x, y, z


def voxel_labels(hits: Hits, voxels: Voxels, label: Tensor, num_classes: int) -> Tensor:
    """The class of segments that made most of each voxel's charge.

    Args:
        hits: Simulated with ``truth=True``.
        voxels: Of these hits.
        label: Class of every segment that was simulated, int64 (num_segments), from 0 to num_classes - 1.
        num_classes: Number of classes.

    Returns:
        int64 (num_voxels); of equal shares the lowest class; `NO_TRUTH` (-1) where no segment gave charge.
        Deterministic.

    Raises:
        ValueError: hits without truth, a label out of range, or of a number of segments that does not fit.
    """
    if hits.truth is None:
        raise ValueError("voxel_labels: hits must be simulated with truth=True, they have no truth")
    hit, segment, fraction = hits.truth
    if label.ndim != 1 or (len(segment) and len(label) <= int(segment.max())):
        raise ValueError(f"voxel_labels: label must be (num_segments), got {tuple(label.shape)}")
    if len(label) and not 0 <= int(label.min()) <= int(label.max()) < num_classes:
        raise ValueError(
            f"voxel_labels: label must lie in 0 ... {num_classes - 1}, got {int(label.min())} ... {int(label.max())}"
        )
    given = (fraction * hits.charge.detach()[hit]).to(torch.float64)
    by_class = scatter_add(voxels.voxel[hit] * num_classes + label[segment], given, len(voxels.charge) * num_classes)
    most, which = by_class.reshape(-1, num_classes).max(1)
    first = (by_class.reshape(-1, num_classes) == most[:, None]).to(torch.int64).argmax(1)
    return torch.where(most > 0, first, torch.full_like(which, NO_TRUTH))
