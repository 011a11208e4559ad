"""Runs over lists of files: indices, pieces, interruptions, ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import hepops
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import Detector, Hits, Simulator, gun, read_config, read_hits, read_segments, write_segments
from hepops.lartpc.production import HitFiles, Index, Ranks, Source, join_hits, simulate_files, tidy
from hepops.lartpc.production.index import groups

CONFIG = {"seed": 3}


def tracks(path, events, seed):
    s = gun.shoot(Detector.module0(), events, "proton", topology="inside", energy=(60.0, 120.0), seed=seed)
    write_segments(path, s, positions="f8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files of four, five and three events; the ids of all begin at 0."""
    place = tmp_path_factory.mktemp("production")
    return tuple(tracks(place / f"{k}.h5", events, k + 1) for k, events in enumerate((4, 5, 3)))


@pytest.fixture(scope="module")
def sim():
    return Simulator(Detector.module0())


def simulate(sim, seed=3):
    def run(segments, progress):
        with torch.no_grad():
            return sim(segments, seed, truth=True, progress=progress)

    return run


def assert_same_segments(a, b):
    for name, column in a.columns().items():
        assert torch.equal(column, b.columns()[name]), name


def assert_same_hits(a, b):
    for name, column in (a.columns() | a.truth._asdict()).items():
        other = (b.columns() | b.truth._asdict())[name]
        assert column.dtype == other.dtype and torch.equal(column, other), name


def whole(index):
    """All events at once, and how `read_segments` has them."""
    s = index.source
    every = read_segments(list(s.files), offset=s.offset, on_bad=s.on_bad, same_event=s.same_event)
    return index.read(index.events), every


# ---- the index


@pytest.mark.parametrize("same_event", ["merge", "renumber"])
def test_an_index_reads_what_read_segments_reads(files, same_event):
    index = Index.scan(Source(files, (0.0, 1.5, 0.0), same_event=same_event))
    (segments, rows), every = whole(index)
    assert_same_segments(segments, every)
    assert rows.tolist() == list(range(len(every)))
    assert index.notes == every.notes and index.excluded == every.excluded


def test_events_come_one_by_one(files):
    index = Index.scan(Source(files, same_event="renumber"))
    every = read_segments(list(files), same_event="renumber")
    seen = []
    for event in index.events:
        segments, rows = index.read(np.array([event]))
        assert_same_segments(segments, every[torch.from_numpy(rows)])
        assert (segments.event == int(event)).all() and len(segments) == index.rows(np.array([event]))[0]
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(every)))


