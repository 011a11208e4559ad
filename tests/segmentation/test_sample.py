import pytest
import torch
from hepops.lartpc.interactions import Mixture
from hepops.segmentation import CLASSES, Sample, make
from hepops.segmentation.sample import prepare


@pytest.fixture(scope="module")
def sample():
    return make(4, seed=1)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_voxels_are_there_once_and_know_their_class(sample):
    assert len(torch.unique(sample.coordinates, dim=0)) == len(sample) > 500
    assert sample.events.tolist() == [0, 1, 2, 3]
    assert int(sample.label.min()) >= -1 and int((sample.label < 0).sum()) < 0.01 * len(sample)
    assert bool((sample.class_counts() > 0).all()) and int(sample.class_counts().sum()) <= len(sample)
    by_event = torch.zeros(4).index_add(0, sample.coordinates[:, 0].long(), sample.charge)
    assert 1e3 < float(by_event.min()) and float(by_event.max()) < 4e4  # 27 ke per cm and more, from tracks of metres


def test_a_muon_alone_leaves_voxels_of_muons_and_delta_rays():
    alone = make(3, seed=2, mixture=Mixture(protons=(0, 0), showers=(0, 0), cosmics=(0, 0)))
    assert {CLASSES[c] for c in alone.label.unique().tolist() if c >= 0} <= {"muon", "delta"}
    assert int(alone.class_counts()[0]) > 0.8 * len(alone)


def test_the_seed_decides_and_events_are_independent(sample):
    assert same(make(1, seed=1, first_event=2), sample.split()[2])
    assert not torch.equal(make(1, seed=3).charge[:20], sample.charge[:20])


def test_parts_are_the_whole(sample):
    parts = sample.split()
    assert len(parts) == 4 and same(Sample.cat(parts), sample)
    assert len(Sample.cat([])) == 0


def test_files_are_made_once_whatever_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("hepops.segmentation.sample.PER_FILE", 1)
    seen = []
    whole = prepare(tmp_path / "a", 3, seed=5, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)] and same(whole, make(3, seed=5))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    assert sorted(before) == ["000000.npz", "000001.npz", "000002.npz"]
    (tmp_path / "a" / "000001.npz").unlink()  # as after a kill
    assert same(prepare(tmp_path / "a", 3, seed=5), whole)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    assert [before[name] == after[name] for name in sorted(before)] == [True, False, True]
    assert not same(prepare(tmp_path / "a", 3, seed=6), whole)  # another seed makes them anew


@pytest.mark.slow
def test_two_processes_make_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("hepops.segmentation.sample.PER_FILE", 1)
    a, b = (prepare(tmp_path / str(n), 3, seed=7, workers=n) for n in (1, 2))
    assert same(a, b)


def test_a_damaged_file_is_named(tmp_path):
    prepare(tmp_path, 1, seed=5)
    path = tmp_path / "000000.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"000000.npz: not a readable file of events"):
        prepare(tmp_path, 1, seed=5)


def test_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match="expected shapes"):
        Sample(torch.zeros(3, 4), torch.zeros(2), torch.zeros(3))
