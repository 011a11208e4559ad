"""The simulator: segments in, hits out."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import argon
from .arrive import MODELS, arrive, arrive_tangents
from .attachment import IMPURITIES, lifetime_ratio
from .detector import Detector
from .dipole import FarPlan, far_field, far_field_tangents, far_plan, spread
from .drift import drift
from .field_map import FieldMap, per_tpc
from .frontend import frontend
from .hits import Hits, Truth
from .parameters import Parameters
from .pieces import Pieces, count_nodes, cut, divide, warning_outside
from .response import Response, Table, builtin_response, table_response
from .segments import Segments
from .waveforms import (
    Plan,
    Waveforms,
    hit_shares,
    lost_by_node,
    plan,
    tangent_directions,
    waveforms,
    waveforms_and_tangents,
)

if TYPE_CHECKING:
    from .universes import Universes

NAMES = tuple(Parameters.SPEC)
TIME_OFFSET = "time_offset"  # a tangent beside those of the parameters: all deposits later alike [us]
TIME = 1  # the row of the arrival's time among what `arrive` returns
CUTS = {torch.float32: 4.0, torch.float64: 6.0}  # sigmas: what lies beyond is below the rounding of the sums


APART = 2000  # ticks, beyond the length of the response, after which deposits of one event no longer share a row


def drift_velocity(efield: Tensor, temperature: Tensor) -> Tensor:
    """Drift velocity [cm/us] in a field [kV/cm] at a temperature [K]: 1 cm over its drift time; differentiable."""
    one = torch.ones((), dtype=torch.float64, device=efield.device)
    return 1 / drift(one, field=efield, temperature=temperature).time


def _windows(group: Tensor, tick: Tensor, apart: int) -> tuple[Tensor, Tensor]:
    """Nodes (N) of a group that lie together in time: a number for each window, and the group of each window."""
    order = torch.argsort(tick)
    order = order[torch.argsort(group[order], stable=True)]
    g, t = group[order], tick[order]
    begins = torch.ones_like(g, dtype=torch.bool)
    begins[1:] = (g[1:] != g[:-1]) | (t[1:] - t[:-1] > apart)
    window = torch.empty_like(group)
    window[order] = torch.cumsum(begins, 0) - 1
    return window, g[begins]


@dataclass(frozen=True)
class Deposits:
    """Charge at the anode, one row per segment and drift volume that it crosses."""

    segment: Tensor  # int64 (num_deposits)
    event: Tensor  # int64 (num_deposits)
    tpc: Tensor  # int64 (num_deposits)
    electrons: Tensor  # float64 (num_deposits)   that reach the anode [e]
    time: Tensor  # float64 (num_deposits)        of arrival, of the middle [us]
    sigma_t: Tensor  # float64 (num_deposits)     spread across the field [cm]
    sigma_l: Tensor  # float64 (num_deposits)     spread along the field [cm]
    reports: dict[str, Any]

    def __len__(self) -> int:
        return self.segment.shape[0]


class Simulator(nn.Module):
    r"""A pixelated liquid-argon TPC, from energy deposits to hits; differentiable in everything but the noise.

    Args:
        detector: Geometry and front end.
        parameters: Physical parameters; None: the detector's nominal ones. They become the module's parameters, float64
            and in physical units, under their own names (``sim.lifetime``): ``torch.optim`` works on them.
        response: "builtin" (a square pad in a grounded plane, no file), or a table: a path (.npy, .npz), an array
            (bins_x, bins_y, ticks) or a `Table`.
        dtype: Of currents and hits, float32 or float64. Positions, times and charges at the anode are always float64.
        model: Recombination: "birks", "box" or "ellipsoid".
        step: Longest piece of track that is taken as one blob [cm]; docs/lartpc.md states the error.
        reach: Pixels on each side of the one under the charge that see it.
        length: Ticks before arrival that are resolved; what was induced before is added to the first of them.
        lead: False leaves that earlier part out, as the rivals' truncated tables do.
        chunk: Nodes (pieces of track) simulated at a time when hits are asked for; bounds the memory, not the result.
        field_map: Distortion of the drift field, a `FieldMap` or one for each TPC: where charge arrives, when, and the
            field in which it recombines (docs/field-maps.md). It may be set anew, ``sim.field_map = map``.
        far_field: Pixels on each side that see a charge from far away, beyond `reach`, as a dipole with its images in
            the cathode; 0: none. Rows then cover the whole drift, and there are many more of them. A table must cover
            all pixels up to `reach`.
        attachment: "constant": the lifetime does not follow the field. "O2", "O2-Bakale", "N2O" or "SF6": `lifetime` is
            that in the detector's nominal field, and `efield` changes it as the capture by this impurity.
        density_law: "parameter", or "boiling": the density follows the temperature along the boiling line, and the
            parameter `density` has no effect.

    Deterministic: bit-identical from run to run, for any number of threads and any chunk.

    Raises:
        ValueError: a number is out of range, or the response does not fit the detector (named in the message).
        TypeError: dtype is neither float32 nor float64; detector is no Detector.

    Example:
        >>> from hepops.lartpc import Detector, Parameters, Simulator
        >>> sim = Simulator(Detector.module0(), Parameters(lifetime=1800.0))
        >>> sim.lifetime.item()
        1800.0
    """

    lifetime: nn.Parameter
    efield: nn.Parameter
    birks_a: nn.Parameter
    birks_k: nn.Parameter
    transverse_diffusion: nn.Parameter
    longitudinal_diffusion: nn.Parameter
    box_alpha: nn.Parameter
    box_beta: nn.Parameter
    ellipsoid_ratio: nn.Parameter
    density: nn.Parameter
    temperature: nn.Parameter
    w_ion: nn.Parameter

    def __new__(cls, detector: Detector | None = None, *arguments: Any, **options: Any) -> "Simulator":
        if detector is not None and not isinstance(detector, Detector):
            got = f"{detector!r}" if isinstance(detector, str) else type(detector).__name__
            raise TypeError(f"Simulator: detector must be a Detector, such as Detector.module0(), got {got}")
        if cls is Simulator and detector is not None and (not detector.is_uniform or "per_module" in options):
            from .modular import ModularSimulator  # each module with its own pitch, front end and parameters

            cls = ModularSimulator
        return super().__new__(cls)

    def __init__(
        self,
        detector: Detector,
        parameters: Parameters | None = None,
        response: "str | Path | np.ndarray[Any, Any] | Tensor | Table" = "builtin",
        dtype: torch.dtype = torch.float32,
        *,
        model: str = "birks",
        step: float = 0.1,
        reach: int = 2,
        length: int = 150,
        lead: bool = True,
        chunk: int = 30_000,
        field_map: FieldMap | Sequence[FieldMap] | None = None,
        far_field: int = 0,
        attachment: str = "constant",
        density_law: str = "parameter",
    ) -> None:
        super().__init__()
        if detector.is_uniform and (detector.modules or any(t.pitch for t in detector.tpcs)):
            detector = detector.view(detector.module_numbers[0])  # what all modules have stands in front
        if dtype not in CUTS:
            raise TypeError(f"Simulator: dtype must be torch.float32 or torch.float64, got {dtype}")
        if model not in MODELS:
            raise ValueError(f"Simulator: model must be one of {list(MODELS)}, got {model!r}")
        if not 0 < step <= detector.pixel_pitch:
            raise ValueError(f"Simulator: step must be in (0, {detector.pixel_pitch}] cm (one pixel), got {step}")
        if not 1 <= reach <= 16:
            raise ValueError(f"Simulator: reach must be 1 to 16 pixels, got {reach}")
        if not 1 <= length <= 100_000:
            raise ValueError(f"Simulator: length must be 1 to 100000 ticks, got {length}")
        if chunk < 1:
            raise ValueError(f"Simulator: chunk must be positive, got {chunk}")
        self.detector = detector
        self.dtype, self.model, self.step, self.reach, self.length = dtype, model, step, reach, length
        if attachment != "constant" and attachment not in IMPURITIES:
            raise ValueError(f"Simulator: attachment must be one of {['constant', *IMPURITIES]}, got {attachment!r}")
        if density_law not in ("parameter", "boiling"):
            raise ValueError(f"Simulator: density_law must be 'parameter' or 'boiling', got {density_law!r}")
        if far_field != 0 and not reach < far_field <= 1000:
            raise ValueError(f"Simulator: far_field must be 0, or {reach + 1} (beyond reach) to 1000, got {far_field}")
        self.lead, self.chunk, self.far_field = lead, chunk, far_field
        self.attachment, self.density_law = attachment, density_law
        self.field_map = field_map
        if isinstance(response, Table):
            self.table: Table | None = response
        elif isinstance(response, str) and response == "builtin":
            self.table = None
        else:
            self.table = Table.read(response, detector.pixel_pitch)
        if far_field and self.table is not None:  # where the table ends before the far field begins, pads see nothing
            covers = (2 * max(self.table.current.shape[:2]) - self.table.bins) // (2 * self.table.bins)
            if covers < reach:
                raise ValueError(
                    f"Simulator: the table covers {covers} pixels on each side, the far field begins beyond {reach}: "
                    f"reach must be at most {covers}"
                )
        values = parameters if parameters is not None else detector.nominal
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.tensor(getattr(values, name), dtype=torch.float64)))
        self._response: tuple[Any, Response] | None = None

    @property
    def field_map(self) -> tuple[FieldMap, ...] | None:
        """One map for each TPC, or None; refuses what does not fit when it is set."""
        return self._field_map

    @field_map.setter
    def field_map(self, maps: FieldMap | Sequence[FieldMap] | None) -> None:
        self._field_map = None if maps is None else per_tpc(maps, self.detector)

    @property
    def parameters_now(self) -> Parameters:
        """The present values, detached, as `Parameters`."""
        return Parameters(**{name: getattr(self, name).item() for name in NAMES})

    def extra_repr(self) -> str:
        response = "builtin" if self.table is None else f"table {tuple(self.table.current.shape)}"
        return f"{self.detector.name}, response={response}, dtype={self.dtype}, model={self.model}, step={self.step}"

    # ---- the chain

    def _vector(self) -> Tensor:
        values = torch.stack([getattr(self, name) for name in NAMES]).to(torch.float64)
        for name, value in zip(NAMES, values.tolist(), strict=True):
            spec = Parameters.SPEC[name]
            if not spec.floor <= value <= spec.ceiling:
                raise ValueError(
                    f"Simulator: {name} is {value} {spec.unit}, expected {spec.floor} to {spec.ceiling}: did a step of "
                    f"the optimiser leave the range? Parameters.from_unconstrained keeps it"
                )
        return values

    def _derived(self, values: Tensor) -> Tensor:
        """The parameters that enter the laws: lifetime in the present field, density at the present temperature."""
        if self.attachment == "constant" and self.density_law == "parameter":
            return values
        by_name = dict(zip(NAMES, values.unbind(), strict=True))
        if self.attachment != "constant":
            reference = self.detector.nominal.efield
            by_name["lifetime"] = by_name["lifetime"] * lifetime_ratio(by_name["efield"], reference, self.attachment)
        if self.density_law == "boiling":
            by_name["density"] = argon.density(by_name["temperature"])
        return torch.stack([x.to(values.device) for x in by_name.values()])

    def _along(self, tangents: Sequence[str], values: Tensor) -> Tensor:
        """Directions of the derived parameters (num_tangents, 12) for those of the parameters by name."""
        seeds = torch.zeros(len(tangents), len(NAMES), dtype=torch.float64, device=values.device)
        for k, name in enumerate(tangents):
            if name != TIME_OFFSET:
                seeds[k, NAMES.index(name)] = 1.0
        if self._derived(values) is values:
            return seeds
        jacobian: Any = torch.autograd.functional.jacobian(self._derived, values.detach())
        derived: Tensor = seeds @ jacobian.T
        return derived

    def response(self) -> Response:
        """The response at the present velocity; kept until the velocity changes."""
        velocity = drift_velocity(self.efield, self.temperature).detach()
        key = (float(velocity), velocity.device)
        if self._response is None or self._response[0] != key:
            pitch, tick = self.detector.pixel_pitch, self.detector.tick
            if self.table is None:
                made = builtin_response(
                    velocity,
                    pitch,
                    tick,
                    reach=self.reach,
                    length=self.length,
                    dtype=self.dtype,
                    lead="point" if self.lead else "drop",
                )
            else:
                made = table_response(
                    self.table,
                    velocity,
                    tick,
                    length=self.length,
                    dtype=self.dtype,
                    lead="table" if self.lead else "drop",
                )
            self._response = (key, made)
        return self._response[1]

    def _deposits(self, pieces: Pieces, piece: Tensor, share: Tensor, middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for `arrive` (6 or 7, N), positions u, v (2, N) where they arrive, and extents (2, N) of the nodes."""
        along = pieces.end - pieces.start
        at = pieces.start[piece] + middle[:, None] * along[piece]
        extent = (along.abs()[piece] / share[:, None]).T
        square = (along * along).sum(1)
        cos2 = torch.where(square > 0, along[:, 2] ** 2 / torch.where(square > 0, square, torch.ones_like(square)), 0.0)
        at, local = self._distorted(at, pieces.tpc[piece])
        rows = (pieces.dE[piece] / share, pieces.dEdx[piece], cos2[piece], at[:, 2], extent[2], pieces.t0[piece])
        return torch.stack(rows + local), at[:, :2].T, extent[:2]

    def _distorted(self, at: Tensor, tpc: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Apparent u, v, depth of points (N, 3), and the ratio of the local field, where there is a field map."""
        if self.field_map is None:
            return at, ()
        g = self.detector._on(at.device)
        low = torch.stack((g.anode, g.y[:, 0], g.z[:, 0]), 1)[tpc]
        sign = torch.stack((g.direction, torch.ones_like(g.direction), torch.ones_like(g.direction)), 1)[tpc]
        xyz = low + sign * at.flip(1)  # (u, v, depth) -> (x, y, z)
        maps = self.field_map
        if len(at) == 0:
            return at, (at.new_ones(0),)
        if all(m is maps[0] for m in maps):
            shift, ratio = maps[0].to(at.device).at(xyz)
        else:
            places = [torch.nonzero(tpc == k).squeeze(1) for k in range(len(maps))]
            found = [m.to(at.device).at(xyz[i]) for m, i in zip(maps, places, strict=True) if len(i)]
            back = torch.argsort(torch.cat(places))
            shift, ratio = (torch.cat(x)[back] for x in zip(*found, strict=True))
        apparent = at + (sign * shift).flip(1)
        depth = apparent[:, 2]
        if len(depth) and float(depth.detach().min()) < -1e-6:
            i = int(depth.detach().argmin())
            raise ValueError(
                f"Simulator: the field map lets charge at x y z = {xyz[i].tolist()} arrive before it is made (apparent "
                f"distance to the anode {float(depth[i])} cm)"
            )
        return torch.cat([apparent[:, :2], depth.clamp(min=0.0)[:, None]], 1), (ratio,)

    def drift(self, segments: Segments) -> Deposits:
        """Charge that reaches the anode, by the middle of every segment's part in every drift volume.

        Returns:
            `Deposits`: electrons [e], time of arrival [us], sigma_t and sigma_l [cm], with the segment and TPC.

        Differentiable in the parameters, positions, dE, dE/dx and t0.
        """
        _refuse_bad(segments)
        pieces = cut(segments, self.detector)
        every = torch.arange(len(pieces), device=pieces.segment.device)
        one = torch.ones(len(pieces), dtype=torch.float64, device=every.device)
        rows, _, _ = self._deposits(pieces, every, one, one / 2)
        charge, time, sigma, sigma_time, _ = arrive(rows, self._derived(self._vector()), self.model)
        sigma_l = sigma_time * drift_velocity(self.efield, self.temperature)
        return Deposits(pieces.segment, pieces.event, pieces.tpc, charge, time, sigma, sigma_l, self._reports(pieces))

    def _reports(self, pieces: Pieces) -> dict[str, Any]:
        return {"segments_outside": pieces.segments_outside, "energy_outside": pieces.energy_outside}

    def _pieces(self, segments: Segments) -> Pieces:
        _refuse_bad(segments)
        self._vector()  # refuses parameters out of range before any work is done
        pieces = cut(segments, self.detector)
        if message := warning_outside(segments, self.detector, pieces):
            warnings.warn(message, stacklevel=3)
        return pieces

    def waveforms(self, segments: Segments, tangents: Sequence[str] = ()) -> Waveforms:
        """Currents on all pixels in reach.

        Args:
            segments: Of any number of events.
            tangents: Names of parameters: forward mode along each, in the units of the parameter. "time_offset" is the
                direction in which every deposit is later [us].

        Returns:
            `Waveforms`, with `tangents` (num_tangents, total) where asked for.

        Differentiable (reverse mode) in the parameters, positions, dE, dE/dx and t0.
        """
        return self._waveforms(self._pieces(segments), tangents)[0]

    def _waveforms(self, pieces: Pieces, tangents: Sequence[str]) -> tuple[Waveforms, "_Inputs"]:
        count = tangent_directions(tangents)
        for name in tangents:
            if name not in NAMES and name != TIME_OFFSET:
                raise ValueError(f"Simulator: no parameter {name!r}; there are {[*NAMES, TIME_OFFSET]}")
            if name == "density" and self.density_law == "boiling":
                raise ValueError("Simulator: density follows the temperature here (density_law='boiling'): no tangent")
        detector, response = self.detector, self.response()
        pitch, tick = detector.pixel_pitch, detector.tick
        device = pieces.segment.device
        velocity = drift_velocity(self.efield, self.temperature)
        piece, share, middle = divide(pieces, self.step)
        rows, at, extent = self._deposits(pieces, piece, share, middle)
        values = self._vector()
        derived = self._derived(values)
        charge, time, sigma, sigma_time, width_time = arrive(rows, derived, self.model)
        nodes = torch.stack((charge, *at, time, sigma, sigma_time, *extent, width_time, rows[3]))

        events, event_rank = torch.unique(pieces.event, return_inverse=True)
        planes = len(detector.tpcs)
        group = (event_rank * planes + pieces.tpc)[piece]
        window, group = _windows(group, nodes[3].detach() / tick, response.length + APART)
        t0 = torch.full((len(group),), torch.inf, dtype=torch.float64, device=device)
        t0 = t0.scatter_reduce(0, window, pieces.t0.detach()[piece], "amin")
        pixels = torch.tensor([(t.nx, t.ny) for t in detector.tpcs], dtype=torch.int64, device=device)
        pixels_of_node = pixels[pieces.tpc[piece]]
        settings: dict[str, Any] = {"pitch": pitch, "tick": tick, "reach": self.reach, "cut": CUTS[self.dtype]}
        with torch.no_grad():
            layout = plan(nodes, window, pixels_of_node, velocity, response, **settings)

        currents: Tensor | None = None
        slopes: Tensor | None = None
        if count:
            with torch.no_grad():
                seeds = self._along(tangents, values)
                along = arrive_tangents(rows, derived, seeds, self.model)
                along[[k for k, name in enumerate(tangents) if name == TIME_OFFSET], TIME] = 1.0
                with torch.enable_grad():
                    E, T = (x.detach().requires_grad_() for x in (self.efield, self.temperature))
                    per_E, per_T = torch.autograd.grad(drift_velocity(E, T), (E, T))
                along_v = seeds[:, NAMES.index("efield")] * per_E + seeds[:, NAMES.index("temperature")] * per_T
                currents, slopes = waveforms_and_tangents(nodes, velocity, along, along_v, response, layout, **settings)
        if currents is None or (torch.is_grad_enabled() and nodes.requires_grad):
            currents = waveforms(nodes, velocity, response, layout, **settings)
        rows_of: Plan | FarPlan = layout
        if self.far_field:
            length = torch.tensor([t.drift_length for t in detector.tpcs], dtype=torch.float64, device=device)
            of_node = (window, pixels_of_node, length[pieces.tpc[piece]])
            reaches: dict[str, Any] = {"pitch": pitch, "tick": tick, "reach": self.reach, "far": self.far_field}
            rows_of = far = far_plan(nodes, velocity, *of_node, layout, **reaches)
            currents = spread(currents, far_field(nodes, velocity, far), far, tick)
            if slopes is not None:
                with torch.no_grad():
                    slopes = spread(slopes, far_field_tangents(nodes, velocity, along, along_v, far), far, tick)
        plane: dict[str, Any] = {"pitch": pitch, "bins": response.bins, "reach": self.reach, "cut": CUTS[self.dtype]}
        # Event by event, so that the sums over all events do not depend on how they were divided into chunks.
        zeros = torch.zeros(len(events), dtype=torch.float64, device=device)
        arriving = zeros.index_add(0, event_rank[piece], charge.detach())
        lost = zeros.index_add(0, event_rank[piece], lost_by_node(nodes, layout, pixels_of_node, **plane))
        several = len(group) > len(torch.unique(group))
        reports = self._reports(pieces) | {
            "electrons_arriving": math.fsum(arriving.tolist()),
            "electrons_lost": math.fsum(lost.tolist()),
        }
        waves = Waveforms(
            events[torch.div(group[rows_of.group], planes, rounding_mode="floor")],
            group[rows_of.group] % planes,
            rows_of.pixel_u,
            rows_of.pixel_v,
            rows_of.first,
            rows_of.offset,
            currents,
            tick,
            t0[rows_of.group],
            slopes,
            tuple(tangents),
            reports,
        )
        fixed = (nodes.detach(), velocity.detach(), response, layout, settings, pieces.segment[piece])
        near = rows_of.near if isinstance(rows_of, FarPlan) else None
        return waves, _Inputs(*fixed, arriving.tolist(), lost.tolist(), several, near)

    def _blocks(self, segments: Segments, tangents: Sequence[str]) -> Iterator["Block"]:
        """Waveforms of whole events, chunk by chunk."""
        for pieces in self._chunks(self._pieces(segments)):
            yield Block(self.detector, self._waveforms(pieces, tangents)[0])

    def _chunks(self, pieces: Pieces) -> Iterator[Pieces]:
        """Whole events, in order, of about `chunk` nodes together."""
        if len(pieces) == 0:
            yield pieces
            return
        nodes = count_nodes(pieces, self.step)
        _, rank = torch.unique_consecutive(pieces.event, return_inverse=True)
        per_event = torch.zeros(int(rank[-1]) + 1, dtype=torch.int64, device=nodes.device).index_add_(0, rank, nodes)
        number, filled, chunk = [], 0, 0
        for n in per_event.tolist():
            if filled and filled + n > self.chunk:
                chunk, filled = chunk + 1, 0
            filled += n
            number.append(chunk)
        of_piece = torch.tensor(number, device=rank.device)[rank]
        for k in range(chunk + 1):
            yield pieces if chunk == 0 else pieces.select(of_piece == k)

    def forward(
        self,
        segments: Segments,
        seed: int | None = None,
        *,
        tangents: Sequence[str] = (),
        threshold: float | Tensor | None = None,
        truth: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Hits:
        """Simulate: recombination, drift, induction, front end.

        Args:
            segments: Of any number of events; they are simulated a few events at a time, so that memory stays bounded.
            seed: None: noise-free and continuous, differentiable. A number: the clocked chip with its noise, which
                depends on the seed, the pixel and the tick at which its window begins, not on threads, chunks or other
                events; windows are a little longer in float64 than in float32, so the two draw different noise.
            tangents: Names of parameters: forward mode, derivatives of time and charge of every hit (seed None).
            threshold: One number [e], or one per pixel of the detector, by `Detector.pixel_id`; None: the detector's.
            truth: Also tell which segments made each hit: `Hits.truth`, shares of the noise-free charge of its
                integration, every segment that gave any, without a cap. A share may be negative: charge that passes by
                induces both signs.
            progress: Called with (nodes done, nodes in all) after every few events.

        Returns:
            `Hits`, sorted by (event, tpc, iy, ix, time). `row` counts the pixels that saw a current. `reports` has
            segments_outside, energy_outside [MeV], electrons_arriving, electrons_lost (beside the plane) and rejected
            (silent resets).

        Without a seed, differentiable in reverse mode in all parameters, positions, dE, dE/dx and t0, as far as the set
        of hits stays the same.

        Raises:
            ValueError: an unknown name in `tangents`, tangents together with a seed, or a threshold of the wrong shape.
        """
        if tangents and seed is not None:
            raise ValueError("Simulator: hits with noise have no derivatives: tangents need seed=None")
        pieces = self._pieces(segments)
        velocity = drift_velocity(self.efield, self.temperature)
        parts: list[Hits] = []
        arriving: list[float] = []
        lost: list[float] = []
        several = False
        rows, done, total = 0, 0, int(count_nodes(pieces, self.step).sum())
        for chunk in self._chunks(pieces):
            waves, inputs = self._waveforms(chunk, tangents)
            arriving, lost, several = arriving + inputs.arriving, lost + inputs.lost, several or inputs.several
            hits = frontend(
                waves, self.detector, seed=seed, threshold=self._threshold(threshold, waves), velocity=velocity
            )
            rejected = int(hits.reports["rejected"].sum())
            if truth:
                hits = replace(hits, truth=inputs.truth(hits))
            parts.append(
                replace(
                    hits,
                    row=hits.row + rows,
                    reports=waves.reports | {"rejected": rejected, "pixels": len(waves)},
                    tangent_names=tuple(tangents),
                )
            )
            rows += len(waves)
            done += int(count_nodes(chunk, self.step).sum())
            if progress is not None:
                progress(done, total)
        totals = {"electrons_arriving": math.fsum(arriving), "electrons_lost": math.fsum(lost)}
        hits = _join(parts, self._reports(pieces) | totals)
        return _rank(hits) if several else hits

    def universes(
        self, parameters: "Sequence[Parameters] | Mapping[str, Any]", segments: Segments, **options: Any
    ) -> "Universes":
        """Many sets of parameters in one call: see `hepops.lartpc.universes.universes`."""
        from .universes import universes

        return universes(self, parameters, segments, **options)

    def _threshold(self, threshold: float | Tensor | None, waves: Waveforms) -> float | Tensor | None:
        if not isinstance(threshold, Tensor) or threshold.numel() == 1:
            return threshold
        if threshold.shape != (self.detector.num_pixels,):
            raise ValueError(
                f"Simulator: threshold must be one number or ({self.detector.num_pixels},), one per pixel, "
                f"got {tuple(threshold.shape)}"
            )
        return threshold.to(waves.values)[self.detector.pixel_id(waves.tpc, waves.ix, waves.iy)]


class Block(NamedTuple):
    """Waveforms of some events in TPCs that are alike."""

    detector: Detector  # with the front end of these TPCs
    waves: Waveforms
    tpcs: Tensor | None = None  # int64; None: all

    def holds(self, tpc: Tensor) -> Tensor:
        """Whether the block is about these TPCs, bool (n)."""
        return (
            torch.ones_like(tpc, dtype=torch.bool) if self.tpcs is None else torch.isin(tpc, self.tpcs.to(tpc.device))
        )


@dataclass(frozen=True)
class _Inputs:
    """What the waveforms were made of, kept for the truth of the hits."""

    nodes: Tensor
    velocity: Tensor
    response: Response
    layout: Plan
    settings: dict[str, Any]
    segment: Tensor  # int64 (N) of each node
    arriving: list[float]  # (num_events) [e]
    lost: list[float]  # (num_events) [e]
    several: bool  # whether a pixel may have rows for more than one window of time
    near: Tensor | None = None  # int64 (num_rows) the layout's row of each row, -1 where only the far field is seen

    def truth(self, hits: Hits) -> Truth:
        """Every (hit, node) pair on the hit's pixel, its charge within the hit's integration, summed by segment."""
        layout, device = self.layout, self.nodes.device
        row = hits.row if self.near is None else self.near[hits.row].clamp(min=0)
        pairs = layout.pair_offset[row + 1] - layout.pair_offset[row]
        if self.near is not None:  # the far field is nobody's in particular
            pairs = torch.where(self.near[hits.row] < 0, 0, pairs)
        hit = torch.repeat_interleave(pairs)
        number = torch.arange(len(hit), device=device) - (pairs.cumsum(0) - pairs)[hit]
        pair = layout.pair_offset[row[hit]] + number
        begin, end = hits.reports["integration"][:, hit]
        charge = hit_shares(self.nodes, self.velocity, pair, begin, end, self.response, layout, **self.settings)
        side = 2 * self.settings["reach"] + 1
        segment = self.segment[torch.div(layout.pair[pair], side * side, rounding_mode="floor")]
        most = int(self.segment.max()) + 1 if len(self.segment) else 1
        key, which = torch.unique(hit * most + segment, return_inverse=True)
        sums = charge.new_zeros(len(key)).index_add_(0, which, charge)
        hit, segment = torch.div(key, most, rounding_mode="floor"), key % most
        total = sums.new_zeros(len(hits)).index_add_(0, hit, sums)
        some = sums != 0
        return Truth(hit[some], segment[some], (sums / total[hit])[some])


def _rank(hits: Hits) -> Hits:
    """Sorted by pixel and time, and counted within each pixel over all its windows of time."""
    if len(hits) == 0:
        return hits
    hits = hits.sort()
    pixel = torch.stack((hits.event, hits.tpc, hits.iy, hits.ix), 1)
    number = torch.arange(len(hits), device=pixel.device)
    begins = torch.cat([torch.ones_like(number[:1], dtype=torch.bool), (pixel[1:] != pixel[:-1]).any(1)])
    return replace(hits, rank=number - torch.cummax(torch.where(begins, number, 0), 0).values)


def _refuse_bad(segments: Segments) -> None:
    """Segments made by hand have met no reader: what has no meaning is refused by name."""

    def check(name: str, good: Tensor, expected: str) -> None:
        if not bool(good.all()):
            row = int(torch.nonzero(~good)[0])
            got = getattr(segments, name)[row].tolist()
            raise ValueError(f"Simulator: {name} of segment {row} is {got}, expected {expected}")

    if not isinstance(segments, Segments):
        got = type(segments).__name__
        raise TypeError(f"segments must be Segments, got {got}: read_segments makes them of a file, arrays or a table")
    if segments.event.dtype != torch.int64:
        raise TypeError(f"Simulator: event must be int64, got {segments.event.dtype}")
    with torch.no_grad():
        check("event", segments.event >= 0, "a number >= 0")
        check("start", torch.isfinite(segments.start).all(1), "finite numbers [cm]")
        check("end", torch.isfinite(segments.end).all(1), "finite numbers [cm]")
        check("dE", torch.isfinite(segments.dE) & (segments.dE >= 0), "a finite number >= 0 [MeV]")
        charged = segments.dE > 0
        check("dEdx", torch.isfinite(segments.dEdx) & ((segments.dEdx > 0) | ~charged), "a finite number > 0 [MeV/cm]")
        check("t0", segments.t0.abs() < 1e14, "a finite number below 1e14 [us]")


def _join(parts: list[Hits], reports: dict[str, Any]) -> Hits:
    """Hits of successive chunks as one."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].columns()}
    tangents: dict[str, Any] = {}
    for name in ("time_tangents", "charge_tangents"):
        some = [t for t in (getattr(part, name) for part in parts) if t is not None]
        tangents[name] = torch.cat(some, 1) if some else None
    for name in ("rejected", "pixels"):
        reports[name] = sum(part.reports[name] for part in parts)
    truth, begin = None, 0
    if parts[0].truth is not None:
        moved = []
        for part in parts:
            assert part.truth is not None
            moved.append(part.truth._replace(hit=part.truth.hit + begin))
            begin += len(part)
        truth = Truth(*(torch.cat(column) for column in zip(*moved, strict=True)))
    return replace(parts[0], **columns, **tangents, truth=truth, reports=reports)
