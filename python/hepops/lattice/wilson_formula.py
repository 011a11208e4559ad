"""Wilson's action and its kin in torch's operators, of any N: the laws as they are written, slow.

The operators of wilson.py are held to these, and N > 3 has no others.
"""

from collections.abc import Sequence
from itertools import combinations, permutations

import torch
from torch import Tensor

from hepops.flows.sums import event_sum

from . import group

# Walks: +1 a step along mu, -1 back, 2 and -2 for nu. Those of staples lead from x + mu back to x.
PLAQUETTE, RECTANGLE = (1, 2, -1, -2), (1, 1, 2, -1, -1, -2)
PLAQUETTE_STAPLES: tuple[tuple[int, ...], ...] = ((2, -1, -2), (-2, -1, 2))
RECTANGLE_STAPLES: tuple[tuple[int, ...], ...] = (
    *((1, 2, -1, -1, -2), (1, -2, -1, -1, 2), (2, -1, -1, -2, 1)),
    *((-2, -1, -1, 2, 1), (2, 2, -1, -2, -2), (-2, -2, -1, 2, 2)),
)


def walk(U: Tensor, word: Sequence[int], mu: int, nu: int, start: int | None = None) -> Tensor:
    """The products of links on a walk from every x, or from x + `start`, shape (B, L..., N, N)."""
    dims = U.dim() - 4
    at = [0] * dims
    if start is not None:
        at[start] = 1
    product = None
    for step in word:
        along = mu if abs(step) == 1 else nu
        at[along] -= step < 0
        link = torch.roll(U[:, along], [-a for a in at], list(range(1, 1 + dims)))
        at[along] += step > 0
        link = link.mH if step < 0 else link
        product = link if product is None else product @ link
    assert product is not None
    return product


def loop_traces(U: Tensor, rectangles: bool = False) -> Tensor:
    """Re tr P, planes 01, 02, ... 12, ..., then Re tr R of mu, nu = 01, 02, ..., 10, ...: shape (B, loops, L...)."""
    dims = U.dim() - 4
    loops = [walk(U, PLAQUETTE, mu, nu) for mu, nu in combinations(range(dims), 2)]
    if rectangles:
        loops += [walk(U, RECTANGLE, mu, nu) for mu, nu in permutations(range(dims), 2)]
    return torch.stack([loop.diagonal(dim1=-2, dim2=-1).sum(-1).real for loop in loops], 1)


def wilson_action(U: Tensor, beta: float, c1: float = 0.0) -> Tensor:
    """S, shape (B), float64."""
    planes, dims = (U.dim() - 4) * (U.dim() - 5) // 2, U.dim() - 4
    traces = loop_traces(U, c1 != 0)
    total = (1 - 8 * c1) * event_sum(traces[:, :planes], dims + 1)
    if c1 != 0:
        total = total + c1 * event_sum(traces[:, planes:], dims + 1)
    return -beta / U.shape[-1] * total


def wilson_staples(U: Tensor, c0: float = 1.0, c1: float = 0.0) -> Tensor:
    """A, shape of U."""
    dims = U.dim() - 4
    rows = []
    for mu in range(dims):
        total = torch.zeros_like(U[:, mu])
        for nu in range(dims):
            if nu == mu:
                continue
            for word in PLAQUETTE_STAPLES:
                total = total + c0 * walk(U, word, mu, nu, mu)
            for word in RECTANGLE_STAPLES if c1 != 0 else ():
                total = total + c1 * walk(U, word, mu, nu, mu)
        rows.append(total)
    return torch.stack(rows, 1)


def wilson_force(U: Tensor, beta: float, c1: float = 0.0) -> Tensor:
    """F, shape of U."""
    A = wilson_staples(U, 1 - 8 * c1, c1)
    return beta / (2 * U.shape[-1]) * group.traceless_antihermitian(U @ A)
