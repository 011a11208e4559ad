"""Many sets of parameters, "universes", for one set of segments, in one call."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .hits import Hits
from .parameters import Parameters
from .pieces import Pieces
from .segments import Segments
from .universe_scene import Part, Scene
from .waveforms import Waveforms

if TYPE_CHECKING:
    from .simulator import Simulator

NAMES = tuple(Parameters.SPEC)


@dataclass(frozen=True)
class Universes:
    """Hits of all universes: flat columns, those of universe 0 first, each universe in the order of its own run.

    ``result[i]`` are the `Hits` of universe i, iteration gives them in turn, `len` is the number of universes.
    """

    parameters: dict[str, Tensor]  # float64 (n) of every name
    hits: Hits
    universe: Tensor  # int64 (num_hits)
    offsets: Tensor  # int64 (n + 1)       hits of universe i are offsets[i] ... offsets[i + 1] - 1
    reports: list[dict[str, Any]]  # of each universe, as of its own run
    kept: list[Waveforms] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _number(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"Universes: there is no universe {i} among {len(self)}")
        return i % len(self)

    def __getitem__(self, i: int) -> Hits:
        i = self._number(i)
        begin, end = self.offsets[i : i + 2].tolist()
        return replace(self.hits[begin:end], reports=self.reports[i])

    def __iter__(self) -> Iterator[Hits]:
        return (self[i] for i in range(len(self)))

    def waveforms(self, i: int) -> Waveforms:
        """The currents of universe i.

        Raises:
            ValueError: they were not kept.
        """
        if self.kept is None:
            raise ValueError('Universes: waveforms were not kept; ask for keep="waveforms"')
        return self.kept[self._number(i)]

    def parameters_of(self, i: int) -> Parameters:
        i = self._number(i)
        return Parameters(**{name: float(self.parameters[name][i]) for name in NAMES})


def universes(
    sim: "Simulator",
    parameters: Sequence[Parameters] | Mapping[str, Tensor | Sequence[float]],
    segments: Segments,
    *,
    tangents: Sequence[str] = (),
    seed: int | None = None,
    threshold: float | Tensor | None = None,
    keep: Literal["hits", "waveforms"] = "hits",
) -> Universes:
    r"""Simulate n sets of parameters for the same segments, in one call.

    What is the same in all universes is done once: the cuts, nodes, pixels and their rows, and the response, whose
    curves at all velocities are sums of few (`hepops.lartpc.curves`). Universes that differ in their charges alone
    (lifetime, recombination, W) share the curve of every node as well. Rows whose charge cannot reach the threshold,
    by a bound that holds in all universes, are left out where only noise-free hits are asked for.

    Args:
        sim: The simulator; its own parameters are those that a mapping does not name. One with a `far_field` runs
            every universe for itself, which costs as much as a loop. Modules that differ are refused: `sim.module(n)`.
        parameters: A sequence of `Parameters`, or name -> (n) for those that vary.
        segments: Of any number of events.
        tangents: Names of parameters: derivatives of the hits, as of `Simulator`; each universe is then a run of its
            own, and costs as much.
        seed: None: noise-free. A number: with noise, the same in all universes (common random numbers).
        threshold: As of `Simulator`, for all universes.
        keep: "waveforms" keeps the currents of all universes in memory, too.

    Returns:
        `Universes`. Each equals its own run to rounding: the same hits, reports and row numbers, charges within
        2e-6 (float32) or 2e-12 (float64) of their value, times within a few 1e-4 of a tick (float32) where the current
        is low; a hit whose crossing lies within rounding of not happening may differ. Not differentiable.

    Deterministic: the same call gives the same bits, for any number of threads and any chunk of events. Which other
    universes are in it may change the last bits: the curves hold for the interval of all their velocities.

    Raises:
        ValueError: a simulator of modules that differ, an impossible parameter (universe, name, value and range are
            named), an unknown name, lengths that differ, no universe, tangents together with a seed, or input that
            requires a gradient; before any work.
        TypeError: a member of the sequence is not `Parameters`.

    Example:
        >>> from hepops.lartpc import Detector, Simulator, gun
        >>> sim = Simulator(Detector.module0())
        >>> segments = gun.shoot(sim.detector, events=1, seed=1)
        >>> result = sim.universes({"lifetime": [1800.0, 2200.0, 2600.0]}, segments)
        >>> charges = [float(hits.charge.sum()) for hits in result]
        >>> len(result), charges == sorted(charges)
        (3, True)
    """
    if hasattr(sim, "groups"):
        raise ValueError(
            "Simulator.universes: the modules of this simulator differ (ModularSimulator): ask for one of them, "
            "sim.module(n).universes(...)"
        )
    values = values_of(sim, parameters)
    if keep not in ("hits", "waveforms"):
        raise ValueError(f'Simulator.universes: keep must be "hits" or "waveforms", got {keep!r}')
    if tangents and seed is not None:
        raise ValueError("Simulator.universes: hits with noise have no derivatives: tangents need seed=None")
    for name in ("start", "end", "dE", "dEdx", "t0"):
        if getattr(segments, name).requires_grad:
            raise ValueError(f"Simulator.universes: {name} of the segments requires a gradient, which universes lack")
    with torch.no_grad():
        if tangents or sim.far_field:
            return _one_by_one(sim, values, segments, tuple(tangents), seed, threshold, keep)
        pieces = sim._pieces(segments)
        prune = seed is None and keep == "hits"
        parts: list[Part] = []
        for chunk in sim._chunks(pieces):
            for group in Scene.of(sim, chunk).groups(values):
                parts += group.run(seed, threshold, prune, keep == "waveforms")
        return _gather(sim, pieces, values, parts, keep == "waveforms")


def values_of(sim: "Simulator", parameters: Sequence[Parameters] | Mapping[str, Any]) -> Tensor:
    """All parameters of all universes, float64 (n, 12); refuses what is impossible, by universe, name and value."""
    device = sim.lifetime.device
    if isinstance(parameters, Mapping):
        if not parameters:
            raise ValueError("Simulator.universes: parameters name nothing that varies")
        columns = {}
        for name, value in parameters.items():
            Parameters.spec(name)
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(
                    f"Simulator.universes: {name} requires a gradient, which universes lack: ask for tangents"
                )
            column = torch.as_tensor(value, dtype=torch.float64, device=device)
            if column.dim() != 1:
                raise ValueError(f"Simulator.universes: {name} must be (n), got {tuple(column.shape)}")
            columns[name] = column
        lengths = {name: len(c) for name, c in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Simulator.universes: parameters have different lengths, {lengths}")
        n = next(iter(lengths.values()))
        now = {name: getattr(sim, name).detach().to(torch.float64).expand(n) for name in NAMES}
        values = torch.stack([columns.get(name, now[name]) for name in NAMES], 1)
    else:
        for i, p in enumerate(parameters):
            if not isinstance(p, Parameters):
                raise TypeError(f"Simulator.universes: universe {i} must be Parameters, got {type(p).__name__}")
        rows = [[getattr(p, name) for name in NAMES] for p in parameters]
        values = torch.tensor(rows, dtype=torch.float64, device=device)
    if values.shape[0] == 0:
        raise ValueError("Simulator.universes: there must be at least one universe")
    low = values.new_tensor([Parameters.SPEC[name].floor for name in NAMES])
    high = values.new_tensor([Parameters.SPEC[name].ceiling for name in NAMES])
    bad = ~((values >= low) & (values <= high))
    if bool(bad.any()):
        i, k = torch.nonzero(bad)[0].tolist()
        spec = Parameters.SPEC[NAMES[k]]
        raise ValueError(
            f"Simulator.universes: universe {i}: {NAMES[k]} is {float(values[i, k])} {spec.unit}, expected "
            f"{spec.floor:g} to {spec.ceiling:g}"
        )
    return values


def _gather(sim: "Simulator", pieces: Pieces, values: Tensor, parts: list[Part], keep: bool) -> Universes:
    """Parts lie chunk by chunk; hits come out universe by universe, their rows counted over all chunks."""
    from .simulator import _rank

    n = len(values)
    rows, rejected = values.new_zeros(n, dtype=torch.int64), values.new_zeros(n, dtype=torch.int64)
    arriving: list[list[float]] = [[] for _ in range(n)]
    lost: list[list[float]] = [[] for _ in range(n)]
    waves: list[list[Waveforms]] = [[] for _ in range(n)]
    columns: list[dict[str, Tensor]] = []
    for part in parts:
        columns.append(part.hits.columns() | {"row": part.hits.row + rows[part.universe]})
        rows[part.numbers] += part.rows
        rejected[part.numbers] += part.rejected
        for k, i in enumerate(part.numbers.tolist()):
            arriving[i] += part.arriving[k].tolist()
            lost[i] += part.lost[k].tolist()
            if keep:
                waves[i].append(part.waves[k])
    universe = torch.cat([part.universe for part in parts])
    order = torch.argsort(universe, stable=True)
    universe = universe[order]
    joined: dict[str, Any] = {name: torch.cat([c[name] for c in columns])[order] for name in columns[0]}
    hits = Hits(**joined)
    offsets = torch.cat([rows.new_zeros(1), torch.bincount(universe, minlength=n).cumsum(0)])
    fixed = sim._reports(pieces)
    reports = [
        fixed
        | {
            "electrons_arriving": math.fsum(arriving[i]),
            "electrons_lost": math.fsum(lost[i]),
            "rejected": int(rejected[i]),
            "pixels": int(rows[i]),
        }
        for i in range(n)
    ]
    kept = [_join(w, report) for w, report in zip(waves, reports, strict=True)] if keep else None
    every = {name: values[:, k].clone() for k, name in enumerate(NAMES)}
    result = Universes(every, hits, universe, offsets, reports, kept)
    if any(part.several for part in parts):
        result = replace(result, hits=Hits.cat([replace(_rank(h), reports={"pixels": 0}) for h in result]))
        result = replace(result, hits=replace(result.hits, reports={}))
    return result


def _join(parts: list[Waveforms], report: dict[str, Any]) -> Waveforms:
    """Currents of successive chunks as one."""
    begins = [0]
    for part in parts:
        begins.append(begins[-1] + int(part.offsets[-1]))
    offsets = [p.offsets[:-1] + b for p, b in zip(parts, begins[:-1], strict=True)]
    names = ("event", "tpc", "ix", "iy", "first_tick", "values", "t0")
    columns: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
    columns["offsets"] = torch.cat([*offsets, offsets[0].new_tensor(begins[-1:])])
    reports = {name: value for name, value in report.items() if name not in ("rejected", "pixels")}
    return replace(parts[0], **columns, reports=reports)


def alone(sim: "Simulator", values: Tensor) -> "Simulator":
    """The simulator of one universe, float64 (12): its own run is what `universes` must equal."""
    shared = (sim.detector, sim.table, sim.field_map)
    own = copy.deepcopy(sim, {id(x): x for x in shared})
    own._response = None
    with torch.no_grad():
        for name, value in zip(NAMES, values, strict=True):
            getattr(own, name).copy_(value)
    return own


def _one_by_one(
    sim: "Simulator",
    values: Tensor,
    segments: Segments,
    tangents: tuple[str, ...],
    seed: int | None,
    threshold: float | Tensor | None,
    keep: str,
) -> Universes:
    """With tangents, or a far field, each universe is a run of its own."""
    hits, waves = [], []
    for p in values:
        own = alone(sim, p)
        hits.append(own(segments, seed, tangents=tangents, threshold=threshold))
        if keep == "waveforms":
            waves.append(own.waveforms(segments, tangents))
    counts = torch.tensor([len(h) for h in hits], device=values.device)
    reports = [{k: v for k, v in h.reports.items() if k != "integration"} for h in hits]
    flat = Hits.cat([replace(h, reports={"pixels": 0}) for h in hits])
    every = {name: values[:, k].clone() for k, name in enumerate(NAMES)}
    universe = torch.repeat_interleave(counts)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Universes(every, replace(flat, reports={}), universe, offsets, reports, waves or None)
