"""Detectors read by wires: drift volumes, planes of parallel wires, cold electronics; built in: DUNE's APA, MicroBooNE.

The frame is that of the pixel detectors (x drift, y up, z beam [cm]). Wires at angle theta to the vertical run along
(y, z) = (cos theta, sin theta); wire i covers i pitch <= w - w_low < (i + 1) pitch of the coordinate across them,
w = z cos theta - y sin theta, with w_low that of the corner of the plane where it is least.
"""

import math
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from .._model import Record
from ..parameters import Parameters


class WirePlane(Record):
    """Parallel wires, all alike."""

    name: str
    kind: Literal["induction", "collection"]
    angle: Annotated[float, Field(gt=-90, le=90)]  # of the wires to the vertical [degree]
    pitch: PositiveFloat  # [cm]
    distance: NonNegativeFloat = 0.0  # from the collection plane towards the cathode [cm]

    @property
    def across(self) -> tuple[float, float]:
        """The unit vector across the wires, (y, z)."""
        theta = math.radians(self.angle)
        return -math.sin(theta), math.cos(theta)


class WireTPC(Record):
    """One drift volume in front of a set of planes."""

    anode: float  # x of the collection plane [cm]
    cathode: float  # x of the cathode [cm]
    y: tuple[float, float]  # edges of the planes [cm]
    z: tuple[float, float]  # [cm]

    @property
    def direction(self) -> float:
        """+1 where the cathode lies at greater x than the anode, else -1."""
        return 1.0 if self.cathode > self.anode else -1.0

    @model_validator(mode="after")
    def _has_a_volume(self) -> Self:
        for name, (low, high) in (("y", self.y), ("z", self.z)):
            if not low < high:
                raise ValueError(f"{name} must be (low, high) [cm], got ({low}, {high})")
        if self.anode == self.cathode:
            raise ValueError(f"anode and cathode must differ, got x = {self.anode} cm for both")
        return self


class WireFrontEnd(Record):
    """Cold electronics, ProtoDUNE-SP's as default: B. Abi et al. (DUNE), JINST 15 (2020) P12004, section 4."""

    gain: PositiveFloat = 14.0  # peak of the response to 1 fC [mV/fC]
    peaking_time: PositiveFloat = 2.0  # [us]; the chip has 0.5, 1, 2 and 3
    noise: NonNegativeFloat = 600.0  # equivalent noise charge, white, rms of a sample [e]
    adc_bits: Annotated[int, Field(ge=1, le=24)] = 12
    adc_range: PositiveFloat = 1400.0  # full scale [mV]
    pedestal_induction: NonNegativeFloat = 2048.0  # [ADC counts]: both signs have room
    pedestal_collection: NonNegativeFloat = 600.0  # [ADC counts]


class Volume(NamedTuple):
    """What `pieces.cut` reads of a drift volume: from the first plane of wires to the cathode."""

    anode: float
    cathode: float
    y: tuple[float, float]
    z: tuple[float, float]


