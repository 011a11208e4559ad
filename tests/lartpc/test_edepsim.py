"""Files of edep-sim, good and bad."""

import re

import h5py
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import Detector, Segments, read_segments, write_segments
from hypothesis import given
from hypothesis import strategies as st

NEW = {"eventID": "event_id", "trackID": "traj_id", "pdgId": "pdg_id"}


def table(n=4, **columns):
    """A consistent table in the older names; `columns` replaces fields, None removes one."""
    k = np.arange(n)
    rows = {
        "eventID": (k // 2).astype("u4"),
        "trackID": k.astype("u4"),
        "pdgId": np.full(n, 13, "i4"),
        "dE": (1 + k).astype("f4"),
        "dEdx": np.full(n, 2, "f4"),
        "dx": (0.5 * (1 + k)).astype("f4"),
        "t0": (0.25 * k).astype("f8"),
        "t": (100 + k).astype("f4"),
        **{f"{axis}_start": (k * s).astype("f4") for s, axis in enumerate("xyz", 1)},
        **{f"{axis}_end": (k * s + 0.3).astype("f4") for s, axis in enumerate("xyz", 1)},
    }
    rows = {name: column for name, column in (rows | columns).items() if column is not None}
    return {name: np.asarray(column) for name, column in rows.items()}


def structured(rows):
    array = np.zeros(len(rows["dE"]), [(name, column.dtype) for name, column in rows.items()])
    for name, column in rows.items():
        array[name] = column
    return array


def write(path, rows, name="segments"):
    with h5py.File(path, "w") as file:
        file[name] = structured(rows)
    return path


def change(row, column, value):
    """The table with one number of a column changed."""
    values = table()[column].astype("f8" if isinstance(value, float) else "i8")
    values[row] = value
    return table(**{column: values})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.columns().values(), b.columns().values(), strict=True))


# ---- what is read


@pytest.mark.parametrize("as_what", ["old file", "new file", "structured array", "arrays", "tensors"])
def test_every_source_and_both_generations_give_the_same(tmp_path, as_what):
    rows = table()
    new = {NEW.get(name, name): column for name, column in rows.items()}
    source = {
        "old file": lambda: write(tmp_path / "a.h5", rows),
        "new file": lambda: write(tmp_path / "a.h5", new),
        "structured array": lambda: structured(rows),
        "arrays": lambda: new,
        "tensors": lambda: {
            name: torch.from_numpy(column.astype(column.dtype.str.replace("u", "i"))) for name, column in rows.items()
        },
    }[as_what]()
    segments = read_segments(source)
    assert segments.event.tolist() == [0, 0, 1, 1] and segments.event.dtype == torch.int64
    assert segments.dE.tolist() == [1, 2, 3, 4] and segments.dE.dtype == torch.float64
    assert segments.t0.tolist() == [0, 0.25, 0.5, 0.75]
    assert segments.pdg.tolist() == [13] * 4 and segments.track.tolist() == [0, 1, 2, 3]
    assert segments.start[3].tolist() == [3, 6, 9]
    assert segments.end[0].tolist() == [np.float32(0.3)] * 3  # float32 to float64 without rounding anew
    assert not segments.excluded and not segments.notes


def test_without_t0_the_time_is_t_and_without_both_0():
    assert read_segments(table(t0=None)).t0.tolist() == [100, 101, 102, 103]
    assert read_segments(table(t0=None, t=None)).t0.tolist() == [0, 0, 0, 0]


def test_without_dEdx_it_is_dE_over_dx_and_without_dx_over_the_distance():
    assert read_segments(table(dEdx=None)).dEdx.tolist() == [2, 2, 2, 2]
    by_distance = read_segments(table(dEdx=None, dx=None))
    length = (by_distance.end - by_distance.start).norm(dim=1)
    torch.testing.assert_close(by_distance.dEdx, by_distance.dE / length, rtol=1e-15, atol=0)


def test_the_offset_is_added_to_both_ends():
    moved, there = read_segments(table(), offset=(1, 21.8236, -2)), read_segments(table())
    torch.testing.assert_close(
        moved.start - there.start, torch.tensor([1, 21.8236, -2.0], dtype=torch.float64).expand(4, 3)
    )
    torch.testing.assert_close(moved.end - moved.start, there.end - there.start)


def test_points_with_dEdx_are_kept_at_zero_length():
    rows = table(**{f"{axis}_end": table()[f"{axis}_start"] for axis in "xyz"})
    segments = read_segments(rows)
    assert torch.equal(segments.start, segments.end) and segments.dEdx.tolist() == [2, 2, 2, 2]


def test_events_are_selected():
    assert read_segments(table(), events=[1]).dE.tolist() == [3, 4]
    assert read_segments(table(), events=slice(0, 1)).dE.tolist() == [1, 2]
    with pytest.raises(ValueError, match="there is no event 9"):
        read_segments(table(), events=[9])


