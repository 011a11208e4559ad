"""Norm, activation, convolution and residual as one node, in training and in inference.

    y = conv(act(norm(x))) + r

In training the node keeps x and the columns' mean and variance, and computes act(norm(x)) again on the way back; the
moments of y, which the next norm wants, are summed while a tile of y is at hand. In inference the norm that follows is
known constants, so the convolution's last step applies it: then(y) is written beside y, or in its place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepops.core.ops import call

from .kernel_map import KernelMap
from .lists import autocast, tf32_allowed
from .norm import norm_act
from .normalise import batch_moments, check_residual
from .tensor import SparseTensor
from .weight_gradient import column_sum

_ops = torch.ops.hepops


class Then(NamedTuple):
    """What follows an output: a batch norm and the slope of its activation."""

    bn: torch.nn.BatchNorm1d
    slope: float


class _NormActConvolve(torch.autograd.Function):
    """Keeps x, and what is of the size of a column or of the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        flags: tuple[float, float, bool, bool, bool, int, bool, bool],
        *lists: Tensor,
    ) -> tuple[Tensor, Tensor]:
        eps, slope, _, flip, _, groups, wants_moments, tf32 = flags
        a = _ops.sparse_norm_act(x, mean, variance, gamma, beta, None, eps, slope, False)
        y, _, tiles = _ops._sparse_convolve_fused(
            a, weight, *lists[:4], flip, False, groups, bias, residual, None, None, 1.0, 1, wants_moments, tf32
        )
        ctx.save_for_backward(x, gamma, beta, mean, variance, weight, bias, *lists)
        ctx.flags, ctx.has_residual = flags, residual is not None
        ctx.mark_non_differentiable(tiles)
        return y, tiles

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        x, gamma, beta, mean, variance, weight, bias, *lists = ctx.saved_tensors
        lists = _both(lists)
        eps, slope, through, flip, mirrored, groups, _, tf32 = ctx.flags
        needs = ctx.needs_input_grad
        grad_residual = grad if ctx.has_residual else None
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a derivative of this one is asked for
            return *_again(ctx, grad), grad_residual, *(None,) * 9
        grad = grad.contiguous()
        columns = (mean, variance, gamma, beta)
        grad_weight = grad_bias = grad_x = grad_gamma = grad_beta = None
        if needs[5]:
            a = _ops.sparse_norm_act(x, *columns, None, eps, slope, False)
            grad_weight = _ops.sparse_weight_gradient(
                a, grad, *lists, weight.shape[0], flip, mirrored, False, groups, tf32
            ).to(weight.dtype)
            del a
        if bias is not None and needs[6]:
            grad_bias = column_sum(grad).to(bias.dtype)
        if any(needs[:3]):
            grad_a = _ops.sparse_convolve(
                grad, weight, None, *lists[4:], *lists[:4], flip ^ mirrored, mirrored, True, groups, tf32
            )
            grad_x, sums = _ops._sparse_norm_act_backward(grad_a, x, *columns, eps, slope, through)
            grad_gamma = sums[1].to(gamma.dtype) if gamma is not None else None
            grad_beta = sums[0].to(beta.dtype) if beta is not None else None
        return grad_x, grad_gamma, grad_beta, None, None, grad_weight, grad_bias, grad_residual, *(None,) * 9


def _both(lists: list[Tensor]) -> list[Tensor]:
    """The forward and the backward list, which are one where only one was kept."""
    return lists if len(lists) == 8 else lists + lists


