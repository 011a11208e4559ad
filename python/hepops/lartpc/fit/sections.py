"""Where parameters differ from place to place: data cut into sections, in each of which they are constant.

A likelihood is asked section by section, each with its own values; what comes back is joined by the groups of its
intervals. A time offset needs no section: it is added to the times of the deposits, event by event.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .arrow import Arrow
from .data import FileBatch
from .nuisance import Family, Unknowns
from .residuals import Likelihood, LikelihoodObject
from .space import CHIP, TIME_OFFSET
from .terms import Scores, Terms, scores

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator

MARGIN = 0.1  # cm, by which a segment may miss a TPC and yet be given to its section


@dataclass(frozen=True)
class Batch:
    """Whole events: their segments and their measured hits."""

    segments: Segments
    measured: Hits
    events: int

    @property
    def ids(self) -> Tensor:
        """Of the events, int64 (events) on the CPU."""
        return torch.unique(self.segments.event).cpu()


AnyBatch = Batch | FileBatch


@dataclass(frozen=True)
class Section:
    """Data in which every parameter is constant."""

    segments: Segments
    measured: Hits
    values: dict[str, float]  # by name, of all names asked for
    tpc: int | None  # intervals of other TPCs belong to other sections


def cut_batch(segments: Segments, measured: Hits, group: list[int]) -> Batch:
    """The data of some events; measured hits lose what a fit must not see."""
    ids = torch.tensor(group, dtype=torch.int64)
    mine = torch.isin(segments.event, ids.to(segments.event)).nonzero().squeeze(1)
    return Batch(segments[mine], _hits_of(measured, ids), len(group))


def replace_hits(batch: Batch | FileBatch, measured: Hits) -> Batch:
    """The same events, measured another time."""
    segments = batch.segments
    return Batch(segments, _hits_of(measured, torch.unique(segments.event)), batch.events)


def _hits_of(measured: Hits, ids: Tensor) -> Hits:
    theirs = torch.isin(measured.event, ids.to(measured.event)).nonzero().squeeze(1)
    bare = dataclasses.replace(measured, time_tangents=None, charge_tangents=None, tangent_names=(), truth=None)
    bare = dataclasses.replace(bare, time=bare.time.detach(), charge=bare.charge.detach())
    return bare[theirs]


def terms_of(
    sim: Simulator,
    unknowns: Unknowns,
    p: Tensor,
    x: Tensor,
    objective: LikelihoodObject,
    batches: Sequence[Batch | FileBatch],
    derivatives: bool,
) -> Terms:
    """-log L of some batches with its derivatives with respect to all unknowns."""
    common = _common(sim, unknowns, p, objective)
    deviation = x.tolist()
    value, gradient = 0.0, x.new_zeros(len(unknowns))
    dense, tail = unknowns.dense, len(unknowns) - unknowns.dense
    information = Arrow(x.new_zeros((dense, dense)), x.new_zeros((dense, tail)), x.new_zeros(tail))
    report: dict[str, Any] = {}
    kept: list[Scores] = []
    for batch in batches:
        for section in _sections(sim, unknowns, common, deviation, batch):
            part = _ask(sim, unknowns, section, objective, deviation, derivatives)
            part = _finite(part)
            value += float(part.value)
            for name, count in part.report.items():
                report[name] = report.get(name, 0) + count
            if not derivatives:
                continue
            if part.scores is not None or unknowns.families:
                s = scores(part, unknowns, section.values, common, deviation)
                kept.append(s)
            if unknowns.families:
                gradient, information = gradient - s.gradient(unknowns), information + s.information(unknowns)
            else:
                gradient = gradient + part.score.cpu()
                information = information + Arrow.dense(part.information.cpu())
    for name, number in common.items():  # a later question begins from the common values
        _set(sim, name, number)
    return Terms(value, gradient, information, report, tuple(kept), bool(kept))


def toy_information(
    sim: Simulator,
    unknowns: Unknowns,
    p: Tensor,
    x: Tensor,
    objective: LikelihoodObject,
    batch: AnyBatch,
    toys: int,
    seed: int,
) -> Arrow:
    """The sum over toys of the information of a batch that was simulated at these unknowns."""
    inputs = (sim, unknowns, p, x, objective)
    total: Arrow | None = None
    for toy in range(toys):
        made = Batch(batch.segments, simulated(*inputs, batch, seed + toy), batch.events)
        found = terms_of(*inputs, [made], True).information
        total = found if total is None else total + found
    assert total is not None
    return total


def _finite(part: Likelihood) -> Likelihood:
    """Scores of intervals that are not finite (a fit far away) do not count, and are counted: `scores_not_finite`."""
    if part.scores is None or bool(torch.isfinite(part.scores).all()):
        return part
    good = torch.isfinite(part.scores).all(1)
    g = torch.where(good[:, None], part.scores, 0.0).double()
    report = {**part.report, "scores_not_finite": int((~good).sum())}
    return dataclasses.replace(part, scores=g, score=-g.sum(0), information=g.T @ g, report=report)


def _common(sim: Simulator, unknowns: Unknowns, p: Tensor, objective: object) -> dict[str, float]:
    """The common value of every name: of those that only nuisances concern, the simulator's or the likelihood's own."""
    free = dict(zip(unknowns.space.names, p.tolist(), strict=True))
    own: Mapping[str, float] = getattr(objective, "own", {})
    values = {}
    for name in unknowns.names:
        if name in free:
            values[name] = free[name]
        elif name == TIME_OFFSET:
            values[name] = 0.0
        else:
            values[name] = float(own[name]) if name in own else getattr(sim, name).item()
    return values


def _sections(
    sim: Simulator,
    unknowns: Unknowns,
    common: Mapping[str, float],
    deviation: Sequence[float],
    batch: Batch | FileBatch,
) -> Iterator[Section]:
    """The batch, its times moved by the offsets, cut where parameters of the simulator change."""
    segments = _offset(batch.segments, unknowns, common, deviation)
    apart = [f for f in unknowns.families if f.spec.name != TIME_OFFSET and f.spec.per in ("run", "tpc")]
    for tpc in range(len(sim.detector.tpcs)) if any(f.spec.per == "tpc" for f in apart) else (None,):
        for rows, hits, groups in _runs(segments, batch.measured, [f for f in apart if f.spec.per == "run"]):
            ours, theirs = segments[rows] if rows is not None else segments, batch.measured
            theirs = theirs[hits] if hits is not None else theirs
            values = dict(common)
            for family in apart:
                group = tpc if family.spec.per == "tpc" else groups[family.first]
                assert group is not None
                values[family.spec.name] = family.value(values[family.spec.name], deviation[family.first + group])
            if tpc is not None:
                ours, theirs = ours[_touches(ours, sim, tpc)], theirs[theirs.tpc == tpc]
            if len(ours):
                yield Section(ours, theirs, values, tpc)


def _offset(
    segments: Segments, unknowns: Unknowns, common: Mapping[str, float], deviation: Sequence[float]
) -> Segments:
    shift = torch.full((len(segments),), common.get(TIME_OFFSET, 0.0), dtype=torch.float64)
    for family in unknowns.families:
        if family.spec.name == TIME_OFFSET:
            v = torch.tensor(deviation[family.first : family.first + len(family)], dtype=torch.float64)
            shift += v[_groups(family, segments.event.cpu())]
    return dataclasses.replace(segments, t0=segments.t0 + shift.to(segments.t0)) if bool(shift.any()) else segments


def _groups(family: Family, event: Tensor) -> Tensor:
    return family.group[torch.searchsorted(family.events, event)]


def _runs(
    segments: Segments, measured: Hits, families: Sequence[Family]
) -> Iterator[tuple[Tensor | None, Tensor | None, dict[int, int]]]:
    """Rows of segments and hits of events that have the same run in every family, and the group in each."""
    if not families:
        yield None, None, {}
        return
    ours = torch.stack([_groups(f, segments.event.cpu()) for f in families], 1)
    keep = torch.isin(measured.event, segments.event.to(measured.event))  # hits of other events have no group
    theirs = torch.full((len(measured), len(families)), -1, dtype=torch.int64)
    for k, family in enumerate(families):
        theirs[keep.cpu(), k] = _groups(family, measured.event[keep].cpu())
    for row in torch.unique(ours, dim=0):
        yield (
            (ours == row).all(1).nonzero().squeeze(1),
            (theirs == row).all(1).nonzero().squeeze(1),
            {family.first: int(g) for family, g in zip(families, row, strict=True)},
        )


def _touches(segments: Segments, sim: Simulator, tpc: int) -> Tensor:
    """Which segments may reach into a TPC."""
    t = sim.detector.tpcs[tpc]
    low = segments.start.new_tensor([min(t.anode, t.cathode), t.y[0], t.z[0]]) - MARGIN
    high = segments.start.new_tensor([max(t.anode, t.cathode), t.y[1], t.z[1]]) + MARGIN
    first, last = torch.minimum(segments.start, segments.end), torch.maximum(segments.start, segments.end)
    return ((first <= high) & (last >= low)).all(1)


def simulated(
    sim: Simulator, unknowns: Unknowns, p: Tensor, x: Tensor, objective: LikelihoodObject, batch: AnyBatch, seed: int
) -> Hits:
    """Hits of a batch as the simulator makes them at these unknowns, noise included.

    Raises:
        ValueError: gains that differ from tile to tile, which the simulated chip has not.
    """
    for family in unknowns.families:
        if family.spec.per == "tile" and bool(x[family.first : family.first + len(family)].any()):
            raise ValueError("toys: the simulated chip has one gain for all pixels, it cannot simulate gains per tile")
    common = _common(sim, unknowns, p, objective)
    parts = []
    for section in _sections(sim, unknowns, common, x.tolist(), batch):
        for name, number in section.values.items():
            _set(sim, name, number)
        at: Any = objective
        chips = {n: v for n, v in section.values.items() if n in CHIP}
        chip: Any = getattr(at.with_values(chips) if chips else at, "chip", None)
        many = {n: v for n, v in ({} if chip is None else chip.values()).items() if torch.as_tensor(v).numel() > 1}
        bars: dict[str, Any] = {"threshold": many["threshold"]} if "threshold" in many else {}
        with _stated(sim, chip), warnings.catch_warnings(), torch.no_grad():
            if section.tpc is not None:
                warnings.filterwarnings("ignore", message="hepops: .* of the energy lies outside")
            hits = sim(section.segments, seed=seed, **bars)
        if {"gain", "pedestal"} & many.keys() and chip.adc_bits:
            adc = chip.digitise(hits.charge, sim.detector.pixel_id(hits.tpc, hits.ix, hits.iy))
            hits = dataclasses.replace(hits, adc=adc)
        parts.append(hits if section.tpc is None else hits[hits.tpc == section.tpc])
    columns = {n: torch.cat([getattr(part, n) for part in parts]) for n in parts[0].columns()}
    bare: dict[str, Any] = {"time_tangents": None, "charge_tangents": None, "tangent_names": (), "truth": None}
    for name, number in common.items():
        _set(sim, name, number)
    return dataclasses.replace(parts[0], **columns, **bare)


@contextmanager
def _stated(sim: Simulator, chip: Any) -> Iterator[None]:
    """The simulator, its front ends with what a likelihood's chip has one value of.

    Raises:
        ValueError: noise that differs within a module, which the simulated chip has not.
    """
    groups: Any = getattr(sim, "groups", None)
    parts: list[Simulator] = [sim] if groups is None else list(groups)
    before = [part.detector for part in parts]
    try:
        for part, there in zip(parts, before, strict=True) if chip is not None else ():
            mine = getattr(part, "tpcs_of", torch.arange(len(there.tpcs)))
            part.detector = there.replace(frontend=there.frontend.replace(**_common_to(chip, there, mine)))
        yield
    finally:
        for part, there in zip(parts, before, strict=True):
            part.detector = there


def _common_to(chip: Any, detector: Any, tpcs: Tensor) -> dict[str, float]:
    """Fields of a front end of which all pixels of some TPCs have one value."""
    first = detector.geometry.first_pixel
    pixel = torch.cat([int(first[i]) + torch.arange(detector.tpcs[i].nx * detector.tpcs[i].ny) for i in tpcs.tolist()])
    found = {"v_cm": chip.v_cm, "v_ref": chip.v_ref}
    for name in chip.values():
        values = chip.at(name, pixel)
        if bool((values == values[0]).all()):
            found["v_ped" if name == "pedestal" else name] = float(values[0])
        elif name not in ("threshold", "gain", "pedestal"):
            raise ValueError(f"toys: the simulated chip has one {name} in a module, not one per pixel")
    return found


def _ask(
    sim: Simulator,
    unknowns: Unknowns,
    section: Section,
    objective: LikelihoodObject,
    deviation: Sequence[float],
    derivatives: bool,
) -> Likelihood:
    """The likelihood of a section, without the intervals that belong to another TPC."""
    own: dict[str, Any] = {}
    for name, number in section.values.items():
        if name in CHIP:
            own[name] = number
        else:
            _set(sim, name, number)
    tiles = [f for f in unknowns.families if f.spec.per == "tile"]
    for family in tiles:
        own[family.spec.name] = _per_pixel(family, sim, section.values[family.spec.name], deviation)
    at: Any = objective
    if own:
        if not hasattr(objective, "with_values"):
            raise ValueError(f"parameters: {', '.join(own)} is of the chip, which this likelihood does not let fit")
        at = at.with_values(own)
    with warnings.catch_warnings():
        if section.tpc is not None:  # what lies in the other TPCs is no loss
            warnings.filterwarnings("ignore", message="hepops: .* of the energy lies outside")
        part: Likelihood = at.likelihood(sim, section.segments, section.measured, unknowns.names, derivatives)
    return part if section.tpc is None else _only(part, section.tpc)


def _per_pixel(family: Family, sim: Simulator, common: float, deviation: Sequence[float]) -> Tensor:
    """(num_pixels) the values of all pixels, by their tiles."""
    tpc, ix, iy = sim.detector.pixel_from_id(torch.arange(sim.detector.num_pixels))
    v = torch.tensor(deviation[family.first : family.first + len(family)], dtype=torch.float64)
    return common * torch.exp(v[family.of(tpc, tpc, ix, iy)])


def _only(part: Likelihood, tpc: int) -> Likelihood:
    """The intervals of one TPC."""
    if part.tpc is None or part.values is None:
        raise ValueError(
            "nuisance: per tpc needs a likelihood that returns its intervals (Likelihood.values, event, tpc, ix, iy)"
        )
    keep = part.tpc == tpc
    value = part.value - part.values[~keep].double().sum()  # hits without a row keep their price
    columns = {n: getattr(part, n) for n in ("scores", "event", "tpc", "ix", "iy", "values")}
    chosen = {n: None if c is None else c[keep] for n, c in columns.items()}
    score, information = part.score, part.information
    if chosen["scores"] is not None:
        s = chosen["scores"].double()
        score, information = -s.sum(0), s.T @ s
    return Likelihood(value, score, information, part.report, **chosen)


def _set(sim: Simulator, name: str, value: float) -> None:
    if name != TIME_OFFSET and name not in CHIP:
        with torch.no_grad():
            getattr(sim, name).fill_(value)
