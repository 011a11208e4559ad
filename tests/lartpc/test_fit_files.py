"""Fits of data in files, and fits that processes share: the same bits as in memory and alone."""

import os
import subprocess
import sys
from pathlib import Path

import hepops
import pytest
import torch
from hepops.lartpc import Detector, Parameters, Simulator, gun, read_hits, read_segments, write_segments
from hepops.lartpc.fit import FitResult, PixelSums, fit, sandwich, together
from hepops.lartpc.production import HitFiles, Index, Source

NAMES = ["lifetime", "birks_a"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tracks.h5 with seven events and hits.h5 of another lifetime, without noise."""
    folder = tmp_path_factory.mktemp("files")
    tracks = gun.shoot(Detector.module0(), 7, "proton", topology="inside", energy=(60.0, 120.0), seed=4)
    write_segments(folder / "tracks.h5", tracks, positions="f8")
    truth = Simulator(Detector.module0(), Parameters(lifetime=1700.0, birks_a=0.82), dtype=torch.float64)
    with torch.no_grad():
        truth(read_segments(folder / "tracks.h5")).save(folder / "hits.h5", {"seed": None})
        truth(read_segments(folder / "tracks.h5"), seed=2).save(folder / "noisy.h5", {"seed": 2})
    return folder


def simulator():
    return Simulator(Detector.module0(), dtype=torch.float64)


def in_files(place):
    return Index.scan(Source((place / "tracks.h5",))), HitFiles.scan([place / "hits.h5"])


def in_memory(place):
    return read_segments(place / "tracks.h5"), read_hits(place / "hits.h5")


def assert_same(a, b):
    assert torch.equal(a.values, b.values) and torch.equal(a.covariance, b.covariance)
    assert a.iterations == b.iterations and a.value == b.value and a.counts == b.counts


@pytest.mark.parametrize("batch_events", [None, 2])
def test_files_give_what_memory_gives(place, batch_events):
    more = {"chunk": 40, "batch_events": batch_events}
    a = fit(simulator(), *in_memory(place), NAMES, **more)
    b = fit(simulator(), *in_files(place), NAMES, **more)
    assert_same(a, b)
    assert a["lifetime"] == pytest.approx(1700, rel=1e-6)


def test_some_events_of_files(place):
    index, hits = in_files(place)
    some = index.events[1:4]
    segments, measured = in_memory(place)
    a = fit(simulator(), segments.select(some.tolist()), measured, NAMES)
    b = fit(simulator(), index.select(some), hits, NAMES)
    assert_same(a, b)
    with pytest.raises(ValueError, match="there is no event 99"):
        index.select([99])


def test_one_side_in_files_is_refused(place):
    segments, _ = in_memory(place)
    index, hits = in_files(place)
    with pytest.raises(TypeError, match="both be in memory or both in files, got Segments and HitFiles"):
        fit(simulator(), segments, hits, NAMES)
    with pytest.raises(TypeError, match="got Index and Hits"):
        fit(simulator(), index, read_hits(place / "hits.h5"), NAMES)


def test_files_without_a_common_event_are_refused(place, tmp_path):
    index, _ = in_files(place)
    hits = read_hits(place / "hits.h5")
    torch_ids = hits.event + 100
    import dataclasses

    dataclasses.replace(hits, event=torch_ids).save(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="none of its events"):
        fit(simulator(), index, HitFiles.scan([tmp_path / "other.h5"]), NAMES)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from hepops.lartpc import Detector, Parameters, Simulator
from hepops.lartpc.fit import fit, sandwich, together
from hepops.lartpc.production import HitFiles, Index, Ranks, Source
place, out = Path(sys.argv[1]), Path(sys.argv[2])
ranks = Ranks.join()
index, hits = Index.scan(Source((place / "tracks.h5",))), HitFiles.scan([place / "hits.h5"])
noisy = HitFiles.scan([place / "noisy.h5"])
names, more = ["lifetime", "birks_a"], {"chunk": 40, "ranks": ranks}
sim = Simulator(Detector.module0(), dtype=torch.float64)
fit(sim, index, hits, names, checkpoint=out / "plain", **more).save(out / f"plain{ranks.rank}.h5")

if ranks.size > 2:
    sys.exit()
some = index.select(index.events[:2])  # enough for a test
near = {"start": {"efield": 0.501, "birks_a": 0.81}, "bounds": {"birks_a": (0.5, 0.99)}}
known = Simulator(Detector.module0(), Parameters(lifetime=1700.0), dtype=torch.float64)
result = fit(known, some, noisy, ["efield", "birks_a"], residual="likelihood", checkpoint=out / "noisy", **near, **more)
result.save(out / f"noisy{ranks.rank}.h5")
torch.save(together(result, lambda r: (sandwich(r), r.names)), out / f"sandwich{ranks.rank}.pt")

def refused(what, ask):
    try:
        ask()
    except Exception as error:
        (out / f"{what}{ranks.rank}.txt").write_text(f"{type(error).__name__}: {error}")

refused("alone", lambda: sandwich(result))
refused("question", lambda: together(result, lambda r: r["nothing"]))
refused("adam", lambda: fit(sim, index, hits, names, method="adam", **more))
if ranks.rank == ranks.size - 1:
    def broken(*_, **__):
        raise ValueError("the last rank has no data")
    index.__class__.read = broken
refused("broken", lambda: fit(sim, index, hits, names, **more))
"""


def launch(place, out, ranks):
    """The files that so many processes write who ask one question after the other."""
    (out / "script.py").write_text(SCRIPT)
    source = str(Path(hepops.__file__).parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    line = [sys.executable, *command, str(out / "script.py"), str(place), str(out)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    return launch(place, tmp_path_factory.mktemp("two"), 2)


def test_processes_give_what_one_gives(place, two, tmp_path):
    alone = fit(simulator(), *in_files(place), NAMES, chunk=40)
    for out, ranks in ((two, 2), (launch(place, tmp_path, 3), 3)):
        for rank in range(ranks):
            assert_same(alone, FitResult.load(out / f"plain{rank}.h5"))


@pytest.fixture(scope="module")
def likelihood_alone(place):
    index, _ = in_files(place)
    index, noisy = index.select(index.events[:2]), HitFiles.scan([place / "noisy.h5"])
    near = {"start": {"efield": 0.501, "birks_a": 0.81}, "bounds": {"birks_a": (0.5, 0.99)}}
    known = Simulator(Detector.module0(), Parameters(lifetime=1700.0), dtype=torch.float64)
    return fit(known, index, noisy, ["efield", "birks_a"], residual="likelihood", chunk=40, **near)


def test_processes_share_a_likelihood(two, likelihood_alone):
    for rank in range(2):
        assert_same(likelihood_alone, FitResult.load(two / f"noisy{rank}.h5"))
    truth = torch.tensor([0.5, 0.82], dtype=torch.float64)
    assert ((likelihood_alone.values - truth).abs() < 4 * likelihood_alone.errors).all()


def test_a_shared_likelihood_is_asked_together(two, likelihood_alone):
    """The sandwich has the same bits on every rank as alone; asked on one rank that has no likelihood it is refused."""
    expected = sandwich(likelihood_alone)
    for rank in range(2):
        covariance, names = torch.load(two / f"sandwich{rank}.pt")
        assert torch.equal(covariance, expected) and names == ("efield", "birks_a")
        assert (two / f"question{rank}.txt").read_text().startswith("KeyError: 'nothing is not in this fit")
        assert (two / f"alone{rank}.txt").exists() == (rank > 0)
    assert "rank 0 has its likelihood" in (two / "alone1.txt").read_text()
    assert torch.equal(together(likelihood_alone, sandwich), expected)


def test_an_error_of_one_process_is_that_of_all(two):
    for rank in range(2):
        assert (two / f"broken{rank}.txt").read_text() == "ValueError: the last rank has no data"


def test_processes_do_not_share_adam(two):
    assert all('method "lm" alone' in (two / f"adam{rank}.txt").read_text() for rank in range(2))


def test_a_stage_of_residuals_alone(place):
    a = fit(simulator(), *in_memory(place), NAMES, residual=PixelSums(), chunk=40)
    b = fit(simulator(), *in_files(place), NAMES, residual=PixelSums(), chunk=40)
    assert_same(a, b)
