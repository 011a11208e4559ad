"""Kernels as MinkowskiEngine describes them: a region type, a size, offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepops.sparse.kernel import Kernel

from .common import StrideType, absent, int_list
from .enums import RegionType

_SHAPES = {RegionType.HYPER_CUBE: "box", RegionType.HYPER_CROSS: "cross"}


def region_kernel(
    region_type: RegionType | int,
    kernel_size: StrideType,
    dilation: StrideType,
    region_offsets: Tensor | Sequence[Sequence[int]] | None,
    dimension: int,
) -> Kernel:
    """The kernel of a region; offsets are in voxels of the input's stride, and the dilation multiplies them.

    Raises:
        ValueError: CUSTOM without offsets, another region with them, or a size that does not fit.
    """
    region = RegionType(region_type)
    given = region_offsets is not None and len(region_offsets) > 0
    if given != (region == RegionType.CUSTOM):
        raise ValueError(f"region_offsets are for RegionType.CUSTOM and needed there, got {region} {region_offsets}")
    dilation = int_list("dilation", dilation, dimension)
    if region == RegionType.CUSTOM:
        return Kernel.of(1, dimension, dilation, offsets=region_offsets)
    return Kernel.of(int_list("kernel_size", kernel_size, dimension), dimension, dilation, _SHAPES[region])  # type: ignore[arg-type]


def get_kernel_volume(
    region_type: RegionType,
    kernel_size: StrideType,
    region_offset: Tensor | None,
    axis_types: Any,
    dimension: int,
) -> int:
    """The number of offsets of a kernel."""
    if axis_types is not None:
        raise absent("axis_types", "give RegionType.CUSTOM and its offsets")
    return region_kernel(region_type, kernel_size, 1, region_offset, dimension).volume


def convert_region_type(
    region_type: RegionType,
    tensor_stride: StrideType,
    kernel_size: StrideType,
    up_stride: StrideType,
    dilation: StrideType,
    region_offset: Tensor | None,
    axis_types: Any,
    dimension: int,
    center: bool = True,
) -> tuple[RegionType, Tensor, int]:
    """(region type, offsets, number of offsets); the offsets are empty unless they are custom ones."""
    if not center:
        raise absent("center=False", "give RegionType.CUSTOM and its offsets")
    volume = get_kernel_volume(region_type, kernel_size, region_offset, axis_types, dimension)
    offsets = torch.zeros(0, dtype=torch.int32) if region_offset is None else torch.as_tensor(region_offset).int()
    return RegionType(region_type), offsets, volume


class KernelGenerator:
    """The shape of a kernel: size, stride, dilation and region.

    Args:
        kernel_size: one number or one per axis; not needed for RegionType.CUSTOM.
        stride, dilation: one number or one per axis.
        is_transpose: taken and without effect: the layer says so.
        region_type: a box, a cross, or CUSTOM with `region_offsets` (K, dimension).
        expand_coordinates: whether the layer writes to all voxels that the kernel reaches.
        dimension: number of axes.

    Example:
        >>> KernelGenerator(3, region_type=RegionType.HYPER_CROSS, dimension=3).kernel_volume
        7
    """

    def __init__(
        self,
        kernel_size: StrideType = -1,
        stride: StrideType = 1,
        dilation: StrideType = 1,
        is_transpose: bool = False,
        region_type: RegionType = RegionType.HYPER_CUBE,
        region_offsets: Tensor | None = None,
        expand_coordinates: bool = False,
        axis_types: Any = None,
        dimension: int = -1,
    ) -> None:
        if dimension is None or dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {dimension}")
        if axis_types is not None:
            raise absent("axis_types", "give RegionType.CUSTOM and its offsets")
        self.kernel = region_kernel(region_type, kernel_size, dilation, region_offsets, dimension)
        self.kernel_size = list(self.kernel.size)
        self.kernel_stride = int_list("stride", stride, dimension)
        self.kernel_dilation = list(self.kernel.dilation)
        self.region_type = RegionType(region_type)
        self.region_offsets = (
            torch.zeros(0, dtype=torch.int32) if region_offsets is None else torch.as_tensor(region_offsets).int()
        )
        self.axis_types = None
        self.dimension = dimension
        self.kernel_volume = self.kernel.volume
        self.requires_strided_coordinates = all(s == 1 for s in self.kernel_stride)
        self.expand_coordinates = expand_coordinates
        self.cache: dict[tuple[int, ...], tuple[RegionType, Tensor, int]] = {}

    def get_kernel(self, tensor_stride: Sequence[int], is_transpose: bool) -> tuple[RegionType, Tensor, int]:
        """(region type, offsets, number of offsets)."""
        if len(tensor_stride) != self.dimension:
            raise ValueError(f"tensor_stride must have {self.dimension} entries, got {list(tensor_stride)}")
        return self.region_type, self.region_offsets, self.kernel_volume

    def __repr__(self) -> str:
        return (
            f"KernelGenerator(kernel_size={self.kernel_size}, kernel_stride={self.kernel_stride}, "
            f"kernel_dilation={self.kernel_dilation}, region_type={self.region_type}, "
            f"expand_coordinates={self.expand_coordinates}, dimension={self.dimension})"
        )


class _Region(NamedTuple):
    kernel_size: list[int]
    kernel_stride: list[int]
    kernel_dilation: list[int]
    region_type: RegionType
    offset: Any
    D: int


class KernelRegion(_Region):
    """Size, stride, dilation, type, offsets and dimension as a tuple."""

    def __new__(
        cls,
        kernel_size: StrideType,
        kernel_stride: StrideType,
        kernel_dilation: StrideType,
        region_type: RegionType,
        offset: Any,
        dimension: int,
    ) -> KernelRegion:
        names = ("kernel_size", "kernel_stride", "kernel_dilation")
        values = (kernel_size, kernel_stride, kernel_dilation)
        size, stride, dilation = (int_list(name, x, dimension) for name, x in zip(names, values, strict=True))
        return super().__new__(cls, size, stride, dilation, region_type, offset, dimension)

    def __str__(self) -> str:
        return f"kernel_size:{self.kernel_size}, kernel_stride:{self.kernel_stride}, region_type:{self.region_type}"


def save_ctx(
    ctx: Any, kernel_generator: KernelGenerator, in_coords_key: Any, out_coords_key: Any, coordinate_manager: Any
) -> Any:
    """Note on an autograd context what a kernel map was made of."""
    ctx.kernel_generator = kernel_generator
    ctx.in_coordinate_map_key = in_coords_key
    ctx.out_coordinate_map_key = out_coords_key
    ctx.coordinate_manager = coordinate_manager
    return ctx
