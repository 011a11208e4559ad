r"""What a calorimetric fit compares: any function of (simulator, segments) that returns -log L with a graph.

`PixelCharges` is also the data of `marginal.fit_charges`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..fit.residuals import Noise, PixelSums, Residual
from ..hits import Hits
from ..likelihood import Chip, hit_likelihood, match
from ..likelihood.chip import NOISE
from ..segments import Segments
from ..simulator import Simulator
from ..waveforms import Waveforms

Objective = Callable[[Simulator, Segments], Tensor]


@dataclass(frozen=True)
class PixelCharges:
    r"""Charges of pixels with Gaussian errors: :math:`-\ln L = \frac12\sum_p (Q_p - \hat Q_p)^2/\sigma_p^2`.

    :math:`Q_p` is the integral of the simulated current. It is what an integrating readout measures; sums of a
    self-triggered chip's hits miss what its resets and its threshold swallow.

    Args:
        event, tpc, ix, iy: Of every pixel, int64 (num_pixels), no pixel twice.
        charge: float64 (num_pixels) [e].
        sigma: float64 (num_pixels), positive [e].

    Pixels that are simulated and not measured do not count; those that are measured and not simulated are counted with
    Q = 0. Differentiable once, deterministic.

    Raises:
        ValueError: a shape that does not fit, a sigma that is not positive, a pixel twice.
    """

    event: Tensor
    tpc: Tensor
    ix: Tensor
    iy: Tensor
    charge: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        for name, column in vars(self).items():
            if tuple(column.shape) != tuple(self.event.shape):
                raise ValueError(f"PixelCharges: {name} must have shape {tuple(self.event.shape)}")
        if not bool((self.sigma > 0).all()):
            raise ValueError("PixelCharges: sigma must be positive")
        key = _keys(self)
        if len(torch.unique(key)) < len(key):
            raise ValueError("PixelCharges: a pixel is there twice")

    @classmethod
    def measure(cls, sim: Simulator, segments: Segments, sigma: float, seed: int) -> "PixelCharges":
        """What this detector would measure with noise of `sigma` [e] on every pixel in reach."""
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be positive and finite [e], got {sigma}")
        with torch.no_grad():
            waves = sim.waveforms(segments)
        key, slot = torch.unique(_keys(waves), return_inverse=True)
        charge = torch.zeros(len(key), dtype=torch.float64).index_add(0, slot, waves.charge.double())
        noise = torch.randn(len(key), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        first = torch.full_like(key, len(slot)).scatter_reduce(0, slot, torch.arange(len(slot)), "amin")
        columns = (waves.event[first], waves.tpc[first], waves.ix[first], waves.iy[first])
        return cls(*columns, charge + sigma * noise, torch.full_like(charge, sigma))

    def __call__(self, sim: Simulator, segments: Segments) -> Tensor:
        waves = sim.waveforms(segments)
        place, found = self.place(waves)
        Q = torch.zeros(len(self.charge), dtype=torch.float64).index_add(0, place[found], waves.charge.double()[found])
        return (((Q - self.charge) / self.sigma) ** 2).sum() / 2

    def place(self, waves: Waveforms) -> tuple[Tensor, Tensor]:
        """Which measured pixel each row belongs to, and whether there is one."""
        key, order = torch.sort(_keys(self))
        wanted = _keys(waves)
        at = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        return order[at], key[at] == wanted


@dataclass(frozen=True)
class HitResiduals:
    """Noise-free hits compared by one of the residual objects of `hepops.lartpc.fit`; for hits without noise.

    Its second derivatives hold as far as the set of hits stays; a likelihood has no such seams. `smooth` is False: what
    looks for a maximum must cross them.

    Args:
        measured: Hits.
        residual: `PixelSums` or `MatchedHits`; None: `PixelSums` with the noise of the simulator's detector.
    """

    measured: Hits
    residual: Residual | None = None
    smooth: ClassVar[bool] = False

    def __call__(self, sim: Simulator, segments: Segments) -> Tensor:
        residual = self.residual or PixelSums(Noise.of(sim.detector))
        r = residual(sim(segments), self.measured)
        scale = torch.full((2,), residual.robust.floor, dtype=torch.float64)
        price = r.missing / 2 * residual.robust.missing(scale).sum()
        return residual.robust.rho(r.values, scale[r.kind]).sum() + price


@dataclass(frozen=True)
class HitObjective:
    """The exact likelihood of measured hits (`likelihood`) as a function with a graph: of self-triggered, noisy data.

    The value is that of `HitLikelihood` at the same tolerance, hits left over included.

    Args:
        measured: Hits of the clocked chip.
        chip: None: what the simulator's detector states.
        tolerance: As of `HitLikelihood`.

    Differentiable once, in the currents. Deterministic.
    """

    measured: Hits
    chip: Chip | None = None
    tolerance: float = 1e-4

    def __call__(self, sim: Simulator, segments: Segments) -> Tensor:
        chip = Chip.of(sim.detector) if self.chip is None else self.chip
        waves, hits = sim.waveforms(segments), self.measured
        with torch.no_grad():
            found = match(waves, hits, chip.clock)
            pixel = sim.detector.pixel_id(waves.tpc, waves.ix, waves.iy)
            row = torch.repeat_interleave(found.first[1:] - found.first[:-1])
            edges, _, _ = chip.edges(hits.adc[found.hit], hits.charge[found.hit], pixel[row])
            noise = torch.stack([chip.at(name, pixel).expand(len(pixel)) for name in NOISE], 1)
        out = hit_likelihood(
            waves.values,
            waves.offsets,
            found.tick,
            found.first,
            edges,
            chip.at("threshold", pixel),
            noise,
            chip.clock,
            self.tolerance,
        )
        foreign, silence = chip.foreign_probability(), chip.silence
        floor = torch.full_like(out.log_probability, math.log(silence) if silence > 0 else -math.inf)
        left = len(hits) - len(found.hit)
        price = math.log(foreign) if foreign > 0 else -math.inf
        floor[torch.arange(len(found.hit)) + row] = price
        total = torch.logaddexp(out.log_probability, floor).sum()
        return -total - (left * price if left else 0.0)


def _keys(rows: "Waveforms | PixelCharges") -> Tensor:
    """One number for (event, tpc, iy, ix); pixels per side below 2^14, TPCs below 2^10."""
    if len(rows.event) and int(rows.event.max()) >= 2**25:
        raise ValueError(f"event: numbers must be below 2^25 here, got {int(rows.event.max())}")
    return ((rows.event * 1024 + rows.tpc) * 16384 + rows.iy) * 16384 + rows.ix
