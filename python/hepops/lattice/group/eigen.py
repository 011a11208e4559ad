"""Eigen-decompositions of unitary and hermitian matrices."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from ._operator import check_matrices


def eig(U: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenphases and eigenvectors of SU(N) matrices: :math:`U = V\, \mathrm{diag}(e^{i\theta_k})\, V^\dagger`.

    The phases lie in the canonical alcove: sorted, shifted by :math:`2\pi` so that their sum is 0, sorted again,
    :math:`\theta_1 \le \ldots \le \theta_N \le \theta_1 + 2\pi`.

    SU(2) and SU(3) in closed form: the eigenvalue that is isolated in the larger one of the hermitian and
    anti-hermitian parts, whose vector is well conditioned, then the 2x2 block that is left. Accurate to rounding
    (:math:`|U - V e^{i\theta} V^\dagger| < 10^{-14}`, V unitary to as much) also where eigenvalues coincide. N above 3:
    `torch.linalg.eig`.

    Args:
        U: Shape (..., N, N), complex64 or complex128, unitary with determinant 1. Of a matrix that is off by
            :math:`\delta` the phases and the product are off by as much.

    Returns:
        (phases, vectors): shapes (..., N), real, and (..., N, N), columns, unitary; computed in double. The phases of
        the vectors are not fixed.

    Differentiable once, along the group: the gradient is :math:`i E U` with E hermitian and traceless. That of the
    vectors has :math:`1 / \sin\frac{\theta_i - \theta_j}{2}`, and is right for what does not depend on their phases;
    the term is left out where two eigenvalues coincide to 1e-14. Deterministic, matrix by matrix. A NaN makes NaN.

    Raises:
        TypeError: `U` is not complex.
        ValueError: `U` is not (..., N, N).

    References:
        | J. Kopp, Int. J. Mod. Phys. C 19 (2008) 523, physics/0610206 (closed forms, and where they lose digits)
        | D. Boyda et al., arXiv:2008.05456, appendix (the canonical alcove)

    Example:
        >>> U = torch.diag(torch.polar(torch.ones(3), torch.tensor([2.0, 2.5, -4.5])))
        >>> hepops.lattice.group.eig(U)[0]
        tensor([-3.7832,  1.7832,  2.0000])
    """
    if check_matrices("eig", "U", U) < 4:
        result: tuple[Tensor, Tensor] = call(torch.ops.hepops._lattice_eig.default, U)
        return result
    values, vectors = torch.linalg.eig(U)
    phases, order = alcove(values.angle())
    return phases, vectors.gather(-1, order[..., None, :].expand_as(vectors))


def eigh(H: Tensor) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues in ascending order and eigenvectors of hermitian matrices: :math:`H = V\, \mathrm{diag}(h_k)\,
    V^\dagger`.

    As :func:`eig`, in closed form for N = 2 and 3; `torch.linalg.eigh` beyond.

    Args:
        H: Shape (..., N, N), complex64 or complex128; the hermitian part is used.

    Returns:
        (values, vectors): shapes (..., N), real, and (..., N, N), columns, unitary; computed in double.

    Differentiable once; the gradient of the vectors has :math:`1 / (h_i - h_j)`, left out where these coincide to
    rounding. Deterministic, matrix by matrix. A NaN makes NaN.

    Raises:
        TypeError: `H` is not complex.
        ValueError: `H` is not (..., N, N).

    References:
        | J. Kopp, Int. J. Mod. Phys. C 19 (2008) 523, physics/0610206

    Example:
        >>> hepops.lattice.group.eigh(torch.tensor([[1.0, 2.0j], [-2.0j, 1.0]]))[0]
        tensor([-1.,  3.])
    """
    if check_matrices("eigh", "H", H) < 4:
        result: tuple[Tensor, Tensor] = call(torch.ops.hepops._lattice_eigh.default, H)
        return result
    values, vectors = torch.linalg.eigh((H + H.mH) / 2)
    return values, vectors


def alcove(phases: Tensor) -> tuple[Tensor, Tensor]:
    r"""The canonical alcove of phases in :math:`[-\pi, \pi]` whose sum is a multiple of :math:`2\pi`.

    Returns:
        (phases, order): sorted, shifted by :math:`2\pi` so that the sum is 0, sorted again; and where each came from.
    """
    phases, order = torch.sort(phases, dim=-1)
    turns = (phases.detach().sum(-1, keepdim=True) / (2 * math.pi)).round()
    place = torch.arange(phases.shape[-1], device=phases.device)
    phases = torch.where(place < -turns, phases + 2 * math.pi, phases)
    phases = torch.where(place >= phases.shape[-1] - turns, phases - 2 * math.pi, phases)
    phases, again = torch.sort(phases, dim=-1)
    return phases, order.gather(-1, again)


def _register(name: str) -> None:
    backward_op = getattr(torch.ops.hepops, f"{name}_backward").default

    def fake(A: Tensor) -> tuple[Tensor, Tensor]:
        return A.new_empty(A.shape[:-1], dtype=A.real.dtype), A.new_empty(A.shape)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        result: Tensor = backward_op(*grads, *ctx.saved_tensors)
        return result

    register_fake(f"hepops::{name}")(fake)
    register_fake(f"hepops::{name}_backward")(lambda values, vectors, A: A.new_empty(A.shape))
    register_autograd(f"hepops::{name}", backward, setup_context=setup)
    once_differentiable(f"hepops::{name}_backward")


_register("_lattice_eig")
_register("_lattice_eigh")
