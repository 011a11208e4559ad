r"""The likelihood of measured hits given a simulator: an object for fits, with scores interval by interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from hepops.lartpc.fit.residuals import Likelihood

from .chip import FITTED, NOISE, Chip, Value
from .matching import Match, match
from .terms import Terms, by_formula, by_operator, contract

if TYPE_CHECKING:
    from hepops.lartpc.detector import Detector
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator
    from hepops.lartpc.waveforms import Waveforms


NEGLIGIBLE = 1e-30  # share of P that the chip explains, below which its slopes count for nothing


@dataclass(frozen=True)
class Intervals:
    """log P and its derivatives, one row per interval: a hit, or the rest of a row without one. N of them.

    A row's intervals are its hits in order of time, then the last. Sums over any group of intervals are its log L and
    score: of an event, a TPC, a tile, so that nuisance parameters of each can be assembled.
    """

    event: Tensor  # int64 (N)
    tpc: Tensor  # int64 (N)
    ix: Tensor  # int64 (N)
    iy: Tensor  # int64 (N)
    hit: Tensor  # int64 (N)               index into the measured hits, -1: the interval ends without one
    log_probability: Tensor  # float64 (N)
    scores: Tensor | None  # float64 (N, K) d log P / d parameter
    known: Tensor  # float64 (N)           share of P that the chip explains; the rest is the rate of foreign hits
    neglected: Tensor  # float64 (N)       bound on the probability of what was left out (histories of the chip)
    left_over: Tensor  # int64 (M)         measured hits that no row explains
    left_over_log: float  # log of the probability of each of them
    report: dict[str, int] = field(default_factory=dict)

    def select(self, keep: Tensor) -> Intervals:
        """Some of the intervals, by a mask; hits left over and the report stay."""
        names = ("event", "tpc", "ix", "iy", "hit", "log_probability", "scores", "known", "neglected")
        columns: dict[str, Any] = {name: getattr(self, name) for name in names}
        chosen: dict[str, Any] = {name: None if c is None else c[keep] for name, c in columns.items()}
        return dataclasses.replace(self, **chosen)

    @property
    def log_likelihood(self) -> float:
        """log L, hits left over included."""
        return float(self.log_probability.sum()) + len(self.left_over) * self.left_over_log

    def to_likelihood(self, parameters: int) -> Likelihood:
        """-log L, its gradient, and the information: the sum of the outer products of the intervals' scores."""
        g = self.scores if self.scores is not None else torch.zeros(0, parameters, dtype=torch.float64)
        value = torch.tensor(-self.log_likelihood, dtype=torch.float64)
        return Likelihood(value, -g.sum(0), g.T @ g, self.report)