def _again(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as a graph of differentiable operators: the same node in its two steps."""
    x, gamma, beta, mean, variance, weight, bias, *lists = ctx.saved_tensors
    lists = _both(lists)
    eps, slope, through, flip, mirrored, groups, _, tf32 = ctx.flags
    wanted = [i for i in (0, 1, 2, 5, 6) if ctx.needs_input_grad[i]]
    given = {0: x, 1: gamma, 2: beta, 5: weight, 6: bias}
    with torch.enable_grad():
        leaf: dict[int, Any] = {i: t.view_as(t) if t is not None else None for i, t in given.items()}
        a = norm_act(leaf[0], leaf[1], leaf[2], mean=mean, variance=variance, eps=eps, slope=slope, through=through)
        y = _ops.sparse_convolve(a, leaf[5], leaf[6], *lists, flip, mirrored, False, groups, tf32)
        slopes = torch.autograd.grad(y, [leaf[i] for i in wanted], grad, create_graph=True, allow_unused=True)
    found = dict(zip(wanted, slopes, strict=True))
    return tuple(found.get(i) for i in range(7))


def norm_act_convolve(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    weight: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-5,
    slope: float = 1.0,
    through: bool = True,
    groups: int = 1,
    moments: bool = True,
) -> tuple[Tensor, Tensor | None]:
    r"""conv(act(norm(x))) + residual as one node, and the moments of the result's tiles.

    .. math:: y = b + r + \sum_k a_{u + \delta_k} W_k, \qquad
              a = \mathrm{act}\Bigl(\frac{x - m}{\sqrt{v + \epsilon}} \gamma + \beta\Bigr)

    Args:
        x: (rows read, C). mean, variance: float64 (C), from `moments`. gamma, beta: (C) or None.
        weight, kernel_map, bias, groups: as `convolve`. residual: (rows written, channels), in the dtype of x.
        eps, slope, through: as `norm_act`; `through` says that mean and variance are those of x, and that the gradient
            goes through them.
        moments: whether to sum the moments of y; the second result is None without.

    Differentiable any number of times in x, gamma, beta, weight, bias and residual; the second derivative is by a
    composite formula, in eager mode only. Saves x, not act(norm(x)). Deterministic.
    """
    forward = kernel_map.forward
    needs_back = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, gamma, beta))
    # torch.compile wants no tensor twice: a mirrored list is given once
    back = kernel_map.backward if needs_back and not kernel_map.mirrored else ()
    if residual is x:
        residual = x.clone()
    flags = (eps, slope, through, kernel_map.flip, kernel_map.mirrored, groups, moments, tf32_allowed(x))
    y, tiles = _NormActConvolve.apply(x, gamma, beta, mean, variance, weight, bias, residual, flags, *forward, *back)
    return y, tiles if moments else None


def unit(
    input: SparseTensor, bn: torch.nn.BatchNorm1d, slope: float, layer: Any, residual: SparseTensor | None = None
) -> SparseTensor:
    """`layer`(act(`bn`(input))) + residual in training, `layer` being a convolution of `hepops.sparse.nn`."""
    key, kernel_map = layer.route(input)
    (mean, variance), through = batch_moments(input, bn)
    x = autocast(input.features)
    weight = layer.kernel if layer.kernel.dim() == 3 else layer.kernel[None]
    r = None
    if residual is not None:
        check_residual(residual, input.coordinate_manager, key)
        r = residual.features.to(x.dtype)
    bias = None if layer.bias is None else layer.bias.reshape(-1)
    y, tiles = norm_act_convolve(
        x, mean, variance, bn.weight, bn.bias, weight, kernel_map, bias, r,
        eps=bn.eps, slope=slope, through=through, groups=layer.groups, moments=bn.training,
    )  # fmt: skip
    made = input.replace(y, key)
    made.moments = tiles
    return made


def infer(
    activated: SparseTensor,
    layer: Any,
    residual: SparseTensor | None = None,
    then: Then | None = None,
    keep: bool = True,
) -> tuple[SparseTensor | None, SparseTensor | None]:
    """`layer` of features that are normalised and activated already; what follows is applied as the tile is written.

    Returns:
        The plain result (None unless `keep`), and act(norm(.)) of it (None without `then`). No gradient.
    """
    key, kernel_map = layer.route(activated)
    if residual is not None:
        check_residual(residual, activated.coordinate_manager, key)
    x = autocast(activated.features)
    weight = layer.kernel if layer.kernel.dim() == 3 else layer.kernel[None]
    bias = None if layer.bias is None else layer.bias.reshape(-1)
    scale = shift = None
    slope = 1.0
    if then is not None:
        scale, shift = folded(then.bn)
        slope = then.slope
    raw, after, _ = call(
        _ops._sparse_convolve_fused, x, weight, *kernel_map.forward, kernel_map.flip, False, layer.groups, bias,
        None if residual is None else residual.features.to(x.dtype), scale, shift, slope,
        (1 if keep else 0) | (2 if then is not None else 0), False, tf32_allowed(x),
    )  # fmt: skip
    return (
        activated.replace(raw, key) if keep else None,
        activated.replace(after, key) if then is not None else None,
    )


def folded(bn: torch.nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm that goes by its running statistics, in float32 or float64."""
    assert bn.running_mean is not None and bn.running_var is not None
    kind = torch.promote_types(bn.running_mean.dtype, torch.float32)
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight
    shift = -scale * bn.running_mean
    if bn.bias is not None:
        shift = shift + bn.bias
    return scale.to(kind), shift.to(kind)
