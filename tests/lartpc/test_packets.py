"""Hits written as packets and read back; larnd-sim's files; what is left out."""

import h5py
import numpy as np
import pytest
import torch
from conftest import shared
from hepops.lartpc import Detector, Hits, Simulator, gun, read_segments
from hepops.lartpc.packets import (
    PACKET,
    ChannelMap,
    Channels,
    Clock,
    EventRule,
    iterate_packets,
    read_packets,
    read_truth,
    write_packets,
    write_raw,
)
from hepops.lartpc.packets.format import parity, split_unique_id, unique_id
from hypothesis import given, settings
from hypothesis import strategies as st

from .packet_files import LARNDSIM, PERIOD, READ, bench, data, same, some_hits, sync, trigger, truth_of, write

DETECTOR = bench()
MAP = ChannelMap.builtin(DETECTOR)

clocks = st.one_of(
    st.just(Clock.pps()),
    st.just(Clock.rollover()),
    st.just(Clock.larndsim()),
    st.builds(lambda p, d: Clock(period=p, delay=d, disorder=0), st.integers(100_000, 10**8), st.integers(0, 5000)),
)


# ---- round trips


@settings(max_examples=40)
@given(
    st.integers(0, 60),
    st.integers(0, 2**31),
    clocks,
    st.lists(st.integers(0, 3 * 10**7), min_size=3, max_size=3),
)
def test_what_is_written_is_read_back(tmp_path_factory, n, seed, clock, starts):
    path = tmp_path_factory.mktemp("packets") / "a.h5"
    hits = some_hits(DETECTOR, n, seed=seed)
    ids = torch.unique(hits.event).tolist()
    # Events one after the other, an event shorter than the gap to the next.
    begin = {e: 10_000 * k + s for k, (e, s) in enumerate(zip(ids, sorted(starts), strict=False))}
    counts = write_packets(path, hits, MAP, clock=clock, starts=begin)
    assert counts["types"].get("data", 0) == n and not counts["excluded"]
    found = read_packets(path, MAP)
    assert same(found, hits) and truth_of(found) == truth_of(hits)
    assert not found.reports["packets"]["excluded"]
    for how in ("trigger", "gap", "window"):
        again = read_packets(path, MAP, events=EventRule(how=how, gap=500.0, window=400.0))
        assert same(again, hits, [name for name in READ if name != "event"])
        assert torch.equal(torch.unique(hits.event)[again.event], hits.event)


@pytest.mark.parametrize("how", ["truth", "trigger", "gap", "window"])
@pytest.mark.parametrize(
    "clock", [Clock.pps(), Clock.rollover(), Clock.larndsim()], ids=["pps", "rollover", "larndsim"]
)
@pytest.mark.parametrize("chunk", [7, 100, 10_000])
def test_parts_are_the_whole(tmp_path, how, clock, chunk):
    hits = some_hits(DETECTOR, 300, events=9)
    starts = torch.tensor([3, 700_000, 9_999_000, 20_000_000, 20_400_000, 55_000_000, 55_010_000, 79_990_000, 2**27])
    write_packets(tmp_path / "a.h5", hits, MAP, clock=clock, starts=starts)
    whole = read_packets(tmp_path / "a.h5", MAP, events=how)
    parts = list(iterate_packets(tmp_path / "a.h5", MAP, events=how, chunk=chunk))
    assert max(len(part) for part in parts) < (len(hits) if chunk < 1000 else len(hits) + 1)
    joined = Hits.cat(parts)
    assert same(joined, whole) and torch.equal(joined.charge, whole.charge)
    assert truth_of(joined) == truth_of(whole) == truth_of(hits)
    assert parts[-1].reports["packets"] == whole.reports["packets"]
    assert whole.reports["event_start"]["tick"] == starts.tolist()


