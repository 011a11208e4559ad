"""Files of packets made by hand, row by row, for the tests of their readers."""

import h5py
import numpy as np
import torch
from hepops.lartpc import TPC, Detector, Hits, Truth
from hepops.lartpc.packets import PACKET
from hepops.lartpc.packets.format import DATA, SYNC, TIMESTAMP, TRIGGER, association, parity

PERIOD = 10_000_000
# The compound type of `packets` in larnd-sim's files, written down from one of them.
LARNDSIM = np.dtype(
    [
        ("io_group", "u1"), ("io_channel", "u1"), ("chip_id", "u1"), ("packet_type", "u1"), ("downstream_marker", "u1"),
        ("parity", "u1"), ("valid_parity", "u1"), ("channel_id", "u1"), ("timestamp", "<u8"), ("dataword", "u1"),
        ("trigger_type", "u1"), ("local_fifo", "u1"), ("shared_fifo", "u1"), ("register_address", "u1"),
        ("register_data", "u1"), ("direction", "u1"), ("local_fifo_events", "u1"), ("shared_fifo_events", "<u2"),
        ("counter", "<u4"), ("fifo_diagnostics_enabled", "u1"), ("first_packet", "u1"), ("receipt_timestamp", "<u4"),
    ]
)  # fmt: skip


def bench():
    """A small detector: two TPCs of 20 x 30 pixels, on tiles that are not full."""
    tpc = dict(y=(-6.0, 6.0), z=(-4.0, 4.0), ny=30, nx=20)
    return Detector(
        name="bench",
        tpcs=(TPC(anode=-20.0, cathode=-0.1, **tpc), TPC(anode=20.0, cathode=0.1, **tpc)),
        pixel_pitch=0.4,
    )


def data(stamp, pixel=0, adc=100, group=None, channel_map=None, detector=None, dtype=PACKET):
    """Data packets at timestamps [ticks] on pixels of the built-in numbering."""
    from hepops.lartpc.packets import ChannelMap

    channel_map = channel_map or ChannelMap.builtin(detector or bench())
    stamp = np.atleast_1d(np.asarray(stamp, np.int64))
    address = channel_map.address(torch.from_numpy(np.broadcast_to(np.asarray(pixel, np.int64), stamp.shape).copy()))
    rows = np.zeros(len(stamp), dtype)
    for name, column in zip(("io_group", "io_channel", "chip_id", "channel_id"), address, strict=True):
        rows[name] = column.numpy()
    if group is not None:
        rows["io_group"] = group
    rows["packet_type"], rows["timestamp"], rows["dataword"], rows["first_packet"] = DATA, stamp, adc, 1
    rows["parity"], rows["valid_parity"] = parity(rows), 1
    return rows


def service(kind, stamp, group=1, letter=0):
    """One packet of another type."""
    row = np.zeros(1, PACKET)
    row["packet_type"], row["timestamp"], row["io_group"], row["trigger_type"] = kind, stamp, group, letter
    return row


def sync(group=1, stamp=PERIOD, letter=83):  # S
    return service(SYNC, stamp, group, letter)


def seconds(value, group=1):
    return service(TIMESTAMP, value, group)


def trigger(stamp, group=1):
    return service(TRIGGER, stamp, group, 2)


def write(path, *rows, version="2.4", events=None, segments=None, shares=None, **datasets):
    """A file of these packets; with `events` (one per row, -1 for none) also mc_packets_assn."""
    packets = np.concatenate(rows) if rows else np.zeros(0, PACKET)
    with h5py.File(path, "w") as file:
        if version is not None:
            file.create_group("_header").attrs["version"] = version
        file["packets"] = packets
        if events is not None:
            table = np.zeros(len(packets), association(10, False))
            table["event_ids"][:, 0] = events
            table["segment_ids"][:] = -1
            if segments is not None:
                table["segment_ids"][:, : np.shape(segments)[1]] = segments
                table["fraction"][:, : np.shape(segments)[1]] = shares
            file["mc_packets_assn"] = table
        for name, values in datasets.items():
            file[name] = values
    return path


def some_hits(detector, n=40, events=3, seed=0, truth=True, longest=3000):
    """Hits at whole ticks on random pixels, sorted, with truth."""
    rng = np.random.default_rng(seed)
    event = np.sort(rng.integers(0, events, n)) * 7 + 2
    pixel = rng.integers(0, detector.num_pixels, n)
    tick = rng.integers(1, longest, n)
    order = np.lexsort((tick, pixel, event))
    event, pixel, tick = event[order], pixel[order], tick[order]
    tpc, ix, iy = detector.pixel_from_id(torch.from_numpy(pixel))
    _, y, z = detector.pixel_centre(tpc, ix, iy).unbind(-1)
    new = np.ones(n, bool)
    new[1:] = (event[1:] != event[:-1]) | (pixel[1:] != pixel[:-1])
    row = np.cumsum(new) - 1
    share = rng.random((n, 2)) + 0.1
    return Hits(
        event=torch.from_numpy(event), tpc=tpc, ix=ix, iy=iy, x=torch.zeros(n, dtype=torch.float64), y=y, z=z,
        time=torch.from_numpy(tick.astype(float)) * detector.tick,
        charge=torch.from_numpy(rng.uniform(5e3, 6e4, n)), adc=torch.from_numpy(rng.integers(0, 256, n)),
        row=torch.from_numpy(row), rank=torch.from_numpy(np.arange(n) - np.flatnonzero(new)[row] if n else row),
        truth=Truth(
            torch.arange(n).repeat_interleave(2),
            torch.from_numpy(np.stack([rng.integers(0, 50, n), rng.integers(50, 99, n)], 1).ravel()),
            torch.from_numpy(share.ravel()),
        ) if truth else None,
    )  # fmt: skip


READ = ("event", "tpc", "ix", "iy", "y", "z", "time", "adc", "row", "rank")  # what packets hold of a hit


def same(a, b, columns=READ):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in columns)


def truth_of(hits):
    return sorted(zip(*(part.tolist() for part in hits.truth), strict=True))