class WireDetector(Record):
    """An immutable description of a liquid-argon TPC that is read by wires.

    Raises:
        ValueError: not exactly one collection plane, at distance 0 and last; planes out of the order in which electrons
            meet them; a shield within the planes, or a cathode within the shield.

    Example:
        >>> apa = WireDetector.dune_apa()
        >>> [(p.name, apa.num_wires(k)) for k, p in enumerate(apa.planes)]
        [('U', 1148), ('V', 1148), ('X', 480)]
    """

    name: str
    tpcs: Annotated[tuple[WireTPC, ...], Field(min_length=1)]
    planes: Annotated[tuple[WirePlane, ...], Field(min_length=1)]  # in the order in which electrons meet them
    shield: PositiveFloat  # grounded plane (a grid) before the first, from the collection plane [cm]
    tick: PositiveFloat = 0.5  # of the ADC [us]
    frontend: WireFrontEnd = WireFrontEnd()
    nominal: Parameters = Parameters()

    @classmethod
    def dune_apa(cls) -> Self:
        """An anode plane assembly of DUNE's horizontal-drift far detector, with a drift volume of 3.5 m on each side.

        U and V at +-35.7 degrees with pitch 4.669 mm, X vertical with 4.79 mm, planes and the grid before them 4.75 mm
        apart (B. Abi et al. (DUNE), Technical design report vol. IV, JINST 15 (2020) T08010, chapter 2); 0.5 kV/cm.
        Assumed: the wires of U and V end at the edges, where the APA wraps them around to its other face; a lifetime
        of 3 ms, the report's requirement.
        """
        plane = dict(y=(-299.2, 299.2), z=(-114.96, 114.96))
        return cls(
            name="dune-apa",
            tpcs=(
                WireTPC(anode=4.0, cathode=4.0 + 353.0, **plane),
                WireTPC(anode=-4.0, cathode=-4.0 - 353.0, **plane),
            ),
            planes=(
                WirePlane(name="U", kind="induction", angle=35.7, pitch=0.4669, distance=0.95),
                WirePlane(name="V", kind="induction", angle=-35.7, pitch=0.4669, distance=0.475),
                WirePlane(name="X", kind="collection", angle=0.0, pitch=0.479),
            ),
            shield=1.425,
            nominal=Parameters(lifetime=3000.0),
        )

    @classmethod
    def microboone(cls) -> Self:
        """MicroBooNE: U, V at +-60 degrees, Y vertical, pitch and distance of the planes 3 mm; drift 2.56 m, 273 V/cm.

        R. Acciarri et al. (MicroBooNE), JINST 12 (2017) P02017. It has no grid: a grounded plane 3 cm before the first
        plane of wires stands for the open side.
        """
        return cls(
            name="microboone",
            tpcs=(WireTPC(anode=-0.6, cathode=256.0, y=(-116.5, 116.5), z=(0.0, 1036.8)),),
            planes=(
                WirePlane(name="U", kind="induction", angle=60.0, pitch=0.3, distance=0.6),
                WirePlane(name="V", kind="induction", angle=-60.0, pitch=0.3, distance=0.3),
                WirePlane(name="Y", kind="collection", angle=0.0, pitch=0.3),
            ),
            shield=3.6,
            nominal=Parameters(efield=0.273, lifetime=5000.0),
        )

    @model_validator(mode="after")
    def _planes_in_order(self) -> Self:
        collecting = [plane.name for plane in self.planes if plane.kind == "collection"]
        last = self.planes[-1]
        if len(collecting) != 1 or last.kind != "collection" or last.distance != 0:
            raise ValueError(f"planes must end with the one of collection, at distance 0, got {collecting}")
        distances = [self.shield, *(plane.distance for plane in self.planes)]
        for name, a, b in zip((p.name for p in self.planes), distances, distances[1:], strict=False):
            if not a > b:
                raise ValueError(f"plane {name} at {b} cm must be nearer to the collection plane than {a} cm before it")
        for i, tpc in enumerate(self.tpcs):
            if not abs(tpc.cathode - tpc.anode) > self.shield:
                raise ValueError(f"TPC {i}: the cathode must lie beyond the shield at {self.shield} cm")
        return self

    def num_wires(self, plane: int, tpc: int = 0) -> int:
        """Wires of a plane of a TPC."""
        low, high = self.span(plane, tpc)
        return math.ceil((high - low) / self.planes[plane].pitch - 1e-6)

    def span(self, plane: int, tpc: int = 0) -> tuple[float, float]:
        """The least and the greatest w of a plane's corners [cm]."""
        cy, cz = self.planes[plane].across
        volume = self.tpcs[tpc]
        corners = [cy * y + cz * z for y in volume.y for z in volume.z]
        return min(corners), max(corners)

    @cached_property
    def volumes(self) -> "Volumes":
        """The active volumes, from the first plane of wires to the cathode."""
        first = self.planes[0].distance
        return Volumes(self.name, tuple(Volume(t.anode + t.direction * first, t.cathode, t.y, t.z) for t in self.tpcs))


class Volumes(NamedTuple):
    """The drift volumes alone: what the gun and `pieces.cut` take for a detector."""

    name: str
    tpcs: tuple[Volume, ...]