def test_a_simulation_is_read_back_with_its_channels(tmp_path):
    detector = Detector.module0()
    segments = gun.shoot(detector, 3, seed=1)
    hits = Simulator(detector)(segments, seed=2, truth=True)
    channel_map, channels = ChannelMap.builtin(detector), Channels.default(detector)
    channels = channels.replace(pedestal=channels.pedestal + torch.linspace(-20, 20, len(channels)))
    write_packets(tmp_path / "a.h5", hits, channel_map, channels, segments=segments)
    found = read_packets(tmp_path / "a.h5", channel_map, channels)
    pixel = detector.pixel_id(found.tpc, found.ix, found.iy)
    assert same(found, hits, ("event", "tpc", "ix", "iy", "time", "rank"))
    assert torch.equal(found.adc, channels.digitise(hits.charge, pixel)) and not torch.equal(found.adc, hits.adc)
    # Half a code, where the ADC does not saturate.
    half = 0.5 * (channels.v_ref - channels.v_cm) / 256 / channels.gain
    inside = (found.adc > 0) & (found.adc < 255)
    assert bool(((found.charge - hits.charge).abs()[inside] <= (1 + 1e-6) * half[pixel][inside]).all())
    assert truth_of(found) == truth_of(hits)
    again = read_segments(tmp_path / "a.h5")
    assert torch.equal(again.start, segments.start) and torch.equal(again.dE, segments.dE)


def test_times_between_ticks_are_rounded_down(tmp_path):
    hits = some_hits(DETECTOR, 20, events=1)
    shifted = Hits(**{**hits.columns(), "time": hits.time + 0.077})
    write_packets(tmp_path / "a.h5", shifted, MAP)
    assert same(read_packets(tmp_path / "a.h5", MAP), hits)


# ---- larnd-sim's files


def larndsim(path, n=200, seed=0, old=False):
    """A file of larnd-sim's types with random data packets on all pixels, and its truth tables."""
    rng = np.random.default_rng(seed)
    event = np.sort(rng.integers(0, 5, n))
    pixel = rng.integers(0, DETECTOR.num_pixels, n)
    rows = data(event * 1_000_000 + rng.integers(0, 2000, n), pixel, rng.integers(0, 256, n), dtype=LARNDSIM)
    rows["receipt_timestamp"] = rows["timestamp"]
    parts, ids = [], []
    for k in range(5):
        mine = rows[event == k]
        parts += [sync(stamp=mine["timestamp"][0]), trigger(k * 1_000_000 - 3 if k else 0), mine]
        ids += [-1, -1, *([k + 40] * len(mine))]
    ids = np.array(ids)
    packets = np.concatenate(parts)
    names = ("track_ids", "i8", (5,)), ("fraction", "f8", (5,))
    table = np.zeros(
        len(packets), [*names] if old else [("event_ids", "i8", (1,)), ("segment_ids", "i8", (5,)), names[1]]
    )
    which = "track_ids" if old else "segment_ids"
    table[which] = -1
    if not old:
        table["event_ids"][:, 0] = ids
    isdata = ids >= 0
    segments = np.zeros(100, [("eventID", "u4"), ("segment_id", "u4"), ("dE", "f4")])
    segments["eventID"] = 40 + np.arange(100) // 20
    segments["segment_id"] = np.arange(100)[::-1] + 1000 if not old else 0
    row = (ids[isdata] - 40) * 20 + rng.integers(0, 20, isdata.sum())
    table[which][isdata, 0] = row if old else segments["segment_id"][row]
    table["fraction"][isdata, 0] = 1
    name = "tracks" if old else "segments"
    stack = np.zeros(3, [("event_id", "u4"), ("part_pdg", "i4")])
    with h5py.File(path, "w") as file:
        file.create_group("_header").attrs["version"] = "2.4"
        file["packets"] = packets.astype(LARNDSIM)
        file["mc_packets_assn"], file[name], file["mc_stack"] = table, segments, stack
        file["configs"] = np.zeros(0, PACKET)
    return packets, ids, row


