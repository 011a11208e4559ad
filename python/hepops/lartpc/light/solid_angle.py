r"""Visibility without a table: rectangular detectors, seen directly.

    share = detection / (4 pi) Omega e^{-d / lambda},   1/lambda = 1/absorption + 1/rayleigh

with the exact solid angle of a rectangle of sides 2a, 2b from a point (x, y, h) above its centre's plane,

    Omega = sum_{s,t = +-1} s t atan2((x + s a)(y + t b), h sqrt((x + s a)^2 + (y + t b)^2 + h^2))

Reflections, shadows and scattered light are left out. A. Khadjavi, J. Opt. Soc. Am. 58 (1968) 1417.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from .._model import Record
from ..detector import Detector
from .seen import AXES, Seen

# 1 / v_g = 7.46 +- 0.08 ns/m at 128 nm, rayleigh = 99.1 +- 2.3 cm: M. Babicz et al., JINST 15 (2020) P09009.
DELAY_PER_CM = 0.0746e-3  # [us/cm]
RAYLEIGH = 99.1  # [cm]
ABSORPTION = 2000.0  # [cm]; LArSoft's


class Panel(Record):
    """A rectangular detector in the frame of a TPC, parallel to a pair of its walls."""

    centre: tuple[float, float, float]  # along, up, depth [cm]
    normal: Literal["along", "up", "depth"]
    size: tuple[PositiveFloat, PositiveFloat]  # extents along the other two axes, in the order of AXES [cm]
    shares: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)  # of its light, to each of its channels
    detection: Annotated[float, Field(ge=0, le=1)] = 1.0  # probability to convert a photon that arrives


def solid_angle(x: Tensor, y: Tensor, h: Tensor, a: "float | Tensor", b: "float | Tensor") -> Tensor:
    """Of a rectangle of sides 2a and 2b from a point at (x, y) from its centre, h above its plane [sr].

    Differentiable any number of times, but at the rectangle's corners. In the plane it is 2 pi inside and 0 outside.
    """
    total = torch.zeros_like(x)
    for s in (-1.0, 1.0):
        for t in (-1.0, 1.0):
            u, v = x + s * a, y + t * b
            total = total + s * t * torch.atan2(u * v, h * torch.sqrt(u * u + v * v + h * h))
    return total


class SolidAngle(nn.Module):
    """Channels that see direct light through the exact solid angle of their panels.

    Args:
        panels: Of one TPC, in its frame; a panel's channels follow each other, panel after panel.
        absorption: Length over which light is absorbed [cm].
        rayleigh: Length over which it is scattered out of the direct way [cm]; infinity: as if none were.
        delay_per_cm: Of the group velocity [us/cm].
        divisions: Panels are cut into divisions^2 parts, each with its own exact solid angle and its own attenuation
            at the distance of its centre; for the tiles of module0 1 is within 11 % of the integral, 2 within 4 %, 4
            within 0.9 %, worst where light grazes a tile nearby.

    Differentiable in positions and in both lengths, which are the module's parameters.

    Raises:
        ValueError: a length is not positive, or a panel's light is shared to more than 1.

    Example:
        >>> model = SolidAngle.module0()
        >>> model.channels
        48
        >>> middle = torch.tensor([[31.0, 62.0, 15.0]], dtype=torch.float64)
        >>> seen = model(middle, middle)
        >>> round(1e6 * seen.share.sum().item())
        510
    """

    centre: Tensor
    half_size: Tensor
    axes: Tensor
    panel_of: Tensor
    weight: Tensor
    absorption: nn.Parameter
    rayleigh: nn.Parameter

    def __init__(
        self,
        panels: Sequence[Panel],
        absorption: float = ABSORPTION,
        rayleigh: float = RAYLEIGH,
        delay_per_cm: float = DELAY_PER_CM,
        divisions: int = 1,
    ) -> None:
        super().__init__()
        if not panels:
            raise ValueError("SolidAngle: needs at least one panel")
        for name, value in (("absorption", absorption), ("rayleigh", rayleigh)):
            if not value > 0:
                raise ValueError(f"SolidAngle: {name} must be positive [cm], got {value}")
        if not 0 <= delay_per_cm < math.inf:
            raise ValueError(f"SolidAngle: delay_per_cm must be finite and >= 0 [us/cm], got {delay_per_cm}")
        if divisions < 1:
            raise ValueError(f"SolidAngle: divisions must be positive, got {divisions}")
        for i, panel in enumerate(panels):
            if sum(panel.shares) > 1 + 1e-9:
                raise ValueError(f"SolidAngle: the shares of panel {i} sum to {sum(panel.shares)}, above 1")
        self.panels, self.delay_per_cm, self.divisions = tuple(panels), delay_per_cm, divisions
        order = [[AXES.index(p.normal), *(k for k in range(3) if AXES[k] != p.normal)] for p in panels]
        self.register_buffer("centre", torch.tensor([p.centre for p in panels], dtype=torch.float64))
        self.register_buffer("half_size", torch.tensor([p.size for p in panels], dtype=torch.float64) / 2)
        self.register_buffer("axes", torch.tensor(order))  # the axes of each panel: normal, first, second
        self.register_buffer("panel_of", torch.tensor([i for i, p in enumerate(panels) for _ in p.shares]))
        weight = [p.detection * share for p in panels for share in p.shares]
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float64))
        self.absorption = nn.Parameter(torch.tensor(float(absorption), dtype=torch.float64))
        self.rayleigh = nn.Parameter(torch.tensor(float(rayleigh), dtype=torch.float64))

    @property
    def channels(self) -> int:
        """Channels of one TPC."""
        return len(self.panel_of)

    def check(self, detector: Detector, channels: int) -> None:
        """Refuses a model that was made for another number of channels."""
        if channels != self.channels:
            raise ValueError(f"SolidAngle: has {self.channels} channels, the light readout {channels} per TPC")

    def forward(self, at: Tensor, size: Tensor) -> Seen:
        """What the channels see of points (N, 3) in the frame of a TPC [cm]; its size is not needed."""
        away = at[None] - self.centre[:, None]  # (panels, N, 3)
        h, x, y = (away.gather(2, self.axes[:, None, k, None].expand(-1, len(at), 1))[..., 0] for k in range(3))
        h, a, b = h.abs(), self.half_size[:, :1], self.half_size[:, 1:]
        rate = 1 / self.absorption + 1 / self.rayleigh
        n = self.divisions
        reached = torch.zeros_like(h)
        for i in range(n):
            for j in range(n):
                u, v = x + a * (1 - (2 * i + 1) / n), y + b * (1 - (2 * j + 1) / n)
                distance = torch.sqrt(u * u + v * v + h * h)
                reached = reached + solid_angle(u, v, h, a / n, b / n) * torch.exp(-distance * rate)
        beside = [(c.abs() - half).clamp(min=0) for c, half in ((x, a), (y, b))]
        square = h * h + beside[0] ** 2 + beside[1] ** 2
        nearest = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
        share = self.weight[:, None] * reached[self.panel_of] / (4 * math.pi)
        return Seen(share, nearest[self.panel_of] * self.delay_per_cm)

    @classmethod
    def module0(cls, **values: Any) -> Self:
        """The 48 channels of a TPC of module0: four detectors of 30 x 28 cm2 on each wall along z.

        In the order of the channels, six to a detector: up on the low wall, then down on the high one, LCMs and
        ArCLights in turn, so that an LCM faces an ArCLight. An LCM detector is three modules of 10 x 28 cm2 with two
        SiPMs each, which share the module's light; the six SiPMs of an ArCLight share its. Photon detection
        efficiencies .6 % and .06 %, about those of A. Abed Abud et al. (DUNE), Instruments 8 (2024) 41.
        Approximations: the order and the positions to a centimetre are ours; all SiPMs of a kind are alike; no
        reflections.
        """
        width, height, depth = 62.076, 124.152, 30.27225
        panels = []
        for tile in range(8):
            wall = 0.0 if tile < 4 else width
            middle = height * ((tile if tile < 4 else 7 - tile) + 0.5) / 4
            if tile % 2:
                at = (wall, middle, depth / 2)
                panels.append(Panel(centre=at, normal="along", size=(30.0, 28.0), shares=(1 / 6,) * 6, detection=6e-4))
                continue
            for third in (-10.0, 0.0, 10.0):
                at = (wall, middle + third, depth / 2)
                panels.append(Panel(centre=at, normal="along", size=(10.0, 28.0), shares=(0.5, 0.5), detection=6e-3))
        return cls(panels, **values)

    @classmethod
    def ring(
        cls, detector: Detector, tiles: int = 4, channels_per_tile: int = 6, detection: float = 0.005, **values: Any
    ) -> Self:
        """Both walls along z of any detector's TPCs, each covered by `tiles` equal tiles, one above the other."""
        if tiles < 1 or channels_per_tile < 1:
            raise ValueError(
                f"SolidAngle.ring: tiles and channels_per_tile must be positive, got {tiles}, {channels_per_tile}"
            )
        width, height, depth = _one_size(detector)
        panels = [
            Panel(
                centre=(wall, height * (k + 0.5) / tiles, depth / 2),
                normal="along",
                size=(height / tiles, depth),
                shares=(1 / channels_per_tile,) * channels_per_tile,
                detection=detection,
            )
            for wall in (0.0, width)
            for k in range(tiles)
        ]
        return cls(panels, **values)

    @classmethod
    def x_arapuca(
        cls, detector: Detector, rows: int = 10, columns: int = 2, detection: float = 0.03, **values: Any
    ) -> Self:
        """Windows of X-ARAPUCA kind in the anode plane: bars of 10 x 48 cm2 (or what fits), a channel each.

        The efficiency of 3 % is about that of a prototype for the DUNE far detector: C. Brizzolari et al., JINST 16
        (2021) P09027. What hides them (wires, frames) is to be put into `detection`.
        """
        if rows < 1 or columns < 1:
            raise ValueError(f"SolidAngle.x_arapuca: rows and columns must be positive, got {rows}, {columns}")
        width, height, _ = _one_size(detector)
        size = (min(48.0, width / columns), min(10.0, height / rows))
        panels = [
            Panel(
                centre=(width * (i + 0.5) / columns, height * (k + 0.5) / rows, 0.0),
                normal="depth",
                size=size,
                detection=detection,
            )
            for k in range(rows)
            for i in range(columns)
        ]
        return cls(panels, **values)


def _one_size(detector: Detector) -> tuple[float, float, float]:
    sizes = {(t.z[1] - t.z[0], t.y[1] - t.y[0], t.drift_length) for t in detector.tpcs}
    first = next(iter(sizes))
    if any(max(abs(a - b) for a, b in zip(size, first, strict=True)) > 0.1 for size in sizes):
        raise ValueError(f"SolidAngle: the TPCs of {detector.name} differ in size: {sorted(sizes)}")
    return first
