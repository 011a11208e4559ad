"""Convolutions on a periodic lattice of 1 to 4 dimensions."""

import itertools
from typing import Any, Literal

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake
from torch.nn import functional as F

from hepops.core.func import transforms_active, vjp
from hepops.core.ops import call

from .geometry import neighbour

Activation = Literal["leaky_relu", "tanh", "silu"] | None
ACTIVATIONS: tuple[Activation, ...] = (None, "leaky_relu", "tanh", "silu")


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = None) -> Tensor:
    r"""A convolution with periodic borders, and an activation A of its result.

    .. math:: y_o(x) = A\Big(b_o + \sum_i \sum_k W_{oik}\, s_i(x + k - h)\Big), \qquad h_\mu = (K_\mu - 1) / 2

    On a CPU the lanes of a register hold as many configurations, so that any extents are served alike, small ones and
    those below the kernel too; where the batch does not fill them, a configuration is cut along its first direction.
    It is made for few channels: above 16 or so torch's own is as fast.

    Args:
        x: s, shape (B, inputs, L_1, ..., L_D), D = 1 to 4, float32 or float64.
        weight: W, shape (outputs, inputs, K_1, ..., K_D), each K odd, in the dtype of x.
        bias: b, shape (outputs).
        activation: None, "leaky_relu" (slope 0.01), "tanh" or "silu".

    Returns:
        y, shape (B, outputs, L_1, ..., L_D), contiguous.

    Differentiable any number of times (under torch.func through torch's operators). Translations of x translate y, bit
    for bit. Sums over configurations and sites (the gradients of weight and bias) are in one order, which follows from
    the shapes alone: deterministic, whatever the number of threads. The backward keeps x, the weights, and y (for silu
    it computes the convolution again).

    Raises:
        TypeError: `x` of another dtype, or the others not of that of x.
        ValueError: shapes that do not fit, an even kernel, an unknown activation.

    References:
        | the network of lattice flows: M. S. Albergo, G. Kanwar, P. E. Shanahan, arXiv:1904.12072
        | direct convolution in registers: E. Georganas et al., SC18, arXiv:1808.05567

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 4)
        >>> hepops.lattice.convolve(x, torch.tensor([[[1.0, 0.0, 0.0]]]))  # the number before, on a ring
        tensor([[[3., 0., 1., 2.]]])
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"convolve: activation must be None, 'leaky_relu', 'tanh' or 'silu', got {activation!r}")
    if transforms_active():
        return formula(x, weight, bias, activation)
    return call(torch.ops.hepops.lattice_convolve.default, x, weight, bias, ACTIVATIONS.index(activation))


def activate(a: Tensor, activation: Activation) -> Tensor:
    """A(a), in torch's operators."""
    return a if activation is None else getattr(F, activation)(a) if activation != "tanh" else torch.tanh(a)


def formula(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = None) -> Tensor:
    """The same in torch's operators, any number of dimensions: a sum over the taps of the kernel."""
    dims = x.dim() - 2
    y = None
    for tap in itertools.product(*[range(k) for k in weight.shape[2:]]):
        moved = x
        for mu, k in enumerate(tap):
            moved = neighbour(moved, mu, dims, k - weight.shape[2 + mu] // 2)
        here = weight
        for k in reversed(tap):
            here = here.select(-1, k)
        term = torch.einsum("oi,bi...->bo...", here, moved)
        y = term if y is None else y + term
    assert y is not None
    return activate(y if bias is None else y + bias.view(-1, *[1] * dims), activation).contiguous()


@register_fake("hepops::lattice_convolve")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))


@register_fake("hepops::_lattice_convolve_backward")
def _(
    grad: Tensor, x: Tensor, weight: Tensor, at: Tensor | None, activation: int, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if wants_x else 0),
        x.new_empty(weight.shape if wants_weight else 0),
        x.new_empty(weight.shape[0] if wants_weight else 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.activation = inputs
    ctx.has_bias = bias is not None
    silu = ACTIVATIONS[ctx.activation] == "silu"
    at = () if ctx.activation == 0 else ((bias,) if ctx.has_bias else ()) if silu else (output,)
    ctx.save_for_backward(x, weight, *at)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *rest = ctx.saved_tensors
    at = rest[0] if rest else None
    if ACTIVATIONS[ctx.activation] == "silu":
        at = torch.ops.hepops.lattice_convolve.default(x, weight, at, 0)
    wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
    op = torch.ops.hepops._lattice_convolve_backward.default
    of_x, of_weight, of_bias = op(grad, x, weight, at, ctx.activation, wants_x, wants_weight or wants_bias)
    return (
        of_x if wants_x else None,
        of_weight if wants_weight else None,
        of_bias if ctx.has_bias and wants_bias else None,
        None,
    )


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, x, weight, at, ctx.activation, ctx.wants_x, ctx.wants_weight = inputs
    ctx.save_for_backward(grad, x, weight, *(() if at is None else (at,)))


def _slope(activation: Activation, at: Tensor) -> Tensor:
    """A', from y or (silu) from a."""
    if activation == "tanh":
        return 1 - at * at
    if activation == "leaky_relu":
        return torch.where(at > 0, 1.0, 0.01).to(at.dtype)
    s = torch.sigmoid(at)
    return s * (1 + at * (1 - s))


def _double_backward(ctx: Any, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor | None, ...]:
    """All is linear in the gradient, in x and in W: with g = G A', the transposes of s * g and of W^T g."""
    G, x, weight, *rest = ctx.saved_tensors
    activation = ACTIVATIONS[ctx.activation]
    op = torch.ops.hepops._lattice_convolve_backward.default
    plain = torch.ops.hepops.lattice_convolve.default
    slope = _slope(activation, rest[0]) if rest else None
    g = G if slope is None else G * slope
    t = None  # dL/dg
    of_x = of_weight = None
    if ctx.wants_x:
        t = plain(u, weight, None, 0)
        of_weight = op(g, u, weight, None, 0, False, True)[1]
    if ctx.wants_weight:
        more = plain(x, v, c, 0)
        t = more if t is None else t + more
        of_x = op(g, x, v, None, 0, True, False)[0]
    assert t is not None
    of_at = None
    if rest:
        _, pull = vjp(lambda at: _slope(activation, at), rest[0])
        of_at = pull(t * G)[0]
        t = t * slope
    return t, of_x, of_weight, of_at, None, None, None


register_autograd("hepops::lattice_convolve", _backward, setup_context=_setup)
register_autograd("hepops::_lattice_convolve_backward", _double_backward, setup_context=_setup_backward)
