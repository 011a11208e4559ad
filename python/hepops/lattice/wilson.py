r"""Operators on SU(2) and SU(3) links: Wilson's action and those improved by rectangles, forces, staples, loops.

.. math::
    S = -\frac{\beta}{N} \Big[(1 - 8 c_1) \sum_{x,\,\mu<\nu} \mathrm{Re\,tr}\, P_{\mu\nu}(x)
        + c_1 \sum_{x,\,\mu\neq\nu} \mathrm{Re\,tr}\, R_{\mu\nu}(x)\Big]

with R the loop of two links along mu and one along nu. Links have shape (B, D, L_1, ..., L_D, N, N), D = 2, 3, 4.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable
from hepops.flows.sums import event_sum


def wilson_action(links: Tensor, beta: float, c1: float = 0.0, *, wide: bool = False, accurate: bool = False) -> Tensor:
    r"""Wilson's action, and with c1 the rectangle-improved ones.

    .. math:: S = -\frac{\beta}{N} \Big[(1 - 8 c_1) \sum_{x,\,\mu<\nu} \mathrm{Re\,tr}\, P_{\mu\nu}(x)
        + c_1 \sum_{x,\,\mu\neq\nu} \mathrm{Re\,tr}\, R_{\mu\nu}(x)\Big]

    Args:
        links: U, shape (B, D, L_1, ..., L_D, N, N), complex64 or complex128, N = 2 or 3, D = 2, 3 or 4. An extent of 1
            or 2 counts every bond. They need not be unitary.
        beta: :math:`\beta`.
        c1: :math:`c_1`: 0 for Wilson's, -1/12 for Symanzik's at tree level, -0.331 for Iwasaki's.
        wide: Whether complex64 links are multiplied in double.
        accurate: Whether to sum in double-double, about 32 digits; the result is that sum rounded.

    Returns:
        S, shape (B), float64: sums are in double whatever the links.

    Differentiable twice with respect to `links`, each entry for itself: the gradient is :math:`-(\beta/N) A^\dagger`
    with A of `wilson_staples`. Only the links are saved for it. Deterministic; the bits depend neither on the batch nor
    on the number of threads.

    Raises:
        TypeError: `links` of another dtype.
        ValueError: another shape, or a coupling that is not finite.

    References:
        | K. G. Wilson, Phys. Rev. D 10 (1974) 2445
        | M. Luscher, P. Weisz, Commun. Math. Phys. 97 (1985) 59

    Example:
        >>> U = hepops.lattice.SUN(3, (4, 4), beta=6.0).cold(2)
        >>> hepops.lattice.wilson_action(U, 6.0)
        tensor([-96., -96.], dtype=torch.float64)
    """
    return call(torch.ops.hepops.lattice_wilson_action.default, links, beta, c1, wide, accurate)


def wilson_force(links: Tensor, beta: float, c1: float = 0.0, *, wide: bool = False) -> Tensor:
    r"""The force of the action, as the equation of motion dP/dt = -F has it.

    .. math:: F = \frac{\beta}{2N} \mathrm{TA}(U A), \qquad
        \mathrm{TA}(M) = \tfrac12 (M - M^\dagger) - \tfrac{1}{2N} \mathrm{tr}(M - M^\dagger)

    Args:
        links: U, as in `wilson_action`.
        beta: :math:`\beta`.
        c1: :math:`c_1`; A is then the sum of both kinds of staples with their coefficients.
        wide: Whether complex64 links are multiplied in double.

    Returns:
        F, traceless and anti-hermitian, shape and dtype of `links`.

    Differentiable once with respect to `links`. Deterministic, link by link.

    Raises:
        TypeError: `links` of another dtype.
        ValueError: another shape, or a coupling that is not finite.

    References:
        | S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, Phys. Lett. B 195 (1987) 216

    Example:
        >>> theory = hepops.lattice.SUN(2, (4, 4), beta=2.0)
        >>> hepops.lattice.wilson_force(theory.cold(1), 2.0).abs().max()
        tensor(0., dtype=torch.float64)
    """
    return call(torch.ops.hepops.lattice_wilson_force.default, links, beta, c1, wide)


def wilson_action_and_force(
    links: Tensor, beta: float, c1: float = 0.0, *, wide: bool = False, accurate: bool = False
) -> tuple[Tensor, Tensor]:
    """`wilson_action` and `wilson_force`; on a CPU in one pass over the links."""
    if links.is_cuda:
        return wilson_action(links, beta, c1, wide=wide, accurate=accurate), wilson_force(links, beta, c1, wide=wide)
    return call(torch.ops.hepops._lattice_wilson_action_and_force.default, links, beta, c1, wide, accurate)


def wilson_staples(links: Tensor, c0: float = 1.0, c1: float = 0.0, *, wide: bool = False) -> Tensor:
    r"""The sums of staples around every link.

    .. math:: A_\mu(x) = c_0 \sum_{\nu\neq\mu} \big[U_\nu(x+\hat\mu) U_\mu(x+\hat\nu)^\dagger U_\nu(x)^\dagger +
        U_\nu(x+\hat\mu-\hat\nu)^\dagger U_\mu(x-\hat\nu)^\dagger U_\nu(x-\hat\nu)\big] + c_1 \sum (\text{6 longer})

    so that Re tr(U A) holds the loops through the link U: over all links each plaquette is counted four times, each
    rectangle six times.

    Args:
        links: U, as in `wilson_action`.
        c0: The coefficient of the 2 (D - 1) parts of plaquettes.
        c1: That of the 6 (D - 1) parts of rectangles.
        wide: Whether complex64 links are multiplied in double.

    Returns:
        A, shape and dtype of `links`.

    Differentiable once with respect to `links`. Deterministic, link by link.

    Raises:
        TypeError: `links` of another dtype.
        ValueError: another shape, or a coefficient that is not finite.

    References:
        | C. Gattringer, C. B. Lang, Quantum Chromodynamics on the Lattice, Springer (2010), section 4.1.4

    Example:
        >>> U = hepops.lattice.SUN(2, (3, 3, 3), beta=2.0).cold(1)
        >>> hepops.lattice.wilson_staples(U)[0, 0, 0, 0, 0].real
        tensor([[4., 0.],
                [0., 4.]], dtype=torch.float64)
    """
    return call(torch.ops.hepops.lattice_wilson_staples.default, links, c0, c1, wide)


def loop_traces(links: Tensor, rectangles: bool = False, *, wide: bool = False) -> Tensor:
    r"""Re tr of every plaquette, and of every rectangle.

    .. math:: P_{\mu\nu}(x) = U_\mu(x)\, U_\nu(x+\hat\mu)\, U_\mu(x+\hat\nu)^\dagger\, U_\nu(x)^\dagger, \qquad
        R_{\mu\nu}(x) = U_\mu(x)\, U_\mu(x+\hat\mu)\, U_\nu(x+2\hat\mu)\, U_\mu(x+\hat\mu+\hat\nu)^\dagger\,
        U_\mu(x+\hat\nu)^\dagger\, U_\nu(x)^\dagger

    Args:
        links: U, as in `wilson_action`.
        rectangles: Whether the rectangles follow.
        wide: Whether complex64 links are multiplied in double.

    Returns:
        Shape (B, loops, L_1, ..., L_D), real: the D (D - 1) / 2 planes 01, 02, ..., 12, ... of P; then, where
        `rectangles`, the D (D - 1) of R with (mu, nu) = 01, 02, ..., 10, 12, ... .

    Differentiable once with respect to `links`. Deterministic, loop by loop.

    Raises:
        TypeError: `links` of another dtype.
        ValueError: another shape.

    References:
        | K. G. Wilson, Phys. Rev. D 10 (1974) 2445

    Example:
        >>> U = hepops.lattice.SUN(3, (4, 4), beta=6.0).cold(1)
        >>> hepops.lattice.loop_traces(U).shape, hepops.lattice.loop_traces(U).mean()
        (torch.Size([1, 1, 4, 4]), tensor(3., dtype=torch.float64))
    """
    return call(torch.ops.hepops.lattice_loop_traces.default, links, rectangles, wide)


def _scalars(links: Tensor) -> Tensor:
    return links.new_empty(links.shape[0], dtype=torch.float64)


def _like(links: Tensor) -> Tensor:
    return links.new_empty(links.shape)


@register_fake("hepops::lattice_wilson_action")
def _(links: Tensor, beta: float, c1: float, wide: bool, accurate: bool) -> Tensor:
    return _scalars(links)


@register_fake("hepops::_lattice_wilson_action_and_force")
def _(links: Tensor, beta: float, c1: float, wide: bool, accurate: bool) -> tuple[Tensor, Tensor]:
    return _scalars(links), _like(links)


@register_fake("hepops::_lattice_wilson_trajectory")
def _(links: Tensor, momenta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _like(links), _like(links)


@register_fake("hepops::lattice_loop_traces")
def _(links: Tensor, rectangles: bool, wide: bool) -> Tensor:
    d = links.dim() - 4
    loops = d * (d - 1) // 2 * (3 if rectangles else 1)
    return links.new_empty((links.shape[0], loops, *links.shape[2:-2]), dtype=links.dtype.to_real())


def _fake_links(links: Tensor, *rest: Any) -> Tensor:
    return _like(links)


def _fake_backward(grad: Tensor, links: Tensor, *rest: Any) -> Tensor:
    return _like(links)


for _name in ("lattice_wilson_force", "lattice_wilson_staples"):
    register_fake(f"hepops::{_name}")(_fake_links)
for _name in (
    "lattice_wilson_action_backward",
    "lattice_wilson_force_backward",
    "lattice_loop_traces_backward",
    "_lattice_wilson_hessian",
):
    register_fake(f"hepops::{_name}")(_fake_backward)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.options = inputs[1:]


def _action_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    beta, c1, wide, _ = ctx.options
    op = torch.ops.hepops.lattice_wilson_action_backward.default
    return op(grad, ctx.saved_tensors[0], beta, c1, wide), None, None, None, None


def _force_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    op = torch.ops.hepops.lattice_wilson_force_backward.default
    return op(grad, ctx.saved_tensors[0], *ctx.options), None, None, None


def _both_backward(ctx: Any, grad_action: Tensor, grad_force: Tensor) -> tuple[Any, ...]:
    (U,), (beta, c1, wide, _) = ctx.saved_tensors, ctx.options
    ops = torch.ops.hepops
    along = ops.lattice_wilson_action_backward.default(grad_action, U, beta, c1, wide)
    return along + ops.lattice_wilson_force_backward.default(grad_force, U, beta, c1, wide), None, None, None, None


# Re tr(G^+ A) moves by Re tr(dU DA[G^+]), summed over links: the bracket's second derivative is symmetric
def _staples_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    op = torch.ops.hepops._lattice_wilson_hessian.default
    return op(grad.mH, ctx.saved_tensors[0], *ctx.options), None, None, None


def _traces_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    op = torch.ops.hepops.lattice_loop_traces_backward.default
    return op(grad, ctx.saved_tensors[0], ctx.options[1]), None, None


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.options = inputs[2:]


# G = -(beta/N) grad A^+: along V it gives Re tr(V^+ G), and the links the Hessian times V
def _gradient_backward(ctx: Any, V: Tensor) -> tuple[Any, ...]:
    (grad, U), (beta, c1, wide) = ctx.saved_tensors, ctx.options
    ops, scale = torch.ops.hepops, -beta / U.shape[-1]
    slope = ops.lattice_wilson_action_backward.default(torch.ones_like(grad), U, beta, c1, wide)
    grad_grad = event_sum((V.conj() * slope).real, U.dim() - 1)
    seeds = V * (scale * grad).to(V.dtype).view(-1, *[1] * (U.dim() - 1))
    return grad_grad, ops._lattice_wilson_hessian.default(seeds, U, 1 - 8 * c1, c1, wide), None, None, None


register_autograd("hepops::lattice_wilson_action", _action_backward, setup_context=_setup)
register_autograd("hepops::lattice_wilson_action_backward", _gradient_backward, setup_context=_setup_gradient)
register_autograd("hepops::lattice_wilson_force", _force_backward, setup_context=_setup)
register_autograd("hepops::_lattice_wilson_action_and_force", _both_backward, setup_context=_setup)
register_autograd("hepops::lattice_wilson_staples", _staples_backward, setup_context=_setup)
register_autograd("hepops::lattice_loop_traces", _traces_backward, setup_context=_setup)
for _name in ("lattice_wilson_force_backward", "lattice_loop_traces_backward", "_lattice_wilson_hessian"):
    once_differentiable(f"hepops::{_name}")
