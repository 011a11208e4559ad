"""The simulator of a wire detector: segments in, images of wire against time out.

Recombination and drift are those of the pixel simulator (`arrive`), and so is the sum over pieces of track
(`waveforms`): a wire is a pixel without an edge along its direction, so that the coordinate across the wires is u, and
along v there is one bin that has all the charge.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..arrive import MODELS, arrive, arrive_tangents
from ..drift import drift
from ..parameters import Parameters
from ..pieces import Pieces, cut, divide
from ..segments import Segments
from ..simulator import APART, CUTS, NAMES, TIME, TIME_OFFSET, _refuse_bad, _windows, drift_velocity
from ..waveforms import Plan, Waveforms, lost_by_node, plan, tangent_directions, waveforms, waveforms_and_tangents
from .detector import WireDetector
from .electronics import Shape, taps
from .images import WireImages
from .response import wire_response

WIDEST = 60  # bins that one node may cover: the operator allows 64


class WireSimulator(nn.Module):
    r"""A liquid-argon TPC read by wires, from energy deposits to sampled voltages; differentiable, free of noise.

    Args:
        detector: Geometry and electronics.
        parameters: Physical parameters; None: the detector's nominal ones. They become the module's parameters.
        dtype: Of currents and images, float32 or float64.
        model: Recombination: "birks", "box" or "ellipsoid".
        step: Longest piece of track that is taken as one blob [cm].
        parts: Into how many parts an ADC tick is divided for the induced current, constant within each.
        bins: Bins per pitch, even; None: 10, or fewer where diffusion spreads a blob over more than 60.
        reach: Wires on each side of the one under the charge that see it; None: as far as diffusion, and one more.

    Deterministic: bit-identical from run to run, for any number of threads.

    Raises:
        ValueError: a number is out of range (named in the message).
        TypeError: dtype is neither float32 nor float64.

    References:
        | S. Ramo, Proc. IRE 27 (1939) 584; docs/wires.md

    Example:
        >>> from hepops.lartpc import gun
        >>> from hepops.lartpc.wires import WireDetector, WireSimulator
        >>> sim = WireSimulator(WireDetector.microboone())
        >>> images = sim(gun.shoot(sim.detector.volumes, events=1, topology="inside", energy=100.0, seed=1))
        >>> image, first = images.dense(0, plane="Y")
        >>> image.shape[0], bool(image.max() > 5.0)
        (3456, True)
    """

    def __init__(
        self,
        detector: WireDetector,
        parameters: Parameters | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        model: str = "birks",
        step: float = 0.1,
        parts: int = 4,
        bins: int | None = None,
        reach: int | None = None,
    ) -> None:
        super().__init__()
        if dtype not in CUTS:
            raise TypeError(f"WireSimulator: dtype must be torch.float32 or torch.float64, got {dtype}")
        if model not in MODELS:
            raise ValueError(f"WireSimulator: model must be one of {list(MODELS)}, got {model!r}")
        pitch = min(plane.pitch for plane in detector.planes)
        if not 0 < step <= pitch:
            raise ValueError(f"WireSimulator: step must be in (0, {pitch}] cm (one pitch), got {step}")
        if not 1 <= parts <= 50:
            raise ValueError(f"WireSimulator: parts must be 1 to 50, got {parts}")
        if bins is not None and (bins < 2 or bins % 2):
            raise ValueError(f"WireSimulator: bins must be even and positive, got {bins}")
        self.detector, self.dtype, self.model, self.step, self.parts = detector, dtype, model, step, parts
        values = parameters if parameters is not None else detector.nominal
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.tensor(getattr(values, name), dtype=torch.float64)))
        blob = 2 * CUTS[dtype] * self._widest() + step
        fitting = int(WIDEST * pitch / blob) // 2 * 2
        self.bins = bins if bins is not None else max(2, min(10, fitting))
        self.reach = reach if reach is not None else min(16, math.ceil(blob / 2 / pitch) + 1)
        if not 1 <= self.reach <= 16:
            raise ValueError(f"WireSimulator: reach must be 1 to 16 wires, got {reach}")

    def _widest(self) -> float:
        """Sigma of a charge from the farthest cathode at the largest diffusion in the range of fits [cm]."""
        efield, temperature = (getattr(self, n).detach() for n in ("efield", "temperature"))
        longest = max(abs(t.cathode - t.anode) for t in self.detector.tpcs)
        time = float(drift(torch.tensor(longest, dtype=torch.float64), field=efield, temperature=temperature).time)
        most = max(Parameters.SPEC["transverse_diffusion"].high, float(self.parameters_now.transverse_diffusion))
        return math.sqrt(2 * most * 1.1 * time)

    @property
    def parameters_now(self) -> Parameters:
        """The present values, detached, as `Parameters`."""
        return Parameters(**{name: getattr(self, name).item() for name in NAMES})

    def extra_repr(self) -> str:
        return f"{self.detector.name}, dtype={self.dtype}, model={self.model}, step={self.step}, bins={self.bins}"

    # ---- the chain

    def _pieces(self, segments: Segments) -> Pieces:
        _refuse_bad(segments)
        volumes: Any = self.detector.volumes
        return cut(segments, volumes)

    def _nodes(self, pieces: Pieces) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows for `arrive` (6, N), the piece (N), y, z at the middle (2, N) and the way along y, z (2, N) [cm]."""
        piece, share, middle = divide(pieces, self.step)
        along = pieces.end - pieces.start
        at = pieces.start[piece] + middle[:, None] * along[piece]
        way = along[piece] / share[:, None]
        square = (along * along).sum(1)
        cos2 = torch.where(square > 0, along[:, 2] ** 2 / torch.where(square > 0, square, torch.ones_like(square)), 0.0)
        depth = at[:, 2] + self.detector.planes[0].distance  # to the collection plane
        rows = (pieces.dE[piece] / share, pieces.dEdx[piece], cos2[piece], depth, way[:, 2].abs(), pieces.t0[piece])
        return torch.stack(rows), piece, at[:, :2].T.flip(0), way[:, :2].T.flip(0)

    def induced(self, segments: Segments, tangents: Sequence[str] = ()) -> list[Waveforms]:
        """Induced currents plane by plane, in parts of a tick [e/us]: `ix` is the wire, `iy` 0.

        Args:
            segments: Of any number of events.
            tangents: Names of parameters, or "time_offset": forward mode along each.

        Differentiable (reverse mode) in the parameters, positions, dE, dE/dx and t0. Per wire the integral is
        n (c - phi_w(z0)), c the share of the charge that the wire collects, z0 where it was made: 0 beyond the shield.
        """
        count = tangent_directions(tangents)
        for name in tangents:
            if name not in NAMES and name != TIME_OFFSET:
                raise ValueError(f"WireSimulator: no parameter {name!r}; there are {[*NAMES, TIME_OFFSET]}")
        pieces = self._pieces(segments)
        values = torch.stack([getattr(self, name) for name in NAMES]).to(torch.float64)
        velocity = drift_velocity(self.efield, self.temperature)  # type: ignore[arg-type]
        rows, piece, at, way = self._nodes(pieces)
        arrived = arrive(rows, values, self.model)
        along = self._along(rows, values, tangents) if count else None
        return [
            self._plane(k, pieces, piece, rows, arrived, at, way, velocity, along, tuple(tangents))
            for k in range(len(self.detector.planes))
        ]

    def _along(self, rows: Tensor, values: Tensor, tangents: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Derivatives of what arrives (K, 5, N), and of the velocity (K)."""
        with torch.no_grad():
            seeds = torch.zeros(len(tangents), len(NAMES), dtype=torch.float64, device=rows.device)
            for k, name in enumerate(tangents):
                if name != TIME_OFFSET:
                    seeds[k, NAMES.index(name)] = 1.0
            along = arrive_tangents(rows, values, seeds, self.model)
            along[[k for k, name in enumerate(tangents) if name == TIME_OFFSET], TIME] = 1.0
        E, T = (getattr(self, n).detach().requires_grad_() for n in ("efield", "temperature"))
        with torch.enable_grad():
            per_E, per_T = torch.autograd.grad(drift_velocity(E, T), (E, T))
        return along, seeds[:, NAMES.index("efield")] * per_E + seeds[:, NAMES.index("temperature")] * per_T

    def _plane(
        self,
        number: int,
        pieces: Pieces,
        piece: Tensor,
        rows: Tensor,
        arrived: Tensor,
        at: Tensor,
        way: Tensor,
        velocity: Tensor,
        along: tuple[Tensor, Tensor] | None,
        names: tuple[str, ...],
    ) -> Waveforms:
        detector, plane = self.detector, self.detector.planes[number]
        tick, device = detector.tick / self.parts, rows.device
        response = wire_response(detector, number, velocity, tick, bins=self.bins, reach=self.reach, dtype=self.dtype)
        tpc = pieces.tpc[piece]
        cy, cz = plane.across
        corner = [cy * t.y[0] + cz * t.z[0] - detector.span(number, i)[0] for i, t in enumerate(detector.tpcs)]
        u = cy * at[0] + cz * at[1] + torch.tensor(corner, dtype=torch.float64, device=device)[tpc]
        width = (cy * way[0] + cz * way[1]).abs()
        charge, time, sigma, sigma_time, width_time = arrived
        half = torch.full_like(u, 0.5 * plane.pitch)
        flat = torch.zeros_like(u)
        nodes = torch.stack((charge, u, half, time, sigma, sigma_time, width, flat, width_time, rows[3]))

        events, event_rank = torch.unique(pieces.event, return_inverse=True)
        group = (event_rank * len(detector.tpcs) + pieces.tpc)[piece]
        window, group = _windows(group, time.detach() / tick, response.length + APART)
        wires = torch.tensor([(detector.num_wires(number, i), 1) for i in range(len(detector.tpcs))], device=device)
        settings: dict[str, Any] = {"pitch": plane.pitch, "tick": tick, "reach": self.reach, "cut": CUTS[self.dtype]}
        with torch.no_grad():
            layout = plan(nodes, window, wires[tpc], velocity, response, **settings)
            layout = _one_bin_along(layout, self.bins)
        currents: Tensor | None = None
        slopes: Tensor | None = None
        if along is not None:
            with torch.no_grad():
                currents, slopes = waveforms_and_tangents(nodes, velocity, *along, response, layout, **settings)
        if currents is None or (torch.is_grad_enabled() and nodes.requires_grad):
            currents = waveforms(nodes, velocity, response, layout, **settings)
        beside: dict[str, Any] = {n: settings[n] for n in ("pitch", "reach", "cut")} | {"bins": response.bins}
        lost = math.fsum(lost_by_node(nodes, layout, wires[tpc], **beside).tolist())
        return Waveforms(
            events[torch.div(group[layout.group], len(detector.tpcs), rounding_mode="floor")],
            group[layout.group] % len(detector.tpcs),
            layout.pixel_u,
            layout.pixel_v,
            layout.first,
            layout.offset,
            currents,
            tick,
            None,
            slopes,
            names if along is not None else (),
            {
                "electrons_arriving": math.fsum(charge.tolist()),
                "electrons_lost": lost,
                "segments_outside": pieces.segments_outside,
                "energy_outside": pieces.energy_outside,
            },
        )

    def forward(self, segments: Segments, *, tangents: Sequence[str] = ()) -> WireImages:
        """Simulate: recombination, drift, induction on every plane, shaping, sampling.

        Args:
            segments: Of any number of events.
            tangents: Names of parameters, or "time_offset": forward mode, derivatives of every sample.

        Returns:
            `WireImages` of all planes, free of noise, in mV. `reports` has segments_outside, energy_outside [MeV],
            electrons_arriving and, plane by plane, electrons_lost (beside the plane).

        Differentiable in reverse mode in all parameters, positions, dE, dE/dx and t0.
        """
        planes = [self._sampled(waves) for waves in self.induced(segments, tangents)]
        firsts = [waves.reports for waves, *_ in planes]
        columns: dict[str, Any] = {
            name: torch.cat([getattr(waves, source) for waves, *_ in planes])
            for name, source in (("event", "event"), ("tpc", "tpc"), ("wire", "ix"))
        }
        counts = torch.cat([count for _, _, count, _, _ in planes])
        slopes = [tangent for *_, tangent in planes if tangent is not None]
        return WireImages(
            self.detector,
            plane=torch.cat([torch.full_like(waves.event, k) for k, (waves, *_) in enumerate(planes)]),
            first=torch.cat([first for _, first, *_ in planes]),
            offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            values=torch.cat([values for *_, values, _ in planes]),
            tangents=torch.cat(slopes, 1) if slopes else None,
            tangent_names=tuple(tangents),
            reports=firsts[0] | {"electrons_lost": [report["electrons_lost"] for report in firsts]},
            **columns,
        )

    def _sampled(self, waves: Waveforms) -> tuple[Waveforms, Tensor, Tensor, Tensor, Tensor | None]:
        """The rows, their first samples and numbers of samples, and the samples with their tangents.

        Rows are laid out one after the other, each from a whole tick, with zeros behind it as long as the response.
        """
        chip, parts = self.detector.frontend, self.parts
        weights = taps(self.detector.tick, parts, chip.gain, chip.peaking_time)
        length = waves.offsets[1:] - waves.offsets[:-1]
        first = torch.div(waves.first_tick, parts, rounding_mode="floor")
        ahead = waves.first_tick - first * parts
        samples = torch.div(ahead + length + parts - 1, parts, rounding_mode="floor") + len(weights) // parts
        begin = torch.cumsum(samples, 0) - samples
        row = waves.row
        place = torch.arange(len(row), device=row.device) - waves.offsets[row] + (begin * parts + ahead)[row]
        total = len(weights) + parts * int(samples.sum())

        def shape(current: Tensor) -> Tensor:
            laid = current.new_zeros(*current.shape[:-1], total).index_copy(-1, place + len(weights), current)
            shaped: Tensor = Shape.apply(laid, weights, parts)
            return shaped

        return waves, first, samples, shape(waves.values), None if waves.tangents is None else shape(waves.tangents)


def _one_bin_along(layout: Plan, bins: int) -> Plan:
    """Along the wire all charge is in one bin, whose weight is 1: the outermost edges of a blob stand at infinity."""
    places = layout.places.clone()
    places[:, 2], places[:, 3] = bins // 2, 1
    return replace(layout, places=places, bins_v=1)
