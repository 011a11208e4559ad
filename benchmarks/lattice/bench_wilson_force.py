"""SU(3) forces of a 16^4 lattice, from plain tensors and in the blocked layout, and trajectories on 8^4.

Each against the same in torch's operators, in the same run.

The blocked layout is met by the trajectory's operator alone: a force there is what ten more kicks cost, without drifts
between them (momenta P -= k F in place). Its other passes: blocked.cpp.
"""

import os
import statistics
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from harness import bench, clock, record
from hepops.lattice import SUN, wilson_action_and_force, wilson_force
from hepops.lattice.stages import stages
from wilson_links import U, check, device, site_bytes, theory, torch_force

torch.set_num_threads(1)
sites = 16**4
check(wilson_force(U, 6.0), torch_force(U, 6.0))
single = U.to(torch.complex64)
bench(
    {
        "wilson_force": lambda: wilson_force(U, 6.0),
        "wilson_action_and_force": lambda: wilson_action_and_force(U, 6.0),
        "wilson_force, improved": lambda: wilson_force(U, 6.0, -1 / 12),
        "force, torch": lambda: torch_force(U, 6.0),
    },
    2 * sites * site_bytes,
    repeats=5,
)
bench({"wilson_force, float32": lambda: wilson_force(single, 6.0)}, sites * site_bytes, repeats=5)

P16 = theory.momenta(U, seed=2)


def kicks(n):
    op = torch.ops.hepops._lattice_wilson_trajectory.default
    return op(U, P16, 6.0, 0.0, [0.1 / n] * n, [0.0] * n, [0.0] * (n - 1), False)


check(kicks(11)[1], P16 - 0.1 * torch_force(U, 6.0))
costs = []
for _ in range(5):
    start = clock()
    kicks(1)
    middle = clock()
    kicks(11)
    costs.append((clock() - middle - (middle - start)) / 10)
blocked = statistics.median(costs)
print(f"{'force, blocked layout':36} {1e3 * blocked:9.3f} ms")
record({"force, blocked layout": {"seconds": blocked, "threads": 1}})

small = SUN(3, (8, 8, 8, 8), beta=6.0)
V = small.random(1, seed=1, device=device)
P = small.momenta(V, seed=2)


def plain():
    """The stages, with torch's products and the series of an exponential."""
    plan, u = stages("leapfrog", 0.1, 10), V
    p = P - plan.kicks[0] * torch_force(V, 6.0)
    for k, drift in enumerate(plan.drifts, 1):
        u = torch.matrix_exp(drift * p) @ u
        p = p - plan.kicks[k] * torch_force(u, 6.0)
    return u, p


check(small.trajectory(V, P, 0.1, 10)[0], plain()[0])
bench(
    {
        "trajectory of 10 steps, 8^4": lambda: small.trajectory(V, P, 0.1, 10),
        "trajectory, torch": plain,
    },
    11 * 3 * 8**4 * site_bytes,
    repeats=3,
)

# Two threads against one: time on the wall, since processor time is the same. The least of many turns: of no use where
# other programs keep the cores busy.
if device == "cpu" and (os.cpu_count() or 1) > 1:
    for name, run, repeats in (
        ("force, 16^4", lambda: wilson_force(U, 6.0), 15),
        ("trajectory of 10 steps, 8^4", lambda: small.trajectory(V, P, 0.1, 10), 40),
        ("trajectory of 2 steps, 16^4", lambda: theory.trajectory(U, P16, 0.1, 2), 9),
    ):
        least = {1: 1e9, 2: 1e9}
        for _ in range(repeats):
            for threads in (1, 2):
                torch.set_num_threads(threads)
                start = time.perf_counter()
                run()
                least[threads] = min(least[threads], time.perf_counter() - start)
        ratio = least[1] / least[2]
        print(f"{name}: {1e3 * least[1]:.1f} ms with one thread, {1e3 * least[2]:.1f} with two: {ratio:.2f}x")
        record({f"{name}, two threads": {"seconds": least[2], "one_thread": least[1], "threads": 2}})