@pytest.mark.parametrize("old", [False, True])
def test_a_file_of_larndsims_types_is_read_without_loss(tmp_path, old):
    packets, ids, row = larndsim(tmp_path / "a.h5", old=old)
    assert packets.dtype == LARNDSIM == PACKET
    hits = read_packets(tmp_path / "a.h5", MAP)
    report = hits.reports["packets"]
    assert report["types"] == {"data": 200, "sync": 5, "trigger": 5} and not report["excluded"]
    assert report["notes"]["sync packets away from a reset"] == 4  # larnd-sim writes one with every event
    mine = packets[ids >= 0]
    # From the hits every data packet comes back: where, when, what, whose.
    address = MAP.address(DETECTOR.pixel_id(hits.tpc, hits.ix, hits.iy))
    start = dict(zip(*hits.reports["event_start"].values(), strict=True))
    stamp = [round(t * 10) + start[e] for t, e in zip(hits.time.tolist(), hits.event.tolist(), strict=True)]
    ours = sorted(zip(hits.event.tolist(), *(c.tolist() for c in address), stamp, hits.adc.tolist(), strict=True))
    names = ("io_group", "io_channel", "chip_id", "channel_id", "timestamp", "dataword")
    theirs = sorted(zip(ids[ids >= 0].tolist(), *(mine[name].tolist() for name in names), strict=True))
    assert ours == theirs
    assert sorted(hits.truth.segment.tolist()) == sorted(row.tolist())
    assert torch.equal(hits.truth.segment // 20 + 40, hits.event[hits.truth.hit])


def test_raw_packets_and_truth_tables_are_copied_bit_by_bit(tmp_path):
    packets, _, _ = larndsim(tmp_path / "a.h5")
    tables = read_truth(tmp_path / "a.h5")
    assert set(tables) == {"segments", "mc_stack", "mc_packets_assn"}
    write_raw(tmp_path / "b.h5", packets, tables)
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["packets"].dtype == LARNDSIM and file["packets"][:].tobytes() == packets.tobytes()
        assert all(file[name][:].tobytes() == table.tobytes() for name, table in tables.items())
    assert same(read_packets(tmp_path / "a.h5", MAP), read_packets(tmp_path / "b.h5", MAP))


def test_what_larndsims_readers_look_for_is_there(tmp_path):
    segments = gun.shoot(DETECTOR, 2, seed=3)
    hits = Simulator(DETECTOR)(segments, seed=1, truth=True, threshold=3000.0)
    assert len(hits)
    write_packets(tmp_path / "a.h5", hits, MAP, segments=segments)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["packets"].dtype == LARNDSIM and file["packets"].maxshape == (None,)
        assert file["_header"].attrs["version"] == "2.4" and {"created", "modified"} <= set(file["_header"].attrs)
        assert "7: 'trigger'" in file["packets"].attrs["packet_types"]
        assert file["messages"].dtype.names == ("message", "timestamp", "index")
        assert file["configs"].attrs["asic_version"] == "2"
        assert file["configs"].attrs["vdrift"] == pytest.approx(0.1596452, rel=1e-6)  # docs: v at 0.5 kV/cm
        assert {"long_diff", "tran_diff", "lifetime", "drift_length"} <= set(file["configs"].attrs)
        assn, packets = file["mc_packets_assn"][:], file["packets"][:]
        assert assn.dtype["event_ids"].shape == (1,) and assn.dtype["segment_ids"].base == np.int64
        isdata = packets["packet_type"] == 0
        assert (assn["event_ids"][~isdata] == -1).all() and (assn["segment_ids"][~isdata] == -1).all()
        assert np.isin(assn["event_ids"][isdata, 0], hits.event.numpy()).all()
        shares = assn["fraction"][isdata]
        assert (np.diff(np.abs(shares), axis=1) <= 1e-12).all()  # the largest first
        assert np.array_equal(parity(packets[isdata]), packets["parity"][isdata])
        # A segment's trajectory, with the sum of its segments' shares.
        used = assn["file_traj_ids"][isdata]
        assert np.isin(used[used >= 0], segments.track.numpy()).all()
        np.testing.assert_allclose(assn["fraction_traj"][isdata].sum(1), shares.sum(1), rtol=1e-12, atol=1e-12)
        assert {"event_id", "segment_id", "traj_id", "dE"} <= set(file["segments"].dtype.names)


def test_other_truth_of_the_source_is_copied(tmp_path):
    tables = {n: np.arange(4).astype([("eventID", "u4")]) for n in ("trajectories", "vertices", "mc_hdr", "mc_stack")}
    with h5py.File(tmp_path / "edep.h5", "w") as file:
        for name, table in tables.items():
            file[name] = table
    write_packets(tmp_path / "a.h5", some_hits(DETECTOR), MAP, source=tmp_path / "edep.h5")
    found = read_truth(tmp_path / "a.h5")
    assert all(found[name].tobytes() == table.tobytes() for name, table in tables.items())


def test_associations_are_cut_where_asked(tmp_path):
    hits = some_hits(DETECTOR, 20)
    counts = write_packets(tmp_path / "a.h5", hits, MAP, associations=1)
    assert counts["excluded"] == {"truth entries beyond associations": 20}
    found = read_packets(tmp_path / "a.h5", MAP)
    share = hits.truth.fraction.reshape(20, 2)
    assert torch.equal(found.truth.fraction, share.max(1).values)


# ---- bits


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=8), st.integers(0, 255), st.integers(0, 63))
def test_parity_makes_the_number_of_ones_odd(stamps, adc, channel):
    rows = data(np.array(stamps), adc=adc)
    rows["channel_id"] = channel
    rows["parity"] = parity(rows)
    names = ("packet_type", "chip_id", "channel_id", "timestamp", "first_packet", "dataword", "trigger_type", "parity")
    assert all(sum(int(row[name]).bit_count() for name in names) % 2 == 1 for row in rows)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 63))
