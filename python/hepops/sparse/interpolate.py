"""Values between voxels."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.core.scatter_add import scatter_add

from ._formula import differentiate


def interpolate(features: Tensor, rows: Tensor, fractions: Tensor) -> Tensor:
    r"""Multilinear values between the corners of a cell.

    .. math::
        y_q = \sum_j w_j(f_q)\, x_{r_{qj}}, \qquad w_j(f) = \prod_a \begin{cases} f_a & \text{bit } a \text{ of } j \\
        1 - f_a & \text{otherwise} \end{cases}

    over the :math:`2^D` corners j, of which the first axis has the highest bit: in 2D the corners are (0, 0), (0, 1),
    (1, 0), (1, 1).

    Args:
        features: :math:`x`, shape (N, C), float16, bfloat16, float32 or float64.
        rows: :math:`r`, the row at each corner, -1 where there is none, which counts as 0. Shape (Q, 2^D), int64.
        fractions: :math:`f`, where in its cell each query lies, 0 at the lower corner and 1 at the upper one. Shape
            (Q, D) with D = 1 to 6, any floating dtype; taken as float64 with features of float64, else as float32.

    Returns:
        :math:`y`, shape (Q, C), dtype of `features`.

    Differentiable with respect to `features` and `fractions`: once by operators of our own, any further time by a
    composite formula. Sums are taken in double; the gradient of a row is summed over its queries in their order, which
    a sort finds: the same bits from run to run and for any number of threads, on a CPU and on a GPU. Rows on a GPU are
    not read back to check them.

    Raises:
        TypeError: `features` or `fractions` is not of floating dtype, or `rows` is not int64.
        ValueError: shapes or devices do not match, D is not 1 to 6, or (on the CPU) a row is out of range.

    References:
        | MinkowskiInterpolation: C. Choy, J. Gwak, S. Savarese, CVPR 2019, arXiv:1904.08755

    Example:
        Between 10 at the lower and 20 at the upper end, and where the upper end does not exist.

        >>> x = torch.tensor([[10.0], [20.0]])
        >>> interpolate(x, torch.tensor([[0, 1], [1, -1]]), torch.tensor([[0.25], [0.25]]))
        tensor([[12.5000],
                [15.0000]])
    """
    if not fractions.is_floating_point():
        raise TypeError(f"interpolate: fractions must be of floating dtype, got {fractions.dtype}")
    kind = torch.float64 if features.dtype == torch.float64 else torch.float32
    return call(torch.ops.hepops.sparse_interpolate, features, rows, fractions.to(kind))


@register_fake("hepops::sparse_interpolate")
def _(x: Tensor, rows: Tensor, fractions: Tensor) -> Tensor:
    return x.new_empty((rows.shape[0], x.shape[1]))


@register_fake("hepops::_sparse_interpolate_backward")
def _(
    grad: Tensor, x: Tensor, rows: Tensor, fractions: Tensor, want_x: bool, want_fractions: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if want_x else (0,)), fractions.new_empty(fractions.shape if want_fractions else (0,))


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, rows, fractions = ctx.saved_tensors
    want_x, _, want_fractions = ctx.needs_input_grad
    grad_x, grad_fractions = torch.ops.hepops._sparse_interpolate_backward(
        grad, x, rows, fractions, want_x, want_fractions
    )
    return grad_x if want_x else None, None, grad_fractions if want_fractions else None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.want_x, ctx.want_fractions = inputs
    ctx.save_for_backward(*tensors)


def _factors(fractions: Tensor) -> Tensor:
    """1 - f or f of every axis for every corner, (Q, 2^D, D)."""
    D = fractions.shape[1]
    corners = torch.arange(1 << D, device=fractions.device)
    upper = (corners[:, None] >> torch.arange(D - 1, -1, -1, device=fractions.device)) & 1
    return torch.where(upper.bool(), fractions[:, None], 1 - fractions[:, None])


def _formula(tensors: list[Any], rows: Tensor) -> tuple[Tensor, Tensor]:
    """What _sparse_interpolate_backward computes, in operators that have derivatives."""
    grad, x, fractions = tensors
    g, wide = grad.to(fractions.dtype), x.to(fractions.dtype)
    there = (rows >= 0)[..., None]
    factors = _factors(fractions)
    D = fractions.shape[1]
    index = rows.clamp(min=0).reshape(-1)
    terms = factors.prod(2, keepdim=True) * g[:, None] * there
    grad_x = scatter_add(index, terms.reshape(len(index), -1), len(x))
    dots = (wide[index].reshape(*rows.shape, -1) * g[:, None] * there).sum(2)
    sign = 1 - 2 * _factors(torch.zeros_like(fractions))  # -1 at a lower corner, where the factor at 0 is 1
    slopes = [
        (dots * sign[..., a] * torch.cat([factors[..., :a], factors[..., a + 1 :]], 2).prod(2)).sum(1) for a in range(D)
    ]
    return grad_x.to(x.dtype), torch.stack(slopes, 1)


def _backward_backward(ctx: Any, v_x: Tensor, v_fractions: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, rows, fractions = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[n] for n in (0, 1, 3)]
    seeds = (v_x if ctx.want_x else None, v_fractions if ctx.want_fractions else None)
    g, a, f = differentiate(lambda tensors: _formula(tensors, rows), (grad, x, fractions), wanted, seeds)
    return g, a, None, f, None, None


register_autograd("hepops::sparse_interpolate", _backward, setup_context=_setup)
register_autograd("hepops::_sparse_interpolate_backward", _backward_backward, setup_context=_setup_backward)
