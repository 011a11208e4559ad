"""Clocks that are reset or roll over, sync packets that are missing, events by windows of time."""

import numpy as np
import pytest
import torch
from hepops.lartpc.packets import ChannelMap, Clock, EventRule, iterate_packets, read_packets
from hepops.lartpc.packets.clock import Unroller
from hepops.lartpc.packets.format import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from .packet_files import PERIOD, bench, data, seconds, sync, trigger, write

MAP = ChannelMap.builtin(bench())


def unrolled(rows, clock=None, chunk=None):
    """Absolute ticks of the data packets, and the unroller at the end."""
    rows, unroll = np.concatenate(rows), Unroller(clock or Clock.pps())
    ticks = []
    for begin in range(0, len(rows), chunk or len(rows)):
        part = rows[begin : begin + (chunk or len(rows))]
        ticks.append(unroll(part, np.flatnonzero(part["packet_type"] == DATA)))
    unroll.finish()
    return np.concatenate(ticks).tolist(), unroll


# ---- resets


def test_every_second_begins_anew():
    rows = [sync(stamp=0), data([100, 9_000_000]), sync(), data([5]), sync(), sync(), data([7])]
    ticks, unroll = unrolled(rows)
    assert ticks == [100, 9_000_000, PERIOD + 5, 3 * PERIOD + 7]
    assert unroll.report() == {"clock resets": 4}


def test_several_io_groups_send_one_reset_each():
    rows = [sync(1), sync(2), data([100, 5_000_000]), sync(2), sync(1), data([8]), sync(1), sync(2), data([9])]
    ticks, unroll = unrolled(rows)
    assert ticks == [100, 5_000_000, PERIOD + 8, 2 * PERIOD + 9]
    assert unroll.report() == {"clock resets": 3}


