"""Columns normalised over the rows, with the activation and the residual behind: batch norm and its kin."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call

from ._formula import differentiate


class Moments(NamedTuple):
    """Mean and biased variance of every column, float64, shape (C) each."""

    mean: Tensor
    variance: Tensor


def moments(features: Tensor) -> Moments:
    r"""Mean and variance of every column over the rows.

    .. math:: m_c = \frac{1}{N} \sum_i x_{ic}, \qquad v_c = \frac{1}{N} \sum_i (x_{ic} - m_c)^2

    Args:
        features: :math:`x`, shape (N, C), float16, bfloat16, float32 or float64.

    Returns:
        Moments(mean, variance), float64, shape (C) each: 0 where there are no rows.

    Differentiable any number of times. Both are taken in double over tiles of rows (256 on a CPU, 64 on a GPU), about a
    pivot inside the tile, and the tiles are combined in one order: a mean far beyond the spread costs no digits, and
    the bits are the same from run to run and for any number of threads. Tiles that a convolution has summed along its
    way are combined by the same rule.

    Raises:
        TypeError: `features` has another dtype.
        ValueError: `features` is not (N, C).

    References:
        | T. F. Chan, G. H. Golub, R. J. LeVeque, Am. Stat. 37 (1983) 242, doi:10.1080/00031305.1983.10483115

    Example:
        >>> moments(torch.tensor([[1.0], [2.0], [6.0]])).variance
        tensor([4.6667], dtype=torch.float64)
    """
    return Moments(*call(torch.ops.hepops.sparse_moments, features))


def combine_moments(tiles: Tensor, features: Tensor) -> Moments:
    """The moments of `features` from mean and M2 of each of their tiles of rows, (T, 2, C) float64, or a row more."""
    return Moments(*call(torch.ops.hepops._sparse_combine_moments, tiles, features))


def norm_act(
    features: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    slope: float = 1.0,
    through: bool = False,
) -> Tensor:
    r"""Normalise every column, rectify, and add: batch norm, leaky ReLU and residual in one pass.

    .. math::
        z &= \frac{x - m}{\sqrt{v + \epsilon}}\, w + b \\
        y &= (z \text{ where } z > 0 \text{, else } s z) + r

    Without `mean` and `variance` they are taken from `features` (training); with them they are constants (evaluation).

    Args:
        features: :math:`x`, shape (N, C), float16, bfloat16, float32 or float64. The halves are computed in float32.
        weight: :math:`w`, shape (C), any of these dtypes; 1 without.
        bias: :math:`b`, likewise; 0 without.
        mean: :math:`m`, likewise; with `variance` or not at all.
        variance: :math:`v`, likewise.
        residual: :math:`r`, shape and dtype of `features`.
        eps: :math:`\epsilon`, not negative.
        slope: :math:`s`: 1 leaves z as it is, 0 is ReLU.
        through: `mean` and `variance` are those of `features` (from :func:`moments`, or summed by the convolution that
            made these): the gradient of `features` goes through them, and they get none of their own.

    Returns:
        :math:`y`, shape (N, C), dtype of `features`.

    Differentiable with respect to `features`, `weight`, `bias`, `residual`, and to `mean` and `variance` where these
    are constants: once by two passes of our own over the rows, any further time by a composite formula in float64. At
    z = 0 the slope is s. The sums of the backward are taken in double over tiles of rows and combined in one order: the
    same bits from run to run and for any number of threads, on a CPU and on a GPU (the composite formula promises less:
    its sums are torch's). One row has variance 0, and y is that of z = b; no rows are no error.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: shapes or devices do not match, a negative `eps`, `mean` without `variance` or the other way round,
            or `through` without them.

    References:
        | S. Ioffe, C. Szegedy, ICML 2015, arXiv:1502.03167
        | A. L. Maas, A. Y. Hannun, A. Y. Ng, ICML 2013 (leaky rectifier)

    Example:
        >>> norm_act(torch.tensor([[1.0], [2.0], [6.0]]), slope=0.5, eps=0.0)
        tensor([[-0.4629],
                [-0.2315],
                [ 1.3887]])
    """
    if (mean is None) != (variance is None):
        raise ValueError("norm_act: mean and variance must both be given, or neither")
    if mean is None or variance is None:
        if through:
            raise ValueError("norm_act: through means that mean and variance are given")
        with torch.no_grad():
            mean, variance = moments(features)
        through = True
    return call(torch.ops.hepops.sparse_norm_act, features, mean, variance, weight, bias, residual, eps, slope, through)


@register_fake("hepops::sparse_moments")
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@register_fake("hepops::_sparse_combine_moments")
def _(tiles: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return tiles.new_empty(like.shape[1]), tiles.new_empty(like.shape[1])


@register_fake("hepops::sparse_norm_act")
def _(x: Tensor, *_rest: Any) -> Tensor:
    return x.new_empty(x.shape)


@register_fake("hepops::_sparse_norm_act_backward")
def _(grad: Tensor, x: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((2, x.shape[1]), dtype=torch.float64)


@register_fake("hepops::_sparse_norm_act_sums")
def _(grad: Tensor, x: Tensor, *_rest: Any) -> Tensor:
    return x.new_empty((2, x.shape[1]), dtype=torch.float64)


@register_fake("hepops::_sparse_norm_act_gradient")
def _(grad: Tensor, x: Tensor, *_rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _setup_moments(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _backward_moments(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    rows = max(x.shape[0], 1)
    return ((grad_mean + 2 * grad_variance * (x - mean)) / rows).to(x.dtype)


register_autograd("hepops::sparse_moments", _backward_moments, setup_context=_setup_moments)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *columns, _residual, ctx.eps, ctx.slope, ctx.through = inputs
    ctx.save_for_backward(*columns)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, mean, variance, weight, bias = ctx.saved_tensors
    columns = (x, mean, variance, weight, bias)
    wanted = ctx.needs_input_grad
    if ctx.through or any(wanted[1:5]):
        grad_x, sums = torch.ops.hepops._sparse_norm_act_backward(grad, *columns, ctx.eps, ctx.slope, ctx.through)
    else:
        return (
            torch.ops.hepops._sparse_norm_act_gradient(grad, *columns, None, None, ctx.eps, ctx.slope),
            *(None,) * 4,
            grad if wanted[5] else None,
            *(None,) * 3,
        )
    grad_weight = sums[1].to(weight.dtype) if wanted[3] else None
    grad_bias = sums[0].to(bias.dtype) if wanted[4] else None
    grad_mean = grad_variance = None
    if not ctx.through and (wanted[1] or wanted[2]):
        invstd = (variance.double() + ctx.eps).rsqrt()
        scale = invstd if weight is None else invstd * weight
        grad_mean = (-scale * sums[0]).to(mean.dtype)
        grad_variance = (-0.5 * scale * invstd * sums[1]).to(variance.dtype)
    return grad_x, grad_mean, grad_variance, grad_weight, grad_bias, grad if wanted[5] else None, None, None, None


register_autograd("hepops::sparse_norm_act", _backward, setup_context=_setup)


def _formula(tensors: list[Any], eps: float, slope: float, through: bool) -> tuple[Tensor, Tensor]:
    """What _sparse_norm_act_backward computes, in torch's operators and float64."""
    grad, x, mean, variance, weight, bias = tensors
    rows = max(x.shape[0], 1)
    x, g = x.double(), grad.double()
    if through:
        mean = x.sum(0) / rows
        variance = ((x - mean) ** 2).sum(0) / rows
    invstd = (variance.double() + eps).rsqrt()
    scale = invstd if weight is None else invstd * weight
    xhat = (x - mean) * invstd
    z = xhat if weight is None else xhat * weight
    z = z if bias is None else z + bias
    g = torch.where(z > 0, g, slope * g)
    sums = torch.stack([g.sum(0), (g * xhat).sum(0)])
    if through:
        g = g - sums[0] / rows - xhat * (sums[1] / rows)
    return (scale * g).to(grad.dtype), sums


def _again(ctx: Any, v_grad_x: Tensor, v_sums: Tensor | None, through: bool) -> tuple[Tensor | None, ...]:
    return differentiate(
        lambda tensors: _formula(tensors, ctx.eps, ctx.slope, through),
        ctx.saved_tensors,
        ctx.needs_input_grad,
        (v_grad_x, v_sums),
    )


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.eps, ctx.slope, ctx.through = inputs
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx: Any, v_grad_x: Tensor, v_sums: Tensor) -> tuple[Tensor | None, ...]:
    return *_again(ctx, v_grad_x, v_sums, ctx.through), None, None, None


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, sums, _count, ctx.eps, ctx.slope = inputs
    if sums is not None:
        raise RuntimeError("norm_act: sums over several processes can be differentiated once")
    ctx.save_for_backward(*tensors)


def _backward_gradient(ctx: Any, v_grad_x: Tensor) -> tuple[Tensor | None, ...]:
    return *_again(ctx, v_grad_x, None, False), None, None, None, None


register_autograd("hepops::_sparse_norm_act_backward", _backward_backward, setup_context=_setup_backward)
register_autograd("hepops::_sparse_norm_act_gradient", _backward_gradient, setup_context=_setup_gradient)
