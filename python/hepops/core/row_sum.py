"""Sums over rows, in double."""

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake, register_vmap

from hepops.core.func import function_of, transforms_active
from hepops.core.ops import call


@overload
def row_sum(x: Tensor, accurate: Literal[False] = False) -> Tensor: ...
@overload
def row_sum(x: Tensor, accurate: Literal[True]) -> tuple[Tensor, Tensor]: ...
def row_sum(x: Tensor, accurate: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    r"""The sum over the last dimension, in double and in one order: of log-determinants, log-weights, actions.

    .. math:: s_n = \sum_m x_{nm}

    Args:
        x: Shape (..., M), of any strides, float16, bfloat16, float32 or float64.
        accurate: Whether to sum in double-double, about 32 digits, as (high, low): high is the rounded sum, low what it
            leaves out.

    Returns:
        float64, shape (...); two of them where `accurate`. The sum of no number is 0.

    Differentiable any number of times (where `accurate`, the gradient is that of `high`). The order of a sum follows
    from M alone: the bits do not depend on the number of threads or rows, on a CPU and on a GPU. Rows of 32 numbers and
    more are summed in 16 interleaved parts on a CPU and 32 on a GPU, shorter ones from the first number to the last.

    Raises:
        TypeError: `x` of another dtype.
        ValueError: `x` has no dimension.

    References:
        | M. Joldes, J.-M. Muller, V. Popescu, ACM Trans. Math. Softw. 44 (2017) 15, algorithms 4 and 6

    Example:
        >>> row_sum(torch.tensor([[1.0, 2.0], [1e8, 1.0]]))
        tensor([3.0000e+00, 1.0000e+08], dtype=torch.float64)
    """
    name = "_row_sum_accurate" if accurate else "row_sum"
    if transforms_active():
        return _FUNCTIONS[name].apply(x)
    return call(getattr(torch.ops.hepops, name).default, x)


def _sums(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.float64)


@register_fake("hepops::row_sum")
def _(x: Tensor) -> Tensor:
    return _sums(x)


@register_fake("hepops::_row_sum_accurate")
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _sums(x), _sums(x)


def _setup(ctx: Any, inputs: tuple[Tensor], output: Any) -> None:
    ctx.shape, ctx.dtype, ctx.plain = inputs[0].shape, inputs[0].dtype, isinstance(output, Tensor)


# every number of a row has the slope 1
def _backward(ctx: Any, grad: Tensor, *grad_low: Tensor) -> Tensor:
    return grad.to(ctx.dtype)[..., None].expand(ctx.shape)


def _batched(op: Any) -> Any:
    def rule(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Any, Any]:
        sums = op(x.movedim(in_dims[0], 0))
        return sums, tuple(0 for _ in sums) if isinstance(sums, tuple) else 0

    return rule


def _jvp(ctx: Any, v: Tensor) -> Any:
    s = v.double().sum(-1)
    return s if ctx.plain else (s, torch.zeros_like(s))


_FUNCTIONS = {}
for _name in ("row_sum", "_row_sum_accurate"):
    _op = getattr(torch.ops.hepops, _name).default
    register_autograd(f"hepops::{_name}", _backward, setup_context=_setup)
    register_vmap(f"hepops::{_name}", _batched(_op))
    _FUNCTIONS[_name] = function_of(_op, _setup, _backward, _batched(_op), _jvp)