@pytest.mark.parametrize("name", ["mixed_sample", "ten_events", "muons_3"])
@pytest.mark.parametrize("on_bad", ["raise", "exclude"])
def test_real_files(name, on_bad):
    index = Index.scan(Source((shared(f"data/lartpc/edepsim/{name}.h5"),), on_bad=on_bad))
    (segments, rows), every = whole(index)
    assert_same_segments(segments, every)
    assert rows.tolist() == list(range(len(every)))
    assert index.excluded == every.excluded
    some = index.events[:: max(1, len(index.events) // 7)]
    segments, rows = index.read(some)
    assert_same_segments(segments, every[torch.from_numpy(rows)])


def shuffled(files, tmp_path, change):
    """A file with the rows of all others, shuffled and changed."""
    tables = [h5py.File(path)["segments"][:] for path in files]
    for k, table in enumerate(tables):
        table["event_id"] += 10 * k
    table = np.concatenate(tables)
    table = table[np.random.default_rng(0).permutation(len(table))]
    change(table)
    with h5py.File(tmp_path / "shuffled.h5", "w") as file:
        file["segments"] = table
    return tmp_path / "shuffled.h5"


def make_bad(table):
    table["dE"][5:9] = 0
    table["x_end"][20] = np.nan
    table["dE"][21] = -1
    table[40] = table[41]


def test_rows_left_out_are_counted_alike(files, tmp_path, monkeypatch):
    """Shuffled events, rows without energy between them, blocks that end anywhere."""
    from hepops.lartpc.production import index as module

    path = shuffled(files, tmp_path, lambda table: table["dE"].__setitem__(slice(5, 300, 3), 0))
    for block in (7, 64, 1 << 18):
        monkeypatch.setattr(module, "BLOCK", block)
        index = Index.scan(Source((path,)))
        (segments, rows), every = whole(index)
        assert_same_segments(segments, every)
        assert rows.tolist() == list(range(len(every)))
        assert index.excluded == every.excluded and index.notes == every.notes


def test_bad_rows_are_excluded_alike(files, tmp_path, monkeypatch):
    from hepops.lartpc.production import index as module

    monkeypatch.setattr(module, "BLOCK", 50)
    index = Index.scan(Source((shuffled(files, tmp_path, make_bad),), on_bad="exclude"))
    (segments, rows), every = whole(index)
    assert_same_segments(segments, every)
    assert rows.tolist() == list(range(len(every)))
    assert index.excluded == every.excluded and len(index.excluded) == 4


def test_bad_rows_are_refused_when_their_event_is_read(files, tmp_path):
    index = Index.scan(Source((shuffled(files, tmp_path, make_bad),)))
    with pytest.raises(ValueError, match=r"shuffled\.h5 .*segments with"):
        index.read(index.events)


def test_bad_ids_and_files_are_refused_at_once(files, tmp_path):
    def negative(table):
        table["event_id"] = table["event_id"].astype("i8")

    path = shuffled(files, tmp_path, negative)
    with h5py.File(path, "r+") as file:
        rows = file["segments"][:]
        kind = [(n, "i8" if n == "event_id" else rows.dtype[n]) for n in rows.dtype.names]
        rows = rows.astype(kind)
        rows["event_id"][17] = -4
        del file["segments"]
        file["segments"] = rows
    with pytest.raises(ValueError, match="negative or no integer, the first is row 17, -4"):
        Index.scan(Source((path,)))
    index = Index.scan(Source((path,), on_bad="exclude"))
    assert index.excluded == {"with an event id that is negative or no integer": 1} and (index.events >= 0).all()
    with pytest.raises(ValueError, match="stand in several files, the first is 0"):
        Index.scan(Source(files))
    with pytest.raises(FileNotFoundError):
        Index.scan(Source((tmp_path / "none.h5",)))
    (tmp_path / "foreign.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        Index.scan(Source((tmp_path / "foreign.h5",)))
    with pytest.raises(ValueError, match="on_bad must be one of"):
        Source(files, on_bad="ignore")
    with pytest.raises(ValueError, match="list of files is empty"):
        Source(())


def test_a_file_cut_after_the_scan_is_refused(files, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(files[0].read_bytes())
    index = Index.scan(Source((path,)))
    with h5py.File(path, "r+") as file:
        rows = file["segments"][:-5]
        del file["segments"]
        file["segments"] = rows
    with pytest.raises(ValueError, match="changed since it was first read"):
        index.read(index.events)


def test_an_empty_file_among_others(files, tmp_path):
    with h5py.File(files[0]) as file:
        none = file["segments"][:0]
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["segments"] = none
    alone, both = Index.scan(Source(files[:1])), Index.scan(Source((tmp_path / "none.h5", files[0])))
    assert_same_segments(alone.read(alone.events)[0], both.read(both.events)[0])
    with pytest.raises(ValueError, match=r"no segments in .*none\.h5"):
        Index.scan(Source((tmp_path / "none.h5",)))


@pytest.mark.parametrize("gap", [0, 3, 10**6])
def test_scattered_rows_are_read_whatever_lies_between(files, tmp_path, monkeypatch, gap):
    from hepops.lartpc.production import index as module

    monkeypatch.setattr(module, "GAP", gap)
    index = Index.scan(Source((shuffled(files, tmp_path, lambda table: None),)))
    every = read_segments(tmp_path / "shuffled.h5")
    some = index.events[::3]
    segments, rows = index.read(some)
    assert_same_segments(segments, every[torch.from_numpy(rows)])
    assert np.array_equal(np.unique(segments.event.numpy()), some) and len(segments) == index.rows(some).sum()


def test_groups_are_whole_events():
    events, sizes = np.arange(6), np.array([5, 3, 9, 1, 1, 1])
    assert [g.tolist() for g in groups(events, sizes, 8)] == [[0, 1], [2], [3, 4, 5]]
    assert [g.tolist() for g in groups(events, sizes, 1)] == [[k] for k in range(6)]
    assert groups(events[:0], sizes[:0], 8) == []


# ---- runs


def run(index, sim, output, **more):
    return simulate_files(simulate(sim), index, index.events, output, CONFIG, **{"piece": 60, **more})


def test_pieces_are_the_whole(files, sim, tmp_path):
    index = Index.scan(Source(files, same_event="renumber"))
    told = []
    done = run(index, sim, tmp_path / "hits.h5", progress=lambda a, b: told.append((a, b)))
    hits = read_hits(tmp_path / "hits.h5")
    segments = read_segments(list(files), same_event="renumber")
    with torch.no_grad():
        expected = sim(segments, 3, truth=True)
    assert_same_hits(hits, expected)
    assert done.pieces > 4 and done.resumed == 0 and done.hits == len(hits) and done.segments == len(segments)
    assert hits.reports["rejected"] == expected.reports["rejected"]
    assert hits.reports["electrons_arriving"] == pytest.approx(expected.reports["electrons_arriving"], rel=1e-14)
    assert told == sorted(told) and told[-1] == (len(segments), len(segments)) and len(told) >= done.pieces
    assert not (tmp_path / "hits.h5.parts").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_run_goes_on(files, sim, tmp_path, after):
    index = Index.scan(Source(files, same_event="renumber"))
    run(index, sim, tmp_path / "once.h5")
    calls = []

    def killed(segments, progress):
        calls.append(len(segments))
        if len(calls) > after:
            raise Killed
        return simulate(sim)(segments, progress)

    with pytest.raises(Killed):
        simulate_files(killed, index, index.events, tmp_path / "twice.h5", CONFIG, piece=60)
    assert not (tmp_path / "twice.h5").exists()
    done = run(index, sim, tmp_path / "twice.h5")
    assert done.resumed == after
    assert_same_hits(read_hits(tmp_path / "once.h5"), read_hits(tmp_path / "twice.h5"))


def interrupted(index, sim, output):
    def killed(segments, progress):
        if len(list(output.with_name(f"{output.name}.parts").glob("0*.h5"))) > 1:
            raise Killed
        return simulate(sim)(segments, progress)

    with pytest.raises(Killed):
        simulate_files(killed, index, index.events, output, CONFIG, piece=60)


def test_another_run_does_not_go_on_there(files, sim, tmp_path):
    index = Index.scan(Source(files, same_event="renumber"))
    output = tmp_path / "hits.h5"
    interrupted(index, sim, output)
    with pytest.raises(ValueError, match="an interrupted run with another seed"):
        simulate_files(simulate(sim), index, index.events, output, {"seed": 4}, piece=60)
    with pytest.raises(ValueError, match="an interrupted run with another events"):
        simulate_files(simulate(sim), index, index.events[1:], output, CONFIG, piece=60)
    done = simulate_files(simulate(sim, 4), index, index.events, output, {"seed": 4}, piece=60, fresh=True)
    assert done.resumed == 0
    with torch.no_grad():
        expected = sim(read_segments(list(files), same_event="renumber"), 4, truth=True)
    assert_same_hits(read_hits(output), expected)


def test_a_changed_file_is_noticed(files, sim, tmp_path):
    path = tmp_path / "tracks.h5"
    path.write_bytes(files[1].read_bytes())
    output = tmp_path / "hits.h5"
    interrupted(Index.scan(Source((path,))), sim, output)
    with h5py.File(path, "r+") as file:
        rows = file["segments"][:]
        rows["z_end"][3] += 1e-3
        file["segments"][:] = rows
    with pytest.raises(ValueError, match=r"tracks\.h5: has changed since the run"):
        run(Index.scan(Source((path,))), sim, output)


def test_a_run_that_failed_before_its_first_piece_leaves_nothing(files, sim, tmp_path):
    index = Index.scan(Source(files[:1]))

    def fails(segments, progress):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        simulate_files(fails, index, index.events, tmp_path / "hits.h5", CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_share_an_output_unawares(files, sim, tmp_path):
    index = Index.scan(Source(files[:1]))

    def second(segments, progress):
        with pytest.raises(ValueError, match="another process is at work"):
            run(index, sim, tmp_path / "hits.h5")
        return simulate(sim)(segments, progress)

    simulate_files(second, index, index.events, tmp_path / "hits.h5", CONFIG)


def test_no_events_are_an_empty_file(files, sim, tmp_path):
    index = Index.scan(Source(files[:1]))
    done = simulate_files(simulate(sim), index, index.events[:0], tmp_path / "hits.h5", CONFIG)
    assert done.hits == 0 and len(read_hits(tmp_path / "hits.h5")) == 0


def left_by_a_kill(index, sim, output):
    interrupted(index, sim, output)
    parts = output.with_name(f"{output.name}.parts")
    (parts / ".000002.h5.x1.part").write_bytes(b"half")
    return parts


def test_the_record_of_a_run(files, sim, tmp_path):
    """Every start with its time and place, in the output itself."""
    index = Index.scan(Source(files, same_event="renumber"))
    left_by_a_kill(index, sim, tmp_path / "hits.h5")
    done = run(index, sim, tmp_path / "hits.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["hits.h5"]
    made = read_config(tmp_path / "hits.h5")["run"]
    first, second = made["starts"]
    assert first["interrupted"] and "interrupted" not in second and first["began"] < second["began"] < made["finished"]
    assert (first["found"], second["found"]) == (0, done.resumed) == (0, 2)
    assert made["pieces"] == done.pieces and made["piece"] == 60 and made["segments"] == done.segments
    assert made["seconds"] == pytest.approx(first["seconds"] + second["seconds"], abs=2e-3) and first["seconds"] > 0
    (worker,) = second["workers"]
    assert worker["pieces"] == done.pieces - done.resumed and 0 < worker["segments"] < done.segments
    assert 0 < worker["events"] < len(index.events) and 0 < worker["processor"] and worker["seconds"] > 0
    assert second["processes"] == 1 and second["host"] and second["hepops"] == hepops.__version__


def test_pieces_of_an_unknown_run_are_not_taken(files, sim, tmp_path):
    """Their plan is gone, as after a removal that was killed halfway: nothing of them may stand in another run."""
    index, output = Index.scan(Source(files, same_event="renumber")), tmp_path / "hits.h5"
    (left_by_a_kill(index, sim, output) / "run.json").unlink()
    done = simulate_files(simulate(sim, 4), index, index.events, output, {"seed": 4}, piece=60)
    assert done.resumed == 0
    with torch.no_grad():
        expected = sim(read_segments(list(files), same_event="renumber"), 4, truth=True)
    assert_same_hits(read_hits(output), expected)


def test_another_version_does_not_go_on(files, sim, tmp_path, monkeypatch):
    from hepops.lartpc.production import run as module

    index, output = Index.scan(Source(files, same_event="renumber")), tmp_path / "hits.h5"
    interrupted(index, sim, output)
    plan = module._plan

    def later(*args):
        return plan(*args) | {"version of hepops": "99.0"}

    monkeypatch.setattr(module, "_plan", later)
    with pytest.raises(ValueError, match="another version of hepops"):
        run(index, sim, output)


def test_a_foreign_folder_is_left_alone(files, sim, tmp_path):
    index, folder = Index.scan(Source(files[:1])), tmp_path / "hits.h5.parts"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(ValueError, match=r"thesis\.tex: is no file of a run"):
            run(index, sim, tmp_path / "hits.h5", fresh=fresh)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_what_a_finished_run_left_is_tidied(files, sim, tmp_path, monkeypatch):
    """Killed after the output stood and before the pieces were gone."""
    from hepops.lartpc.production import run as module

    def killed(folder):
        raise Killed

    index, output = Index.scan(Source(files[:1])), tmp_path / "hits.h5"
    monkeypatch.setattr(module, "remove", killed)
    with pytest.raises(Killed):
        run(index, sim, output)
    parts = tmp_path / "hits.h5.parts"
    assert output.exists() and parts.exists()
    assert tidy(output) and not parts.exists()
    assert not tidy(output), "nothing is left"
    output.rename(tmp_path / "other.h5")
    interrupted(index, sim, output)
    (tmp_path / "other.h5").rename(output)
    assert not tidy(output) and parts.exists(), "pieces of another run stay"


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from hepops.lartpc import Detector, Simulator
from hepops.lartpc.production import Index, Source, simulate_files
*files, output = sys.argv[1:]
sim, calls = Simulator(Detector.module0()), []
def simulate(segments, progress):
    calls.append(1)
    if len(calls) == 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    with torch.no_grad():
        return sim(segments, 3, truth=True)
index = Index.scan(Source(tuple(files), same_event="renumber"))
simulate_files(simulate, index, index.events, output, {"seed": 3}, piece=60)
"""


def test_after_a_full_disk_the_run_goes_on(files, sim, tmp_path):
    """A limit on the size of files stops HDF5 as a full disk does. A process of its own: HDF5 is broken after it."""
    index, output = Index.scan(Source(files, same_event="renumber")), tmp_path / "hits.h5"
    run(index, sim, tmp_path / "once.h5")
    source = str(Path(hepops.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    line = [sys.executable, "-c", FULL, *map(str, files), str(output)]
    full = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert full.returncode != 0 and not output.exists()
    assert "File too large" in full.stderr  # HDF5 may crash before Python names the file
    assert run(index, sim, output).resumed == 2
    assert_same_hits(read_hits(tmp_path / "once.h5"), read_hits(output))


def test_the_folder_may_be_removed_meanwhile(files, sim, tmp_path):
    import shutil

    place = tmp_path / "gone"
    place.mkdir()

    def removes(segments, progress):
        shutil.rmtree(place, ignore_errors=True)
        return simulate(sim)(segments, progress)

    index = Index.scan(Source(files[:1]))
    with pytest.raises(FileNotFoundError, match=r"hits\.h5\.parts/000000\.h5"):
        simulate_files(removes, index, index.events, place / "hits.h5", CONFIG)


# ---- joining


def test_joining_is_cat(files, sim, tmp_path):
    parts = []
    for k, path in enumerate(files):
        with torch.no_grad():
            parts.append(sim(read_segments(path), None, tangents=("lifetime", "efield"), truth=True))
        parts[-1].save(tmp_path / f"{k}.h5", CONFIG)
    assert join_hits([tmp_path / f"{k}.h5" for k in range(3)], tmp_path / "joined.h5") == sum(map(len, parts))
    joined, expected = read_hits(tmp_path / "joined.h5"), Hits.cat(parts)
    assert_same_hits(joined, expected)
    assert torch.equal(joined.time_tangents, expected.time_tangents) and joined.tangent_names == ("lifetime", "efield")
    assert joined.reports == json.loads(json.dumps(expected.reports | {"rejected": joined.reports["rejected"]}))


def test_what_does_not_belong_together_is_not_joined(files, sim, tmp_path):
    with torch.no_grad():
        sim(read_segments(files[0]), truth=True).save(tmp_path / "a.h5")
        sim(read_segments(files[0])).save(tmp_path / "b.h5")
    with pytest.raises(ValueError, match=r"b\.h5: has truth/.* or lacks it, unlike"):
        join_hits([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    with pytest.raises(ValueError, match="at least one part"):
        join_hits([], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


# ---- files of hits


@pytest.fixture(scope="module")
def hit_files(files, sim, tmp_path_factory):
    """The hits of the three files, ids made unique, in two files that share no event."""
    place = tmp_path_factory.mktemp("hits")
    segments = read_segments(list(files), same_event="renumber")
    with torch.no_grad():
        hits = sim(segments, 3, truth=True)
    odd = hits.event % 2 == 1
    hits[odd].save(place / "odd.h5", CONFIG)
    hits[~odd].save(place / "even.h5", CONFIG)
    return (place / "odd.h5", place / "even.h5"), hits


def test_hits_come_event_by_event(hit_files, monkeypatch):
    from hepops.lartpc.production import hit_files as module

    paths, hits = hit_files
    for block in (5, 1 << 18):
        monkeypatch.setattr(module, "BLOCK", block)
        found = HitFiles.scan(paths)
        assert len(found) == len(hits) and found.events.tolist() == hits.event.unique().tolist()
        assert found.config() == CONFIG
        for some in (found.events, found.events[2:5], np.array([found.events[3], 10**9])):
            expected, read = hits[torch.isin(hits.event, torch.from_numpy(some))], found.read(some)
            for name, column in read.columns().items():
                assert torch.equal(column, expected.columns()[name]), name
        assert len(found.read(np.array([10**9]))) == 0


def test_files_of_hits_that_do_not_fit_are_refused(hit_files, tmp_path):
    paths, _ = hit_files
    with pytest.raises(ValueError, match="stands in two files"):
        HitFiles.scan([paths[0], paths[0]])
    with pytest.raises(ValueError, match="list of files is empty"):
        HitFiles.scan([])
    with pytest.raises(FileNotFoundError):
        HitFiles.scan([tmp_path / "none.h5"])
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["hits"] = [1]
    with pytest.raises(ValueError, match="not a file of hits"):
        HitFiles.scan([tmp_path / "foreign.h5"])


# ---- processes


def launch(files, output, ranks, *more):
    source = str(Path(hepops.__file__).parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m", "hepops.cli"]
    command = [*words, "simulate", *map(str, files), "-o", str(output), "--same-event", "renumber", *more]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300)


def test_two_processes_share_a_run(files, sim, tmp_path):
    done = launch(files, tmp_path / "two.h5", 2, "--seed", "3", "--piece", "60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("silent resets") == 1
    with torch.no_grad():
        expected = sim(read_segments(list(files), same_event="renumber"), 3, truth=True)
    assert_same_hits(read_hits(tmp_path / "two.h5"), expected)


def test_work_is_mapped_in_order():
    assert Ranks().map(lambda x: x * x, [3, 1, 2]) == [9, 1, 4] and Ranks().map(len, []) == []
    with pytest.raises(ZeroDivisionError):
        Ranks().map(lambda x: 1 / x, [1, 0])


def test_ranks_of_the_environment(monkeypatch):
    assert Ranks.join() == Ranks() and list(Ranks(1, 3).mine(8)) == [1, 4, 7]
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="RANK must be 0 to WORLD_SIZE - 1"):
        Ranks.join()
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(ValueError, match="must be integers"):
        Ranks.join()
