r"""Hits of other parameters from one run with tangents, and how far they can be trusted.

.. math:: t(\theta) = t_0 + \sum_k \frac{\partial t}{\partial\theta_k} \delta_k, \qquad
          q(\theta) = q_0 + \sum_k \frac{\partial q}{\partial\theta_k} \delta_k, \qquad
          r = \tfrac12 \sum_k \frac{|J_k(\theta_0 + s_k e_k) - J_k(\theta_0)|}{s_k} \delta_k^2

The remainder r comes from one more run with tangents for every parameter, at one of its sigmas s_k; mixed second
derivatives are not in it. Hits that appear cannot be predicted at all: their number is taken as that of the hits that
fall below threshold, which is right for changes of either sign alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..hits import Hits
from ..parameters import Parameters
from ..segments import Segments

if TYPE_CHECKING:
    from ..simulator import Simulator


FURTHEST = 5.0  # sigmas: beyond, the curvature at one sigma says little, as higher orders take over


@dataclass(frozen=True)
class Validity:
    """Of each universe, float64 (n); fractions of the hits of the run that was made."""

    lost: Tensor  # hits whose predicted charge is below threshold
    crossing: Tensor  # hits that move to another tick of the clock
    time_remainder: Tensor  # root mean square of r [us]; NaN where no sigmas were given
    charge_remainder: Tensor  # the same, as a share of the charge
    unmatched: Tensor  # hits of the runs at one sigma, and of the run itself, without a partner: the most of all runs
    good: Tensor  # bool: lost, unmatched and both remainders within the tolerances, no change beyond FURTHEST sigmas


class Linear:
    """Linear response of the hits to the parameters.

    Args:
        sim: At the parameters to start from.
        segments: Of any number of events.
        sigma: name -> a typical change: which parameters vary, and the distance of the runs for the remainder.
        threshold: As for the simulator.
        charge_tolerance, time_tolerance, lost_tolerance: Largest remainder, as a share of the charge and in us, and
            largest share of lost or unmatched hits, of a universe that is called good.

    Raises:
        ValueError: an unknown name, no name, or a sigma that is not positive or leads out of what the laws allow.
    """

    def __init__(
        self,
        sim: "Simulator",
        segments: Segments,
        sigma: Mapping[str, float],
        *,
        threshold: float | Tensor | None = None,
        charge_tolerance: float = 0.01,
        time_tolerance: float = 0.05,
        lost_tolerance: float = 0.01,
    ) -> None:
        if not sigma:
            raise ValueError("Linear: sigma names no parameter")
        for name, s in sigma.items():
            Parameters.spec(name)
            if not s > 0:
                raise ValueError(f"Linear: sigma of {name} must be positive, got {s}")
        self.names, self.nominal = tuple(sigma), sim.parameters_now
        self.tick, self.tolerances = sim.detector.tick, (charge_tolerance, time_tolerance, lost_tolerance)
        base = self.nominal.to_dict()
        sets = [Parameters(**{**base, name: base[name] + s}) for name, s in sigma.items()]
        runs = list(sim.universes([self.nominal, *sets], segments, tangents=self.names, threshold=threshold))
        self.hits = runs[0]
        bar = sim.detector.frontend.threshold if threshold is None else threshold
        if isinstance(bar, Tensor) and bar.numel() > 1:
            h = self.hits
            bar = bar[sim.detector.pixel_id(h.tpc, h.ix, h.iy)]
        self.threshold = torch.as_tensor(bar, dtype=torch.float64)
        self.furthest = FURTHEST * torch.tensor([sigma[name] for name in self.names], dtype=torch.float64)
        self.curvature, self.unmatched = self._curvature(runs, [sigma[name] for name in self.names])

    def _curvature(self, runs: Sequence[Hits], sigma: Sequence[float]) -> tuple[Tensor, float]:
        """Second derivatives (2, K, num_hits) of time and charge along each parameter; where a hit is lost, 0."""
        start = runs[0]
        result = torch.zeros(2, len(self.names), len(start), dtype=torch.float64)
        worst = 0.0
        for k, (run, s) in enumerate(zip(runs[1:], sigma, strict=True)):
            mine, theirs = _match(start, run)
            for m, (after, before) in enumerate(zip(_tangents(run), _tangents(start), strict=True)):
                result[m, k, mine] = (after[k, theirs] - before[k, mine]) / s
            worst = max(worst, 1 - len(mine) / max(len(start), len(run), 1))
        return result, worst

    def _changes(self, parameters: Mapping[str, Any] | Sequence[Parameters]) -> Tensor:
        """(n, K)"""
        if isinstance(parameters, Mapping):
            unknown = [name for name, v in parameters.items() if name not in self.names and self._varies(name, v)]
            columns = {name: torch.as_tensor(v, dtype=torch.float64) for name, v in parameters.items()}
        else:
            dicts = [p.to_dict() for p in parameters]
            columns = {name: torch.tensor([d[name] for d in dicts], dtype=torch.float64) for name in Parameters.SPEC}
            unknown = [name for name, v in columns.items() if name not in self.names and self._varies(name, v)]
        if unknown:
            raise ValueError(f"Linear: {unknown[0]} varies, but there is no tangent for it; there are {self.names}")
        n = len(next(iter(columns.values())))
        zero = torch.zeros(n, dtype=torch.float64)
        changes = [columns[m] - getattr(self.nominal, m) if m in columns else zero for m in self.names]
        return torch.stack(changes, 1)

    def _varies(self, name: str, values: Any) -> bool:
        Parameters.spec(name)
        return bool((torch.as_tensor(values, dtype=torch.float64) != getattr(self.nominal, name)).any())

    def predict(self, parameters: Mapping[str, Any] | Sequence[Parameters]) -> list[Hits]:
        """The hits of every universe: times and charges moved; those below threshold are left out."""
        time, charge = _tangents(self.hits)
        result = []
        for d in self._changes(parameters):
            t, q = self.hits.time + d @ time, self.hits.charge.double() + d @ charge
            moved = replace(self.hits, time=t, charge=q.to(self.hits.charge.dtype))
            result.append(moved[q >= self.threshold])
        return result

    def validity(self, parameters: Mapping[str, Any] | Sequence[Parameters]) -> Validity:
        """How far the prediction of every universe can be trusted."""
        time, charge = _tangents(self.hits)
        d = self._changes(parameters)
        before = self.hits.time
        q = self.hits.charge.double() + d @ charge
        ticks = torch.floor((before + d @ time) / self.tick) != torch.floor(before / self.tick)
        rest_t, rest_q = (0.5 * (d * d) @ c.abs() for c in self.curvature)
        rms_t, rms_q = rest_t.pow(2).mean(1).sqrt(), (rest_q / self.hits.charge.double()).pow(2).mean(1).sqrt()
        lost = (q < self.threshold).double().mean(1)
        unmatched = torch.full_like(lost, self.unmatched)
        of_charge, of_time, of_lost = self.tolerances
        good = (rms_q <= of_charge) & (rms_t <= of_time) & (lost <= of_lost) & (unmatched <= of_lost)
        good &= (d.abs() <= self.furthest).all(1)
        return Validity(lost, ticks.double().mean(1), rms_t, rms_q, unmatched, good)

    def compare(self, universes: Sequence[Hits], parameters: Mapping[str, Any] | Sequence[Parameters]) -> Tensor:
        """Against simulated universes, (n, 4): share that disappears, that appears, rms of time [us] and charge."""
        rows = []
        for true, guess in zip(universes, self.predict(parameters), strict=True):
            mine, theirs = _match(guess, true)
            n, m = max(len(guess), 1), max(len(true), 1)
            dt = guess.time[mine] - true.time[theirs]
            dq = guess.charge[mine].double() / true.charge[theirs].double() - 1
            rms = [float(x.double().pow(2).mean().sqrt()) if len(x) else 0.0 for x in (dt, dq)]
            rows.append([1 - len(mine) / n, 1 - len(mine) / m, *rms])
        return torch.tensor(rows, dtype=torch.float64)


def _tangents(hits: Hits) -> tuple[Tensor, Tensor]:
    assert hits.time_tangents is not None and hits.charge_tangents is not None
    return hits.time_tangents.double(), hits.charge_tangents.double()


def _match(a: Hits, b: Hits) -> tuple[Tensor, Tensor]:
    """Rows of a and of b with the same pixel and rank."""
    keys = torch.cat([torch.stack((h.event, h.tpc, h.iy, h.ix, h.rank), 1) for h in (a, b)])
    _, of = torch.unique(keys, dim=0, return_inverse=True)
    table = torch.full((int(of.max()) + 1 if len(of) else 1,), -1, dtype=torch.int64, device=of.device)
    table[of[len(a) :]] = torch.arange(len(b), device=of.device)
    partner = table[of[: len(a)]]
    mine = (partner >= 0).nonzero()[:, 0]
    return mine, partner[mine]
