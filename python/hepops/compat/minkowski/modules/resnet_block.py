"""Residual blocks, normalised after each convolution; names of the weights as MinkowskiEngine's."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..convolution import MinkowskiConvolution
from ..nonlinearity import MinkowskiReLU
from ..normalization import MinkowskiBatchNorm


class _Block(nn.Module):
    """out = relu(branch(x) + shortcut(x)); `sizes` of the kernels, `strided` the one that has stride and dilation."""

    expansion = 1
    sizes: tuple[int, ...] = (3, 3)
    strided = 0

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"dimension must be given, 1 to 6, got {dimension}")
        channels = [inplanes, *[planes] * (len(self.sizes) - 1), planes * self.expansion]
        for i, size in enumerate(self.sizes):
            step = stride if i == self.strided else 1
            spread = dilation if size > 1 else 1
            conv = MinkowskiConvolution(channels[i], channels[i + 1], size, step, spread, dimension=dimension)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"norm{i + 1}", MinkowskiBatchNorm(channels[i + 1], momentum=bn_momentum))
        self.relu = MinkowskiReLU(inplace=True)
        self.downsample = downsample

    def branch(self, x: Any) -> Any:
        """Convolutions and norms, with activations between them."""
        for i in range(1, len(self.sizes) + 1):
            x = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x))
            if i < len(self.sizes):
                x = self.relu(x)
        return x

    def forward(self, x: Any) -> Any:
        out = self.branch(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)


class BasicBlock(_Block):
    """Two convolutions of size 3."""


class Bottleneck(_Block):
    """Convolutions of size 1, 3 and 1; 4 times as many channels come out."""

    expansion = 4
    sizes = (1, 3, 1)
    strided = 1
