"""Packets to events: by their truth, by windows around triggers, by gaps in time, by windows that the first hit opens.

Times are ticks. What cannot be closed yet waits for the next part of the file, so that no file has to fit in memory.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat

from .._model import Record
from .clock import Clock
from .format import Array

How = Literal["truth", "trigger", "gap", "window"]
SAME = 10  # trigger packets of several io_groups within so many ticks are one trigger

_FOREVER = np.iinfo(np.int64).max

Columns = dict[str, Array]  # one row per packet: tick pixel adc noisy event ... as the reader fills them


class EventRule(Record):
    """How packets become events.

    - "truth": by the event ids of `mc_packets_assn`. Time zero is the trigger packet before the event's packets.
    - "trigger": hits from `before` a trigger packet until `window` after it; others are left out and counted.
    - "gap": a pause longer than `gap` ends an event; one that lasts longer than `window` is split there, and counted.
    - "window": a hit opens a window; the first one after its end opens the next. Windows that follow the last hit of
      the one before by less than `gap` are counted as split events.

    With "gap" and "window" time zero is the first trigger packet from `window` before the first hit until the last hit,
    else the first hit.
    """

    how: How = "gap"
    gap: PositiveFloat = 100.0  # [us]
    window: PositiveFloat = 400.0  # [us], more than a drift: 190 us in module0, 320 in ND-LAr
    before: NonNegativeFloat = 5.0  # [us]


@dataclass
class Builder:
    """Collects packets, gives whole events."""

    rule: EventRule
    clock: Clock
    counts: Counter[str] = field(default_factory=Counter)
    parts: list[Columns] = field(default_factory=list)
    triggers: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    number: int = 0  # of the next event
    closed: set[int] = field(default_factory=set)  # ids of true events that were given
    until: int | None = None  # nothing earlier than this tick waits

    def push(self, columns: Columns, triggers: Array) -> None:
        """Add packets, and the absolute ticks of trigger packets."""
        if len(columns["tick"]):
            self.parts.append(columns)
        if len(triggers):
            self.triggers = np.sort(np.concatenate([self.triggers, triggers]))

    def ready(self, final: bool) -> Columns | None:
        """Packets of the events that are complete, with `event` and `start` (tick of time zero); None where none is."""
        if not self.parts:
            return None
        held = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        done, rest = self._true(held, final) if self.rule.how == "truth" else self._timed(held, final)
        self.parts = [rest] if len(rest["tick"]) else []
        return done if len(done["tick"]) else None

    # ---- by truth

    def _true(self, held: Columns, final: bool) -> tuple[Columns, Columns]:
        """All but the event that the file stands in."""
        event = held["event"]
        done = np.ones(len(event), bool) if final else event != event[-1]
        ids = set(np.unique(event[done]).tolist())
        begins = np.flatnonzero(np.diff(event, prepend=event[0] - 1))
        here = np.isin(event[begins], list(ids)).sum() if ids else 0
        self.counts["events in several blocks"] += int(here) - len(ids - self.closed)
        self.closed |= ids
        # Time zero of an event: the trigger before its first packet; where there is none, its earliest packet.
        first = np.unique(event, return_index=True, return_inverse=True)
        at = first[1][first[2]]
        period = self.clock.period
        after = (held["stamp"] - held["stamp"][at] + period // 2) % period - period // 2
        earliest = np.full(len(first[0]), np.iinfo(np.int64).max)
        np.minimum.at(earliest, first[2], after)
        before = held["trigger"][at]
        lead = (held["stamp"][at] - before + period // 2) % period - period // 2
        zero = np.where(before >= 0, -lead, earliest[first[2]] - self.clock.delay)
        found = {**held, "start": held["tick"][at] + zero, "time": after - zero - self.clock.delay}
        self.counts["events without trigger"] += int((before[first[1]] < 0)[np.isin(first[0], list(ids))].sum())
        return _take(found, done), _take(held, ~done)

    # ---- by time

    def _timed(self, held: Columns, final: bool) -> tuple[Columns, Columns]:
        order = np.argsort(held["tick"], kind="stable")
        held = _take(held, order)
        tick = held["tick"]
        if self.until is not None:
            self.counts["late packets"] += int((tick < self.until).sum())
        latest = _FOREVER if final else int(tick[-1]) - self.clock.disorder
        how = {"trigger": self._triggered, "gap": self._gaps, "window": self._windows}[self.rule.how]
        event, start, end = how(tick, latest)
        found = {**held, "event": event, "start": start, "time": tick - start - self.clock.delay}
        if end and end < len(tick):
            self.until = int(tick[end])
        done = np.arange(len(tick)) < end
        if end < len(tick) and self.rule.how != "trigger":  # triggers that no later packet can belong to
            oldest = int(tick[end]) - self.clock.delay - self._span(self.rule.window)
            self.triggers = self.triggers[self.triggers >= oldest]
        return _take(found, done & (event >= 0)), _take(held, ~done)

    def _span(self, time: float) -> int:
        return max(1, round(time / self.clock.tick))

    def _single(self) -> Array:
        """Triggers, those of several io_groups as one."""
        if not len(self.triggers):
            return self.triggers
        chosen: Array = self.triggers[np.diff(self.triggers, prepend=self.triggers[0] - SAME - 1) > SAME]
        return chosen

    def _triggered(self, tick: Array, latest: int) -> tuple[Array, Array, int]:
        before, window = self._span(self.rule.before), self._span(self.rule.window)
        single = self._single()
        opened: list[int] = []
        for trigger in single.tolist():
            if not opened or trigger >= opened[-1] + window:
                opened.append(trigger)
        zeros = np.array(opened, np.int64)
        begins, ends = zeros - before + self.clock.delay, zeros + window + self.clock.delay
        final = latest == _FOREVER
        # Packets before this cannot change any more, nor can the windows before the first that is open there.
        border = latest if final else latest - before + min(self.clock.delay, 0)
        closed = len(zeros) if final else int((ends <= border).sum())
        if closed < len(zeros):
            border = min(border, int(begins[closed]))
        end = int(np.searchsorted(tick, border))
        which = np.searchsorted(begins, tick, side="right") - 1
        within = (which >= 0) & (tick < np.append(ends, 0)[which])
        done = np.arange(len(tick)) < end
        numbers = self._numbers(which, done & within)
        if closed < len(zeros):
            spent = int(zeros[closed])
        else:
            spent = _FOREVER if final else opened[-1] + window if opened else 0
        self.counts["hits outside every trigger's window"] += int((done & ~within).sum())
        self.counts["triggers without hits"] += closed - len(np.unique(which[done & within]))
        self.counts["triggers within an open window"] += int((single < spent).sum()) - closed
        self.triggers = self.triggers[self.triggers >= spent]
        return np.where(within, numbers, -1), np.append(zeros, 0)[which], end

    def _gaps(self, tick: Array, latest: int) -> tuple[Array, Array, int]:
        gap, window = self._span(self.rule.gap), self._span(self.rule.window)
        begins = np.flatnonzero(np.diff(tick, prepend=tick[0] - gap - 1) > gap)
        burst = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(tick)))
        ends = tick[np.append(begins[1:], len(tick)) - 1]
        # A burst is closed where the present is later than its last hit by more than a gap.
        closed = int((ends + gap < latest).sum()) if latest < _FOREVER else len(begins)
        end = int(np.append(begins, len(tick))[closed])
        part = (tick - tick[begins][burst]) // window
        new = np.diff(burst, prepend=-1) + np.diff(part, prepend=0) != 0
        new |= np.diff(burst, prepend=-1) > 0
        which = np.cumsum(new) - 1
        done = np.arange(len(tick)) < end
        self.counts["split events"] += int((new & done).sum()) - closed
        return self._zero(tick, which, done, end)

    def _windows(self, tick: Array, latest: int) -> tuple[Array, Array, int]:
        gap, window = self._span(self.rule.gap), self._span(self.rule.window)
        begins = []
        at = 0
        while at < len(tick):
            begins.append(at)
            at = int(np.searchsorted(tick, tick[at] + window))
        edges = np.array([*begins, len(tick)], np.int64)
        which = np.repeat(np.arange(len(begins)), np.diff(edges))
        closed = int((tick[edges[:-1]] + window < latest).sum()) if latest < _FOREVER else len(begins)
        end = int(edges[closed])
        follow = edges[1:-1][edges[1:-1] <= end]  # first hits of windows, all but the first
        follow = follow[follow < len(tick)]
        self.counts["split events"] += int((tick[follow] - tick[follow - 1] <= gap).sum())
        return self._zero(tick, which, np.arange(len(tick)) < end, end)

    def _zero(self, tick: Array, which: Array, done: Array, end: int) -> tuple[Array, Array, int]:
        """Event numbers and time zero: a trigger, else the first hit."""
        first = np.flatnonzero(np.diff(which, prepend=-1))
        last = tick[np.append(first[1:], len(tick)) - 1]
        begin = tick[first]
        triggers = self._single()
        at = np.searchsorted(triggers, begin - self.clock.delay - self._span(self.rule.window))
        has = (at < len(triggers)) & (np.append(triggers, 0)[at] <= last - self.clock.delay)
        zero = np.where(has, np.append(triggers, 0)[at], begin - self.clock.delay)
        self.counts["events without trigger"] += int((~has & done[first]).sum())
        numbers = self._numbers(which, done)
        return numbers, zero[which], end

    def _numbers(self, which: Array, done: Array) -> Array:
        """Running numbers of the events that are done."""
        ids, number = np.unique(which[done], return_inverse=True)
        found = np.full(len(which), -1, np.int64)
        found[done] = number + self.number
        self.number += len(ids)
        return found


def _take(columns: Columns, which: Array) -> Columns:
    return {name: column[which] for name, column in columns.items()}
