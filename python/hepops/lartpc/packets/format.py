"""The LArPix HDF5 format 2.4, as larpix-control and larnd-sim write it: names, types, parity.

A LArPix v2 word has 64 bits: packet_type 2, chip_id 8, channel_id 6, timestamp 31, first_packet 1, dataword 8,
trigger_type 2, local_fifo 2, shared_fifo 2, downstream_marker 1, parity 1. The parity bit makes their number odd.

References: larpix-control, larpix/format/hdf5format.py and larpix/packet/packet_v2.py; larnd-sim, larndsim/fee.py.
"""

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

VERSION = "2.4"
DATA, TEST, CONFIG_WRITE, CONFIG_READ, TIMESTAMP, MESSAGE, SYNC, TRIGGER = range(8)
TYPES = ("data", "test", "config write", "config read", "timestamp", "message", "sync", "trigger")

PACKET = np.dtype(
    [
        ("io_group", "u1"),
        ("io_channel", "u1"),
        ("chip_id", "u1"),
        ("packet_type", "u1"),
        ("downstream_marker", "u1"),
        ("parity", "u1"),
        ("valid_parity", "u1"),
        ("channel_id", "u1"),
        ("timestamp", "<u8"),  # ticks; in timestamp packets unix seconds
        ("dataword", "u1"),  # ADC code
        ("trigger_type", "u1"),  # in sync packets the letter of their type
        ("local_fifo", "u1"),
        ("shared_fifo", "u1"),
        ("register_address", "u1"),
        ("register_data", "u1"),
        ("direction", "u1"),
        ("local_fifo_events", "u1"),
        ("shared_fifo_events", "<u2"),
        ("counter", "<u4"),
        ("fifo_diagnostics_enabled", "u1"),
        ("first_packet", "u1"),
        ("receipt_timestamp", "<u4"),
    ]
)
MESSAGE_ROW = np.dtype([("message", "S64"), ("timestamp", "<u8"), ("index", "<u4")])
# One row of a chip's registers, 239 of them (Lightpix v1, the largest that shares the type).
CONFIG_ROW = np.dtype(
    [("timestamp", "<u8"), ("io_group", "u1"), ("io_channel", "u1"), ("chip_id", "u1"), ("registers", "u1", (239,))]
)
NEEDED = ("io_group", "io_channel", "chip_id", "packet_type", "channel_id", "timestamp", "dataword")
SYNC_LETTER = ord("S")  # a reset of the clock; H is a heartbeat, C a change of the clock's source
TRIGGER_BITS = 2  # larnd-sim's
# What a parity is made of; whatever a file lacks was zero on the wire.
_PARITY = (
    "packet_type", "chip_id", "channel_id", "timestamp", "first_packet", "dataword", "trigger_type", "local_fifo",
    "shared_fifo", "downstream_marker",
)  # fmt: skip


def association(entries: int, trajectories: bool) -> np.dtype[Any]:
    """larnd-sim's `mc_packets_assn`: for every packet its event, and the segments (and trajectories) that made it."""
    ids, shares = ("i8", (entries,)), ("f8", (entries,))
    fields: list[Any] = [("event_ids", "i8", (1,)), ("segment_ids", *ids), ("fraction", *shares)]
    return np.dtype(fields + ([("file_traj_ids", *ids), ("fraction_traj", *shares)] if trajectories else []))


def parity(packets: Array) -> Array:
    """The parity bit that makes the number of ones in a data word odd, uint8 (num_packets)."""
    # The number's parity is that of the exclusive or of the fields: one count of bits in all.
    folded = np.zeros(len(packets), np.uint64)
    for name in _PARITY:
        if name in (packets.dtype.names or ()):
            folded ^= packets[name].astype(np.uint64)
    return (1 - (np.bitwise_count(folded) & 1)).astype(np.uint8)


def unique_id(io_group: Array, io_channel: Array, chip: Array, channel: Array) -> Array:
    """One number per channel, ((io_group 256 + io_channel) 256 + chip) 64 + channel, int64: module files' keys."""
    group, lane, asic, pad = (np.asarray(a, np.int64) for a in (io_group, io_channel, chip, channel))
    return ((group * 256 + lane) * 256 + asic) * 64 + pad


def split_unique_id(number: Array) -> tuple[Array, Array, Array, Array]:
    """io_group, io_channel, chip and channel of a `unique_id`."""
    number = np.asarray(number, np.int64)
    return number >> 22, (number >> 14) & 255, (number >> 6) & 255, number & 63


def check_packets(path: str | Path, file: Any) -> Any:
    """The dataset of packets, refused in one line where it is none that we know."""
    version = file["_header"].attrs.get("version") if "_header" in file else None
    version = version.decode() if isinstance(version, bytes) else version
    if version is not None and not str(version).startswith("2."):
        raise ValueError(f"{path}: LArPix HDF5 version {version}, this library reads 2.x (chips of version 2)")
    if "packets" not in file:
        raise ValueError(f"{path}: there is no dataset 'packets', only {sorted(file)}")
    packets = file["packets"]
    check_fields(path, "packets", packets, NEEDED)
    return packets


def check_fields(path: str | Path, name: str, dataset: Any, needed: tuple[str, ...]) -> None:
    """Refuse a dataset that is no table of whole numbers with the needed fields."""
    kind: Any = getattr(dataset, "dtype", None)
    names = getattr(kind, "names", None)
    if names is None or len(dataset.shape) != 1:
        raise ValueError(f"{path}: {name!r} must be a dataset of named fields, one row per packet")
    for field in needed:
        if field not in names:
            raise ValueError(f"{path}: {name!r} has no field {field}, only {sorted(names)}")
        if kind[field].kind not in "iub" or kind[field].shape:
            raise ValueError(f"{path}: field {field} of {name!r} must hold whole numbers, got {kind[field]}")
