"""Blocks of convolutions; the names of their parts are SPINE's, so that its checkpoints fit.

References:
    | K. He et al., Identity Mappings in Deep Residual Networks, ECCV 2016 (pre-activation)
    | S. Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017 (grouped paths)
    | L.-C. Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (ASPP)
    | H. Zhao et al., Pyramid Scene Parsing Network, CVPR 2017 (SPP)
    | A. Howard et al., Searching for MobileNetV3, ICCV 2019 (MBConv)
    | J. Hu et al., Squeeze-and-Excitation Networks, CVPR 2018
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .. import functional as F
from .. import nn as snn
from ..tensor import SparseTensor
from ._units import Following, conv_norm_act, make_activation, make_norm, norm_act_conv
from .configuration import Component


def _shortcut(in_features: int, out_features: int, stride: int, dimension: int, bias: bool) -> nn.Module:
    """What the input passes through beside a block: nothing where widths and stride allow it."""
    if stride != 1:
        return snn.Convolution(in_features, out_features, 1, stride, bias=bias, dimension=dimension)
    if in_features != out_features:
        return snn.Linear(in_features, out_features, bias=bias)
    return nn.Identity()


def _each(name: str, value: int | Sequence[int] | None, number: int, default: Sequence[int]) -> list[int]:
    if value is None:
        value = default
    values = [value] * number if isinstance(value, int) else list(value)
    if len(values) != number:
        raise ValueError(f"{name} must be one number or {number}, got {value!r}")
    return values


class ConvolutionBlock(nn.Module):
    """Two convolutions, each followed by norm and activation."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int = 1,
        dilation: int = 1,
        dimension: int = 3,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
        bias: bool = False,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        common: dict[str, Any] = {"dilation": dilation, "dimension": dimension, "bias": bias}
        self.conv1 = snn.Convolution(in_features, out_features, kernel_size, stride, **common)
        self.norm1 = make_norm(normalization, out_features)
        self.act_fn1 = make_activation(activation)
        self.conv2 = snn.Convolution(out_features, out_features, kernel_size, **common)
        self.norm2 = make_norm(normalization, out_features)
        self.act_fn2 = make_activation(activation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = conv_norm_act(self.conv1, self.norm1, self.act_fn1, x)
        return conv_norm_act(self.conv2, self.norm2, self.act_fn2, x)


class ResidualBlock(nn.Module):
    r"""Pre-activation residual block, :math:`x_r + W_2\, a(n_2(W_1\, a(n_1(x))))`.

    :math:`x_r` is the input, through a linear layer where the widths differ, a strided convolution where the stride is
    not 1. The block of UResNet; SPINE calls it ResNetBlock.

    Example:
        >>> import torch
        >>> x = SparseTensor(torch.randn(5, 4), torch.arange(5)[:, None].repeat(1, 3))
        >>> ResidualBlock(4, 8, dimension=2)(x)
        SparseTensor(5 voxels x 8 channels, 2D, 5 events, stride 1, torch.float32, cpu)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int = 1,
        dilation: int = 1,
        dimension: int = 3,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
        bias: bool = False,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        common: dict[str, Any] = {"dilation": dilation, "dimension": dimension, "bias": bias}
        self.residual = _shortcut(in_features, out_features, stride, dimension, bias)
        self.norm1 = make_norm(normalization, in_features)
        self.act_fn1 = make_activation(activation)
        self.conv1 = snn.Convolution(in_features, out_features, kernel_size, stride, **common)
        self.norm2 = make_norm(normalization, out_features)
        self.act_fn2 = make_activation(activation)
        self.conv2 = snn.Convolution(out_features, out_features, kernel_size, **common)

    def forward(self, x: SparseTensor, then: Following | None = None) -> SparseTensor:
        """`then`: the norm and the activation that the result will meet, if they are known."""
        residual = self.residual(x)
        second = (self.norm2, self.act_fn2)
        y = norm_act_conv(self.norm1, self.act_fn1, self.conv1, x, then=second, alone=True)
        return norm_act_conv(*second, self.conv2, y, residual, then)

    @property
    def entry(self) -> Following:
        """The norm and the activation that the input meets."""
        return self.norm1, self.act_fn1


class AtrousBlock(nn.Module):
    """Post-activation residual block of kernels with dilation 1 and 3; SPINE calls it AtrousIIBlock."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dimension: int = 3,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
    ) -> None:
        super().__init__()
        self.residual = _shortcut(in_features, out_features, 1, dimension, bias=True)
        self.conv1 = snn.Convolution(in_features, out_features, 3, dimension=dimension)
        self.norm1 = make_norm(normalization, out_features)
        self.act_fn1 = make_activation(activation)
        self.conv2 = snn.Convolution(out_features, out_features, 3, dilation=3, dimension=dimension)
        self.norm2 = make_norm(normalization, out_features)
        self.act_fn2 = make_activation(activation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        y = conv_norm_act(self.conv1, self.norm1, self.act_fn1, x)
        y = self.norm2(self.conv2(y)) + self.residual(x)
        z: SparseTensor = self.act_fn2(y)
        return z


class ResNeXtBlock(nn.Module):
    """Paths of few channels side by side, each with its own dilation, joined by a linear layer, plus the input.

    Args:
        cardinality: number of paths; it must divide both widths.
        depth: convolutions in each path.
        dilations: of each path; by default 1, 3, 9, ...
        kernel_sizes, strides: one number, or one for each path; strides must agree.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dimension: int = 3,
        cardinality: int = 4,
        depth: int = 1,
        dilations: int | Sequence[int] | None = None,
        kernel_sizes: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
    ) -> None:
        super().__init__()
        if cardinality < 1 or in_features % cardinality or out_features % cardinality:
            raise ValueError(f"cardinality must divide {in_features} and {out_features} channels, got {cardinality}")
        dilations = _each("dilations", dilations, cardinality, [3**i for i in range(cardinality)])
        kernel_sizes = _each("kernel_sizes", kernel_sizes, cardinality, ())
        strides = _each("strides", strides, cardinality, ())
        if len(set(strides)) != 1:
            raise ValueError(f"strides must agree, for the paths end on the same voxels, got {strides}")
        narrow, wide = in_features // cardinality, out_features // cardinality
        paths = []
        for kernel_size, dilation in zip(kernel_sizes, dilations, strict=True):
            layers: list[nn.Module] = [snn.Linear(in_features, narrow)]
            for layer in range(depth):
                first = layer == 0
                layers += [
                    snn.Convolution(
                        narrow if first else wide,
                        wide,
                        kernel_size,
                        strides[0] if first else 1,
                        dilation,
                        dimension=dimension,
                    ),
                    make_norm(normalization, wide),
                    make_activation(activation),
                ]
            paths.append(nn.Sequential(*layers))
        self.paths = nn.Sequential(*paths)
        self.linear = snn.Linear(out_features, out_features)
        # SPINE's strided shortcut has no bias, its linear one has
        self.residual = _shortcut(in_features, out_features, strides[0], dimension, bias=strides[0] == 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        y: SparseTensor = self.linear(F.cat(*[path(x) for path in self.paths]))
        return y + self.residual(x)


class SPP(nn.Module):
    """Spatial pyramid pooling: the mean of the event and pools over cells of several sizes, side by side on each voxel.

    Args:
        kernel_sizes: of the cells; each pool's stride is its size. None: the event's mean alone.
        dilations: one number, or one for each size.
        mode: "avg", "max" or "sum", of the cells.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_sizes: Sequence[int] | None = None,
        dilations: int | Sequence[int] | None = None,
        mode: str = "avg",
        dimension: int = 3,
    ) -> None:
        super().__init__()
        pools = {"avg": snn.AvgPool, "max": snn.MaxPool, "sum": snn.SumPool}
        if mode not in pools:
            raise ValueError(f"mode must be avg, max or sum, got {mode!r}")
        sizes = list(kernel_sizes or ())
        dilations = _each("dilations", dilations, len(sizes), [1] * len(sizes))
        cells = list(zip(sizes, dilations, strict=True))
        self.pool = nn.ModuleList([snn.GlobalAvgPool(), *[pools[mode](k, k, d, dimension) for k, d in cells]])
        self.unpool = nn.ModuleList([snn.Broadcast(), *[snn.PoolTranspose(k, k, d, dimension) for k, d in cells]])
        self.linear = snn.Linear(in_features * len(self.pool), out_features)

    def forward(self, x: SparseTensor) -> SparseTensor:
        parts = [self.unpool[0](x, self.pool[0](x))]
        for pool, unpool in zip(self.pool[1:], self.unpool[1:], strict=True):
            parts.append(unpool(pool(x), coordinates=x))
        y: SparseTensor = self.linear(F.cat(*parts))
        return y


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a linear layer, kernels of several dilations and the event's mean, side by side,
    then a convolution.

    Args:
        width: number of dilated kernels. dilations: of each; by default 2, 4, 6, 8, 12.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dimension: int = 3,
        width: int = 5,
        dilations: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        dilations = _each("dilations", dilations, width, (2, 4, 6, 8, 12))
        self.branches = nn.Sequential(
            snn.Linear(in_features, out_features),
            *[snn.Convolution(in_features, out_features, 3, dilation=d, dimension=dimension) for d in dilations],
        )
        self.pool = snn.GlobalAvgPool()
        self.global_linear = snn.Linear(in_features, out_features)
        self.unpool = snn.Broadcast()
        self.output_layer = nn.Sequential(
            snn.Convolution(out_features * (2 + width), out_features, 3, dimension=dimension),
            snn.BatchNorm(out_features),
            snn.ReLU(),
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        parts = [branch(x) for branch in self.branches]
        parts.append(self.unpool(x, self.global_linear(self.pool(x))))
        y: SparseTensor = self.output_layer(F.cat(*parts))
        return y


class CascadeDilationBlock(nn.Module):
    """Residual blocks of growing dilation in a row; the sum of their outputs and of the first one's input.

    Args:
        depth: number of blocks. dilations: of each; by default 1, 2, 4, 8, 16, 32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dimension: int = 3,
        depth: int = 6,
        dilations: Sequence[int] | None = None,
        activation: Component = "relu",
    ) -> None:
        super().__init__()
        dilations = _each("dilations", dilations, depth, (1, 2, 4, 8, 16, 32))
        self.input_layer = snn.Linear(in_features, out_features)
        self.blocks = nn.Sequential(
            *[
                ResidualBlock(out_features, out_features, dilation=d, dimension=dimension, activation=activation)
                for d in dilations
            ]
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self.input_layer(x)
        total = x
        for block in self.blocks:
            x = block(x)
            total = total + x
        return total


class MBConv(nn.Module):
    """Mobile inverted bottleneck: linear to `expand_ratio` times the width, depthwise convolution, linear back; norm
    and activation before each."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        expand_ratio: int = 2,
        dimension: int = 3,
        dilation: int = 1,
        kernel_size: int = 3,
        stride: int = 1,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
        bias: bool = False,
    ) -> None:
        super().__init__()
        if expand_ratio < 1:
            raise ValueError(f"expand_ratio must be at least 1, got {expand_ratio}")
        hidden = int(expand_ratio * in_features)
        shape: dict[str, Any] = {"stride": stride, "dilation": dilation, "bias": bias, "dimension": dimension}

        def before(channels: int) -> list[nn.Module]:
            return [make_norm(normalization, channels), make_activation(activation)]

        if expand_ratio == 1:
            layers = [*before(in_features), snn.Convolution(in_features, out_features, kernel_size, **shape)]
        else:
            layers = [
                *before(in_features),
                snn.Linear(in_features, hidden),
                *before(hidden),
                snn.DepthwiseConvolution(hidden, kernel_size, **shape),
                *before(hidden),
                snn.Linear(hidden, out_features),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: SparseTensor) -> SparseTensor:
        for i in range(0, len(self.layers), 3):
            x = norm_act_conv(self.layers[i], self.layers[i + 1], self.layers[i + 2], x)
        return x


