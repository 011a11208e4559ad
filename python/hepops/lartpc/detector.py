"""The detector: drift volumes, pixel planes, front end, nominal constants; built in, or from larnd-sim's YAML files.

The frame is that of the input file: x drift, y up, z beam [cm]. Pixel (ix, iy) of a TPC counts along (z, y) from the
low edges of its plane, its centre is (z_low + (ix + 1/2) pitch, y_low + (iy + 1/2) pitch). larnd-sim swaps x and z on
loading, so that our ix is its first pixel index too.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ._model import Record
from .parameters import Parameters

# Segments end a rounding error beyond the anode; larnd-sim and larnd-sim-jax allow as much.
MARGIN = 0.02  # [cm]


class TPC(Record):
    """One drift volume with its pixel plane."""

    anode: float  # x of the pixel plane [cm]
    cathode: float  # x of the cathode [cm]: the drift runs from here to the anode
    y: tuple[float, float]  # edges of the pixel plane [cm]
    z: tuple[float, float]  # edges of the pixel plane [cm]
    ny: PositiveInt  # pixels along y
    nx: PositiveInt  # pixels along z (the name is larnd-sim's)
    module: int = 1  # the module that holds it, counted as the property file counts
    pitch: PositiveFloat | None = None  # of its pixels [cm]; None: the detector's

    @property
    def direction(self) -> float:
        """+1 where the cathode lies at greater x than the anode, else -1."""
        return 1.0 if self.cathode > self.anode else -1.0

    @property
    def drift_length(self) -> float:
        """Anode to cathode [cm]."""
        return abs(self.cathode - self.anode)

    @model_validator(mode="after")
    def _has_a_volume(self) -> Self:
        for name, low, high in (("y", *self.y), ("z", *self.z)):
            if not low < high:
                raise ValueError(f"{name} must be (low, high) [cm], got ({low}, {high})")
        if self.anode == self.cathode:
            raise ValueError(f"anode and cathode must differ, got x = {self.anode} cm for both")
        return self


class FrontEnd(Record):
    """Constants of the LArPix front end, larnd-sim's defaults; times in clock ticks."""

    threshold: PositiveFloat = 7000.0  # discriminator [e]
    hold: NonNegativeInt = 15  # ADC hold delay [ticks]
    latency: NonNegativeInt = 3  # integration ends hold + latency ticks after the crossing [ticks]
    busy: NonNegativeInt = 9  # after a hit no trigger for so long [ticks]
    reset: NonNegativeInt = 1  # charge is lost for so long after a reading [ticks]
    reset_noise: NonNegativeFloat = 900.0  # [e]
    uncorrelated_noise: NonNegativeFloat = 500.0  # [e]
    discriminator_noise: NonNegativeFloat = 650.0  # [e]
    buffer_risetime: NonNegativeFloat = 0.0  # exponential buffer filter [us]; 0: none; larnd-sim's default is 0.1
    gain: PositiveFloat = 4e-3  # [mV/e]
    v_ped: float = 580.0  # pedestal [mV]
    v_cm: float = 288.0  # common mode, the ADC's zero [mV]
    v_ref: float = 1300.0  # the ADC's full scale [mV]
    adc_bits: Annotated[int, Field(ge=1, le=24)] = 8

    @property
    def integration(self) -> int:
        """Ticks from the crossing to the end of the integration."""
        return self.hold + self.latency

    @property
    def adc_counts(self) -> int:
        """Number of ADC codes."""
        return 1 << self.adc_bits

    @model_validator(mode="after")
    def _has_a_scale(self) -> Self:
        if not self.v_ref > self.v_cm:
            raise ValueError(f"v_ref must exceed v_cm [mV], got {self.v_ref} and {self.v_cm}")
        return self


class Module(Record):
    """What one module of a detector has of its own; None: as the detector has it."""

    number: int  # TPC.module
    frontend: FrontEnd | None = None
    nominal: Parameters | None = None


class Geometry(NamedTuple):
    """The TPCs as columns, one row each, on the CPU."""

    anode: Tensor  # float64 (num_tpcs) [cm]
    cathode: Tensor  # float64 (num_tpcs) [cm]
    direction: Tensor  # float64 (num_tpcs): +1 or -1
    y: Tensor  # float64 (num_tpcs, 2) [cm]
    z: Tensor  # float64 (num_tpcs, 2) [cm]
    nx: Tensor  # int64 (num_tpcs)
    ny: Tensor  # int64 (num_tpcs)
    first_pixel: Tensor  # int64 (num_tpcs): the id of pixel (0, 0)
    pitch: Tensor  # float64 (num_tpcs) [cm]