@given(st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=4))
def test_ids_have_64_bits(events):
    for kind in ("i8", "u8"):
        segments = read_segments(table(eventID=np.array(events, kind), trackID=np.array(events, kind)))
        assert segments.event.tolist() == events and segments.track.tolist() == events


def test_an_event_in_several_blocks_is_one_and_noted():
    segments = read_segments(table(eventID=np.array([7, 8, 7, 7])))
    assert segments.events.tolist() == [7, 8]
    assert segments.notes == {"further blocks of an earlier event": 1}


# ---- the files at hand


@pytest.mark.parametrize(
    "name, count, events, energy",
    [
        ("muons_0", 168, 26, 380.37),
        ("muons_12", 105, 17, 371.595),
        ("ten_events", 2736, 10, 5314.75),
        ("mixed_sample", 73789, 100, 113667),
    ],
)
def test_reads_the_real_files_whole(name, count, events, energy):
    segments = read_segments(shared(f"data/lartpc/edepsim/{name}.h5"))
    assert (len(segments), len(segments.events)) == (count, events)
    assert segments.dE.sum().item() == pytest.approx(energy, rel=5e-6)
    assert not segments.excluded
    assert bool((segments.dEdx > 0).all())


@pytest.mark.parametrize("name, lost", [("mixed_sample", 0.2072), ("ten_events", 0.2473)])
def test_module0_files_lie_in_module0_with_their_offset(name, lost):
    path, detector = shared(f"data/lartpc/edepsim/{name}.h5"), Detector.module0()
    for offset, share in ((0.0, lost), (21.8236, 0.0)):
        segments = read_segments(path, offset=(0, offset, 0))
        outside = detector.tpc_of((segments.start + segments.end) / 2) < 0
        assert (segments.dE[outside].sum() / segments.dE.sum()).item() == pytest.approx(share, abs=1e-4)


def test_the_muon_files_share_events():
    paths = [shared(f"data/lartpc/edepsim/muons_{i}.h5") for i in range(4)]
    with pytest.raises(
        ValueError, match=r"13 events stand in several files, the first is 10, .*muons_0.h5 and .*muons_1.h5"
    ):
        read_segments(paths)
    merged, apart = (read_segments(paths, same_event=how) for how in ("merge", "renumber"))
    assert (len(merged), len(merged.events), merged.notes["events in several files"]) == (458, 55, 13)
    assert (len(apart), len(apart.events)) == (458, 69)
    assert torch.equal(apart.event % 100, merged.event)


# ---- what is refused, or left out and counted


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5: no such file"):
        read_segments(tmp_path / "nowhere.h5")
    with pytest.raises(ValueError, match=r"there is no dataset 'segments', only \['tracks'\]"):
        read_segments(write(tmp_path / "a.h5", table(), name="tracks"))
    with pytest.raises(ValueError, match="there is no field y_end"):
        read_segments(write(tmp_path / "b.h5", table(y_end=None)))
    with pytest.raises(ValueError, match="there is no field eventID or event_id"):
        read_segments(table(eventID=None))
    with pytest.raises(ValueError, match="there is no field dE, only"):
        read_segments({name: column for name, column in table().items() if name != "dE"})
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["segments"] = np.zeros((3, 4))
    with pytest.raises(ValueError, match="must be a dataset of named fields"):
        read_segments(tmp_path / "c.h5")


