"""Couplings that are plain numbers."""

import math
from typing import Any

from torch import Tensor


def real_number(who: str, name: str, value: Any) -> float:
    """A coupling as a float; a tensor of one number is read.

    Raises:
        TypeError: no real number, or one that wants a gradient, which would be lost.
        ValueError: it is not finite.
    """
    if isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(f"{who}: {name} has no gradient here and must be a plain number, got {value!r}")
    try:
        number = float(value) if not isinstance(value, str) else None
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise TypeError(f"{who}: {name} must be a real number, got {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"{who}: {name} must be a finite number, got {value!r}")
    return number
