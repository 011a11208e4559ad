"""Exact numbers of shared/golden, and how far a run is from them."""

import functools
import json
import math

from conftest import shared


@functools.cache
def golden(name):
    return json.loads(shared(f"golden/flows/{name}").read_text())


def plaquette(group, L, beta):
    """The exact mean plaquette of 2D U1, SU2 or SU3 on a torus."""
    return float(golden("exact_2d_gauge.json")[f"{group}_2D"][str(beta)][f"L{L}"]["plaq"])


def phi4(name):
    return golden("scalar_exact.json")["interacting_exact_convA"][name]


def assert_agrees(estimate, exact, sigma=4.0, relative=0.02):
    """Within `sigma` errors, and the error itself is small enough for that to say something."""
    mean, error = float(estimate.mean), float(estimate.error)
    assert error <= relative * abs(exact), f"{mean} +- {error}: too few samples to test {exact}"
    assert abs(mean - exact) <= sigma * error, f"{mean} +- {error} against {exact}: {(mean - exact) / error:.1f} sigma"
    assert math.isfinite(mean)
