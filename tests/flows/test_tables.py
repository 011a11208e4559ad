"""The same table from every source, and what is refused."""

import sys

import h5py
import numpy as np
import pytest
import torch
from hepops.flows.tables import read_table

VALUES = np.array([[1.0, -2.0, 3.0], [4.5, 5.0, -6.25]])
NAMED = {"a": VALUES[:, 0], "b": VALUES[:, 1].astype(np.float32), "n": VALUES[:, 2]}


def _is_the_table(table, names=("a", "b", "n")):
    assert table.columns == tuple(names) and table.values.dtype == np.float64
    assert np.array_equal(table.values, VALUES)


def test_arrays_dictionaries_and_records():
    _is_the_table(read_table(VALUES), ("x0", "x1", "x2"))
    _is_the_table(read_table(torch.tensor(VALUES), ["a", "b", "n"]))
    _is_the_table(read_table(NAMED))
    _is_the_table(read_table({k: torch.tensor(v) for k, v in NAMED.items()}))
    _is_the_table(read_table(np.rec.fromarrays(VALUES.T, names="a,b,n")))
    _is_the_table(read_table(read_table(NAMED)))
    assert read_table(VALUES[:, 0]).values.shape == (2, 1)
    assert np.array_equal(read_table(NAMED, ["n", "a"]).values, VALUES[:, [2, 0]])


def test_hdf5(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        for name, column in NAMED.items():
            file[name] = column
            file[f"deep/{name}"] = column
        file["events"] = np.rec.fromarrays(VALUES.T, names="a,b,n")
        file["block"] = VALUES
    _is_the_table(read_table(path, ["a", "b", "n"]))
    _is_the_table(read_table(str(path), key="deep"))
    _is_the_table(read_table(path, key="events"))
    _is_the_table(read_table(path, key="block"), ("x0", "x1", "x2"))
    with pytest.raises(ValueError, match="no tree in the file, which has a, b, block"):
        read_table(path, key="tree")
    with pytest.raises(ValueError, match="no pt in the table, which has a, b, n"):
        read_table(path, ["pt"], key="deep")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="truncated or foreign"):
        read_table(path)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.h5")


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    _is_the_table(read_table(pandas.DataFrame(NAMED)))
    _is_the_table(read_table(pandas.DataFrame(NAMED)[["n", "b", "a"]], ["a", "b", "n"]))
    with pytest.raises(TypeError, match="column s: not numbers"):
        read_table(pandas.DataFrame({"s": ["x", "y"]}))


def test_root_files(tmp_path):
    uproot = pytest.importorskip("uproot")
    path = tmp_path / "t.root"
    with uproot.recreate(path) as file:
        file.mktree("events", {k: v.dtype for k, v in NAMED.items()}).extend(NAMED)
    _is_the_table(read_table(path))
    assert np.array_equal(read_table(path, ["n", "a"], key="events").values, VALUES[:, [2, 0]])
    with pytest.raises(ValueError, match="no pt in the tree, which has a, b, n"):
        read_table(path, ["pt"])
    with pytest.raises(ValueError, match="no tree other in the file, which has events"):
        read_table(path, key="other")
    (tmp_path / "bad.root").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"bad.root: not a readable ROOT file"):
        read_table(tmp_path / "bad.root")


def test_root_files_without_uproot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(ImportError, match=r"pip install hepops\[root\]"):
        read_table(tmp_path / "t.root")


@pytest.mark.parametrize(
    "source, columns, error, message",
    [
        (np.zeros((2, 2, 2)), None, ValueError, r"shape \(N, D\), got \(2, 2, 2\)"),
        (np.zeros((0, 2)), None, ValueError, "no rows"),
        (np.zeros((2, 0)), None, ValueError, "no columns"),
        ({}, None, ValueError, "no columns"),
        (VALUES, ["a"], ValueError, "1 names"),
        (NAMED, ["a", "a"], ValueError, "different names"),
        (NAMED, [], ValueError, "at least one"),
        (NAMED, ["a", "c"], ValueError, "no c in the table, which has a, b, n"),
        ({"a": [1, 2], "b": [1]}, None, ValueError, "one length, got {'a': 2, 'b': 1}"),
        ({"a": [[1, 2], [3, 4]]}, None, ValueError, "column a: must hold one number per row"),
        ({"a": [[1, 2], [3]]}, None, TypeError, "column a: not numbers"),
        ({"a": [1 + 2j]}, None, TypeError, "column a: not numbers"),
        (7, None, TypeError, "got int"),
        ("table.csv", None, ValueError, "ends in one of .h5, .hdf5, .hdf, .root"),
    ],
)
def test_refused_by_name(source, columns, error, message):
    with pytest.raises(error, match=message):
        read_table(source, columns)


def test_what_an_array_masks_is_not_a_number(tmp_path):
    masked = np.ma.masked_array(np.arange(4), [0, 1, 0, 0])
    for table in (read_table(masked), read_table({"a": masked})):
        assert np.array_equal(table.values[:, 0], [0, np.nan, 2, 3], equal_nan=True)


def test_labels_are_compared_as_text():
    assert read_table({0: [1.0, 2.0], 1: [3, 4]}).columns == ("0", "1")
    with pytest.raises(ValueError, match="two of the table are called 0"):
        read_table({0: [1.0], "0": [2.0]})
    with pytest.raises(TypeError, match="must be names"):
        read_table({"a": [1.0]}, [0])


def test_half_precision():
    assert read_table(torch.ones(3, 2, dtype=torch.bfloat16)).values.shape == (3, 2)


def test_text_in_a_record_is_left_out_and_a_link_to_nothing_refused(tmp_path):
    path = tmp_path / "µ.h5"
    with h5py.File(path, "w") as file:
        file["t"] = np.array([(1.0, b"x", 2)], dtype=[("e", "f8"), ("name", "S3"), ("k", "i4")])
        file["gone"] = h5py.SoftLink("/nowhere")
    assert read_table(path, key="t").columns == ("e", "k")
    with pytest.raises(ValueError, match="leads nowhere"):
        read_table(path, key="gone")
