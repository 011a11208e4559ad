"""Convolutions: hepops' layers with MinkowskiEngine's arguments and attributes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor as TorchTensor

from hepops.sparse import functional as F
from hepops.sparse import nn as sparse_nn
from hepops.sparse.nn.convolution import _Convolution

from .common import MinkowskiModuleBase, StrideType
from .enums import ConvolutionMode, RegionType
from .key import CoordinateMapKey
from .layer import check_sparse, product
from .regions import KernelGenerator
from .tensor import SparseTensor, output_target

Coordinates = TorchTensor | CoordinateMapKey | SparseTensor | None


def _generator(
    kernel_generator: KernelGenerator | None,
    kernel_size: StrideType,
    stride: StrideType,
    dilation: StrideType,
    expand_coordinates: bool,
    dimension: int | None,
) -> KernelGenerator:
    if dimension is None or dimension < 1:
        raise ValueError(f"dimension must be given, 1 to 6, got {dimension}")
    if kernel_generator is None:
        return KernelGenerator(
            kernel_size, stride, dilation, expand_coordinates=expand_coordinates, dimension=dimension
        )
    if kernel_generator.dimension != dimension:
        raise ValueError(f"kernel_generator has {kernel_generator.dimension} axes, dimension is {dimension}")
    kernel_generator.expand_coordinates = expand_coordinates
    return kernel_generator


class _Described(MinkowskiModuleBase):
    """Attributes and description of the layers with weights."""

    in_channels: int
    out_channels: int
    kernel_generator: KernelGenerator
    kernel: torch.nn.Parameter

    @property
    def use_mm(self) -> bool:
        """Whether the kernel is a matrix (in_channels, out_channels): one offset, stride 1."""
        return self.kernel.dim() == 2 and self.kernel_generator.kernel_volume == 1

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # MinkowskiEngine's 1D layers of kernel 1 ignore their stride, and keep a matrix.
        given = state_dict.get(f"{prefix}kernel")
        if given is not None and given.dim() == 2 and self.kernel.shape == (1, *given.shape):
            state_dict[f"{prefix}kernel"] = given[None]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __repr__(self) -> str:
        g = self.kernel_generator
        custom = g.region_type == RegionType.CUSTOM
        size = (
            f"region_type={g.region_type}, kernel_volume={g.kernel_volume}"
            if custom
            else f"kernel_size={g.kernel_size}"
        )
        channels = f"in={self.in_channels}, out={self.out_channels}"
        return f"{type(self).__name__}({channels}, {size}, stride={g.kernel_stride}, dilation={g.kernel_dilation})"


class MinkowskiConvolutionBase(_Described, _Convolution):
    """What the convolutions share.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, dilation: one number or one per axis.
        bias: add a bias (1, out_channels).
        kernel_generator: the kernel's shape, in place of size, stride and dilation.
        is_transpose: whether it goes to a finer stride.
        expand_coordinates: write to all voxels that the kernel reaches.
        convolution_mode: taken and without effect.
        dimension: number of axes.

    Attributes:
        kernel: (K, in_channels, out_channels), or (in_channels, out_channels) for one offset and stride 1.
        bias: (1, out_channels) or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = -1,
    ) -> None:
        generator = _generator(kernel_generator, kernel_size, stride, dilation, expand_coordinates, dimension)
        self.is_transposed = self.is_transpose = is_transpose
        _Convolution.__init__(
            self,
            in_channels,
            out_channels,
            generator.kernel,
            generator.kernel_stride,
            bias=bias,
            dimension=generator.dimension,
        )
        self.kernel_generator, self.convolution_mode = generator, convolution_mode

    def reset_parameters(self, is_transpose: bool | None = None) -> None:
        """Uniform within 1/sqrt(fan in), or fan out where transposed."""
        if is_transpose is not None:
            self.is_transposed = is_transpose
        _Convolution.reset_parameters(self)
        self.is_transposed = self.is_transpose

    def forward(self, input: SparseTensor, coordinates: Coordinates = None) -> SparseTensor:  # type: ignore[override]
        """Evaluate where the layer writes by itself, or at coordinates, a key, or the voxels of another tensor."""
        check_sparse(input, self.dimension)
        out: Any = _convolve(input, self.kernel, self.bias, self.kernel_generator, self.is_transpose, coordinates)
        return out


