"""The SU(3) action of a 16^4 lattice, and its gradient, against the same in torch's operators.

In the blocked layout: bench_wilson_force.py.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from harness import bench
from hepops.lattice import wilson_action
from wilson_links import U, check, site_bytes, torch_action

torch.set_num_threads(1)


def gradient(law):
    V = U.detach().requires_grad_()
    return torch.autograd.grad(law(V, 6.0).sum(), V)[0]


check(wilson_action(U, 6.0), torch_action(U, 6.0))
check(gradient(wilson_action), gradient(torch_action))
sites = 16**4
bench(
    {
        "wilson_action": lambda: wilson_action(U, 6.0),
        "wilson_action, double-double": lambda: wilson_action(U, 6.0, accurate=True),
        "wilson_action, improved": lambda: wilson_action(U, 6.0, -1 / 12),
        "action, torch": lambda: torch_action(U, 6.0),
    },
    sites * site_bytes,
    repeats=7,
)
single = U.to(torch.complex64)
bench(
    {
        "wilson_action, float32": lambda: wilson_action(single, 6.0),
        "wilson_action, float32 in double": lambda: wilson_action(single, 6.0, wide=True),
    },
    sites * site_bytes // 2,
    repeats=7,
)
bench(
    {
        "action + gradient": lambda: gradient(wilson_action),
        "action + gradient, torch": lambda: gradient(torch_action),
    },
    3 * sites * site_bytes,
    repeats=5,
)
