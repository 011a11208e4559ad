"""The steps that networks are made of, each one place where a fused operator may do the work of several modules.

`norm_act_conv` is the unit of a pre-activation network, conv(act(norm(x))) + residual. Modules hold the weights; these
functions say what is computed of them. `unfused()` has every step done by the modules themselves, one after another,
which is what the fused operators are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .. import nn as snn
from ..normalise import batch_norm
from ..tensor import SparseTensor
from ..unit import Then, infer, unit
from .configuration import Component, component

_fusing = True


@contextmanager
def unfused() -> Iterator[None]:
    """Within, networks run module by module."""
    global _fusing
    before, _fusing = _fusing, False
    try:
        yield
    finally:
        _fusing = before


def _slope(act: nn.Module) -> float | None:
    """The slope below 0 of an activation that the fused operators know."""
    if isinstance(act, nn.Identity):
        return 1.0
    if type(act) is snn.ReLU:
        return 0.0
    if type(act) is snn.LeakyReLU:
        return float(act.module.negative_slope)  # type: ignore[arg-type]
    return None


def _is_watched(*modules: nn.Module) -> bool:
    """Whether somebody wants to see the modules run."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)


def _fuses(norm: nn.Module, act: nn.Module, conv: nn.Module | None = None) -> bool:
    layers = (snn.Convolution, snn.ConvolutionTranspose)
    return (
        _fusing
        and type(norm) is snn.BatchNorm
        and _slope(act) is not None
        and (conv is None or isinstance(conv, layers))
        and not _is_watched(norm, act, *([] if conv is None else [conv]))
    )


Following = tuple[nn.Module, nn.Module]
"""A norm and an activation."""


def norm_act_conv(
    norm: nn.Module,
    act: nn.Module,
    conv: nn.Module,
    x: SparseTensor,
    residual: SparseTensor | None = None,
    then: Following | None = None,
    alone: bool = False,
) -> SparseTensor:
    """conv(act(norm(x))) + residual.

    `then` is the norm and the activation that the result will meet: in inference they are applied as it is written.
    `alone` says that nothing but they will read it, so that the plain result need not be written.
    """
    if not _fuses(norm, act, conv):
        y: SparseTensor = conv(act(norm(x)))
        return y if residual is None else y + residual
    bn, slope = norm.bn, _slope(act)
    assert isinstance(bn, nn.BatchNorm1d) and slope is not None
    if torch.is_grad_enabled() or bn.training or bn.running_mean is None:
        return unit(x, bn, slope, conv, residual)
    if x.after is not None and x.after[0] is bn:
        activated = x.replace(x.after[1])
    else:
        activated = batch_norm(x, bn, slope)
    follows = None
    if then is not None and _fuses(*then) and not then[0].training:
        after_slope = _slope(then[1])
        assert after_slope is not None
        follows = Then(then[0].bn, after_slope)  # type: ignore[arg-type]
    raw, after = infer(activated, conv, residual, follows, keep=follows is None or not alone)
    y = raw if raw is not None else after  # type: ignore[assignment]
    if follows is not None and after is not None:
        y.after = (follows.bn, after.features)
    return y


def conv_norm_act(conv: nn.Module, norm: nn.Module, act: nn.Module, x: SparseTensor) -> SparseTensor:
    """act(norm(conv(x))), the unit of post-activation networks."""
    return norm_act(norm, act, conv(x))


def norm_act(norm: nn.Module, act: nn.Module, x: SparseTensor) -> SparseTensor:
    """act(norm(x))."""
    if not _fuses(norm, act):
        y: SparseTensor = act(norm(x))
        return y
    bn, slope = norm.bn, _slope(act)
    assert isinstance(bn, nn.BatchNorm1d) and slope is not None
    if x.after is not None and x.after[0] is bn:
        return x.replace(x.after[1])
    return batch_norm(x, bn, slope)


# What configurations name


class Mish(snn.Activation):
    r"""x tanh(log(1 + e^x))."""

    torch_module = nn.Mish


class PixelNorm(nn.Module):
    r"""Features of each voxel over their length, :math:`x_c / \sqrt{\sum_{c'} x_{c'}^2 + \epsilon}`.

    References:
        T. Karras, T. Aila, S. Laine, J. Lehtinen, Progressive Growing of GANs, ICLR 2018

    Example:
        >>> x = SparseTensor(torch.tensor([[3.0, 4.0]]), torch.tensor([[0, 0]]))
        >>> PixelNorm()(x).features.tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.eps = eps

    def forward(self, input: SparseTensor) -> SparseTensor:
        x = input.features
        return input.replace(x * torch.rsqrt(x.square().sum(1, keepdim=True) + self.eps))

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "none": nn.Identity, "relu": snn.ReLU, "relu6": snn.ReLU6, "lrelu": snn.LeakyReLU, "prelu": snn.PReLU,
    "elu": snn.ELU, "selu": snn.SELU, "celu": snn.CELU, "gelu": snn.GELU, "silu": snn.SiLU, "tanh": snn.Tanh,
    "sigmoid": snn.Sigmoid, "softplus": snn.Softplus, "hardtanh": snn.Hardtanh, "mish": Mish,
}  # fmt: skip

NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch_norm": snn.BatchNorm,
    "sync_batch_norm": snn.SyncBatchNorm,
    "instance_norm": snn.InstanceNorm,
    "layer_norm": snn.LayerNorm,
    "group_norm": lambda channels, **arguments: _group_norm(channels, **arguments),
    "pixel_norm": lambda channels, **arguments: PixelNorm(**arguments),
}


def make_activation(source: Component) -> nn.Module:
    """An activation by its name in SPINE's configurations, with the arguments of the torch module.

    Raises:
        ValueError: there is none of this name. TypeError: it takes no such arguments.

    Example:
        >>> make_activation({"name": "lrelu", "negative_slope": 0.33})
        LeakyReLU(
          negative_slope=0.33
          (module): LeakyReLU(negative_slope=0.33)
        )
    """
    name, arguments = component(source)
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name](**arguments)


def _group_norm(channels: int, num_groups: int | None = None, **arguments: Any) -> nn.Module:
    if num_groups is None:
        raise ValueError("group_norm needs num_groups: {'name': 'group_norm', 'num_groups': ...}")
    return snn.GroupNorm(num_groups, channels, **arguments)


def make_norm(source: Component, channels: int) -> nn.Module:
    """A normalisation of `channels` channels by its name: batch_norm (eps, momentum, ...), instance_norm, layer_norm,
    group_norm (num_groups), pixel_norm (eps), sync_batch_norm, none.

    Raises:
        ValueError: there is none of this name. TypeError: it takes no such arguments.
    """
    name, arguments = component(source)
    if name not in NORMS:
        raise ValueError(f"norm_layer must be one of {', '.join(NORMS)}, got {name!r}")
    return NORMS[name](channels, **arguments)
