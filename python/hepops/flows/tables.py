"""Tables of numbers from arrays, dictionaries, data frames, HDF5 and ROOT files: columns with names, in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import open_hdf5

HDF5 = (".h5", ".hdf5", ".hdf")
ROOT = (".root",)


@dataclass(frozen=True)
class Table:
    """Columns with names.

    Args:
        columns: Their names.
        values: Shape (N, len(columns)), float64.
    """

    columns: tuple[str, ...]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[:, self.columns.index(name)]


def read_table(source: Any, columns: Sequence[str] | None = None, *, key: str | None = None) -> Table:
    """A table of whatever holds one.

    Args:
        source: One of

            - an array or tensor, (N, D) or (N); its columns are called as `columns` says, by default x0, x1, ...;
            - a structured array, a dictionary of arrays (N), a pandas data frame; what an array masks is NaN here;
            - the path of an HDF5 file (.h5, .hdf5): datasets (N) of a group, or one dataset, (N, D) or compound;
            - the path of a ROOT file (.root), read by uproot: a tree's branches with one number per event.
        columns: Names of those to take, in this order; None: all, of a file those that are numbers.
        key: In a file, the group, dataset or tree; None: the only one, or the root group of an HDF5 file.

    Raises:
        ValueError: a column that is missing, named with what there is; columns of different lengths, or not of one
            number per row; no rows; a file that cannot be read.
        TypeError: something else, names that are not text, or columns that are not numbers.
        FileNotFoundError: no such file.
        ImportError: a ROOT file, and uproot is not installed.

    Example:
        >>> table = read_table({"pt": [20.0, 35.5], "charge": [1, -1]}, columns=["charge", "pt"])
        >>> table.columns, table.values.tolist()
        (('charge', 'pt'), [[1.0, 20.0], [-1.0, 35.5]])
    """
    names = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
    if names is not None and not all(isinstance(name, str) for name in names):
        raise TypeError(f"columns must be names, got {names}")
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError(f"columns must be different names, at least one, got {names}")
    if isinstance(source, Table):
        return _table(dict(zip(source.columns, source.values.T, strict=True)), names)
    if isinstance(source, (str, Path)):
        return _file(Path(source), names, key)
    if isinstance(source, Tensor):
        source = _numpy(source)
    if isinstance(source, np.ndarray):
        return _array(source, names)
    if isinstance(source, Mapping):
        return _table(_named(source, source.values()), names)
    if hasattr(source, "columns") and hasattr(source, "to_numpy"):
        whole = _named(source.columns, source.columns)
        return _table({name: _series(source[c]) for name, c in whole.items()}, names)
    raise TypeError(f"a table is an array, a dictionary, a data frame or a path, got {type(source).__name__}")


def _named(labels: Any, values: Any) -> dict[str, Any]:
    """By the text of their labels, which must differ."""
    named: dict[str, Any] = {}
    for label, value in zip(labels, values, strict=True):
        if str(label) in named:
            raise ValueError(f"columns: two of the table are called {label}")
        named[str(label)] = value
    return named


def _series(series: Any) -> Any:
    """A data frame's column; missing numbers of its own types are NaN."""
    if type(series.dtype).__module__.startswith("numpy") or getattr(series.dtype, "kind", "O") not in "fiub":
        return series.to_numpy()
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _array(array: np.ndarray, names: list[str] | None, skip: bool = False) -> Table:
    """With `skip` a structured array's columns that are not numbers are left out where none were named."""
    if array.dtype.names is not None:
        if skip and names is None:
            names = [n for n in array.dtype.names if array.dtype[n].kind in "fiub"]
        return _table({name: array[name] for name in array.dtype.names}, names)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"a table's array must have shape (N, D), got {array.shape}")
    names = [f"x{i}" for i in range(array.shape[1])] if names is None else names
    if len(names) != array.shape[1]:
        raise ValueError(f"columns: {len(names)} names {names} for {array.shape[1]} columns")
    return _table(dict(zip(names, array.T, strict=True)), names)


