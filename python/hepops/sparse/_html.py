"""A sparse tensor as a notebook shows it: what it holds, event by event and channel by channel."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .tensor import SparseTensor

EVENTS, CHANNELS = 5, 5  # rows shown of each
AXES = "xyzuvw"


def html(x: SparseTensor) -> str:
    """Two small tables under the repr: events (voxels, extent) and channels (least, mean, largest, not finite)."""
    parts = [f"<div><code>{escape(repr(x))}</code>"]
    if len(x):
        parts += ['<div style="display:flex;gap:2em;align-items:flex-start">', _events(x), _channels(x), "</div>"]
    return "".join([*parts, "</div>"])


def _events(x: SparseTensor) -> str:
    c = x.coordinates
    batches, counts = c[:, 0].unique(return_counts=True)
    rows = []
    for batch, count in zip(batches[:EVENTS].tolist(), counts[:EVENTS].tolist(), strict=True):
        place = c[c[:, 0] == batch, 1:]
        extent = [f"{low} ... {high}" for low, high in zip(place.amin(0).tolist(), place.amax(0).tolist(), strict=True)]
        rows.append([str(batch), str(count), *extent])
    if len(batches) > EVENTS:
        rows.append([f"{len(batches) - EVENTS} more", str(int(counts[EVENTS:].sum())), *[""] * x.dimension])
    return _table(["event", "voxels", *AXES[: x.dimension]], rows)


def _channels(x: SparseTensor) -> str:
    f = x.features.detach().double()
    rows = []
    for channel in range(min(CHANNELS, x.num_channels)):
        values = f[:, channel]
        finite = values[torch.isfinite(values)]
        numbers = [finite.min(), finite.mean(), finite.max()] if len(finite) else []
        rows.append([str(channel), *[f"{float(n):.4g}" for n in numbers], *[""] * (3 - len(numbers))])
        rows[-1].append(str(len(values) - len(finite) or ""))
    if x.num_channels > CHANNELS:
        rows.append([f"{x.num_channels - CHANNELS} more", "", "", "", ""])
    header = ["channel", "least", "mean", "largest", "not finite"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
