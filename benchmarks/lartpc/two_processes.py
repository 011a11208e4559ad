"""One run shared by two processes: the same bits, and how much sooner.

    python benchmarks/lartpc/two_processes.py [tracks.h5 ...]

Simulates the files (by default the built-in gun's muons) with noise, then takes a few steps of a likelihood fit of
their hits, with one process and with two, one thread each, alternating; walls, with the start of the interpreters.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hepops.lartpc import Detector, gun, read_hits, write_segments
from hepops.lartpc.fit import FitResult

REPEATS = 3
MORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def launch(processes: int, *words: object) -> float:
    """Seconds of a command in so many processes."""
    ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    line = [sys.executable, *ranks, "-m", "hepops.cli", *map(str, words), "--quiet"]
    began = time.perf_counter()
    subprocess.run(line, check=True, env=os.environ | MORE, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(what: str, run: dict[int, list[float]]) -> None:
    one, two = (sorted(run[n])[REPEATS // 2] for n in (1, 2))
    print(f"{what}: {one:.2f} s with one process, {two:.2f} s with two, {one / two:.2f} times faster")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tracks = [Path(p) for p in sys.argv[1:]]
        if not tracks:
            tracks = [place / "tracks.h5"]
            write_segments(tracks[0], gun.shoot(Detector.module0(), 200, seed=1))
        read = ["--offset", "0,21.8236,0"] if any("mixed" in p.name for p in tracks) else []
        times: dict[int, list[float]] = {1: [], 2: []}
        for k in range(REPEATS):
            for n in (1, 2):
                out = place / f"{n}_{k}.h5"
                words = [*tracks, "-o", out, "--seed", 1, "--piece", 2000, "--same-event", "renumber", *read]
                times[n].append(launch(n, "simulate", *words))
        a, b = (read_hits(place / f"{n}_0.h5") for n in (1, 2))
        for name, column in (a.columns() | a.truth._asdict()).items():
            assert torch.equal(column, (b.columns() | b.truth._asdict())[name]), name
        print(f"{len(a)} hits, the same bits")
        compare("simulate", times)

        times = {1: [], 2: []}
        for k in range(REPEATS):
            for n in (1, 2):
                words = [place / "1_0.h5", "--tracks", *tracks, "-o", place / f"fit{n}_{k}", "--iterations", 4]
                words += ["--piece", 500, "--no-plots"]
                times[n].append(launch(n, "calibrate", *words))
        first, second = (FitResult.load(place / f"fit{n}_0" / "result.h5") for n in (1, 2))
        assert torch.equal(first.values, second.values) and torch.equal(first.covariance, second.covariance)
        compare("calibrate, 4 steps", times)


if __name__ == "__main__":
    main()
