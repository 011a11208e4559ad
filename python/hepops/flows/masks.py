"""Masks of couplings on a lattice: True for what is changed. Sites are (L_1, ..., L_D), with channels before them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def checkerboard(shape: Sequence[int], parity: int = 0) -> Tensor:
    r"""Sites of :math:`\sum_\mu x_\mu \bmod 2 = parity`.

    Every neighbour of a changed site is left, on a torus if the extents are even.

    Args:
        shape: (L_1, ..., L_D).
        parity: 0 or 1.

    Example:
        >>> hepops.flows.checkerboard((2, 4)).int()
        tensor([[1, 0, 1, 0],
                [0, 1, 0, 1]], dtype=torch.int32)
    """
    _check("checkerboard", shape)
    total = torch.zeros(tuple(shape), dtype=torch.int64)
    for mu, extent in enumerate(shape):
        total += torch.arange(extent).view(-1, *[1] * (len(shape) - mu - 1))
    return total % 2 == parity % 2


def stripes(shape: Sequence[int], axis: int, period: int = 4, offset: int = 0, width: int = 1) -> Tensor:
    r"""Hyperplanes across an axis: :math:`(x_{axis} - offset) \bmod period < width`.

    Args:
        shape: (L_1, ..., L_D).
        axis: The one that is counted along.
        period, offset, width: Where the planes are; a gauge coupling in two dimensions takes every fourth.

    Example:
        >>> hepops.flows.stripes((6,), 0, period=3, offset=1).int()
        tensor([0, 1, 0, 0, 1, 0], dtype=torch.int32)
    """
    _check("stripes", shape)
    if not (period >= 1 and 0 < width <= period):
        raise ValueError(f"stripes: needs 0 < width <= period, got width {width} and period {period}")
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"stripes: axis must be one of {len(shape)}, got {axis}")
    axis %= len(shape)
    line = (torch.arange(shape[axis]) - offset) % period < width
    return line.view(-1, *[1] * (len(shape) - axis - 1)).expand(tuple(shape)).clone()


def blocks(shape: Sequence[int], size: int | Sequence[int], parity: int = 0) -> Tensor:
    """A checkerboard of blocks: those of even (or odd) block coordinates' sum.

    Args:
        shape: (L_1, ..., L_D).
        size: Of a block, one number or one for each direction.
        parity: 0 or 1.

    Example:
        >>> hepops.flows.blocks((4,), 2).int()
        tensor([1, 1, 0, 0], dtype=torch.int32)
    """
    _check("blocks", shape)
    sizes = [size] * len(shape) if isinstance(size, int) else list(size)
    if len(sizes) != len(shape) or min(sizes, default=1) < 1:
        raise ValueError(f"blocks: size must be positive, one or {len(shape)} numbers, got {size}")
    total = torch.zeros(tuple(shape), dtype=torch.int64)
    for mu, (extent, s) in enumerate(zip(shape, sizes, strict=True)):
        total += (torch.arange(extent) // s).view(-1, *[1] * (len(shape) - mu - 1))
    return total % 2 == parity % 2


def autoregressive(shape: Sequence[int], groups: int) -> list[Tensor]:
    """Masks for couplings in turn: the k-th changes the k-th of `groups` equal ranges of the sites, row by row.

    Args:
        shape: (L_1, ..., L_D).
        groups: How many; the sites divide into them as evenly as they can.

    Example:
        >>> [m.int().tolist() for m in hepops.flows.masks.autoregressive((4,), 2)]
        [[1, 1, 0, 0], [0, 0, 1, 1]]
    """
    _check("autoregressive", shape)
    sites = torch.Size(shape).numel()
    if not 1 <= groups <= sites:
        raise ValueError(f"autoregressive: groups must be in [1, {sites}], got {groups}")
    group = torch.arange(sites) * groups // sites
    return [(group == k).view(tuple(shape)) for k in range(groups)]


def _check(who: str, shape: Sequence[int]) -> None:
    if not len(shape) or min(shape) < 1:
        raise ValueError(f"{who}: shape must hold positive extents, got {tuple(shape)}")
