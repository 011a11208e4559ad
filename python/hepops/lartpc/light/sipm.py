r"""From expected photons to the charge of avalanches: Poisson numbers, crosstalk, afterpulses, the spread of the gain.

Every number is named by (seed, event, channel, tick) and what it is for. With photons of mean mu, prompt crosstalk in
which each avalanche starts Poisson(lambda) more, and so on, the number of avalanches is a generalised Poisson (Borel)
one, and their charge a sum of normal peaks, the single-photon spectrum:

    P(n) = mu (mu + n lambda)^{n-1} e^{-mu - n lambda} / n!,   p(q) = sum_n P(n) N(q; n, noise^2 + n spread^2)

S. Vinogradov, Nucl. Instrum. Meth. A 695 (2012) 247.
"""

import math
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from hepops.core import philox_normal

from .._model import Record
from .impulse import convolve
from .poisson import AFTERPULSES, CROSSTALK, GAIN, poisson


class SiPM(Record):
    """What a SiPM adds to the light; by default nothing.

    Example:
        >>> sipm = SiPM(crosstalk=0.2)
        >>> sipm.excess
        1.25
    """

    gain_spread: NonNegativeFloat = 0.0  # of one avalanche's charge, relative [1]
    crosstalk: Annotated[float, Field(ge=0, lt=1)] = 0.0  # avalanches that an avalanche starts at once, on average
    afterpulses: Annotated[float, Field(ge=0, lt=1)] = 0.0  # that an avalanche starts later, on average
    afterpulse_time: PositiveFloat = 0.1  # their mean delay [us]
    dark_rate: NonNegativeFloat = 0.0  # [1/us]

    @property
    def excess(self) -> float:
        """Avalanches for each photoelectron, on average."""
        return (1 + self.afterpulses / (1 - self.crosstalk)) / (1 - self.crosstalk)

    def expected(self, photons: Tensor, tick: float) -> Tensor:
        """Mean charge (rows, ticks) of expected photoelectrons [photoelectrons]; linear, differentiable."""
        mean = (photons + self.dark_rate * tick) / (1 - self.crosstalk)
        if self.afterpulses == 0:
            return mean
        return mean + convolve(mean, self._delays(mean.shape[-1], tick).to(mean)) / (1 - self.crosstalk)

    def sample(self, photons: Tensor, tick: float, index: Tensor, seed: int) -> Tensor:
        """Charge on each tick, float64 (rows, ticks) [photoelectrons].

        Args:
            photons: Expected photoelectrons, float64 (rows, ticks).
            tick: Length of a tick [us].
            index: The rows' names, int64 (rows).
            seed: In [0, 2^64).

        Afterpulses of afterpulses are left out; crosstalk of both is in.
        """
        avalanches = self._chain(poisson(photons.detach() + self.dark_rate * tick, index, seed), index, seed, 0)
        if self.afterpulses > 0:
            later = convolve(avalanches, self._delays(photons.shape[-1], tick).to(avalanches)).clamp(min=0)
            later = torch.where(later < 1e-12, 0.0, later)  # rounding of the transform, where there is no light
            extra = poisson(later, index, seed, 0, AFTERPULSES)
            avalanches = avalanches + self._chain(extra, index, seed, 0x8000)
        if self.gain_spread == 0:
            return avalanches
        lit = torch.nonzero(avalanches > 0)
        count = avalanches[lit[:, 0], lit[:, 1]]
        name = index[lit[:, 0]] * (1 << 24) + lit[:, 1]
        normal = philox_normal(name, seed, 0, GAIN, dtype=torch.float64)[:, 0]
        charge = avalanches.clone()
        charge[lit[:, 0], lit[:, 1]] = count + self.gain_spread * count.sqrt() * normal
        return charge

    def _chain(self, started: Tensor, index: Tensor, seed: int, purpose: int) -> Tensor:
        """Avalanches with those that they start at once, generation after generation until one is empty."""
        total, generation = started, started
        for k in range(500 if self.crosstalk > 0 else 0):
            if not bool((generation > 0).any()):
                break
            generation = poisson(self.crosstalk * generation, index, seed, 0, CROSSTALK + purpose + 0x40 * k)
            total = total + generation
        return total

    def _delays(self, ticks: int, tick: float) -> Tensor:
        """Afterpulses on each tick, per avalanche at the middle of the first."""
        edges = ((torch.arange(ticks + 1, dtype=torch.float64) - 0.5) * tick).clamp(min=0)
        return self.afterpulses * (-torch.expm1(-edges / self.afterpulse_time)).diff()


def photon_spectrum(
    charge: Tensor, photons: float, gain_spread: float = 0.0, noise: float = 0.05, crosstalk: float = 0.0
) -> Tensor:
    """Density of the charge of a flash, the single-photon spectrum p(q) above.

    Args:
        charge: Where, any shape [photoelectrons].
        photons: Mean number of photoelectrons, mu.
        gain_spread: Of one avalanche [1].
        noise: Of the charge's measurement [photoelectrons].
        crosstalk: Avalanches that each starts at once, on average, lambda.

    Returns:
        float64, the shape of `charge`; its integral is 1.

    Raises:
        ValueError: a negative mean, no noise, or a crosstalk outside [0, 1).
    """
    if not photons >= 0:
        raise ValueError(f"photon_spectrum: photons must be >= 0, got {photons}")
    if not noise > 0:
        raise ValueError(f"photon_spectrum: noise must be positive (a peak at 0 needs a width), got {noise}")
    if not 0 <= crosstalk < 1:
        raise ValueError(f"photon_spectrum: crosstalk must be in [0, 1), got {crosstalk}")
    mean, sigma = photons / (1 - crosstalk), math.sqrt(photons / (1 - crosstalk) ** 3)
    density = torch.zeros_like(charge, dtype=torch.float64)
    for n in range(int(mean + 12 * sigma + 30)):
        weight = number_probability(n, photons, crosstalk)
        variance = noise**2 + n * gain_spread**2
        density = density + weight / math.sqrt(2 * math.pi * variance) * torch.exp(
            -((charge - n) ** 2) / (2 * variance)
        )
    return density


def number_probability(n: int, photons: float, crosstalk: float = 0.0) -> float:
    """P(n) above, the generalised Poisson probability of n avalanches."""
    if n == 0 or photons == 0:
        return math.exp(-photons) if n == 0 else 0.0
    rate = photons + n * crosstalk
    return math.exp(math.log(photons) + (n - 1) * math.log(rate) - rate - math.lgamma(n + 1))
