"""Images of a wire detector: what the ADC samples on each wire, before and after digitising."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .detector import WireDetector
from .electronics import FEMTOCOULOMB


@dataclass(frozen=True)
class WireImages:
    """Sampled voltages of the wires that saw a current, wire by wire: a sparse image, `dense` makes the 2-D map.

    Rows are sorted by (plane, event, tpc, wire). Row i has the samples ``values[offsets[i]:offsets[i + 1]]``, taken at
    first[i] tick, (first[i] + 1) tick ..., reckoned from time 0 of the event.
    """

    detector: WireDetector
    event: Tensor  # int64 (num_rows)
    tpc: Tensor  # int64 (num_rows)
    plane: Tensor  # int64 (num_rows)
    wire: Tensor  # int64 (num_rows)
    first: Tensor  # int64 (num_rows)        ADC tick
    offsets: Tensor  # int64 (num_rows + 1)
    values: Tensor  # (total)                [mV]
    tangents: Tensor | None = None  # (num_tangents, total)   [mV per unit of the parameter]
    tangent_names: tuple[str, ...] = ()
    reports: dict[str, Any] = field(default_factory=dict)  # electrons lost beside a plane, segments outside ...

    def __len__(self) -> int:
        return self.event.shape[0]

    @property
    def row(self) -> Tensor:
        """The row of every value, int64 (total)."""
        counts = self.offsets[1:] - self.offsets[:-1]
        return torch.repeat_interleave(counts, output_size=self.values.shape[0])

    @property
    def tick_of(self) -> Tensor:
        """The ADC tick of every value, int64 (total)."""
        row = self.row
        return torch.arange(len(row), device=row.device) - self.offsets[row] + self.first[row]

    def dense(
        self, event: int, tpc: int = 0, plane: int | str = 0, ticks: tuple[int, int] | None = None
    ) -> tuple[Tensor, int]:
        """One plane's image, (wires, ticks) [mV], and the tick with which it begins; differentiable.

        Args:
            event, tpc: Which.
            plane: Its number or name.
            ticks: First and last + 1; by default all in use. What lies outside is left out.

        Raises:
            ValueError: no such plane.
        """
        number = self.number(plane)
        mine = (self.event == event) & (self.tpc == tpc) & (self.plane == number)
        chosen = mine[self.row].nonzero()[:, 0]
        at, wire, value = self.tick_of[chosen], self.wire[self.row[chosen]], self.values[chosen]
        if ticks is None:
            ticks = (int(at.min()), int(at.max()) + 1) if len(at) else (0, 0)
        inside = (at >= ticks[0]) & (at < ticks[1])
        image = self.values.new_zeros(self.detector.num_wires(number, tpc), ticks[1] - ticks[0])
        return image.index_put((wire[inside], at[inside] - ticks[0]), value[inside]), ticks[0]

    def number(self, plane: int | str) -> int:
        """The number of a plane."""
        names = [p.name for p in self.detector.planes]
        if plane in names:
            return names.index(str(plane))
        if isinstance(plane, int) and 0 <= plane < len(names):
            return plane
        raise ValueError(f"plane must be one of {names}, got {plane!r}")

    def adc(
        self,
        event: int,
        tpc: int = 0,
        plane: int | str = 0,
        ticks: tuple[int, int] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """The digitised image, int64 (wires, ticks) [ADC counts]; with a seed its noise is added.

        The noise is white and depends on (seed, event, tpc, plane) and the window. Not differentiable.
        """
        image, _ = self.dense(event, tpc, plane, ticks)
        image = image.detach().double().cpu()
        number, chip = self.number(plane), self.detector.frontend
        if seed is not None:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, event, tpc, number])))
            noise = torch.from_numpy(rng.standard_normal(tuple(image.shape)))
            image = image + chip.noise * chip.gain * FEMTOCOULOMB * noise
        kind = self.detector.planes[number].kind
        pedestal = chip.pedestal_collection if kind == "collection" else chip.pedestal_induction
        top = (1 << chip.adc_bits) - 1
        return (image * ((top + 1) / chip.adc_range) + pedestal).round().clamp(0, top).long()