def test_a_rollover_needs_no_sync_packet():
    top = 2**31
    ticks, unroll = unrolled([data([top - 10, 20, top // 2, top - 1, 3])], Clock.rollover())
    assert ticks == [top - 10, top + 20, top + top // 2, 2 * top - 1, 2 * top + 3]
    assert unroll.report() == {}


def test_packets_near_a_reset_may_stand_on_its_other_side():
    late, early = PERIOD - 30, 40
    rows = [sync(), data([4_000_000]), data([early]), sync(), data([late, 50, 5_000_000]), sync(), data([60])]
    ticks, unroll = unrolled(rows)
    assert ticks == [4_000_000, PERIOD + early, late, PERIOD + 50, PERIOD + 5_000_000, 2 * PERIOD + 60]
    assert unroll.missing == 0 and unroll.backwards == 2  # from the early one to the reset, to the late one


def test_a_slow_clock_runs_a_little_beyond_the_period():
    ticks, unroll = unrolled([sync(), data([8_000_000, PERIOD - 5, PERIOD + 3]), sync(stamp=PERIOD + 9), data([4])])
    assert ticks == [8_000_000, PERIOD - 5, PERIOD + 3, PERIOD + 4] and unroll.missing == 0


def test_heartbeats_and_larndsims_sync_packets_reset_nothing():
    rows = [sync(), data([10]), sync(letter=ord("H")), data([20]), sync(stamp=4_000_000), data([4_000_001])]
    ticks, unroll = unrolled(rows)
    assert ticks == [10, 20, 4_000_001]
    assert unroll.report() == {"clock resets": 1, "sync packets away from a reset": 1}


# ---- missing sync packets


MISSING = {
    "in the middle": ([sync(), data([10, 9_000_000, 20, 9_000_000]), sync(), data([30])], 1, 5),
    "at the end": ([sync(), data([10, 9_000_000, 20])], 1, None),
    "everywhere": ([data([10, 9_000_000, 20, 9_000_000, 30])], 2, None),
    "at the start": ([data([10, 9_000_000, 20, 9_000_000]), sync(), data([30])], 1, 4),
    # Four seconds pass between two sync packets, says the time of day.
    "in a pause": ([seconds(100), sync(), data([10]), seconds(100), sync(), seconds(104), data([20]), sync()], 3, 7),
}


@pytest.mark.parametrize("where", MISSING)
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_missing_sync_packet_is_counted_or_refused(tmp_path, where, chunk):
    rows, number, row = MISSING[where]
    ticks, unroll = unrolled(rows, chunk=chunk)
    assert unroll.missing == number
    if where != "in a pause":
        expected = [10, 9_000_000, PERIOD + 20, PERIOD + 9_000_000, 2 * PERIOD + 30]
        assert ticks == expected[: len(ticks)]
    path = write(tmp_path / "a.h5", *rows)
    hits = read_packets(path, MAP)
    assert hits.reports["packets"]["notes"]["clock resets without sync packet"] == number
    where = "" if row is None else f", the first before row {row}"
    with pytest.raises(ValueError, match=rf"a.h5: {number} resets of the clock without a sync packet{where}$"):
        read_packets(path, MAP, missing_sync="raise")
    assert len(read_packets(path, MAP, missing_sync="raise", clock=Clock.rollover())) == len(hits)


def test_a_sync_packet_that_one_io_group_did_not_send_is_counted(tmp_path):
    rows = [sync(1), sync(2), data([10]), sync(1), data([5_000_000]), sync(1), sync(2), data([20])]
    ticks, unroll = unrolled(rows)
    assert ticks == [10, PERIOD + 5_000_000, 2 * PERIOD + 20]
    assert unroll.report() == {"clock resets": 3, "sync packets that an io_group did not send": 1}


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 40_000), min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.integers(1, 20),
)
def test_ticks_come_back_whatever_the_pauses_and_parts(steps, groups, chunk):
    """A period of 1e4 ticks, pauses of up to four of them; every reset has its sync packets."""
    clock = Clock(period=10_000, disorder=0)
    true = np.cumsum(steps)
    rows, reset = [], 0
    for tick in true.tolist():
        while reset <= tick // 10_000:
            rows += [sync(1 + g, stamp=10_000 if reset else 0) for g in range(2 if groups[reset % 6] else 1)]
            reset += 1
        rows.append(data([tick % 10_000]))
    ticks, unroll = unrolled(rows, clock, chunk)
    assert ticks == true.tolist() and unroll.missing == 0


def test_clocks_are_checked():
    with pytest.raises(ValueError, match="disorder must be below the period of 1000 ticks"):
        Clock(period=1000)
    with pytest.raises(ValueError, match="tick"):
        Clock(tick=0.0)
    assert Clock.larndsim(190.0).delay == 1898  # tick k + 19 + 1900 - 20, where our time is k + 1
    assert Clock.of(0.05).period == 20_000_000
    assert Clock.from_json(Clock.rollover(7).to_json()) == Clock.rollover(7)


# ---- events


def read(tmp_path, *rows, **rule):
    path = write(tmp_path / "a.h5", *rows)
    hits = read_packets(path, MAP, events=EventRule(**rule))
    for chunk in (1, 3):
        parts = list(iterate_packets(path, MAP, events=EventRule(**rule), chunk=chunk, clock=Clock(disorder=0)))
        assert torch.equal(torch.cat([p.event for p in parts]), hits.event)
        assert torch.equal(torch.cat([p.time for p in parts]), hits.time)
        assert parts[-1].reports["packets"]["notes"] == hits.reports["packets"]["notes"]
    by_event = [
        [round(t * 10) for t in sorted(hits.time[hits.event == e].tolist())] for e in range(int(hits.event.max()) + 1)
    ]
    notes = {k: n for k, n in hits.reports["packets"]["notes"].items() if not k.startswith("clock")}
    return by_event, hits.reports["event_start"]["tick"], notes


def test_a_pause_ends_an_event(tmp_path):
    events, start, notes = read(tmp_path, sync(), data([100, 500, 2000, 2900]), how="gap", gap=100.0)
    assert events == [[0, 400], [0, 900]] and start == [100, 2000]
    assert notes == {"events without trigger": 2}


def test_an_event_that_lasts_too_long_is_split_and_counted(tmp_path):
    events, start, notes = read(tmp_path, sync(), data([0, 900, 1800, 2700, 9000]), how="gap", gap=100.0, window=200.0)
    assert events == [[0, 900, 1800], [0], [0]] and start == [0, 2700, 9000]
    assert notes["split events"] == 1


def test_the_first_hit_opens_a_window(tmp_path):
    events, start, notes = read(
        tmp_path, sync(), data([10, 1000, 2009, 2010, 9000]), how="window", window=200.0, gap=5.0
    )
    assert events == [[0, 990, 1999], [0], [0]] and start == [10, 2010, 9000]
    assert notes == {"split events": 1, "events without trigger": 3}


def test_a_trigger_is_time_zero(tmp_path):
    rows = sync(), trigger(1000), data([1100, 1900]), data([8000])
    events, start, notes = read(tmp_path, *rows, how="gap")
    assert events == [[100, 900], [0]] and start == [1000, 8000]
    assert notes == {"events without trigger": 1}


def test_windows_around_triggers(tmp_path):
    rows = [
        sync(1), sync(2), data([10]), data([980]), trigger(1000, 1), trigger(1001, 2), data([1005, 3000]),
        trigger(3100, 1), data([4999, 5005]), trigger(20_000), trigger(40_000), data([40_001]),
    ]  # fmt: skip
    events, start, notes = read(tmp_path, *rows, how="trigger", window=400.0, before=2.0)
    assert events == [[-20, 5, 2000, 3999], [1]] and start == [1000, 40_000]
    assert notes == {
        "hits outside every trigger's window": 2,  # 10 and 5005
        "triggers within an open window": 1,  # 3100; that of the other io_group at 1001 is the same trigger
        "triggers without hits": 1,
    }


def test_an_event_across_a_reset_is_one(tmp_path):
    rows = sync(), data([5_000_000]), trigger(PERIOD - 500), data([PERIOD - 200]), sync(), data([300])
    for how in ("gap", "trigger", "window"):
        events, start, _ = read(tmp_path, *rows, how=how)
        assert events[-1] == [300, 800] and start[-1] == PERIOD - 500


def test_true_events_keep_their_ids(tmp_path):
    rows = sync(), trigger(50), data([60, 90]), trigger(5000), data([5001]), trigger(7000), data([7007])
    path = write(tmp_path / "a.h5", *rows, events=[-1, -1, 8, 8, -1, 3, -1, 8])
    hits = read_packets(path, MAP)
    assert hits.event.tolist() == [3, 8, 8, 8]
    # The second block of event 8 has a trigger of its own; time zero is that of the first.
    assert hits.time.mul(10).round().tolist() == [1, 10, 40, 6957]
    assert hits.reports["packets"]["notes"]["events in several blocks"] == 1
    assert hits.reports["event_start"] == {"event": [3, 8], "tick": [5000, 50]}


def test_true_events_without_trigger_begin_with_their_first_hit(tmp_path):
    path = write(tmp_path / "a.h5", sync(), data([60, 20, 95, 30]), events=[-1, 1, 1, 2, 2])
    hits = read_packets(path, MAP)
    assert hits.time.mul(10).round().tolist() == [0, 40, 0, 65]
    assert hits.reports["packets"]["notes"]["events without trigger"] == 2
