"""The light simulator: segments in, photoelectrons, waveforms and triggered readouts out."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from hepops.core import philox_normal

from ..arrive import MODELS, arrive, arrive_tangents
from ..detector import Detector
from ..parameters import Parameters
from ..pieces import Pieces, cut, divide, warning_outside
from ..segments import Segments
from ..simulator import NAMES, Simulator, _refuse_bad
from .groups import Arrivals, Groups
from .impulse import Impulse, convolve
from .noise import NoiseSpectrum
from .poisson import IONISATION
from .properties import LightProperties
from .reading import join, read_out
from .readout import LightReadout
from .scintillation import Quanta, SingletShare
from .seen import Seen, frame_size, to_frame, turned
from .sipm import SiPM
from .solid_angle import SolidAngle
from .table import VisibilityTable
from .waveforms import LightWaveforms

# Rows of `arrive`'s deposits that light does not ask for: no drift, so that its charge is what leaves the track.
NO_DEPTH, NO_WIDTH = 0.0, 0.0


class LightSimulator(nn.Module):
    r"""Scintillation light of a liquid-argon TPC, from energy deposits to digitised waveforms.

    Args:
        detector: Geometry, and W_ph.
        parameters: Physical parameters, as for `Simulator`: the charge's recombination is the light's. A `Simulator`
            shares its own parameters, so that one fit moves charge and light together; its field map and its density
            law hold for light as well.
        properties: Constants of the readout.
        visibility: `SolidAngle` or `VisibilityTable`.
        model: Recombination: "birks", "box" or "ellipsoid"; None: that of the simulator shared, else "birks".
        singlet: The singlet's share of the light: None (the properties' constant, a parameter of this module),
            "particle", "dedx", a number or a mapping; see `SingletShare`.
        unknown: What becomes of a particle that the share's table has not: "refuse", or a share.
        impulse: Of the SiPMs; None: the built-in one with the properties' times.
        sipm: Spread of the gain, crosstalk, afterpulses, dark counts; by default none.
        noise: Of the electronics; None: none.
        step: Longest piece of track that shines from one point [cm].

    Its own parameters, beside the physical ones: `w_ph` [MeV], `tau_s`, `tau_t` [us], `singlet_fraction`, `efficiency`
    (num_channels) and those of the visibility. Everything up to the noise is linear in the photons and differentiable.

    Raises:
        ValueError: a number is out of range, or the parts do not fit each other (named in the message).

    Example:
        >>> from hepops.lartpc import Parameters
        >>> light = LightSimulator.module0(Parameters(efield=0.5))
        >>> light.tau_t.item()
        0.752
    """

    w_ph: nn.Parameter
    tau_s: nn.Parameter
    tau_t: nn.Parameter
    singlet_fraction: nn.Parameter
    efficiency: nn.Parameter

    def __init__(
        self,
        detector: Detector,
        parameters: "Parameters | Simulator | None" = None,
        *,
        properties: LightProperties,
        visibility: "SolidAngle | VisibilityTable",
        model: str | None = None,
        singlet: "str | float | Mapping[int, float] | None" = None,
        unknown: "str | float" = "refuse",
        impulse: Impulse | None = None,
        sipm: SiPM | None = None,
        noise: NoiseSpectrum | None = None,
        step: float = 1.0,
    ) -> None:
        super().__init__()
        shared = parameters if isinstance(parameters, Simulator) else None
        self.model = model or (shared.model if shared else "birks")
        if self.model not in MODELS:
            raise ValueError(f"LightSimulator: model must be one of {list(MODELS)}, got {self.model!r}")
        if not 0 < step <= 100:
            raise ValueError(f"LightSimulator: step must be in (0, 100] cm, got {step}")
        if len(properties.tpc_to_channel) != len(detector.tpcs):
            raise ValueError(
                f"LightSimulator: tpc_to_channel has {len(properties.tpc_to_channel)} TPCs, "
                f"{detector.name} has {len(detector.tpcs)}"
            )
        visibility.check(detector, properties.channels_per_tpc)
        if noise is not None and noise.channels != properties.num_channels:
            raise ValueError(
                f"LightSimulator: the noise has {noise.channels} channels, the readout {properties.num_channels}"
            )
        if properties.impulse == "measured" and impulse is None:
            raise ValueError(
                "LightSimulator: the properties ask for a measured impulse: give impulse=Impulse.read(...)"
            )
        self.detector, self.properties, self.step = detector, properties, step
        self.visibility, self.noise, self.sipm = visibility, noise, sipm or SiPM()
        self.impulse = impulse or Impulse.damped(properties.response_time, properties.oscillation_period)
        self.singlet = None if singlet is None else SingletShare(singlet, unknown)
        self._charge = () if shared is None else (shared,)  # in a tuple, so that it is no part of this module
        if parameters is None:
            _refuse_differing(detector)
        values = parameters if isinstance(parameters, Parameters) else detector.nominal
        for name in NAMES:
            own = nn.Parameter(torch.tensor(getattr(values, name), dtype=torch.float64))
            if shared is not None and name not in shared._parameters:
                raise ValueError(
                    f"LightSimulator: {name} of the simulator shared differs by module: share one of a module"
                )
            self.register_parameter(name, shared._parameters[name] if shared is not None else own)
        constants = {"w_ph": detector.w_ph, "tau_s": properties.tau_s, "tau_t": properties.tau_t}
        constants["singlet_fraction"] = properties.singlet_fraction
        for name, value in constants.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))
        self.efficiency = nn.Parameter(torch.tensor(properties.efficiency, dtype=torch.float64))

    @classmethod
    def module0(cls, parameters: "Parameters | Simulator | None" = None, **options: Any) -> Self:
        """module0 with the built-in solid angles, whose panels hold their own efficiencies."""
        properties = options.pop("properties", None) or LightProperties.module0().replace(efficiency=(1.0,) * 96)
        visibility = options.pop("visibility", None) or SolidAngle.module0()
        return cls(Detector.module0(), parameters, properties=properties, visibility=visibility, **options)

    def extra_repr(self) -> str:
        return f"{self.detector.name}, channels={self.properties.num_channels}, model={self.model}, step={self.step}"

    # ---- quanta

    def _values(self) -> Tensor:
        values = torch.stack([getattr(self, name) for name in NAMES]).to(torch.float64)
        for name, value in zip(NAMES, values.tolist(), strict=True):
            spec = Parameters.SPEC[name]
            if not spec.floor <= value <= spec.ceiling:
                raise ValueError(
                    f"LightSimulator: {name} is {value} {spec.unit}, expected {spec.floor} to {spec.ceiling}"
                )
        for name in ("w_ph", "tau_s", "tau_t"):
            if not getattr(self, name).item() > 0:
                raise ValueError(f"LightSimulator: {name} must be positive, got {getattr(self, name).item()}")
        with torch.no_grad():
            if not bool(((self.efficiency >= 0) & (self.efficiency <= 1)).all()):
                bad = int(torch.nonzero(~((self.efficiency >= 0) & (self.efficiency <= 1)))[0])
                value = float(self.efficiency[bad])
                raise ValueError(f"LightSimulator: the efficiency of channel {bad} is {value}, expected 0 to 1")
        return values

    def _rows(self, dE: Tensor, dEdx: Tensor, cos2: Tensor, at: Tensor, tpc: Tensor) -> Tensor:
        """Rows for `arrive` of deposits at u, v, depth (N, 3), that do not drift."""
        zero = torch.zeros_like(dE)
        rows: tuple[Tensor, ...] = (dE, dEdx, cos2, zero + NO_DEPTH, zero + NO_WIDTH, zero)
        if self._charge and self._charge[0].field_map is not None:
            rows += self._charge[0]._distorted(at, tpc)[1]  # the local field's ratio, in which charge recombines
        return torch.stack(rows)

    def _derived(self, values: Tensor) -> Tensor:
        return self._charge[0]._derived(values) if self._charge else values

    def quanta(self, segments: Segments, seed: int | None = None) -> Quanta:
        """Electrons that escape recombination and photons, of every segment: their sum is dE / W_ph exactly.

        Args:
            segments: Of any number of events.
            seed: None: the means. A number: recombination fluctuates, electrons by the binomial variance of the ion
                pairs (normal, named by seed, event and the segment's place in its event); the sum stays.

        With a field map, in the field at the segments' middles, which must lie in the map.

        Differentiable in dE, dE/dx and the parameters; without a seed in the angle to the field as well.
        """
        _refuse_bad(segments)
        along = segments.end - segments.start
        square = (along * along).sum(1)
        cos2 = torch.where(square > 0, along[:, 0] ** 2 / torch.where(square > 0, square, 1.0), 0.0)
        values = self._derived(self._values())
        middle = (segments.start + segments.end) / 2
        tpc = self.detector.tpc_of(middle).clamp(min=0)
        g = self.detector._on(middle.device)
        depth = (middle[:, 0] - g.anode[tpc]) * g.direction[tpc]
        at = torch.stack((middle[:, 2] - g.z[tpc, 0], middle[:, 1] - g.y[tpc, 0], depth), 1)
        electrons = arrive(self._rows(segments.dE, segments.dEdx, cos2, at, tpc), values, self.model)[0]
        if seed is not None:
            pairs = segments.dE / values[NAMES.index("w_ion")]
            survive = torch.where(pairs > 0, electrons / torch.where(pairs > 0, pairs, 1.0), 0.0)
            name = _place_in_event(segments.event) + segments.event * (1 << 32)
            normal = philox_normal(name, seed, 0, IONISATION, dtype=torch.float64)[:, 0]
            moved = electrons + (pairs * survive * (1 - survive)).clamp(min=0).sqrt() * normal
            electrons = torch.minimum(moved.clamp(min=0), segments.dE / self.w_ph)
        photons = (segments.dE / self.w_ph - electrons).clamp(min=0)
        return Quanta(electrons, photons, self._share(segments.pdg, segments.dEdx))

    def _share(self, pdg: Tensor, dEdx: Tensor) -> Tensor:
        if self.singlet is None:
            return self.singlet_fraction.expand(dEdx.shape)
        return self.singlet(pdg, dEdx)

    def seen(self, points: Tensor, tpc: Tensor | None = None) -> Seen:
        """What the channels of their TPCs see of points x y z (N, 3) [cm]: share and delay (channels, N).

        Without the channels' efficiency. Points outside every TPC are refused.
        """
        tpc = self.detector.tpc_of(points) if tpc is None else tpc
        if bool((tpc < 0).any()):
            bad = int(torch.nonzero(tpc < 0)[0])
            raise ValueError(f"LightSimulator: point {bad}, {points[bad].tolist()} cm, lies in no TPC")
        size = frame_size(self.detector, points.device)[tpc]
        result: Seen = self.visibility(to_frame(points, tpc, self.detector), size)
        return result

    # ---- photons

    def photons(self, segments: Segments, tangents: Sequence[str] = ()) -> LightWaveforms:
        """Expected photoelectrons on every tick of every channel.

        Args:
            segments: Of any number of events; all at once: a group (one event in one TPC) takes channels x ticks x 8
                bytes, 4 MB for module0.
            tangents: Names of parameters: forward mode along each, in the units of the parameter. Only recombination
                moves light: lifetime and diffusion have tangents of 0.

        Returns:
            `LightWaveforms`. Every TPC of a module that is hit has its rows. values, before and after sum to the
            photons that are detected, exactly; `reports` has photons (made), photons_detected, photons_before and
            photons_after (the window), segments_outside and energy_outside (of every TPC), and without_light, segments
            whose electrons exceed dE / W_ph.

        Differentiable (reverse mode) in positions, dE, dE/dx, t0 and all parameters, w_ph, tau_s, tau_t,
        singlet_fraction, efficiency and those of the visibility among them.
        """
        for name in tangents:
            if name not in NAMES:
                raise ValueError(f"LightSimulator: no parameter {name!r}; there are {list(NAMES)}")
        _refuse_bad(segments)
        values = self._values()
        pieces = cut(segments, self.detector)
        self._warn_outside(segments, pieces)
        layout = Groups(pieces, self.detector, self.properties)
        piece, nodes, middle = divide(pieces, self.step)
        order = torch.argsort(layout.group[piece], stable=True)
        piece, nodes, middle = piece[order], nodes[order], middle[order]

        along = pieces.end - pieces.start
        square = (along * along).sum(1)
        cos2 = torch.where(square > 0, along[:, 2] ** 2 / torch.where(square > 0, square, 1.0), 0.0)[piece]
        dE, dEdx = pieces.dE[piece] / nodes, pieces.dEdx[piece]
        tpc = pieces.tpc[piece]
        where = pieces.start[piece] + middle[:, None] * along[piece]
        rows = self._rows(dE, dEdx, cos2, where, tpc)
        electrons = arrive(rows, self._derived(values), self.model)[0]
        quanta = dE / self.w_ph - electrons
        made = quanta.clamp(min=0)
        share = self._share(segments.pdg[pieces.segment[piece]], dEdx)

        at = turned(where, tpc, self.detector)
        size = frame_size(self.detector, at.device)[tpc]
        seen: Seen = self.visibility(at, size)
        efficiency = self.efficiency[layout.channels[tpc]].T  # (channels, N)
        per_photon = seen.share * efficiency
        arrivals = Arrivals(self.properties, torch.stack((self.tau_s, self.tau_t)), layout, piece, pieces, seen, share)
        columns = arrivals(made * per_photon)

        slopes: Tensor | None = None
        if tangents:
            with torch.no_grad():
                seeds = torch.zeros(len(tangents), len(NAMES), dtype=torch.float64, device=dE.device)
                for k, name in enumerate(tangents):
                    seeds[k, NAMES.index(name)] = 1.0
                if self._charge:
                    seeds = self._charge[0]._along(tangents, values)
                made_along = -arrive_tangents(rows, self._derived(values), seeds, self.model)[:, 0] * (quanta > 0)
                # Lifetime and diffusion act on the drift, which light has not: arrive at depth 0 says so with zeros.
                each = [arrivals(slope * per_photon) if bool(slope.any()) else columns * 0 for slope in made_along]
                slopes = torch.stack(each)[..., 1:-1]

        reports: dict[str, Any] = {
            "photons": _total(made),
            "photons_detected": _total(columns),
            "photons_before": _total(columns[..., 0]),
            "photons_after": _total(columns[..., -1]),
            "segments_outside": pieces.segments_outside,
            "energy_outside": pieces.energy_outside,
            "without_light": int((quanta.detach() < 0).sum()),
        }
        return LightWaveforms(
            layout.event,
            layout.tpc,
            layout.channels[layout.tpc],
            layout.begin,
            columns[..., 1:-1],
            self.properties.tick,
            columns[..., 0],
            columns[..., -1],
            slopes,
            tuple(tangents),
            reports,
        )

    def _warn_outside(self, segments: Segments, pieces: Pieces) -> None:
        if message := warning_outside(segments, self.detector, pieces):
            warnings.warn(message, stacklevel=3)

    # ---- waveforms

    def shape(self, photoelectrons: Tensor, channel: Tensor) -> Tensor:
        """Photoelectrons (groups, channels, ticks) through impulse and gain: ADC values, of the same shape; linear."""
        tick = self.properties.tick
        kernel = self.impulse.kernel(tick, photoelectrons.device)
        gain = torch.tensor(self.properties.gain, dtype=torch.float64, device=photoelectrons.device)
        return convolve(photoelectrons, kernel / tick) * gain[channel][..., None]

    def waveforms(self, segments: Segments, tangents: Sequence[str] = ()) -> LightWaveforms:
        """Expected waveforms without noise [ADC]: `photons`, the SiPMs' mean answer, impulse and gain.

        The integral of a waveform is gain x photoelectrons, but for what the impulse carries over the window's end.
        Differentiable as `photons`.
        """
        light = self.photons(segments, tangents)

        def shaped(photoelectrons: Tensor) -> Tensor:
            flat = self.sipm.expected(photoelectrons.flatten(0, 1), light.tick)
            return self.shape(flat.reshape(photoelectrons.shape), light.channel)

        slopes = light.tangents
        if slopes is not None:
            sipm = self.sipm.replace(dark_rate=0.0)
            slopes = torch.stack(
                [self.shape(sipm.expected(s.flatten(0, 1), light.tick).reshape(s.shape), light.channel) for s in slopes]
            )
        return replace(light, values=shaped(light.values), tangents=slopes)

    def sampled(self, light: LightWaveforms, seed: int) -> LightWaveforms:
        """Waveforms [ADC] of `photons` with Poisson photoelectrons and the SiPMs' noise, without the electronics'.

        The numbers are named by (seed, event, channel, tick): the same for any threads and any division into calls.
        """
        name = light.name(self.properties.num_channels).flatten()
        charge = self.sipm.sample(light.values.detach().flatten(0, 1), light.tick, name, seed)
        return replace(light, values=self.shape(charge.reshape(light.values.shape), light.channel), tangents=None)

    @torch.no_grad()
    def forward(self, segments: Segments, seed: int, *, poisson: bool = True) -> LightReadout:
        """Simulate to digitised, triggered waveforms; event by event, so that memory stays bounded.

        Args:
            segments: Of any number of events.
            seed: Of all noise.
            poisson: False: expected photons, with the electronics' noise alone.

        Returns:
            `LightReadout`, by event, module and time. `reports` has events, triggers, samples_saturated, and the
            sums of those of `photons`.
        """
        parts: list[LightReadout] = []
        totals: dict[str, float] = {}
        for event in segments.events.tolist():
            light = self.photons(segments[segments.event == event])
            for key, value in light.reports.items():
                totals[key] = totals.get(key, 0) + value
            shaped = self.sampled(light, seed) if poisson else self._shaped(light)
            parts += read_out(shaped, self.detector, self.properties, self.noise, seed)
        return join(parts, self.properties, totals, len(segments.events))

    def _shaped(self, light: LightWaveforms) -> LightWaveforms:
        flat = self.sipm.expected(light.values.flatten(0, 1), light.tick).reshape(light.values.shape)
        return replace(light, values=self.shape(flat, light.channel), tangents=None)


def _refuse_differing(detector: Detector) -> None:
    """Modules whose nominal recombination differs have no common light."""
    for module in detector.modules:
        for name in ("efield", "birks_a", "birks_k", "box_alpha", "box_beta", "ellipsoid_ratio", "density", "w_ion"):
            own = getattr(module.nominal or detector.nominal, name)
            if own != getattr(detector.nominal, name):
                raise ValueError(
                    f"LightSimulator: {name} of module {module.number} of {detector.name} is {own}, of the others "
                    f"{getattr(detector.nominal, name)}: give parameters, or simulate the modules apart"
                )


def _place_in_event(event: Tensor) -> Tensor:
    """How many segments of the same event come before, int64 (N)."""
    order = torch.argsort(event, stable=True)
    _, count = torch.unique_consecutive(event[order], return_counts=True)
    first = torch.repeat_interleave(count.cumsum(0) - count, count)
    place = torch.empty_like(event)
    place[order] = torch.arange(len(event), device=event.device) - first
    return place


def _total(x: Tensor) -> float:
    return float(x.detach().sum())
