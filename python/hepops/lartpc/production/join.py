"""Files of hits joined into one, a part at a time: the memory holds one part, whatever the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepops.core.files import atomic, open_hdf5
from hepops.lartpc import hits as layout


@dataclass(frozen=True)
class _Head:
    """What a part says of itself before its columns are read."""

    path: Path
    columns: dict[str, int]  # dataset -> its length along the last axis
    reports: dict[str, Any]

    @property
    def hits(self) -> int:
        return self.columns["hits/event"]

    def shift(self, name: str, hits: int, pixels: int) -> int:
        return {"hits/row": pixels, "truth/hit": hits}.get(name, 0)


def join_hits(parts: Sequence[str | Path], output: str | Path, config: Mapping[str, Any] | None = None) -> int:
    """Join the files of one simulation that was run in parts, in their order, as `Hits.cat` and `Hits.save` would.

    Args:
        parts: Files of `Hits.save`.
        output: The file; it is whole or not there.
        config: As for `Hits.save`; None: the first part's.

    Returns:
        How many hits there are.

    Raises:
        ValueError: no part, a truncated or foreign one, parts of which some have truth or tangents and others not.
        FileNotFoundError: no such file.
    """
    import h5py

    if not parts:
        raise ValueError("join_hits: needs at least one part")
    heads = [_head(Path(path)) for path in parts]
    first = heads[0]
    for head in heads[1:]:
        if different := sorted(head.columns.keys() ^ first.columns.keys()):
            raise ValueError(f"{head.path}: has {', '.join(different)} or lacks it, unlike {first.path}")
    if len(heads) > 1:
        for head in heads:
            if "pixels" not in head.reports:
                raise ValueError(f"{head.path}: does not report its pixels")
    numbers = [name for name, value in first.reports.items() if isinstance(value, int | float)]
    sums = {name: sum(head.reports.get(name, 0) for head in heads) for name in numbers}
    texts = None if config is None else {n: layout._json(f"config[{n!r}]", value) for n, value in config.items()}
    with atomic(output) as part, h5py.File(part, "w", libver=("v108", "v110")) as file:
        _skeleton(file, heads, texts)
        file["reports"].attrs["json"] = json.dumps({**first.reports, **sums})
        _fill(file, heads)
    return sum(head.hits for head in heads)


def _head(path: Path) -> _Head:
    with open_hdf5(path) as file:
        layout._check_format(path, file)
        try:
            names = [f"{group}/{name}" for group in ("hits", "truth") if group in file for name in file[group]]
            reports = json.loads(file["reports"].attrs["json"])
            return _Head(path, {name: file[name].shape[-1] for name in names}, reports)
        except KeyError as error:
            raise ValueError(f"{path}: incomplete, {error.args[0]}") from None


def _skeleton(file: Any, heads: list[_Head], texts: dict[str, str] | None) -> None:
    """Groups, attributes and empty datasets of the full length, after the first part."""
    with open_hdf5(heads[0].path) as first:
        file.attrs.update(first.attrs)
        for group in ("hits", "reports", "config"):
            file.create_group(group)
        file["config"].attrs.update(first["config"].attrs if texts is None else texts)
        for name in heads[0].columns:
            shape = (*first[name].shape[:-1], sum(head.columns[name] for head in heads))
            file.create_dataset(name, shape, first[name].dtype).attrs.update(first[name].attrs)


def _fill(file: Any, heads: list[_Head]) -> None:
    at = dict.fromkeys(heads[0].columns, 0)
    hits = pixels = 0
    for head in heads:
        with open_hdf5(head.path) as part:
            for name, length in head.columns.items():
                if length:
                    values = part[name][()] + head.shift(name, hits, pixels)
                    file[name][..., at[name] : at[name] + length] = values
                at[name] += length
        hits, pixels = hits + head.hits, pixels + head.reports.get("pixels", 0)
