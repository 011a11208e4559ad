"""From shaped waveforms to triggered, digitised readouts."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..detector import Detector
from .noise import NoiseSpectrum
from .properties import LightProperties
from .readout import LightReadout, coincidence, digitise, sample_means, saturated, sums_beyond, trigger_samples
from .waveforms import LightWaveforms


def read_out(
    shaped: LightWaveforms, detector: Detector, p: LightProperties, noise: NoiseSpectrum | None, seed: int
) -> list[LightReadout]:
    """The triggered windows of one event, module by module.

    Beyond the simulated window there is noise alone, as far as a readout at its ends may reach.
    """
    before = math.ceil(p.trigger_window[0] / p.sample_spacing - 1e-6) * p.sample
    after = (p.samples + 1) * p.sample
    modules = torch.tensor([t.module for t in detector.tpcs], device=shaped.tpc.device)[shaped.tpc]
    found = []
    for module in torch.unique(modules).tolist():
        rows = torch.nonzero(modules == module).flatten()
        signal = torch.nn.functional.pad(shaped.values[rows].flatten(0, 1), (before, after))
        channel = shaped.channel[rows].flatten()
        if noise is not None:
            name = shaped.name(p.num_channels)[rows].flatten()
            signal = signal + noise.sample(channel, signal.shape[1], p.tick, seed, name)
        samples = sample_means(signal, p.sample)
        window = before // p.sample, (before + shaped.ticks) // p.sample
        starts = _starts(samples, channel, p, *window)
        codes = [samples[:, s - window[0] : s - window[0] + p.samples] for s in starts]
        if not codes:
            continue
        digital = digitise(torch.stack(codes), p)
        begin = shaped.begin[rows[0]] - before
        time = (begin + torch.tensor(starts, device=begin.device) * p.sample).double() * p.tick
        event = shaped.event[rows[0]].expand(len(starts))
        module_of = torch.full((len(starts),), module, device=begin.device)
        channels = channel.expand(len(starts), -1)
        lead = window[0] * p.sample_spacing
        found.append(LightReadout(event, module_of, time, channels, digital, p.lsb, p.sample_spacing, lead, {}))
    return found


def _starts(samples: Tensor, channel: Tensor, p: LightProperties, first: int, last: int) -> list[int]:
    """Samples at which a readout starts."""
    if p.trigger == "beam":
        return [min(max(first + round(p.window[0] / p.sample_spacing), first), last - 1)]
    per_tpc = p.channels_per_tpc // p.channels_per_sum
    lookup = torch.zeros(p.num_channels, dtype=torch.long)
    for tpc, row in enumerate(p.tpc_to_channel):
        for k, c in enumerate(row):
            lookup[c] = tpc * per_tpc + k // p.channels_per_sum
    sums = lookup.to(channel.device)[channel[:: p.channels_per_sum]]
    threshold = torch.tensor(p.threshold, dtype=torch.float64, device=samples.device)[sums]
    beyond = sums_beyond(samples, threshold, p.channels_per_sum)
    window = round(p.coincidence_window / p.sample_spacing)
    return trigger_samples(coincidence(beyond, p.coincidence, window), first, last, p.samples)


def join(parts: list[LightReadout], p: LightProperties, totals: dict[str, float], events: int) -> LightReadout:
    """The readouts of all events as one."""
    reports: dict[str, Any] = {"events": events, "triggers": sum(len(x) for x in parts), **totals}
    reports["samples_saturated"] = sum(int(saturated(x.codes, p).sum()) for x in parts)
    if not parts:
        none = torch.zeros(0, dtype=torch.long)
        codes = torch.zeros(0, p.channels_per_tpc, p.samples, dtype=torch.long)
        lead = p.trigger_window[0]
        empty = none.new_zeros(0, p.channels_per_tpc)
        return LightReadout(none, none, none.double(), empty, codes, p.lsb, p.sample_spacing, lead, reports)
    widths = {x.codes.shape[1] for x in parts}
    if len(widths) > 1:
        raise ValueError(f"LightSimulator: modules differ in their channels, {sorted(widths)}: simulate them apart")
    names = ("event", "module", "time", "channel", "codes")
    joined: dict[str, Any] = {name: torch.cat([getattr(x, name) for x in parts]) for name in names}
    return replace(parts[0], **joined, reports=reports)
