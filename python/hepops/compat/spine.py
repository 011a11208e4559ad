"""SPINE on hepops: a backend of its sparse layer, in the place of MinkowskiEngine.

SPINE (0.17 and later) takes every sparse operation from the module ``spine.model.sparse.backends.<name>``, where <name>
stands in SPINE_SPARSE_BACKEND. Importing this module puts it there under the name hepops, and makes it the choice where
the variable is not set::

    import hepops.compat.spine  # before SPINE's models
    from spine.model.uresnet import UResNetSegmentation

or, for SPINE's own command, ``python -m hepops.compat.spine --config uresnet.yaml``. SPINE's classes derive from those
below; constructors are MinkowskiEngine's, parameter names and layouts too, so that checkpoints go on unchanged.

References:
    | SPINE, https://github.com/DeepLearnPhysics/spine (its interface: spine/model/sparse/backend.py)
    | C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019 (MinkowskiEngine)
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from hepops.sparse import CoordinateManager, CoordinateMapKey, Kernel, SparseTensor
from hepops.sparse import functional as F
from hepops.sparse import nn as snn
from hepops.sparse.kernel import Size
from hepops.sparse.tensor import Duplicates

NAME = "hepops"
_PLACE = f"spine.model.sparse.backends.{NAME}"


class SparseTensorQuantizationMode(Enum):
    """What becomes of voxels that occur more than once, under MinkowskiEngine's names and numbers."""

    RANDOM_SUBSAMPLE = 0
    UNWEIGHTED_AVERAGE = 1
    UNWEIGHTED_SUM = 2
    NO_QUANTIZATION = 3
    MAX_POOL = 4
    SPLAT_LINEAR_INTERPOLATION = 5


_RULES: dict[str, Duplicates] = {
    "RANDOM_SUBSAMPLE": "first", "UNWEIGHTED_AVERAGE": "mean", "UNWEIGHTED_SUM": "sum", "NO_QUANTIZATION": "error",
    "MAX_POOL": "max",
}  # fmt: skip


# Tensors


def create_tensor(
    features: Tensor,
    coordinates: Tensor | None = None,
    tensor_stride: Size = 1,
    coordinate_map_key: CoordinateMapKey | None = None,
    coordinate_manager: CoordinateManager | None = None,
    duplicate_reduction: str | None = None,
    quantization_mode: Enum | None = None,
    **ignored: Any,
) -> SparseTensor:
    """A sparse tensor on new voxels, or on those of a key.

    Args:
        features: (N, C).
        coordinates: integers (N, 1 + D) [batch, x, y, ...]; rows keep their order.
        tensor_stride: voxels between neighbours.
        coordinate_map_key, coordinate_manager: voxels that are known, in place of coordinates; the manager alone is
            shared by the new voxels.
        duplicate_reduction: "sum", "mean" or "first", for voxels that occur more than once; by default an error.
        quantization_mode: the same as MinkowskiEngine says it.
        ignored: minkowski_algorithm and allocator_type, which choose among algorithms that are not here.

    Raises:
        ValueError: another duplicate_reduction, duplicates without one, or what SparseTensor refuses.

    Example:
        >>> voxels = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 0, 0]])
        >>> x = create_tensor(torch.ones(3, 1), voxels, duplicate_reduction="sum")
        >>> features(x).tolist(), inverse_mapping(x).tolist()
        ([[2.0], [1.0]], [0, 0, 1])
    """
    unknown = sorted(set(ignored) - {"minkowski_algorithm", "allocator_type", "device", "requires_grad"})
    if unknown:
        raise TypeError(f"create_tensor does not take {', '.join(unknown)}")
    if coordinate_map_key is not None:
        return SparseTensor(features, coordinate_map_key=coordinate_map_key, coordinate_manager=coordinate_manager)
    rule: Any = "error" if duplicate_reduction is None else duplicate_reduction
    if duplicate_reduction is None and quantization_mode is not None:
        if quantization_mode.name not in _RULES:
            raise ValueError(f"quantization_mode must be one of {', '.join(_RULES)}, got {quantization_mode.name}")
        rule = _RULES[quantization_mode.name]
    elif rule not in ("error", "sum", "mean", "first"):
        raise ValueError(f"duplicate_reduction must be sum, mean or first, got {rule!r}")
    return SparseTensor(features, coordinates, tensor_stride, coordinate_manager=coordinate_manager, duplicates=rule)


