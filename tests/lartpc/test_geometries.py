"""A short form of benchmarks/lartpc/geometries.py: one detector of each kind, simulated, drawn, fitted to 0.1 %."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks/lartpc/geometries.py"
spec = importlib.util.spec_from_file_location("geometries", PATH)
geometries = importlib.util.module_from_spec(spec)
spec.loader.exec_module(geometries)


@pytest.mark.parametrize("kind", geometries.KINDS)
def test_a_fit_without_noise_finds_all_six(kind):
    if kind == "dune-apa":
        figure, result, _, _ = geometries.wires(kind, short=True)
    else:
        figure, result, _, _ = geometries.pixels(kind, None, short=True)
    assert result.converged and figure.axes
    assert geometries.worst(result)[1] < 1e-3
