"""A convolution over the pairs of a kernel map, and its input gradient, which is another one."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.sparse.lists import KernelMapLike, autocast, check_map, lists_of, tf32_allowed
from hepops.sparse.weight_gradient import column_sum


def convolve(
    x: Tensor,
    weight: Tensor,
    kernel_map: KernelMapLike,
    bias: Tensor | None = None,
    *,
    flip: bool = False,
    transposed: bool = False,
    groups: int = 1,
) -> Tensor:
    r"""Convolve features over the pairs of a kernel map.

    .. math:: y_o = b + \sum_k \sum_{(i, o, k)} x_i M_k

    with :math:`M_k = W_k`, or :math:`W_k^T` where `transposed`, or :math:`W_{K-1-k}` for :math:`W_k` where `flip`.
    The sum runs over the triples of the map; a map with its lists swapped makes of it the transposed layer.

    Args:
        x: Features of the rows that are read, shape (rows read, C), float16, bfloat16, float32 or float64.
        weight: :math:`W`, shape (K, A, B), in the dtype of `x`; float32 is taken with the two halves as well. Without
            `transposed`, A = C / `groups`, and B channels are written; with it B = C, and A `groups` are written.
        kernel_map: Which rows meet under which offset: `.forward` and `.backward` (four integer tensors each),
            `.mirrored` and `.volume`, which is K.
        bias: :math:`b`, one number for each channel that is written.
        flip: Whether offset k takes the matrix of offset K - 1 - k.
        transposed: Whether each matrix is transposed.
        groups: Into how many slices the channels are cut; a slice that is written reads its own slice alone.

    Returns:
        Features of the rows that are written, in their public order, shape (rows written, channels), dtype of `x`.
        A row without a pair is the bias alone. Sums are taken in float32 (float64 for float64) and rounded once.
        Under `torch.autocast` the features are cast, the weights are not. On a GPU float32 is multiplied in tf32 where
        `torch.backends.cuda.matmul.fp32_precision` says so, and float32 weights of half features are rounded to halves.

    Differentiable any number of times with respect to `x`, `weight` and `bias`: a convolution is bilinear, and the
    operators convolve, its input gradient (convolve, over the other list) and `weight_gradient` close under
    differentiation. Deterministic: a written row has one owner, who adds in ascending k, so that the bits do not
    depend on the number of threads, on a CPU and on a GPU.

    Raises:
        TypeError: `x` of another dtype, or a `weight` or `bias` that does not go with it.
        ValueError: channels, groups, volume, rows or devices do not match.

    References:
        | B. Graham, L. van der Maaten, arXiv:1706.01307 (submanifold convolutions)
        | C. Choy, J. Gwak, S. Savarese, arXiv:1904.08755 (generalised sparse convolutions)

    Example:
        Two voxels, of which the second reads the first under offset 0 and each reads itself under offset 1:

        >>> from collections import namedtuple
        >>> pairs = torch.tensor([[0, 1], [0, 0], [1, 1]])
        >>> entries, tiles = torch.tensor([[0, 0], [1, 1], [3, -1]]), torch.tensor([0, 2])
        >>> lists = pairs, entries, tiles, torch.arange(2)
        >>> kernel_map = namedtuple("Map", "forward backward mirrored volume")(lists, lists, False, 2)
        >>> convolve(torch.tensor([[1.0], [2.0]]), torch.tensor([[[10.0]], [[1.0]]]), kernel_map)
        tensor([[ 1.],
                [12.]])
    """
    check_map("convolve", kernel_map, weight.shape[0], x)
    x = autocast(x)
    forward, backward = lists_of(kernel_map, x)
    return call(
        torch.ops.hepops.sparse_convolve.default,
        x, weight, bias, *forward, *backward, flip, kernel_map.mirrored, transposed, groups,
        tf32_allowed(x),
    )  # fmt: skip


@register_fake("hepops::sparse_convolve")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    schedule, transposed, groups = rest[3], rest[10], rest[11]
    return x.new_empty((schedule.shape[0], weight.shape[1] * groups if transposed else weight.shape[2]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *rest = inputs
    ctx.save_for_backward(x, weight, *rest[:8])
    ctx.bias_dtype = bias.dtype if bias is not None else None
    ctx.flags = rest[8:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *lists = ctx.saved_tensors
    flip, mirrored, transposed, groups, tf32 = ctx.flags
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:  # gx[i] = sum over (i, o, k) of gy[o] M_k^T: the same sum over the other list
        grad_x = torch.ops.hepops.sparse_convolve.default(
            grad, weight, None, *lists[4:], *lists[:4], flip ^ mirrored, mirrored, not transposed, groups, tf32
        )
    if ctx.needs_input_grad[1]:
        grad_weight = torch.ops.hepops.sparse_weight_gradient.default(
            x, grad, *lists, weight.shape[0], flip, mirrored, transposed, groups, tf32
        ).to(weight.dtype)
    if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
        grad_bias = column_sum(grad).to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, *(None for _ in range(13))


register_autograd("hepops::sparse_convolve", _backward, setup_context=_setup)


@register_fake("hepops::_sparse_convolve_fused")
def _(x: Tensor, weight: Tensor, pairs: Tensor, entries: Tensor, tiles: Tensor, schedule: Tensor, *rest: Any) -> Any:
    transposed, groups, outputs, moments = rest[1], rest[2], rest[8], rest[9]
    channels = weight.shape[1] * groups if transposed else weight.shape[2]
    shape = (schedule.shape[0], channels)
    return (
        x.new_empty(shape if outputs & 1 else (0,)),
        x.new_empty(shape if outputs & 2 else (0,)),
        x.new_empty((tiles.shape[0], 2, channels) if moments else (0,), dtype=torch.float64),
    )
