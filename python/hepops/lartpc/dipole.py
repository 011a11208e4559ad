"""The far field: what drifting charge induces on pads beyond the near field's reach (csrc/lartpc/dipole.h)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from .waveforms import Plan

TICKS = 10  # per coarse bin: an electron drifts 1.6 mm meanwhile, the nearest far pad is 11 mm away


@dataclass(frozen=True)
class FarPlan:
    """Rows of all pixels that see any field, near or far, each over the whole drift of its group's charge."""

    arguments: tuple[Any, ...]  # of the operators
    group: Tensor  # int64 (num_rows)
    pixel_u: Tensor  # int64 (num_rows)
    pixel_v: Tensor  # int64 (num_rows)
    first: Tensor  # int64 (num_rows)
    offset: Tensor  # int64 (num_rows + 1), in ticks
    near: Tensor  # int64 (num_rows)  the row of the near field, -1 where it has none
    place: Tensor  # int64 (total of the near field)  where its values stand among all

    @property
    def total(self) -> int:
        """Ticks of all rows."""
        return int(self.arguments[-1]) * TICKS


def far_plan(
    nodes: Tensor,
    velocity: Tensor,
    window: Tensor,
    pixels: Tensor,
    drift_length: Tensor,
    layout: Plan,
    *,
    pitch: float,
    tick: float,
    reach: int,
    far: int,
    cathode: bool = True,
) -> FarPlan:
    """Lay out the rows.

    Args:
        nodes, velocity: as for `waveforms`.
        window: int64 (N), the group of each node, from 0 without gaps.
        pixels: int64 (N, 2), pixels of the node's plane along u and v.
        drift_length: float64 (N), of the node's drift volume [cm].
        layout: Of the near field.
        pitch, tick, reach: as for `waveforms`.
        far: Pixels on each side that see a node.
        cathode: False: as if there were none, at an infinite distance.
    """
    device, n = nodes.device, nodes.shape[1]
    groups = int(window.max()) + 1 if n else 0
    one = torch.ones_like(window)
    counts = torch.zeros(groups, dtype=torch.int64, device=device).index_add(0, window, one)
    node_offset = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    node = torch.argsort(window, stable=True)

    def of_group(x: Tensor, how: str) -> Tensor:
        zero = torch.zeros(groups, dtype=x.dtype, device=device)
        return zero.scatter_reduce(0, window, x, how, include_self=False)

    x = nodes.detach()
    created = torch.floor((x[3] - x[9] / velocity.detach()) / tick).long() - 1
    first = of_group(torch.minimum(layout.places[:, 7], created), "amin")
    last = of_group(layout.places[:, 8], "amax") + 1
    bins = torch.div(last - first + TICKS - 1, TICKS, rounding_mode="floor")
    length = of_group(drift_length, "amax")

    # the square of pixels around every pixel that has charge above it
    nu, nv = (int(p) for p in pixels.amax(0)) if n else (1, 1)
    node_u, node_v = (torch.floor(x[k] / pitch).long() for k in (1, 2))
    under = torch.unique(torch.stack((window, node_v, node_u, pixels[:, 1], pixels[:, 0]), 1), dim=0)
    shift = torch.arange(-far, far + 1, device=device)
    v = under[:, 1, None, None] + shift[:, None]
    u = under[:, 2, None, None] + shift[None, :]
    inside = (u >= 0) & (v >= 0) & (v < under[:, 3, None, None]) & (u < under[:, 4, None, None])
    key = torch.unique(((under[:, 0, None, None] * nv + v) * nu + u)[inside])
    group = torch.div(key, nu * nv, rounding_mode="floor")
    pixel_u, pixel_v = key % nu, torch.div(key, nu, rounding_mode="floor") % nv
    row_offset = torch.searchsorted(group, torch.arange(groups + 1, device=device))
    size = (row_offset[1:] - row_offset[:-1]) * bins
    offset = torch.cat([size.new_zeros(1), size.cumsum(0)])

    ticks = torch.cat([group.new_zeros(1), (bins[group] * TICKS).cumsum(0)])
    near_key = (layout.group * nv + layout.pixel_v) * nu + layout.pixel_u
    row = torch.searchsorted(key, near_key)
    near = torch.full_like(group, -1)
    near[row] = torch.arange(len(row), device=device)
    length_near = layout.offset[1:] - layout.offset[:-1]
    begin = ticks[row] + layout.first - first[layout.group] - layout.offset[:-1]
    place = torch.arange(layout.total, device=device) + torch.repeat_interleave(begin, length_near)

    images = 0
    if cathode and n:  # the others are a polynomial as long as they are farther than four times what is reached
        images = max(1, math.ceil(2 * 2**0.5 * (far + 1) * pitch / float(length.min())) - 1)
    tensors = (node_offset, node, node_u, node_v, row_offset, pixel_u, pixel_v, first, bins, offset[:-1], length)
    numbers = (pitch, tick, reach, far, TICKS, images, int(offset[-1]))
    return FarPlan((*tensors, group, window, *numbers), group, pixel_u, pixel_v, first[group], ticks, near, place)


def far_field(nodes: Tensor, velocity: Tensor, layout: FarPlan) -> Tensor:
    """Charge that the nodes induce in every coarse bin of every row from far away, float64 [e].

    Differentiable once with respect to `nodes` and `velocity`; deterministic, for any number of threads.
    """
    charge: Tensor = call(torch.ops.hepops._far_field, nodes, velocity, *layout.arguments)
    return charge


def far_field_tangents(
    nodes: Tensor, velocity: Tensor, node_tangents: Tensor, velocity_tangents: Tensor, layout: FarPlan
) -> Tensor:
    """Derivatives of `far_field` along K directions (K, total); arguments as for `waveforms_and_tangents`."""
    charge: Tensor = call(
        torch.ops.hepops._far_field_jvp, nodes, velocity, node_tangents, velocity_tangents, *layout.arguments
    )
    return charge


def spread(near: Tensor, far: Tensor, layout: FarPlan, tick: float) -> Tensor:
    """Currents of all rows (..., layout.total): the near field, and the charge of the coarse bins over time."""
    current = (far / (TICKS * tick)).to(near.dtype).repeat_interleave(TICKS, dim=-1)
    return current.index_add(current.dim() - 1, layout.place, near)


@register_fake("hepops::_far_field")
def _(nodes: Tensor, velocity: Tensor, *rest: Any) -> Tensor:
    return nodes.new_empty(rest[-1])


@register_fake("hepops::_far_field_backward")
def _(grad: Tensor, nodes: Tensor, velocity: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return nodes.new_empty(nodes.shape), nodes.new_empty(nodes.shape[1])


@register_fake("hepops::_far_field_jvp")
def _(nodes: Tensor, velocity: Tensor, node_tangents: Tensor, velocity_tangents: Tensor, *rest: Any) -> Tensor:
    return nodes.new_empty(velocity_tangents.shape[0], rest[-1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    nodes, velocity, *ctx.rest = inputs
    ctx.save_for_backward(nodes, velocity)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    nodes, velocity = ctx.saved_tensors
    grad_nodes, grad_velocity = torch.ops.hepops._far_field_backward(grad, nodes, velocity, *ctx.rest)
    return grad_nodes, grad_velocity.sum().reshape(velocity.shape), *(None for _ in ctx.rest)


register_autograd("hepops::_far_field", _backward, setup_context=_setup)
once_differentiable("hepops::_far_field_backward")
once_differentiable("hepops::_far_field_jvp")
