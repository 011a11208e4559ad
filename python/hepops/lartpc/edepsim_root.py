"""edep-sim's ROOT files, by uproot (pip install hepops[root]); the names are those of the HDF5 dataset `segments`.

Two layouts are read:

    a tree `segments` (or the only one)   one entry per segment, or lists of them per event; HDF5's names, cm and us
    a tree `EDepSimEvents`                edep-sim's own TG4Event objects, mm and ns, converted as dumpTree does

uproot cannot read every file of the last kind: where ROOT stored the map of segment containers member by member it says
so, and larnd-sim's cli/dumpTree.py, which needs ROOT itself, makes the HDF5 file.

References: edep-sim, io/TG4Event.h and io/TG4HitSegment.h; larnd-sim, cli/dumpTree.py.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

TREE = "EDepSimEvents"
VOLUMES = ("volLArActive", "TPCActive_shape")  # sensitive argon of the 2x2 and of ND-LAr
_CM, _US = 0.1, 1e-3  # of a mm, of a ns
_EVENT = ("eventID", "event_id", "event")


def read_root(path: Path) -> dict[str, Array]:
    """Columns by their HDF5 names, one value per segment."""
    try:
        import uproot  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ImportError("ROOT files need uproot: pip install hepops[root]") from None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with uproot.open(path) as file:
            kinds = file.classnames(cycle=False)
            trees = sorted({k for k, kind in kinds.items() if kind in ("TTree", "ROOT::RNTuple")})
            if TREE in trees and not {"x_start", "eventID"} & set(file[TREE].keys()):
                return _events(path, file[TREE])
            name = next((n for n in ("segments", TREE) if n in trees), trees[0] if len(trees) == 1 else None)
            if name is None:
                raise ValueError(f"{path}: there is no tree 'segments' or {TREE!r}, only {trees}")
            return _flat({str(k): file[name][k].array(library="np") for k in file[name].keys()})
    except Exception as error:  # uproot raises of many kinds where a file is foreign or truncated
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a readable ROOT file ({' '.join(str(error).split())[:200]})") from None


def _flat(columns: dict[str, Array]) -> dict[str, Array]:
    """One value per segment: lists are joined, and what an event has once is repeated."""
    lists = {name for name, column in columns.items() if column.dtype == object}
    if not lists:
        return columns
    length = np.array([len(entry) for entry in columns["dE" if "dE" in lists else min(lists)]], np.int64)
    joined = {}
    for name, column in columns.items():
        if name in lists:
            parts = [np.asarray(entry) for entry in column]
            if [len(p) for p in parts] != length.tolist():
                raise ValueError(f"{name} has lists of another length than the other branches")
            joined[name] = np.concatenate(parts) if parts else np.zeros(0)
        elif column.ndim == 1:
            joined[name] = np.repeat(column, length)
    if not set(_EVENT) & joined.keys():
        joined["eventID"] = np.repeat(np.arange(len(length)), length)
    return joined


def _events(path: Path, tree: Any) -> dict[str, Array]:
    """edep-sim's own events."""
    names = [str(k) for k in tree.keys()]
    branch = next((n for n in ("Event", "Event.", names[0] if len(names) == 1 else "") if n in names), None)
    if branch is None:
        raise ValueError(f"{path}: tree {TREE!r} has no branch Event, only {names[:10]}")
    try:
        events = tree[branch].array(library="np")
    except Exception as error:
        raise ValueError(
            f"{path}: uproot cannot read TG4Event ({' '.join(str(error).split())[:120]}); larnd-sim's cli/dumpTree.py "
            "makes an HDF5 file of it"
        ) from None
    return segments_of(events, str(path))


def segments_of(events: Iterable[Any], where: str) -> dict[str, Array]:
    """Columns of the segments of TG4Event objects (uproot's models), of the sensitive argon volumes.

    Positions are converted from mm to cm and times from ns to us; dx is the distance of the ends (the track's length
    where that is zero), t0 the mean of the ends' times, the track that of the first contributor, as dumpTree has it.
    """
    rows: list[tuple[Any, ...]] = []
    seen: set[str] = set()
    for event in events:
        number = int(_member(event, "EventId"))
        pdg = {int(_member(t, "TrackId")): int(_member(t, "PDGCode")) for t in _member(event, "Trajectories")}
        containers = dict(_member(event, "SegmentDetectors").items())
        seen |= {str(name) for name in containers}
        for name in VOLUMES:
            for hit in containers.get(name, ()):
                first = [int(c) for c in _member(hit, "Contrib")][:1] or [int(_member(hit, "PrimaryId"))]
                start, stop = _four(_member(hit, "Start")), _four(_member(hit, "Stop"))
                energy, length = float(_member(hit, "EnergyDeposit")), float(_member(hit, "TrackLength"))
                rows.append((number, first[0], pdg.get(first[0], 0), energy, length, *start, *stop))
    if not rows:
        raise ValueError(f"{where}: no segments in {' or '.join(VOLUMES)}, the containers are {sorted(seen)}")
    table = np.array(rows, np.float64).T
    begin, end = table[5:9], table[9:13]
    chord = np.linalg.norm(end[:3] - begin[:3], axis=0)
    dx = np.where(chord > 0, chord, table[4]) * _CM
    with np.errstate(divide="ignore", invalid="ignore"):
        dEdx = table[3] / dx
    ints = {name: table[i].astype(np.int64) for i, name in enumerate(("eventID", "trackID", "pdgId"))}
    sides = {"start": begin, "end": end}
    ends = {f"{axis}_{side}": at[i] * _CM for side, at in sides.items() for i, axis in enumerate("xyz")}
    return {**ints, **ends, "dE": table[3], "dx": dx, "dEdx": dEdx, "t0": (begin[3] + end[3]) / 2 * _US}


def _member(model: Any, name: str) -> Any:
    """A data member of one of uproot's models, by its name with or without ROOT's prefix f."""
    return model.member(name) if model.has_member(name) else model.member(f"f{name}")


def _four(vector: Any) -> tuple[float, float, float, float]:
    """x y z t of a TLorentzVector."""
    place = vector.member("fP")
    return (*(float(place.member(f"f{axis}")) for axis in "XYZ"), float(vector.member("fE")))  # type: ignore[return-value]