@dataclass(frozen=True)
class HitLikelihood:
    r"""The exact likelihood of measured hits: which pixel triggered at which tick, with which ADC code, and which not.

    It needs no simulated hits and no matching of hits to hits: the waveforms of the simulator at its present values,
    the chip, and the measured ticks and codes make a product over intervals (`formula`). Every parameter of the
    simulator can be fitted, "time_offset" too, and the chip's own (`hepops.lartpc.likelihood.FITTED`).

    Where values come from: those of the simulator's parameters are the simulator's; a time offset is a shift of the
    segments' `t0` [us], which the caller makes, or `at(time_offset=...)`; those of the chip are `chip`'s, changed by
    `at(threshold=5100.0)`. A derivative with respect to one of the chip's is that along a common change of all pixels.

    Measured times are those of the clocked chip, (k + 1) tick for a trigger at tick k; `adc` is the code (a real one is
    rounded); the charge is looked at only where the chip has no ADC (`adc_bits=0`).

    A hit of probability P counts as P + p with p that of a foreign hit (`Chip.foreign_rate`), so that one absurd hit
    costs no more than -log p; hits that no row explains cost just that. Likewise a stretch without hits counts as P +
    `Chip.silence`. The report says how many hits and silences came from there. Pixels that the chip calls `masked`
    (dead and noisy ones, see `Channels.chip`) have no interval, and hits on them are counted and left out.

    Args:
        chip: The chip; None: what the simulator's detector states.
        time_offset: Added to every simulated time [us].
        tolerance: Histories of the chip (silent resets) less probable than this, each, may be left out; their sum is
            reported. 0: none.
        method: "operator", or "formula" for the oracle in plain torch, which is slow.

    Deterministic: the same bits for any number of threads. Additive over events.

    Example:
        >>> from hepops.lartpc import Detector, Simulator, gun
        >>> sim = Simulator(Detector.module0())
        >>> segments = gun.shoot(sim.detector, events=1, energy=200.0, seed=1)
        >>> hits = sim(segments, seed=1)
        >>> result = HitLikelihood().likelihood(sim, segments, hits, ("lifetime", "threshold"), True)
        >>> result.report["matched"] == len(hits), result.information.shape
        (True, torch.Size([2, 2]))
    """

    chip: Chip | None = None
    time_offset: float = 0.0
    tolerance: float = 1e-4
    method: Literal["operator", "formula"] = "operator"

    def at(self, time_offset: float | None = None, **values: Value) -> HitLikelihood:
        """The same at another time offset [us], and other values of the chip's parameters.

        Raises:
            ValueError: an unknown name, or a chip that is not known yet (`chip=None`) whose values are asked for.
        """
        chip = self.chip
        if values:
            if chip is None:
                raise ValueError("HitLikelihood: at() changes a chip's values, give it one: chip=Chip.of(detector)")
            chip = chip.with_values(**values)
        offset = self.time_offset if time_offset is None else time_offset
        return dataclasses.replace(self, chip=chip, time_offset=offset)

    def likelihood(
        self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...], derivatives: bool
    ) -> Likelihood:
        """-log L, its gradient and the information, of the events of the segments; see `LikelihoodObject`."""
        K = len(parameters)
        value = torch.zeros((), dtype=torch.float64)
        score, information = torch.zeros(K, dtype=torch.float64), torch.zeros(K, K, dtype=torch.float64)
        report: dict[str, int] = {}
        for part in self.parts(sim, segments, measured, parameters if derivatives else ()):
            result = part.to_likelihood(K)
            value, report = value + result.value, _add(report, result.report)
            if derivatives:
                score, information = score + result.score.cpu(), information + result.information.cpu()
        return Likelihood(value, score, information, report)

    def intervals(
        self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...] = ()
    ) -> Intervals:
        """log P and scores of every interval of all events; with parameters, scores (N, K) in their order."""
        return _cat(list(self.parts(sim, segments, measured, parameters)))

    def parts(
        self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...] = ()
    ) -> Iterator[Intervals]:
        """The same in chunks of whole events; `Intervals.hit` and `left_over` count in all measured hits."""
        physical = tuple(name for name in parameters if name not in FITTED)
        if self.time_offset:
            segments = dataclasses.replace(segments, t0=segments.t0 + self.time_offset)
        index = torch.arange(len(measured), device=measured.event.device)
        left = torch.ones_like(index, dtype=torch.bool)
        with torch.no_grad():
            for part in sim._blocks(segments, physical):
                chip = Chip.of(part.detector) if self.chip is None else self.chip
                mine = torch.isin(measured.event, torch.unique(part.waves.event)) & part.holds(measured.tpc)
                left &= ~mine
                yield self._part(part.waves, part.detector, chip, measured[mine], index[mine], parameters)
        if bool(left.any()):  # of events without a segment
            yield self._nothing(chip, sim.detector, measured[left], index[left], len(parameters))

    def of_waveforms(
        self, waves: Waveforms, detector: Detector, measured: Hits, parameters: tuple[str, ...] = ()
    ) -> Intervals:
        """The same of waveforms that are there already, with tangents of the parameters that are not the chip's."""
        chip = Chip.of(detector) if self.chip is None else self.chip
        index = torch.arange(len(measured), device=measured.event.device)
        with torch.no_grad():
            return self._part(waves, detector, chip, measured, index, parameters)

    def _part(
        self, waves: Waveforms, detector: Detector, chip: Chip, hits: Hits, index: Tensor, parameters: tuple[str, ...]
    ) -> Intervals:
        masked = chip.hidden(detector.pixel_id(hits.tpc, hits.ix, hits.iy))
        hits, index = (hits[~masked], index[~masked]) if bool(masked.any()) else (hits, index)
        found = match(waves, hits, chip.clock)
        pixel = detector.pixel_id(waves.tpc, waves.ix, waves.iy)
        row_of_hit = torch.repeat_interleave(found.first[1:] - found.first[:-1])
        edges, per_gain, per_pedestal = chip.edges(hits.adc[found.hit], hits.charge[found.hit], pixel[row_of_hit])
        threshold = chip.at("threshold", pixel)
        noise = torch.stack([chip.at(name, pixel).expand(len(pixel)) for name in NOISE], 1)
        if all(torch.as_tensor(getattr(chip, name)).numel() == 1 for name in NOISE):
            noise = torch.stack([chip.at(name, pixel)[0] for name in NOISE])
        run = {"operator": by_operator, "formula": by_formula}[self.method]
        terms = run(waves, found, edges, threshold, noise, chip.clock, self.tolerance, bool(parameters))
        place = torch.arange(len(found.hit), device=pixel.device) + row_of_hit  # of each hit among the intervals
        row, hit = _names(found, place)
        log_foreign = math.log(p) if (p := chip.foreign_probability()) > 0 else -math.inf
        log_silence = math.log(chip.silence) if chip.silence > 0 else -math.inf
        floor = torch.full_like(terms.log_probability, log_silence)
        floor[place] = log_foreign
        log_p = torch.logaddexp(terms.log_probability, floor)
        known = torch.where(log_p > -torch.inf, (terms.log_probability - log_p).exp(), 0.0)
        scores = None
        if parameters:
            scores = _scores(terms, waves, found, place, parameters, (per_gain, per_pedestal), chip) * known[:, None]
            scores = torch.where(known[:, None] > NEGLIGIBLE, scores, 0.0)  # slopes of log P may overflow there
        lost = torch.ones(len(hits), dtype=torch.bool, device=index.device)
        lost[found.hit] = False
        keep = ~chip.hidden(pixel)[row]
        foreign, silent = float((1 - known[place]).sum()), float((1 - known[keep]).sum())
        report = found.report | {"foreign": round(foreign), "silenced": round(silent - foreign)}
        if chip.masked is not None:
            report |= {"masked": int(masked.sum())}
        result = Intervals(
            waves.event[row],
            waves.tpc[row],
            waves.ix[row],
            waves.iy[row],
            torch.where(hit >= 0, index[found.hit][hit.clamp_min(0)] if len(found.hit) else hit, -1),
            log_p,
            scores,
            known,
            terms.neglected,
            index[lost],
            log_foreign,
            report,
        )
        return result if chip.masked is None else result.select(keep)

    def _nothing(self, chip: Chip, detector: Detector, hits: Hits, index: Tensor, parameters: int) -> Intervals:
        """Hits of events without a segment."""
        masked = chip.hidden(detector.pixel_id(hits.tpc, hits.ix, hits.iy))
        left = index[~masked]
        none = left[:0]
        empty = torch.zeros(0, dtype=torch.float64, device=left.device)
        log_foreign = math.log(p) if (p := chip.foreign_probability()) > 0 else -math.inf
        report = {
            "matched": 0,
            "without_row": len(left),
            "outside_window": 0,
            "dead_time": 0,
            "foreign": 0,
            "silenced": 0,
        }
        if chip.masked is not None:
            report["masked"] = int(masked.sum())
        scores = empty.new_zeros(0, parameters) if parameters else None
        return Intervals(none, none, none, none, none, empty, scores, empty, empty, left, log_foreign, report)


