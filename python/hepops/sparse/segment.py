"""Sums, means and maxima over the rows of a segment, such as one entry of a batch, and back to its rows."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call

MODES = ("sum", "mean", "max")


def segment_reduce(features: Tensor, order: Tensor, starts: Tensor, mode: str = "sum") -> Tensor:
    r"""The sum, mean or maximum of the rows of each segment.

    .. math:: y_s = \sum_{j = a_s}^{a_{s+1} - 1} x_{r_j}

    and that divided by the number of rows (mean), or the maximum in its place.

    Args:
        features: :math:`x`, shape (N, C), float16, bfloat16, float32 or float64.
        order: :math:`r`, the rows, those of one segment side by side; each row once. Shape (N), int32 or int64.
        starts: :math:`a`, where each segment begins in `order`, and N behind: shape (B + 1), int32 or int64.
        mode: "sum", "mean" or "max". Of equal maxima the first in `order` is taken; a NaN is more than any number.

    Returns:
        :math:`y`, shape (B, C), dtype of `features`. Segments without rows are 0.

    Differentiable any number of times with respect to `features`; a maximum has the gradient of the row that it took.
    Sums are taken in double, blocks of 256 rows first, then the blocks in order, and rounded once: the same bits from
    run to run and for any number of threads, on a CPU and on a GPU. The numbers in `order` and `starts` are checked on
    a CPU; data on a GPU are not read back.

    Raises:
        TypeError: `features` has another dtype, or `order` or `starts` is not of integers.
        ValueError: shapes, devices or lengths do not match, `starts` does not ascend from 0 to N, `order` is out of
            range, or an unknown `mode`.

    References:
        | G. E. Blelloch, Vector Models for Data-Parallel Computing, MIT Press (1990), chapter 4 (segmented sums)

    Example:
        >>> rows = torch.tensor([[1.0], [2.0], [5.0]])
        >>> segment_reduce(rows, torch.tensor([2, 0, 1]), torch.tensor([0, 1, 1, 3]), mode="mean")
        tensor([[5.0000],
                [0.0000],
                [1.5000]])
    """
    if mode not in MODES:
        raise ValueError(f"segment_reduce: mode must be one of {MODES}, got {mode!r}")
    return call(torch.ops.hepops.sparse_segment_reduce, features, order, _long(starts), MODES.index(mode))[0]


def segment_broadcast(values: Tensor, order: Tensor, starts: Tensor, mean: bool = False) -> Tensor:
    r"""The value of each segment to all of its rows.

    .. math:: x_{r_j} = y_s \quad \text{for } a_s \le j < a_{s+1}

    With `mean` a row gets :math:`y_s / n_s`, of the :math:`n_s` rows of its segment. These two are the adjoints of the
    sum and the mean of :func:`segment_reduce`.

    Args:
        values: :math:`y`, shape (B, C), float16, bfloat16, float32 or float64.
        order: :math:`r`, the rows, those of one segment side by side; each row once. Shape (N), int32 or int64.
        starts: :math:`a`, where each segment begins in `order`, and N behind: shape (B + 1), int32 or int64.
        mean: Divide by the number of rows.

    Returns:
        :math:`x`, shape (N, C), dtype of `values`.

    Differentiable any number of times with respect to `values`: the gradient is the sum, in the fixed order of
    :func:`segment_reduce`. The same bits from run to run and for any number of threads, on a CPU and on a GPU.

    Raises:
        TypeError: `values` has another dtype, or `order` or `starts` is not of integers.
        ValueError: shapes, devices or lengths do not match, `starts` does not ascend from 0 to N, or `order` is out of
            range.

    References:
        | G. E. Blelloch, Vector Models for Data-Parallel Computing, MIT Press (1990), chapter 4

    Example:
        >>> segment_broadcast(torch.tensor([[7.0], [8.0]]), torch.tensor([2, 0, 1]), torch.tensor([0, 1, 3]))
        tensor([[8.],
                [8.],
                [7.]])
    """
    return call(torch.ops.hepops.sparse_segment_broadcast, values, order, _long(starts), mean)


def _long(starts: Tensor) -> Tensor:
    return starts.long() if starts.dtype == torch.int32 else starts


@register_fake("hepops::sparse_segment_reduce")
def _(x: Tensor, order: Tensor, starts: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    shape = (starts.shape[0] - 1, x.shape[1])
    return x.new_empty(shape), order.new_empty(shape if MODES[mode] == "max" else (0,))


@register_fake("hepops::sparse_segment_broadcast")
@register_fake("hepops::_sparse_segment_max_scatter")
def _(v: Tensor, *rest: Any) -> Tensor:
    order = rest[-3] if isinstance(rest[-1], bool) else rest[-2]
    return v.new_empty((order.shape[0], v.shape[1]))


@register_fake("hepops::_sparse_segment_max_gather")
def _(x: Tensor, argmax: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    return x.new_empty(argmax.shape)


def _setup_reduce(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, order, starts, ctx.mode = inputs
    ctx.save_for_backward(output[1], order, starts)


def _backward_reduce(ctx: Any, grad: Tensor, _argmax: Any) -> tuple[Tensor | None, ...]:
    argmax, order, starts = ctx.saved_tensors
    if MODES[ctx.mode] == "max":
        return torch.ops.hepops._sparse_segment_max_scatter(grad, argmax, order, starts), None, None, None
    mean = MODES[ctx.mode] == "mean"
    return torch.ops.hepops.sparse_segment_broadcast(grad, order, starts, mean), None, None, None


def _setup_broadcast(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, order, starts, ctx.mean = inputs
    ctx.save_for_backward(order, starts)


def _backward_broadcast(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    mode = MODES.index("mean" if ctx.mean else "sum")
    return torch.ops.hepops.sparse_segment_reduce(grad, *ctx.saved_tensors, mode)[0], None, None, None


# A maximum's gradient and its own are each other's adjoint: argmax names the row that every number came from.
def _setup_adjoint(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward_of_scatter(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.hepops._sparse_segment_max_gather(grad, *ctx.saved_tensors), None, None, None


def _backward_of_gather(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.hepops._sparse_segment_max_scatter(grad, *ctx.saved_tensors), None, None, None


register_autograd("hepops::sparse_segment_reduce", _backward_reduce, setup_context=_setup_reduce)
register_autograd("hepops::sparse_segment_broadcast", _backward_broadcast, setup_context=_setup_broadcast)
register_autograd("hepops::_sparse_segment_max_scatter", _backward_of_scatter, setup_context=_setup_adjoint)
register_autograd("hepops::_sparse_segment_max_gather", _backward_of_gather, setup_context=_setup_adjoint)
