r"""What a fit minimises: the objective at a point u, with its gradient and information, summed over batches of events.

For residuals :math:`F(u) = \sum_i \rho(r_i) + \frac12 \sum_k (p_k - \mu_k)^2/\sigma_k^2`, with gradient
:math:`\sum_i w_i r_i J_i` and information :math:`\sum_i w_i J_i^T J_i`; a likelihood brings its own three. The vector
of unknowns x is u followed by the nuisances' deviations v, which residuals do not know.
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

from hepops.lartpc.parameters import Parameters

from .arrow import Arrow
from .data import FileBatch, Files, file_batches
from .nuisance import Unknowns, unknowns
from .readout import seen, thresholds
from .residuals import CHARGE, TIME, LikelihoodObject, Residual, Residuals, joined
from .robust import Robust
from .sections import Batch, cut_batch, replace_hits, terms_of, toy_information
from .space import TIME_OFFSET, Space
from .team import Part, Request, Team
from .terms import Terms, ordered_sum

if TYPE_CHECKING:
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.production.ranks import Ranks
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator

__all__ = ["Batch", "Model", "Point", "Problem", "batches", "ordered_sum", "shifted"]


@dataclass(frozen=True)
class Model:
    """The objective about a point x: F, its gradient (K + M) and its information, float64 on the CPU."""

    value: float
    gradient: Tensor
    information: Arrow


@dataclass(frozen=True)
class Point:
    """One evaluation: where, and what came of it."""

    x: Tensor  # (K + M)  u, then the deviations of the nuisances
    p: Tensor  # (K)  physical
    slope: Tensor  # (K)  dp/du
    residuals: Residuals | None
    likelihood: Terms | None
    share: float  # of all events: priors count by it
    weight: Tensor  # (K + M) 1 / sigma^2 of the deviations' priors, by their share

    @property
    def u(self) -> Tensor:
        return self.x[: len(self.p)]

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
            return prior + 0.5 * float((self.weight * self.x**2).sum()) + self.likelihood.value
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
        k, more = len(self.p), len(self.x) - len(self.p)
        ones = self.p.new_ones(more)
        pull = torch.cat((self.share * space.prior_weight * (self.p - space.prior_mean), self.p.new_zeros(more)))
        weight = torch.cat((self.share * space.prior_weight, self.p.new_zeros(more)))
        gradient, slope = gradient + pull, torch.cat((self.slope, ones))
        if self.likelihood is not None:
            gradient, weight = gradient + self.weight * self.x, weight + self.weight
        elif more:
            corner = information.corner.new_zeros((k + more, k + more))
            corner[:k, :k] = information.corner
            information = Arrow.dense(corner)
        value = self.value(space, robust, scales)
        return Model(value, gradient * slope, information.plus_diagonal(weight).scaled(slope))

    def _data_terms(self, robust: Robust | None, scales: Tensor) -> tuple[Tensor, Arrow]:
        """Gradient (K + M) and information of the data alone, common parameters physical, on the CPU."""
        if self.likelihood is not None:
            return self.likelihood.gradient, self.likelihood.information
        assert self.residuals is not None and robust is not None and self.residuals.jacobian is not None
        r, J = self.residuals.values, self.residuals.jacobian.T.contiguous()
        weighted = J * robust.weight(r, scales[self.residuals.kind])
        information = torch.stack([ordered_sum(weighted * row) for row in J])
        gradient = ordered_sum(weighted * r).cpu()
        return torch.nn.functional.pad(gradient, (0, len(self.x) - len(self.p))), Arrow.dense(information.cpu())


class Problem:
    """A private copy of the simulator, and the data in batches of whole events; the caller's are never changed."""

    def __init__(
        self,
        sim: Simulator,
        segments: Segments | Files,
        measured: Hits | None,
        space: Space,
        size: int,
        events: int | None,
        nuisance: Any = None,
    ):
        self.sim = copy.deepcopy(sim)
        self.space = space
        self.batches: Sequence[Batch | FileBatch]
        self.stages: tuple[Any, ...] = ()
        self.team: Team | None = None  # while processes answer together
        self.ranks: Ranks | None = None  # that have the same data
        if isinstance(segments, Files):
            self.batches, self.ignored_hits = file_batches(segments, size, events)
            every = torch.from_numpy(segments.index.events)
        else:
            assert measured is not None
            self.batches, self.ignored_hits = batches(segments, measured, size, events)
            every = segments.event
        self.num_events = sum(batch.events for batch in self.batches)
        self.unknowns: Unknowns = unknowns(space, nuisance, every, sim.detector)
        self._kept: tuple[object, dict[int, Hits]] | None = None
        for name, parameter in self.sim.named_parameters():
            parameter.requires_grad_(name in space.names)

    def measured(self, hits: Hits) -> list[Batch]:
        """The same batches with other measured hits."""
        return [replace_hits(batch, hits) for batch in self.batches]

    def set(self, name: str, value: float) -> None:
        """Give the private simulator a value; the time offset and a likelihood's parameters are not its own."""
        if name != TIME_OFFSET and hasattr(self.sim, name):
            with torch.no_grad():
                getattr(self.sim, name).fill_(value)

    def at(
        self,
        x: Tensor,
        objective: Residual | LikelihoodObject,
        batches: Sequence[Batch | FileBatch],
        derivatives: bool = True,
        scores: bool = False,
    ) -> Point:
        """Evaluate the objective on some batches; `scores` of each event are kept only where they are asked for."""
        p, slope = self.space.physical(x[: len(self.space)])
        parts = self._parts(x, objective, batches, derivatives, scores)
        share, weight = sum(batch.events for batch in batches) / self.num_events, self._weight(batches)
        if isinstance(parts[0], Residuals):
            residuals = joined([part for part in parts if isinstance(part, Residuals)])
            return Point(x, p, slope, residuals, None, share, weight)
        terms = parts[0]
        for part in parts[1:]:
            assert isinstance(part, Terms)
            terms = terms + part
        return Point(x, p, slope, None, terms, share, weight)

    def _parts(
        self,
        x: Tensor,
        objective: Residual | LikelihoodObject,
        batches: Sequence[Batch | FileBatch],
        derivatives: bool,
        scores: bool,
    ) -> list[Part]:
        """What each batch gives, by this process or by all of the team."""
        numbers = self._numbers(objective, batches)
        if self.team is None or numbers is None:
            return [self.part(x, objective, batch, derivatives, scores) for batch in batches]
        request = Request(x, *numbers, derivatives, scores)
        parts: list[Part] = self.team.ask(self, request)
        return parts

    def toy_information(
        self, x: Tensor, objective: LikelihoodObject, batches: Sequence[Batch | FileBatch], toys: int, seed: int
    ) -> list[Arrow]:
        """The information of each batch, summed over toys simulated at x; by this process or by all of the team."""
        numbers = self._numbers(objective, batches)
        if self.team is None or numbers is None:
            return [self.toys_of(x, objective, batch, toys, seed) for batch in batches]
        request = Request(x, *numbers, True, False, toys, seed)
        parts: list[Arrow] = self.team.ask(self, request)
        return parts

    def toys_of(self, x: Tensor, objective: LikelihoodObject, batch: Batch | FileBatch, toys: int, seed: int) -> Arrow:
        """The same of one batch."""
        p, _ = self.space.physical(x[: len(self.space)])
        return toy_information(self.sim, self.unknowns, p, x, objective, batch, toys, seed)

    def _numbers(self, objective: object, batches: Sequence[Batch | FileBatch]) -> tuple[int, tuple[int, ...]] | None:
        """What other processes know an objective and batches by; None where they do not."""
        number = {id(batch): k for k, batch in enumerate(self.batches)}
        stages = [k for k, known in enumerate(self.stages) if known is objective]
        if not stages or any(id(batch) not in number for batch in batches):
            return None
        return stages[0], tuple(number[id(batch)] for batch in batches)

    def part(
        self,
        x: Tensor,
        objective: Residual | LikelihoodObject,
        batch: Batch | FileBatch,
        derivatives: bool,
        scores: bool = False,
    ) -> Part:
        """What one batch gives."""
        u = x[: len(self.space)]
        p, _ = self.space.physical(u)
        for name, value in zip(self.space.names, p.tolist(), strict=True):
            self.set(name, value)
        if isinstance(objective, LikelihoodObject):
            terms = terms_of(self.sim, self.unknowns, p, x, objective, [batch], derivatives)
            return dataclasses.replace(terms, scores=tuple(s.by_event() for s in terms.scores) if scores else ())
        with torch.no_grad():
            hits = self._hits(u, p, batch, objective, derivatives)
            return objective(*(seen(objective, self.sim.detector, side) for side in (hits, batch.measured)))

    def _weight(self, batches: Sequence[Batch | FileBatch]) -> Tensor:
        """(K + M) of the deviations' priors: absent events do not count, the others by their share."""
        if len(batches) == len(self.batches) or not self.unknowns.families:
            return self.unknowns.weight
        weight = self.unknowns.weight * sum(batch.events for batch in batches) / self.num_events
        for family in self.unknowns.families:
            if family.spec.per == "event":
                here = torch.cat([batch.ids for batch in batches])
                mine = slice(family.first, family.first + len(family))
                weight[mine] = self.unknowns.weight[mine] * torch.isin(family.events, here)
        return weight

    def _hits(self, u: Tensor, p: Tensor, batch: Batch | FileBatch, objective: Residual, derivatives: bool) -> Hits:
        """Simulated hits of a batch. The last point's are kept: the next stage, and the end, ask for them again."""
        if isinstance(batch, FileBatch):  # of which there may be too many
            return self.simulated(batch, p, objective, derivatives)
        key = (u.tolist(), derivatives, id(getattr(objective, "chip", None)))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, {})
        held = self._kept[1]
        if id(batch) not in held:
            held[id(batch)] = self.simulated(batch, p, objective, derivatives)
        return held[id(batch)]

    def simulated(self, batch: Batch | FileBatch, p: Tensor, objective: Residual, derivatives: bool) -> Hits:
        """Noise-free hits of a batch as an objective compares them, with tangents in the order of the space."""
        names = self.space.names
        own = tuple(name for name in names if name in Parameters.SPEC) if derivatives else ()
        hits = self.sim(batch.segments, seed=None, tangents=own, **thresholds(objective, names, p))
        if own == names:
            return hits
        offset = p[names.index(TIME_OFFSET)] if TIME_OFFSET in names else p.new_zeros(())
        return shifted(hits, offset, names, derivatives)


def shifted(hits: Hits, offset: Tensor, names: Sequence[str], derivatives: bool) -> Hits:
    """Hits later by `offset` [us], with tangents in the order of the names: the offset moves times alone.

    What is not of the simulator (the chip's own parameters) moves nothing here.
    """
    changes: dict[str, Any] = {"time": hits.time + offset.to(hits.time)}
    if derivatives:
        rows = []
        own = iter(range(len(names)))
        for name in names:
            at = next(own) if name in Parameters.SPEC else None
            if at is not None:
                assert hits.time_tangents is not None and hits.charge_tangents is not None
                rows.append((hits.time_tangents[at], hits.charge_tangents[at]))
            else:
                moved = torch.ones_like(hits.time) if name == TIME_OFFSET else torch.zeros_like(hits.time)
                rows.append((moved, torch.zeros_like(hits.charge)))
        times, charges = zip(*rows, strict=True)
        changes |= {"time_tangents": torch.stack(times), "charge_tangents": torch.stack(charges)}
        changes["tangent_names"] = tuple(names)
    return dataclasses.replace(hits, **changes)


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
    return [cut_batch(segments, measured, group) for group in groups], int((~known).sum())


def _few(ids: Tensor) -> str:
    values = torch.unique(ids).tolist()
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
