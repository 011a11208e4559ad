"""The gradient of a convolution with respect to its weights and to its bias."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.sparse.lists import KernelMapLike, check_map, lists_of, tf32_allowed


def weight_gradient(
    x: Tensor,
    grad: Tensor,
    kernel_map: KernelMapLike,
    *,
    flip: bool = False,
    transposed: bool = False,
    groups: int = 1,
) -> Tensor:
    r"""The gradient of `convolve` with respect to its weights.

    .. math:: G_k = \sum_{(i, o, k)} x_i^T g_o

    Args:
        x: What the convolution read, shape (rows read, channels), float16, bfloat16, float32 or float64.
        grad: :math:`g`, the gradient of what it wrote, shape (rows written, channels), dtype of `x`.
        kernel_map: As `convolve` has it.
        flip: As `convolve` has it: :math:`G_{K-1-k}` takes the place of :math:`G_k`.
        transposed: As `convolve` has it: :math:`G_k^T` takes the place of :math:`G_k`.
        groups: As `convolve` has it.

    Returns:
        The gradient, shape (K, A, B) as the weights have it; float64 for float64, else float32. Offsets that the map
        does not use are 0; on a CPU a large gradient's memory is not touched there.

    Differentiable any number of times with respect to `x` and `grad`, by two convolutions. Deterministic: a matrix is
    summed by one owner, in the order of the tiles and of the pairs in them, so that the bits do not depend on the
    number of threads.

    Raises:
        TypeError: `x` of another dtype, or `grad` of another than `x`.
        ValueError: groups, rows or devices do not match.

    References:
        | B. Graham, L. van der Maaten, arXiv:1706.01307

    Example:
        >>> from collections import namedtuple
        >>> pairs = torch.tensor([[0, 1], [0, 0], [1, 1]])
        >>> entries, tiles = torch.tensor([[0, 0], [1, 1], [3, -1]]), torch.tensor([0, 2])
        >>> lists = pairs, entries, tiles, torch.arange(2)
        >>> kernel_map = namedtuple("Map", "forward backward mirrored volume")(lists, lists, False, 2)
        >>> weight_gradient(torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0], [20.0]]), kernel_map).flatten()
        tensor([20., 50.])
    """
    check_map("weight_gradient", kernel_map, kernel_map.volume, x)
    forward, backward = lists_of(kernel_map, x)
    return call(
        torch.ops.hepops.sparse_weight_gradient.default,
        x, grad, *forward, *backward, kernel_map.volume, flip, kernel_map.mirrored, transposed,
        groups, tf32_allowed(x),
    )  # fmt: skip


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@register_fake("hepops::sparse_weight_gradient")
def _(x: Tensor, grad: Tensor, *rest: Any) -> Tensor:
    volume, transposed, groups = rest[8], rest[11], rest[12]
    rows, columns = (grad.shape[1], x.shape[1]) if transposed else (x.shape[1], grad.shape[1])
    return x.new_empty((volume, rows // groups, columns), dtype=_wide(x.dtype))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:10])
    ctx.flags = inputs[11:]


def _backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
    """<weight, G(x, grad)> is the convolution of x with `weight`, against grad: bilinear in the two."""
    x, grad, *lists = ctx.saved_tensors
    flip, mirrored, transposed, groups, tf32 = ctx.flags
    grad_x = grad_grad = None
    convolve = torch.ops.hepops.sparse_convolve.default
    if ctx.needs_input_grad[0]:
        back = (*lists[4:], *lists[:4])
        grad_x = convolve(grad, weight, None, *back, flip ^ mirrored, mirrored, not transposed, groups, tf32)
    if ctx.needs_input_grad[1]:
        grad_grad = convolve(x, weight, None, *lists, flip, mirrored, transposed, groups, tf32)
    return grad_x, grad_grad, *(None for _ in range(14))


register_autograd("hepops::sparse_weight_gradient", _backward, setup_context=_setup)


def column_sum(x: Tensor) -> Tensor:
    """The sums of the columns of x (N, C), in float64 by blocks of 256 rows; float64 for float64, else float32.

    This is the gradient of a bias. Differentiable any number of times; the same bits for any number of threads.
    """
    return call(torch.ops.hepops._sparse_column_sum.default, x)


@register_fake("hepops::_sparse_column_sum")
def _(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[1],), dtype=_wide(x.dtype))


def _setup_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.rows, ctx.dtype = inputs[0].shape[0], inputs[0].dtype


def _backward_sum(ctx: Any, grad: Tensor) -> Tensor:
    return grad.to(ctx.dtype).expand(ctx.rows, -1)


register_autograd("hepops::_sparse_column_sum", _backward_sum, setup_context=_setup_sum)
