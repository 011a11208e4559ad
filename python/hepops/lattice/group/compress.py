"""Storage of matrices by their first rows: 12 real numbers of an SU(3) matrix, 4 of an SU(2) one."""

import torch
from torch import Tensor

from ._operator import check_matrices


def compress(U: Tensor) -> Tensor:
    """The first N - 1 rows of SU(N) matrices, N = 2 or 3, contiguous: shape (..., N - 1, N) of (..., N, N).

    Differentiable any number of times.

    Raises:
        TypeError: `U` is not complex.
        ValueError: another shape.

    Example:
        >>> compress(torch.eye(3, dtype=torch.complex64)).shape
        torch.Size([2, 3])
    """
    n = check_matrices("compress", "U", U)
    if n > 3:
        raise ValueError(f"compress: U must have shape (..., N, N), N = 2 or 3, got {tuple(U.shape)}")
    return U[..., :-1, :].contiguous()


def expand(rows: Tensor) -> Tensor:
    r"""SU(2) or SU(3) matrices from what :func:`compress` kept: the last row is :math:`(-b^*, a^*)`, :math:`(u \times
    v)^*`.

    Args:
        rows: Shape (..., N - 1, N), complex, orthonormal: the last row is as far from unit length as they are.

    Returns:
        Shape (..., N, N), dtype of `rows`.

    Differentiable any number of times.

    Raises:
        TypeError: `rows` is not complex.
        ValueError: another shape.

    References:
        | M. A. Clark et al., arXiv:0911.3191, section 5 (12-number storage)

    Example:
        >>> expand(torch.eye(3, dtype=torch.complex64)[:2])[2]
        tensor([0.-0.j, 0.-0.j, 1.-0.j])
    """
    if not rows.is_complex():
        raise TypeError(f"expand: rows must be complex64 or complex128, got {rows.dtype}")
    if rows.shape[-2:] == (1, 2):
        a, b = rows[..., 0, :].unbind(-1)
        last = torch.stack([-b.conj(), a.conj()], -1)
    elif rows.shape[-2:] == (2, 3):
        last = torch.linalg.cross(rows[..., 0, :], rows[..., 1, :]).conj()
    else:
        raise ValueError(f"expand: rows must have shape (..., N - 1, N), N = 2 or 3, got {tuple(rows.shape)}")
    return torch.cat([rows, last[..., None, :]], -2)
