r"""What a fit minimises: the objective at a point u, with its gradient and information, summed over batches of events.

For residuals :math:`F(u) = \sum_i \rho(r_i) + \frac12 \sum_k (p_k - \mu_k)^2/\sigma_k^2`, with gradient
:math:`\sum_i w_i r_i J_i` and information :math:`\sum_i w_i J_i^T J_i`; a likelihood brings its own three.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .residuals import CHARGE, TIME, Likelihood, LikelihoodObject, Residual, Residuals, joined
from .robust import Robust
from .space import TIME_OFFSET, Space

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator

BLOCK = 4096


@dataclass(frozen=True)
class Model:
    """The objective about a point u: F, dF/du (K) and the information (K, K), float64 on the CPU."""

    value: float
    gradient: Tensor
    information: Tensor


@dataclass(frozen=True)
class Point:
    """One evaluation: where, and what came of it."""

    u: Tensor
    p: Tensor
    slope: Tensor  # dp/du
    residuals: Residuals | None
    likelihood: Likelihood | None
    share: float  # of all events: priors count by it

    @property
    def report(self) -> Mapping[str, int]:
        source = self.residuals or self.likelihood
        return source.report if source is not None else {}

    def scales(self, robust: Robust | None) -> Tensor:
        """The robust scale of each kind of residual (2); None where there are no residuals."""
        if self.residuals is None or robust is None:
            return torch.ones(2, dtype=torch.float64)
        r = self.residuals
        return torch.stack([robust.scale(r.values[r.kind == kind]) for kind in (CHARGE, TIME)])

    def value(self, space: Space, robust: Robust | None, scales: Tensor) -> float:
        """F at this point; what has no partner costs the price of a missing residual."""
        prior = 0.5 * self.share * float((space.prior_weight * (self.p - space.prior_mean) ** 2).sum())
        if self.likelihood is not None:
            return prior + float(self.likelihood.value)
        assert self.residuals is not None and robust is not None
        r = self.residuals
        missing = r.missing / 2 * float(robust.missing(scales).sum())
        return prior + missing + float(ordered_sum(robust.rho(r.values, scales[r.kind])))

    def decrease(self, trial: Point, space: Space, robust: Robust | None, scales: Tensor) -> float:
        """F here less F there, over the residuals that both have, made of as many hits.

        What comes and goes with a threshold is a jump, and says nothing about the slope. Minus infinity if more than
        half of the residuals are lost on the way.
        """
        if self.residuals is None or trial.residuals is None:
            return self.value(space, robust, scales) - trial.value(space, robust, scales)
        assert robust is not None
        most = 1 + max(int(p.hits.max()) if len(p.hits) else 0 for p in (self.residuals, trial.residuals))
        a, b = (2 * (r.index * most + r.hits) + r.kind for r in (self.residuals, trial.residuals))
        sides = ((self, torch.isin(a, b)), (trial, torch.isin(b, a)))
        if 2 * int(sides[0][1].sum()) < len(a):
            return -math.inf
        losses = []
        for point, both in sides:
            assert point.residuals is not None
            r, kind = point.residuals.values[both], point.residuals.kind[both]
            prior = (space.prior_weight * (point.p - space.prior_mean) ** 2).sum()
            losses.append(float(ordered_sum(robust.rho(r, scales[kind]))) + 0.5 * point.share * float(prior))
        return losses[0] - losses[1]

    def model(self, space: Space, robust: Robust | None, scales: Tensor) -> Model:
        """F with its derivatives; needs a point that was evaluated with them."""
        gradient, information = self._data_terms(robust, scales)
        gradient = gradient + self.share * space.prior_weight * (self.p - space.prior_mean)
        information = information + self.share * torch.diag(space.prior_weight)
        return Model(
            self.value(space, robust, scales), gradient * self.slope, information * self.slope * self.slope[:, None]
        )

    def _data_terms(self, robust: Robust | None, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and information of the data alone, in physical parameters, on the CPU."""
        if self.likelihood is not None:
            return self.likelihood.score.cpu(), self.likelihood.information.cpu()
        assert self.residuals is not None and robust is not None and self.residuals.jacobian is not None
        r, J = self.residuals.values, self.residuals.jacobian.T.contiguous()
        weighted = J * robust.weight(r, scales[self.residuals.kind])
        information = torch.stack([ordered_sum(weighted * row) for row in J])
        return ordered_sum(weighted * r).cpu(), information.cpu()


def ordered_sum(values: Tensor) -> Tensor:
    """Sums along the last axis in blocks of 4096: the same bits for any number of threads, unlike torch's own."""
    n = values.shape[-1]
    if n <= BLOCK:
        return values.sum(-1)
    padded = torch.nn.functional.pad(values, (0, -n % BLOCK))
    return ordered_sum(padded.unflatten(-1, (-1, BLOCK)).sum(-1))


@dataclass(frozen=True)
class Batch:
    """Whole events: their segments and their measured hits."""

    segments: Segments
    measured: Hits
    events: int


