"""Values between the nodes of a regular grid."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call
from hepops.core.scatter_add import scatter_add

OUTSIDE = {"error": 0, "clamp": 1}


def trilinear(
    map: Tensor, points: Tensor, origin: Sequence[float], spacing: Sequence[float], outside: str = "error"
) -> Tensor:
    r"""A map on a regular grid at any points of it, linear along each axis within a cell.

    .. math:: f(x) = \sum_{c \in \{0,1\}^3} f_c \prod_a \big(c_a s_a + (1 - c_a)(1 - s_a)\big),
              \qquad s_a = (x_a - x_a^\mathrm{cell}) / h_a

    Args:
        map: Values at the nodes, (C, nx, ny, nz), at least two nodes along each axis, float32 or float64.
        points: (N, 3), of the dtype of `map`.
        origin: Of node (0, 0, 0), three numbers.
        spacing: Of the nodes along each axis, three positive numbers.
        outside: What a point beyond the grid is. "error": refused, with its number, the axis and the ends; on a GPU,
            whose values are not read back, the kernel stops. "clamp": the value at the nearest point of the grid, with
            no slope along the axes that were clamped; NaN remains NaN. Beyond an end by a few roundings is inside.

    Returns:
        (N, C), of the dtype of `map`.

    Differentiable twice, with respect to `map` and `points`; between two cells, where the slope jumps, it is that of
    the cell above. Deterministic on a CPU, for any number of threads, and on a GPU: the gradient of the map is summed
    node by node, in double and in the order of the points, without atomics.

    Raises:
        TypeError: `map` is neither float32 nor float64, or `points` is of another dtype.
        ValueError: a shape or a spacing does not fit, or a point lies outside.

    References:
        | W. H. Press et al., Numerical Recipes, 3rd ed., Cambridge (2007), section 3.6

    Example:
        >>> ramp = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 2, 2)
        >>> trilinear(ramp, torch.tensor([[12.5, 0.0, 1.0]]), origin=(10, 0, 0), spacing=(1, 1, 1))
        tensor([[2.5000]])
    """
    if outside not in OUTSIDE:
        raise ValueError(f"trilinear: outside must be one of {list(OUTSIDE)}, got {outside!r}")
    for name, three in (("origin", origin), ("spacing", spacing)):
        if len(three) != 3:
            raise ValueError(f"trilinear: {name} must be three numbers, got {three!r}")
    numbers = (*(float(x) for x in origin), *(float(h) for h in spacing), OUTSIDE[outside])
    result: Tensor = call(torch.ops.hepops.trilinear, map, points, *numbers)
    return result


@register_fake("hepops::trilinear")
def _(map: Tensor, points: Tensor, *_: Any) -> Tensor:
    return map.new_empty(points.shape[0], map.shape[0])


@register_fake("hepops::trilinear_backward")
def _(grad: Tensor, map: Tensor, points: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    want_map, want_points = rest[-2:]
    return (
        map.new_empty(map.shape if want_map else (0,)),
        points.new_empty(points.shape if want_points else (0,)),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    map, points, *ctx.rest = inputs
    ctx.save_for_backward(map, points)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    want = ctx.needs_input_grad[:2]
    grad_map, grad_points = torch.ops.hepops.trilinear_backward(grad, *ctx.saved_tensors, *ctx.rest, *want)
    return grad_map if want[0] else None, grad_points if want[1] else None, *(None for _ in ctx.rest)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, map, points, *ctx.rest = inputs
    ctx.save_for_backward(grad, map, points)


def _slopes(grad: Tensor, map: Tensor, points: Tensor, rest: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """What trilinear_backward computes, in operators that have derivatives of their own."""
    C, *n = map.shape
    origin, spacing = (torch.tensor(x, dtype=torch.float64, device=map.device) for x in (rest[:3], rest[3:6]))
    count = torch.tensor(n, dtype=torch.float64, device=map.device)
    t = (points.double() - origin) / spacing
    slack = 8 * torch.finfo(map.dtype).eps * (origin.abs() / spacing + count)  # that of csrc/lartpc/trilinear.cu
    free = (t >= -slack) & (t <= count - 1 + slack)  # a clamped coordinate does not move
    t = torch.where(free, t, t.detach().clamp(min=torch.zeros_like(count)).minimum(count - 1))
    cell = t.detach().floor().clamp(min=torch.zeros_like(count)).minimum(count - 2)
    s = (t - cell).to(map.dtype)
    low = ((cell[:, 0] * n[1] + cell[:, 1]) * n[2] + cell[:, 2]).long()
    corner = torch.arange(8, device=map.device)
    up = torch.stack(((corner >> 2) & 1, (corner >> 1) & 1, corner & 1), 1)  # (8, 3)
    index = low[:, None] + (up * torch.tensor((n[1] * n[2], n[2], 1), device=map.device)).sum(1)  # (N, 8)
    factor = torch.where(up.bool(), s[:, None], 1 - s[:, None])  # (N, 8, 3)
    weight = factor.prod(2)
    flat = (weight[:, :, None] * grad[:, None, :]).reshape(-1, C)
    grad_map = scatter_add(index.reshape(-1), flat, n[0] * n[1] * n[2]).T.reshape(map.shape)
    dots = (map.reshape(C, -1).T[index] * grad[:, None, :]).sum(2)  # (N, 8)
    sign = (2 * up - 1).to(map.dtype)
    others = torch.stack([factor[..., (a + 1) % 3] * factor[..., (a + 2) % 3] for a in range(3)], 2)
    per = torch.where(free, 1 / spacing, torch.zeros_like(spacing)).to(map.dtype)
    return grad_map, (dots[:, :, None] * sign * others).sum(1) * per


def _double_backward(ctx: Any, v_map: Tensor, v_points: Tensor) -> tuple[Tensor | None, ...]:
    *numbers, want_map, want_points = ctx.rest
    wanted = ctx.needs_input_grad[:3]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(w) for x, w in zip(ctx.saved_tensors, wanted, strict=True)]
        slopes = _slopes(leaves[0], leaves[1], leaves[2], numbers)
        used = [(y, v) for y, v, w in zip(slopes, (v_map, v_points), (want_map, want_points), strict=True) if w]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in used], [x for x in leaves if x.requires_grad], [v for _, v in used], allow_unused=True
            )
        )
    return *(next(found) if w else None for w in wanted), *(None for _ in ctx.rest)


register_autograd("hepops::trilinear", _backward, setup_context=_setup)
register_autograd("hepops::trilinear_backward", _double_backward, setup_context=_setup_backward)
