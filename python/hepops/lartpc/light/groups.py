"""Who is read out together, in which window, and the deposits of every group on its ticks."""

import math

import torch
from torch import Tensor

from ..detector import Detector
from ..pieces import Pieces
from .arrivals import light_arrivals
from .properties import LightProperties
from .seen import Seen


class Groups:
    """Which TPCs are read out in which events, and their windows."""

    def __init__(self, pieces: Pieces, detector: Detector, properties: LightProperties) -> None:
        device = pieces.event.device
        module = torch.tensor([t.module for t in detector.tpcs], device=device)
        planes = len(detector.tpcs)
        self.channels = torch.tensor(properties.tpc_to_channel, device=device)  # (tpcs, channels per TPC)
        events, rank = torch.unique(pieces.event, return_inverse=True)
        hit = torch.zeros(len(events), planes, dtype=torch.bool, device=device)
        hit[rank, pieces.tpc] = True
        same = module[:, None] == module[None, :]
        read = (hit.double() @ same.double()) > 0  # every TPC of a module that is hit
        where = torch.nonzero(read)
        number = torch.full((len(events), planes), -1, dtype=torch.long, device=device)
        number[where[:, 0], where[:, 1]] = torch.arange(len(where), device=device)
        self.event, self.tpc = events[where[:, 0]], where[:, 1]
        self.group = number[rank, pieces.tpc]  # of each piece
        # One window for an event; it begins on a tick of the common clock.
        first = torch.full((len(events),), math.inf, dtype=torch.float64, device=device)
        first = first.scatter_reduce(0, rank, pieces.t0.detach(), "amin")
        if properties.trigger == "beam":
            first = torch.zeros_like(first)
        begin = torch.floor(first / properties.tick + 1e-9).long() - round(properties.window[0] / properties.tick)
        self.begin = begin[where[:, 0]]


class Arrivals:
    """Photons per deposit and channel to columns of ticks; linear."""

    def __init__(
        self,
        properties: LightProperties,
        tau: Tensor,
        layout: Groups,
        piece: Tensor,
        pieces: Pieces,
        seen: Seen,
        share: Tensor,
    ) -> None:
        self.ticks, self.tick, self.begin, self.tau = properties.ticks, properties.tick, layout.begin, tau
        counts = torch.bincount(layout.group[piece], minlength=len(layout.begin))
        self.time, self.share, self.profile = pieces.t0[piece] + seen.delay, share, seen.profile
        if seen.profile is not None:  # every bin of the profile is a deposit of its own
            bins = seen.profile.shape[2]
            later = torch.arange(bins, dtype=torch.float64, device=share.device) * seen.bin
            self.time = (self.time[..., None] + later).flatten(1)
            self.share, counts = share.repeat_interleave(bins), counts * bins
        self.offset = torch.nn.functional.pad(torch.cumsum(counts, 0), (1, 0))

    def __call__(self, photons: Tensor) -> Tensor:
        if self.profile is not None:
            photons = (photons[..., None] * self.profile).flatten(1)
        args = (photons, self.time, self.share, self.tau, self.offset, self.begin)
        return light_arrivals(*args, self.ticks, self.tick)
