"""Links back to their group."""

import torch
from torch import Tensor

from .. import group


def project(links: Tensor) -> Tensor:
    """The links' nearest matrices in SU(N) where `hepops.lattice.group` has that projection, else by Gram-Schmidt."""
    nearest = getattr(group, "project", None)
    return gram_schmidt(links) if nearest is None else nearest(links)


def gram_schmidt(links: Tensor) -> Tensor:
    """Rows made orthonormal one after the other, the last one times the phase that makes the determinant 1."""
    rows: list[Tensor] = []
    for row in links.unbind(-2):
        for done in rows:
            row = row - (done.conj() * row).sum(-1, keepdim=True) * done
        rows.append(row / torch.linalg.vector_norm(row, dim=-1, keepdim=True))
    rows[-1] = rows[-1] * torch.linalg.det(torch.stack(rows, -2))[..., None].conj()
    return torch.stack(rows, -2)