def _table(found: Mapping[str, Any], names: list[str] | None) -> Table:
    names = [str(n) for n in found] if names is None else names
    missing = [n for n in names if n not in found]
    if missing:
        raise ValueError(f"columns: no {', '.join(missing)} in the table, which has {', '.join(map(str, found))}")
    if not names:
        raise ValueError("the table has no columns")
    arrays = [_column(n, found[n]) for n in names]
    lengths = {n: len(a) for n, a in zip(names, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must have one length, got {lengths}")
    if not len(arrays[0]):
        raise ValueError("the table has no rows")
    return Table(tuple(names), np.stack(arrays, 1))


def _column(name: str, values: Any) -> np.ndarray:
    try:
        array = _numpy(values) if isinstance(values, Tensor) else np.ma.asanyarray(values)
        if array.dtype.kind not in "fiub":
            raise TypeError
        array = np.asarray(np.ma.filled(array.astype(np.float64), np.nan))
    except (TypeError, ValueError):
        raise TypeError(f"column {name}: not numbers, or not one per row") from None
    if array.ndim != 1:
        raise ValueError(f"column {name}: must hold one number per row, got shape {array.shape}")
    return array


def _file(path: Path, names: list[str] | None, key: str | None) -> Table:
    if path.suffix.lower() in HDF5:
        return _hdf5(path, names, key)
    if path.suffix.lower() in ROOT:
        return _root(path, names, key)
    raise ValueError(f"{path}: a table's file ends in one of {', '.join(HDF5 + ROOT)}")


def _hdf5(path: Path, names: list[str] | None, key: str | None) -> Table:
    import h5py

    with open_hdf5(path) as file:
        if key is not None and key not in file:
            raise ValueError(f"{path}: no {key} in the file, which has {', '.join(file)}")
        try:
            node = file if key is None else file[key]
        except KeyError:
            raise ValueError(f"{path}: {key} leads nowhere, a link to what is not there") from None
        if isinstance(node, h5py.Dataset):
            return _array(np.asarray(node[()]), names, skip=True)
        datasets = {n: d for n, d in node.items() if isinstance(d, h5py.Dataset)}
        if names is None:
            if key is None and len(datasets) == 1:  # the only one: may be a table by itself
                return _array(np.asarray(next(iter(datasets.values()))[()]), None, skip=True)
            names = [n for n, d in datasets.items() if d.ndim == 1 and d.dtype.kind in "fiub"]
        found = {n: datasets[n][()] if n in names else None for n in datasets}
        return _table(found, names)


def _root(path: Path, names: list[str] | None, key: str | None) -> Table:
    try:
        import uproot  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ImportError("ROOT files need uproot: pip install hepops[root]") from None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with uproot.open(path) as file:
            trees = [k for k, kind in file.classnames(cycle=False).items() if kind in ("TTree", "ROOT::RNTuple")]
            trees = list(dict.fromkeys(trees))
            if key is None and len(trees) != 1:
                raise ValueError(
                    f"{path}: key must name one of its trees, {', '.join(trees) or 'of which it has none'}"
                )
            if key is not None and key not in trees:
                raise ValueError(f"{path}: no tree {key} in the file, which has {', '.join(trees) or 'none'}")
            tree = file[trees[0] if key is None else key]
            there = [str(k) for k in tree.keys()]
            missing = [n for n in names or [] if n not in there]
            if missing:
                raise ValueError(f"columns: no {', '.join(missing)} in the tree, which has {', '.join(there)}")
            arrays = {n: tree[n].array(library="np") for n in names or there}
    except ValueError:
        raise
    except Exception as error:  # uproot raises of many kinds where a file is foreign or truncated
        raise ValueError(f"{path}: not a readable ROOT file ({' '.join(str(error).split())[:200]})") from None
    if names is None:
        names = [n for n, a in arrays.items() if a.ndim == 1 and a.dtype.kind in "fiub"]
    return _table(arrays, names)