def _names(found: Match, place: Tensor) -> tuple[Tensor, Tensor]:
    """Row and matched hit (-1: none) of every interval."""
    counts = found.first[1:] - found.first[:-1] + 1
    row = torch.repeat_interleave(counts)
    hit = torch.full_like(row, -1)
    hit[place] = torch.arange(len(place), device=row.device)
    return row, hit


def _scores(
    terms: Terms,
    waves: Waveforms,
    found: Match,
    place: Tensor,
    parameters: tuple[str, ...],
    per_edge: tuple[Tensor, Tensor],
    chip: Chip,
) -> Tensor:
    """d log P / d parameter (N, K)."""
    physical = [name for name in parameters if name not in FITTED]
    scores = terms.log_probability.new_zeros(len(terms.log_probability), len(parameters))
    if physical:
        missing = [name for name in physical if name not in waves.tangent_names]
        if missing or waves.tangents is None:
            raise ValueError(
                f"HitLikelihood: the waveforms have no tangent of {missing[0] if missing else physical[0]!r}"
            )
        along = contract(terms, waves, found, chip.clock)
        columns = [waves.tangent_names.index(name) for name in physical]
        scores[:, [parameters.index(name) for name in physical]] = along[:, columns]
    for name in parameters:
        column = scores[:, parameters.index(name)]
        if name == "threshold":
            column += terms.per_threshold
        elif name in NOISE:
            column += terms.per_noise[:, NOISE.index(name)]
        elif name in FITTED:
            column[place] += (terms.per_edge * per_edge[name == "pedestal"]).sum(0)
    return scores


def _add(a: dict[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}


def _cat(parts: list[Intervals]) -> Intervals:
    report: dict[str, int] = {}
    for part in parts:
        report = _add(report, part.report)
    names = ("event", "tpc", "ix", "iy", "hit", "log_probability", "known", "neglected", "left_over")
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    scores = [part.scores for part in parts if part.scores is not None]
    joined = torch.cat(scores) if scores else None
    return Intervals(**columns, scores=joined, left_over_log=parts[0].left_over_log, report=report)
