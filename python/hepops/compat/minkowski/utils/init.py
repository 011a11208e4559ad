"""Initialisation of kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() < 2:
        raise ValueError(f"tensor must have at least 2 axes, got shape {tuple(tensor.shape)}")
    if tensor.dim() == 2:  # a matrix counts as torch.nn.Linear's weight, although a kernel's is the transpose
        return tensor.shape[1], tensor.shape[0]
    return tensor.shape[0] * tensor.shape[1], tensor.shape[0] * tensor.shape[2]


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be fan_in or fan_out, got {mode!r}")
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Tensor:
    """Normal numbers of width gain / sqrt(fan), in place, for a kernel (K, C_in, C_out).

    The fan is K C_in or K C_out; of a matrix the columns are the fan in, as MinkowskiEngine has it.

    Raises:
        ValueError: another mode, or fewer than 2 axes.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, Delving Deep into Rectifiers, ICCV 2015
    """
    fan = _calculate_correct_fan(tensor, mode)
    gain = torch.nn.init.calculate_gain(nonlinearity, a)  # type: ignore[arg-type]
    with torch.no_grad():
        return tensor.normal_(0, gain / math.sqrt(fan))