def test_unique_ids_are_unique(group, lane, chip, channel):
    number = unique_id(group, lane, chip, channel)
    assert tuple(int(x) for x in split_unique_id(number)) == (group, lane, chip, channel)


# ---- what is left out, and counted


def refuse_or_count(path, reason, number, row, **options):
    """A reason is counted, and with on_bad="raise" the first row is named."""
    hits = read_packets(path, MAP, **options)
    assert hits.reports["packets"]["excluded"] == {reason: number}
    with pytest.raises(ValueError, match=rf"a.h5: {number} packets {reason}, the first is row {row}$"):
        read_packets(path, MAP, on_bad="raise", **options)
    return hits


def test_bad_parity(tmp_path):
    rows = data([10, 20, 30], [1, 2, 3])
    rows["valid_parity"][1] = 0
    path = write(tmp_path / "a.h5", rows)
    hits = refuse_or_count(path, "of bad parity", 1, 1)
    assert hits.ix.tolist() == [1, 3]
    assert len(read_packets(path, MAP, check_parity="ignore")) == 3
    assert len(read_packets(path, MAP, check_parity="compute")) == 3  # the bits themselves are good


def test_a_flipped_bit_is_found_where_parity_is_computed(tmp_path):
    rows = data([10, 20, 30], [1, 2, 3])
    rows["dataword"][2] ^= 4
    path = write(tmp_path / "a.h5", rows)
    assert not read_packets(path, MAP).reports["packets"]["excluded"]
    refuse_or_count(path, "of bad parity", 1, 2, check_parity="compute")


def test_unknown_chips(tmp_path):
    rows = data([10, 20, 30], [1, 2, 3])
    rows["chip_id"][0], rows["io_group"][1] = 99, 77
    rows["parity"] = parity(rows)
    assert len(refuse_or_count(write(tmp_path / "a.h5", rows), "of chips that are not in the layout", 2, 0)) == 1


