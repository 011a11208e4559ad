"""Light on the channels of TPCs: expected photoelectrons or ADC values, a row per event, TPC and channel."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LightWaveforms:
    """What the channels of a TPC see in the window of an event; a group is one event in one TPC."""

    event: Tensor  # int64 (groups)
    tpc: Tensor  # int64 (groups)
    channel: Tensor  # int64 (groups, channels): numbers in the whole detector
    begin: Tensor  # int64 (groups): the window's first tick, from time 0
    values: Tensor  # float64 (groups, channels, ticks): photoelectrons in a tick, or ADC
    tick: float  # [us]
    before: Tensor  # float64 (groups, channels): photoelectrons before the window
    after: Tensor  # float64 (groups, channels): and behind it
    tangents: Tensor | None  # float64 (num_tangents, groups, channels, ticks)
    tangent_names: tuple[str, ...]
    reports: dict[str, Any]

    def __len__(self) -> int:
        return self.event.shape[0]

    @property
    def ticks(self) -> int:
        """Length of the window."""
        return int(self.values.shape[2])

    def time(self) -> Tensor:
        """Middles of the ticks of each group, float64 (groups, ticks) [us]."""
        every = torch.arange(self.ticks, device=self.begin.device) + 0.5
        return (self.begin[:, None] + every.double()) * self.tick

    def name(self, channels: int) -> Tensor:
        """event * channels + channel, the rows' names for random numbers, int64 (groups, channels)."""
        most = (1 << 39) // channels
        if len(self) and int(self.event.max()) >= most:
            raise ValueError(f"light: events must be below {most} for {channels} channels, got {int(self.event.max())}")
        return self.event[:, None] * channels + self.channel

    def select(self, groups: Tensor) -> "LightWaveforms":
        """Some of the groups."""
        names = ("event", "tpc", "channel", "begin", "values", "before", "after")
        changes: dict[str, Any] = {name: getattr(self, name)[groups] for name in names}
        tangents = None if self.tangents is None else self.tangents[:, groups]
        return replace(self, **changes, tangents=tangents)
