"""Small helpers that MinkowskiEngine shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from hepops.sparse.kernel import per_axis

StrideType = int | Sequence[int] | np.ndarray | Tensor


class MinkowskiModuleBase(nn.Module):
    """What MinkowskiEngine's layers share: nothing but being torch modules."""


def int_list(name: str, arg: StrideType, dimension: int, least: int = 1) -> list[int]:
    """One integer for each axis, from one or from `dimension` of them; refused by name."""
    return list(per_axis(name, arg.tolist() if isinstance(arg, np.ndarray) else arg, dimension, least))


def convert_to_int_list(arg: StrideType, dimension: int) -> list[int]:
    """One integer for each axis, from one or from `dimension` of them."""
    return int_list("arg", arg, dimension, least=0)


def convert_to_int_tensor(arg: StrideType, dimension: int) -> Tensor:
    """As `convert_to_int_list`, as an int32 tensor."""
    return torch.tensor(convert_to_int_list(arg, dimension), dtype=torch.int32)


def prep_args(
    tensor_stride: StrideType,
    stride: StrideType,
    kernel_size: StrideType,
    dilation: StrideType,
    region_type: int,
    D: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """All of them as int32 tensors with one entry per axis."""
    if D < 1:
        raise ValueError(f"D must be at least 1, got {D}")
    int_list("kernel_size", kernel_size, D)
    lists = [convert_to_int_tensor(arg, D) for arg in (tensor_stride, stride, kernel_size, dilation)]
    return lists[0], lists[1], lists[2], lists[3], int(region_type)


def get_postfix(tensor: Tensor) -> str:
    """ "GPU" or "CPU", after the device of the tensor."""
    return "GPU" if tensor.is_cuda else "CPU"


def absent(name: str, instead: str) -> NotImplementedError:
    """The refusal of what is not here."""
    return NotImplementedError(f"{name} is not part of hepops.compat.minkowski: {instead}")


def get_minkowski_function(name: str, variable: Any) -> NoReturn:
    raise absent(
        f"get_minkowski_function({name!r})",
        "there is no MinkowskiEngineBackend; use the layer or hepops.sparse.functional",
    )
