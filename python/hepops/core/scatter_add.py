"""Rows of numbers added where an index sends them."""

from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call

MODES = ("deterministic", "atomic")


def scatter_add(index: Tensor, values: Tensor, rows: int, mode: str = "deterministic") -> Tensor:
    r"""Add rows of values where an index sends them.

    .. math:: y_r = \sum_{i:\, n_i = r} v_i

    Args:
        index: :math:`n`, the row of each entry, shape (N), int64, in [0, `rows`).
        values: :math:`v`, shape (N, ...), float16, bfloat16, float32 or float64; "atomic" takes the last two.
        rows: Number of rows of the result.
        mode: "deterministic" sums in float64, and rounds once. "atomic" sums in the dtype of `values`; on a GPU it is
            the faster one.

    Returns:
        The sums :math:`y`, shape (`rows`, ...), dtype of `values`. Rows without an entry are 0.

    Differentiable any number of times, with respect to `values`: the gradient of a sum is a gather. "deterministic"
    gives the same bits from run to run and for any number of threads, on a CPU and on a GPU (these two differ from one
    another by the order of a sum in float64). "atomic" does so on a CPU; on a GPU its sums depend on the order in which
    the additions arrive, and differ from run to run in the last bits. An index on a GPU is not read back: one that is
    out of range stops the kernel there, which torch reports as a CUDA error.

    Raises:
        TypeError: `index` is not int64, or `values` of another dtype.
        ValueError: the lengths or devices of `index` and `values` differ, an unknown `mode`, a negative `rows`, or (on
            the CPU) an index out of range.

    References:
        | G. E. Blelloch, Vector Models for Data-Parallel Computing, MIT Press (1990), chapter 4 (segmented sums)

    Example:
        >>> scatter_add(torch.tensor([2, 0, 2]), torch.tensor([1.0, 2.0, 4.0]), rows=4)
        tensor([2., 0., 5., 0.])
    """
    if mode not in MODES:
        raise ValueError(f"scatter_add: mode must be one of {MODES}, got {mode!r}")
    return call(torch.ops.hepops.scatter_add, index, values, rows, mode == "deterministic")


@register_fake("hepops::scatter_add")
def _(index: Tensor, values: Tensor, rows: int, deterministic: bool) -> Tensor:
    return values.new_empty((rows, *values.shape[1:]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    return None, grad.index_select(0, index), None, None


register_autograd("hepops::scatter_add", _backward, setup_context=_setup)
