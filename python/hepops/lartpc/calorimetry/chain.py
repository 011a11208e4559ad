r"""Derivatives of the losses with respect to the latent variables, from derivatives of one segment at a time.

.. math:: d_i = f_i(w, z_i, \varrho_i), \qquad \varrho = U s, \qquad s_j = s_j(w, z_j)

f and s know one segment each, U sums those downstream. Nine backward passes give all first and second derivatives of
all f and s; the rest is the chain rule in matrices of one track.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .tracks import Tracks, downstream


def chain(
    tracks: Tracks, w: Tensor, z: Tensor | None, weight: Tensor, events: Sequence[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Of every event: D = d(dE)/dl (n, m) and sum_i weight_i d2(dE_i)/dl2 (m, m).

    The latent variables l are the nuisance parameters of its tracks, then the scores of its segments (none where z is
    None). `events` holds the tracks and segments of each.
    """
    layout = tracks.layout
    W = tracks.nuisance(w.detach())[layout.track].requires_grad_()
    scale = layout.sigma[layout.track]
    score = None if z is None else z.detach().clone().requires_grad_()
    s = torch.zeros_like(W) if score is None else tracks.shift(W, score)
    rho = (s if score is None else downstream(s.detach(), layout.track)).detach().clone().requires_grad_()
    f = tracks.single(W, score, rho)
    leaves = [W, rho] if score is None else [W, rho, score]
    first, second = _derivatives(f, leaves)
    of_s, of_s2 = ([], []) if score is None else _derivatives(s, [W, score])
    # in units of w, of mean 0 and width 1
    first[0], second[0][0] = first[0] * scale, second[0][0] * scale**2
    for k in range(1, len(leaves)):
        second[0][k] = second[0][k] * scale
    if of_s:
        of_s[0], of_s2[0][0], of_s2[0][1] = of_s[0] * scale, of_s2[0][0] * scale**2, of_s2[0][1] * scale
    return [_event(tracks, first, second, of_s, of_s2, weight, *event) for event in events]


def _derivatives(f: Tensor, leaves: list[Tensor]) -> tuple[list[Tensor], list[list[Tensor]]]:
    """First and (upper triangle) second derivatives of f_i with respect to the i-th of each leaf."""
    first = [_or_zero(g, f) for g in torch.autograd.grad(f.sum(), leaves, create_graph=True, allow_unused=True)]
    second = []
    for a, g in enumerate(first):
        row = (
            list(torch.autograd.grad(g.sum(), leaves, retain_graph=True, allow_unused=True)) if g.requires_grad else []
        )
        row = row or [None] * len(leaves)
        second.append([_or_zero(x, f).detach() if b >= a else torch.zeros_like(f) for b, x in enumerate(row)])
    return [g.detach() for g in first], second


def _or_zero(x: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if x is None else x


def _event(
    tracks: Tracks,
    first: list[Tensor],
    second: list[list[Tensor]],
    of_s: list[Tensor],
    of_s2: list[list[Tensor]],
    weight: Tensor,
    whose: Tensor,
    ours: Tensor,
) -> tuple[Tensor, Tensor]:
    """The matrices of one event, track by track."""
    n, m = len(whose), len(ours) if of_s else 0
    D = torch.zeros(len(ours), n + m, dtype=torch.float64)
    C = torch.zeros(n + m, n + m, dtype=torch.float64)
    for a, track in enumerate(whose.tolist()):
        mine = (tracks.layout.track[ours] == track).nonzero().squeeze(1)
        rows, g = ours[mine], weight[ours[mine]]
        where = torch.cat([torch.tensor([a]), n + mine]) if m else torch.tensor([a])
        count, size = len(rows), len(where)
        E = torch.zeros(count, size, dtype=torch.float64)  # dw/dl
        E[:, 0] = 1
        kinds = [(E, 0)]
        bend = torch.zeros(size, size, dtype=torch.float64)
        if m:
            U = torch.triu(torch.ones(count, count, dtype=torch.float64), 1)
            P = U @ torch.cat([of_s[0][rows, None], torch.diag(of_s[1][rows])], 1)  # drho/dl
            Z = torch.cat([torch.zeros(count, 1, dtype=torch.float64), torch.eye(count, dtype=torch.float64)], 1)
            kinds += [(P, 1), (Z, 2)]
            q = U.T @ (g * first[1][rows])
            bend[0, 0] = (q * of_s2[0][0][rows]).sum()
            bend[0, 1:] = bend[1:, 0] = q * of_s2[0][1][rows]
            bend[1:, 1:] = torch.diag(q * of_s2[1][1][rows])
        for A, k in kinds:
            D[mine[:, None], where] += first[k][rows, None] * A
            for B, j in kinds:
                value = second[min(k, j)][max(k, j)][rows]
                bend += A.T @ ((g * value)[:, None] * B)
        C[where[:, None], where] = bend
    return D, C
