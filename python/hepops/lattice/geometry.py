"""Sites of a periodic lattice, and the field at a neighbour of every site."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor


def checked_shape(who: str, shape: Sequence[int]) -> torch.Size:
    """The extents (L_1, ..., L_D), D = 1 ... 4.

    Raises:
        TypeError: no sequence of integers.
        ValueError: no or too many dimensions, or an extent below 1.
    """
    try:
        extents = tuple(operator.index(extent) for extent in shape)  # NumPy's integers too
    except TypeError:
        raise TypeError(f"{who}: shape must be a sequence of extents, got {shape!r}") from None
    if not 1 <= len(extents) <= 4 or min(extents) < 1:
        raise ValueError(f"{who}: shape must hold 1 to 4 extents of at least 1, got {extents}")
    return torch.Size(extents)


def neighbour(field: Tensor, mu: int, dims: int, steps: int = 1, behind: int = 0) -> Tensor:
    r"""The field at :math:`x + steps\,\hat\mu`, for every site x.

    Args:
        field: The last `dims` dimensions, but for `behind` more behind them, are those of the lattice.
        mu: Direction.
        dims: D.
        steps: Negative ones go back.
        behind: Dimensions behind the lattice: 2 for matrices.
    """
    return torch.roll(field, -steps, field.dim() - behind - dims + mu)