class MBResConv(nn.Module):
    """Two MBConv in a row, plus the input (through norm, activation and a linear layer where the widths differ)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        expand_ratio: int = 2,
        dimension: int = 3,
        dilation: int = 1,
        kernel_size: int = 3,
        stride: int = 1,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
        bias: bool = False,
    ) -> None:
        super().__init__()
        common: dict[str, Any] = {
            "expand_ratio": expand_ratio, "dimension": dimension, "dilation": dilation, "kernel_size": kernel_size,
            "activation": activation, "normalization": normalization, "bias": bias,
        }  # fmt: skip
        self.first_block = MBConv(in_features, out_features, stride=stride, **common)
        self.second_block = MBConv(out_features, out_features, **common)
        self.connection: nn.Module = nn.Identity()
        if stride != 1 or in_features != out_features:
            # a linear layer here always has its bias, the strided convolution only where asked: SPINE's
            last = _shortcut(in_features, out_features, stride, dimension, bias=bias if stride != 1 else True)
            self.connection = nn.Sequential(make_norm(normalization, in_features), make_activation(activation), last)

    def forward(self, x: SparseTensor) -> SparseTensor:
        connection: SparseTensor = self.connection(x)
        return connection + self.second_block(self.first_block(x))


class SEBlock(nn.Module):
    """Squeeze and excitation: each channel times a weight in (0, 1), made of the event's means by two linear layers."""

    def __init__(self, channels: int, ratio: int = 8, dimension: int = 3) -> None:
        super().__init__()
        if ratio < 1:
            raise ValueError(f"ratio must be at least 1, got {ratio}")
        hidden = max(1, channels // ratio)
        self.pool = snn.GlobalAvgPool()
        self.linear1 = snn.Linear(channels, hidden)
        self.relu = snn.ReLU()
        self.linear2 = snn.Linear(hidden, channels)
        self.sigmoid = snn.Sigmoid()
        self.broadcast = snn.BroadcastMultiply()

    def forward(self, x: SparseTensor) -> SparseTensor:
        gate = self.sigmoid(self.linear2(self.relu(self.linear1(self.pool(x)))))
        y: SparseTensor = self.broadcast(x, gate)
        return y


class SEResNetBlock(nn.Module):
    """Post-activation residual block with squeeze and excitation before the sum."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        se_ratio: int = 8,
        stride: int = 1,
        dilation: int = 1,
        dimension: int = 3,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
    ) -> None:
        super().__init__()
        self.residual = _shortcut(in_features, out_features, stride, dimension, bias=stride == 1)
        self.conv1 = snn.Convolution(in_features, out_features, 3, stride, dilation, dimension=dimension)
        self.norm1 = make_norm(normalization, out_features)
        self.act_fn1 = make_activation(activation)
        self.conv2 = snn.Convolution(out_features, out_features, 3, 1, dilation, dimension=dimension)
        self.norm2 = make_norm(normalization, out_features)
        self.act_fn2 = make_activation(activation)
        self.se_block = SEBlock(out_features, se_ratio, dimension)

    def forward(self, x: SparseTensor) -> SparseTensor:
        y = conv_norm_act(self.conv1, self.norm1, self.act_fn1, x)
        y = self.se_block(self.norm2(self.conv2(y))) + self.residual(x)
        z: SparseTensor = self.act_fn2(y)
        return z


class MBResConvSE(MBResConv):
    """MBResConv with squeeze and excitation before the sum."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        se_ratio: int = 8,
        expand_ratio: int = 2,
        dimension: int = 3,
        dilation: int = 1,
        kernel_size: int = 3,
        stride: int = 1,
        activation: Component = "relu",
        normalization: Component = "batch_norm",
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_features, out_features, expand_ratio, dimension, dilation, kernel_size, stride, activation,
            normalization, bias,
        )  # fmt: skip
        self.squeeze_excitation = SEBlock(out_features, se_ratio, dimension)

    def forward(self, x: SparseTensor) -> SparseTensor:
        connection: SparseTensor = self.connection(x)
        return connection + self.squeeze_excitation(self.second_block(self.first_block(x)))


BOTTLENECKS: dict[str, type[nn.Module]] = {"spp": SPP, "aspp": ASPP, "cascade": CascadeDilationBlock}
