"""Currents on the pixels: which pixels, which ticks, how much."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake

from hepops.core.ops import call, once_differentiable

from .response import Response

NODE_FIELDS = ("charge", "u", "v", "time", "sigma", "sigma_time", "width_u", "width_v", "width_time", "depth")
MAX_TANGENTS = 16


@dataclass(frozen=True)
class Waveforms:
    """The current of every pixel that saw any, over the window of ticks in which it did.

    Rows are sorted by (event, tpc, window of time, iy, ix): deposits of an event that lie further apart than 2000 ticks
    and the response's length have rows of their own, so that memory follows the ticks in use; the chip starts each of
    them empty. Row i covers ticks first_tick[i] ... first_tick[i] + n - 1 with n = offsets[i + 1] - offsets[i]; its
    currents are ``values[offsets[i]:offsets[i + 1]]``, averages over a tick.
    """

    event: Tensor  # int64 (num_rows)
    tpc: Tensor  # int64 (num_rows)
    ix: Tensor  # int64 (num_rows)          pixel along z
    iy: Tensor  # int64 (num_rows)          pixel along y
    first_tick: Tensor  # int64 (num_rows)
    offsets: Tensor  # int64 (num_rows + 1)
    values: Tensor  # (total)               [e/us]
    tick: float  # [us]
    t0: Tensor | None = None  # float64 (num_rows)   of the row's earliest deposit [us]: what x is reckoned from
    tangents: Tensor | None = None  # (num_tangents, total)   [e/us per unit of the parameter]
    tangent_names: tuple[str, ...] = ()
    reports: dict[str, Any] = field(default_factory=dict)  # electrons that left the plane, segments outside ...

    def __len__(self) -> int:
        return self.event.shape[0]

    @property
    def row(self) -> Tensor:
        """The row of every value, int64 (total)."""
        counts = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(counts, output_size=self.values.shape[0])

    @property
    def charge(self) -> Tensor:
        """Integral of the current of every row (num_rows) [e], summed in float64."""
        sums = torch.zeros(len(self), dtype=torch.float64, device=self.values.device)
        return (sums.index_add(0, self.row, self.values.double()) * self.tick).to(self.values.dtype)

    def dense(self, ticks: int) -> Tensor:
        """The currents as (num_rows, ticks), tick 0 first [e/us]; differentiable. What lies outside is left out."""
        row = self.row
        at = torch.arange(self.values.shape[0], device=row.device) - self.offsets[row] + self.first_tick[row]
        inside = (at >= 0) & (at < ticks)
        flat = self.values.new_zeros(len(self) * ticks)
        return flat.index_put(((row * ticks + at)[inside],), self.values[inside]).reshape(len(self), ticks)


@dataclass(frozen=True)
class Plan:
    """Which nodes reach which pixels, and where each pixel's window lies: integers only, nothing to differentiate."""

    places: Tensor  # int64 (N, 9)                  csrc/lartpc/waveforms.h, Place
    pair_offset: Tensor  # int64 (num_rows + 1)
    pair: Tensor  # int64 (num_pairs)               node * side^2 + slot, sorted by row and node
    node_row: Tensor  # int64 (N, side^2)           -1 where there is no pixel
    first: Tensor  # int64 (num_rows)
    offset: Tensor  # int64 (num_rows + 1)
    group: Tensor  # int64 (num_rows)               as given for the nodes
    pixel_u: Tensor  # int64 (num_rows)
    pixel_v: Tensor  # int64 (num_rows)
    bins_u: int
    bins_v: int
    taps: int
    total: int


