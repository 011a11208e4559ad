"""The level of the CPU that a record names is the one whose operators computed, which HEPOPS_CPU_LEVEL may choose."""

import os
import subprocess
import sys

from hepops import _core
from hepops.core.libraries import DIRECTORY

LEVEL = min(path.stem.removeprefix("libhepops_cpu_") for path in DIRECTORY.glob("libhepops_cpu_*.so"))


def said(*words):
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True,
                         env=os.environ | {"HEPOPS_CPU_LEVEL": LEVEL})  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_records_and_info_name_the_level_that_was_chosen(tmp_path):
    line = next(line for line in said("-m", "hepops.cli", "info").splitlines() if line.startswith("CPU level"))
    assert line.split()[2].rstrip(",") == LEVEL
    tracks = tmp_path / "tracks.h5"
    said("-m", "hepops.cli", "gun", "-n", "1", "-o", str(tracks), "-q")
    assert f'"cpu_level": "{LEVEL}"'.encode() in tracks.read_bytes() and _core.cpu_level() >= LEVEL