def test_unknown_channels(tmp_path):
    # The last chip along z has 20 - 2 * 8 = 4 columns of pixels: its channel 7 reads none.
    rows = data([10, 20], [1, 19])
    rows["channel_id"][1] = 7
    rows["parity"] = parity(rows)
    assert len(refuse_or_count(write(tmp_path / "a.h5", rows), "of channels that are not in the layout", 1, 1)) == 1


def test_unknown_types(tmp_path):
    rows = data([10, 20])
    rows["packet_type"][1] = 9
    hits = refuse_or_count(write(tmp_path / "a.h5", rows), "of unknown type", 1, 1)
    assert hits.reports["packets"]["types"] == {"data": 1, "type 9": 1}


def test_timestamps_beyond_the_period(tmp_path):
    # The clock may be slow by 1e-3: up to there it is the next second.
    path = write(tmp_path / "a.h5", data([10, PERIOD + 5000, 2 * PERIOD]))
    assert len(refuse_or_count(path, "with a timestamp beyond the clock's period", 1, 2)) == 2
    assert len(read_packets(path, MAP, clock=Clock.rollover())) == 3


def test_packets_of_no_true_event(tmp_path):
    path = write(tmp_path / "a.h5", data([10, 20, 30]), events=[4, -1, 4])
    hits = refuse_or_count(path, "of no true event", 1, 1)
    assert hits.event.tolist() == [4, 4]


def test_dead_and_noisy_channels(tmp_path):
    path = write(tmp_path / "a.h5", data([10, 20, 30, 40], [1, 2, 3, 3]))
    channels = Channels.default(DETECTOR).with_status([2], "dead").with_status([3], "noisy")
    hits = read_packets(path, MAP, channels)
    assert hits.ix.tolist() == [1, 3, 3]
    assert hits.reports["packets"]["excluded"] == {"of dead channels": 1}
    assert hits.reports["packets"]["notes"]["of noisy channels, kept"] == 2
    dropped = read_packets(path, MAP, channels, noisy="drop")
    assert dropped.ix.tolist() == [1]
    assert dropped.reports["packets"]["excluded"] == {"of dead channels": 1, "of noisy channels": 2}


def test_segments_that_the_file_lacks(tmp_path):
    table = np.zeros(2, [("eventID", "u4"), ("segment_id", "u4")])
    table["segment_id"] = [5, 9]
    path = tmp_path / "a.h5"
    write(path, data([10, 20]), events=[0, 0], segments=[[9, 5], [7, -1]], shares=[[0.75, 0.25], [1, 0]])
    with h5py.File(path, "a") as file:
        file["segments"] = table
    hits = read_packets(path, MAP)
    assert truth_of(hits) == [(0, 0, 0.25), (0, 1, 0.75)]
    assert hits.reports["packets"]["notes"]["truth entries of segments that the file lacks"] == 1


# ---- bad files


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5: no such file"):
        read_packets(tmp_path / "nowhere.h5", MAP)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["charge"] = [1]
    with pytest.raises(ValueError, match=r"there is no dataset 'packets', only \['charge'\]"):
        read_packets(tmp_path / "a.h5", MAP)
    for field in ("timestamp", "channel_id", "dataword"):
        names = [n for n in PACKET.names if n != field]
        with pytest.raises(ValueError, match=f"'packets' has no field {field}, only"):
            read_packets(write(tmp_path / "a.h5", data([1])[names]), MAP)
    no_flag = data([1])[[n for n in PACKET.names if n not in ("valid_parity", "parity")]]
    with pytest.raises(ValueError, match=r"no field parity; check_parity='ignore' reads it"):
        read_packets(write(tmp_path / "a.h5", no_flag), MAP)
    assert len(read_packets(tmp_path / "a.h5", MAP, check_parity="ignore")) == 1


