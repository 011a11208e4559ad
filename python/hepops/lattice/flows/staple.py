r"""The sum of a link's staples as an element of the group.

The polar decomposition :math:`A = Q H`, H hermitian and positive, and :math:`Q` divided by the N-th root of its
determinant. Under gauge transformations Q goes as A does, so that :math:`W = U Q` transforms by conjugation.
"""

import math

import torch
from torch import Tensor


def to_group(A: Tensor) -> Tensor:
    r""":math:`Q\, e^{-i\varphi}` with :math:`e^{iN\varphi} = \det Q`, of A, shape (..., N, N), N = 2 or 3.

    For N = 3 :math:`-\pi/2 < 3 \varphi \le 3\pi/2`: the determinant of two staples' sum is real, so that neither of its
    signs may lie at the cut.
    """
    return _two(A) if A.shape[-1] == 2 else _three(A)


def _two(A: Tensor) -> Tensor:
    """A sum of SU(2) matrices is a positive number times one."""
    a, b = A[..., 0, 0], A[..., 0, 1]
    size = (a.real.square() + a.imag.square() + b.real.square() + b.imag.square()).sqrt()
    return A / size[..., None, None]


def _three(A: Tensor) -> Tensor:
    U, _, V = torch.linalg.svd(A)
    Q = U @ V
    phase = ((-1j * torch.linalg.det(Q)).angle() + math.pi / 2) / 3
    return Q * torch.polar(torch.ones_like(phase), -phase)[..., None, None]