BAD = {
    "with a position that is not finite": change(2, "x_start", float("nan")),
    "with a time that is not finite": change(2, "t0", float("inf")),
    "with dE that is not finite": change(2, "dE", float("nan")),
    "with negative dE": change(2, "dE", -1.0),
    "with an event id that is negative or no integer": change(2, "eventID", -1),
    "with dEdx that is not positive and finite": change(2, "dEdx", 0.0),
    "with dEdx that contradicts dE and dx": change(2, "dEdx", 2.01),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_segment_is_refused_or_counted(reason, tmp_path):
    path = write(tmp_path / "bad.h5", BAD[reason])
    with pytest.raises(ValueError, match=rf"bad.h5: 1 segments {reason}, the first is row 2"):
        read_segments(path)
    segments = read_segments(path, on_bad="exclude")
    assert segments.track.tolist() == [0, 1, 3] and segments.excluded == {reason: 1}
    assert f"excluded: 1 {reason}" in segments.report()


def test_event_ids_are_integers_that_64_bits_hold():
    for events in (
        np.array([0, 1, 2**63, 3], "u8"),
        np.array([0, 1, 1.5, 3]),
        np.array([0, 1, np.nan, 3]),
        np.array([0, 1, 1e19, 3]),
    ):
        with pytest.raises(ValueError, match="event id that is negative or no integer, the first is row 2"):
            read_segments(table(eventID=events))


def test_zero_length_without_dEdx_is_bad():
    rows = table(dEdx=None, dx=None)
    for axis in "xyz":
        rows[f"{axis}_end"] = rows[f"{axis}_end"].copy()
        rows[f"{axis}_end"][1] = rows[f"{axis}_start"][1]
    with pytest.raises(ValueError, match="1 segments of zero length without dEdx, the first is row 1"):
        read_segments(rows)
    assert read_segments(rows, on_bad="exclude").excluded == {"of zero length without dEdx": 1}


def test_segments_without_energy_are_left_out_and_counted():
    segments = read_segments(change(0, "dE", 0.0))
    assert segments.track.tolist() == [1, 2, 3] and segments.excluded == {"without energy": 1}


def test_a_segment_that_stands_twice_is_bad():
    rows = table()
    twice = {name: np.concatenate([column, column[1:2]]) for name, column in rows.items()}
    with pytest.raises(ValueError, match="1 segments that stand twice, the first is row 4"):
        read_segments(twice)
    assert same(read_segments(twice, on_bad="exclude"), read_segments(rows))
    twice["trackID"][4] = 99  # another particle at the same place is no repetition
    assert len(read_segments(twice)) == 5


def test_one_event_in_two_files_is_refused_unless_decided(tmp_path):
    a, b = write(tmp_path / "a.h5", table()), write(tmp_path / "b.h5", table(eventID=np.array([1, 1, 2, 2])))
    with pytest.raises(ValueError, match="1 events stand in several files, the first is 1"):
        read_segments([a, b])
    assert read_segments([a, b], same_event="merge").event.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert read_segments([a, b], same_event="renumber").event.tolist() == [0, 0, 1, 1, 11, 11, 12, 12]
    with pytest.raises(ValueError, match="2 events stand in several files"):
        read_segments([a, a])  # the same file twice


def test_renumbering_beyond_64_bits_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", table(eventID=np.full(4, 2**62)))
    with pytest.raises(ValueError, match="exceed 64 bits"):
        read_segments([path, path], same_event="renumber")


def test_no_segments_is_an_error(tmp_path):
    nothing = table(0)
    with pytest.raises(ValueError, match="no segments in"):
        read_segments(write(tmp_path / "a.h5", nothing))
    with pytest.raises(ValueError, match=re.escape("excluded: {'without energy': 4}")):
        read_segments(table(dE=np.zeros(4)))
    with pytest.raises(ValueError, match="list of files is empty"):
        read_segments([])


@pytest.mark.parametrize("keep", [0, 7, 100, 2500, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, keep):
    path = write(tmp_path / "a.h5", table(2000))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])
    with pytest.raises(ValueError, match=r"a\.h5: .*truncated") as error:
        read_segments(path)
    assert "\n" not in str(error.value)


def test_a_foreign_file_is_one_line(tmp_path):
    (tmp_path / "a.h5").write_text("not HDF5 at all\n" * 1000)
    with pytest.raises(ValueError, match="not a readable HDF5 file, truncated or foreign"):
        read_segments(tmp_path / "a.h5")


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="on_bad must be one of"):
        read_segments(table(), on_bad="ignore")
    with pytest.raises(ValueError, match="same_event must be one of"):
        read_segments(table(), same_event="first")
    with pytest.raises(ValueError, match="offset must be three numbers"):
        read_segments(table(), offset=(1, 2))
    with pytest.raises(ValueError, match="field dE must be one number per segment"):
        read_segments(table(dE=np.ones(3)))
    with pytest.raises(TypeError, match="source must be a path"):
        read_segments(7)
    with pytest.raises(ValueError, match="field dE must hold numbers"):
        read_segments(table(dE=np.array(["a"] * 4)))


# ---- what is written


@pytest.mark.parametrize("generation", ["new", "old"])
def test_what_is_written_is_read_back(tmp_path, generation):
    segments = read_segments(shared("data/lartpc/edepsim/ten_events.h5"))
    write_segments(tmp_path / "a.h5", segments, generation=generation)
    assert same(read_segments(tmp_path / "a.h5"), segments)  # float32 numbers survive float32
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_float64_is_written_to_the_last_bit(tmp_path):
    segments = read_segments(table(), offset=(0.1, 0.2, 0.3))
    write_segments(tmp_path / "a.h5", segments)
    assert not same(read_segments(tmp_path / "a.h5"), segments)
    write_segments(tmp_path / "a.h5", segments, positions="f8")
    assert same(read_segments(tmp_path / "a.h5"), segments)


def test_large_ids_are_written(tmp_path):
    segments = read_segments(table(eventID=np.array([0, 1, 2, 2**40]), trackID=np.array([0, 1, 2, 2**40])))
    write_segments(tmp_path / "a.h5", segments)
    assert same(read_segments(tmp_path / "a.h5"), segments)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", table())
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        write_segments(path, read_segments(table()))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_segments_without_rows_can_be_written(tmp_path):
    write_segments(tmp_path / "a.h5", read_segments(table())[:0])
    with pytest.raises(ValueError, match="no segments"):
        read_segments(tmp_path / "a.h5")
    assert isinstance(read_segments(table())[:0], Segments)
