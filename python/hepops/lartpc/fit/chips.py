"""The likelihood of measured hits (`hepops.lartpc.likelihood`) as fits ask for it: with the chip's present values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .residuals import Likelihood

if TYPE_CHECKING:
    from hepops.lartpc.detector import Detector
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.likelihood import HitLikelihood, Intervals
    from hepops.lartpc.segments import Segments
    from hepops.lartpc.simulator import Simulator
    from hepops.lartpc.waveforms import Waveforms


@dataclass(frozen=True)
class Chips:
    """A `HitLikelihood` whose chip is known, as a `LikelihoodObject` with parameters of its own."""

    hits: HitLikelihood
    kept: list[tuple[Segments, object, Waveforms]] | None = None  # waveforms of the present point

    def keeping(self) -> Chips:
        """The same, which keeps the waveforms while segments and simulator stay what they are."""
        return dataclasses.replace(self, kept=[])

    @property
    def own(self) -> dict[str, float]:
        """The chip's values by name, means where pixels differ."""
        chip: Any = self.hits.chip
        return {n: float(torch.as_tensor(v, dtype=torch.float64).mean()) for n, v in chip.values().items()}

    @property
    def chip(self) -> Any:
        """The chip, as toys are to simulate it."""
        return self.hits.chip

    def with_values(self, values: dict[str, float | Tensor]) -> Chips:
        """The chip at other values. Where pixels differ already, one number moves their mean and keeps the ratios."""
        chip: Any = self.hits.chip
        changed: dict[str, Any] = {}
        for name, value in values.items():
            before = torch.as_tensor(getattr(chip, name), dtype=torch.float64)
            many = before.numel() > 1
            if many and isinstance(value, Tensor):
                value = before / before.mean() * value
            changed[name] = before * (float(value) / float(before.mean())) if many and _plain(value) else value
        return dataclasses.replace(self, hits=self.hits.at(**changed))

    def likelihood(
        self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...], derivatives: bool
    ) -> Likelihood:
        """-log L with the scores of every interval."""
        found = self._intervals(sim, segments, measured, parameters if derivatives else ())
        sums = found.to_likelihood(len(parameters))
        place = (found.event, found.tpc, found.ix, found.iy, -found.log_probability)
        return Likelihood(sums.value, sums.score, sums.information, dict(sums.report), found.scores, *place)

    def _intervals(self, sim: Simulator, segments: Segments, measured: Hits, parameters: tuple[str, ...]) -> Intervals:
        if self.kept is None:
            return self.hits.intervals(sim, segments, measured, parameters)
        physical = tuple(name for name in parameters if name not in self.own)
        now = (tuple(p.item() for p in sim.parameters()), physical)  # those of every module
        here = [waves for known, values, waves in self.kept if known is segments and values == now]
        if not here:
            with torch.no_grad():
                here = [sim.waveforms(segments, tangents=physical)]
            self.kept[:] = [entry for entry in self.kept if entry[1] == now]
            self.kept.append((segments, now, here[0]))
        return self.hits.of_waveforms(here[0], sim.detector, measured, parameters)


def _plain(value: float | Tensor) -> bool:
    return not isinstance(value, Tensor) or value.numel() == 1


def of_chips(objective: Any, detector: Detector) -> Any:
    """Any objective; a `HitLikelihood` with its chip, and what a fit asks of it."""
    from hepops.lartpc.likelihood import Chip, HitLikelihood

    if not isinstance(objective, HitLikelihood):
        return objective
    if objective.chip is None:
        objective = dataclasses.replace(objective, chip=Chip.of(detector))
    return Chips(objective)
