"""Voxels of a file through a package, and labels into another."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from .run import Exported

AT_A_TIME = 50_000  # voxels, of whole events


def read_voxels(path: str | Path, inputs: list[dict[str, Any]]) -> list[Tensor]:
    """The datasets of an HDF5 file that a package asks for, by the names of its inputs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an HDF5 file, a dataset that is missing, lengths that differ, or a number that is not finite.
    """
    with open_hdf5(path) as file:
        missing = [x["name"] for x in inputs if x["name"] not in file]
        if missing:
            raise ValueError(f"{path}: no dataset {missing[0]!r} among {sorted(file)}; the package asks for "
                             f"{[x['name'] for x in inputs]}")  # fmt: skip
        columns = [_column(path, x["name"], file[x["name"]]) for x in inputs]
    lengths = {x["name"]: len(column) for x, column in zip(inputs, columns, strict=True)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: datasets must have one length, got {lengths}")
    return columns


def _column(path: str | Path, name: str, dataset: Any) -> Tensor:
    """A dataset of numbers, whatever their width and the order of their bytes."""
    import numpy as np

    kind = getattr(getattr(dataset, "dtype", None), "kind", None)
    if kind not in ("b", "i", "u", "f") or not dataset.shape:
        said = "a group" if kind is None else f"{dataset.dtype} of shape {dataset.shape}"
        raise ValueError(f"{path}: {name} must be a dataset of numbers, one row for each voxel, got {said}")
    if kind == "b":
        raise ValueError(f"{path}: {name} must be numbers, got {dataset.dtype}")
    data = dataset[...]
    if kind == "u":
        if data.size and int(data.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{path}: {name} must lie below 2^63, got {data.max()}")
        data = data.astype(np.int64)
    if (
        kind == "f" and not np.isfinite(data).all()
    ):  # the logits around it would be NaN, and NaN's label the first class
        row = int(np.argwhere(~np.isfinite(data))[0, 0])
        raise ValueError(f"{path}: {name} of voxel {row} is {data[row]}, expected finite numbers")
    return torch.from_numpy(np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("=")))


def label_file(package: Exported, source: str | Path, target: str | Path) -> Tensor:
    """Run a package on the voxels of a file, some whole events at a time, and write what it gives.

    Args:
        package: From `load`; its first input must be `coordinates`, the event first.
        source: HDF5 with a dataset for each input (`coordinates` (n, 4), `charge` (n) ...).
        target: HDF5 to write: `coordinates`, the outputs by their names and, where the package has classes, `label`
            (n); the description as an attribute.

    Returns:
        The labels, int64 (n), or the first output where there are no classes.

    Raises:
        ValueError: as `read_voxels`; a package whose first input is not `coordinates`, or with several outputs.
    """
    import json

    import h5py

    description = package.description
    if description["inputs"][0]["name"] != "coordinates" or len(description["outputs"]) != 1:
        raise ValueError(f"{package} does not label voxels: its first input must be coordinates, its output one")
    columns = read_voxels(source, description["inputs"])
    for x, column in zip(description["inputs"], columns, strict=True):
        if column.dim() != len(x["shape"]) or list(column.shape[1:]) != list(x["shape"][1:]):
            raise ValueError(f"{source}: {x['name']} must have shape {x['shape']}, got {list(column.shape)}")
    output = torch.empty(len(columns[0]), *description["outputs"][0]["shape"][1:])
    for rows in _events(columns[0]):
        output[rows] = package(*(x[rows] for x in columns))
    result = output.argmax(1) if description["classes"] else output
    with atomic(target) as part, h5py.File(part, "w") as file:
        file["coordinates"] = columns[0].numpy()
        file[description["outputs"][0]["name"]] = output.numpy()
        if description["classes"]:
            file["label"] = result.numpy()
            file["label"].attrs["classes"] = description["classes"]
        file.attrs["package"] = json.dumps({key: description[key] for key in ("model", "sha256", "versions")})
    return result


def _events(coordinates: Tensor) -> Iterator[Tensor]:
    """Rows of whole events, about AT_A_TIME together; which ones makes no difference to the result."""
    order = torch.argsort(coordinates[:, 0], stable=True)
    _, counts = torch.unique_consecutive(coordinates[order, 0], return_counts=True)
    begin = end = 0
    for count in counts.tolist():
        if end > begin and end + count - begin > AT_A_TIME:
            yield order[begin:end]
            begin = end
        end += count
    if end > begin:
        yield order[begin:end]
