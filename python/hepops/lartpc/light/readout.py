"""Trigger and digitiser of the light readout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .properties import ADC_BITS, LightProperties


@dataclass(frozen=True)
class LightReadout:
    """Digitised windows of all channels of a module, one per trigger; sorted by event, module and time."""

    event: Tensor  # int64 (triggers)
    module: Tensor  # int64 (triggers)
    time: Tensor  # float64 (triggers) of the trigger [us]
    channel: Tensor  # int64 (triggers, channels)
    codes: Tensor  # int64 (triggers, channels, samples): counts of the digitiser, signed
    lsb: int  # size of a count [ADC]
    sample_spacing: float  # [us]
    before: float  # the first sample begins so long before the trigger [us]
    reports: dict[str, Any]

    def __len__(self) -> int:
        return self.event.shape[0]

    @property
    def adc(self) -> Tensor:
        """The codes on the scale of 16 bits [ADC]."""
        return self.codes * self.lsb

    def write(self, path: str | Path) -> None:
        """As larnd-sim's HDF5 (light_trig, light_wvfm), with what it lacks beside it; see `files.write_readout`."""
        from .files import write_readout

        write_readout(self, path)

    @classmethod
    def read(cls, path: str | Path, properties: "LightProperties | None" = None) -> "LightReadout":
        """What `write` wrote, or larnd-sim's own file; see `files.read_readout`."""
        from .files import read_readout

        return read_readout(path, properties)

    def sample_time(self) -> Tensor:
        """Middles of the samples, float64 (triggers, samples) [us]."""
        every = torch.arange(self.codes.shape[2], device=self.time.device) + 0.5
        return self.time[:, None] - self.before + every.double() * self.sample_spacing


def sample_means(values: Tensor, factor: int) -> Tensor:
    """Means over successive `factor` ticks, (..., ticks // factor); what remains at the end is left out."""
    samples = values.shape[-1] // factor
    return values[..., : samples * factor].reshape(*values.shape[:-1], samples, factor).mean(-1)


def digitise(values: Tensor, properties: LightProperties) -> Tensor:
    """Signed counts, int64: round((value + baseline) / lsb), saturating at the ends of the range."""
    half = 1 << (properties.bits - 1)
    codes = torch.round((values.detach() + properties.baseline) / properties.lsb)
    return codes.clamp(-half, half - 1).long()


def saturated(codes: Tensor, properties: LightProperties) -> Tensor:
    """Where counts lie at an end of the range."""
    half = 1 << (properties.bits - 1)
    return (codes == -half) | (codes == half - 1)


def sums_beyond(signal: Tensor, threshold: Tensor, per_sum: int) -> Tensor:
    """Whether sums of successive channels lie beyond their thresholds.

    Args:
        signal: (channels, samples) [ADC].
        threshold: (channels / per_sum) [ADC]; a negative one is passed downwards.
        per_sum: Channels of a sum.

    Returns:
        bool (sums, samples).
    """
    sums = signal.reshape(len(threshold), per_sum, -1).sum(1)
    sign = torch.where(threshold < 0, -1.0, 1.0).to(sums)[:, None]
    return sums * sign > threshold.abs()[:, None]


def coincidence(beyond: Tensor, least: int, window: int) -> Tensor:
    """Samples at which at least `least` sums were beyond their thresholds now or in the `window` samples before.

    Args:
        beyond: bool (sums, samples).
        least: Sums that must agree.
        window: How long a sum is remembered [samples].
    """
    if window > 0:
        count = torch.cumsum(beyond.long(), 1)
        count = count - torch.nn.functional.pad(count, (window + 1, 0))[:, : beyond.shape[1]]
        beyond = count > 0
    return beyond.sum(0) >= least


def trigger_samples(condition: Tensor, first: int, last: int, dead: int) -> list[int]:
    """The samples at which the readout starts: the first that meets the condition, and again after `dead` samples.

    Args:
        condition: bool (samples).
        first: No trigger before this sample.
        last: None from this one on.
        dead: Samples that one readout takes; in them no other starts.
    """
    starts: list[int] = []
    next_free = first
    for sample in torch.nonzero(condition).flatten().tolist():
        if next_free <= sample < last:
            starts.append(sample)
            next_free = sample + dead
    return starts


def full_scale(properties: LightProperties) -> tuple[int, int]:
    """Least and greatest value that the digitiser tells [ADC]."""
    half = 1 << (ADC_BITS - 1)
    return -half, half - properties.lsb
