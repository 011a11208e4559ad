"""Poisson numbers with names: the same on every thread, in any order, for any chunk."""

import torch
from torch import Tensor
from torch.library import register_fake

from hepops.core.ops import call
from hepops.core.philox import _signed

# What the numbers are for: apart from each other and from those of the charge readout. An attempt of the rejection
# adds up to 64.
PHOTONS, CROSSTALK, AFTERPULSES, GAIN, PHASES, IONISATION = (0x4C000000 + 0x10000 * k for k in range(6))


def poisson(mean: Tensor, index: Tensor, seed: int, first: int = 0, purpose: int = PHOTONS) -> Tensor:
    """Poisson numbers of given means, float64 (rows, columns).

    A number is named by (seed, index of its row, first + column, purpose) and depends on its name and its mean alone.

    Args:
        mean: float64 (rows, columns).
        index: int64 (rows): the name of each row.
        seed: In [0, 2^64).
        first: The name of the first column, in [0, 2^32).
        purpose: What the numbers are for, in [0, 2^32).

    Raises:
        ValueError: a mean is negative or not finite, or a name is out of range.
    """
    if mean.device.type == "cpu" and not bool((torch.isfinite(mean) & (mean >= 0)).all()):
        bad = mean[~(torch.isfinite(mean) & (mean >= 0))][0]
        raise ValueError(f"poisson: means must be finite and >= 0, got {bad.item()}")
    result: Tensor = call(torch.ops.hepops._light_poisson, mean, index, _signed(seed), first, purpose)
    return result


@register_fake("hepops::_light_poisson")
def _(mean: Tensor, index: Tensor, seed: int, first: int, purpose: int) -> Tensor:
    return mean.new_empty(mean.shape)
