r"""Nuisance parameters: what differs from event to event, run to run, TPC to TPC or tile to tile, solved jointly.

A nuisance is a deviation :math:`v_g` of one group g from the common value p of the same name: the time offset of a
group is :math:`p + v_g` [us], everything else :math:`p\, e^{v_g}`, so that a prior is a width in us or a relative one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from hepops.lartpc.parameters import Parameters

from .space import TIME_OFFSET, Space

if TYPE_CHECKING:
    from hepops.lartpc.detector import Detector

PER = ("event", "run", "tpc", "tile")
LEVELS = {TIME_OFFSET: ("event", "run"), "gain": ("tile", "tpc", "run")}
OTHERS = ("tpc", "run")
MOST = {TIME_OFFSET: 5.0}  # largest deviation of one step [us]; of the others, relative:
MOST_RELATIVE = 0.5


@dataclass(frozen=True)
class Nuisance:
    """One kind of nuisance parameter.

    Args:
        name: "time_offset", "gain", or a parameter of the simulator such as "lifetime" and "efield".
        per: What has one of its own: "event", "run", "tpc", or "tile" (a block of pixels).
        prior: Sigma of the deviations about zero, in us for the time offset, else relative. None: none, which the
            data then must do without: refused where the common value is fitted, too.
        tile: Pixels of a tile along (ix, iy).
        runs: The run of each event, by event id; None: all are one run.

    Raises:
        ValueError: an unknown name or level, a prior that is not positive.

    Example:
        >>> Nuisance("time_offset", per="event", prior=0.05).label(3)
        'time_offset[event 3]'
    """

    name: str
    per: Literal["event", "run", "tpc", "tile"] = "event"
    prior: float | None = None
    tile: tuple[int, int] = (70, 70)
    runs: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        known = (TIME_OFFSET, "gain", *Parameters.SPEC)
        if self.name not in known:
            raise ValueError(f"nuisance: {self.name!r} is not one of {', '.join(known)}")
        if self.per not in PER:
            raise ValueError(f"nuisance {self.name}: per must be one of {', '.join(PER)}, got {self.per!r}")
        if self.per not in LEVELS.get(self.name, OTHERS):
            levels = " or ".join(LEVELS.get(self.name, OTHERS))
            raise ValueError(f"nuisance {self.name}: per {self.per} is not provided for, only per {levels}")
        if self.prior is not None and not (math.isfinite(self.prior) and self.prior > 0):
            raise ValueError(f"nuisance {self.name}: the prior must be a positive sigma, got {self.prior}")
        if len(self.tile) != 2 or min(self.tile) < 1:
            raise ValueError(f"nuisance {self.name}: tile must be two numbers of pixels, got {self.tile}")

    def label(self, group: int) -> str:
        """What a group is called in results."""
        return f"{self.name}[{self.per} {group}]"


Nuisances = Sequence[Nuisance] | Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One nuisance with its groups, and where they stand in the vector of unknowns."""

    spec: Nuisance
    labels: tuple[int, ...]  # of the groups, in rising order
    first: int  # index of the first group among the unknowns
    events: Tensor  # int64 (num_events) known events, in rising order
    group: Tensor  # int64 (num_events) group of each; empty for tpc and tile
    columns: tuple[int, int]  # tiles along ix and iy

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, event: Tensor, tpc: Tensor, ix: Tensor, iy: Tensor) -> Tensor:
        """The group of each interval, int64."""
        if self.spec.per in ("event", "run"):
            return self.group[torch.searchsorted(self.events, event.to(self.events))]
        if self.spec.per == "tpc":
            return tpc
        return (tpc * self.columns[1] + iy // self.spec.tile[1]) * self.columns[0] + ix // self.spec.tile[0]

    def value(self, common: float, deviation: float) -> float:
        """The value of a group."""
        return common + deviation if self.spec.name == TIME_OFFSET else common * math.exp(deviation)


@dataclass(frozen=True)
class Unknowns:
    """All unknowns of a fit: K common ones (`Space`), then the groups of each nuisance, those per event last."""

    space: Space
    families: tuple[Family, ...]
    weight: Tensor  # (K + M) 1 / sigma^2 of the nuisances' priors, zero for the common ones

    @property
    def dense(self) -> int:
        """How many unknowns the dense corner holds: all but those of single events."""
        return len(self.space) + sum(len(f) for f in self.families if f.spec.per != "event")

    def __len__(self) -> int:
        return len(self.space) + sum(map(len, self.families))

    @property
    def names(self) -> tuple[str, ...]:
        """Names asked of a likelihood: the common ones, then what only nuisances concern."""
        return (*self.space.names, *dict.fromkeys(n for n in self.bases if n not in self.space.names))

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(family.spec.name for family in self.families)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the nuisances' groups, in their order."""
        return tuple(family.spec.label(label) for family in self.families for label in family.labels)

    def inside(self, x: Tensor) -> Tensor:
        """The common unknowns no further out than the space allows."""
        k = len(self.space)
        return torch.cat((self.space.inside(x[:k]), x[k:]))

    def longest(self) -> Tensor:
        """(K + M) the furthest that one step may move each."""
        from .optimise import LONGEST

        parts = [torch.full((len(self.space),), LONGEST, dtype=torch.float64)]
        parts += [
            torch.full((len(f),), MOST.get(f.spec.name, MOST_RELATIVE), dtype=torch.float64) for f in self.families
        ]
        return torch.cat(parts)


def unknowns(space: Space, nuisance: Nuisances | None, events: Tensor, detector: Detector) -> Unknowns:
    """Resolve nuisances against the data: which groups there are.

    Raises:
        ValueError: one given twice, more than one per event, a deviation that nothing tells from the common value, or
            an event without run.
    """
    specs = _specs(nuisance)
    _refuse(specs, space)
    events = torch.unique(events.cpu())
    families: list[Family] = []
    first = len(space)
    for spec in sorted(specs, key=lambda s: s.per == "event"):
        families.append(_family(spec, events, detector, first))
        first += len(families[-1])
    weight = [torch.zeros(len(space), dtype=torch.float64)]
    weight += [
        torch.full((len(f),), 0.0 if f.spec.prior is None else f.spec.prior**-2, dtype=torch.float64) for f in families
    ]
    return Unknowns(space, tuple(families), torch.cat(weight))


def _specs(nuisance: Nuisances | None) -> list[Nuisance]:
    if nuisance is None:
        return []
    given: Iterable[Nuisance] = (
        [Nuisance(name, per) for name, per in nuisance.items()]  # type: ignore[arg-type]
        if isinstance(nuisance, Mapping)
        else nuisance
    )
    specs = list(given)
    for spec in specs:
        if not isinstance(spec, Nuisance):
            raise TypeError(f"nuisance must hold Nuisance objects, got {spec!r}")
    return specs


def _refuse(specs: Sequence[Nuisance], space: Space) -> None:
    keys = [(s.name, s.per) for s in specs]
    for name, per in keys:
        if keys.count((name, per)) > 1:
            raise ValueError(f"nuisance: {name} per {per} is given twice")
    if sum(s.per == "event" for s in specs) > 1:
        raise ValueError("nuisance: only one can be per event")
    for spec in specs:
        if spec.prior is not None:
            continue
        common = [n for n in (spec.name, *(("birks_a", "w_ion") if spec.name == "gain" else ())) if n in space.names]
        free = [n for n in common if not float(space.prior_weight[space.names.index(n)])]
        if free:
            raise ValueError(
                f"nuisance: {spec.name} per {spec.per} and the common {free[0]} are degenerate (only their "
                f"{'sum' if spec.name == TIME_OFFSET else 'product'} counts); give the nuisance a prior, or fix "
                f"{free[0]} or give it one"
            )
        others = [s for s in specs if s is not spec and s.name == spec.name and s.prior is None]
        if others:
            raise ValueError(
                f"nuisance: {spec.name} per {spec.per} and per {others[0].per} are degenerate; give one a prior"
            )


def _family(spec: Nuisance, events: Tensor, detector: Detector, first: int) -> Family:
    none = torch.zeros(0, dtype=torch.int64)
    if spec.per == "tpc":
        return Family(spec, tuple(range(len(detector.tpcs))), first, none, none, (1, 1))
    if spec.per == "tile":
        nx, ny = max(t.nx for t in detector.tpcs), max(t.ny for t in detector.tpcs)
        columns = (-(-nx // spec.tile[0]), -(-ny // spec.tile[1]))
        return Family(spec, tuple(range(len(detector.tpcs) * columns[0] * columns[1])), first, none, none, columns)
    if spec.per == "event":
        return Family(spec, tuple(events.tolist()), first, events, torch.arange(len(events)), (1, 1))
    runs = [0] * len(events)
    if spec.runs is not None:
        missing = [e for e in events.tolist() if e not in spec.runs]
        if missing:
            raise ValueError(f"nuisance {spec.name}: event {missing[0]} has no run ({len(missing)} have none)")
        runs = [int(spec.runs[e]) for e in events.tolist()]
    labels, group = torch.unique(torch.tensor(runs), return_inverse=True)
    return Family(spec, tuple(labels.tolist()), first, events, group, (1, 1))
