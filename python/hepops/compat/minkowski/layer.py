"""What layers and functions do with either kind of tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor as TorchTensor

from .field import TensorField
from .tensor import SparseTensor

Input = SparseTensor | TensorField


def wrap(input: Any, features: TorchTensor) -> Any:
    """The voxels or points of `input` with other features."""
    return input.replace(features)


def check_sparse(input: Any, dimension: int | None = None) -> None:
    """Refuse what a layer cannot take.

    Raises:
        TypeError: no SparseTensor. ValueError: another number of axes.
    """
    if not isinstance(input, SparseTensor):
        raise TypeError(f"input must be a SparseTensor, got {type(input).__name__}")
    if dimension is not None and input.D != dimension:
        raise ValueError(f"input has {input.D} axes, the layer {dimension}")


def product(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """The products axis by axis."""
    return [x * y for x, y in zip(a, b, strict=True)]
