r"""Tracks whose energy loss is not given: segments from residual range, with the fluctuations as latent variables.

At a residual range R the loss over a segment of length :math:`\ell` is

.. math:: \Delta_i = T(R_i + \varrho_i + \ell_i) - T(R_i + \varrho_i) + \varepsilon_i, \qquad
          \varepsilon_i = \xi_i\, y(z_i; \kappa_i, \beta_i^2), \qquad
          \varrho_i = \sum_{j\ \mathrm{downstream}} \varepsilon_j / (\rho S_j)

with z standard normal (`vavilov`) and :math:`\varrho` the range straggling: what fluctuated below makes it, as
seen from its end, one of a longer or shorter range. Fluctuations thus fade on the way back, as they do in nature, where
a particle that lost too much is slower and loses more still. Neglected: that a loss is drawn at the energy before, not
after it, which shifts the mean by xi W / (S T l), 0.1 % of the loss for muons of 10 MeV and less above.

References:
    | `ranges`, `vavilov`, for the laws
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from ..segments import Segments
from ..stopping import DENSITY
from .ranges import PARTICLES, Kinematics, RangeTable
from .vavilov import vavilov

LEAST = 0.02  # a fluctuation leaves at least this share of the mean loss: Vavilov's far left tail has no floor
_SLOWEST = 0.1  # the law of fluctuations is held below this energy [MeV]
_THINNEST = 1e-5  # [cm]
_FASTEST = 8000.0  # a fit looks no further [MeV]; 800 cm below the end of the muons' table


@dataclass(frozen=True)
class Track:
    """Straight segments in the order in which the particle went through them; see `StoppingTrack`, `ThroughTrack`."""

    start: Tensor  # float64 (n, 3) [cm]
    end: Tensor  # float64 (n, 3) [cm]
    particle: str
    event: int = 0
    number: int = 0
    t0: float = 0.0  # [us]

    @property
    def length(self) -> Tensor:
        """Of every segment, float64 (n) [cm]."""
        return (self.end - self.start).norm(dim=1)

    @property
    def to_end(self) -> Tensor:
        """From the downstream end of every segment to the last point, along the track, gaps included (n) [cm]."""
        gaps = torch.cat([(self.start[1:] - self.end[:-1]).norm(dim=1), self.length.new_zeros(1)])
        after = torch.cat([self.length[1:], self.length.new_zeros(1)]) + gaps
        return after.flip(0).cumsum(0).flip(0)

    @staticmethod
    def residual_range(nuisance: Tensor, table: RangeTable) -> Tensor:
        """Range that is left at the last point [cm]; negative where the particle stopped before."""
        raise NotImplementedError

    @classmethod
    def from_segments(cls, segments: Segments, **options: Any) -> Self:
        """One track's segments, in order; their dE and dE/dx are not looked at.

        Raises:
            ValueError: no segment, or segments of several events or tracks.
        """
        if not len(segments):
            raise ValueError("segments: there are none")
        for name in ("event", "track"):
            found = torch.unique(getattr(segments, name)).tolist()
            if len(found) > 1:
                raise ValueError(f"segments: belong to {name}s {found[:4]}, a track needs those of one")
        points = torch.cat([segments.start.detach(), segments.end.detach()[-1:]])
        known = {"event": int(segments.event[0]), "number": int(segments.track[0]), "t0": float(segments.t0.min())}
        track = cls(points, **(known | options))
        object.__setattr__(track, "end", segments.end.detach().clone())
        return track


def _of_points(track: Track, points: Tensor, particle: str, event: int, number: int, t0: float) -> None:
    points = torch.as_tensor(points, dtype=torch.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not bool(torch.isfinite(points).all()):
        raise ValueError(f"points must be finite, of shape (n, 3), got {tuple(points.shape)}")
    if len(points) < 2:
        raise ValueError(f"points: a track needs at least 2, got {len(points)}")
    if bool(((points[1:] - points[:-1]).norm(dim=1) == 0).any()):
        raise ValueError("points: two that follow each other are the same")
    if particle not in PARTICLES:
        raise ValueError(f"particle must be one of {', '.join(PARTICLES)}, got {particle!r}")
    values = (points[:-1], points[1:], particle, event, number, float(t0))
    for name, value in zip(("start", "end", "particle", "event", "number", "t0"), values, strict=True):
        object.__setattr__(track, name, value)


@dataclass(frozen=True, init=False)
class StoppingTrack(Track):
    """A particle that ends at, or near, the last point.

    Args:
        points: Ordered along the track, float64 (n + 1, 3), n >= 1 [cm].
        particle: "muon", "proton", or another of `PARTICLES`.
        event, number: For the columns event and track.
        t0: [us].
        offset: Residual range at the last point, where the prior has its mean; negative if the particle ended before
            it [cm].
        sigma: The prior's width, what is known of the end point [cm].

    Raises:
        ValueError: fewer than 2 points, a shape or number that does not fit, an unknown particle.
    """

    offset: float = 0.0
    sigma: float = 0.3

    def __init__(
        self,
        points: Tensor,
        particle: str = "muon",
        event: int = 0,
        number: int = 0,
        t0: float = 0.0,
        *,
        offset: float = 0.0,
        sigma: float = 0.3,
    ) -> None:
        _of_points(self, points, particle, event, number, t0)
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be positive and finite [cm], got {sigma}")
        object.__setattr__(self, "offset", float(offset))
        object.__setattr__(self, "sigma", float(sigma))

    @property
    def prior(self) -> tuple[float, float]:
        """Mean and width of the nuisance parameter, the residual range at the last point [cm]."""
        return self.offset, self.sigma

    @staticmethod
    def residual_range(nuisance: Tensor, table: RangeTable) -> Tensor:
        return nuisance


@dataclass(frozen=True, init=False)
class ThroughTrack(Track):
    """A particle that leaves with an energy known by its order of magnitude.

    Args:
        points, particle, event, number, t0: As of `StoppingTrack`.
        energy: Kinetic energy at the last point, the median of a log-normal prior [MeV].
        sigma: Of its logarithm. A muon's most probable loss grows by 7 % from 0.3 to 3 GeV.

    Raises:
        ValueError: fewer than 2 points, a shape or number that does not fit, an unknown particle, an energy beyond the
            table.
    """

    energy: float = 2000.0
    sigma: float = 0.5

    def __init__(
        self,
        points: Tensor,
        particle: str = "muon",
        event: int = 0,
        number: int = 0,
        t0: float = 0.0,
        *,
        energy: float = 2000.0,
        sigma: float = 0.5,
    ) -> None:
        _of_points(self, points, particle, event, number, t0)
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be positive and finite, got {sigma}")
        if not 0 < energy <= _FASTEST:
            raise ValueError(f"energy must be positive and at most {_FASTEST:g} MeV (of the tables), got {energy}")
        object.__setattr__(self, "energy", float(energy))
        object.__setattr__(self, "sigma", float(sigma))

    @property
    def prior(self) -> tuple[float, float]:
        """Mean and width of the nuisance parameter, the logarithm of the energy at the last point [MeV]."""
        return float(torch.log(torch.tensor(self.energy, dtype=torch.float64))), self.sigma

    @staticmethod
    def residual_range(nuisance: Tensor, table: RangeTable) -> Tensor:
        return table.residual_range(torch.exp(nuisance).clamp(max=_FASTEST))


@dataclass(frozen=True)
class Layout:
    """All segments of several tracks, one after the other."""

    start: Tensor  # float64 (N, 3)
    end: Tensor  # float64 (N, 3)
    length: Tensor  # float64 (N)
    to_end: Tensor  # float64 (N)
    track: Tensor  # int64 (N)
    event: Tensor  # int64 (N)
    mean: Tensor  # float64 (num_tracks)    of the nuisance parameters
    sigma: Tensor  # float64 (num_tracks)
    first: Tensor  # int64 (num_tracks)     first segment
    fixed: dict[str, Tensor] = field(default_factory=dict)  # event, start, end, t0, pdg, track of `Segments`


class Tracks:
    """Several tracks as one model of `Segments`, differentiable in nuisance parameters and normal scores.

    Args:
        tracks: `StoppingTrack` and `ThroughTrack`, in any order; events may hold several.
        density: Of the argon, for ranges and losses, a number or a tensor of one number [g/cm3].
        cut: Electrons knocked on with more than this are tracks of their own and not in the segments [MeV]: losses and
            fluctuations are the restricted ones. None: all energy stays.

    Raises:
        ValueError: no tracks, two of the same event and number, a density or cut that is not positive.

    Example:
        >>> from hepops.lartpc.calorimetry import StoppingTrack, Tracks
        >>> points = torch.zeros(21, 3).double()
        >>> points[:, 0] = torch.linspace(-10.0, -2.0, 21)
        >>> tracks = Tracks([StoppingTrack(points, "proton")])
        >>> segments = tracks.segments()  # the mean loss of a proton that ends at the last point
        >>> round(float(segments.dE.sum()), 2), [round(x, 1) for x in segments.dEdx[[0, -1]].tolist()]
        (101.33, [7.3, 46.6])
    """

    def __init__(
        self,
        tracks: Sequence[StoppingTrack | ThroughTrack],
        density: float | Tensor = DENSITY,
        cut: float | None = None,
    ) -> None:
        if not tracks:
            raise ValueError("tracks: there are none")
        names = [(t.event, t.number) for t in tracks]
        if len(set(names)) < len(names):
            raise ValueError(f"tracks: two have the same event and number {max(names, key=names.count)}")
        if cut is not None and not cut > 0:
            raise ValueError(f"cut must be positive [MeV], got {cut}")
        self.tracks, self.density, self.cut = list(tracks), density, cut
        self.tables = {name: RangeTable(name, density) for name in {t.particle for t in tracks}}
        self.layout = self._lay_out()
        kind = [(t.particle, type(t)) for t in tracks]
        self._groups = {
            k: torch.isin(self.layout.track, torch.tensor([i for i, other in enumerate(kind) if other == k])).nonzero()[
                :, 0
            ]
            for k in dict.fromkeys(kind)
        }

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def num_segments(self) -> int:
        return len(self.layout.length)

    def _lay_out(self) -> Layout:
        join = lambda name: torch.cat([getattr(t, name) for t in self.tracks])  # noqa: E731
        counts = torch.tensor([len(t.start) for t in self.tracks])
        each = lambda values: torch.tensor(values).repeat_interleave(counts)  # noqa: E731
        prior = torch.tensor([t.prior for t in self.tracks], dtype=torch.float64)
        event = each([t.event for t in self.tracks])
        fixed = {
            "event": event,
            "start": join("start"),
            "end": join("end"),
            "t0": each([float(t.t0) for t in self.tracks]).double(),
            "pdg": each([self.tables[t.particle].particle.pdg for t in self.tracks]),
            "track": each([t.number for t in self.tracks]),
        }
        track = torch.arange(len(self.tracks)).repeat_interleave(counts)
        columns = (fixed["start"], fixed["end"], join("length"), join("to_end"), track, event)
        return Layout(*columns, prior[:, 0], prior[:, 1], counts.cumsum(0) - counts, fixed)

    def nuisance(self, w: Tensor | None = None) -> Tensor:
        """The nuisance parameters, mean + sigma w: residual range at the end [cm] or ln(energy/MeV), (num_tracks)."""
        return self.layout.mean if w is None else self.layout.mean + self.layout.sigma * w

    def segments(self, w: Tensor | None = None, z: Tensor | None = None) -> Segments:
        """The segments with the loss that the latent variables give them.

        Args:
            w: Nuisance parameters, standard normal, float64 (num_tracks); None: zero.
            z: Normal scores of the losses, float64 (num_segments); None: the mean loss everywhere, no fluctuation.

        Returns:
            `Segments`; beyond the end of a stopping particle dE is 0. dE/dx is dE over the length of the segment, also
            where the particle stopped within. Differentiable in `w` and `z`.

        Raises:
            ValueError: a shape does not fit, or a range lies beyond the table.
        """
        for name, value, n in (("w", w, len(self)), ("z", z, self.num_segments)):
            if value is not None and tuple(value.shape) != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {tuple(value.shape)}")
        dE, dEdx = self.loss(self.nuisance(w), z)
        fixed: dict[str, Any] = self.layout.fixed
        return Segments(dE=dE, dEdx=dEdx, **fixed)

    def loss(self, nuisance: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """dE [MeV] and dE/dx [MeV/cm] of every segment."""
        at = self.layout
        each = nuisance[at.track]
        if z is None:
            dE = self.single(each, None, torch.zeros_like(each))
        else:
            fluctuation, shift = self.fluctuate(each, z)
            dE = self.single(each, fluctuation, downstream(shift, at.track))
        return dE, torch.where(dE > 0, dE / at.length, torch.ones_like(dE))

    def fluctuate(self, nuisance: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The losses beyond the mean (N) [MeV], and what they add to the range of segments before (N) [cm]."""
        loss, shift = torch.zeros_like(z), torch.zeros_like(z)
        for table, here, down in self._kinds(nuisance):
            given, middle = self._fluctuation(table, down, self.layout.length[here], z[here])
            loss = loss.index_put((here,), given)
            shift = shift.index_put((here,), given / (table.stopping_power(middle) * table.density))
        return loss, shift

    def single(self, nuisance: Tensor, fluctuation: Tensor | None, shift: Tensor) -> Tensor:
        """dE of every segment (N), of its own nuisance parameter (N), fluctuation and shift of range alone."""
        dE = torch.zeros_like(shift)
        for table, here, down in self._kinds(nuisance):
            given = self._mean(table, down + shift[here], self.layout.length[here])
            if fluctuation is not None:
                given = torch.maximum(given + fluctuation[here], LEAST * given)
            dE = dE.index_put((here,), given)
        return dE

    def _kinds(self, nuisance: Tensor) -> Iterator[tuple[RangeTable, Tensor, Tensor]]:
        """Of every particle and kind of track: its table, its segments, the residual ranges at their ends."""
        for (name, kind), here in self._groups.items():
            table = self.tables[name]
            yield table, here, self.layout.to_end[here] + kind.residual_range(nuisance[here], table)

    def _fluctuation(self, table: RangeTable, down: Tensor, length: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The loss beyond the mean, and the energy at which its law was taken."""
        inside, middle = self.inside(table, down, length)
        law = Kinematics(table.particle, middle, self.cut)
        xi = law.xi * inside * table.density
        loss = xi * vavilov(z, xi / law.largest, law.slope)
        return torch.where(down + length > 0, loss, torch.zeros_like(loss)), middle

    @staticmethod
    def inside(table: RangeTable, down: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """How far the particle goes in segments that end at residual ranges `down`, and its energy in the middle."""
        inside = ((down + length).clamp(min=0) - down.clamp(min=0)).clamp(min=_THINNEST)
        return inside, table.energy((down + length / 2).clamp(min=0)).clamp(min=_SLOWEST)

    def _mean(self, table: RangeTable, down: Tensor, length: Tensor) -> Tensor:
        low, high = down.clamp(min=0), (down + length).clamp(min=0)
        if self.cut is None:
            return table.energy(high) - table.energy(low)
        # the restricted loss at the middle, in proportion to the whole: both vary alike within a segment
        R = (low + high) / 2
        return (table.energy(high) - table.energy(low)) * table.dedx(R, self.cut) / table.dedx(R)


def downstream(values: Tensor, track: Tensor) -> Tensor:
    """Sums over the later segments of the same track; tracks are contiguous."""
    behind = values.flip(0).cumsum(0).flip(0)  # this and all later segments, of later tracks too
    last = torch.cat([track[1:] != track[:-1], torch.ones(1, dtype=torch.bool)])
    after = torch.cat([behind[1:], behind.new_zeros(1)])
    base = torch.where(last, after, torch.zeros_like(after))[last]
    _, rank = torch.unique_consecutive(track, return_inverse=True)
    return after - base[rank]
