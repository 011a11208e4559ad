"""The geometry that many universes share, and the currents and hits of some of them at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hepops.core.ops import call

from .arrive import arrive
from .curves import Curves, curves
from .frontend import frontend
from .hits import Hits
from .parameters import Parameters
from .pieces import Pieces, divide
from .waveforms import Plan, Waveforms, plan

if TYPE_CHECKING:
    from .simulator import Simulator

Ops = torch.ops.hepops
# What decides when and how wide a charge arrives: universes that agree in these differ in their charges alone.
TRANSPORT = [
    tuple(Parameters.SPEC).index(name)
    for name in ("efield", "temperature", "transverse_diffusion", "longitudinal_diffusion")
]
EFIELD, TEMPERATURE = (tuple(Parameters.SPEC).index(name) for name in ("efield", "temperature"))
# The parameters of `hepops.lartpc.drift` in its order; the velocity follows the two above alone.
DRIFT = [
    tuple(Parameters.SPEC).index(name)
    for name in ("lifetime", "efield", "transverse_diffusion", "longitudinal_diffusion", "temperature")
]
NODE_BYTES = 1 << 27  # of nodes, and of currents, that are in memory at a time; the result does not depend on them
VALUE_BYTES = 1 << 24


def velocities(values: Tensor) -> Tensor:
    """Of every universe, float64 (n), as its own run has it."""
    one = values.new_ones(())
    pairs, which = torch.unique(values[:, [EFIELD, TEMPERATURE]], dim=0, return_inverse=True)
    laws = values[:1, DRIFT].repeat(len(pairs), 1)
    laws[:, [DRIFT.index(EFIELD), DRIFT.index(TEMPERATURE)]] = pairs
    return (1 / torch.stack([call(Ops.drift, one, law)[1] for law in laws.unbind()]))[which]


@dataclass(frozen=True)
class Part:
    """Hits of some universes on some events."""

    hits: Hits
    universe: Tensor  # int64, of each hit
    numbers: Tensor  # int64 of the universes
    rows: int
    rejected: Tensor  # int64, of each universe
    arriving: Tensor  # float64 (universes, events)
    lost: Tensor  # float64 (universes, events)
    several: bool  # whether a pixel may have rows for more than one window of time
    waves: list[Waveforms]


@dataclass(frozen=True)
class Scene:
    """The nodes of some events, as far as they are the same in all universes."""

    sim: "Simulator"
    pieces: Pieces
    deposits: Tensor  # float64 (6 or 7, N)   what `arrive` is given
    at: Tensor  # float64 (2, N)
    extent: Tensor  # float64 (2, N)
    piece: Tensor  # int64 (N)
    pixels: Tensor  # int64 (N, 2)
    events: Tensor  # int64 (E)
    event_rank: Tensor  # int64 (N)

    @classmethod
    def of(cls, sim: "Simulator", pieces: Pieces) -> "Scene":
        piece, share, middle = divide(pieces, sim.step)
        deposits, at, extent = sim._deposits(pieces, piece, share, middle)
        events, rank = torch.unique(pieces.event, return_inverse=True)
        pixels = torch.tensor([(t.nx, t.ny) for t in sim.detector.tpcs], dtype=torch.int64, device=piece.device)
        return cls(sim, pieces, deposits, at, extent, piece, pixels[pieces.tpc[piece]], events, rank[piece])

    def nodes(self, values: Tensor) -> Tensor:
        """Of some universes, float64 (n, 10, N): the fields of `waveforms`."""
        result = self.deposits.new_empty(len(values), 10, self.deposits.shape[1])
        result[:, 1:3], result[:, 6:8], result[:, 9] = self.at, self.extent, self.deposits[3]
        result[:, [0, 3, 4, 5, 8]] = torch.stack(
            [arrive(self.deposits, self.sim._derived(p), self.sim.model) for p in values.unbind()]
        )
        return result

    def groups(self, values: Tensor) -> Iterator["Group"]:
        """Universes that are in memory together, and whose nodes lie in the same windows of time."""
        from .simulator import APART, _windows

        every = velocities(values)
        made = curves(self.sim, every)
        size = max(1, NODE_BYTES // (80 * max(1, self.deposits.shape[1])))
        apart = self.sim.length + APART
        owner = self.event_rank * len(self.sim.detector.tpcs) + self.pieces.tpc[self.piece]
        for begin in range(0, len(values), size):
            some, velocity = values[begin : begin + size], every[begin : begin + size]
            nodes = self.nodes(some)
            ticks = nodes[:, 3] / self.sim.detector.tick
            numbers = torch.arange(begin, begin + len(some), device=values.device)
            if ticks.numel() == 0 or float((ticks.amax(1) - ticks.amin(1)).amax()) <= apart:  # no gap can part them
                yield Group(self, nodes, some, velocity, made, numbers, *_windows(owner, ticks[0], apart))
                continue
            layouts = [_windows(owner, t, apart) for t in ticks]
            left = list(range(len(some)))
            while left:
                same = [k for k in left if torch.equal(layouts[k][0], layouts[left[0]][0])]
                yield Group(self, nodes[same], some[same], velocity[same], made, numbers[same], *layouts[left[0]])
                left = [k for k in left if k not in same]


@dataclass(frozen=True)
class Group:
    """Universes of one layout of rows."""

    scene: Scene
    nodes: Tensor  # float64 (n, 10, N)
    values: Tensor  # float64 (n, 12)
    velocity: Tensor  # float64 (n)
    made: Curves  # for all universes of the call
    numbers: Tensor  # int64 (n)
    window: Tensor  # int64 (N)
    group: Tensor  # int64 (windows)

    def run(self, seed: int | None, threshold: float | Tensor | None, prune: bool, keep: bool) -> Iterator[Part]:
        """Block by block, so that the currents in memory are bounded."""
        sim = self.scene.sim
        velocity, made = self.velocity, self.made
        q = made.response
        from .simulator import CUTS

        cut = CUTS[sim.dtype]
        plane: dict[str, Any] = {
            "pitch": sim.detector.pixel_pitch,
            "tick": sim.detector.tick,
            "reach": sim.reach,
            "cut": cut,
        }
        layout = plan(self.nodes[0], self.window, self.scene.pixels, velocity[0], q, **plane)
        numbers = (plane["pitch"], plane["tick"], q.bins, sim.reach, cut, q.length, q.lead_mode)
        rows = self.rows(layout)
        universe, row = self.jobs(rows, layout, velocity, made, numbers, threshold, prune)
        pairs = (layout.pair_offset, layout.pair)
        used = torch.unique(row)
        created = call(Ops._universe_potentials, self.nodes[:1], velocity[:1], *pairs, used, used, *numbers)
        first, last = call(Ops._universe_windows, self.nodes, velocity, *pairs, universe, row, *numbers)
        arriving, lost = self.charges(velocity, numbers)
        sizes = self.sizes(numbers)
        like = torch.unique(self.values[:, TRANSPORT], dim=0, return_inverse=True)[1]
        for begin, end in self.blocks(universe, last - first):
            jobs = slice(*torch.searchsorted(universe, universe.new_tensor([begin, end])).tolist())
            some = slice(begin, end)
            offset = torch.cat([first.new_zeros(1), (last - first)[jobs].cumsum(0)])
            U, which = made.at(velocity[some])
            values = call(
                Ops._universe_currents,
                first[jobs],
                offset,
                U,
                which,
                made.basis,
                made.X,
                made.D,
                q.potential,
                created,
                like[some],
                q.dz,
                *sizes,
                int(offset[-1]),
                False,
                self.nodes[some],
                velocity[some],
                *pairs,
                universe[jobs] - begin,
                row[jobs],
                *numbers,
            )
            r = row[jobs]
            names = {name: getattr(rows, name)[r] for name in ("event", "tpc", "ix", "iy", "t0")}
            waves = replace(rows, **names, first_tick=first[jobs], offsets=offset, values=values)
            yield self.part(
                rows, waves, universe[jobs] - begin, r, some, velocity, seed, threshold, keep, arriving, lost
            )

    def rows(self, layout: Plan) -> Waveforms:
        """The rows without their currents."""
        scene, planes = self.scene, len(self.scene.sim.detector.tpcs)
        t0 = torch.full((len(self.group),), torch.inf, dtype=torch.float64, device=self.group.device)
        t0 = t0.scatter_reduce(0, self.window, scene.pieces.t0[scene.piece], "amin")
        event = scene.events[torch.div(self.group, planes, rounding_mode="floor")]
        of = layout.group
        return Waveforms(
            event[of],
            (self.group % planes)[of],
            layout.pixel_u,
            layout.pixel_v,
            layout.first,
            layout.offset,
            self.nodes.new_empty(0, dtype=scene.sim.dtype),
            scene.sim.detector.tick,
            t0[of],
        )

    def sizes(self, numbers: tuple[Any, ...]) -> tuple[int, int, int]:
        """Most bins along u and v, and most ticks, that a node covers in any universe."""
        if self.nodes.numel() == 0:
            return 1, 1, 2
        pitch, tick, bins, _, cut, *_ = numbers
        nodes = self.nodes
        across = [(2 * cut * nodes[:, 4] + nodes[:, k]).amax() / (pitch / bins) for k in (6, 7)]
        along = (cut * nodes[:, 5] + 0.5 * nodes[:, 8]).amax() / tick
        bins_u, bins_v, half = (int(x) + 2 for x in (*across, along))
        return bins_u, bins_v, 2 * half + 2

    def reach(self, layout: Plan, velocity: Tensor, made: Curves, numbers: tuple[Any, ...]) -> Tensor:
        """How much positive charge a pair gives its row at most in any universe, per electron, float64 (pairs)."""
        nodes, (pitch, _, bins, _, cut, *_) = self.nodes, numbers
        low, high = nodes[:, 4].amin(0), nodes[:, 4].amax(0)
        middle = nodes[0].clone()
        middle[4] = (low * high).sqrt()
        ratio = torch.where(low > 0, high / low, torch.where(high > 0, torch.inf, 1.0))
        distance = 0.5 * float(ratio.log().amax()) if ratio.numel() else 0.0
        # Second order of a Gaussian in h = ln sigma along both axes, as a distance in total variation: h^2 / 4 times
        # 2 E|z^4 - 4 z^2 + 1| + 2 (E|z^2 - 1|)^2 < 13.2, doubled for the orders above it; 3e-4 for what the cut moves.
        rest = 1.0 if distance > 0.3 else 6.6 * distance**2 + 3e-4
        extra = 1 + int(cut * float((high - middle[4]).amax()) / (pitch / bins)) if ratio.numel() else 0
        places = call(Ops._wave_places, middle, velocity[:1], *numbers)
        bins_u, bins_v = (int(places[:, k].amax()) for k in (1, 3)) if len(places) else (1, 1)
        weights = call(Ops._universe_bin_weights, middle, places, pitch, bins, bins_u, bins_v)
        pairs = (layout.pair_offset, layout.pair, layout.pair[:0], layout.pair[:0])
        table = (made.positive, made.most, bins_u, extra, distance, rest)
        reach: Tensor = call(Ops._universe_reach, places, weights, *table, middle[None], velocity[:1], *pairs, *numbers)
        return reach

    def jobs(
        self,
        rows: Waveforms,
        layout: Plan,
        velocity: Tensor,
        made: Curves,
        numbers: tuple[Any, ...],
        threshold: float | Tensor | None,
        prune: bool,
    ) -> tuple[Tensor, Tensor]:
        """Universe and row of everything that must be simulated: all, or what can reach the threshold."""
        n, sim = len(self.nodes), self.scene.sim
        if prune:
            squares = (2 * sim.reach + 1) ** 2
            charge = self.nodes[:, 0].T.contiguous()
            reach = self.reach(layout, velocity, made, numbers)
            bound = call(Ops._universe_bound, charge, reach, layout.pair_offset, layout.pair, squares)
            bar = sim._threshold(threshold, rows)
            bar = torch.as_tensor(sim.detector.frontend.threshold if bar is None else bar, device=bound.device)
            # the margin covers the rounding of the currents and of their sums
            live = bound * (1 + 1e-3) + 1.0 >= bar.reshape(-1, 1)
            universe, row = live.T.nonzero().unbind(1)
            return universe.contiguous(), row.contiguous()
        every = torch.arange(len(rows), device=layout.pair.device)
        return torch.arange(n, device=every.device).repeat_interleave(len(rows)), every.repeat(n)

    def blocks(self, universe: Tensor, length: Tensor) -> Iterator[tuple[int, int]]:
        ticks = torch.zeros(len(self.nodes), dtype=torch.int64, device=length.device).index_add(0, universe, length)
        most, begin, filled = VALUE_BYTES // self.scene.sim.dtype.itemsize, 0, 0
        for i, more in enumerate(ticks.tolist()):
            if filled and filled + more > most:
                yield begin, i
                begin, filled = i, 0
            filled += more
        yield begin, len(self.nodes)

    def charges(self, velocity: Tensor, numbers: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        """Electrons that arrive, and that end beside the plane, of every universe and event."""
        scene, nodes, (pitch, _, bins, reach, cut, *_) = self.scene, self.nodes, numbers
        zeros = nodes.new_zeros(len(nodes), len(scene.events))
        arriving = zeros.index_add(1, scene.event_rank, nodes[:, 0])
        if nodes.numel() == 0:
            return arriving, zeros
        blur = cut * nodes[:, 4].amax(0) + pitch
        outside = torch.zeros_like(blur, dtype=torch.bool)
        for axis in (0, 1):
            at, half = scene.at[axis], blur + scene.extent[axis] / 2
            outside |= (at - half < 0) | (at + half > scene.pixels[:, axis] * pitch)
        some = outside.nonzero()[:, 0]
        if len(some) == 0:
            return arriving, zeros
        flat = nodes[:, :, some].transpose(0, 1).flatten(1)
        places = call(Ops._wave_places, flat, velocity[:1], *numbers)
        pixels = scene.pixels[some].repeat(len(nodes), 1)
        lost = call(Ops._wave_collect, flat, places, pixels, pitch, bins, reach, cut, False)[1]
        return arriving, zeros.index_add(1, scene.event_rank[some], lost.reshape(len(nodes), -1))

    def part(
        self,
        rows: Waveforms,
        waves: Waveforms,
        universe: Tensor,
        row: Tensor,
        some: slice,
        velocity: Tensor,
        seed: int | None,
        threshold: float | Tensor | None,
        keep: bool,
        arriving: Tensor,
        lost: Tensor,
    ) -> Part:
        sim, numbers = self.scene.sim, self.numbers[some]
        hits = frontend(
            waves, sim.detector, seed=seed, threshold=sim._threshold(threshold, waves), velocity=velocity[0]
        )
        of = universe[hits.row]
        assert waves.t0 is not None
        x = sim.detector.drift_position(velocity[some][of] * (hits.time - waves.t0[hits.row]), hits.tpc)
        rejected = torch.zeros_like(numbers).index_add(0, universe, hits.reports["rejected"])
        kept = []
        if keep:
            n = len(waves) // len(numbers)
            for k in range(len(numbers)):
                one = slice(k * n, (k + 1) * n)
                begin, end = waves.offsets[k * n], waves.offsets[(k + 1) * n]
                names = {name: getattr(waves, name)[one] for name in ("event", "tpc", "ix", "iy", "t0", "first_tick")}
                offsets = waves.offsets[k * n : (k + 1) * n + 1] - begin
                kept.append(replace(waves, **names, offsets=offsets, values=waves.values[begin:end].clone()))
        several = len(self.group) > len(torch.unique(self.group))
        hits = replace(hits, x=x, row=row[hits.row], reports={})
        return Part(hits, numbers[of], numbers, len(rows), rejected, arriving[some], lost[some], several, kept)
