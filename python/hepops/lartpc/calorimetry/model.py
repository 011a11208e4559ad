r"""The joint density of data and latent variables about one point: gradient, and second derivatives in blocks.

.. math:: F(v, l) = -\ln L(\mathrm{data} \mid p(v), d(l)) + \tfrac12 l^2 + \mathrm{priors}(p), \qquad l = (w, z)

with :math:`v_k = \ln(p_k/p_k^0)`, the losses d of all segments, and the latent variables l, standard normal: nuisance
parameters w of the tracks, normal scores z of the losses.
One backward pass through the simulator gives dF/dv and dF/dd,
for any number of segments; its memory is that of the waveforms. Second derivatives with respect to d couple only
segments that share a pixel, so that few differences of gradients give all of them (A. R. Curtis, M. J. D. Powell, J. K.
Reid, J. Inst. Math. Appl. 13 (1974) 117), unless the objective brings them; those with respect to l follow by the chain
rule, :math:`D^T F_{dd} D + \sum_i F_{d_i} \partial^2 d_i + 1`, event by event.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fit.space import TIME_OFFSET, space
from ..parameters import Parameters
from ..segments import Segments
from ..simulator import Simulator
from .chain import chain
from .objective import HasInformation, Objective
from .tracks import StoppingTrack, Tracks

_STEP = 1e-4  # of ln p, for differences of gradients
_STEP_DE = 1e-4  # of dE, relative


@dataclass(frozen=True)
class Point:
    """Where a fit stands."""

    v: Tensor  # float64 (K)            ln(p / start)
    w: Tensor  # float64 (num_tracks)
    z: Tensor  # float64 (num_segments)


@dataclass(frozen=True)
class Gradient:
    """F and its first derivatives."""

    value: float
    v: Tensor  # (K)
    w: Tensor  # (num_tracks)
    z: Tensor  # (num_segments)
    dE: Tensor  # (num_segments)  of -ln L [1/MeV]
    data_v: Tensor  # (K)           of -ln L


@dataclass(frozen=True)
class Block:
    """Second derivatives of one event."""

    tracks: Tensor  # int64: its nuisance parameters, first among its latent variables
    segments: Tensor  # int64: its normal scores; empty where the fluctuations are held
    local: Tensor  # (m, m)
    safe: Tensor  # (m, m), positive definite: without the curvature of the map from latent variables to losses
    cross: Tensor  # (K, m)


@dataclass(frozen=True)
class Curvature:
    shared: Tensor  # (K, K)
    blocks: list[Block]


class Model:
    """F of one set of tracks and one objective; see the module."""

    def __init__(
        self,
        sim: Simulator,
        tracks: Tracks,
        objective: Objective,
        names: Sequence[str],
        priors: Mapping[str, tuple[float, float]],
        straggling: bool = True,
    ) -> None:
        if TIME_OFFSET in names:
            raise ValueError(f"parameters: {TIME_OFFSET} is not one of the simulator's")
        space(names, priors=priors or None)  # refuses unknown, repeated and degenerate names
        for name in names:
            if not getattr(sim, name).item() > 0:
                raise ValueError(f"parameters: {name} must start above 0, is {getattr(sim, name).item()}")
        self.sim, self.tracks, self.objective, self.names = copy.deepcopy(sim), tracks, objective, tuple(names)
        self.priors, self.straggling = dict(priors), straggling
        self.start = torch.tensor([getattr(sim, name).item() for name in names], dtype=torch.float64)
        for name, parameter in self.sim.named_parameters():
            parameter.requires_grad_(name in names)
        self.can_stop = torch.tensor([isinstance(t, StoppingTrack) for t in tracks.tracks])
        self._event_blocks = self._blocks()
        self._colours: list[Tensor] | None = None

    def origin(self) -> Point:
        zeros = [torch.zeros(n, dtype=torch.float64) for n in (len(self.names), len(self.tracks))]
        return Point(*zeros, torch.zeros(self.tracks.num_segments, dtype=torch.float64))

    def physical(self, v: Tensor) -> Tensor:
        return self.start * torch.exp(v)

    def _set(self, v: Tensor) -> None:
        with torch.no_grad():
            for name, value in zip(self.names, self.physical(v).tolist(), strict=True):
                spec = Parameters.SPEC[name]
                getattr(self.sim, name).fill_(min(max(value, spec.floor), spec.ceiling))

    def losses(self, at: Point) -> Segments:
        return self.tracks.segments(at.w, at.z if self.straggling else None)

    def _moved(self, segments: Segments, dE: Tensor) -> Segments:
        """The segments with other losses; dE/dx is the mean over a segment's length."""
        per_length = dE / self.tracks.layout.length
        return replace(segments, dE=dE, dEdx=torch.where(dE > 0, per_length, torch.ones_like(dE)))

    def _data(self, v: Tensor, segments: Segments) -> tuple[float, Tensor, Tensor]:
        """-ln L and its derivatives with respect to v (K) and, to dE (N)."""
        self._set(v)
        dE = segments.dE.detach().clone().requires_grad_()
        moved = self._moved(segments, dE)
        value = self.objective(self.sim, moved)
        leaves = [*(getattr(self.sim, name) for name in self.names), dE]
        *shared, along = torch.autograd.grad(value, leaves, allow_unused=True)
        grads = [torch.zeros((), dtype=torch.float64) if g is None else g.double() for g in shared]
        p = self.physical(v)
        return float(value.detach()), torch.stack(grads) * p, torch.zeros_like(dE) if along is None else along

    def _prior(self, v: Tensor) -> tuple[float, Tensor, Tensor]:
        """Of the parameters: value, gradient and curvature with respect to v."""
        p = self.physical(v)
        value, grad, curvature = 0.0, torch.zeros_like(v), torch.zeros_like(v)
        for name, (mean, sigma) in self.priors.items():
            k = self.names.index(name)
            off = float(p[k] - mean) / sigma
            value += off * off / 2
            grad[k] = off * p[k] / sigma
            curvature[k] = (p[k] / sigma) ** 2 + off * p[k] / sigma
        return value, grad, curvature

    def value(self, at: Point, event: int | None = None) -> float:
        """F; with `event`, -log L of that event alone, up to a constant."""
        with torch.no_grad():
            segments = self.losses(at)
            self._set(at.v)
            if event is not None:
                return float(self.objective(self.sim, segments[segments.event == event]))
            data = float(self.objective(self.sim, segments))
        z2 = float((at.z**2).sum()) if self.straggling else 0.0
        return data + self._prior(at.v)[0] + (float((at.w**2).sum()) + z2) / 2

    def events(self) -> list[int]:
        return sorted({t.event for t in self.tracks.tracks})

    def stopping(self, event: int) -> list[int]:
        return [i for i, t in enumerate(self.tracks.tracks) if t.event == event and isinstance(t, StoppingTrack)]

    def gradient(self, at: Point) -> Gradient:
        """One forward and one backward pass."""
        w, z = at.w.clone().requires_grad_(), at.z.clone().requires_grad_()
        segments = self.losses(Point(at.v, w, z))
        value, v, dE = self._data(at.v, segments)
        to_w, to_z = self._pull(segments, w, z, dE)
        prior, prior_v, _ = self._prior(at.v)
        to_z = to_z + at.z if self.straggling else torch.zeros_like(to_z)
        square = float((at.w**2).sum()) + (float((at.z**2).sum()) if self.straggling else 0.0)
        return Gradient(value + prior + square / 2, v + prior_v, to_w + at.w, to_z, dE, v)

    def _pull(self, segments: Segments, w: Tensor, z: Tensor, dE: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives back to the latent variables."""
        grads = torch.autograd.grad((segments.dE * dE).sum(), [w, z], allow_unused=True)
        to_w, to_z = (torch.zeros_like(x) if g is None else g for g, x in zip(grads, (w, z), strict=True))
        return to_w, to_z

    # ---- second derivatives

    def _blocks(self) -> list[tuple[Tensor, Tensor]]:
        """Tracks and segments of every event."""
        of_track = torch.tensor([t.event for t in self.tracks.tracks])
        events = torch.unique(of_track)
        where = lambda mask: mask.nonzero().squeeze(1)  # noqa: E731
        return [(where(of_track == e), where(self.tracks.layout.event == e)) for e in events.tolist()]

    def curvature(self, at: Point, gradient: Gradient) -> Curvature:
        """All second derivatives; those across and of the parameters by differences of gradients."""
        segments = self.losses(at)
        shared, cross = [], []
        for k in range(len(self.names)):
            v = at.v.clone()
            v[k] += _STEP
            _, moved_v, moved_dE = self._data(v, segments)
            shared.append((moved_v - gradient.data_v) / _STEP)
            cross.append((moved_dE - gradient.dE) / _STEP)
        H, across = torch.stack(shared), torch.stack(cross)  # (K, K), (K, N)
        _, _, prior = self._prior(at.v)
        maps = chain(self.tracks, at.w, at.z if self.straggling else None, gradient.dE, self._event_blocks)
        blocks = []
        second = self.per_event(at, segments)
        for (tracks, ours), S, (D, C) in zip(self._event_blocks, second, maps, strict=True):
            safe = D.T @ S @ D + torch.eye(D.shape[1], dtype=torch.float64)
            kept = ours if self.straggling else ours[:0]
            blocks.append(Block(tracks, kept, _even(safe + C), _even(safe), across[:, ours] @ D))
        return Curvature(_even(H) + torch.diag(prior), blocks)

    def local_curvature(self, at: Point) -> list[Tensor]:
        """The blocks of the latent variables alone: what the Laplace correction asks for at neighbouring points."""
        segments = self.losses(at)
        _, _, dE = self._data(at.v, segments)
        maps = chain(self.tracks, at.w, at.z if self.straggling else None, dE, self._event_blocks)
        second = self.per_event(at, segments)
        one = lambda D: torch.eye(D.shape[1], dtype=torch.float64)  # noqa: E731
        full = [_even(D.T @ S @ D + C + one(D)) for (D, C), S in zip(maps, second, strict=True)]
        safe = [_even(D.T @ S @ D + one(D)) for (D, _), S in zip(maps, second, strict=True)]
        return [f if int(torch.linalg.cholesky_ex(f)[1]) == 0 else s for f, s in zip(full, safe, strict=True)]

    def per_event(self, at: Point, segments: Segments) -> list[Tensor]:
        """d2(-ln L)/d(dE)^2 of the segments of every event."""
        segments = replace(segments, dE=segments.dE.detach(), dEdx=segments.dEdx.detach())
        if not isinstance(self.objective, HasInformation):
            return self._by_differences(at, segments)
        self._set(at.v)
        dE = segments.dE.clone().requires_grad_()
        deposit = self.sim.drift(self._moved(segments, dE))
        (slope,) = torch.autograd.grad(deposit.electrons.sum(), [dE])
        whole = torch.zeros_like(slope).index_add(0, deposit.segment, deposit.electrons.detach())
        per_dE = slope / whole.clamp(min=1e-30)
        return self.objective.information(self.sim, segments, per_dE, [ours for _, ours in self._event_blocks])

    def _by_differences(self, at: Point, segments: Segments) -> list[Tensor]:
        """Columns of all segments of one colour at once: no two of them share a pixel, nor a neighbour that does."""
        if self._colours is None:
            self._colours = colours(self.tracks, self.reach())
        N = self.tracks.num_segments
        H = [torch.zeros(len(ours), len(ours), dtype=torch.float64) for _, ours in self._event_blocks]
        near = neighbours(self.tracks, self.reach())
        place = torch.zeros(N, dtype=torch.int64)
        for _, ours in self._event_blocks:
            place[ours] = torch.arange(len(ours))
        step = _STEP_DE * segments.dE.clamp(min=1e-3)
        for colour in self._colours:
            ends = []
            for sign in (1, -1):
                dE = segments.dE.clone()
                dE[colour] += sign * step[colour]
                ends.append(self._data(at.v, replace(segments, dE=dE.clamp(min=0)))[2])
            change = (ends[0] - ends[1]) / 2
            for number, (_, ours) in enumerate(self._event_blocks):
                mine = colour[torch.isin(colour, ours)]
                for i in mine.tolist():
                    rows = ours[near[number][place[i]]]
                    H[number][place[rows], place[i]] = change[rows] / step[i]
        return [(h + h.T) / 2 for h in H]

    def reach(self) -> float:
        """Beyond this distance two segments share no pixel [cm]."""
        return (2 * self.sim.reach + 2.5) * self.sim.detector.pixel_pitch


def _even(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def neighbours(tracks: Tracks, reach: float) -> list[Tensor]:
    """Of every event, which segments may share a pixel, bool (n, n): in the pixel plane nearer than `reach`."""
    layout, found = tracks.layout, []
    for event in torch.unique(torch.tensor([t.event for t in tracks.tracks])).tolist():
        ours = layout.event == event
        middle = ((layout.start + layout.end) / 2)[ours][:, 1:]
        half = (layout.length[ours] / 2)[:, None]
        apart = (middle[:, None] - middle[None]).abs().amax(-1)
        found.append(apart < reach + half + half.T)
    return found


def colours(tracks: Tracks, reach: float) -> list[Tensor]:
    """Sets of segments, no two of which have a neighbour in common; greedy, event by event."""
    sets: list[list[int]] = []
    events = torch.unique(torch.tensor([t.event for t in tracks.tracks])).tolist()
    for event, near in zip(events, neighbours(tracks, reach), strict=True):
        ours = (tracks.layout.event == event).nonzero().squeeze(1).tolist()
        linked = (near.double() @ near.double()) > 0
        colour = [-1] * len(ours)
        for i in range(len(ours)):
            taken = {colour[j] for j in linked[i].nonzero().squeeze(1).tolist()}
            colour[i] = next(c for c in range(len(ours) + 1) if c not in taken)
            while len(sets) <= colour[i]:
                sets.append([])
            sets[colour[i]].append(ours[i])
    return [torch.tensor(s) for s in sets]
