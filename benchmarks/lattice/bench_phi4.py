"""phi^4: action, force, both and trajectories against torch's op-by-op form, on large and on many small lattices.

Ideal traffic per site in float64: action 8 bytes, force and action with force 16, a stage of a trajectory 32.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1])]

import torch
from harness import bench
from hepops.lattice import Phi4
from hepops.lattice import phi4_kernels as kernels
from hepops.lattice.stages import plain_trajectory, stages

LATTICES = [(1, (32, 32, 32, 32)), (1, (16, 16, 16, 16)), (1024, (32, 32)), (65536, (8, 8))]

with torch.no_grad():
    for batch, shape in LATTICES:
        theory = Phi4(shape, m2=-4.0, lam=8.0)
        phi = torch.randn(batch, *shape, dtype=torch.float64)
        law, sites = theory.law, phi.numel()
        torch.testing.assert_close(theory.action(phi), kernels.action_formula(phi, *law), rtol=1e-12, atol=0)
        torch.testing.assert_close(theory.force(phi), kernels.force_formula(phi, *law), rtol=1e-12, atol=1e-11)
        name = f"{batch} x {'x'.join(map(str, shape))}"
        candidates = {
            f"phi4 action {name}": lambda t=theory, x=phi: t.action(x),
            f"phi4 action {name}, torch": lambda x=phi, law=law: kernels.action_formula(x, *law),
        }
        repeats = 5 if sites > 1 << 20 else 30
        bench(candidates, 8 * sites, repeats)
        candidates = {
            f"phi4 force {name}": lambda t=theory, x=phi: t.force(x),
            f"phi4 both {name}": lambda t=theory, x=phi: t.action_and_force(x),
            f"phi4 force {name}, torch": lambda x=phi, law=law: kernels.force_formula(x, *law),
        }
        bench(candidates, 16 * sites, repeats)

    for batch, shape in [(1024, (8, 8)), (1, (16, 16, 16, 16))]:
        theory = Phi4(shape, m2=-4.0, lam=8.0)
        phi, p = (torch.randn(batch, *shape, dtype=torch.float64) for _ in range(2))
        torch.testing.assert_close(
            theory.trajectory(phi, p, 0.01, 10), plain_trajectory(theory.force, phi, p, stages("omelyan", 0.01, 10))
        )
        name = f"{batch} x {'x'.join(map(str, shape))}"
        candidates = {
            f"phi4 trajectory {name}": lambda t=theory, x=phi, p=p: t.trajectory(x, p, 0.01, 10),
            f"phi4 trajectory {name}, step by step": lambda t=theory, x=phi, p=p: plain_trajectory(
                t.force, x, p, stages("omelyan", 0.01, 10)
            ),
        }
        bench(candidates, 32 * 21 * phi.numel(), 10)
