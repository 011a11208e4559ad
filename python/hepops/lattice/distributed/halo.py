"""The margin of a box: the field of its neighbours, and where their gradients go."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .grid import Grid


def halo(x: Tensor, grid: Grid, width: int | Sequence[int], *, behind: int = 0) -> Tensor:
    r"""A box of a field with a margin from its neighbours: each direction grows by 2 `width`.

    Direction after direction, so that the corners come along. The backward sends the margins' gradients back to those
    whose sites they are and adds them; it is itself such an exchange, and differentiable.

    Args:
        x: This rank's box, shape (..., *grid.local_shape, *behind), real or complex.
        grid: How the lattice is cut. All ranks must call alike, forward and backward.
        width: Sites on each side, one number or one for each direction, at most the box's extents.
        behind: Dimensions behind the lattice's: 2 for matrices.

    Returns:
        Shape (..., L + 2 width, *behind). Deterministic.

    Raises:
        TypeError: a width is no whole number.
        ValueError: x is no box of the grid, or a width is negative or above the box's extent.

    Example:
        >>> grid = hepops.lattice.distributed.Grid((3,), (1,))
        >>> hepops.lattice.distributed.halo(torch.tensor([1.0, 2.0, 3.0]), grid, 1)
        tensor([3., 1., 2., 3., 1.])
    """
    widths = _widths(width, grid)
    start = grid.axis(x, 0, behind)
    if start < 0 or x.shape[start : start + grid.dims] != grid.local_shape:
        raise ValueError(f"halo: x must live on a box of {tuple(grid.local_shape)}, got shape {tuple(x.shape)}")
    if len(widths) != grid.dims or any(not 0 <= w <= L for w, L in zip(widths, grid.local_shape, strict=True)):
        raise ValueError(f"halo: width must lie in [0, L] for the box {tuple(grid.local_shape)}, got {width}")
    for mu, w in enumerate(widths):
        if w:
            x = _Extend.apply(x, grid, mu, start + mu, w)
    return x


def _widths(width: int | Sequence[int], grid: Grid) -> list[int]:
    """One for each direction."""
    try:
        return [operator.index(width)] * grid.dims if hasattr(width, "__index__") else [*map(operator.index, width)]
    except TypeError:
        raise TypeError(f"halo: width must be a whole number, or one for each direction, got {width!r}") from None


def interior(x: Tensor, grid: Grid, width: int | Sequence[int], *, behind: int = 0) -> Tensor:
    """What :func:`halo` began with: x without its margin."""
    widths = _widths(width, grid)
    start = grid.axis(x, 0, behind)
    for mu, w in enumerate(widths):
        x = x.narrow(start + mu, w, x.shape[start + mu] - 2 * w)
    return x


def _exchange(to_behind: Tensor, to_ahead: Tensor, grid: Grid, mu: int) -> tuple[Tensor, Tensor]:
    """Send both, and receive what those behind and ahead sent this way."""
    if grid.ranks[mu] == 1:
        return to_ahead, to_behind
    behind, ahead = (grid.global_rank(grid.neighbour(mu, step)) for step in (-1, 1))
    sent = [_plain(t) for t in (to_behind, to_ahead)]
    from_ahead, from_behind = (torch.empty_like(t) for t in sent)
    # messages between one pair of ranks are matched in order: first what goes back, then what goes ahead
    pairs = [(sent[0], behind, from_ahead, ahead), (sent[1], ahead, from_behind, behind)]
    work = []
    for tag, (out, to, into, of) in enumerate(pairs):
        work += [dist.P2POp(dist.isend, out, to, grid.group, tag), dist.P2POp(dist.irecv, into, of, grid.group, tag)]
    for request in dist.batch_isend_irecv(work):
        request.wait()
    if to_behind.is_complex():
        return torch.view_as_complex(from_behind), torch.view_as_complex(from_ahead)
    return from_behind, from_ahead


def _plain(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()).contiguous() if x.is_complex() else x.contiguous()


class _Extend(torch.autograd.Function):
    """One direction: the last sites of the one behind, mine, the first sites of the one ahead."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid, mu: int, axis: int, width: int) -> Tensor:
        ctx.where = grid, mu, axis, width
        n = x.shape[axis]
        first, last = x.narrow(axis, 0, width), x.narrow(axis, n - width, width)
        from_behind, from_ahead = _exchange(first, last, grid, mu)
        return torch.cat([from_behind, x, from_ahead], axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _Fold.apply(grad, *ctx.where), None, None, None, None


class _Fold(torch.autograd.Function):
    """The transpose: margins go back to whose sites they are, and are added."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grid: Grid, mu: int, axis: int, width: int) -> Tensor:
        ctx.where = grid, mu, axis, width
        n = y.shape[axis] - 2 * width
        low, high = y.narrow(axis, 0, width), y.narrow(axis, n + width, width)
        from_behind, from_ahead = _exchange(low, high, grid, mu)
        x = y.narrow(axis, width, n).clone()
        x.narrow(axis, 0, width).add_(from_behind)
        x.narrow(axis, n - width, width).add_(from_ahead)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _Extend.apply(grad, *ctx.where), None, None, None, None
