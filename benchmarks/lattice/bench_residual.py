"""The residual update of SU(3) and SU(2) links with its log-determinant, against the same in torch's operators."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lattice import SUN, residual, residual_inverse
from hepops.lattice.residual import formula
from torch.testing import assert_close

device = "cuda" if torch.cuda.is_available() else "cpu"
links = 1 << 16 if device == "cuda" else 1 << 11


def step(function, U, A):
    """Forward and backward."""
    U, A = U.detach().requires_grad_(), A.detach().requires_grad_()
    V, logdet = function(U, A)
    return torch.autograd.grad([V, logdet], [U, A], [torch.ones_like(V), torch.ones_like(logdet)])


for n in (3, 2):
    U, B = (SUN(n, (1, 1), 1.0).random(links // 2, seed=seed, device=device).view(-1, n, n) for seed in (1, 2))
    A = 0.5 * B
    assert_close(residual(U, A), formula(U, A), rtol=1e-11, atol=1e-11)
    assert_close(residual_inverse(residual(U, A)[0], A)[0], U, rtol=0, atol=1e-12)
    size = U.numel() * U.element_size()
    bench(
        {
            f"SU({n})": lambda U=U, A=A: residual(U, A),
            f"SU({n}), torch": lambda U=U, A=A: formula(U, A),
        },
        3 * size,
        repeats=5,
    )
    bench(
        {
            f"SU({n}), with backward": lambda U=U, A=A: step(residual, U, A),
            f"SU({n}), with backward, torch": lambda U=U, A=A: step(formula, U, A),
        },
        8 * size,
        repeats=5,
    )
    V = residual(U, A)[0]
    bench({f"SU({n}), inverse at |A| = 0.5": lambda V=V, A=A: residual_inverse(V, A)}, 3 * size, repeats=5)
