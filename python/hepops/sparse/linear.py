"""A linear layer on the rows of a sparse tensor, summed in one order."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.sparse.lists import autocast
from hepops.sparse.weight_gradient import column_sum


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, transposed: bool = False) -> Tensor:
    r"""Multiply each row by a matrix.

    .. math:: y_n = b + x_n M

    with :math:`M = W`, or :math:`W^T` where `transposed`, which is how `torch.nn.Linear` stores it. This is `convolve`
    with a kernel of one offset, without the lists.

    Args:
        x: Shape (N, C), float16, bfloat16, float32 or float64.
        weight: :math:`W`, shape (C, channels), or (channels, C) where `transposed`; in the dtype of `x`, or in float32
            for the two halves.
        bias: :math:`b`, shape (channels).
        transposed: Whether the matrix is transposed.

    Returns:
        Shape (N, channels), dtype of `x`. Sums are taken in float32 (float64 for float64) and rounded once.

    Differentiable any number of times with respect to `x`, `weight` and `bias`. Deterministic: the order of every sum,
    that of the weight's gradient over the rows included, depends on the shapes alone, not on the number of threads.

    Raises:
        TypeError: `x` of another dtype, or a `weight` or `bias` that does not go with it.
        ValueError: shapes or devices do not match.

    References:
        | K. Goto, R. van de Geijn, ACM Trans. Math. Softw. 34 (2008) 12 (products of matrices, a panel at a time)

    Example:
        >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 10.0, 100.0], [1.0, 1.0, 1.0]]))
        tensor([[  3.,  12., 102.]])
    """
    return call(torch.ops.hepops.sparse_linear.default, autocast(x), weight, bias, transposed)


@register_fake("hepops::sparse_linear")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0] if transposed else weight.shape[1]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.transposed = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = bias.dtype if bias is not None else None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.hepops.sparse_linear.default(grad, weight, None, not ctx.transposed)
    if ctx.needs_input_grad[1]:
        grad_weight = torch.ops.hepops._sparse_linear_gradient.default(x, grad, ctx.transposed).to(weight.dtype)
    if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
        grad_bias = column_sum(grad).to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, None


register_autograd("hepops::sparse_linear", _backward, setup_context=_setup)


@register_fake("hepops::_sparse_linear_gradient")
def _(x: Tensor, grad: Tensor, transposed: bool) -> Tensor:
    rows, columns = (grad.shape[1], x.shape[1]) if transposed else (x.shape[1], grad.shape[1])
    return x.new_empty((rows, columns), dtype=torch.promote_types(x.dtype, torch.float32))


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, ctx.transposed = inputs
    ctx.save_for_backward(x, grad)


def _backward_gradient(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    grad_x = grad_grad = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.hepops.sparse_linear.default(grad, weight, None, not ctx.transposed)
    if ctx.needs_input_grad[1]:
        grad_grad = torch.ops.hepops.sparse_linear.default(x, weight, None, ctx.transposed)
    return grad_x, grad_grad, None


register_autograd("hepops::_sparse_linear_gradient", _backward_gradient, setup_context=_setup_gradient)