def concatenate(*tensors: SparseTensor) -> SparseTensor:
    """Channels side by side, on the same voxels."""
    return F.cat(*tensors)


def coordinates(tensor: SparseTensor) -> Tensor:
    """Integers (N, 1 + D) [batch, x, y, ...]."""
    return tensor.coordinates


def features(tensor: SparseTensor) -> Tensor:
    """(N, C)."""
    return tensor.features


def tensor_stride(tensor: SparseTensor) -> tuple[int, ...]:
    """Voxels between neighbours, per axis."""
    return tensor.stride


def coordinate_map_key(tensor: SparseTensor) -> CoordinateMapKey:
    """The name of the tensor's voxels in its manager."""
    return tensor.coordinate_map_key


def coordinate_manager(tensor: SparseTensor) -> CoordinateManager:
    """Who knows the voxels."""
    return tensor.coordinate_manager


def unique_index(tensor: SparseTensor) -> Tensor | None:
    """The given rows that were kept, for a tensor made from coordinates."""
    return tensor.unique_index


def inverse_mapping(tensor: SparseTensor) -> Tensor | None:
    """The kept row of each given row, for a tensor made from coordinates."""
    return tensor.inverse_mapping


def features_at_coordinates(tensor: SparseTensor, queries: Tensor) -> Tensor:
    """Multilinear values at real coordinates (Q, 1 + D), 0 where there is no voxel.

    Raises:
        ValueError: coordinates in half precision, beyond what it holds exactly: SPINE casts queries to the features'
            dtype, which above 2^11 (half) or 2^8 (bfloat16) would name other voxels.
    """
    if queries.dtype in (torch.float16, torch.bfloat16):
        limit = 2**11 if queries.dtype == torch.float16 else 2**8
        if queries.numel() and bool((queries.abs() > limit).any()):
            raise ValueError(f"queries in {queries.dtype} beyond {limit} do not say which voxel they mean")
        queries = queries.float()
    return F.interpolate(tensor, queries)


# Modules, with MinkowskiEngine's constructors


def _kernel(size: Size, dilation: Size, generator: Any, stride: Size, dimension: int | None) -> tuple[Kernel, Size]:
    """Kernel and stride of the arguments, or of a kernel generator in their place."""
    if dimension is None or dimension < 1:
        raise ValueError(f"dimension must be given, got {dimension}")
    if generator is None:
        if isinstance(size, int) and size == -1:
            raise ValueError("kernel_size must be given")
        return Kernel.of(_plain(size), dimension, _plain(dilation)), _plain(stride)
    if isinstance(generator, Kernel):
        return generator, _plain(stride)
    region = getattr(getattr(generator, "region_type", None), "name", "HYPER_CUBE")
    shapes = {"HYPER_CUBE": "box", "HYPER_CROSS": "cross", "CUSTOM": "custom"}
    if region not in shapes:
        raise ValueError(f"kernel_generator has region_type {region}; there are {', '.join(shapes)}")
    offsets = generator.region_offsets if region == "CUSTOM" else None
    shape: Any = shapes[region]
    kernel = Kernel.of(_plain(generator.kernel_size), dimension, _plain(generator.kernel_dilation), shape, offsets)
    return kernel, _plain(generator.kernel_stride)


def _plain(value: Any) -> Size:
    return value.tolist() if isinstance(value, Tensor) else value


