"""Links that the benchmarks of Wilson's action share: SU(3), 16^4, complex128, on one thread."""

import torch
from hepops.lattice import SUN

device = "cuda" if torch.cuda.is_available() else "cpu"
theory = SUN(3, (16, 16, 16, 16), beta=6.0)
U = theory.random(1, seed=1, device=device)
site_bytes = 4 * 9 * 16  # four links


def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Values first: sums of 12 products of three links, or 4e5 traces."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
