"""What the front end reads: hits, with their truth, and one HDF5 layout for them.

The file (version 1), readable by anything that reads HDF5:

    /                    attributes format = "hepops.lartpc.hits", version, hepops (the library's version)
    /hits/<name>         the columns event tpc ix iy x y z time charge adc row rank (num_hits), attribute units
    /hits/time_tangents, /hits/charge_tangents    (num_tangents, num_hits) where there are; attribute names
    /truth/hit, segment, fraction                 (num_entries) where there is truth: its sparse matrix, without a cap
    /reports             attribute json: counts of what was rejected or lost
    /config              one attribute of JSON per part: detector, parameters, simulator, seed ...

Every number is stored as it is in memory: to read a file back gives the same bits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from ._model import Record
from .detector import Detector
from .parameters import Parameters

FORMAT, VERSION = "hepops.lartpc.hits", 1
_COLUMNS = ("event", "tpc", "ix", "iy", "x", "y", "z", "time", "charge", "adc", "row", "rank")
_INTEGERS = ("event", "tpc", "ix", "iy", "row", "rank")
_UNITS = {"x": "cm", "y": "cm", "z": "cm", "time": "us", "charge": "e", "adc": "ADC counts"}
_RECORDS: dict[str, type[Record]] = {"detector": Detector, "parameters": Parameters}


class Truth(NamedTuple):
    """Which segments made which hit: a sparse matrix (num_hits, num_segments) in coordinate form, without a cap."""

    hit: Tensor  # int64 (num_entries)
    segment: Tensor  # int64 (num_entries)
    fraction: Tensor  # float (num_entries)  share of the hit's charge


class PixelSums(NamedTuple):
    """Hits added up pixel by pixel, pixels in the order (event, tpc, iy, ix)."""

    event: Tensor  # int64 (num_pixels)
    tpc: Tensor  # int64 (num_pixels)
    ix: Tensor  # int64 (num_pixels)
    iy: Tensor  # int64 (num_pixels)
    num_hits: Tensor  # int64 (num_pixels)
    charge: Tensor  # float (num_pixels)    sum [e]
    time: Tensor  # float (num_pixels)      mean, weighted with the charge [us]


@dataclass(frozen=True)
class Hits:
    """Hits of a simulated or measured detector, one row each, on any device.

    An index (mask, slice, index tensor) gives the Hits that it selects, with their truth and tangents.

    Raises:
        ValueError: a column's shape or kind does not fit.
    """

    event: Tensor  # int64 (num_hits)
    tpc: Tensor  # int64 (num_hits)
    ix: Tensor  # int64 (num_hits)    pixel along z
    iy: Tensor  # int64 (num_hits)    pixel along y
    x: Tensor  # float (num_hits)     drift coordinate, time reckoned from the event's first deposit [cm]
    y: Tensor  # float (num_hits)     pixel centre [cm]
    z: Tensor  # float (num_hits)     pixel centre [cm]
    time: Tensor  # float (num_hits)  threshold crossing [us]
    charge: Tensor  # float (num_hits) [e]
    adc: Tensor  # (num_hits)         counts, integers, or real where they carry a gradient
    row: Tensor  # int64 (num_hits)   row of the Waveforms
    rank: Tensor  # int64 (num_hits)  0, 1, ... within the pixel
    time_tangents: Tensor | None = None  # float (num_tangents, num_hits)   d time / d parameter
    charge_tangents: Tensor | None = None  # float (num_tangents, num_hits) d charge / d parameter
    tangent_names: tuple[str, ...] = ()  # the parameters of the tangents
    truth: Truth | None = None
    reports: dict[str, Any] = field(default_factory=dict)  # rejections, losses ...: whatever JSON can hold

    def __post_init__(self) -> None:
        n = self.event.shape[0] if self.event.ndim else -1
        for name, column in self.columns().items():
            if tuple(column.shape) != (n,):
                raise ValueError(f"Hits: {name} must have shape ({n},), got {tuple(column.shape)}")
            if name in _INTEGERS and column.dtype != torch.int64:
                raise ValueError(f"Hits: {name} must be int64, got {column.dtype}")
        for name, tangents in self._tangents().items():
            rows = len(self.tangent_names) or tangents.shape[0]
            if tuple(tangents.shape) != (rows, n):
                raise ValueError(f"Hits: {name} must have shape ({rows}, {n}), got {tuple(tangents.shape)}")
        if self.truth is not None and len({tuple(part.shape) for part in self.truth}) != 1:
            raise ValueError(f"Hits: truth must hold three equal lengths, got {[tuple(p.shape) for p in self.truth]}")

    def __len__(self) -> int:
        return self.event.shape[0]

    def __repr__(self) -> str:
        facts = [f"{len(self)} hits of {len(torch.unique(self.event))} events"]
        if len(self):
            time, charge = self.time.detach(), float(self.charge.detach().double().sum())
            facts.append(f"{charge:.4g} e, {float(time.min()):.4g} ... {float(time.max()):.4g} us")
        facts += [f"tangents of {', '.join(self.tangent_names)}"] if self.tangent_names else []
        facts += ["with truth"] if self.truth is not None else []
        return f"Hits({'; '.join([*facts, str(self.event.device)])})"

    def columns(self) -> dict[str, Tensor]:
        """The columns by name."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def _tangents(self) -> dict[str, Tensor]:
        both = {"time_tangents": self.time_tangents, "charge_tangents": self.charge_tangents}
        return {name: tangents for name, tangents in both.items() if tangents is not None}

    def __getitem__(self, index: Any) -> Self:
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        rows = torch.arange(len(self), device=self.event.device)[index]
        changes: dict[str, Any] = {name: column[rows] for name, column in self.columns().items()}
        changes |= {name: tangents[:, rows] for name, tangents in self._tangents().items()}
        if self.truth is not None:
            changes["truth"] = _select(self.truth, rows, len(self))
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        changes: dict[str, Any] = {n: c.to(device) for n, c in (self.columns() | self._tangents()).items()}
        if self.truth is not None:
            changes["truth"] = Truth(*(part.to(device) for part in self.truth))
        return replace(self, **changes)

    def numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """The columns as numpy arrays, detached, on the CPU."""
        return {name: column.detach().cpu().numpy() for name, column in self.columns().items()}

    def sort(self) -> Self:
        """By event, tpc, iy, ix and time; equal ones keep their order."""
        order = torch.arange(len(self), device=self.event.device)
        for key in (self.time.detach(), self.ix, self.iy, self.tpc, self.event):
            order = order[torch.argsort(key[order], stable=True)]
        return self[order]

    def per_pixel(self) -> PixelSums:
        """Sums over the hits of each pixel of each event.

        Differentiable with respect to charge and time, any number of times. Deterministic on the CPU; on a GPU the
        last digit of a sum may change from run to run.
        """
        keys = torch.stack([self.event, self.tpc, self.iy, self.ix], 1)
        pixels, of = torch.unique(keys, dim=0, return_inverse=True)
        zeros = self.charge.new_zeros(len(pixels))
        charge = zeros.index_add(0, of, self.charge)
        time = zeros.index_add(0, of, self.charge * self.time.to(self.charge.dtype)) / charge
        num_hits = torch.bincount(of, minlength=len(pixels))
        event, tpc, iy, ix = pixels.unbind(1)
        return PixelSums(event, tpc, ix, iy, num_hits, charge, time)

    @classmethod
    def cat(cls, parts: Sequence["Hits"]) -> "Hits":
        """The hits of one simulation that was run in parts: one after the other, as the whole would have them.

        `row` counts on where the part before has its last pixel (its report "pixels"), `truth.hit` where it has its
        last hit; `truth.segment` is taken as it is. Reports that are numbers are added.

        Raises:
            ValueError: no part, parts of which some have truth or tangents and others not, or without report "pixels".
        """
        if not parts:
            raise ValueError("Hits.cat: needs at least one part")
        for name in ("truth", "time_tangents", "charge_tangents"):
            if len({getattr(part, name) is None for part in parts}) > 1:
                raise ValueError(f"Hits.cat: some parts have {name} and others have not")
        if len(parts) > 1 and not all("pixels" in part.reports for part in parts):
            raise ValueError("Hits.cat: a part does not report its pixels")
        hits, pixels, moved = 0, 0, []
        for part in parts:
            truth = part.truth and part.truth._replace(hit=part.truth.hit + hits)
            moved.append(replace(part, row=part.row + pixels, truth=truth))
            hits, pixels = hits + len(part), pixels + part.reports.get("pixels", 0)
        changes: dict[str, Any] = {n: torch.cat([getattr(part, n) for part in moved]) for n in _COLUMNS}
        changes |= {n: torch.cat([part._tangents()[n] for part in moved], 1) for n in parts[0]._tangents()}
        if parts[0].truth is not None:
            changes["truth"] = Truth(*(torch.cat(c) for c in zip(*(p.truth for p in moved if p.truth), strict=True)))
        first = parts[0].reports
        sums = {n: sum(p.reports.get(n, 0) for p in parts) for n, v in first.items() if isinstance(v, int | float)}
        return replace(parts[0], **changes, reports={**first, **sums})

    def save(self, path: str | Path, config: Mapping[str, Any] | None = None) -> None:
        """Write the file; it is whole or not there, and an existing one is replaced at the end.

        Args:
            path: The file.
            config: What the hits were made with, by name: detector (a Detector), parameters (Parameters), and whatever
                else JSON can hold, such as simulator, seed. `read_config` gives the same objects back.

        Raises:
            TypeError: something in `config` or `reports` that JSON cannot hold, by name.
        """
        import h5py

        from hepops import _core

        texts = {str(name): _json(f"config[{name!r}]", value) for name, value in (config or {}).items()}
        reports = _json("reports", self.reports)
        # From 1.8 on HDF5 holds attributes above 64 kB: a detector of 70 TPCs is 10 kB.
        with atomic(path) as part, h5py.File(part, "w", libver=("v108", "v110")) as file:
            file.attrs.update(format=FORMAT, version=VERSION, hepops=_core.version)
            group = file.create_group("hits")
            for name, column in self.numpy().items():
                group.create_dataset(name, data=column).attrs["units"] = _UNITS.get(name, "1")
            for name, tangents in self._tangents().items():
                dataset = group.create_dataset(name, data=tangents.detach().cpu().numpy())
                dataset.attrs["names"] = json.dumps(self.tangent_names)
            if self.truth is not None:
                for name, values in self.truth._asdict().items():
                    file.create_dataset(f"truth/{name}", data=values.detach().cpu().numpy())
            file.create_group("reports").attrs["json"] = reports
            file.create_group("config").attrs.update(texts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Hits as `save` wrote them, to the last bit, on the CPU.

        Raises:
            ValueError: truncated, of another format, or of a later version, in one line.
            FileNotFoundError: no such file.
        """
        with open_hdf5(path) as file:
            _check_format(path, file)
            try:
                columns: dict[str, Any] = {name: _tensor(file["hits"][name]) for name in _COLUMNS}
                for name in ("time_tangents", "charge_tangents"):
                    if name in file["hits"]:
                        columns[name] = _tensor(file["hits"][name])
                        columns["tangent_names"] = tuple(json.loads(file["hits"][name].attrs["names"]))
                if "truth" in file:
                    columns["truth"] = Truth(*(_tensor(file["truth"][name]) for name in Truth._fields))
                columns["reports"] = json.loads(file["reports"].attrs["json"])
            except KeyError as error:
                raise ValueError(f"{path}: incomplete, {error.args[0]}") from None
            try:
                return cls(**columns)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None


def read_hits(path: str | Path) -> Hits:
    """Hits of a file that `Hits.save` wrote; see `Hits.load`."""
    return Hits.load(path)


def read_config(path: str | Path) -> dict[str, Any]:
    """What the hits of a file were made with, as it was given to `Hits.save`; Detector and Parameters are such again.

    Raises:
        ValueError: truncated, of another format, or of a later version, in one line.
        FileNotFoundError: no such file.
    """
    with open_hdf5(path) as file:
        _check_format(path, file)
        if "config" not in file:
            raise ValueError(f"{path}: incomplete, it has no config")
        values = {name: json.loads(text) for name, text in file["config"].attrs.items()}
    return {name: _RECORDS[name].from_dict(v) if name in _RECORDS else v for name, v in values.items()}


def _select(truth: Truth, rows: Tensor, num_hits: int) -> Truth:
    """The entries of the chosen hits, with the hits' new numbers; a hit chosen twice has them twice."""
    order = torch.argsort(truth.hit, stable=True)
    counts = torch.bincount(truth.hit, minlength=num_hits)
    first = torch.cumsum(counts, 0) - counts
    hit = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts[rows])
    ends = torch.cumsum(counts[rows], 0)
    within = torch.arange(len(hit), device=rows.device) - (ends - counts[rows])[hit]
    entry = order[first[rows][hit] + within]
    return Truth(hit, truth.segment[entry], truth.fraction[entry])


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value.to_dict() if isinstance(value, Record) else value)
    except TypeError as error:
        raise TypeError(f"{name} must be what JSON can hold: {error}") from None


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(dataset[()])


def _check_format(path: str | Path, file: Any) -> None:
    if file.attrs.get("format") != FORMAT:
        known = "; it holds energy deposits, of which `hepops simulate` makes hits" if "segments" in file else ""
        found = file.attrs.get("format")
        raise ValueError(f"{path}: not a file of hits, its format is {found!r}, not {FORMAT!r}{known}")
    if int(file.attrs.get("version", 0)) > VERSION:
        raise ValueError(f"{path}: version {file.attrs['version']} is newer than this library's {VERSION}")
