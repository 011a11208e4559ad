"""Residual blocks whose channels are weighed by what the whole event has (squeeze and excitation).

MinkowskiEngine's pass `D` where their base class wants `dimension`, and cannot be made; these can.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..broadcast import MinkowskiBroadcastMultiplication
from ..nonlinearity import MinkowskiReLU, MinkowskiSigmoid
from ..ops import MinkowskiLinear
from ..pooling import MinkowskiGlobalPooling
from .resnet_block import BasicBlock, Bottleneck


class SELayer(nn.Module):
    """Each channel times a number in (0, 1) that two linear layers make of the event's mean features."""

    def __init__(self, channel: int, reduction: int = 16, D: int = -1) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            MinkowskiLinear(channel, channel // reduction),
            MinkowskiReLU(inplace=True),
            MinkowskiLinear(channel // reduction, channel),
            MinkowskiSigmoid(),
        )
        self.pooling = MinkowskiGlobalPooling()
        self.broadcast_mul = MinkowskiBroadcastMultiplication()

    def forward(self, x: Any) -> Any:
        return self.broadcast_mul(x, self.fc(self.pooling(x)))


class SEBasicBlock(BasicBlock):
    """`BasicBlock` with an `SELayer` before the shortcut is added."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        reduction: int = 16,
        D: int = -1,
    ) -> None:
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes, reduction, D)

    def branch(self, x: Any) -> Any:
        return self.se(super().branch(x))


class SEBottleneck(Bottleneck):
    """`Bottleneck` with an `SELayer` before the shortcut is added."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        D: int = 3,
        reduction: int = 16,
    ) -> None:
        super().__init__(inplanes, planes, stride, dilation, downsample, dimension=D)
        self.se = SELayer(planes * self.expansion, reduction, D)

    def branch(self, x: Any) -> Any:
        return self.se(super().branch(x))
