r"""The sum of a link's staples as an element of the group.

The polar decomposition :math:`A = Q H`, H hermitian and positive, and :math:`Q` divided by the N-th root of its
determinant. Under gauge transformations Q goes as A does, so that :math:`W = U Q` transforms by conjugation.
"""

import cmath

from torch import Tensor

from ..group import project


def to_group(A: Tensor) -> Tensor:
    r""":math:`Q\, e^{-i\varphi}` with :math:`e^{iN\varphi} = \det Q`, of A, shape (..., N, N), N = 2 or 3.

    For N = 3 :math:`-\pi/2 < 3 \varphi \le 3\pi/2`: the determinant of two staples' sum is real, so that neither of its
    signs may lie at the cut. Gradients are finite where singular values meet, as those of an ordered field do.
    """
    # Q e^{-i pi/6} has -i det Q: the root of the smallest angle is then cut a quarter of a turn away
    return project(A if A.shape[-1] == 2 else cmath.exp(-1j * cmath.pi / 6) * A)
