"""edep-sim's ROOT files: trees that uproot wrote; TG4Event by stand-ins, since uproot cannot write it."""

import sys

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import read_segments
from hepops.lartpc.edepsim_root import segments_of


def columns():
    return {
        "eventID": np.array([3, 3, 5], "i4"), "trackID": np.array([1, 2, 1], "i4"),
        "pdgId": np.array([13, 11, -13], "i4"),
        "dE": np.array([1.0, 0.5, 2.0]), "dEdx": np.array([2.0, 4.0, 2.0]), "t0": np.array([0.5, 0.5, 9.0]),
        **{f"{a}_start": np.array([0.0, 1.0, 2.0]) + i for i, a in enumerate("xyz")},
        **{f"{a}_end": np.array([0.5, 1.0, 3.0]) + i for i, a in enumerate("xyz")},
    }  # fmt: skip


def same(a, b):
    return all(torch.equal(column, b.columns()[name]) for name, column in a.columns().items())


@pytest.mark.parametrize("tree", ["segments", "EDepSimEvents", "anything"])
def test_a_tree_of_one_entry_per_segment(tmp_path, tree):
    uproot = pytest.importorskip("uproot")
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree(tree, {name: c.dtype for name, c in columns().items()})
        file[tree].extend(columns())
    assert same(read_segments(tmp_path / "a.root"), read_segments(columns()))


def test_a_tree_of_one_entry_per_event(tmp_path):
    uproot, ak = pytest.importorskip("uproot"), pytest.importorskip("awkward")
    lists = {name: ak.Array([c[:2], c[2:]]) for name, c in columns().items() if name != "eventID"}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree(
            "segments", {"eventID": "i4", **{n: f"var * {c.dtype}" for n, c in columns().items() if n in lists}}
        )
        file["segments"].extend({"eventID": np.array([3, 5], "i4"), **lists})
    assert same(read_segments(tmp_path / "a.root"), read_segments(columns()))


def test_the_files_at_hand_pass_through_root(tmp_path):
    uproot = pytest.importorskip("uproot")
    import h5py

    path = shared("data/lartpc/edepsim/muons_0.h5")
    with h5py.File(path) as file:
        rows = file["segments"][:]
    table = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("segments", {name: c.dtype for name, c in table.items()})
        file["segments"].extend(table)
    assert same(read_segments(tmp_path / "a.root"), read_segments(path))


class Model:
    """What uproot makes of an object: members by name."""

    def __init__(self, **members):
        self.members = members

    def has_member(self, name):
        return name in self.members

    def member(self, name):
        return self.members[name]


def four(x, y, z, t):
    return Model(fP=Model(fX=x, fY=y, fZ=z), fE=t)


def tg4(prefix="", volume="volLArActive"):
    """An event of a muon's two segments of 3 mm and a point, [mm] and [ns]."""

    def hit(start, stop, energy, length, contributors):
        names = dict(
            PrimaryId=1, EnergyDeposit=energy, SecondaryDeposit=0.0, TrackLength=length, Start=start, Stop=stop
        )
        return Model(**{prefix + n: v for n, v in (names | dict(Contrib=contributors)).items()})

    hits = [
        hit(four(0, 0, 0, 100), four(0, 0, 3, 200), 0.6, 3.1, [1, 2]),
        hit(four(0, 0, 3, 200), four(0, 0, 6, 300), 0.6, 3.1, [1]),
        hit(four(5, 5, 5, 400), four(5, 5, 5, 400), 0.1, 0.2, []),
    ]
    tracks = [
        Model(**{prefix + "TrackId": 1, prefix + "PDGCode": 13}),
        Model(**{prefix + "TrackId": 2, prefix + "PDGCode": 11}),
    ]
    members = dict(EventId=77, Trajectories=tracks, SegmentDetectors={volume: hits, "rock": hits})
    return Model(**{prefix + n: v for n, v in members.items()})


@pytest.mark.parametrize("prefix", ["", "f"])
@pytest.mark.parametrize("volume", ["volLArActive", "TPCActive_shape"])
def test_edepsims_events_become_segments(prefix, volume):
    segments = read_segments(segments_of([tg4(prefix, volume)], "a.root"))
    assert (
        segments.event.tolist() == [77] * 3
        and segments.track.tolist() == [1, 1, 1]
        and segments.pdg.tolist() == [13] * 3
    )
    assert segments.start[:, 2].tolist() == pytest.approx([0, 0.3, 0.5]) and segments.end[1, 2].item() == pytest.approx(
        0.6
    )
    assert segments.t0.tolist() == pytest.approx([0.15, 0.25, 0.4])
    assert segments.dEdx.tolist() == pytest.approx([2.0, 2.0, 5.0])  # a point: over the track's length


def test_no_active_volume_is_an_error():
    with pytest.raises(
        ValueError, match=r"no segments in volLArActive or TPCActive_shape, the containers are \['cryo', 'rock'\]"
    ):
        segments_of([tg4(volume="cryo")], "a.root")


def test_bad_files_are_one_line(tmp_path):
    uproot = pytest.importorskip("uproot")
    with pytest.raises(FileNotFoundError, match=r"a\.root: no such file"):
        read_segments(tmp_path / "a.root")
    (tmp_path / "a.root").write_text("not ROOT\n" * 100)
    with pytest.raises(ValueError, match=r"a\.root: not a readable ROOT file") as error:
        read_segments(tmp_path / "a.root")
    assert "\n" not in str(error.value)
    with uproot.recreate(tmp_path / "b.root") as file:
        for name in ("one", "two"):
            file.mktree(name, {"x": "f8"})
            file[name].extend({"x": np.zeros(2)})
    with pytest.raises(ValueError, match=r"no tree 'segments' or 'EDepSimEvents', only \['one', 'two'\]"):
        read_segments(tmp_path / "b.root")
    with uproot.recreate(tmp_path / "c.root") as file:
        file.mktree("EDepSimEvents", {"Event": "f8"})
        file["EDepSimEvents"].extend({"Event": np.zeros(2)})
    with pytest.raises(ValueError, match=r"c\.root: ") as error:
        read_segments(tmp_path / "c.root")
    assert "\n" not in str(error.value)


def test_without_uproot_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(ImportError, match=r"pip install hepops\[root\]"):
        read_segments(tmp_path / "a.root")
