"""Tensors side by side, and from and to dense ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor as TorchTensor
from torch import nn

from hepops.sparse import nn as sparse_nn

from .common import MinkowskiModuleBase
from .field import TensorField
from .layer import Input, check_sparse
from .tensor import SparseTensor


class MinkowskiLinear(MinkowskiModuleBase, sparse_nn.Linear):
    """features W^T + b, the same for every voxel or point; weights are those of `linear`, a torch.nn.Linear."""

    def forward(self, input: Any) -> Any:
        if isinstance(input, TensorField):
            return input.replace(self.linear(input.features))
        check_sparse(input)
        return sparse_nn.Linear.forward(self, input)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.linear.extra_repr()})"


def _tuple_operator(*tensors: Any, operator: Callable[[list[TorchTensor]], TorchTensor]) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    if len(tensors) < 2:
        raise ValueError(f"needs at least 2 tensors, got {len(tensors)}")
    first = tensors[0]
    if not isinstance(first, (SparseTensor, TensorField)):
        raise TypeError(f"needs SparseTensors or TensorFields, got {type(first).__name__}")
    for other in tensors:
        first._is_same_key(other)
        if other.device != first.device:
            raise ValueError(f"the tensors are on different devices, {first.device} and {other.device}")
    return first.replace(operator([x.features for x in tensors]))


def cat(*sparse_tensors: Any) -> Any:
    """Channels side by side, of tensors on the same voxels or points.

    Raises:
        ValueError: the voxels or the coordinate managers differ.
    """
    return _tuple_operator(*sparse_tensors, operator=lambda xs: torch.cat(xs, -1))


def _sum(*sparse_tensors: Any) -> Any:
    """The sum of tensors on the same voxels or points."""
    return _tuple_operator(*sparse_tensors, operator=lambda xs: torch.stack(xs).sum(0))


def mean(*sparse_tensors: Any) -> Any:
    """The mean of tensors on the same voxels or points."""
    return _tuple_operator(*sparse_tensors, operator=lambda xs: torch.stack(xs).mean(0))


def var(*sparse_tensors: Any) -> Any:
    """The variance (divided by their number) of tensors on the same voxels or points."""
    return _tuple_operator(*sparse_tensors, operator=lambda xs: torch.stack(xs).var(0, correction=0))


def dense_coordinates(shape: Sequence[int] | torch.Size) -> TorchTensor:
    """The coordinates int32 (B X Y ..., 1 + D) of all cells of a grid (B, C, X, Y, ...), the last axis fastest."""
    if len(shape) < 3:
        raise ValueError(f"shape must be (B, C, X, ...), got {tuple(shape)}")
    axes = [torch.arange(n) for n in (shape[0], *shape[2:])]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes)).int()


def to_sparse(x: TorchTensor, format: str | None = None, coordinates: Any = None, device: Any = None) -> SparseTensor:
    """The cells of a dense grid that are not 0 in every channel, sorted by batch, then x, y, ...

    Args:
        x: grid; its first axis is the batch.
        format: one letter per axis, B first, one C, the rest X; "BCX...X" by default.
        coordinates: the cells to take, int (N, 1 + D), in place of those that are not 0.
        device: where the tensor is made.

    Differentiable any number of times in `x`.

    Raises:
        ValueError: a format that does not fit.
    """
    if x.dim() < 3:
        raise ValueError(f"x must be (B, C, X, ...), got {tuple(x.shape)}")
    format = "BC" + "X" * (x.dim() - 2) if format is None else format
    if sorted(format) != sorted("BC" + "X" * (x.dim() - 2)) or format[0] != "B":
        raise ValueError(f"format must have {x.dim()} letters, B first, one C and else X, got {format!r}")
    cells = x.movedim(format.find("C"), -1)
    found = (cells.detach() != 0).any(-1).nonzero() if coordinates is None else coordinates.long()
    features = cells[tuple(found.to(x.device).unbind(1))]
    return SparseTensor(features, found.int().to(x.device), device=device)


def to_sparse_all(dense_tensor: TorchTensor, coordinates: TorchTensor | None = None) -> SparseTensor:
    """All cells of a dense grid (B, C, X, Y, ...) as voxels; `coordinates` as `dense_coordinates` gives them."""
    if dense_tensor.dim() < 3:
        raise ValueError(f"dense_tensor must be (B, C, X, ...), got {tuple(dense_tensor.shape)}")
    if coordinates is None:
        coordinates = dense_coordinates(dense_tensor.shape)
    features = dense_tensor.movedim(1, -1).reshape(-1, dense_tensor.shape[1])
    return SparseTensor(features, coordinates.to(dense_tensor.device))


class MinkowskiToSparseTensor(MinkowskiModuleBase):
    """A dense grid, or a TensorField, as SparseTensor.

    Args:
        remove_zeros: take the cells of a grid that are not 0; else all.
        coordinates: of all cells, as `dense_coordinates` gives them; then all cells are taken.
    """

    def __init__(self, remove_zeros: bool = True, coordinates: TorchTensor | None = None) -> None:
        super().__init__()
        self.remove_zeros = remove_zeros
        self.coordinates = coordinates

    def forward(self, input: TensorField | TorchTensor) -> SparseTensor:
        if isinstance(input, TensorField):
            return input.sparse()
        if not isinstance(input, TorchTensor):
            raise TypeError(f"input must be a TensorField or a torch.Tensor, got {type(input).__name__}")
        if self.remove_zeros and self.coordinates is None:
            return to_sparse(input)
        return to_sparse_all(input, self.coordinates)

    def __repr__(self) -> str:
        return "MinkowskiToSparseTensor()"


class MinkowskiToDenseTensor(MinkowskiModuleBase):
    """A SparseTensor as a dense grid (B, C, X, Y, ...); `shape` is that of `SparseTensor.dense`."""

    def __init__(self, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, input: SparseTensor) -> TorchTensor:
        return input.dense(self.shape)[0]

    def __repr__(self) -> str:
        return "MinkowskiToDenseTensor()"


class MinkowskiToFeature(MinkowskiModuleBase):
    """The features."""

    def forward(self, x: Input) -> TorchTensor:
        if not isinstance(x, (SparseTensor, TensorField)):
            raise TypeError(f"x must be a SparseTensor or a TensorField, got {type(x).__name__}")
        return x.features


class MinkowskiStackCat(nn.Sequential):
    """Modules side by side: their outputs concatenated."""

    def forward(self, x: Any) -> Any:
        return cat([module(x) for module in self])


class MinkowskiStackSum(nn.Sequential):
    """Modules side by side: the sum of their outputs."""

    def forward(self, x: Any) -> Any:
        return _sum([module(x) for module in self])


class MinkowskiStackMean(nn.Sequential):
    """Modules side by side: the mean of their outputs."""

    def forward(self, x: Any) -> Any:
        return mean([module(x) for module in self])


class MinkowskiStackVar(nn.Sequential):
    """Modules side by side: the variance of their outputs."""

    def forward(self, x: Any) -> Any:
        return var([module(x) for module in self])
