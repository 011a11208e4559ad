"""Pooling over a kernel map."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call

MODES = ("sum", "avg", "spread", "max")


def pool(
    features: Tensor, forward: Sequence[Tensor], backward: Sequence[Tensor] | None = None, mode: str = "max"
) -> Tensor:
    r"""Sums, averages or maxima of the rows that meet under a kernel map.

    With the triples (i, o, k) of the map, row i being read and row o written:

    .. math::
        y_o &= \sum_k x_i & \text{sum} \\
        y_o &= \frac{1}{n_o} \sum_k x_i & \text{avg} \\
        y_o &= \sum_k \frac{x_i}{n_i} & \text{spread} \\
        y_o &= \max_k x_i & \text{max}

    where :math:`n_o` is the number of rows that o meets, and :math:`n_i` the number that i meets. "spread" is the
    adjoint of "avg". Rows that meet nothing are 0. With the two lists swapped it is the pooling of the transposed map;
    MinkowskiPoolingTranspose is "avg" of that.

    Args:
        features: :math:`x`, shape (N, C), float16, bfloat16, float32 or float64.
        forward: The list of the map that is grouped by the rows that are written: pairs, entries, tiles, schedule.
        backward: The list that is grouped by the rows that are read. Without it there is no gradient, and no "spread".
        mode: "sum", "avg", "spread" or "max". Of equal maxima the one of the lowest offset k is taken; a NaN is more
            than any number.

    Returns:
        :math:`y`, shape (M, C), dtype of `features`, in the order of the rows that are written.

    Differentiable any number of times with respect to `features`: sums are linear, and a maximum has the gradient of
    the row that it took. Sums run over ascending k, in double, and are rounded once; there are no atomics: the same
    bits from run to run and for any number of threads, on a CPU and on a GPU.

    Raises:
        TypeError: `features` has another dtype, or the lists are not all int32 or all int64.
        ValueError: shapes, devices or lengths do not match, an unknown `mode`, or a missing `backward`.

    References:
        | C. Choy, J. Gwak, S. Savarese, CVPR 2019, arXiv:1904.08755 (average over active neighbours)

    Example:
        Three rows; the first two meet in row 0 under the offsets 0 and 1, the third is alone in row 1.

        >>> rows = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, 2.0]])
        >>> ints = lambda *x: torch.tensor(x, dtype=torch.int32)
        >>> to_coarse = ints([0, 0], [2, 1], [1, 0]), ints([0, 0], [2, 1], [3, -1]), ints(0, 2), ints(0, 1)
        >>> pool(rows, to_coarse, mode="max")
        tensor([[3., 5.],
                [2., 2.]])
        >>> pool(rows, to_coarse, mode="avg")
        tensor([[2.0000, 4.5000],
                [2.0000, 2.0000]])
    """
    if mode not in MODES:
        raise ValueError(f"pool: mode must be one of {MODES}, got {mode!r}")
    for name, pairs in (("forward", forward), ("backward", backward)):
        if pairs is not None and len(pairs) != 4:
            raise ValueError(f"pool: {name} must be (pairs, entries, tiles, schedule), got {len(pairs)} tensors")
    if backward is None and features.requires_grad and torch.is_grad_enabled():
        raise ValueError("pool: features require a gradient, which needs the backward list of the kernel map")
    back: Sequence[Tensor | None] = (None,) * 4 if backward is None else backward
    y, _ = call(torch.ops.hepops.sparse_pool, features, *forward, *back, MODES.index(mode))
    return y


@register_fake("hepops::sparse_pool")
def _(x: Tensor, pairs: Tensor, entries: Tensor, tiles: Tensor, schedule: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (schedule.shape[0], x.shape[1])
    return x.new_empty(shape), pairs.new_empty(shape if rest[-1] == MODES.index("max") else (0,))


@register_fake("hepops::_sparse_pool_max_scatter")
def _(grad: Tensor, argmax: Tensor, pairs: Tensor, entries: Tensor, tiles: Tensor, schedule: Tensor) -> Tensor:
    return grad.new_empty((schedule.shape[0], grad.shape[1]))


@register_fake("hepops::_sparse_pool_max_gather")
def _(x: Tensor, argmax: Tensor, *_list: Tensor) -> Tensor:
    return x.new_empty(argmax.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *lists, ctx.mode = inputs[1:]
    ctx.save_for_backward(output[1], *lists)


def _backward(ctx: Any, grad: Tensor, _argmax: Any) -> tuple[Tensor | None, ...]:
    argmax, *lists = ctx.saved_tensors
    forward, back = lists[:4], lists[4:]
    if back[0] is None:
        raise RuntimeError("pool: a gradient needs the backward list of the kernel map")
    mode = MODES[ctx.mode]
    if mode == "max":
        return torch.ops.hepops._sparse_pool_max_scatter(grad, argmax, *back), *(None,) * 9
    adjoint = {"sum": "sum", "avg": "spread", "spread": "avg"}[mode]
    return torch.ops.hepops.sparse_pool(grad, *back, *forward, MODES.index(adjoint))[0], *(None,) * 9


register_autograd("hepops::sparse_pool", _backward, setup_context=_setup)


# A maximum's gradient and its own are each other's adjoint: argmax names the row that every pooled number came from.
def _setup_adjoint(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward_of_scatter(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.hepops._sparse_pool_max_gather(grad, *ctx.saved_tensors), *(None,) * 5


def _backward_of_gather(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.hepops._sparse_pool_max_scatter(grad, *ctx.saved_tensors), *(None,) * 5


register_autograd("hepops::_sparse_pool_max_scatter", _backward_of_scatter, setup_context=_setup_adjoint)
register_autograd("hepops::_sparse_pool_max_gather", _backward_of_gather, setup_context=_setup_adjoint)
