r"""The algebra su(N): :math:`X = i\,p^a T^a`, :math:`\mathrm{tr}\,T^a T^b = \delta^{ab}/2`."""

import functools
import math

import torch
from torch import Tensor


@functools.cache
def generators(n: int) -> Tensor:
    r"""T^a, hermitian and traceless, shape (N^2 - 1, N, N), complex128.

    For each pair j < k, in order of k: the symmetric one, the antisymmetric one; after the pairs of k the diagonal one
    that ends at k. For N = 2 these are :math:`\sigma/2`, for N = 3 the Gell-Mann matrices :math:`\lambda/2`.
    """
    matrices = []
    for k in range(1, n):
        for j in range(k):
            symmetric = torch.zeros(n, n, dtype=torch.complex128)
            symmetric[j, k] = symmetric[k, j] = 0.5
            antisymmetric = torch.zeros(n, n, dtype=torch.complex128)
            antisymmetric[j, k] = torch.tensor(-0.5j)
            antisymmetric[k, j] = torch.tensor(0.5j)
            matrices += [symmetric, antisymmetric]
        scale = 1 / math.sqrt(2 * k * (k + 1))
        entries = [scale] * k + [-k * scale] + [0.0] * (n - k - 1)
        matrices.append(torch.diag(torch.tensor(entries, dtype=torch.complex128)))
    return torch.stack(matrices)


def from_coordinates(p: Tensor, n: int) -> Tensor:
    """X = i p^a T^a, shape (..., N, N), of p, shape (..., N^2 - 1)."""
    T = generators(n).to(device=p.device, dtype=torch.promote_types(p.dtype, torch.complex32))
    return 1j * torch.einsum("...a,aij->...ij", p.to(T.dtype), T)


def to_coordinates(X: Tensor) -> Tensor:
    """p^a = -2 i tr(T^a X), real, shape (..., N^2 - 1), of X in su(N), shape (..., N, N)."""
    T = generators(X.shape[-1]).to(device=X.device, dtype=X.dtype)
    return 2 * torch.einsum("aij,...ji->...a", T, X).imag


def traceless_antihermitian(M: Tensor) -> Tensor:
    r""":math:`TA(M) = \frac12 (M - M^\dagger) - \frac1{2N} \mathrm{tr}(M - M^\dagger)`, shape (..., N, N)."""
    n = M.shape[-1]
    difference = (M - M.mH) / 2
    trace = difference.diagonal(dim1=-2, dim2=-1).sum(-1)
    return difference - trace[..., None, None] / n * torch.eye(n, dtype=M.dtype, device=M.device)
