"""edep-sim's HDF5 files of energy deposits.

Both generations of names are read, eventID and event_id, trackID and traj_id, pdgId and pdg_id; the frame is the
file's, x drift, y up, z beam. edep-sim's positions are float32: a short segment's chord is uncertain to 4e-6 cm, and
multiple scattering makes the true path longer than the chord, so dEdx is the file's, dE over the true path.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from .segments import Segments

Array = np.ndarray[Any, Any]

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".feather", ".json", ".xlsx")  # what pandas reads, and we do not


AS_TABLE = "a table goes through pandas, read_segments(pandas.read_csv(path)), and write_segments makes HDF5 of it"


class Frame(Protocol):
    """A table with named columns, such as a pandas DataFrame."""

    columns: Any

    def __getitem__(self, name: str, /) -> Any: ...


# The field, and its names in the order of preference.
_NAMES = {
    "event": ("eventID", "event_id", "event"),
    "dE": ("dE",),
    "dEdx": ("dEdx",),
    "dx": ("dx",),
    # larnd-sim's convention: t0 is the deposit's time, where it is absent t, where that is absent too 0.
    "t0": ("t0", "t"),
    "pdg": ("pdgId", "pdg_id", "pdg"),
    "track": ("trackID", "traj_id", "track"),
    **{f"{axis}_{end}": (f"{axis}_{end}",) for end in ("start", "end") for axis in "xyz"},
}
_REQUIRED = ("event", "dE", *(name for name in _NAMES if name.endswith(("_start", "_end"))))
# dE, dx and dEdx of a file agree to the rounding of float32; more than this is a contradiction.
_CONSISTENT = 1e-3
EMPTY = "without energy"  # the one reason for which a row is left out, not refused


def read_segments(
    source: str | Path | Sequence[str | Path] | Array | Mapping[str, Any] | Frame,
    *,
    events: slice | Iterable[int] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    on_bad: Literal["raise", "exclude"] = "raise",
    same_event: Literal["raise", "merge", "renumber"] = "raise",
) -> Segments:
    """Segments of edep-sim files, or of arrays with edep-sim's names.

    Args:
        source: An HDF5 file with a dataset `segments`, a ROOT file (.root, see `edepsim_root`), a list of such files, a
            numpy structured array, a mapping of names to arrays or tensors (num_segments), a pandas DataFrame, or an
            open h5py file. Needed are eventID (or event_id), x_start ... z_end [cm] and dE [MeV]; used where they are
            there dEdx [MeV/cm], dx [cm], t0 or t [us], pdgId (pdg_id), trackID (traj_id).
        events: Ids, or a slice that counts in the sorted list of ids; default all.
        offset: Added to all positions, x y z [cm]. Files made in the frame of DUNE's module0, whose box is centred at
            y = -21.8236 cm, need offset=(0, 21.8236, 0) to lie in `Detector.module0()`, which is centred at 0.
        on_bad: What to do with bad segments, those with positions, energies or times that are not finite, negative dE,
            negative event, dEdx that is not positive or contradicts dE and dx, zero length without dEdx or dx, or that
            stand twice: refuse the whole, or leave them out and count them.
        same_event: What to do where two files hold the same event id: refuse, take it as one event, or give every file
            ids of its own: file i's are shifted by i times a power of ten above all ids.

    Returns:
        Segments in float64 on the CPU, in the order of the source. dEdx is the file's, else dE/dx, else dE over the
        distance of the ends. Without t0 the time is t, without both 0 (larnd-sim's convention).
        Segments without energy are always left out, and counted. Of zero length, those with a dEdx are kept: points.
        An event in several separate blocks of one file is one event, and noted.

    Raises:
        ValueError: no dataset or field of the name, no segments, a truncated or foreign file, an event in two files
            (see same_event), a bad segment (see on_bad), an event id that is not there.
        TypeError: a source of another kind.
        FileNotFoundError: no such file.
        IsADirectoryError: a folder.

    References:
        | edep-sim, https://github.com/ClarkMcGrew/edep-sim; larnd-sim, cli/dumpTree.py, for the names

    Example:
        >>> point = dict(event_id=[7], dE=[1.0], dEdx=[2.0], t0=[0.0], pdg_id=[13], traj_id=[1])
        >>> ends = {f"{axis}_{end}": [0.5] for axis in "xyz" for end in ("start", "end")}
        >>> read_segments(point | ends).report()
        '1 segments of 1 events, 1 MeV; excluded: none'
    """
    _check_choice("on_bad", on_bad, ("raise", "exclude"))
    _check_choice("same_event", same_event, ("raise", "merge", "renumber"))
    shift = _offset(offset)
    parts = [(name, _segments(name, table, shift, on_bad == "raise")) for name, table in _tables(source)]
    if not parts:
        raise ValueError("source: the list of files is empty")
    segments = Segments.cat(_apart([part for _, part in parts], [name for name, _ in parts], same_event))
    if not len(segments):
        raise ValueError(f"no segments in {_short(source)}; excluded: {segments.excluded}")
    return segments if events is None else segments.select(events)


def write_segments(
    path: str | Path,
    segments: Segments,
    *,
    generation: Literal["new", "old"] = "new",
    positions: Literal["f4", "f8"] = "f4",
) -> None:
    """An HDF5 file in edep-sim's layout; it is whole or not there.

    Args:
        path: The file; an existing one is replaced in one step at the end.
        segments: What to write.
        generation: Names: event_id, traj_id, pdg_id, or the older eventID, trackID, pdgId.
        positions: Type of positions and energies: float32 as edep-sim has it, or float64, to the last bit.

    Raises:
        ValueError: an argument out of its choices.
        TypeError: not Segments.
    """
    import h5py

    if not isinstance(segments, Segments):
        got = type(segments).__name__
        raise TypeError(f"segments must be Segments, got {got}: read_segments makes them of arrays and tables")

    table = segment_table(segments, generation=generation, positions=positions)
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("segments", data=table)


def segment_table(
    segments: Segments, *, generation: Literal["new", "old"] = "new", positions: Literal["f4", "f8"] = "f4"
) -> Array:
    """The rows of the dataset `segments`, a structured array; the arguments are those of `write_segments`."""
    _check_choice("generation", generation, ("new", "old"))
    _check_choice("positions", positions, ("f4", "f8"))
    columns = {name: column.detach().cpu().numpy() for name, column in segments.columns().items()}
    event, track, pdg = ("event_id", "traj_id", "pdg_id") if generation == "new" else ("eventID", "trackID", "pdgId")
    with np.errstate(divide="ignore", invalid="ignore"):
        dx = columns["dE"] / columns["dEdx"]
    table: dict[str, tuple[str, Array]] = {
        event: ("u4" if columns["event"].max(initial=0) < 2**32 else "i8", columns["event"]),
        "segment_id": ("u4", np.arange(len(segments))),
        track: ("i4" if np.abs(columns["track"]).max(initial=0) < 2**31 else "i8", columns["track"]),
        pdg: ("i4" if np.abs(columns["pdg"]).max(initial=0) < 2**31 else "i8", columns["pdg"]),
        "dE": (positions, columns["dE"]),
        "dEdx": (positions, columns["dEdx"]),
        "dx": (positions, dx),
        **{name: ("f8", columns["t0"]) for name in ("t0_start", "t0_end", "t0")},
        **{
            name: ("f4", np.zeros(len(segments)))
            for name in ("t_start", "t_end", "t", "tran_diff", "long_diff", "n_photons")
        },
        **{name: ("u4", np.zeros(len(segments))) for name in ("n_electrons", "pixel_plane")},
    }
    for i, axis in enumerate("xyz"):
        start, end = columns["start"][:, i], columns["end"][:, i]
        table |= {
            f"{axis}_start": (positions, start),
            f"{axis}_end": (positions, end),
            axis: (positions, (start + end) / 2),
        }
    rows = np.zeros(len(segments), [(name, kind) for name, (kind, _) in table.items()])
    for name, (_, column) in table.items():
        rows[name] = column
    return rows


def _tables(source: Any) -> Iterator[tuple[str, dict[str, Array]]]:
    """A name for errors, and the columns, of each part of the source."""
    if isinstance(source, str | Path):
        yield str(source), _read_file(source)
    elif isinstance(source, Mapping) and "segments" in source:  # an open h5py file
        yield from _tables(source["segments"])
    elif isinstance(source, Mapping):
        arrays = {
            str(k): v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for k, v in source.items()
        }
        yield "segments", _columns("segments", list(arrays), arrays.__getitem__)
    elif isinstance(source, np.ndarray) or getattr(getattr(source, "dtype", None), "names", None):
        rows = np.asarray(source)
        yield "segments", _columns("segments", list(rows.dtype.names or ()), rows.__getitem__)
    elif not isinstance(source, Segments) and hasattr(source, "columns") and hasattr(source, "__getitem__"):
        yield "segments", _columns("segments", [str(n) for n in source.columns], lambda n: np.asarray(source[n]))
    elif isinstance(source, Sequence):
        for path in source:
            if not isinstance(path, str | Path):
                raise TypeError(f"source: a list must hold paths, got {type(path).__name__}")
            yield str(path), _read_file(path)
    else:
        raise TypeError(
            f"source must be a path, paths, a structured array, a mapping or a DataFrame, got {type(source).__name__}"
        )


def _read_file(path: str | Path) -> dict[str, Array]:
    if Path(path).suffix in TABLES and Path(path).is_file():
        raise ValueError(f"{path}: segments are read from HDF5 or ROOT; {AS_TABLE}")
    if Path(path).suffix != ".root":
        return _read_hdf5(path)
    from .edepsim_root import read_root

    table = read_root(Path(path))
    return _columns(str(path), list(table), table.__getitem__)


def _read_hdf5(path: str | Path) -> dict[str, Array]:
    with open_hdf5(path) as file:
        if "segments" not in file:
            known = "it holds hits, which read_hits reads" if "hits" in file else f"only {sorted(file)}"
            raise ValueError(f"{path}: there is no dataset 'segments', {known}")
        names = getattr(getattr(file["segments"], "dtype", None), "names", None)
        if names is None:
            raise ValueError(f"{path}: 'segments' must be a dataset of named fields")
        rows = file["segments"][:]
        return _columns(str(path), list(names), rows.__getitem__)


def _columns(where: str, names: list[str], get: Callable[[str], Array]) -> dict[str, Array]:
    """Our fields, those that are there; all of one length."""
    chosen = {ours: next((n for n in theirs if n in names), None) for ours, theirs in _NAMES.items()}
    for ours in _REQUIRED:
        if chosen[ours] is None:
            raise ValueError(f"{where}: there is no field {' or '.join(_NAMES[ours])}, only {sorted(names)}")
    columns = {ours: np.atleast_1d(get(name)) for ours, name in chosen.items() if name is not None}
    for ours, column in columns.items():
        if column.ndim != 1 or len(column) != len(columns["event"]):
            raise ValueError(f"{where}: field {chosen[ours]} must be one number per segment, got {column.shape}")
        if column.dtype.kind not in "iufb":
            raise ValueError(f"{where}: field {chosen[ours]} must hold numbers, got {column.dtype}")
    return columns


def reasons(table: dict[str, Array], shift: Array) -> dict[str, Array]:
    """Why rows are bad: a mask (num_rows) for each reason; a row may have several. Columns have our names."""
    n = len(table["event"])
    event, overflow = _integers(table["event"])
    real = _real(table)
    start, end = _ends(real, shift)
    dE, t0 = real["dE"], real.get("t0", np.zeros(n))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        path = real.get("dx", np.linalg.norm(end - start, axis=-1))
        dEdx = real["dEdx"] if "dEdx" in real else dE / path
        contradiction = (
            np.abs(dEdx * path / dE - 1) > _CONSISTENT if {"dEdx", "dx"} <= real.keys() else np.zeros(n, bool)
        )
    return {
        "with an event id that is negative or no integer": (event < 0) | overflow,
        "with a position that is not finite": ~np.isfinite(start).all(-1) | ~np.isfinite(end).all(-1),
        "with a time that is not finite": ~np.isfinite(t0),
        "with dE that is not finite": ~np.isfinite(dE),
        "with negative dE": dE < 0,
        EMPTY: dE == 0,
        "of zero length without dEdx": np.zeros(n, bool) if "dEdx" in real else path == 0,
        "with dEdx that is not positive and finite": ~(np.isfinite(dEdx) & (dEdx > 0)),
        "with dEdx that contradicts dE and dx": contradiction,
        "that stand twice": _twice(event, start, end, dE, t0, table.get("track")),
    }


def judge(where: str, table: dict[str, Array], shift: Array, refuse: bool) -> tuple[Array, dict[str, int]]:
    """Which rows are good (num_rows), and how many are not, by the first reason; bad ones are refused or counted."""
    keep, excluded = np.ones(len(table["event"]), bool), {}
    for reason, mask in reasons(table, shift).items():
        new = mask & keep
        if not new.any():
            continue
        if refuse and reason != EMPTY:
            row = int(np.flatnonzero(new)[0])
            values = {name: column[row].item() for name, column in table.items()}
            units = "; the units are MeV, MeV/cm and cm" if "contradicts" in reason else ""
            raise ValueError(f"{where}: {new.sum()} segments {reason}, the first is row {row}, {values}{units}")
        excluded[reason] = int(new.sum())
        keep &= ~new
    return keep, excluded


def _real(table: dict[str, Array]) -> dict[str, Array]:
    return {name: column.astype(np.float64) for name, column in table.items() if name not in ("event", "pdg", "track")}


def _ends(real: dict[str, Array], shift: Array) -> tuple[Array, Array]:
    start, end = (np.stack([real[f"{axis}_{side}"] for axis in "xyz"], -1) + shift for side in ("start", "end"))
    return start, end


def _segments(where: str, table: dict[str, Array], shift: Array, refuse: bool) -> Segments:
    keep, excluded = judge(where, table, shift, refuse)
    return columns_to_segments({name: column[keep] for name, column in table.items()}, shift, excluded)


def columns_to_segments(table: dict[str, Array], shift: Array, excluded: dict[str, int]) -> Segments:
    """Segments of good rows."""
    n = len(table["event"])
    event, real = _integers(table["event"])[0], _real(table)
    start, end = _ends(real, shift)
    dE = real["dE"]
    dEdx = real["dEdx"] if "dEdx" in real else dE / real.get("dx", np.linalg.norm(end - start, axis=-1))
    pdg, track = (_integers(table[name])[0] if name in table else np.zeros(n, np.int64) for name in ("pdg", "track"))
    t0 = real.get("t0", np.zeros(n))
    columns = dict(event=event, start=start, end=end, dE=dE, dEdx=dEdx, t0=t0, pdg=pdg, track=track)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}
    return Segments(**tensors, excluded=excluded, notes=_blocks(event))


def _integers(column: Array) -> tuple[Array, Array]:
    """int64, and a mask of what it cannot hold."""
    if column.dtype.kind == "f":
        fits = np.isfinite(column) & (column == np.floor(column)) & (np.abs(column) < 2.0**63)
        return np.where(fits, column, 0).astype(np.int64), ~fits
    too_large = column > np.iinfo(np.int64).max if column.dtype == np.uint64 else np.zeros(column.shape, bool)
    return np.where(too_large, 0, column).astype(np.int64), too_large


def _twice(event: Array, start: Array, end: Array, dE: Array, t0: Array, track: Array | None) -> Array:
    """Every repetition of an earlier segment that agrees with it to the last bit in all fields."""
    parts = [event, *start.T, *end.T, dE, t0] + ([] if track is None else [track])
    rows = np.stack(
        [np.ascontiguousarray(p).astype(np.float64 if p.dtype.kind == "f" else np.int64).view(np.int64) for p in parts],
        -1,
    )
    first = np.unique(rows, axis=0, return_index=True)[1] if len(rows) else np.zeros(0, np.int64)
    repeated = np.ones(len(rows), bool)
    repeated[first] = False
    return repeated


def _blocks(event: Array) -> dict[str, int]:
    """Events that stand in several separate blocks: shuffled and cut files have them (tracks of one event apart)."""
    starts = event[np.flatnonzero(np.diff(event, prepend=event[:1] - 1))]
    several = len(starts) - len(np.unique(starts))
    return {"further blocks of an earlier event": several} if several else {}


def _apart(parts: list[Segments], names: list[str], same_event: str) -> list[Segments]:
    """The parts, with the same event id in two of them refused, merged and noted, or made unique."""
    ids = [p.events for p in parts]
    every, count = torch.cat(ids).unique(return_counts=True)
    shared = every[count > 1]
    if not len(shared):
        return parts
    if same_event == "raise":
        first, second = [n for n, i in zip(names, ids, strict=True) if shared[0] in i][:2]
        hint = "same_event='merge' or 'renumber' decides"
        raise ValueError(
            f"{len(shared)} events stand in several files, the first is {int(shared[0])}, {first} and {second}: {hint}"
        )
    if same_event == "merge":
        noted = {**parts[0].notes, "events in several files": len(shared)}
        return [replace(parts[0], notes=noted), *parts[1:]]
    stride = 10 ** len(str(int(every.max())))
    if stride * len(parts) > torch.iinfo(torch.int64).max:
        raise ValueError(f"same_event='renumber': {len(parts)} files of ids up to {int(every.max())} exceed 64 bits")
    return [replace(p, event=p.event + i * stride) for i, p in enumerate(parts)]


def _offset(offset: Sequence[float]) -> Array:
    shift = np.asarray(offset, np.float64)
    if shift.shape != (3,) or not np.isfinite(shift).all():
        raise ValueError(f"offset must be three numbers, x y z [cm], got {offset}")
    return shift


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _short(source: Any) -> str:
    return f"{source}"[:200] if isinstance(source, str | Path | list | tuple) else "the given arrays"
