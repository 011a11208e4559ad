"""Runs that are killed with -9 at random moments and started again, alone and as two processes.

Moments are drawn over the processor time of an undisturbed run, so that a busy machine kills no earlier. A run that
ends before its moment is compared with the undisturbed one, to the last bit, and another begins. The whole campaign:

    HEPOPS_KILLS=10 pytest tests/cli/test_kills.py        ten kills in each of the four ways, forty in all
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hepops
import pytest
import torch
from hepops.lartpc import read_hits
from hepops.lartpc.fit import FitResult

from .test_cli import SHORT, done

KILLS = int(os.environ.get("HEPOPS_KILLS", "2"))
TICK = os.sysconf("SC_CLK_TCK")

# One interpreter that has imported everything, and forks the processes of each start as torchrun begins them; when one
# of them fails, the others are killed, as torchrun does.
LAUNCHER = """
import json, os, signal, sys
import torch.distributed, hepops.lartpc.production
from hepops.cli import main
for line in sys.stdin:
    words, ranks, port, log = json.loads(line)
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            for stream in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            if ranks > 1:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank),
                                  MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            sys.argv = ["hepops", *words]
            code = 1
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        pids.append(pid)
    print(json.dumps(pids), flush=True)
    left, worst = set(pids), 0
    while left:
        pid, status = os.wait()
        left.discard(pid)
        worst = worst or status
        for other in left if status else ():
            os.kill(other, signal.SIGKILL)
    print(worst, flush=True)
"""


class Launcher:
    """Starts the command, waits for its end, or kills it."""

    def __init__(self, log: Path):
        source = str(Path(hepops.__file__).parent.parent)
        paths = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
        own = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own
        )

    def run(self, words, ranks, rng=None, budget=0.0):
        """(killed, processor seconds). With `rng` killed once that has passed a moment drawn below the `budget`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process.stdin.write(json.dumps([[str(w) for w in words], ranks, port, str(self.log)]) + "\n")
        self.process.stdin.flush()
        pids = json.loads(self.process.stdout.readline())
        moment = rng.uniform(0, budget) if rng else float("inf")
        used, killed = 0.0, False
        while not killed and (now := [t for pid in pids if (t := processor(pid)) is not None]):
            used = max(used, sum(now))
            if used > moment:
                for pid in pids if rng.random() < 0.5 else [rng.choice(pids)]:
                    os.kill(pid, signal.SIGKILL)
                killed = True
            time.sleep(0.002)
        status = int(self.process.stdout.readline())
        if not killed:
            assert status == 0, self.log.read_text()
        return killed and status != 0, used

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


def processor(pid):
    """Seconds of a process; None once it has ended (the launcher may not have asked for it yet)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / TICK


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tracks, hits without noise for a fit, and the launcher."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs Linux's /proc")
    folder = tmp_path_factory.mktemp("kills")
    done("gun", "-o", folder / "tracks.h5", "-n", 6, "--seed", 3, *SHORT)
    done("simulate", folder / "tracks.h5", "-o", folder / "hits.h5", "--dtype", "float64", "-p", "lifetime=1700")
    launcher = Launcher(folder / "log.txt")
    yield folder, launcher
    launcher.close()


def simulate(folder, out):
    words = ["simulate", folder / "tracks.h5", "-o", out, "--seed", 4, "--piece", 1, "--threads", 1, "-q"]
    return out, words


def calibrate(folder, out):
    words = ["calibrate", folder / "hits.h5", "--tracks", folder / "tracks.h5", "-o", out, "--fit", "lifetime,birks_a"]
    return out / "result.h5", [*words, "--piece", 40, "--threads", 1, "--no-plots", "-q", "--start", "lifetime=1000"]


def assert_same(a, b):
    """Two files hold the same bits, whatever they say of when they were made."""
    if a.name == "result.h5":
        first, second = FitResult.load(a), FitResult.load(b)
        assert torch.equal(first.values, second.values) and torch.equal(first.covariance, second.covariance)
        assert first.trace == second.trace and torch.equal(first.residuals, second.residuals)
        return
    first, second = read_hits(a), read_hits(b)
    for name, column in (first.columns() | first.truth._asdict()).items():
        other = getattr(second, name) if hasattr(second, name) else getattr(second.truth, name)
        assert column.dtype == other.dtype and torch.equal(column, other), name


def assert_whole(out, result, expected):
    """Whatever bears a final name is whole: the result is the undisturbed one's, all else can be read to its end."""
    if result.exists():
        assert_same(result, expected)
    around = [*out.parent.glob(f"{out.name}.parts/*"), *(out.glob("*") if out.is_dir() else ())]
    for path in around:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".h5" and not path.name.startswith("."):
            with h5py.File(path) as file:
                file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)


def finished(out):
    """Whether a run has done everything, its own tidying included."""
    if out.is_dir():
        return (out / "provenance.json").exists() and not (out / "starts.json").exists()
    return out.exists() and not out.with_name(f"{out.name}.parts").exists()


def kept(out):
    """The starts that the run's record counts."""
    if out.is_dir():
        return json.loads((out / "provenance.json").read_text())["run"]["starts"]
    with h5py.File(out) as file:
        return json.loads(file["config"].attrs["run"])["starts"]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("command", [simulate, calibrate])
def test_killed_at_any_moment_nothing_is_lost_or_twice(place, tmp_path, command, ranks):
    folder, launcher = place
    rng = random.Random(f"{command.__name__} {ranks} {os.environ.get('HEPOPS_KILLS_SEED', '0')}")
    expected, words = command(folder, tmp_path / "once")
    _, budget = launcher.run(words, ranks)
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        out = tmp_path / f"run{rounds}"
        result, words = command(folder, out)
        here = 0
        while not finished(out):
            killed, _ = launcher.run(words, ranks, rng if kills < KILLS else None, budget)
            kills, here = kills + killed, here + killed
            assert_whole(out, result, expected)
        assert_same(result, expected)
        assert 1 <= len(kept(out)) <= here + 1
        assert not [*tmp_path.glob(".*.part"), *tmp_path.glob("*.parts")]
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    print(f"{command.__name__}, {ranks} processes: {kills} kills in {rounds} runs")
