"""What the readout makes of the hits that residuals compare: its thresholds, and the pixels of which it says nothing.

A residual object may name the chip (`hepops.lartpc.likelihood.Chip`) that measured: then hits are simulated with the
chip's thresholds, pixel by pixel, and masked pixels (dead and noisy ones) are left out on both sides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .chips import Chips
from .residuals import MatchedHits, PixelSums

if TYPE_CHECKING:
    from hepops.lartpc.detector import Detector
    from hepops.lartpc.hits import Hits
    from hepops.lartpc.likelihood import Chip


def chip_of(objective: Any) -> Chip | None:
    """The chip that an objective names."""
    chip: Chip | None = getattr(objective, "chip", None)
    return chip


def with_chip(objective: Any, chip: Chip | None) -> Any:
    """A residual object that names none, with this one."""
    mine = isinstance(objective, PixelSums | MatchedHits) and objective.chip is None
    return dataclasses.replace(objective, chip=chip) if mine else objective


def with_values(objective: Any, values: Mapping[str, float]) -> Any:
    """A residual object whose chip, if it names one, has other values."""
    chip = chip_of(objective)
    return objective if chip is None else dataclasses.replace(objective, chip=_moved(chip, values))


def _moved(chip: Chip, values: Mapping[str, float]) -> Chip:
    """As `Chips.with_values`: one number moves the mean of pixels that differ."""
    from hepops.lartpc.likelihood import HitLikelihood

    moved: Chip = Chips(HitLikelihood(chip)).with_values(dict(values)).chip
    return moved


def thresholds(objective: Any, names: Sequence[str], p: Tensor) -> dict[str, float | Tensor]:
    """The argument `threshold` of a simulator, at physical values `p`; nothing where no chip is named."""
    chip = chip_of(objective)
    if chip is None:
        return {}
    if "threshold" in names:
        chip = _moved(chip, {"threshold": float(p[list(names).index("threshold")])})
    return {"threshold": chip.threshold}


def seen(objective: Any, detector: Detector, hits: Hits) -> Hits:
    """The hits on pixels that are not masked."""
    chip = chip_of(objective)
    if chip is None or chip.masked is None or not len(hits):
        return hits
    hidden = chip.hidden(detector.pixel_id(hits.tpc, hits.ix, hits.iy))
    return hits[~hidden] if bool(hidden.any()) else hits
