"""SU(3) forces of a 16^4 lattice from plain tensors, and trajectories on 8^4, against the same in torch's operators."""

import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from harness import bench
from hepops.lattice import SUN, wilson_action_and_force, wilson_force, wilson_formula
from hepops.lattice.stages import stages
from wilson_links import U, check, device, site_bytes

torch.set_num_threads(1)
check(wilson_force(U, 6.0), wilson_formula.wilson_force(U, 6.0))
single = U.to(torch.complex64)
bench(
    {
        "wilson_force": lambda: wilson_force(U, 6.0),
        "wilson_action_and_force": lambda: wilson_action_and_force(U, 6.0),
        "wilson_force, improved": lambda: wilson_force(U, 6.0, -1 / 12),
        "force, torch": lambda: wilson_formula.wilson_force(U, 6.0),
    },
    2 * 16**4 * site_bytes,
    repeats=5,
)
bench({"wilson_force, float32": lambda: wilson_force(single, 6.0)}, 16**4 * site_bytes, repeats=5)

theory = SUN(3, (8, 8, 8, 8), beta=6.0)
V = theory.random(1, seed=1, device=device)
P = theory.momenta(V, seed=2)


def plain(integrator="leapfrog"):
    """The stages, with torch's products and the series of an exponential."""
    plan, u, p = (
        stages(integrator, 0.1, 10),
        V,
        P - stages(integrator, 0.1, 10).kicks[0] * wilson_formula.wilson_force(V, 6.0),
    )
    for k, drift in enumerate(plan.drifts, 1):
        u = torch.matrix_exp(drift * p) @ u
        p = p - plan.kicks[k] * wilson_formula.wilson_force(u, 6.0)
    return u, p


check(theory.trajectory(V, P, 0.1, 10)[0], plain()[0])
bench(
    {
        "trajectory of 10 steps, 8^4": lambda: theory.trajectory(V, P, 0.1, 10),
        "trajectory, torch": plain,
    },
    11 * 3 * 8**4 * site_bytes,
    repeats=3,
)

# two threads against one: time on the wall, since processor time is the same

for name, run in {
    "force": lambda: wilson_force(U, 6.0),
    "trajectory": lambda: theory.trajectory(V, P, 0.1, 10),
}.items():
    least = {}
    for _ in range(9):
        for threads in (1, 2):
            torch.set_num_threads(threads)
            start = time.perf_counter()
            run()
            least[threads] = min(least.get(threads, 1e9), time.perf_counter() - start)
    print(f"{name}: {1e3 * least[1]:.1f} ms with one thread, {1e3 * least[2]:.1f} with two: {least[1] / least[2]:.2f}x")
