"""What the operators over a kernel map share: its lists as arguments, and the checks that need no GPU to answer."""

from typing import Any, Protocol

import torch
from torch import Tensor

Lists = tuple[Tensor, Tensor, Tensor, Tensor]
"""pairs (P, 2), entries (E + 1, 2), tiles (T + 1), schedule (rows), as csrc/sparse/pairs.h defines them."""


class KernelMapLike(Protocol):
    """What the operators ask of a kernel map: `hepops.sparse.KernelMap` has it, and so may a tuple of given tensors."""

    @property
    def forward(self) -> Lists:
        """The triples by the rows that are written."""

    @property
    def backward(self) -> Lists:
        """The same triples by the rows that are read."""

    @property
    def mirrored(self) -> bool:
        """Whether `backward` is `forward` with offset K - 1 - k for k."""

    @property
    def volume(self) -> int:
        """K, the number of offsets."""


def check_map(name: str, kernel_map: KernelMapLike, volume: Any, x: Tensor) -> None:
    """Raise a ValueError where the map has another volume, or reads another number of rows."""
    if volume != kernel_map.volume:
        raise ValueError(f"{name}: weight has {volume} offsets, the kernel map {kernel_map.volume}")
    rows = getattr(kernel_map, "num_in", None)
    if rows is not None and x.shape[0] != rows:
        raise ValueError(f"{name}: x has {x.shape[0]} rows, the kernel map reads {rows}")


def lists_of(kernel_map: KernelMapLike, x: Tensor) -> tuple[Lists, Lists]:
    """Both lists; where no gradient of x will be asked for, the second is not built, and the first stands for it."""
    forward = kernel_map.forward
    if kernel_map.mirrored or not (x.requires_grad and torch.is_grad_enabled()):
        return forward, forward
    return forward, kernel_map.backward


def autocast(x: Tensor) -> Tensor:
    """The features in the dtype of torch.autocast, where that is on; float64 stays."""
    if torch.is_autocast_enabled(x.device.type) and x.is_floating_point() and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def _tf32_switch() -> bool:
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


# What torch.compiler.assume_constant_result does, but for its import of the compiler, a second and a half.
_tf32_switch._dynamo_marked_constant = True  # type: ignore[attr-defined]


def tf32_allowed(x: Tensor) -> bool:
    """Whether torch lets a GPU multiply these numbers in tf32. A compiled graph keeps what held at its trace."""
    return x.is_cuda and x.dtype == torch.float32 and _tf32_switch()