def test_foreign_types_are_refused(tmp_path):
    rows = data([1])
    floats = rows.astype([(n, "f4" if n == "timestamp" else PACKET[n]) for n in PACKET.names])
    with pytest.raises(ValueError, match="field timestamp of 'packets' must hold whole numbers, got float32"):
        read_packets(write(tmp_path / "a.h5", floats), MAP)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["packets"] = np.zeros((4, 3))
    with pytest.raises(ValueError, match="must be a dataset of named fields, one row per packet"):
        read_packets(tmp_path / "b.h5", MAP)
    for version in ("0.0", "1.0", "3.0"):
        with pytest.raises(ValueError, match=f"version {version}, this library reads 2.x"):
            read_packets(write(tmp_path / "a.h5", rows, version=version), MAP)
    assert len(read_packets(write(tmp_path / "a.h5", rows, version=None), MAP)) == 1  # before there was a header


def test_older_minor_versions_are_read(tmp_path):
    """2.0 has neither first_packet nor receipt_timestamp."""
    rows = data([1, 2])[[n for n in PACKET.names if n not in ("first_packet", "receipt_timestamp")]]
    assert len(read_packets(write(tmp_path / "a.h5", rows, version="2.0"), MAP)) == 2


@pytest.mark.parametrize("keep", [0, 100, 3000, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, keep):
    write_packets(tmp_path / "a.h5", some_hits(DETECTOR, 3000), MAP)
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])
    with pytest.raises(ValueError, match=r"a\.h5: .*truncated") as error:
        read_packets(tmp_path / "a.h5", MAP)
    assert "\n" not in str(error.value)


def test_truth_that_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", data([1, 2]))
    with pytest.raises(ValueError, match="no 'mc_packets_assn' with event ids, events='truth' needs it"):
        read_packets(path, MAP, events="truth")
    with h5py.File(path, "a") as file:
        file["mc_packets_assn"] = np.zeros(3, [("segment_ids", "i8", (2,)), ("fraction", "f8", (2,))])
    with pytest.raises(ValueError, match="2 packets, but 'mc_packets_assn' has 3 rows"):
        read_packets(path, MAP)
    with h5py.File(path, "a") as file:
        del file["mc_packets_assn"]
        file["mc_packets_assn"] = np.zeros(2, [("who", "i8")])
    with pytest.raises(ValueError, match="has no segment_ids"):
        read_packets(path, MAP)


def test_no_packets_are_no_hits(tmp_path):
    for events in (None, np.zeros(0)):
        hits = read_packets(write(tmp_path / "a.h5", events=events), MAP)
        assert len(hits) == 0 and hits.reports["packets"]["rows"] == 0
    write_packets(tmp_path / "a.h5", some_hits(DETECTOR, 0), MAP)
    assert len(read_packets(tmp_path / "a.h5", MAP)) == 0
    assert len(read_packets(write(tmp_path / "a.h5", sync(), trigger(5)), MAP)) == 0


def test_arguments_are_checked(tmp_path):
    hits, path = some_hits(DETECTOR, 5), tmp_path / "a.h5"
    write_packets(path, hits, MAP)
    for name in ("noisy", "check_parity", "on_bad", "missing_sync"):
        with pytest.raises(ValueError, match=f"{name} must be one of .*, got 'maybe'"):
            read_packets(path, MAP, **{name: "maybe"})
    with pytest.raises(ValueError, match=r"how: .* got 'slope'"):
        read_packets(path, MAP, events="slope")
    with pytest.raises(ValueError, match="chunk must be positive, got 0"):
        list(iterate_packets(path, MAP, chunk=0))
    with pytest.raises(TypeError, match="unknown option 'window'"):
        list(iterate_packets(path, MAP, window=3))
    other = Channels.default(Detector.module0())
    with pytest.raises(ValueError, match="channels must be 1200, one per pixel, got 78400"):
        read_packets(path, MAP, other)
    with pytest.raises(ValueError, match="channels must be 1200, one per pixel, got 78400"):
        write_packets(path, hits, MAP, other)
    with pytest.raises(ValueError, match="window"):
        EventRule(how="gap", window=0.0)


