"""Field maps: where the charge made at a point arrives, and the field in which it recombines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .detector import TPC, Detector
from .trilinear import trilinear

AXES = "xyz"
UNLIKELY = 8.0  # no distortion makes the mean field as many times the nominal one; other units do (V/cm, kV/m, MV/m)


class FieldPoint(NamedTuple):
    """A field map at points."""

    displacement: Tensor  # (N, 3) apparent minus true position [cm]
    ratio: Tensor  # (N) field there over the map's nominal field [1]


@dataclass(frozen=True)
class FieldMap:
    r"""Displacement of charge and strength of the field on a regular grid, trilinear between its nodes.

    Along y and z the displacement is where the charge reaches the plane of the anode, minus where it was made. Along
    the drift it is apparent minus true x, the apparent position being that from which a uniform nominal field would
    have taken as long:

    .. math:: \delta_x = \pm\Big(v(E_0)\, t_d - d\Big), \qquad t_d = \int \frac{\mathrm{d}s}{v(E(s))}

    with d the distance to the anode and + where x grows away from it. All is in the frame of the detector.

    Args:
        displacement: float64 (nx, ny, nz, 3), x y z [cm].
        field: float64 (nx, ny, nz), its magnitude, or (nx, ny, nz, 3) [kV/cm].
        origin: x y z of node (0, 0, 0) [cm].
        spacing: Of the nodes along x y z [cm].
        nominal: The uniform field E_0 that the map distorts [kV/cm]. A simulator whose drift field is another keeps the
            distortion: displacements in cm, and the field in proportion.

    Tensors with `requires_grad` receive gradients through a simulator.

    Raises:
        ValueError: a shape, a spacing or a number does not fit; a value is not finite; a field is not positive, or in
            the mean so far from the nominal one that it must be in other units; the tensors' devices differ.
        TypeError: a tensor is not float64.

    Example:
        >>> flat = FieldMap(torch.zeros(2, 2, 2, 3).double(), torch.full((2, 2, 2), 0.5).double(),
        ...                 origin=(0, 0, 0), spacing=(30, 60, 60))
        >>> flat.at(torch.tensor([[15.0, 10.0, 10.0]]).double()).ratio
        tensor([1.], dtype=torch.float64)
    """

    displacement: Tensor
    field: Tensor
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    nominal: float = 0.5

    def __post_init__(self) -> None:
        for name in ("origin", "spacing"):
            numbers = tuple(float(x) for x in getattr(self, name))
            if len(numbers) != 3 or not all(abs(x) < 1e9 for x in numbers):
                raise ValueError(f"FieldMap: {name} must be three finite numbers [cm], got {getattr(self, name)}")
            object.__setattr__(self, name, numbers)
        if not all(h > 0 for h in self.spacing):
            raise ValueError(f"FieldMap: spacing must be positive [cm], got {self.spacing}")
        if not 0 < self.nominal < math.inf:
            raise ValueError(f"FieldMap: nominal must be positive and finite [kV/cm], got {self.nominal}")
        shape = tuple(self.displacement.shape)
        if len(shape) != 4 or shape[3] != 3 or min(shape) < 2:
            raise ValueError(
                f"FieldMap: displacement must be (nx, ny, nz, 3) with two nodes or more along each axis, got {shape}"
            )
        if tuple(self.field.shape) not in (shape[:3], shape):
            raise ValueError(f"FieldMap: field must be {shape[:3]} or {shape}, got {tuple(self.field.shape)}")
        for name in ("displacement", "field"):
            values = getattr(self, name)
            if values.dtype != torch.float64:
                raise TypeError(f"FieldMap: {name} must be float64, got {values.dtype}")
            if not bool(torch.isfinite(values.detach()).all()):
                raise ValueError(f"FieldMap: {name} holds NaN or infinity")
        if self.displacement.device != self.field.device:
            raise ValueError(f"FieldMap: displacement is on {self.displacement.device}, field on {self.field.device}")
        magnitude = self.magnitude.detach()
        weakest, mean = float(magnitude.min()), float(magnitude.mean())
        if not weakest > 0:
            raise ValueError(f"FieldMap: the field must be positive everywhere [kV/cm], its least is {weakest}")
        if not 1 / UNLIKELY < mean / self.nominal < UNLIKELY:
            raise ValueError(
                f"FieldMap: the field is {mean:g} kV/cm in the mean, the nominal one {self.nominal:g} kV/cm: is one of "
                "them in other units?"
            )

    @property
    def magnitude(self) -> Tensor:
        """Strength of the field at the nodes (nx, ny, nz) [kV/cm]."""
        return self.field if self.field.dim() == 3 else self.field.norm(dim=3)

    @property
    def ends(self) -> tuple[tuple[float, float], ...]:
        """Ends of the grid along x, y and z [cm]."""
        return tuple(
            (o, o + h * (n - 1)) for o, h, n in zip(self.origin, self.spacing, self.displacement.shape[:3], strict=True)
        )

    def at(self, points: Tensor, outside: str = "error") -> FieldPoint:
        """The map at points x y z, float64 (N, 3) [cm]; `outside` as for `trilinear`. Differentiable in both."""
        channels = torch.cat([self.displacement.movedim(3, 0), self.magnitude[None] / self.nominal])
        values = trilinear(channels, points, self.origin, self.spacing, outside)
        return FieldPoint(values[:, :3], values[:, 3])

    def check_covers(self, tpc: TPC, name: str = "the TPC") -> None:
        """Refuse a map that does not reach from end to end of a drift volume.

        Raises:
            ValueError: names the axis, the ends of the volume and those of the map.
        """
        wanted = (tuple(sorted((tpc.anode, tpc.cathode))), tpc.y, tpc.z)
        for axis, (low, high), (first, last) in zip(AXES, wanted, self.ends, strict=True):
            slack = 1e-9 * (abs(low) + abs(high))
            if not (first <= low + slack and high <= last + slack):
                raise ValueError(
                    f"FieldMap: {name} reaches from {axis} = {low} to {high} cm, the map only from {first} to {last} cm"
                )

    def check_unfolded(self, tpc: TPC, name: str = "the TPC") -> None:
        """Refuse a map that folds a drift volume, or throws charge farther than the volume is wide.

        Charge that is made farther along an axis must arrive farther along it, on every line of nodes: paths of drift
        do not cross, and what is made farther from the anode arrives later. Cells beyond the volume are not looked at.

        Raises:
            ValueError: names the axis, the place and the displacements.
        """
        wanted = (tuple(sorted((tpc.anode, tpc.cathode))), tpc.y, tpc.z)
        some = []
        for (low, high), o, h, n in zip(wanted, self.origin, self.spacing, self.displacement.shape[:3], strict=True):
            first, last = math.floor((low - o) / h + 1e-9), math.ceil((high - o) / h - 1e-9)
            some.append(slice(max(first, 0), min(last, n - 1) + 1))
        inside = self.displacement.detach()[some[0], some[1], some[2]]

        def place(index: Tensor) -> list[float]:
            nodes = zip(self.origin, self.spacing, some, index.tolist(), strict=True)
            return [o + h * (s.start + i) for o, h, s, i in nodes]

        for axis, (low, high) in enumerate(wanted):
            shift, h = inside[..., axis], self.spacing[axis]
            largest = float(shift.abs().max())
            if largest > high - low:
                raise ValueError(
                    f"FieldMap: along {AXES[axis]} the map moves charge of {name} by up to {largest:g} cm, which is "
                    f"{high - low:g} cm wide: is the displacement in cm?"
                )
            steps = h + shift.diff(dim=axis)
            if bool((steps <= 0).any()):
                node = torch.nonzero(steps <= 0)[0]
                after = node.clone()
                after[axis] += 1
                raise ValueError(
                    f"FieldMap: the map folds {name} along {AXES[axis]}: from x y z = {place(node)} to {place(after)} "
                    f"cm the displacement goes from {float(shift[tuple(node)]):g} to {float(shift[tuple(after)]):g} cm"
                    "; where it jumps, as at a cathode, each side needs a map of its own"
                )

    def to(self, device: torch.device | str) -> "FieldMap":
        """The map on another device; the map itself if it is there."""
        if self.displacement.device == torch.empty(0, device=device).device:
            return self
        return replace(self, displacement=self.displacement.to(device), field=self.field.to(device))

    def scaled(self, amplitude: float | Tensor) -> "FieldMap":
        """The distortion times an amplitude: of the displacements, and of the field's difference to the nominal one."""
        field = self.nominal + amplitude * (self.magnitude - self.nominal)
        return replace(self, displacement=amplitude * self.displacement, field=field)

    @staticmethod
    def sum(maps: Sequence["FieldMap"], amplitudes: Tensor | Sequence[float]) -> "FieldMap":
        """Several distortions on one grid, each times its amplitude: what a fit of a few amplitudes turns.

        Raises:
            ValueError: the maps differ in grid or nominal field, or there are not as many amplitudes.
        """
        if len(maps) == 0 or len(maps) != len(amplitudes):
            raise ValueError(f"FieldMap.sum: {len(maps)} maps with {len(amplitudes)} amplitudes")
        first = maps[0]
        for m in maps[1:]:
            same = (m.origin, m.spacing, m.nominal, m.magnitude.shape)
            if same != (first.origin, first.spacing, first.nominal, first.magnitude.shape):
                raise ValueError("FieldMap.sum: the maps differ in grid or nominal field")
        scaled = [m.scaled(a) for m, a in zip(maps, amplitudes, strict=True)]
        field = sum((m.field - first.nominal for m in scaled), torch.full_like(first.magnitude, first.nominal))
        return replace(first, displacement=torch.stack([m.displacement for m in scaled]).sum(0), field=field)

    def write(self, path: str | Path) -> None:
        """Write HDF5, whole or not at all; see `FieldMap.read`."""
        from .field_map_io import write

        write(self, path)

    @staticmethod
    def read(path: str | Path) -> "FieldMap":
        """Read what `write` wrote: datasets displacement [cm] and field [kV/cm], attributes origin, spacing, nominal.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, is no field map, or its units are not ours.
        """
        from .field_map_io import read

        return read(path)

    @staticmethod
    def read_root(path: str | Path, nominal: float, suffix: str = "", electric: bool = True) -> "FieldMap":
        """Read the three-dimensional histograms of LArSoft's space charge services (needs `uproot`).

        Args:
            path: ROOT file with TH3 TrueFwd_Displacement_X, _Y, _Z [cm] and True_ElecField_X, _Y, _Z, of which the
                latter are offsets relative to the nominal field, along the drift's first. Bin centres are the nodes.
            nominal: Drift field of the map [kV/cm].
            suffix: At the end of every name, as "_E" and "_W" of SBND's two drift volumes.
            electric: False: the file has no field; it is taken as nominal.

        Raises:
            ImportError: uproot is not installed.
            FileNotFoundError: there is no such file.
            ValueError: a histogram is missing, bins are not regular, or the histograms differ in their bins.
        """
        from .field_map_io import read_root

        return read_root(path, nominal, suffix, electric)


def per_tpc(maps: "FieldMap | Sequence[FieldMap]", detector: Detector) -> tuple[FieldMap, ...]:
    """One map per TPC, from one for all or as many as there are; refuses one that does not cover or folds its TPC."""
    if not isinstance(maps, FieldMap | Sequence):
        raise TypeError(f"Simulator: field_map must be a FieldMap or a sequence of them, got {type(maps).__name__}")
    count = len(detector.tpcs)
    some = (maps,) * count if isinstance(maps, FieldMap) else tuple(maps)
    if len(some) != count or not all(isinstance(m, FieldMap) for m in some):
        raise ValueError(f"Simulator: field_map must be one FieldMap or one for each of {count} TPCs, got {len(some)}")
    for number, (tpc, m) in enumerate(zip(detector.tpcs, some, strict=True)):
        m.check_covers(tpc, f"TPC {number}")
        m.check_unfolded(tpc, f"TPC {number}")
    return some
