"""Files of channel constants: our own .npz, .json, .csv, and those of larnd-sim and of the modules.

.npz    columns pixel (or none: all pixels in order), any of gain pedestal v_cm v_ref threshold status; or larnd-sim's
        keys, values, default (thresholds [e] or [C], or gains [mV/e] below 1e-1)
.csv    the same columns, a line of names first; or io_group io_channel chip channel instead of pixel
.json   {"pixel": [...], "gain": [...] ...}; or {unique_id: {"pedestal_mv": ..., "vref_mv": ..., "vcm_mv": ...}}
.yaml   larnd-sim's bad channels, {"io_group-io_channel-chip": [channel, ...]}: dead
"""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch

from hepops.core.files import atomic

from .channel_map import ChannelMap
from .format import Array, split_unique_id

if TYPE_CHECKING:
    from .channels import Channels, Missing

_COLUMNS = ("gain", "pedestal", "v_cm", "v_ref", "threshold", "status")
_ADDRESS = ("io_group", "io_channel", "chip", "channel")
_MODULE = {"pedestal_mv": "pedestal", "vref_mv": "v_ref", "vcm_mv": "v_cm", "gain_mv_per_e": "gain"}
_STATUS = {"good": 0, "dead": 1, "noisy": 2}
_GAIN = 0.1  # [mV/e]: gains of larnd-sim's tables are 4e-3, thresholds thousands (or, in Coulomb, 1e-15)
_COULOMB = 1e-9
_E = 1.602176634e-19  # elementary charge [C], exact (SI 2019)


def save(channels: "Channels", path: Path) -> None:
    """See `Channels.save`."""
    columns = {name: column.detach().cpu().numpy() for name, column in channels.columns().items()}
    table: dict[str, Array] = {"pixel": np.arange(len(channels)), **columns}
    writers = {".npz": _save_npz, ".json": _save_json, ".csv": _save_csv}
    if path.suffix not in writers:
        raise ValueError(f"{path}: must end in {', '.join(writers)}")
    with atomic(path) as part:
        writers[path.suffix](part, table)


def _save_npz(path: Path, table: dict[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **table)  # type: ignore[arg-type]


def _save_json(path: Path, table: dict[str, Array]) -> None:
    path.write_text(json.dumps({name: column.tolist() for name, column in table.items()}))


def _save_csv(path: Path, table: dict[str, Array]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))


