import os

import h5py
import pytest
from hepops.core.files import atomic, open_hdf5, umask


def test_a_finished_file_takes_its_place(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == tmp_path
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    mask = os.umask(0o027)
    try:
        assert umask() == 0o027
    finally:
        os.umask(mask)
    assert umask() == mask and path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_bad_hdf5_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.h5: no such file"), open_hdf5(tmp_path / "a.h5"):
        pass
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(ValueError, match=r"a\.h5: not a readable HDF5 file") as error, open_hdf5(tmp_path / "a.h5"):
        pass
    assert "\n" not in str(error.value)


def test_good_hdf5_is_open_and_then_closed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 3
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["x"][()] == 3
    assert not file
