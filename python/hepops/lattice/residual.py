"""The residual (stout-like) update of links, its exact log-determinant, and its inverse."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from . import group

_OPS = torch.ops.hepops


def residual(links: Tensor, staples: Tensor) -> tuple[Tensor, Tensor]:
    r"""Multiply every link by the exponential of the loops that pass through it.

    .. math:: U' = e^X U, \quad X = \mathrm{TA}(U A), \qquad
        \ln J = \ln \det_{ab} \big[\mathrm{Ad}(e^X) + \mathrm{dexp}_X\, \partial X / \partial Y\big], \quad
        dU\, U^\dagger = i\, Y^a T^a

    with the determinant of all :math:`N^2 - 1` directions of each link, exactly. A holds the coefficients of the loops,
    and no link that is updated: :math:`A = \sum_l \epsilon_l A_l`. For :math:`|A| \le \sum_l |\epsilon_l| < 1` (the
    largest singular value) the map is one to one, since :math:`U \to e^{-\mathrm{TA}(UA)} U'` is a contraction.

    Args:
        links: U in SU(2) or SU(3), shape (..., N, N), complex64 or complex128, of any strides.
        staples: A, like `links`.

    Returns:
        (U', like `links`; ln J of each link, shape (...), float64). Computed in double whatever the dtype, to rounding
        for :math:`|A| \le 1`; NaN where the determinant is not positive.

    Differentiable once, with respect to both, every entry by itself. Deterministic, link by link.

    Raises:
        TypeError: another dtype, or two.
        ValueError: N is neither 2 nor 3, or the shapes differ.

    References:
        | stout links: C. Morningstar, M. Peardon, Phys. Rev. D 69 (2004) 054501, hep-lat/0311018
        | residual flows: R. Abbott et al., arXiv:2305.02402; arXiv:2401.10874

    Example:
        >>> U = torch.eye(3, dtype=torch.complex128)
        >>> V, logdet = hepops.lattice.residual(U, 0.1 * U)  # X = 0, and dX/dY = 0.1: ln 1.1 of 8 directions
        >>> round(logdet.item(), 6)
        0.762481
    """
    return call(_OPS.lattice_residual.default, links, staples)


def residual_inverse(
    links: Tensor, staples: Tensor, *, tolerance: float = 1e-13, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    r"""The links that :func:`residual` takes to `links`.

    By the fixed point of :math:`U \to e^{-\mathrm{TA}(UA)} U'` in double, each link by itself. The rate is
    :math:`r = |A|`, and a link that moves by less than `tolerance` (sum of real and imaginary part of the largest
    entry) is within :math:`r / (1 - r)` times that of the solution.

    Args:
        links: U', shape (..., N, N), complex64 or complex128.
        staples: A, like `links`.
        tolerance: Of the last movement, at least 1e-15.
        iterations: At most.

    Returns:
        (U, like `links`; ln J of the inverse, minus that at U, shape (...), float64).

    Differentiable once by the implicit function rule; of U' what leaves the group counts too. Deterministic.

    Raises:
        TypeError, ValueError: As `residual`; tolerance or iterations out of range.
        ArithmeticError: links on the CPU have not come to rest: their number, and the largest movement. On a GPU
            nothing is read back: those links are NaN, as they are under torch.compile.

    Example:
        >>> U = hepops.lattice.SUN(3, (2, 2), 1.0).random(1, seed=1)
        >>> V, logdet = hepops.lattice.residual(U, 0.5 * U.roll(1, 2))
        >>> back, minus = hepops.lattice.residual_inverse(V, 0.5 * U.roll(1, 2))
        >>> bool((back - U).abs().max() < 1e-12), bool((logdet + minus).abs().max() < 1e-11)
        (True, True)
    """
    if not 1e-15 <= tolerance < 1 or iterations < 1:
        raise ValueError(
            f"residual_inverse: tolerance must lie in [1e-15, 1) and iterations be at least 1, got {tolerance} and "
            f"{iterations}"
        )
    U, moved = call(_OPS._lattice_residual_inverse.default, links, staples, iterations, tolerance)
    moved = moved.detach()
    late = ~(moved <= tolerance)
    if U.device.type == "cpu" and not torch.compiler.is_compiling():
        count = int(late.sum())
        if count:
            raise ArithmeticError(
                f"residual_inverse: {count} of {moved.numel()} links have not come to rest in {iterations} iterations: "
                f"the last one moved by up to {float(moved.max()):.3g}; sum |epsilon| must be below 1"
            )
    else:
        U = torch.where(late[..., None, None], torch.nan, U)
    return U, -residual(U, staples)[1]


def formula(links: Tensor, staples: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`residual` in torch's operators: the exponential of 2N x 2N blocks gives its derivative in each direction
    (R. Mathias, doi:10.1137/S0895479895283409)."""
    n = links.shape[-1]
    M = links @ staples
    X = group.traceless_antihermitian(M)
    E = torch.linalg.matrix_exp(X)
    T = group.generators(n).to(device=links.device, dtype=links.dtype)
    steps = group.traceless_antihermitian(1j * T @ M[..., None, :, :])
    wide = X[..., None, :, :].expand(steps.shape)
    blocks = torch.cat([torch.cat([wide, steps], -1), torch.cat([torch.zeros_like(wide), wide], -1)], -2)
    slopes = torch.linalg.matrix_exp(blocks)[..., :n, n:] @ E.mH[..., None, :, :]
    turned = E[..., None, :, :] @ (1j * T) @ E.mH[..., None, :, :]
    J = group.to_coordinates(turned + slopes)
    return E @ links, torch.linalg.slogdet(J).logabsdet


def _like(links: Tensor) -> tuple[Tensor, Tensor]:
    return links.new_empty(links.shape), links.new_empty(links.shape[:-2], dtype=torch.float64)


@register_fake("hepops::lattice_residual")
def _(links: Tensor, staples: Tensor) -> tuple[Tensor, Tensor]:
    return _like(links)


@register_fake("hepops::_lattice_residual_inverse")
def _(result: Tensor, staples: Tensor, most: int, tolerance: float) -> tuple[Tensor, Tensor]:
    return _like(result)


@register_fake("hepops::lattice_residual_backward")
def _(grad_result: Tensor, grad_logdet: Tensor, links: Tensor, staples: Tensor) -> tuple[Tensor, Tensor]:
    return links.new_empty(links.shape), links.new_empty(links.shape)


@register_fake("hepops::_lattice_residual_inverse_backward")
def _(grad_links: Tensor, links: Tensor, staples: Tensor) -> tuple[Tensor, Tensor]:
    return links.new_empty(links.shape), links.new_empty(links.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_result: Tensor, grad_logdet: Tensor) -> Any:
    return _OPS.lattice_residual_backward.default(grad_result, grad_logdet, *ctx.saved_tensors)


def _setup_inverse(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[0], inputs[1])


# `moved` says how well U is known: it has no slope
def _inverse_backward(ctx: Any, grad_links: Tensor, grad_moved: Tensor) -> Any:
    return *_OPS._lattice_residual_inverse_backward.default(grad_links, *ctx.saved_tensors), None, None


register_autograd("hepops::lattice_residual", _backward, setup_context=_setup)
register_autograd("hepops::_lattice_residual_inverse", _inverse_backward, setup_context=_setup_inverse)
once_differentiable("hepops::lattice_residual_backward")
once_differentiable("hepops::_lattice_residual_inverse_backward")