def load(default: "Channels", path: Path, channel_map: ChannelMap | None, missing: "Missing") -> "Channels":
    """See `Channels.load`."""
    readers = {".npz": _npz, ".json": _json, ".csv": _csv, ".yaml": _bad, ".yml": _bad}
    if missing not in ("raise", "default", "dead"):
        raise ValueError(f"missing must be 'raise', 'default' or 'dead', got {missing!r}")
    if path.suffix not in readers:
        raise ValueError(f"{path}: must end in {', '.join(readers)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        table = readers[path.suffix](path)
    except (BadZipFile, EOFError, KeyError, TypeError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a table of channels ({error})") from None
    partial = path.suffix in (".yaml", ".yml")  # lists some channels on purpose
    pixel, columns, unknown = _place(path, table, channel_map, len(default))
    return _fill(default, path, pixel, columns, unknown, "default" if partial else missing, partial)


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path) as file:
            table = {name: file[name] for name in file.files}
    except ValueError:  # no archive at all
        raise TypeError("no .npz archive") from None
    if {"keys", "values"} <= table.keys():
        values = table["values"].astype(np.float64)
        largest = float(np.nanmax(np.abs(values), initial=0.0))
        name = "gain" if _COULOMB < largest < _GAIN else "threshold"
        unit = _E if largest <= _COULOMB else 1.0
        found = {"pixel": table["keys"], name: values / unit}
        if "default" in table:
            found[f"default {name}"] = table["default"].astype(np.float64).reshape(-1) / unit
        return found
    return table


def _json(path: Path) -> dict[str, Array]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold names and values, got {type(content).__name__}")
    if content and all(str(key).lstrip("-").isdigit() for key in content):
        rows = list(content.values())
        names = sorted({name for row in rows if isinstance(row, dict) for name in row} & _MODULE.keys())
        if not names:
            raise ValueError(f"{path}: channels must have one of {', '.join(_MODULE)}")
        lacking = next((key for key, row in content.items() if not all(name in row for name in names)), None)
        if lacking is not None:
            raise ValueError(f"{path}: channel {lacking} lacks one of {', '.join(names)}")
        return {
            "unique_id": np.array([int(key) for key in content], np.int64),
            **{_MODULE[name]: np.array([float(row[name]) for row in rows]) for name in names},
        }
    return {name: np.asarray(_numbers(name, values)) for name, values in content.items()}


def _csv(path: Path) -> dict[str, Array]:
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    if not rows:
        raise ValueError(f"{path}: is empty")
    names = [name.strip() for name in rows[0]]
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if uneven is not None:
        raise ValueError(f"{path}: line {uneven + 1} has {len(rows[uneven])} values, not {len(names)}")
    try:
        columns = list(zip(*rows[1:], strict=True)) or [() for _ in names]
        return {
            name: np.array(_numbers(name, [_number(v) for v in column]))
            for name, column in zip(names, columns, strict=True)
        }
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _number(text: str) -> Any:
    text = text.strip()
    return _STATUS[text] if text in _STATUS else float(text)


def _numbers(name: str, values: Any) -> Any:
    if name == "status":
        return [_STATUS.get(v, v) if isinstance(v, str) else v for v in values]
    return values


def _bad(path: Path) -> dict[str, Array]:
    from .channel_files import load as load_yaml

    rows = []
    for key, pads in load_yaml(path).items():
        words = str(key).split("-")
        if len(words) != 3 or not all(w.isdigit() for w in words) or not isinstance(pads, list):
            raise ValueError(f"{path}: must hold 'io_group-io_channel-chip': [channel, ...], got {key!r}: {pads!r:.40}")
        rows += [(*map(int, words), int(pad)) for pad in pads]
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return {**dict(zip(_ADDRESS, columns, strict=True)), "status": np.ones(len(rows), np.int64)}


def _place(
    path: Path, table: dict[str, Array], channel_map: ChannelMap | None, pixels: int
) -> tuple[Array, dict[str, Array], int]:
    """The pixel of each row, the columns, and how many rows name a channel that reads no pixel."""
    names = set(table)
    columns = {n: np.atleast_1d(c) for n, c in table.items() if n in _COLUMNS or n.startswith("default ")}
    other = names - columns.keys() - {"pixel", "unique_id", *_ADDRESS}
    if other:
        raise ValueError(f"{path}: unknown column {sorted(other)[0]!r}, known are pixel, {', '.join(_COLUMNS)}")
    if not columns:
        raise ValueError(f"{path}: has none of the columns {', '.join(_COLUMNS)}")
    rows = {len(c) for n, c in columns.items() if not n.startswith("default ")}
    if len(rows) != 1 or any(c.ndim != 1 or c.dtype.kind not in "iufb" for c in columns.values()):
        raise ValueError(f"{path}: columns must be equally long lists of numbers")
    n = rows.pop()
    if "pixel" in table or not names & {"unique_id", *_ADDRESS}:
        pixel = np.asarray(table.get("pixel", np.arange(pixels))).astype(np.int64)
        if len(pixel) != n:
            raise ValueError(f"{path}: {n} values for {len(pixel)} pixels")
        beyond = pixel[(pixel < 0) | (pixel >= pixels)]
        if len(beyond):
            raise ValueError(f"{path}: pixel {beyond[0]} is outside the detector of {pixels} pixels")
        return pixel, columns, 0
    if channel_map is None:
        raise ValueError(f"{path}: names channels, not pixels: a channel_map is needed")
    if "unique_id" not in table and not set(_ADDRESS) <= names:
        raise ValueError(f"{path}: channels need the columns {', '.join(_ADDRESS)}")
    address = split_unique_id(table["unique_id"]) if "unique_id" in table else [table[a] for a in _ADDRESS]
    pixel = channel_map.lookup(*(np.asarray(a).astype(np.int64) for a in address))
    known = pixel >= 0
    return (
        pixel[known],
        {k: c if k.startswith("default ") else c[known] for k, c in columns.items()},
        int((~known).sum()),
    )


def _fill(
    default: "Channels", path: Path, pixel: Array, columns: dict[str, Array], unknown: int, missing: str, partial: bool
) -> "Channels":
    if len(np.unique(pixel)) < len(pixel):
        raise ValueError(
            f"{path}: pixel {pixel[np.argsort(pixel)][np.flatnonzero(np.diff(np.sort(pixel)) == 0)[0]]} stands twice"
        )
    absent = np.ones(len(default), bool)
    absent[pixel] = False
    defaults = {n.removeprefix("default "): c for n, c in columns.items() if n.startswith("default ")}
    if defaults:
        missing = "default"
    if absent.any() and missing == "raise":
        lacking = ", ".join(n for n in columns if n in _COLUMNS)
        raise ValueError(
            f"{path}: {int(absent.sum())} of {len(default)} pixels have no {lacking}, the first is pixel "
            f"{int(np.flatnonzero(absent)[0])}; missing='default' or 'dead' decides"
        )
    notes = dict(default.notes)
    if unknown:
        notes[f"of {path.name} that read no pixel"] = unknown
    if absent.any() and not partial:
        notes[f"not in {path.name}, " + ("dead" if missing == "dead" else "default constants")] = int(absent.sum())
    changes: dict[str, Any] = {}
    for name, column in columns.items():
        if name in _COLUMNS:
            whole = getattr(default, name).numpy().copy()
            if name in defaults:
                whole[:] = defaults[name][0]
            whole[pixel] = column
            changes[name] = torch.from_numpy(whole)
    if missing == "dead" and absent.any():
        status = changes.get("status", default.status).clone()
        status[torch.from_numpy(absent)] = 1
        changes["status"] = status
    try:
        return replace(default, **changes, notes=notes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
