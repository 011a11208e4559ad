"""A convolution that keeps the channels apart."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.sparse.lists import KernelMapLike, autocast, check_map, lists_of
from hepops.sparse.weight_gradient import column_sum


def depthwise(
    x: Tensor, weight: Tensor, kernel_map: KernelMapLike, bias: Tensor | None = None, *, flip: bool = False
) -> Tensor:
    r"""Convolve each channel for itself over the pairs of a kernel map.

    .. math:: y_{oc} = b_c + \sum_k \sum_{(i, o, k)} x_{ic} W_{kc}

    Args:
        x: Features of the rows that are read, shape (rows read, C), float16, bfloat16, float32 or float64.
        weight: :math:`W`, shape (K, C), in the dtype of `x`; float32 is taken with the two halves as well.
        kernel_map: As `convolve` has it.
        bias: :math:`b`, shape (C).
        flip: Whether offset k takes the weights of offset K - 1 - k.

    Returns:
        Features of the rows that are written, shape (rows written, C), dtype of `x`. Sums are taken in float32 (float64
        for float64) and rounded once.

    Differentiable any number of times with respect to `x`, `weight` and `bias`. Deterministic: a written row has one
    owner, who adds in ascending k, and the gradient of the weights is summed in the order of the tiles; the bits do not
    depend on the number of threads.

    Raises:
        TypeError: `x` of another dtype, or a `weight` or `bias` that does not go with it.
        ValueError: channels, volume, rows or devices do not match.

    References:
        | F. Chollet, arXiv:1610.02357

    Example:
        >>> from collections import namedtuple
        >>> pairs = torch.tensor([[0, 1], [0, 0], [1, 1]])
        >>> entries, tiles = torch.tensor([[0, 0], [1, 1], [3, -1]]), torch.tensor([0, 2])
        >>> lists = pairs, entries, tiles, torch.arange(2)
        >>> kernel_map = namedtuple("Map", "forward backward mirrored volume")(lists, lists, False, 2)
        >>> depthwise(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [1.0, 1.0]]), kernel_map)
        tensor([[ 1.,  2.],
                [13., 44.]])
    """
    check_map("depthwise", kernel_map, weight.shape[0], x)
    x = autocast(x)
    forward, backward = lists_of(kernel_map, x)
    op = torch.ops.hepops.sparse_depthwise.default
    return call(op, x, weight, bias, *forward, *backward, flip, kernel_map.mirrored)


@register_fake("hepops::sparse_depthwise")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    return x.new_empty((rest[3].shape[0], x.shape[1]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *rest = inputs
    ctx.save_for_backward(x, weight, *rest[:8])
    ctx.bias_dtype = bias.dtype if bias is not None else None
    ctx.flip, ctx.mirrored = rest[8:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *lists = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.hepops.sparse_depthwise.default(
            grad, weight, None, *lists[4:], *lists[:4], ctx.flip ^ ctx.mirrored, ctx.mirrored
        )
    if ctx.needs_input_grad[1]:
        grad_weight = torch.ops.hepops._sparse_depthwise_gradient.default(
            x, grad, *lists, weight.shape[0], ctx.flip, ctx.mirrored
        ).to(weight.dtype)
    if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
        grad_bias = column_sum(grad).to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, *(None for _ in range(10))


register_autograd("hepops::sparse_depthwise", _backward, setup_context=_setup)


@register_fake("hepops::_sparse_depthwise_gradient")
def _(x: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((rest[8], x.shape[1]), dtype=torch.promote_types(x.dtype, torch.float32))


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:10])
    _, ctx.flip, ctx.mirrored = inputs[10:]


def _backward_gradient(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
    x, grad, *lists = ctx.saved_tensors
    grad_x = grad_grad = None
    op = torch.ops.hepops.sparse_depthwise.default
    if ctx.needs_input_grad[0]:
        grad_x = op(grad, weight, None, *lists[4:], *lists[:4], ctx.flip ^ ctx.mirrored, ctx.mirrored)
    if ctx.needs_input_grad[1]:
        grad_grad = op(x, weight, None, *lists, ctx.flip, ctx.mirrored)
    return grad_x, grad_grad, *(None for _ in range(11))


register_autograd("hepops::_sparse_depthwise_gradient", _backward_gradient, setup_context=_setup_gradient)