class Problem:
    """A private copy of the simulator, and the data in batches of whole events; the caller's are never changed."""

    def __init__(self, sim: Simulator, segments: Segments, measured: Hits, space: Space, size: int, events: int | None):
        self.sim = copy.deepcopy(sim)
        self.space = space
        self.batches, self.ignored_hits = batches(segments, measured, size, events)
        self.num_events = sum(batch.events for batch in self.batches)
        self._kept: tuple[object, list[Hits]] | None = None
        for name, parameter in self.sim.named_parameters():
            parameter.requires_grad_(name in space.names)

    def set(self, name: str, value: float) -> None:
        """Give the private simulator a value; the time offset is not its own."""
        if name != TIME_OFFSET:
            with torch.no_grad():
                getattr(self.sim, name).fill_(value)

    def at(
        self, u: Tensor, objective: Residual | LikelihoodObject, batches: Sequence[Batch], derivatives: bool = True
    ) -> Point:
        """Evaluate the objective on some batches."""
        p, slope = self.space.physical(u)
        for name, value in zip(self.space.names, p.tolist(), strict=True):
            self.set(name, value)
        share = sum(batch.events for batch in batches) / self.num_events
        if isinstance(objective, LikelihoodObject):
            parts = [
                objective.likelihood(self.sim, b.segments, b.measured, self.space.names, derivatives) for b in batches
            ]
            return Point(u, p, slope, None, _added(parts), share)
        with torch.no_grad():
            hits = self._hits(u, p, batches, derivatives)
            residuals = [objective(simulated, b.measured) for simulated, b in zip(hits, batches, strict=True)]
        return Point(u, p, slope, joined(residuals), None, share)

    def _hits(self, u: Tensor, p: Tensor, batches: Sequence[Batch], derivatives: bool) -> list[Hits]:
        """Simulated hits of each batch. The last ones are kept: the next stage, and the end, ask for them again."""
        key = (u.tolist(), [id(b) for b in batches], derivatives)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, [self.simulated(b, p, derivatives) for b in batches])
        return self._kept[1]

    def simulated(self, batch: Batch, p: Tensor, derivatives: bool) -> Hits:
        """Noise-free hits of a batch, with tangents in the order of the space."""
        names = self.space.names
        own = tuple(name for name in names if name != TIME_OFFSET) if derivatives else ()
        hits = self.sim(batch.segments, seed=None, tangents=own)
        return shifted(hits, p[names.index(TIME_OFFSET)], names, derivatives) if TIME_OFFSET in names else hits


def shifted(hits: Hits, offset: Tensor, names: Sequence[str], derivatives: bool) -> Hits:
    """Hits later by `offset` [us], its tangent row (time one, charge zero) put where the names have it."""
    changes: dict[str, Any] = {"time": hits.time + offset.to(hits.time)}
    if derivatives:
        at = list(names).index(TIME_OFFSET)
        changes["tangent_names"] = tuple(names)
        if hits.time_tangents is None or hits.charge_tangents is None:  # nothing else is fitted
            time, charge = hits.time.new_zeros((0, len(hits.time))), hits.charge.new_zeros((0, len(hits.time)))
        else:
            time, charge = hits.time_tangents, hits.charge_tangents
        one, zero = torch.ones_like(hits.time)[None], torch.zeros_like(hits.charge)[None]
        changes["time_tangents"] = torch.cat((time[:at], one.to(time), time[at:]))
        changes["charge_tangents"] = torch.cat((charge[:at], zero.to(charge), charge[at:]))
    return dataclasses.replace(hits, **changes)


def _added(parts: Sequence[Likelihood]) -> Likelihood:
    report: dict[str, int] = {}
    for part in parts:
        for name, count in part.report.items():
            report[name] = report.get(name, 0) + count
    value, score, information = (
        torch.stack([getattr(part, name) for part in parts]).sum(0) for name in ("value", "score", "information")
    )
    return Likelihood(value, score, information, report)


def batches(segments: Segments, measured: Hits, size: int, events: int | None) -> tuple[list[Batch], int]:
    """Cut data into batches of whole events of at most `size` segments (one event at least) and `events` events.

    Returns:
        The batches in rising order of events, and the number of measured hits of events without segments.

    Raises:
        ValueError: either side is empty, or they have no event in common.
    """
    if not len(segments.event):
        raise ValueError("segments: there are none")
    if not len(measured.event):
        raise ValueError("measured: there are no hits")
    if size < 1 or (events is not None and events < 1):
        raise ValueError(f"chunk and batch_events must be at least 1, got {size} and {events}")
    ids, counts = torch.unique(segments.event, return_counts=True)
    known = torch.isin(measured.event, ids.to(measured.event))
    if not bool(known.any()):
        raise ValueError(
            f"measured: none of its events ({_few(measured.event)}) is among those of the segments ({_few(ids)})"
        )
    groups: list[list[int]] = [[]]
    held = 0
    for event, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if groups[-1] and (held + count > size or len(groups[-1]) == events):
            groups.append([])
            held = 0
        groups[-1].append(event)
        held += count
    return [_batch(segments, measured, group) for group in groups], int((~known).sum())


def _few(ids: Tensor) -> str:
    values = torch.unique(ids).tolist()
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _batch(segments: Segments, measured: Hits, group: list[int]) -> Batch:
    ids = torch.tensor(group, dtype=torch.int64)
    mine = torch.isin(segments.event, ids.to(segments.event)).nonzero().squeeze(1)
    theirs = torch.isin(measured.event, ids.to(measured.event)).nonzero().squeeze(1)
    bare = dataclasses.replace(measured, time_tangents=None, charge_tangents=None, tangent_names=(), truth=None)
    bare = dataclasses.replace(bare, time=bare.time.detach(), charge=bare.charge.detach())
    return Batch(segments[mine], bare[theirs], len(group))
