"""Visibility from a table: voxels of a TPC by channel, as larnd-sim's light look-up tables."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from hepops.core.files import atomic

from ..detector import MARGIN, Detector
from .seen import AXES, Seen, frame_size

if TYPE_CHECKING:
    from .solid_angle import SolidAngle

NANOSECOND = 1e-3  # [us]
ROUNDING = 1e-6  # float32 tables: a visibility may exceed 1 by so much
INTERPOLATIONS = ("nearest", "trilinear")
DELAYS = ("first", "mean", "profile")


class VisibilityTable(nn.Module):
    """Visibility of equal voxels of a TPC, one number per channel; the same table for all TPCs, in their frames.

    Args:
        vis: (along, up, depth, channels): share of the photons made in a voxel that a channel detects; in [0, 1], and
            so is the sum over the channels.
        t0: The same shape: when the first photon arrives [ns].
        t0_avg: The same shape: when they arrive on average [ns]; None: as `t0`.
        time_dist: The same shape and bins of 1 ns: when they arrive, from the deposit on; None: not known.
        interpolation: "nearest": the voxel's number, as larnd-sim; "trilinear": between the voxels' middles, and
            constant beyond the outermost ones; continuous, and differentiable in position almost everywhere.
        delay: "first": all light at t0; "mean": at t0_avg (larnd-sim's choice without smearing); "profile": spread as
            time_dist, at the middles of its bins.
        extent: ((low, high), ...) of the voxels along the frame's axes [cm]; None: the TPC with a margin of 0.02 cm.
        tpcs: Indices of the TPCs that the table is for; None: all.

    Differentiable in the table (make `vis` an nn.Parameter), and with "trilinear" in the positions.

    Raises:
        ValueError: a visibility above 1, negative or NaN, a time negative or NaN, or a shape that does not fit.

    Example:
        >>> table = VisibilityTable(torch.full((2, 2, 2, 6), 0.01), torch.ones(2, 2, 2, 6))
        >>> middle = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
        >>> table(middle, 2 * middle).share[0].item()
        0.009999999776482582
    """

    vis: Tensor
    t0: Tensor
    t0_avg: Tensor
    time_dist: Tensor | None

    def __init__(
        self,
        vis: "Tensor | np.ndarray[Any, Any]",
        t0: "Tensor | np.ndarray[Any, Any]",
        t0_avg: "Tensor | np.ndarray[Any, Any] | None" = None,
        time_dist: "Tensor | np.ndarray[Any, Any] | None" = None,
        *,
        interpolation: str = "nearest",
        delay: str = "first",
        extent: Sequence[tuple[float, float]] | None = None,
        tpcs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"visibility: interpolation must be one of {list(INTERPOLATIONS)}, got {interpolation!r}")
        if delay not in DELAYS or (delay == "profile" and time_dist is None):
            known = DELAYS if time_dist is not None else DELAYS[:2]
            raise ValueError(f"visibility: delay must be one of {list(known)}, got {delay!r}")
        if extent is not None and (len(extent) != 3 or any(not low < high for low, high in extent)):
            raise ValueError(f"visibility: extent must be three pairs (low, high) [cm], got {extent}")
        self.interpolation, self.delay = interpolation, delay
        self.extent = None if extent is None else tuple((float(low), float(high)) for low, high in extent)
        self.tpcs = None if tpcs is None else tuple(int(t) for t in tpcs)
        self.register_buffer("vis", torch.as_tensor(vis, dtype=torch.float64))
        if self.vis.dim() != 4 or min(self.vis.shape) < 1:
            raise ValueError(f"visibility: vis must be (along, up, depth, channels), got {tuple(self.vis.shape)}")
        for name, value in (("t0", t0), ("t0_avg", t0 if t0_avg is None else t0_avg)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64))
            if getattr(self, name).shape != self.vis.shape:
                shapes = f"{tuple(getattr(self, name).shape)} and vis {tuple(self.vis.shape)}"
                raise ValueError(f"visibility: {name} has shape {shapes}: they must be equal")
        profile = None if time_dist is None else torch.as_tensor(time_dist, dtype=torch.float64)
        if profile is not None and (profile.dim() != 5 or profile.shape[:4] != self.vis.shape):
            raise ValueError(f"visibility: time_dist must be {(*self.vis.shape, 'bins')}, got {tuple(profile.shape)}")
        self.register_buffer("time_dist", profile)
        self._check_values()

    def _check_values(self) -> None:
        with torch.no_grad():
            _refuse("vis", self.vis, ~(self.vis >= 0), "a number >= 0")
            _refuse("vis", self.vis, self.vis > 1 + ROUNDING, "at most 1")
            total = self.vis.sum(-1)
            _refuse("the sum of vis over the channels", total, total > 1 + ROUNDING, "at most 1")
            for name in ("t0", "t0_avg"):
                value = getattr(self, name)
                _refuse(name, value, ~(torch.isfinite(value) & (value >= 0)), "a finite time >= 0 [ns]")
            if self.time_dist is not None:
                bad = ~(torch.isfinite(self.time_dist) & (self.time_dist >= 0))
                _refuse("time_dist", self.time_dist, bad, "a finite number >= 0")
                area = self.time_dist.sum(-1)
                empty = (area == 0) & (self.vis > 0)
                _refuse("the sum of time_dist", area, empty, "positive where vis is")

    @property
    def channels(self) -> int:
        """Channels of one TPC."""
        return int(self.vis.shape[3])

    def check(self, detector: Detector, channels: int) -> None:
        """Refuses a table of another readout or another TPC, or whose voxels do not cover a TPC."""
        if channels != self.channels:
            raise ValueError(
                f"visibility: the table has {self.channels} channels, the light readout {channels} per TPC"
            )
        for i, size in enumerate(frame_size(detector).tolist()):
            if self.tpcs is not None and i not in self.tpcs:
                raise ValueError(
                    f"visibility: the table is for TPCs {list(self.tpcs)}, {detector.name} has TPC {i} too"
                )
            if self.extent is None:
                continue
            for axis, (low, high), length in zip(AXES, self.extent, size, strict=True):
                if low > 1e-6 or high < length - 1e-6:
                    raise ValueError(
                        f"visibility: the voxels reach from {low} to {high} cm {axis}, "
                        f"TPC {i} of {detector.name} from 0 to {length:.4f} cm"
                    )

    def forward(self, at: Tensor, size: Tensor) -> Seen:
        """What the channels see of points (N, 3) in the frames of TPCs with extents (N, 3) [cm]."""
        counts = torch.tensor(self.vis.shape[:3], device=at.device)
        if self.extent is None:
            low, width = torch.full_like(size, -MARGIN), size + 2 * MARGIN
        else:
            edges = torch.tensor(self.extent, dtype=torch.float64, device=at.device)
            low, width = edges[:, 0], edges[:, 1] - edges[:, 0]
        place = (at - low) / width * counts  # in voxels
        times = self.t0 if self.delay == "first" else self.t0_avg
        if self.interpolation == "nearest":
            voxel = self._voxel(torch.minimum(place.detach().floor().long().clamp(min=0), counts - 1))
            share, delay = self._rows(self.vis, voxel), self._rows(times, voxel)
        else:
            share = delay = torch.zeros(self.channels, len(at), dtype=torch.float64, device=at.device)
            for voxel, weight in self._corners(place, counts):
                share = share + weight * self._rows(self.vis, voxel)
                delay = delay + weight * self._rows(times, voxel)
        if self.delay != "profile" or self.time_dist is None:
            return Seen(share, delay * NANOSECOND)
        voxel = self._voxel(torch.minimum(place.detach().floor().long().clamp(min=0), counts - 1))
        profile = self.time_dist.flatten(0, 2)[voxel].transpose(0, 1)  # of the voxel, in either interpolation
        area = profile.sum(-1, keepdim=True)
        profile = profile / torch.where(area > 0, area, torch.ones_like(area))
        half = torch.full_like(share, 0.5 * NANOSECOND)  # the middle of the first bin
        return Seen(share, half, profile, NANOSECOND)

    def _voxel(self, index: Tensor) -> Tensor:
        _, ny, nz, _ = self.vis.shape
        return (index[:, 0] * ny + index[:, 1]) * nz + index[:, 2]

    def _rows(self, table: Tensor, voxel: Tensor) -> Tensor:
        return table.flatten(0, 2)[voxel].T

    def _corners(self, place: Tensor, counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The eight voxels around each point and their weights."""
        between = torch.minimum((place - 0.5).clamp(min=0), (counts - 1).to(place))
        first = torch.minimum(between.detach().floor().long(), (counts - 2).clamp(min=0))
        part = between - first
        for corner in product((0, 1), repeat=3):
            step = torch.tensor(corner, device=place.device)
            weight = torch.where(step > 0, part, 1 - part).prod(1)
            yield self._voxel(torch.minimum(first + step, counts - 1)), weight

    @classmethod
    def read(cls, path: str | Path, **options: Any) -> Self:
        """A table of larnd-sim's kind: .npz (key "arr") or .npy with fields vis, t0, t0_avg and time_dist.

        Its axes are larnd-sim's x (our z, turned with the drift), y from the top, and the drift from the anode.
        larnd-sim itself raises voxels of no visibility to the least positive one; here they stay dark.

        Args:
            path: The file.
            **options: interpolation, delay, extent, tpcs; the last two are read from files that `write` made.

        Raises:
            ValueError: no such table, or one with values that have no meaning, with the file's name.
            FileNotFoundError: no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            content = np.load(path, allow_pickle=False)
            stored = {} if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: not a readable .npy or .npz file, truncated or foreign ({error})") from None
        table = content if isinstance(content, np.ndarray) else stored.get("arr")
        if table is None:
            raise ValueError(f"{path}: has no array 'arr', only {sorted(stored)}")
        names = table.dtype.names or ()
        if "vis" not in names or "t0" not in names:
            raise ValueError(f"{path}: needs the fields vis and t0, got {list(names) or table.dtype}")
        for name in ("vis", "t0", "t0_avg", "time_dist"):
            if name in names:
                options[name] = np.flip(table[name], 1).astype(np.float64)
        if "extent" in stored:
            options.setdefault("extent", [tuple(row) for row in stored["extent"].tolist()])
        if "tpcs" in stored:
            options.setdefault("tpcs", stored["tpcs"].tolist())
        try:
            return cls(**options)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def write(self, path: str | Path) -> None:
        """As larnd-sim's .npz, with `extent` and `tpcs` beside it where they are known; values as float32."""
        kind: list[Any] = [("vis", "f4"), ("t0", "f4"), ("t0_avg", "f4")]
        columns = {"vis": self.vis, "t0": self.t0, "t0_avg": self.t0_avg}
        if self.time_dist is not None:
            kind.append(("time_dist", "f4", (self.time_dist.shape[4],)))
            columns["time_dist"] = self.time_dist
        table = np.empty(tuple(self.vis.shape), dtype=kind)
        for name, column in columns.items():
            table[name] = np.flip(column.detach().cpu().numpy(), 1)
        more: dict[str, Any] = {} if self.extent is None else {"extent": np.array(self.extent)}
        if self.tpcs is not None:
            more["tpcs"] = np.array(self.tpcs)
        with atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, arr=table, **more)

    @classmethod
    def of(
        cls, model: "SolidAngle", detector: Detector, divisions: tuple[int, int, int] = (14, 26, 8), **options: Any
    ) -> Self:
        """The table of a solid-angle model, at the middles of the voxels of the detector's first TPC."""
        size = frame_size(detector)[0]
        low, width = -MARGIN, size + 2 * MARGIN
        axes = [low + width[k] * (torch.arange(n).double() + 0.5) / n for k, n in enumerate(divisions)]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        with torch.no_grad():
            seen = model(points, size.expand_as(points))
        shape = (*divisions, model.channels)
        return cls(seen.share.T.reshape(shape), seen.delay.T.reshape(shape) / NANOSECOND, **options)


def _refuse(name: str, values: Tensor, bad: Tensor, expected: str) -> None:
    if bool(bad.any()):
        where = torch.nonzero(bad)[0].tolist()
        voxel = f"voxel {tuple(where[:3])}" + (f", channel {where[3]}" if len(where) > 3 else "")
        raise ValueError(f"visibility: {name} of {voxel} is {values[tuple(where)].item():.6g}, expected {expected}")
