"""Convolutions and the linear layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from ..kernel import Kernel, Size, per_axis
from ..kernel_map import KernelMap
from ..manager import CoordinateMapKey
from ..tensor import SparseTensor


class _Convolution(nn.Module):
    """What the convolutions share: the kernel's shape, its weights `kernel` and `bias`, and how they begin."""

    is_transposed = False
    is_generative = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size | Kernel,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        dimension: int = 3,
        *,
        groups: int = 1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for name, channels in [("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)]:
            if channels < 1:
                raise ValueError(f"{name} must be at least 1, got {channels}")
        if not 1 <= dimension <= 6:
            raise ValueError(f"dimension must be 1 to 6, got {dimension}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide in_channels {in_channels} and out_channels {out_channels}, got {groups}"
            )
        self.in_channels, self.out_channels, self.groups, self.dimension = in_channels, out_channels, groups, dimension
        self.shape = kernel_size if isinstance(kernel_size, Kernel) else Kernel.of(kernel_size, dimension, dilation)
        if self.shape.dimension != dimension:
            raise ValueError(f"kernel_size has {self.shape.dimension} axes, dimension is {dimension}")
        self.stride = per_axis("stride", stride, dimension)
        # A kernel of one offset at stride 1 is a matrix: this is how MinkowskiEngine stores it.
        self.is_matrix = self.shape.is_point and all(s == 1 for s in self.stride)
        shape = self._weight_shape()
        self.kernel = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(1, out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        matrix = (self.in_channels // self.groups, self.out_channels)
        return matrix if self.is_matrix else (self.shape.volume, *matrix)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.shape.size

    @property
    def dilation(self) -> tuple[int, ...]:
        return self.shape.dilation

    def reset_parameters(self) -> None:
        """Uniform within 1/sqrt(fan in), as MinkowskiEngine begins."""
        with torch.no_grad():
            fan = self.out_channels if self.is_transposed else self.in_channels
            bound = 1 / math.sqrt(fan * self.shape.volume / self.groups)
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def route(self, input: SparseTensor) -> tuple[CoordinateMapKey, KernelMap]:
        """The voxels that the layer writes to, and the kernel map between; what does not suit is refused here."""
        F.check_dimension(input, self.dimension)
        if input.num_channels != self.in_channels:
            raise ValueError(f"input has {input.num_channels} channels, the layer expects {self.in_channels}")
        if self.is_transposed:
            return F.up_map(input, self.shape, self.stride, generative=self.is_generative)
        return F.down_map(input, self.shape, self.stride)

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        F.check_dimension(input, self.dimension)
        common: dict[str, Any] = {"kernel": self.shape, "stride": self.stride, "coordinates": coordinates}
        if self.is_transposed:
            return F.conv_transpose(
                input, self.kernel, self.bias, groups=self.groups, generative=self.is_generative, **common
            )
        return F.convolve(input, self.kernel, self.bias, groups=self.groups, **common)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}", f"kernel_size={self.kernel_size}"]
        if self.shape.shape != "box":
            parts.append(f"shape={self.shape.shape!r}")
        if any(s != 1 for s in self.stride):
            parts.append(f"stride={self.stride}")
        if any(d != 1 for d in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is not None:
            parts.append("bias=True")
        return ", ".join(parts)


class Convolution(_Convolution):
    """Sparse convolution: `functional.convolve` with weights of its own.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size: one number, one per axis, or a Kernel.
        stride, dilation: one number or one per axis.
        bias: add a bias (1, out_channels).
        dimension: D, 1 to 6.
        groups: channels fall into so many parts that do not mix.

    Attributes:
        kernel: (K, in_channels / groups, out_channels), the first axis fastest in K; (in_channels, out_channels) for
            kernel size 1 and stride 1. bias: (1, out_channels) or None.

    Example:
        >>> Convolution(1, 8, 3)
        Convolution(1, 8, kernel_size=(3, 3, 3))
    """


class ConvolutionTranspose(_Convolution):
    """Transposed convolution: `functional.conv_transpose` onto the finer voxels that are known, else onto new ones."""

    is_transposed = True


class GenerativeConvolutionTranspose(ConvolutionTranspose):
    """Transposed convolution that always writes to all voxels its kernel reaches."""

    is_generative = True


class DepthwiseConvolution(_Convolution):
    """Convolution of each channel by itself; `kernel` is (K, channels). MinkowskiEngine calls it channelwise."""

    def __init__(
        self,
        channels: int,
        kernel_size: Size | Kernel,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        dimension: int = 3,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride,
            dilation,
            bias,
            dimension,
            groups=channels,
            device=device,
            dtype=dtype,
        )

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.shape.volume, self.in_channels)

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        F.check_dimension(input, self.dimension)
        return F.depthwise(
            input, self.kernel, self.bias, kernel=self.shape, stride=self.stride, coordinates=coordinates
        )


class Linear(nn.Module):
    """features W^T + b, the same for every voxel; weights are those of `linear`, a torch.nn.Linear."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias, device=device, dtype=dtype)

    def forward(self, input: SparseTensor) -> SparseTensor:
        return F.linear(input, self.linear.weight, self.linear.bias)


def kernel_parameters(module: nn.Module) -> list[Tensor]:
    """The `kernel` of every convolution within, for an initialisation of one's own."""
    return [m.kernel for m in module.modules() if isinstance(m, _Convolution)]