class Network(nn.Module):
    """What SPINE's networks derive from: a module that knows its dimension D."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.D = D


class Convolution(snn.Convolution):
    """Sparse convolution; with expand_coordinates, at stride 1, onto all voxels that its kernel reaches."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = -1,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        kernel_generator: Any = None,
        expand_coordinates: bool = False,
        convolution_mode: Any = None,
        dimension: int | None = None,
    ) -> None:
        kernel, stride = _kernel(kernel_size, dilation, kernel_generator, stride, dimension)
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias, dimension=kernel.dimension)
        self.expand_coordinates = expand_coordinates or bool(getattr(kernel_generator, "expand_coordinates", False))
        if self.expand_coordinates and any(s != 1 for s in self.stride):
            raise ValueError(f"expand_coordinates needs stride 1, got {self.stride}")

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        if self.expand_coordinates and coordinates is None:
            # c + offset has the offsets of a transposed kernel: those of this one, turned round
            back = Kernel.of(0, self.dimension, offsets=-self.shape.table())
            coordinates = input.coordinate_manager.generate(input.coordinate_map_key, back, 1)
        return super().forward(input, coordinates)


class ConvolutionTranspose(snn.ConvolutionTranspose):
    """Transposed convolution, onto the finer voxels that are known; with expand_coordinates, onto all it reaches."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = -1,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        kernel_generator: Any = None,
        expand_coordinates: bool = False,
        convolution_mode: Any = None,
        dimension: int | None = None,
    ) -> None:
        kernel, stride = _kernel(kernel_size, dilation, kernel_generator, stride, dimension)
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias, dimension=kernel.dimension)
        self.is_generative = expand_coordinates or bool(getattr(kernel_generator, "expand_coordinates", False))


class ChannelwiseConvolution(snn.DepthwiseConvolution):
    """Convolution of each channel by itself."""

    def __init__(
        self,
        in_channels: int,
        kernel_size: Size = -1,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = False,
        kernel_generator: Any = None,
        dimension: int = -1,
    ) -> None:
        kernel, stride = _kernel(kernel_size, dilation, kernel_generator, stride, dimension)
        super().__init__(in_channels, kernel, stride, bias=bias, dimension=kernel.dimension)


class _Pooling:
    """MinkowskiEngine's constructor of a pool."""

    def __init__(
        self,
        kernel_size: Size = -1,
        stride: Size = 1,
        dilation: Size = 1,
        kernel_generator: Any = None,
        dimension: int | None = None,
    ) -> None:
        kernel, stride = _kernel(kernel_size, dilation, kernel_generator, stride, dimension)
        super().__init__(kernel, stride, dimension=kernel.dimension)  # type: ignore[call-arg]


class MaxPooling(_Pooling, snn.MaxPool):
    """Largest active neighbour."""


class AvgPooling(_Pooling, snn.AvgPool):
    """Mean of the active neighbours."""


class SumPooling(_Pooling, snn.SumPool):
    """Sum of the active neighbours."""


class PoolingTranspose(snn.PoolTranspose):
    """Features spread to the finer voxels."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size,
        dilation: Size = 1,
        kernel_generator: Any = None,
        expand_coordinates: bool = False,
        dimension: int | None = None,
    ) -> None:
        kernel, stride = _kernel(kernel_size, dilation, kernel_generator, stride, dimension)
        super().__init__(kernel, stride, dimension=kernel.dimension)
        self.is_generative = expand_coordinates or bool(getattr(kernel_generator, "expand_coordinates", False))

    def forward(self, input: SparseTensor, coordinates: F.Target = None) -> SparseTensor:
        return F.pool_transpose(
            input, kernel=self.shape, stride=self.stride, coordinates=coordinates, generative=self.is_generative
        )


class GlobalPooling(snn.GlobalAvgPool):
    """Mean, or as `mode` says (GLOBAL_SUM_..., GLOBAL_AVG_..., GLOBAL_MAX_...), of each event's voxels."""

    def __init__(self, mode: Any = None) -> None:
        super().__init__()
        name = getattr(mode, "name", mode)
        found = [m for m in ("sum", "avg", "max") if name is not None and m in str(name).lower()]
        if name is not None and len(found) != 1:
            raise ValueError(
                f"mode must be one of MinkowskiEngine's GLOBAL_SUM, GLOBAL_AVG or GLOBAL_MAX, got {mode!r}"
            )
        self.mode: Any = found[0] if found else "avg"