def plan(
    nodes: Tensor,
    group: Tensor,
    pixels: Tensor,
    velocity: Tensor,
    response: Response,
    *,
    pitch: float,
    tick: float,
    reach: int,
    cut: float,
) -> Plan:
    """Lay out the rows for `waveforms`.

    Args:
        nodes: float64 (10, N), see `waveforms`.
        group: int64 (N), any number that tells nodes of different events and planes apart, small and not negative.
        pixels: int64 (N, 2), pixels of the node's plane along u and v.
        velocity, response, pitch, tick, reach, cut: as for `waveforms`.
    """
    n, side = nodes.shape[1], 2 * reach + 1
    places = call(
        torch.ops.hepops._wave_places,
        nodes,
        velocity,
        pitch,
        tick,
        response.bins,
        reach,
        cut,
        response.length,
        response.lead_mode,
    )
    shift = torch.arange(-reach, reach + 1, device=nodes.device)
    u = (torch.floor(nodes[1] / pitch).long()[:, None] + shift)[:, :, None]
    v = (torch.floor(nodes[2] / pitch).long()[:, None] + shift)[:, None, :]
    nu, nv = (int(p) for p in pixels.amax(0)) if n else (1, 1)
    inside = (u >= 0) & (u < pixels[:, 0, None, None]) & (v >= 0) & (v < pixels[:, 1, None, None])
    key = (group[:, None, None] * nv + v) * nu + u
    pair = torch.nonzero(inside.reshape(-1)).squeeze(1)
    key = key.reshape(-1)[pair]
    key, order = torch.sort(key, stable=True)
    pair = pair[order]
    rows, row_of_pair, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    pair_offset = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    node_row = torch.full((n * side * side,), -1, dtype=torch.int64, device=nodes.device)
    node_row[pair] = row_of_pair
    node = torch.div(pair, side * side, rounding_mode="floor")
    first = torch.zeros_like(rows).scatter_reduce_(0, row_of_pair, places[node, 7], "amin", include_self=False)
    last = torch.zeros_like(rows).scatter_reduce_(0, row_of_pair, places[node, 8], "amax", include_self=False)
    offset = torch.cat([first.new_zeros(1), (last - first).cumsum(0)])
    most = places.amax(0).tolist() if n else [0, 1, 0, 1, 0, 1, 0, 0, 0]
    return Plan(
        places,
        pair_offset,
        pair,
        node_row.reshape(n, side * side),
        first,
        offset,
        torch.div(rows, nu * nv, rounding_mode="floor"),
        rows % nu,
        torch.div(rows, nu, rounding_mode="floor") % nv,
        most[1],
        most[3],
        2 * most[5] + 2,
        int(offset[-1]),
    )


def collected(
    nodes: Tensor, layout: Plan, pixels: Tensor, *, pitch: float, bins: int, reach: int, cut: float
) -> tuple[Tensor, Tensor]:
    """Electrons that end on the pixel of every row (num_rows), and those of every node that end beside the plane (N).

    Their sum is the charge of the nodes, to rounding. Arguments as for `plan`; not differentiable.
    """
    x = nodes.detach()
    share, lost = call(torch.ops.hepops._wave_collect, x, layout.places, pixels, pitch, bins, reach, cut, True)
    on = layout.node_row >= 0
    sums = x.new_zeros(len(layout.first))
    return sums.index_add_(0, layout.node_row[on], (share * x[0][:, None])[on]), lost


def lost_by_node(
    nodes: Tensor, layout: Plan, pixels: Tensor, *, pitch: float, bins: int, reach: int, cut: float
) -> Tensor:
    """Electrons of every node that end beside the plane, the second of what `collected` returns (N)."""
    x = nodes.detach()
    lost: Tensor = call(torch.ops.hepops._wave_collect, x, layout.places, pixels, pitch, bins, reach, cut, False)[1]
    return lost


def _arguments(response: Response, layout: Plan, pitch: float, tick: float, reach: int, cut: float) -> tuple[Any, ...]:
    q, p = response, layout
    tables = (q.r, q.rv, q.lead, q.leadv, q.potential)
    numbers = (pitch, tick, q.bins, reach, cut, q.length, q.lead_mode, q.dz, p.bins_u, p.bins_v, p.taps, p.total)
    return (p.places, p.pair_offset, p.pair, p.node_row, p.first, p.offset, *tables, *numbers)


def waveforms(
    nodes: Tensor,
    velocity: Tensor,
    response: Response,
    layout: Plan,
    *,
    pitch: float,
    tick: float = 0.1,
    reach: int = 2,
    cut: float = 4.0,
) -> Tensor:
    r"""Currents that arriving charges induce on the pixels around them.

    .. math:: I[k] = \frac{1}{\mathrm{tick}} \sum_{\mathrm{nodes}} q \sum_{i,j} w_i w_j \, (r_{ij} * W)[k]

    with the shares :math:`w` of the bins of the plane (a Gaussian of `sigma`, convolved with the node's own extent),
    the response :math:`r` of each bin, and the shares :math:`W` of the ticks around the arrival.

    Args:
        nodes: float64 (10, N): charge [e], u, v in the plane [cm], time of arrival [us], sigma across the field [cm],
            sigma in time [us], extent along u, v [cm] and in time [us], depth at creation [cm].
        velocity: float64, one number, drift velocity [cm/us].
        response: Of the pixels, float32 or float64: its dtype is that of the result.
        layout: From `plan`, for the same nodes.
        pitch: Of the pixels [cm].
        tick: Of the clock [us].
        reach: Pixels on each side of the one under the node that see it.
        cut: Where the Gaussians end [sigma]; the share beyond joins the outermost bin, so that charge is conserved.

    Returns:
        Currents (layout.total) [e/us].

    Differentiable once with respect to `nodes` and `velocity` (the response follows the velocity). Deterministic: every
    pixel sums its nodes in one order, for any number of threads.

    Raises:
        TypeError: a tensor has the wrong dtype.
        ValueError: a shape or a number does not fit, or diffusion spreads a node over more than 64 bins or 128 ticks.

    References:
        | W. Shockley, J. Appl. Phys. 9 (1938) 635; S. Ramo, Proc. IRE 27 (1939) 584; docs/lartpc.md

    Example:
        >>> from hepops.lartpc import Detector, Simulator, gun
        >>> sim = Simulator(Detector.module0())  # which lays out the rows and calls this function
        >>> waves = sim.waveforms(gun.shoot(sim.detector, events=1, seed=1))
        >>> bool(waves.offsets[-1] == len(waves.values))
        True
    """
    arguments = _arguments(response, layout, pitch, tick, reach, cut)
    values: Tensor = call(torch.ops.hepops.waveforms, nodes, velocity, *arguments)
    return values


