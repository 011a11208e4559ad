"""Which measured hit belongs to which row of the waveforms, and what is left over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.lartpc.frontend import Windows
from hepops.lartpc.hits import Hits

from .formula import Clock


@dataclass(frozen=True)
class Match:
    """Hits of each row in order of time; those of row i are entries first[i] ... first[i + 1] - 1."""

    hit: Tensor  # int64 (num_matched)     index into the measured hits
    tick: Tensor  # int64 (num_matched)    of the trigger, from the row's first
    first: Tensor  # int64 (num_rows + 1)
    report: dict[str, int]  # hits matched, without_row, outside_window, dead_time

    @property
    def left_over(self) -> int:
        """Hits that no row can explain."""
        return sum(count for name, count in self.report.items() if name != "matched")


def trigger_tick(time: Tensor, tick: float) -> Tensor:
    """Absolute tick of the trigger of a measured time, int64.

    A clocked chip's time is the end of the tick, (k + 1) tick; one in between is that of the next end.

    Example:
        >>> trigger_tick(torch.tensor([0.1, 2.3, 2.31]), 0.1)
        tensor([ 0, 22, 23])
    """
    return torch.ceil(time.detach().double() / tick - 1e-3).long() - 1


def match(waves: Windows, measured: Hits, clock: Clock) -> Match:
    """Hits to rows, by (event, tpc, ix, iy) and the row's window of time.

    Left over, each counted: hits whose pixel has no row that began before (`without_row`), hits after the end of their
    row that the look at the end of the busy time does not explain (`outside_window`), and hits nearer to the one before
    than the chip's dead time (`dead_time`; the earlier one stays).

    Raises:
        ValueError: a time that is not finite.
    """
    if not bool(measured.time.isfinite().all()):
        raise ValueError("measured: times must be finite")
    tick = trigger_tick(measured.time, clock.tick)
    row = _rows_of(waves, measured, tick)
    found = row >= 0
    hit = found.nonzero()[:, 0]
    row, tick = row[hit], tick[hit]
    ticks = waves.offsets[1:] - waves.offsets[:-1]
    order = torch.argsort(tick, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    hit, row, tick = hit[order], row[order], (tick - waves.first_tick[row])[order]
    total = len(hit)

    def beyond(before: Tensor, gap: Tensor) -> Tensor:
        due = before & (gap == clock.dead) & (clock.busy > 0)
        return (tick >= ticks[row]) & ~due

    too_near = outside = 0
    while len(hit):  # as often as hits stand too near to one that stays
        before = torch.zeros_like(row, dtype=torch.bool)
        before[1:] = row[1:] == row[:-1]
        gap = torch.zeros_like(tick)
        gap[1:] = tick[1:] - tick[:-1]
        near, far = before & (gap < clock.dead), beyond(before, gap)
        far &= ~near
        bad = near | far
        if not bool(bad.any()):
            break
        bad[1:] &= ~(bad[:-1] & before[1:])  # the one before goes first, this one is asked again
        too_near, outside = too_near + int((near & bad).sum()), outside + int((far & bad).sum())
        hit, row, tick = hit[~bad], row[~bad], tick[~bad]
    counts = torch.bincount(row, minlength=len(ticks))
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    report = {
        "matched": len(hit),
        "without_row": len(measured) - total,
        "outside_window": outside,
        "dead_time": too_near,
    }
    return Match(hit, tick, first, report)


def _rows_of(waves: Windows, measured: Hits, tick: Tensor) -> Tensor:
    """For each hit the last row of its pixel that begins no later, -1 where there is none."""
    rows = waves.first_tick.shape[0]
    if not rows or not len(measured):
        return torch.full_like(tick, -1)
    key = torch.zeros(rows, dtype=torch.int64, device=tick.device)
    wanted = torch.zeros_like(tick)
    alien = torch.zeros_like(tick, dtype=torch.bool)
    for name in ("event", "tpc", "ix", "iy"):  # densely numbered, so that no key overflows
        values = torch.unique(getattr(waves, name))
        column = getattr(measured, name).to(values.device)
        place = torch.searchsorted(values, column).clamp_max(len(values) - 1)
        alien |= values[place] != column
        key = key * len(values) + torch.searchsorted(values, getattr(waves, name))
        wanted = wanted * len(values) + place
    begins = torch.unique(waves.first_tick)
    key = key * len(begins) + torch.searchsorted(begins, waves.first_tick)
    rank = torch.searchsorted(begins, tick, right=True) - 1
    sorted_key, order = torch.sort(key)
    place = torch.searchsorted(sorted_key, wanted * len(begins) + rank, right=True) - 1
    same = (place >= 0) & (rank >= 0) & ~alien
    place = place.clamp_min(0)
    same &= torch.div(sorted_key[place], len(begins), rounding_mode="floor") == wanted
    return torch.where(same, order[place], -1)
