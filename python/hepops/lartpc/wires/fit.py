r"""The fit of detector parameters to images of wires: Levenberg and Marquardt on the forward-mode Jacobian.

Minimises :math:`F = \frac12 \sum_i ((V_i - m_i)/\sigma)^2` over every sample that either side has, with sigma the noise
of a sample, in the logit of each parameter's range (`hepops.lartpc.fit`). A field that is 2 % off shifts a pulse by
more than its width, where the slope of F says nothing; so a first stage compares, wire by wire of the collection plane,
the sum :math:`Q = \sum V` and the mean time :math:`\sum V t / Q`, which know no such shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fit.space import Space, space
from ..parameters import Parameters
from ..segments import Segments
from ..simulator import TIME_OFFSET
from .electronics import FEMTOCOULOMB
from .images import WireImages
from .simulator import WireSimulator

SURE, PULSE = 30.0, 20.0  # a wire's sum must be so many sigma; samples of a pulse, for the noise of a sum


@dataclass(frozen=True)
class WireFit:
    """Values of the parameters, their covariance for white noise, and how the fit went."""

    names: tuple[str, ...]
    values: Tensor  # float64 (K)  physical
    covariance: Tensor  # float64 (K, K)
    value: float  # F at the end
    iterations: int
    converged: bool
    path: tuple[tuple[float, ...], ...]  # values after each accepted step, the start first

    def __getitem__(self, name: str) -> float:
        return float(self.values[self.names.index(name)])


def fit_wires(
    sim: WireSimulator,
    segments: Segments,
    measured: WireImages,
    parameters: Iterable[str] = Parameters.SIX,
    *,
    start: Mapping[str, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    max_iterations: int = 40,
    tolerance: float = 1e-8,
) -> WireFit:
    """Find the parameters of the detector that made these images.

    Args:
        sim: The simulator, which is not changed; its values are the default start and those of all other parameters.
        segments: Energy deposits of whole events, simulated event by event.
        measured: Images of the same events and the same detector; other events are left aside.
        parameters: Names of `Parameters.SPEC`.
        start: Physical values by name.
        bounds: Ranges by name in place of the published ones.
        max_iterations: Tried steps.
        tolerance: Relative change of every parameter below which the fit ends.

    Returns:
        `WireFit`. Not differentiable; deterministic.

    Raises:
        ValueError: an unknown name, a start outside its range, degenerate parameters, images of another detector, or no
            event in common.
    """
    names = tuple(parameters)
    if TIME_OFFSET in names:
        raise ValueError(f"fit_wires: {TIME_OFFSET!r} is not fitted here, only {list(Parameters.SPEC)}")
    free = space(names, bounds=bounds)
    if measured.detector != sim.detector:
        raise ValueError(f"measured: images of {measured.detector.name}, not of {sim.detector.name}")
    events = segments.events[torch.isin(segments.events, torch.unique(measured.event))]
    if not len(events):
        raise ValueError("measured: none of its events is among those of the segments")
    p = torch.tensor([(start or {}).get(n, getattr(sim, n).item()) for n in names], dtype=torch.float64)
    for name, x, low, high in zip(names, p.tolist(), free.low.tolist(), free.high.tolist(), strict=True):
        if not low <= x <= high:
            raise ValueError(f"start: {name} = {x:g} is outside its range [{low:g}, {high:g}]; see bounds")
    problem = _Problem(sim, free, [(segments.select([e]), _of_event(measured, e)) for e in events.tolist()])
    return problem.minimise(free.unconstrained(p), max_iterations, tolerance)


class _Problem:
    def __init__(self, sim: WireSimulator, free: Space, data: list[tuple[Segments, WireImages]]):
        now = sim.parameters_now
        self.sim = WireSimulator(
            sim.detector,
            now,
            sim.dtype,
            model=sim.model,
            step=sim.step,
            parts=sim.parts,
            bins=sim.bins,
            reach=sim.reach,
        ).to(next(sim.parameters()).device)
        self.free, self.data = free, data
        chip = sim.detector.frontend
        self.sigma = max(chip.noise, 1.0) * chip.gain * FEMTOCOULOMB

    def at(self, u: Tensor, sums: bool) -> Model:
        """The objective of a stage at a point, in physical parameters."""
        p, _ = self.free.physical(u)
        with torch.no_grad():
            for name, value in zip(self.free.names, p.tolist(), strict=True):
                getattr(self.sim, name).fill_(value)
            parts = []
            for segments, measured in self.data:
                images = self.sim(segments, tangents=self.free.names)
                parts.append(self._sums(images, measured) if sums else self._samples(images, measured))
        return Model(sum(m.F for m in parts), _total([m.g for m in parts]), _total([m.A for m in parts]))

    def _samples(self, images: WireImages, measured: WireImages) -> Model:
        ours, order = torch.sort(_keys(images))
        key, same = torch.sort(_keys(measured))
        value = measured.values.detach()[same].double()
        assert images.tangents is not None
        place = torch.searchsorted(key, ours).clamp_max(len(key) - 1)
        both = key[place] == ours
        r = (images.values[order].double() - torch.where(both, value[place], 0.0)) / self.sigma
        alone = torch.ones_like(key, dtype=torch.bool)
        alone[place[both]] = False
        rest = 0.5 * float(((value[alone] / self.sigma) ** 2).sum())
        return Model.of(r, images.tangents[:, order].double() / self.sigma, rest)

    def _sums(self, images: WireImages, measured: WireImages) -> Model:
        """Wires of the collection plane whose measured sum is above its noise; one that we lack counts with its sum."""
        ours, theirs = _WireSums.of(images), _WireSums.of(measured)
        theirs = theirs.select(theirs.Q > SURE * self.sigma * PULSE**0.5)
        if not len(theirs.key):
            return Model.of(torch.zeros(0).double(), torch.zeros(len(self.free.names), 0).double(), 0.0)
        place = torch.searchsorted(theirs.key, ours.key).clamp_max(len(theirs.key) - 1)
        both = (theirs.key[place] == ours.key) & (ours.Q > 0)
        place, ours = place[both], ours.select(both)
        sigma_Q, sigma_T = self.sigma * PULSE**0.5, self.sim.detector.tick / 12**0.5
        r = torch.cat(((ours.Q - theirs.Q[place]) / sigma_Q, (ours.T - theirs.T[place]) / sigma_T))
        assert ours.dQ is not None and ours.dT is not None
        alone = torch.ones_like(theirs.key, dtype=torch.bool)
        alone[place] = False
        rest = 0.5 * float(((theirs.Q[alone] / sigma_Q) ** 2).sum())
        return Model.of(r, torch.cat((ours.dQ / sigma_Q, ours.dT / sigma_T), 1), rest)

    def minimise(self, u: Tensor, most: int, tolerance: float) -> WireFit:
        tried, converged = 0, False
        path = [tuple(self.free.physical(u)[0].tolist())]
        for sums, goal in ((True, max(1e-3, tolerance)), (False, tolerance)):
            model, damping, converged = self.at(u, sums), 1e-3, False
            while tried < most and not converged:
                tried += 1
                p, slope = self.free.physical(u)
                gu, Au = model.g * slope, model.A * slope * slope[:, None]
                scale = Au.diagonal().clamp_min(1e-12 * float(Au.diagonal().max()) + 1e-300)
                step = -torch.linalg.solve(Au + damping * torch.diag(scale), gu)
                new = self.free.inside(u + step.clamp(-2.0, 2.0))
                trial = self.at(new, sums)
                small = self.free.relative(self.free.physical(new)[0] - p, p) < goal
                if trial.F <= model.F * (1 + 1e-12):
                    damping, u, model, converged = max(damping / 10, 1e-9), new, trial, small
                    path.append(tuple(self.free.physical(u)[0].tolist()))
                else:
                    damping *= 10
                    converged = small and damping > 1  # rounding is all that is left
        p, _ = self.free.physical(u)
        size = model.A.diagonal().clamp_min(1e-300).rsqrt()
        covariance = torch.linalg.pinv(model.A * size * size[:, None], hermitian=True) * size * size[:, None]
        return WireFit(self.free.names, p, covariance, model.F, tried, converged, tuple(path))


@dataclass(frozen=True)
class Model:
    """An objective with its gradient (K) and information (K, K), float64 on the CPU."""

    F: float
    g: Tensor
    A: Tensor

    @staticmethod
    def of(r: Tensor, J: Tensor, rest: float) -> Model:
        """Of residuals (n) with their Jacobian (K, n), and what has no partner."""
        return Model(
            0.5 * float((r * r).sum()) + rest, (J * r).sum(1).cpu(), torch.stack([(J * row).sum(1) for row in J]).cpu()
        )


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class _WireSums:
    """Sums over the samples of each wire of the collection plane, in rising order of (tpc, wire)."""

    key: Tensor  # int64 (W)
    Q: Tensor  # float64 (W)   [mV]
    T: Tensor  # float64 (W)   [us]
    dQ: Tensor | None  # (K, W)
    dT: Tensor | None

    @classmethod
    def of(cls, images: WireImages) -> _WireSums:
        row = images.row
        mine = images.plane[row] == len(images.detector.planes) - 1
        row = row[mine]
        key, number = torch.unique(images.tpc[row] * 2**16 + images.wire[row], return_inverse=True)
        t = images.tick_of[mine].double() * images.detector.tick
        V = images.values.detach()[mine].double()

        def add(x: Tensor) -> Tensor:
            return x.new_zeros(*x.shape[:-1], len(key)).index_add(-1, number, x)

        Q = add(V)
        T = add(V * t) / Q
        if images.tangents is None:
            return cls(key, Q, T, None, None)
        dV = images.tangents[:, mine].double()
        return cls(key, Q, T, add(dV), add(dV * (t - T[number])) / Q)

    def select(self, mask: Tensor) -> _WireSums:
        slopes = (None if x is None else x[:, mask] for x in (self.dQ, self.dT))
        return _WireSums(self.key[mask], self.Q[mask], self.T[mask], *slopes)


def _of_event(images: WireImages, event: int) -> WireImages:
    """The rows of one event."""
    rows = (images.event == event).nonzero()[:, 0]
    counts = (images.offsets[1:] - images.offsets[:-1])[rows]
    columns = {name: getattr(images, name)[rows] for name in ("event", "tpc", "plane", "wire", "first")}
    values = images.values.detach()[(images.event == event)[images.row]]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return WireImages(images.detector, offsets=offsets, values=values, **columns)


def _keys(images: WireImages) -> Tensor:
    """One number per sample: (tpc, plane, wire, tick)."""
    row = images.row
    wires = (images.tpc * len(images.detector.planes) + images.plane) * 2**16 + images.wire
    return wires[row] * 2**32 + images.tick_of + 2**31
