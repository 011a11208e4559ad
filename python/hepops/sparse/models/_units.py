"""The steps that networks are made of, each one place where a fused operator may do the work of several modules.

`norm_act_conv` is the unit of a pre-activation network, conv(act(norm(x))) + residual. Modules hold the weights; these
functions say what is computed of them. `unfused()` has every step done by the modules themselves, one after another,
which is what the fused operators are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .. import nn as snn
from ..tensor import SparseTensor
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


def norm_act_conv(
    norm: nn.Module, act: nn.Module, conv: nn.Module, x: SparseTensor, residual: SparseTensor | None = None
) -> SparseTensor:
    """conv(act(norm(x))) + residual."""
    y: SparseTensor = conv(act(norm(x)))
    return y if residual is None else y + residual


def conv_norm_act(conv: nn.Module, norm: nn.Module, act: nn.Module, x: SparseTensor) -> SparseTensor:
    """act(norm(conv(x))), the unit of post-activation networks."""
    y: SparseTensor = act(norm(conv(x)))
    return y


def norm_act(norm: nn.Module, act: nn.Module, x: SparseTensor) -> SparseTensor:
    """act(norm(x))."""
    y: SparseTensor = act(norm(x))
    return y


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
    "group_norm": lambda channels, num_groups, **arguments: snn.GroupNorm(num_groups, channels, **arguments),
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