def _convolve(
    input: SparseTensor,
    weight: TorchTensor,
    bias: TorchTensor | None,
    generator: KernelGenerator,
    is_transpose: bool,
    coordinates: Coordinates,
) -> Any:
    stride, expand = generator.kernel_stride, generator.expand_coordinates
    if is_transpose:
        fine = [s // f for s, f in zip(input.tensor_stride, stride, strict=True)]
        target = None if coordinates is None else output_target(input, coordinates, fine)
        return F.conv_transpose(
            input, weight, bias, kernel=generator.kernel, stride=stride, coordinates=target, generative=expand
        )
    if coordinates is not None:
        target = output_target(input, coordinates, product(input.tensor_stride, stride))
    elif expand:
        target = input.coordinate_manager.expand(input.coordinate_map_key, generator.kernel, stride)
    else:
        target = None
    return F.convolve(input, weight, bias, kernel=generator.kernel, stride=stride, coordinates=target)


class MinkowskiConvolution(MinkowskiConvolutionBase, sparse_nn.Convolution):
    """Sparse convolution, `hepops.sparse.functional.convolve`; arguments as `MinkowskiConvolutionBase`.

    Example:
        >>> MinkowskiConvolution(1, 8, kernel_size=3, dimension=3)
        MinkowskiConvolution(in=1, out=8, kernel_size=[3, 3, 3], stride=[1, 1, 1], dilation=[1, 1, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ) -> None:
        MinkowskiConvolutionBase.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            False,
            expand_coordinates,
            convolution_mode,
            dimension,
        )


class MinkowskiConvolutionTranspose(MinkowskiConvolutionBase, sparse_nn.ConvolutionTranspose):
    """Transposed convolution onto the finer voxels that are known, else onto new ones."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ) -> None:
        MinkowskiConvolutionBase.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            True,
            expand_coordinates,
            convolution_mode,
            dimension,
        )


class MinkowskiGenerativeConvolutionTranspose(MinkowskiConvolutionBase, sparse_nn.GenerativeConvolutionTranspose):
    """Transposed convolution onto all voxels that the kernel reaches."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        convolution_mode: ConvolutionMode = ConvolutionMode.DEFAULT,
        dimension: int | None = None,
    ) -> None:
        MinkowskiConvolutionBase.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation,
            bias,
            kernel_generator,
            True,
            True,
            convolution_mode,
            dimension,
        )


class MinkowskiChannelwiseConvolution(_Described, sparse_nn.DepthwiseConvolution):
    """Convolution of each channel by itself; `kernel` is (K, in_channels)."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        bias: bool = False,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = -1,
    ) -> None:
        generator = _generator(kernel_generator, kernel_size, stride, dilation, False, dimension)
        sparse_nn.DepthwiseConvolution.__init__(
            self, in_channels, generator.kernel, generator.kernel_stride, bias=bias, dimension=generator.dimension
        )
        self.kernel_generator = generator
        self.kernel_shape = tuple(self.kernel.shape)

    @property
    def use_mm(self) -> bool:
        return False

    def forward(self, input: SparseTensor, coords: Coordinates = None) -> SparseTensor:  # type: ignore[override]
        """As `MinkowskiConvolution`; `coords` says where to evaluate (MinkowskiEngine takes it and does not look)."""
        check_sparse(input, self.dimension)
        stride = self.kernel_generator.kernel_stride
        target = None if coords is None else output_target(input, coords, product(input.tensor_stride, stride))
        out: Any = F.depthwise(
            input, self.kernel, self.bias, kernel=self.kernel_generator.kernel, stride=stride, coordinates=target
        )
        return out


class _Function:
    """`apply` as that of an autograd function: of tensors, keys and a manager; differentiable any number of times."""

    is_transpose = False

    @classmethod
    def apply(
        cls,
        input_features: TorchTensor,
        kernel_weights: TorchTensor,
        kernel_generator: KernelGenerator,
        convolution_mode: ConvolutionMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: Any = None,
    ) -> TorchTensor:
        """The features of a convolution; sets an output key that is not set."""
        x = SparseTensor(
            input_features, coordinate_map_key=in_coordinate_map_key, coordinate_manager=coordinate_manager
        )
        given = out_coordinate_map_key is not None and out_coordinate_map_key.is_key_set()
        target = out_coordinate_map_key if given else None
        y = _convolve(x, kernel_weights, None, kernel_generator, cls.is_transpose, target)
        if out_coordinate_map_key is not None and not given:
            out_coordinate_map_key.set_key(*y.coordinate_map_key.get_key())
        features: TorchTensor = y.features
        return features


class MinkowskiConvolutionFunction(_Function):
    """`MinkowskiConvolution` as a function."""


class MinkowskiConvolutionTransposeFunction(_Function):
    """`MinkowskiConvolutionTranspose` as a function."""

    is_transpose = True
