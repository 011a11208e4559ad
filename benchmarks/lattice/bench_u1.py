"""U(1): action, force and trajectories against torch's op-by-op form, on large and on many small lattices.

Ideal traffic per link in float64: action 8 bytes, force 16.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1])]

import torch
from harness import bench
from hepops.lattice import U1
from hepops.lattice import u1_kernels as kernels
from hepops.lattice.stages import plain_trajectory, stages

with torch.no_grad():
    for batch, shape in [(1, (16, 16, 16, 16)), (64, (32, 32)), (1024, (8, 8)), (1024, (4, 4))]:
        theory = U1(shape, 2.0)
        theta = theory.random(batch, seed=1)
        p = theory.momenta(theta, seed=2)
        torch.testing.assert_close(theory.action(theta), kernels.action_formula(theta, 2.0), rtol=1e-12, atol=1e-11)
        torch.testing.assert_close(theory.force(theta), kernels.force_formula(theta, 2.0), rtol=0, atol=1e-12)
        name = f"{batch} x {'x'.join(map(str, shape))}"
        candidates = {
            f"u1 action {name}": lambda t=theory, x=theta: t.action(x),
            f"u1 action {name}, torch": lambda x=theta: kernels.action_formula(x, 2.0),
        }
        bench(candidates, 8 * theta.numel(), 10)
        candidates = {
            f"u1 force {name}": lambda t=theory, x=theta: t.force(x),
            f"u1 both {name}": lambda t=theory, x=theta: t.action_and_force(x),
            f"u1 force {name}, torch": lambda x=theta: kernels.force_formula(x, 2.0),
        }
        bench(candidates, 16 * theta.numel(), 10)
        candidates = {
            f"u1 trajectory {name}": lambda t=theory, x=theta, p=p: t.trajectory(x, p, 0.1, 10),
            f"u1 trajectory {name}, step by step": lambda t=theory, x=theta, p=p: plain_trajectory(
                t.force, x, p, stages("omelyan", 0.1, 10)
            ),
        }
        bench(candidates, 32 * 21 * theta.numel(), 5)