# ---- what is not written


def test_what_packets_cannot_hold_is_refused(tmp_path):
    hits, path = some_hits(DETECTOR, 5), tmp_path / "a.h5"
    with pytest.raises(ValueError, match=r"a packet holds ADC codes 0 ... 255, got .* 300"):
        write_packets(path, Hits(**{**hits.columns(), "adc": torch.full((5,), 300)}), MAP)
    with pytest.raises(ValueError, match=r"hit 0 is on \(tpc, ix, iy\) = \(9, "):
        write_packets(path, Hits(**{**hits.columns(), "tpc": torch.full((5,), 9)}), MAP)
    with pytest.raises(ValueError, match=r"times begin at tick .*, before the first reset"):
        write_packets(path, Hits(**{**hits.columns(), "time": hits.time - 1e6}), MAP, starts={e: 0 for e in range(99)})
    with pytest.raises(ValueError, match="times must be finite"):
        write_packets(path, Hits(**{**hits.columns(), "time": hits.time * torch.nan}), MAP)
    with pytest.raises(ValueError, match="starts has no event 2"):
        write_packets(path, hits, MAP, starts={1: 5})
    with pytest.raises(ValueError, match="starts must be int64"):
        write_packets(path, hits, MAP, starts=torch.zeros(9))
    with pytest.raises(ValueError, match="more than 10000000"):
        write_packets(path, hits, MAP, starts={e: e * 2**50 for e in range(99)})
    with pytest.raises(ValueError, match=r"truth names segment .*, but there are 1 segments"):
        write_packets(path, hits, MAP, segments=gun.shoot(DETECTOR, 1, seed=0)[:1])
    with pytest.raises(ValueError, match="associations must be positive, got -1"):
        write_packets(path, hits, MAP, associations=-1)
    for name in ("on_absent", "noisy"):
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            write_packets(path, hits, MAP, **{name: "maybe"})
    assert not path.exists()


def test_dead_channels_send_nothing(tmp_path):
    hits = some_hits(DETECTOR, 50)
    pixel = DETECTOR.pixel_id(hits.tpc, hits.ix, hits.iy)
    channels = Channels.default(DETECTOR).with_status(pixel[:7], "dead").with_status(pixel[40:], "noisy")
    dead = torch.isin(pixel, pixel[:7])
    noisy = torch.isin(pixel, pixel[40:]) & (channels.status[pixel] == 2)
    counts = write_packets(tmp_path / "a.h5", hits, MAP, channels)
    assert counts["excluded"] == {"on dead channels": int(dead.sum() - (dead & noisy).sum())}
    counts = write_packets(tmp_path / "a.h5", hits, MAP, channels, noisy="drop")
    assert counts["excluded"]["on noisy channels"] == int(noisy.sum())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write_packets(path, some_hits(DETECTOR, 5), MAP)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        write_packets(path, some_hits(DETECTOR, 9), MAP)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_the_muons_at_hand_make_packets_and_come_back(tmp_path):
    source = shared("data/lartpc/edepsim/muons_0.h5")
    segments = read_segments(source)
    properties = shared("data/lartpc/detector/module0.yaml")
    layout = shared("data/lartpc/layouts/multi_tile_layout-2.4.16_v4.yaml")
    detector = Detector.from_yaml(properties, layout)
    channel_map = ChannelMap.from_yaml(properties, layout, detector=detector)
    hits = Simulator(detector)(segments, seed=0, truth=True)
    write_packets(tmp_path / "a.h5", hits, channel_map, segments=segments, source=source)
    found = read_packets(tmp_path / "a.h5", channel_map)
    assert len(hits) > 600 and same(found, hits, ("event", "tpc", "ix", "iy", "time", "adc", "rank"))
    assert truth_of(found) == truth_of(hits)
