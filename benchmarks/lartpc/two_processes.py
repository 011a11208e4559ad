"""One run shared by two processes: the same bits, and how much sooner.

    python benchmarks/lartpc/two_processes.py [--events 2000] [--fit-events 60] [--iterations 4] [--repeats 3]
                                              [--tracks FILE ...] [--only simulate|calibrate]

Simulates muons of the built-in gun (or files) with noise, then takes a few steps of a likelihood fit of some of their
hits, with one process and with two, one thread each, alternating. Of each it prints the median of

    wall        of the whole command, the start of torchrun and of the interpreters included
    steady      events per second while the workers work, by the run's own record: all events over the longest worker
    processor   of the busiest worker: where cores are shared with other work, what two free ones would take

`steady` and `wall` mean something on a quiet machine alone; the load is printed beside them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import h5py
import torch
from hepops.lartpc import Detector, gun, read_config, read_hits, write_segments
from hepops.lartpc.fit import FitResult

MORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def launch(processes: int, *words: object) -> float:
    """Seconds of a command in so many processes."""
    ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    line = [sys.executable, *ranks, "-m", "hepops.cli", *map(str, words), "--quiet", "--threads", "1"]
    began = time.perf_counter()
    subprocess.run(line, check=True, env=os.environ | MORE, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def workers(run: dict) -> tuple[float, float]:
    """Seconds and processor seconds of the worker that took longest of each."""
    each = run["starts"][-1]["workers"]
    return max(w["seconds"] for w in each), max(w["processor"] for w in each)


def compare(what: str, events: int, found: dict[int, list[tuple[float, float, float]]]) -> None:
    one, two = ([median(row[k] for row in found[n]) for k in range(3)] for n in (1, 2))
    load = os.getloadavg()[0]
    print(f"{what}, {len(found[1])} runs each, load {load:.1f}")
    print(f"  wall       {one[0]:8.2f} s   {two[0]:8.2f} s   {one[0] / two[0]:.2f} times faster")
    rates = events / one[1], events / two[1]
    print(f"  steady     {rates[0]:8.2f}/s   {rates[1]:8.2f}/s   {rates[1] / rates[0]:.2f} times faster")
    print(f"  processor  {one[2]:8.2f} s   {two[2]:8.2f} s   {one[2] / two[2]:.2f} times less", flush=True)


def simulate(place: Path, tracks: list[Path], repeats: int, read: list[str]) -> None:
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    for k in range(repeats):
        for n in (1, 2) if k % 2 == 0 else (2, 1):
            out = place / f"{n}_{k}.h5"
            words = [*tracks, "-o", out, "--seed", 1, "--piece", 2000, "--same-event", "renumber", *read]
            wall = launch(n, "simulate", *words)
            found[n].append((wall, *workers(read_config(out)["run"])))
    a, b = (read_hits(place / f"{n}_0.h5") for n in (1, 2))
    for name, column in (a.columns() | a.truth._asdict()).items():
        assert torch.equal(column, (b.columns() | b.truth._asdict())[name]), name
    with h5py.File(place / "1_0.h5") as file:
        events = sum(w["events"] for w in json.loads(file["config"].attrs["run"])["starts"][-1]["workers"])
    compare(f"simulate, {events} events, {len(a)} hits, the same bits", events, found)


def calibrate(place: Path, tracks: list[Path], repeats: int, events: int, iterations: int) -> None:
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    for k in range(repeats):
        for n in (1, 2) if k % 2 == 0 else (2, 1):
            out = place / f"fit{n}_{k}"
            words = [place / "1_0.h5", "--tracks", *tracks, "-o", out, "--iterations", iterations, "--no-plots"]
            wall = launch(n, "calibrate", *words, "--events", f":{events}", "--piece", 200, "--dtype", "float32")
            found[n].append((wall, *workers(json.loads((out / "provenance.json").read_text())["run"])))
    first, second = (FitResult.load(place / f"fit{n}_0" / "result.h5") for n in (1, 2))
    assert torch.equal(first.values, second.values) and torch.equal(first.covariance, second.covariance)
    compare(f"calibrate, {events} events, {iterations} iterations, the same bits", events, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--fit-events", type=int, default=60)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tracks", nargs="*", type=Path, default=[])
    parser.add_argument("--only", choices=["simulate", "calibrate"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, tracks = Path(folder), given.tracks
        if not tracks:
            tracks = [place / "tracks.h5"]
            write_segments(tracks[0], gun.shoot(Detector.module0(), given.events, seed=1))
        read = ["--offset", "0,21.8236,0"] if any("mixed" in p.name for p in tracks) else []
        if given.only != "calibrate":
            simulate(place, tracks, given.repeats, read)
        else:
            words = [*tracks, "-o", place / "1_0.h5", "--seed", 1, "--same-event", "renumber", *read]
            launch(1, "simulate", *words, "--events", f":{given.fit_events}")
        if given.only != "simulate":
            calibrate(place, tracks, given.repeats, given.fit_events, given.iterations)


if __name__ == "__main__":
    main()
