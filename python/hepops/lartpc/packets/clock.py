"""The clock of the packets: ticks that begin anew with every pulse per second, or after 2^31, and back.

    timestamp = (start of the event + floor(time / tick) + delay) mod period          [ticks]

Reading, resets are found in three ways at once: by sync packets (type 6, letter S, at a multiple of the period), by
the timestamps themselves, which go on from one packet to the next (a step is taken modulo the period, and is backwards
only by as much as packets may be out of order), and by the unix seconds of timestamp packets (type 4) where the period
is one second. A reset that the steps or the seconds show and no sync packet tells of is a missing one.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .._model import Record
from .format import SYNC, SYNC_LETTER, TIMESTAMP, Array

PPS_PERIOD = 10_000_000  # ticks of 0.1 us in a second
ROLLOVER_PERIOD = 1 << 31  # the chip's counter has 31 bits
# A sync packet, or a data packet beyond the period, so near a reset [share of the period] belongs to it: clocks are
# wrong by 10 ppm, PACMAN's sync packets come within a millisecond.
NEAR = 1e-3


class Clock(Record):
    """The clock of a file of packets.

    Example:
        >>> Clock.pps().period, Clock.rollover().period
        (10000000, 2147483648)
    """

    tick: PositiveFloat = 0.1  # [us]
    period: PositiveInt = PPS_PERIOD  # ticks from reset to reset
    synced: bool = True  # every reset has a sync packet in each io_group
    delay: int = 0  # added to the tick of the crossing, where it is written [ticks]
    disorder: NonNegativeInt = 10_000  # a packet may stand behind others that are later by so much [ticks]

    @classmethod
    def pps(cls, delay: int = 0) -> Self:
        """Reset by a pulse per second, as in DUNE's modules."""
        return cls(delay=delay)

    @classmethod
    def of(cls, tick: float) -> Self:
        """Reset by a pulse per second, of another tick [us]."""
        period = round(1e6 / tick)
        return cls(tick=tick, period=period, disorder=period // 1000)

    @classmethod
    def rollover(cls, delay: int = 0) -> Self:
        """Never reset: the counter's 31 bits roll over, without a sync packet."""
        return cls(period=ROLLOVER_PERIOD, synced=False, delay=delay)

    @classmethod
    def larndsim(cls, padding: float = 190.0) -> Self:
        """larnd-sim's convention of time: tick k + 19, plus its padding [us], less 2 us, where we write k + 1."""
        return cls(delay=18 + round((padding - 2.0) * 10))

    @model_validator(mode="after")
    def _goes_forward(self) -> Self:
        if self.disorder >= self.period:
            raise ValueError(f"disorder must be below the period of {self.period} ticks, got {self.disorder}")
        return self

    def step(self, stamp: Array, before: Array | int) -> Array:
        """From one timestamp to the next, between -disorder and period - disorder [ticks]."""
        found: Array = (stamp - before + self.disorder) % self.period - self.disorder
        return found

    @property
    def near(self) -> int:
        """How far from a reset a packet may be to belong to it [ticks]."""
        return max(1, int(NEAR * self.period))

    def ticks(self, time: Array) -> Array:
        """Whole ticks of times [us], int64; a time that is a tick to rounding is that tick."""
        return np.floor(time / self.tick + 1e-6).astype(np.int64)


@dataclass
class Unroller:
    """Absolute ticks of successive parts of a file; carries over what the next part needs."""

    clock: Clock
    start: int | None = None  # absolute tick of the first row
    last: int | None = None  # absolute tick of the row before
    since: int | None = None  # absolute tick of the last reset that a sync packet told of
    inside: bool = False  # whether packets well inside a period came since the last sync packet
    seen: set[int] = field(default_factory=set)  # io_groups whose sync packet of the present reset has come
    groups: set[int] = field(default_factory=set)  # io_groups that ever sent a sync packet
    second: int = -1  # unix seconds of the last timestamp packet
    second_then: int = -1  # and of the last before the last reset
    rows: int = 0  # of the file, so far
    resets: int = 0  # that sync packets tell of, or that are missing
    missing: int = 0  # resets without any sync packet
    first_missing: int | None = None  # before which row of the file
    absent: int = 0  # sync packets that one io_group sent and another did not
    stray: int = 0  # sync packets away from a reset
    backwards: int = 0  # steps back in time

    def __call__(self, packets: Array, timed: Array) -> Array:
        """Absolute ticks of the rows `timed` (rising indices of data and trigger packets) of a part, int64."""
        period = self.clock.period
        inside_before = self.inside
        resets = self._resets(packets, timed)
        seconds = self._seconds(packets, resets)
        rows = np.concatenate([timed, resets])
        order = np.argsort(rows, kind="stable")
        is_reset = (np.arange(len(rows)) >= len(timed))[order]
        rows = rows[order]
        self.rows += len(packets)
        if not len(rows):
            return np.zeros(0, np.int64)
        stamp = packets["timestamp"][rows].astype(np.int64) % period
        stamp[is_reset] = 0
        before = self.last if self.last is not None else int(stamp[0])
        tick = before + np.cumsum(self.clock.step(stamp, np.append(before % period, stamp[:-1])))
        if len(resets):
            head = stamp[: int(np.argmax(is_reset))]
            inside = inside_before or bool(self._well_inside(head).any())
            tick, lost = self._mend(tick, is_reset, seconds, inside)
            if lost.any() and self.first_missing is None:
                self.first_missing = self.rows - len(packets) + int(resets[np.argmax(lost > 0)])
        if self.start is None:
            self.start = int(tick[0])
        self.backwards += int((np.diff(tick, prepend=before) < 0).sum())
        self.last = int(tick[-1])
        return tick[~is_reset]

    def _well_inside(self, stamp: Array) -> Array:
        found: Array = (stamp > self.clock.near) & (stamp < self.clock.period - self.clock.near)
        return found

    def _resets(self, packets: Array, timed: Array) -> Array:
        """Rows of the first sync packet of every reset."""
        if not self.clock.synced:
            return np.zeros(0, np.int64)
        period = self.clock.period
        kind = packets["packet_type"] == SYNC
        if "trigger_type" in (packets.dtype.names or ()):
            kind = kind & (packets["trigger_type"] == SYNC_LETTER)
        rows = np.flatnonzero(kind)
        away = self._well_inside(packets["timestamp"][rows].astype(np.int64) % period)
        self.stray += int(away.sum())
        rows = rows[~away]
        # Between two sync packets of one reset stand no packets well inside a period, nor one of the same io_group.
        inside = timed[self._well_inside(packets["timestamp"][timed].astype(np.int64) % period)]
        apart = np.diff(np.searchsorted(inside, rows), prepend=0) > 0
        chosen = []
        for row, group, far in zip(rows.tolist(), packets["io_group"][rows].tolist(), apart.tolist(), strict=True):
            if far or self.inside or group in self.seen or not self.seen:
                chosen.append(row)
                self.absent += len(self.groups - self.seen) if self.seen else 0
                self.seen = set()
            self.inside = False
            self.seen.add(group)
            self.groups.add(group)
        self.inside |= bool(len(inside)) and (not len(rows) or bool(inside[-1] > rows[-1]))
        return np.array(chosen, np.int64)

    def _mend(self, tick: Array, is_reset: Array, seconds: Array, inside: bool) -> tuple[Array, Array]:
        """Ticks, moved by whole periods so that every reset is at least one period after the one before.

        Also how many resets before each of them had no sync packet.
        """
        period = self.clock.period
        at = np.flatnonzero(is_reset)
        naive = tick[at] // period  # exact: a reset is at phase 0
        if self.since is not None:
            first = self.since // period
        elif not inside:  # the file begins with this reset
            first = int(naive[0]) - 1
        else:
            first = (self.start if self.start is not None else int(tick[0])) // period
        increment = np.maximum(np.diff(naive, prepend=first), 1)
        if period * self.clock.tick == 1e6:
            then = np.concatenate([[self.second_then], seconds[:-1]])
            passed = np.where((then >= 0) & (seconds >= 0), seconds - then, 0)
            # A timestamp packet may be late by a second; what exceeds that are resets that nothing else shows.
            increment = np.where(passed > increment + 1, passed, increment)
        lost = increment - 1
        self.missing += int(lost.sum())
        self.resets += int(increment.sum())
        base = first + np.cumsum(increment)
        shift = np.concatenate([[0], (base - naive) * period])
        self.since, self.second_then = int(base[-1]) * period, int(seconds[-1])
        return tick + shift[np.searchsorted(at, np.arange(len(tick)), side="right")], lost

    def _seconds(self, packets: Array, rows: Array) -> Array:
        """Unix seconds of the last timestamp packet before each row, -1 where there is none."""
        stamps = np.flatnonzero(packets["packet_type"] == TIMESTAMP)
        values = np.concatenate([[self.second], packets["timestamp"][stamps].astype(np.int64)])
        self.second = int(values[-1])
        found: Array = values[np.searchsorted(stamps, rows)]
        return found

    def finish(self) -> None:
        """At the end of the file: resets after the last sync packet that only the timestamps show."""
        if self.clock.synced and self.last is not None and self.start is not None:
            begin = self.since if self.since is not None else self.start
            lost = max(0, self.last // self.clock.period - begin // self.clock.period)
            self.missing += lost
            self.resets += lost

    def report(self) -> dict[str, int]:
        """Counts, those that are not zero."""
        counts = {
            "clock resets": self.resets,
            "clock resets without sync packet": self.missing,
            "sync packets that an io_group did not send": self.absent,
            "sync packets away from a reset": self.stray,
            "steps back in time": self.backwards,
        }
        return {name: n for name, n in counts.items() if n}
