r"""The algebra su(N): :math:`X = i\,p^a T^a`, :math:`\mathrm{tr}\,T^a T^b = \delta^{ab}/2`."""

import functools
import math

import torch
from torch import Tensor


def check_matrices(name: str, argument: str, x: Tensor) -> int:
    """N of the complex matrices `x`, shape (..., N, N).

    Raises:
        TypeError: they are not complex.
        ValueError: they are not square.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.complex64, torch.complex128):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: {argument} must be complex64 or complex128, got {got}")
    if x.dim() < 2 or x.shape[-1] != x.shape[-2] or x.shape[-1] < 2:
        raise ValueError(f"{name}: {argument} must have shape (..., N, N), N of 2 or more, got {tuple(x.shape)}")
    return x.shape[-1]


def generators(n: int) -> Tensor:
    r"""T^a, hermitian and traceless, shape (N^2 - 1, N, N), complex128.

    For each pair j < k, in order of k: the symmetric one, the antisymmetric one; after the pairs of k the diagonal one
    that ends at k. For N = 2 these are :math:`\sigma/2`, for N = 3 the Gell-Mann matrices :math:`\lambda/2`.

    Raises:
        ValueError: n below 2.
    """
    if n < 2:
        raise ValueError(f"generators: n must be at least 2, got {n}")
    return _generators(n).clone()


@functools.cache
def _generators(n: int) -> Tensor:
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
    """X = i p^a T^a, shape (..., N, N), of p, real, shape (..., N^2 - 1).

    Raises:
        TypeError: p is not float32 or float64.
        ValueError: p has another shape.
    """
    if not isinstance(p, Tensor) or p.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"from_coordinates: p must be float32 or float64, got {getattr(p, 'dtype', type(p).__name__)}")
    if p.dim() < 1 or p.shape[-1] != n * n - 1:
        raise ValueError(f"from_coordinates: p must have shape (..., {n * n - 1}) for n = {n}, got {tuple(p.shape)}")
    T = _generators(n).to(device=p.device, dtype=torch.promote_types(p.dtype, torch.complex32))
    return 1j * torch.einsum("...a,aij->...ij", p.to(T.dtype), T)


def to_coordinates(X: Tensor) -> Tensor:
    """p^a = -2 i tr(T^a X), real, shape (..., N^2 - 1), of X in su(N), shape (..., N, N).

    Raises:
        TypeError: X is not complex.
        ValueError: X is not (..., N, N).
    """
    T = _generators(check_matrices("to_coordinates", "X", X)).to(device=X.device, dtype=X.dtype)
    return 2 * torch.einsum("aij,...ji->...a", T, X).imag


def traceless_antihermitian(M: Tensor) -> Tensor:
    r""":math:`TA(M) = \frac12 (M - M^\dagger) - \frac1{2N} \mathrm{tr}(M - M^\dagger)`, shape (..., N, N)."""
    n = check_matrices("traceless_antihermitian", "M", M)
    difference = (M - M.mH) / 2
    trace = difference.diagonal(dim1=-2, dim2=-1).sum(-1)
    return difference - trace[..., None, None] / n * torch.eye(n, dtype=M.dtype, device=M.device)
