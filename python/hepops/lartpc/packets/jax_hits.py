"""Hits of larnd-sim-jax's files: batch_<i>/event_<id> with adc, Q, pixels, ticks, pix_x, pix_y, pix_z, eventID."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hepops.core.files import open_hdf5

from ..detector import Detector
from ..hits import Hits
from .format import Array

# larnd-sim-jax names the tick before the one that crosses, our time is that tick's end (docs/lartpc.md, front end).
AHEAD = 2
_NEEDED = ("pixels", "ticks", "adc", "Q")


def read_jax_hits(path: str | Path, detector: Detector, *, on_bad: Literal["exclude", "raise"] = "exclude") -> Hits:
    """Hits that larnd-sim-jax wrote.

    Args:
        path: The HDF5 file.
        detector: The detector that it simulated: the pixel ids are ix + nx (iy + ny (tpc + num_tpcs rank)), rank being
            that of the event in its batch.
        on_bad: Hits without a pixel, of the padding (adc or charge not finite), or whose stated position is not that of
            their pixel: leave out and count, or refuse the file.

    Returns:
        Hits sorted by (event, tpc, iy, ix, time): `adc` float, not rounded, as the file has it; `charge` [e] its Q,
        which is in ke; `time` [us] two ticks above its tick; x, y, z its pix_z, pix_y, pix_x (x and z change places).
        `reports["packets"]` counts batches, events and what was left out.

    Raises:
        ValueError: a foreign or truncated file, a missing field, what on_bad refuses.
        FileNotFoundError: no such file.

    References:
        | larnd-sim-jax, https://github.com/larnd-sim/larnd-sim-jax
    """
    if on_bad not in ("exclude", "raise"):
        raise ValueError(f"on_bad must be 'exclude' or 'raise', got {on_bad!r}")
    parts: list[dict[str, Array]] = []
    with open_hdf5(path) as file:
        batches = [name for name in file if name.startswith("batch_")]
        if not batches:
            raise ValueError(f"{path}: there are no groups batch_0 ..., only {sorted(file)[:10]}")
        for batch in sorted(batches, key=lambda name: int(name.removeprefix("batch_"))):
            for name, group in file[batch].items():
                parts.append(_event(path, f"{batch}/{name}", group))
    columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} if parts else {}
    if not columns:
        raise ValueError(f"{path}: no events in {len(batches)} batches")
    return _hits(
        path, columns, detector, on_bad, {"batches": len(batches), "events": len(parts), "rows": len(columns["adc"])}
    )


def _event(path: str | Path, where: str, group: Any) -> dict[str, Array]:
    for name in _NEEDED:
        if name not in group:
            raise ValueError(f"{path}: {where} has no dataset {name}, only {sorted(group)}")
    arrays = {name: group[name][()] for name in group}
    n = len(arrays["adc"])
    for name, values in arrays.items():
        if values.shape != (n,) or values.dtype.kind not in "iuf":
            raise ValueError(f"{path}: {where}/{name} must hold {n} numbers, got {values.dtype} {values.shape}")
    if "eventID" not in arrays:
        if not where.rsplit("_", 1)[-1].isdigit():
            raise ValueError(f"{path}: {where} has no eventID and no number")
        arrays["eventID"] = np.full(n, int(where.rsplit("_", 1)[-1]))
    lost = np.full(n, np.nan)
    positions = {name: arrays.get(name, lost).astype(np.float64) for name in ("pix_x", "pix_y", "pix_z")}
    return {
        "event": arrays["eventID"].astype(np.int64),
        "pixel": arrays["pixels"].astype(np.int64),
        "tick": arrays["ticks"].astype(np.float64),
        "adc": arrays["adc"].astype(np.float64),
        "charge": 1e3 * arrays["Q"].astype(np.float64),
        **positions,
    }


def _hits(path: str | Path, columns: dict[str, Array], detector: Detector, on_bad: str, counts: dict[str, Any]) -> Hits:
    inside = columns["pixel"] >= 0
    place = torch.from_numpy(np.where(inside, columns["pixel"], 0) % detector.num_pixels)
    tpc, ix, iy = detector.pixel_from_id(place)
    _, y, z = (c.numpy() for c in detector.pixel_centre(tpc, ix, iy).unbind(-1))
    finite = np.isfinite(columns["adc"]) & np.isfinite(columns["charge"]) & np.isfinite(columns["tick"])
    half = detector.geometry.pitch[tpc].numpy() / 2
    elsewhere = (np.abs(columns["pix_y"] - y) > half) | (np.abs(columns["pix_x"] - z) > half)
    left = {
        "without a pixel": ~inside,
        "that are not finite": inside & ~finite,
        "whose position is not that of their pixel": inside & finite & elsewhere,
    }
    reasons: Counter[str] = Counter({reason: int(mask.sum()) for reason, mask in left.items() if mask.any()})
    if reasons and on_bad == "raise":
        reason, number = next(iter(reasons.items()))
        raise ValueError(f"{path}: {number} hits {reason}, the first is row {int(np.flatnonzero(left[reason])[0])}")
    keep = np.flatnonzero(~np.stack(list(left.values())).any(0))
    order = keep[np.lexsort((columns["tick"][keep], place.numpy()[keep], columns["event"][keep]))]
    event, pixel = columns["event"][order], place.numpy()[order]
    new = np.ones(len(order), bool)
    new[1:] = (event[1:] != event[:-1]) | (pixel[1:] != pixel[:-1])
    row = np.cumsum(new) - 1
    rank = np.arange(len(order)) - np.flatnonzero(new)[row] if len(order) else row
    chosen = {name: torch.from_numpy(column[order]) for name, column in columns.items()}
    return Hits(
        event=chosen["event"], tpc=tpc[order], ix=ix[order], iy=iy[order], x=chosen["pix_z"], y=chosen["pix_y"],
        z=chosen["pix_x"], time=(chosen["tick"] + AHEAD) * detector.tick, charge=chosen["charge"], adc=chosen["adc"],
        row=torch.from_numpy(row), rank=torch.from_numpy(rank),
        reports={"packets": {**counts, "excluded": dict(reasons)}, "pixels": int(new.sum())},
    )  # fmt: skip
