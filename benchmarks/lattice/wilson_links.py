"""What the benchmarks of Wilson's action share: SU(3) links, 16^4, complex128, on one thread, and the laws in torch's
operators as one would write them: products shared where they are, neighbours by torch.roll."""

import torch
from hepops.lattice import SUN, group
from torch import Tensor

device = "cuda" if torch.cuda.is_available() else "cpu"
theory = SUN(3, (16, 16, 16, 16), beta=6.0)
U = theory.random(1, seed=1, device=device)
site_bytes = 4 * 9 * 16  # four links


def check(ours: Tensor, theirs: Tensor) -> None:
    """Values first: sums of 12 products of three links, or 4e5 traces."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def torch_action(U: Tensor, beta: float) -> Tensor:
    """Two products a plaquette, and the trace of the two by an inner product."""
    u, total = U.unbind(1), 0
    for mu in range(4):
        for nu in range(mu + 1, 4):
            left = u[mu] @ torch.roll(u[nu], -1, 1 + mu)
            right = u[nu] @ torch.roll(u[mu], -1, 1 + nu)
            total = total + (left * right.conj()).real.flatten(1).sum(1)
    return -beta / 3 * total


def torch_staples(U: Tensor) -> Tensor:
    """Four products for two staples; the one behind is made a site back and rolled."""
    u = U.unbind(1)
    rows = []
    for mu in range(4):
        total = torch.zeros_like(u[mu])
        for nu in range(4):
            if nu == mu:
                continue
            ahead = torch.roll(u[nu], -1, 1 + mu)
            total = total + ahead @ (u[nu] @ torch.roll(u[mu], -1, 1 + nu)).mH
            total = total + torch.roll((u[mu] @ ahead).mH @ u[nu], 1, 1 + nu)
        rows.append(total)
    return torch.stack(rows, 1)


def torch_force(U: Tensor, beta: float) -> Tensor:
    return beta / 6 * group.algebra.traceless_antihermitian(U @ torch_staples(U))
