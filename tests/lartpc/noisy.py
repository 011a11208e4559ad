"""The analytic detector with Gaussian noise, and the exact likelihood of its hits: cheap, and exact errors to compare.

A hit is there or not by the noise-free charge alone; charge and time are smeared. Each hit is an interval.
"""

import copy
import dataclasses

import torch
from hepops.lartpc import Segments
from hepops.lartpc.fit import Likelihood
from hepops.lartpc.fit.residuals import _common, _hit_keys
from hepops.lartpc.fit.space import TIME_OFFSET

from lartpc.analytic import AnalyticDetector

CHARGE, TIME = 900.0, 0.08


class NoisyDetector(AnalyticDetector):
    """Its threshold is so low that no hit comes or goes: the likelihood of what is there is smooth."""

    def __init__(self, parameters=None):
        super().__init__(parameters, threshold=1.0)

    def forward(self, segments: Segments, seed=None, tangents=()):
        hits = super().forward(segments, None, tangents)
        if seed is None:
            return hits
        noise = torch.randn((2, len(hits)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        charge, time = hits.charge.detach() + CHARGE * noise[0], hits.time.detach() + TIME * noise[1]
        return dataclasses.replace(hits, charge=charge, time=time)


class ExactLikelihood:
    """Of a NoisyDetector, whose hits are all there."""

    def __init__(self, gain: float = 1.0, noise: float = CHARGE):
        self.own = {"gain": gain, "reset_noise": noise}

    def with_values(self, values):
        other = copy.copy(self)
        other.own = {**self.own, **values}
        return other

    def likelihood(self, sim, segments, measured, parameters, derivatives):
        physical = tuple(n for n in parameters if n != TIME_OFFSET and n not in self.own) if derivatives else ()
        with torch.no_grad():
            hits = sim(segments, tangents=physical)
        i, j = _common(*_hit_keys(hits, measured))
        charge, time = hits.charge.detach()[i], hits.time.detach()[i]
        gain = torch.as_tensor(self.own["gain"], dtype=torch.float64)
        if gain.numel() > 1:
            gain = gain[sim.detector.pixel_id(hits.tpc, hits.ix, hits.iy)[i]]
        sigma = self.own["reset_noise"]
        a, b = (measured.charge[j] - gain * charge) / sigma, (measured.time[j] - time) / TIME
        values = (a * a + b * b) / 2 + torch.log(torch.tensor(sigma, dtype=torch.float64))
        scores = torch.zeros((len(i), len(parameters)), dtype=torch.float64)
        for k, name in enumerate(parameters if derivatives else ()):
            if name == TIME_OFFSET:
                scores[:, k] = b / TIME
            elif name == "gain":
                scores[:, k] = a * charge / sigma
            elif name == "reset_noise":
                scores[:, k] = (a * a - 1) / sigma
            else:
                dq, dt = (t[physical.index(name), i] for t in (hits.charge_tangents, hits.time_tangents))
                scores[:, k] = a * gain * dq / sigma + b * dt / TIME
        place = (hits.event[i], hits.tpc[i], hits.ix[i], hits.iy[i])
        report = {"matched": len(i)}
        return Likelihood(values.sum(), -scores.sum(0), scores.T @ scores, report, scores, *place, values)
