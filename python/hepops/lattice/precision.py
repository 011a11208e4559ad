"""What a theory stores, computes and sums in."""

import torch
from torch import Tensor


def is_wide(who: str, compute: torch.dtype | None) -> bool:
    """Whether float32 fields are computed in double.

    Raises:
        ValueError: neither None nor torch.float64.
    """
    if compute not in (None, torch.float64):
        raise ValueError(f"{who}: compute must be None or torch.float64, got {compute}")
    return compute is not None


def is_accurate(who: str, accumulate: str) -> bool:
    """Whether sums over sites are in double-double.

    Raises:
        ValueError: neither "double" nor "double-double".
    """
    if accumulate not in ("double", "double-double"):
        raise ValueError(f'{who}: accumulate must be "double" or "double-double", got {accumulate!r}')
    return accumulate == "double-double"


def working_dtype(field: Tensor) -> torch.dtype:
    """float32 for halves."""
    return torch.promote_types(field.dtype, torch.float32)