def waveforms_and_tangents(
    nodes: Tensor,
    velocity: Tensor,
    node_tangents: Tensor,
    velocity_tangents: Tensor,
    response: Response,
    layout: Plan,
    *,
    pitch: float,
    tick: float = 0.1,
    reach: int = 2,
    cut: float = 4.0,
) -> tuple[Tensor, Tensor]:
    """`waveforms` in forward mode: currents (total) and their derivatives (K, total) along K directions, K <= 16.

    `node_tangents`, float64 (K, 5, N), are the derivatives of charge, time, sigma, sigma_time and width_time of every
    node, `velocity_tangents`, float64 (K), those of the velocity; the others as for `waveforms`. Deterministic.
    """
    arguments = _arguments(response, layout, pitch, tick, reach, cut)
    both: tuple[Tensor, Tensor] = call(
        torch.ops.hepops.waveforms_jvp, nodes, velocity, node_tangents, velocity_tangents, *arguments
    )
    return both


def hit_shares(
    nodes: Tensor,
    velocity: Tensor,
    pair: Tensor,
    begin: Tensor,
    end: Tensor,
    response: Response,
    layout: Plan,
    *,
    pitch: float,
    tick: float = 0.1,
    reach: int = 2,
    cut: float = 4.0,
) -> Tensor:
    """Charge that one node induces on one pixel between two times, float64 (num_entries) [e]; not differentiable.

    `pair` counts in layout.pair, int64 (num_entries); `begin` and `end` are absolute ticks, float64 (num_entries). The
    others as for `waveforms`.
    """
    arguments = _arguments(response, layout, pitch, tick, reach, cut)
    shares: Tensor = call(torch.ops.hepops._hit_shares, nodes, velocity, pair, begin, end, *arguments)
    return shares


@register_fake("hepops::_hit_shares")
def _(nodes: Tensor, velocity: Tensor, pair: Tensor, *_: Any) -> Tensor:
    return nodes.new_empty(pair.shape[0])


@register_fake("hepops::_wave_places")
def _(nodes: Tensor, velocity: Tensor, *_: Any) -> Tensor:
    return nodes.new_empty(nodes.shape[1], 9, dtype=torch.int64)


@register_fake("hepops::_wave_collect")
def _(nodes: Tensor, places: Tensor, pixels: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    side = 2 * rest[2] + 1
    return nodes.new_empty(nodes.shape[1] if rest[4] else 0, side * side), nodes.new_empty(nodes.shape[1])


@register_fake("hepops::waveforms")
def _(nodes: Tensor, velocity: Tensor, *rest: Any) -> Tensor:
    r: Tensor = rest[6]
    return r.new_empty(rest[-1])


@register_fake("hepops::waveforms_jvp")
def _(
    nodes: Tensor, velocity: Tensor, node_tangents: Tensor, velocity_tangents: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    r: Tensor = rest[6]
    return r.new_empty(rest[-1]), r.new_empty(node_tangents.shape[0], rest[-1])


@register_fake("hepops::waveforms_backward")
def _(grad: Tensor, nodes: Tensor, velocity: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return nodes.new_empty(nodes.shape), nodes.new_empty(nodes.shape[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.rest = [None if isinstance(x, Tensor) else x for x in inputs]
    ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = iter(ctx.saved_tensors)
    nodes, velocity, *rest = (next(tensors) if x is None else x for x in ctx.rest)
    grad_nodes, grad_velocity = torch.ops.hepops.waveforms_backward(grad, nodes, velocity, *rest)
    return grad_nodes, grad_velocity.sum().reshape(velocity.shape), *(None for _ in rest)


register_autograd("hepops::waveforms", _backward, setup_context=_setup)
once_differentiable("hepops::waveforms_backward")
once_differentiable("hepops::waveforms_jvp")


def tangent_directions(names: Sequence[str]) -> int:
    """How many tangents one pass may carry; refuses more, by name."""
    if len(names) > MAX_TANGENTS:
        raise ValueError(f"waveforms: at most {MAX_TANGENTS} tangents in one pass, got {len(names)}: {list(names)}")
    return len(names)
