"""`import hepops` is cheap: torch's own import, the operators, and nothing that is not used yet."""

import json
import subprocess
import sys
from pathlib import Path

import hepops
import pytest

# What a session that draws, reads or fits nothing need not wait for.
HEAVY = (
    "matplotlib", "h5py", "pandas", "uproot", "iminuit", "scipy", "sklearn", "yaml", "pydantic", "typer", "tqdm",
    "safetensors", "sympy", "triton", "torch._dynamo", "torch._inductor", "torch.distributed.rpc", "IPython",
    "hepops.lartpc", "hepops.flows", "hepops.sparse", "hepops.lattice", "hepops.cli",
)  # fmt: skip
# Domains read files and draw on demand, too.
LATE = ("matplotlib", "h5py", "pandas", "uproot", "iminuit", "scipy", "torch._dynamo", "torch._inductor", "typer")


def loaded(program):
    """The modules of a fresh process after a program, less those that torch brings."""
    first, last = "import torch, sys, json; before = {*sys.modules}", "print(json.dumps([*({*sys.modules} - before)]))"
    code = "\n".join([first, program, last])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_import_brings_nothing_heavy():
    assert not loaded("import hepops") & set(HEAVY)


def test_domains_leave_files_and_pictures_until_they_are_asked_for():
    new = loaded("import hepops.lartpc, hepops.flows, hepops.sparse, hepops.lattice, hepops.segmentation")
    assert "hepops.sparse.models" in new and not new & set(LATE)


def test_domains_come_when_they_are_named():
    assert hepops.lattice.Phi4((4, 4), m2=0.3, lam=0.1) and "lattice" in dir(hepops)
    assert "hepops.export" in loaded("import hepops; hepops.export.describe, hepops.calibration.calibrate")
    with pytest.raises(AttributeError, match="no attribute 'lartpcs'"):
        hepops.lartpcs  # noqa: B018


def test_the_import_takes_little_beyond_torch():
    """Processor time in a fresh process that has torch: 0.03 s are usual, 0.3 s the bar. The least of three counts."""
    program = "import time, torch; t = time.process_time(); import hepops; print(time.process_time() - t)"
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "123"]
    assert min(float(run.stdout) for run in runs) < 0.3


def test_the_package_says_its_types():
    """py.typed; `make check` runs mypy and pyright over tests/typing, a program of someone else's."""
    assert any((Path(part) / "py.typed").exists() for part in hepops.__path__)
