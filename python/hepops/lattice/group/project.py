"""Projections to SU(N), and the logarithm out of it."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.func import vjp
from hepops.core.ops import call

from ._operator import check_matrices, register
from .algebra import traceless_antihermitian
from .eigen import eig


def project(M: Tensor, method: Literal["polar", "gram-schmidt"] = "polar") -> Tensor:
    r"""To SU(N) from any complex matrix.

    "polar": with :math:`M = V S W^\dagger`, :math:`Q = V W^\dagger` (the nearest unitary matrix) and :math:`U = Q (\det
    Q)^{-1/N}`, the root of the smallest angle. For SU(2) the quaternion part of M, normalised, which is the nearest
    element of SU(2), and the same wherever M is a sum of SU(2) matrices.

    "gram-schmidt": rows made orthonormal from the first to the last, the determinant's phase taken away from the last
    one: what lattice programs do to links that are off by rounding. It depends on the order of rows; "polar" does not.

    Args:
        M: Shape (..., N, N), complex64 or complex128.
        method: "polar" or "gram-schmidt".

    Returns:
        U, shape and dtype of `M`, unitary to rounding; computed in double. Of an ill-conditioned SU(3) `M` with the
        singular values :math:`p_1 \ge p_2 \ge p_3` the error of U is about :math:`10^{-16} p_1^2 / (p_2 p_3)`.

    Differentiable any number of times. Deterministic, matrix by matrix. NaN where M is singular or holds one; the
    determinant's root jumps where :math:`\det Q` is negative.

    Raises:
        TypeError: `M` is not complex.
        ValueError: `M` is not (..., N, N), or `method` is another.

    References:
        | N. J. Higham, SIAM J. Sci. Stat. Comput. 7 (1986) 1160 (the iteration for Q)
        | M. A. Clark et al., arXiv:0911.3191 (reunitarisation of stored links)

    Example:
        >>> U = hepops.lattice.group.project(torch.eye(3, dtype=torch.complex64) * (2 + 0.1j))
        >>> torch.linalg.det(U).real
        tensor(1.)
    """
    n = check_matrices("project", "M", M)
    if method not in ("polar", "gram-schmidt"):
        raise ValueError(f"project: method must be 'polar' or 'gram-schmidt', got {method!r}")
    if n > 3:
        return formula(M) if method == "polar" else gram_schmidt(M)
    op = torch.ops.hepops._lattice_project if method == "polar" else torch.ops.hepops._lattice_reunitarise
    result: Tensor = call(op.default, M)
    return result


def log(U: Tensor) -> Tensor:
    r"""The logarithm of SU(N) matrices in su(N): :math:`X = V\,\mathrm{diag}(i\theta_k)\,V^\dagger`, :math:`e^X = U`.

    The phases are those of the canonical alcove (:func:`eig`), of sum 0: so X is traceless, and the principal logarithm
    where that is.

    Args:
        U: Shape (..., N, N), complex64 or complex128, unitary with determinant 1.

    Returns:
        X, shape and dtype of `U`, traceless and anti-hermitian; computed in double.

    Differentiable any number of times, along the group, for N = 2 and 3 by a closed form that divides by no difference
    of eigenvalues, else as :func:`eig`. Singular on the cut, :math:`\theta_N - \theta_1 = 2\pi`. Deterministic, matrix
    by matrix. A NaN makes NaN.

    Raises:
        TypeError: `U` is not complex.
        ValueError: `U` is not (..., N, N).

    References:
        | N. J. Higham, Functions of Matrices, SIAM (2008), theorem 3.11 (the derivative of a function of a matrix)

    Example:
        >>> X = hepops.lattice.group.from_coordinates(torch.tensor([0.1, 0.2, 0.3]), 2)
        >>> hepops.lattice.group.to_coordinates(hepops.lattice.group.log(hepops.lattice.group.exp(X)))
        tensor([0.1000, 0.2000, 0.3000])
    """
    if check_matrices("log", "U", U) > 3:
        return log_formula(U)
    result: Tensor = call(torch.ops.hepops._lattice_log.default, U)
    return result


def formula(M: Tensor) -> Tensor:
    """The polar projection in torch's operators."""
    n = M.shape[-1]
    if n == 2:
        det_part = torch.stack(
            [
                torch.stack([M[..., 1, 1].conj(), -M[..., 1, 0].conj()], -1),
                torch.stack([-M[..., 0, 1].conj(), M[..., 0, 0].conj()], -1),
            ],
            -2,
        )
        q = (M + det_part) / 2
        return q / (q.abs().square().sum((-1, -2), keepdim=True) / 2).sqrt()
    V, _, Wh = torch.linalg.svd(M)
    Q = V @ Wh
    return Q * torch.polar(torch.ones_like(M[..., 0, 0].real), -torch.linalg.det(Q).angle() / n)[..., None, None]


def gram_schmidt(M: Tensor) -> Tensor:
    """The other one, for any N."""
    rows: list[Tensor] = []
    for row in M.unbind(-2):
        v = row
        for q in rows:
            v = v - q * (q.conj() * v).sum(-1, keepdim=True)
        rows.append(v / v.abs().square().sum(-1, keepdim=True).sqrt())
    phase = torch.linalg.det(torch.stack(rows, -2)).conj()[..., None]
    return torch.stack([*rows[:-1], rows[-1] * phase / phase.abs()], -2)


def log_formula(U: Tensor) -> Tensor:
    """The logarithm in torch's operators, differentiable where eigenvalues differ."""
    if U.shape[-1] > 3:
        phases, V = eig(U)
        return traceless_antihermitian(V @ (1j * phases[..., :, None] * torch.linalg.inv(V)))
    values, V = torch.linalg.eig(U)
    phases = values.log().imag
    whole = call(torch.ops.hepops._lattice_eig.default, U.detach())[0]
    # each phase goes where its alcove has it, modulo 2 pi
    turns = (whole[..., None, :] - phases.detach()[..., :, None]) / (2 * torch.pi)
    nearest = (turns - turns.round()).abs().argmin(-1)
    phases = phases + 2 * torch.pi * turns.gather(-1, nearest[..., None])[..., 0].round()
    return V @ (1j * phases[..., :, None] * torch.linalg.inv(V))


register("_lattice_project", formula, torch.empty_like)
register("_lattice_log", log_formula, torch.empty_like, on_group=True)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    gradient: Tensor = vjp(gram_schmidt, *ctx.saved_tensors)[1](grad)[0]
    return gradient


register_fake("hepops::_lattice_reunitarise")(torch.empty_like)
register_autograd("hepops::_lattice_reunitarise", _backward, setup_context=_setup)
