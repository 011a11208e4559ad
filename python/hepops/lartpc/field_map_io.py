"""Field maps in files: our HDF5, and the ROOT histograms of LArSoft."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from .field_map import FieldMap

FORMAT = "hepops field map"
VERSION = 1
UNITS = {"displacement": "cm", "field": "kV/cm"}


def write(map: FieldMap, path: str | Path) -> None:
    """See `FieldMap.write`."""
    import h5py

    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, origin=map.origin, spacing=map.spacing, nominal=map.nominal)
        for name, unit in UNITS.items():
            values = getattr(map, name).detach().cpu().numpy()
            file.create_dataset(name, data=values, compression="gzip", shuffle=True).attrs["unit"] = unit


def read(path: str | Path) -> FieldMap:
    """See `FieldMap.read`."""
    with open_hdf5(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError(f"{path}: no field map of hepops (format is {file.attrs.get('format')!r})")
        if int(file.attrs.get("version", 0)) != VERSION:
            raise ValueError(f"{path}: field map of version {file.attrs.get('version')}, this reads {VERSION}")
        arrays: dict[str, Tensor] = {}
        for name, unit in UNITS.items():
            if name not in file:
                raise ValueError(f"{path}: no dataset {name!r}, only {sorted(file)}")
            if file[name].attrs.get("unit") != unit:
                raise ValueError(f"{path}: {name} is in {file[name].attrs.get('unit')!r}, expected {unit!r}")
            arrays[name] = torch.from_numpy(np.asarray(file[name][...], dtype=np.float64))
        missing = [name for name in ("origin", "spacing", "nominal") if name not in file.attrs]
        if missing:
            raise ValueError(f"{path}: no attribute {missing[0]!r}")
        x, y, z = (float(v) for v in file.attrs["origin"])
        hx, hy, hz = (float(v) for v in file.attrs["spacing"])
        nominal = float(file.attrs["nominal"])
    try:
        return FieldMap(arrays["displacement"], arrays["field"], (x, y, z), (hx, hy, hz), nominal)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _nodes(edges: np.ndarray[Any, Any], name: str) -> tuple[float, float]:
    """The first centre of regular bins, and their width."""
    width = np.diff(edges)
    if len(width) < 2 or not np.allclose(width, width[0], rtol=1e-6, atol=0):
        raise ValueError(f"{name}: bins must be regular, two or more along each axis, got edges {edges.tolist()}")
    step = float(edges[-1] - edges[0]) / len(width)
    return float(edges[0]) + step / 2, step


def read_root(path: str | Path, nominal: float, suffix: str, electric: bool) -> FieldMap:
    """See `FieldMap.read_root`."""
    import uproot  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found: list[Tensor] = []
    grids = []
    with uproot.open(path) as file:
        kinds = ("TrueFwd_Displacement", "True_ElecField") if electric else ("TrueFwd_Displacement",)
        for name in (f"{kind}_{axis}{suffix}" for kind in kinds for axis in "XYZ"):
            if name not in file:
                raise ValueError(f"{path}: no histogram {name!r}, only {sorted(file.keys(cycle=False))}")
            values, *edges = file[name].to_numpy(flow=False)
            if len(edges) != 3:
                raise ValueError(f"{path}: {name} has {len(edges)} axes, expected 3")
            grids.append(tuple(_nodes(e, f"{path}: {name}") for e in edges))
            if grids[-1] != grids[0] or values.shape != tuple(found[0].shape if found else values.shape):
                raise ValueError(f"{path}: {name} has other bins than the first histogram")
            found.append(torch.from_numpy(np.asarray(values, dtype=np.float64)))
    offsets = torch.stack(found[3:], 3) if electric else torch.zeros(*found[0].shape, 3, dtype=torch.float64)
    field = nominal * (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) + offsets)
    (x, hx), (y, hy), (z, hz) = grids[0]
    return FieldMap(torch.stack(found[:3], 3), field, (x, y, z), (hx, hy, hz), nominal)
