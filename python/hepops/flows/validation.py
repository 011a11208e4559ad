"""Bad numbers refused by name, where looking at them costs no wait."""

import math

import torch
from torch import Tensor


def reads_are_free(x: Tensor, asked: bool = False) -> bool:
    """Whether values of x may be read: on the CPU, or where it was asked for; never while a program is traced."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return asked or x.device.type == "cpu"


def check_values(who: str, name: str, x: Tensor, bounds: tuple[float | Tensor, float | Tensor] | None = None) -> None:
    """Raises a ValueError that counts what is NaN, infinite or outside [low, high], and shows the first of it.

    Args:
        who, name: Of the function and the argument, for the message.
        x: Any shape.
        bounds: (low, high), numbers or tensors that broadcast to x; both ends belong to the domain.
    """
    x = torch.view_as_real(x.detach()) if x.is_complex() else x.detach()
    # a finite sum has finite terms; a sum that overflows is looked at term by term
    if not math.isfinite(x.sum().item()):
        _refuse(who, name, x, ~x.isfinite(), "finite")
    if bounds is not None:
        low, high = bounds
        bad = (x < low) | (x > high)
        if bad.any():
            _refuse(who, name, x, bad, f"inside [{_show(low)}, {_show(high)}]")


def check_unit(who: str, name: str, x: Tensor, off: Tensor) -> None:
    """Raises a ValueError that counts the vectors of x, shape (*batch, D), that are `off` the sphere."""
    if off.any():
        first = x.detach()[off][0].tolist()
        raise ValueError(
            f"{who}: {name} must hold unit vectors, got {int(off.sum())} of {off.numel()} that are not, "
            f"the first {first}"
        )


def _refuse(who: str, name: str, x: Tensor, bad: Tensor, wanted: str) -> None:
    count = int(bad.sum())
    if count:
        place = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{who}: {name} must be {wanted}, got {count} of {x.numel()} that are not, the first {x[place].item()} "
            f"at {place}"
        )


def _show(bound: float | Tensor) -> str:
    return f"{bound:g}" if not isinstance(bound, Tensor) else str(bound.tolist())