class _GlobalPooling:
    def __init__(self, mode: Any = None) -> None:  # which of MinkowskiEngine's algorithms; there is one here
        super().__init__()


class GlobalAvgPooling(_GlobalPooling, snn.GlobalAvgPool):
    """Mean of each event's voxels."""


class GlobalSumPooling(_GlobalPooling, snn.GlobalSumPool):
    """Sum of each event's voxels."""


class GlobalMaxPooling(_GlobalPooling, snn.GlobalMaxPool):
    """Largest of each event's voxels."""


MODULES: dict[str, type[nn.Module]] = {
    "Network": Network,
    "Convolution": Convolution,
    "ConvolutionTranspose": ConvolutionTranspose,
    "ChannelwiseConvolution": ChannelwiseConvolution,
    "Linear": snn.Linear,
    "BatchNorm": snn.BatchNorm,
    "InstanceNorm": snn.InstanceNorm,
    "Dropout": snn.Dropout,
    "ReLU": snn.ReLU,
    "PReLU": snn.PReLU,
    "SELU": snn.SELU,
    "CELU": snn.CELU,
    "LeakyReLU": snn.LeakyReLU,
    "ELU": snn.ELU,
    "Tanh": snn.Tanh,
    "Sigmoid": snn.Sigmoid,
    "Softplus": snn.Softplus,
    "MaxPooling": MaxPooling,
    "AvgPooling": AvgPooling,
    "SumPooling": SumPooling,
    "PoolingTranspose": PoolingTranspose,
    "GlobalPooling": GlobalPooling,
    "GlobalAvgPooling": GlobalAvgPooling,
    "GlobalSumPooling": GlobalSumPooling,
    "GlobalMaxPooling": GlobalMaxPooling,
    "Pruning": snn.Prune,
    "Broadcast": snn.Broadcast,
    "BroadcastMultiplication": snn.BroadcastMultiply,
}


def module(operation: str) -> type[nn.Module]:
    """The class of an operation by SPINE's name for it.

    Raises:
        ValueError: there is none.

    Example:
        >>> module("Convolution")(1, 8, kernel_size=3, dimension=2).kernel.shape
        torch.Size([9, 1, 8])
    """
    if operation not in MODULES:
        raise ValueError(f"operation must be one of {', '.join(MODULES)}, got {operation!r}")
    return MODULES[operation]


# Selection


def install() -> None:
    """Put this backend where SPINE looks for it, and select it unless SPINE_SPARSE_BACKEND names another.

    Importing this module does it.

    Raises:
        RuntimeError: SPINE was imported before, with another backend.
    """
    sys.modules[_PLACE] = sys.modules[__name__]
    chosen = os.environ.setdefault("SPINE_SPARSE_BACKEND", NAME)
    spine = sys.modules.get("spine.model.sparse.backend")
    if chosen == NAME and spine is not None and spine.name() != NAME:
        raise RuntimeError(
            f"SPINE was imported before hepops.compat.spine, with the backend {spine.name()!r}: import it after, or "
            f"set SPINE_SPARSE_BACKEND={NAME}"
        )


def main() -> None:
    """SPINE's own command on this backend; arguments are its."""
    from importlib.metadata import entry_points

    install()
    scripts = entry_points(group="console_scripts", name="spine")
    if not scripts:
        raise SystemExit("python -m hepops.compat.spine needs SPINE: pip install spine")
    sys.argv[0] = "spine"
    next(iter(scripts)).load()()


if __name__ == "__main__":
    from hepops.compat.spine import main as run

    run()
else:
    install()