class Detector(Record):
    """An immutable description of a pixelated liquid-argon TPC, of one module or of many.

    TPCs may differ in pitch (`TPC.pitch`), modules in front end and nominal parameters (`modules`): `Simulator` takes a
    detector that `is_uniform`, `ModularSimulator` any. TPCs and pixels (`pixel_id`) are numbered through the whole.

    Raises:
        ValueError: pixels that do not fill their plane, drift volumes of two modules that overlap by more than a tenth
            of the smaller one, TPCs of one module that differ in pitch, a module that is named twice or has no TPC.

    Example:
        >>> detector = Detector.module0()
        >>> detector.tpc_of(torch.tensor([[-10.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 0.0, 99.0]]))
        tensor([ 0,  1, -1])
    """

    name: str
    tpcs: Annotated[tuple[TPC, ...], Field(min_length=1)]
    pixel_pitch: PositiveFloat  # [cm], of the TPCs that do not state their own
    tick: PositiveFloat = 0.1  # clock period [us]
    w_ph: PositiveFloat = 19.5e-6  # energy per photon or electron before recombination [MeV]
    frontend: FrontEnd = FrontEnd()
    nominal: Parameters = Parameters()  # field, lifetime, diffusions, recombination ... as the files state them
    modules: tuple[Module, ...] = ()  # those that differ from what stands above
    ignored: tuple[str, ...] = ()  # keys of the files that are known and have no effect here

    @classmethod
    def module0(cls) -> Self:
        """The first ArgonCube module of DUNE's near detector: two TPCs back to back, 2 x 140 x 280 pixels.

        Pixel layout 2.4.16 (pitch 4.434 mm, anodes at x = -+30.431 cm), drift 30.27225 cm, and the module's measured
        threshold and ADC references. The centre is the origin; the detector's own frame in some simulations has it at
        y = -21.8236 cm (see `read_segments`, offset).
        """
        from .builtin import module0

        return cls(**module0())

    @classmethod
    def two_by_two(cls) -> Self:
        """DUNE's 2x2 demonstrator: four modules, the third with smaller pixels (3.87975 mm), in its own frame.

        Layouts 2.4.16 and 2.5.16 (module 3), and the constants of larnd-sim's 2x2 properties.
        """
        from .builtin import two_by_two

        return cls(**two_by_two())

    @classmethod
    def nd_lar(cls) -> Self:
        """DUNE's liquid-argon near detector: 7 x 5 modules, 70 TPCs of 256 x 800 pixels of 3.8 mm.

        Layout 3.0.40 and larnd-sim's ND-LAr properties; neighbours along x overlap there by 0.8 cm.
        """
        from .builtin import nd_lar

        return cls(**nd_lar())

    @classmethod
    def fsd(cls) -> Self:
        """The full-scale demonstrator: one module of ND-LAr at the origin (`builtin.fsd` states what is assumed)."""
        from .builtin import fsd

        return cls(**fsd())

    @classmethod
    def from_yaml(
        cls,
        properties: str | Path,
        layout: str | Path | Sequence[str | Path],
        *,
        module: int | None = None,
        name: str | None = None,
    ) -> Self:
        """The detector of larnd-sim's or larnd-sim-jax's files: properties, and one pixel layout or one per module.

        Args:
            properties: Detector properties, either dialect (`e_field`/`eField`, `tpc_offsets`/`tpc_centers` ...) [cm].
            layout: Pixel layout, or a list with one for each module [mm].
            module: Keep one module alone. By default all: where they differ in pitch, field, lifetime, threshold or
                gain, the TPCs hold the pitch and `modules` the rest, and `ModularSimulator` simulates it.
            name: Name of the detector, by default the stem of `properties`.

        Raises:
            ValueError: an unknown, missing or meaningless key, named with its file and the nearest known key; a list
                of the wrong length; a layout that leaves pixels without a channel; a layout whose pitch is not that of
                its module's response bins.
            FileNotFoundError: no such file.

        The drift length is the layout's where it has one, else that of the properties, else half the distance of the
        anodes. The drift's sign follows from the orientation of the tiles. Keys that are known and have no effect here
        (light, packet format, response sampling ...) are listed in `ignored`.
        """
        from .detector_yaml import read

        return cls(**read(properties, layout, module, name))

    @model_validator(mode="after")
    def _pixels_fit(self) -> Self:
        for i, tpc in enumerate(self.tpcs):
            pitch = self.pitch_of(i)
            for axis, n, (low, high) in (("z", tpc.nx, tpc.z), ("y", tpc.ny, tpc.y)):
                # Tiles of the older layouts overlap or stand apart by up to a sixth of a pixel in sum.
                if abs((high - low) / pitch - n) > 0.5:
                    width = f"{high - low:.4f} cm along {axis}"
                    raise ValueError(f"TPC {i}: {n} pixels of {pitch} cm do not make {width}")
        return self

    @model_validator(mode="after")
    def _modules_fit(self) -> Self:
        named = [m.number for m in self.modules]
        for number in named:
            if number not in self.module_numbers:
                raise ValueError(f"modules: no TPC is of module {number}, only of {list(self.module_numbers)}")
            if named.count(number) > 1:
                raise ValueError(f"modules: module {number} stands twice")
        for number in self.module_numbers:
            pitches = {self.pitch_of(i) for i, t in enumerate(self.tpcs) if t.module == number}
            if len(pitches) > 1:
                raise ValueError(f"TPCs of module {number} differ in pixel pitch, {sorted(pitches)} cm")
        return self

    @model_validator(mode="after")
    def _volumes_stand_apart(self) -> Self:
        boxes = [(sorted((t.anode, t.cathode)), t.y, t.z) for t in self.tpcs]
        for i, a in enumerate(boxes):
            for j, b in enumerate(boxes[:i]):
                if self.tpcs[i].module == self.tpcs[j].module:
                    continue
                overlap = [min(p[1], q[1]) - max(p[0], q[0]) for p, q in zip(a, b, strict=True)]
                if min(overlap) <= 0:
                    continue
                smaller = min(_volume([p[1] - p[0] for p in box]) for box in (a, b))
                if _volume(overlap) > 0.1 * smaller:
                    size = " x ".join(f"{width:.4g}" for width in overlap)
                    which = f"modules {self.tpcs[j].module} and {self.tpcs[i].module}"
                    raise ValueError(f"TPCs {j} and {i} of {which} overlap by {size} cm")
        return self

    # ---- modules

    @cached_property
    def module_numbers(self) -> tuple[int, ...]:
        """The modules, in the order of their first TPC."""
        return tuple(dict.fromkeys(tpc.module for tpc in self.tpcs))

    @property
    def is_uniform(self) -> bool:
        """Whether all modules share pitch, front end and nominal parameters."""
        return len({self._own(number) for number in self.module_numbers}) == 1

    def _own(self, module: int) -> tuple[float, FrontEnd, Parameters]:
        """Pitch, front end and nominal parameters of a module."""
        if module not in self.module_numbers:
            raise ValueError(f"module must be one of {list(self.module_numbers)}, got {module}")
        own = next((m for m in self.modules if m.number == module), Module(number=module))
        first = next(i for i, t in enumerate(self.tpcs) if t.module == module)
        return self.pitch_of(first), own.frontend or self.frontend, own.nominal or self.nominal

    def pitch_of(self, tpc: int) -> float:
        """Pixel pitch of a TPC [cm]."""
        return self.tpcs[tpc].pitch or self.pixel_pitch

    @property
    def frontends(self) -> tuple[FrontEnd, ...]:
        """The different front ends of all modules, in the order of the modules."""
        return tuple(dict.fromkeys(self._own(number)[1] for number in self.module_numbers))

    def frontend_of(self, tpc: int) -> FrontEnd:
        """Front end of a TPC's module."""
        return self._own(self.tpcs[tpc].module)[1]

    def nominal_of(self, tpc: int) -> Parameters:
        """Nominal parameters of a TPC's module."""
        return self._own(self.tpcs[tpc].module)[2]

    def view(self, module: int) -> Self:
        """The same TPCs, with the pitch, front end and nominal parameters of one module as the detector's own.

        What simulates that module: numbers of TPCs and pixels are those of the whole.

        Raises:
            ValueError: there is no such module.
        """
        pitch, frontend, nominal = self._own(module)
        return self.replace(
            pixel_pitch=pitch,
            frontend=frontend,
            nominal=nominal,
            modules=(),
            tpcs=tuple(t.replace(pitch=self.pitch_of(i)) for i, t in enumerate(self.tpcs)),
        )

    def module(self, number: int) -> Self:
        """One module alone, its TPCs counted from 0.

        Raises:
            ValueError: there is no such module.
        """
        view = self.view(number)
        return view.replace(tpcs=tuple(t.replace(pitch=None) for t in view.tpcs if t.module == number))

    @cached_property
    def geometry(self) -> Geometry:
        """The TPCs as tensors."""

        def column(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.tensor([getattr(tpc, name) for tpc in self.tpcs], dtype=dtype)

        nx, ny = column("nx", torch.int64), column("ny", torch.int64)
        return Geometry(
            anode=column("anode"),
            cathode=column("cathode"),
            direction=column("direction"),
            y=column("y"),
            z=column("z"),
            nx=nx,
            ny=ny,
            first_pixel=torch.cumsum(nx * ny, 0) - nx * ny,
            pitch=torch.tensor([self.pitch_of(i) for i in range(len(self.tpcs))], dtype=torch.float64),
        )

    @property
    def drift_length(self) -> float:
        """The longest drift of all TPCs [cm]."""
        return max(tpc.drift_length for tpc in self.tpcs)

    @property
    def num_pixels(self) -> int:
        """Pixels of all TPCs."""
        return sum(tpc.nx * tpc.ny for tpc in self.tpcs)

    def tpc_of(self, points: Tensor, margin: float = MARGIN) -> Tensor:
        """Which TPC holds each point.

        Args:
            points: x y z, (..., 3) [cm].
            margin: A point outside all by less than this belongs to the first TPC so near [cm].

        Returns:
            int64 (...): index into `tpcs`, -1 where none holds the point. Not differentiable; deterministic.
        """
        x, y, z = points.detach().unbind(-1)
        found = torch.full(x.shape, -1, dtype=torch.int64, device=points.device)
        for slack in (0.0, margin):
            for i, tpc in enumerate(self.tpcs):
                low, high = sorted((tpc.anode, tpc.cathode))
                inside = (x >= low - slack) & (x <= high + slack)
                inside &= (y >= tpc.y[0] - slack) & (y <= tpc.y[1] + slack)
                inside &= (z >= tpc.z[0] - slack) & (z <= tpc.z[1] + slack)
                found = torch.where(inside & (found < 0), i, found)
        return found

    def pixel_of(self, points: Tensor, tpc: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The pixel onto which each point projects.

        Args:
            points: x y z, (..., 3) [cm].
            tpc: TPC of each point, int64 (...); by default that of `tpc_of`.

        Returns:
            (tpc, ix, iy), int64 (...). Beyond the edge of the plane the indices run on, below 0 or past the last pixel;
            where no TPC holds the point all are -1. Not differentiable; deterministic.
        """
        tpc = self.tpc_of(points) if tpc is None else tpc
        where = tpc.clamp(min=0)
        g = self._on(points.device)
        ix = torch.floor((points.detach()[..., 2] - g.z[where, 0]) / g.pitch[where]).long()
        iy = torch.floor((points.detach()[..., 1] - g.y[where, 0]) / g.pitch[where]).long()
        return tpc, torch.where(tpc < 0, -1, ix), torch.where(tpc < 0, -1, iy)

    def pixel_centre(self, tpc: Tensor, ix: Tensor, iy: Tensor) -> Tensor:
        """x y z of the centres of pixels on their anodes, float64 (..., 3) [cm]."""
        g = self._on(tpc.device)
        y = g.y[tpc, 0] + (iy.double() + 0.5) * g.pitch[tpc]
        z = g.z[tpc, 0] + (ix.double() + 0.5) * g.pitch[tpc]
        return torch.stack([g.anode[tpc], y, z], -1)

    def pixel_id(self, tpc: Tensor, ix: Tensor, iy: Tensor) -> Tensor:
        """One 64-bit number per pixel, ix + nx (iy + ny tpc) where all planes are alike (larnd-sim's), int64 (...)."""
        g = self._on(tpc.device)
        return g.first_pixel[tpc] + iy * g.nx[tpc] + ix

    def pixel_from_id(self, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(tpc, ix, iy) of a `pixel_id`, int64 (...)."""
        g = self._on(pixel.device)
        tpc = torch.searchsorted(g.first_pixel, pixel.contiguous(), right=True) - 1
        iy, ix = _divmod(pixel - g.first_pixel[tpc], g.nx[tpc])
        return tpc, ix, iy

    def drift_distance(self, points: Tensor, tpc: Tensor | None = None) -> Tensor:
        """From each point to its anode along the drift, negative behind the anode, NaN outside every TPC, (...) [cm].

        Differentiable with respect to `points`, any number of times.
        """
        tpc = self.tpc_of(points) if tpc is None else tpc
        g = self._on(points.device)
        distance = (points[..., 0] - g.anode[tpc].to(points.dtype)) * g.direction[tpc].to(points.dtype)
        return torch.where(tpc < 0, torch.nan, distance)

    def drift_position(self, distance: Tensor, tpc: Tensor) -> Tensor:
        """x at a drift distance from the anode, the inverse of `drift_distance`, (...) [cm]."""
        g = self._on(distance.device)
        return g.anode[tpc].to(distance.dtype) + distance * g.direction[tpc].to(distance.dtype)

    def _on(self, device: torch.device) -> Geometry:
        return Geometry(*(column.to(device) for column in self.geometry))


def _volume(sides: Sequence[float]) -> float:
    return sides[0] * sides[1] * sides[2]


def _divmod(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    quotient = torch.div(a, b, rounding_mode="floor")
    return quotient, a - quotient * b
