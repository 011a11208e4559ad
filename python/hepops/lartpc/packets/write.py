"""Hits out as packets: the HDF5 file that larnd-sim writes and its readers, and larpix-control's, know.

packets           sync, timestamp, trigger and data packets in the order of time (types 6, 4, 7, 0)
mc_packets_assn   for every packet event_ids, segment_ids, fraction, file_traj_ids, fraction_traj
segments, trajectories, vertices, mc_hdr, mc_stack      where they are given
messages, configs                                        empty; the attributes of configs are larnd-sim's
_header           attributes version, created, modified; ours: hepops, hepops_clock
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hepops.core.files import atomic, open_hdf5

from ..detector import Detector
from ..drift import velocity
from ..edepsim import segment_table
from ..hits import Hits, Truth
from ..parameters import Parameters
from ..segments import Segments
from .channel_map import Address, ChannelMap
from .channels import DEAD, NOISY, Channels
from .clock import Clock
from .format import (
    CONFIG_ROW,
    DATA,
    MESSAGE_ROW,
    PACKET,
    SYNC,
    SYNC_LETTER,
    TIMESTAMP,
    TRIGGER,
    TRIGGER_BITS,
    TYPES,
    VERSION,
    Array,
    association,
    parity,
)
from .read import CLOCK

SPACING = 1_000_000  # ticks from event to event where nothing else is said: larnd-sim's mean, 0.1 s
LEAST = 10  # entries of mc_packets_assn, larnd-sim's number
COPIED = ("trajectories", "vertices", "mc_hdr", "mc_stack")  # truth that edep-sim files and larnd-sim's share
_MOST_RESETS = 10_000_000


def write_packets(
    path: str | Path,
    hits: Hits,
    channel_map: ChannelMap,
    channels: Channels | None = None,
    *,
    clock: Clock | None = None,
    starts: Tensor | Mapping[int, int] | None = None,
    segments: Segments | None = None,
    source: str | Path | None = None,
    associations: int | None = None,
    on_absent: Literal["raise", "exclude"] = "raise",
    noisy: Literal["keep", "drop"] = "keep",
    parameters: Parameters | None = None,
    unix: int = 0,
) -> dict[str, Any]:
    """Write hits as LArPix packets, in the HDF5 format 2.4 and with larnd-sim's truth tables.

    Args:
        path: The file; it is whole or not there, and an existing one is replaced at the end.
        hits: Of `Simulator` or a reader.
        channel_map: Which channel reads which pixel.
        channels: Constants that turn charge into ADC codes, hits of dead channels are left out; None: the hits' codes.
        clock: Period, delay and tick; a pulse per second where not given.
        starts: Time zero of each event, in ticks since the first reset: int64 (num_events) in rising order of ids, or a
            mapping of ids. By default events follow each other every 0.1 s, or longer where one lasts longer.
        segments: What made the hits; `truth.segment` counts them. Becomes the dataset `segments`.
        source: An edep-sim file whose trajectories, vertices, mc_hdr and mc_stack are copied.
        associations: Segments per packet that are stored, the largest shares first; by default as many as any hit has,
            at least 10. What is cut is counted.
        on_absent: Hits on pixels that no channel reads: refuse, or leave out and count.
        noisy: Whether hits of noisy channels stay.
        parameters: Those of the configs' attributes (vdrift, lifetime ...); the detector's nominal ones by default.
        unix: Seconds since 1970 at the first reset, for timestamp packets.

    Returns:
        Counts: packets written by type, hits left out by reason.

    A time that is no multiple of the clock's tick is rounded down to one. The order of packets of one tick is that of
    the hits. Deterministic, but for the times of creation in `_header`.

    Raises:
        ValueError: a pixel without channel, an event without start, a time before the first reset, more than 8 bits.

    References:
        | larpix-control, larpix/format/hdf5format.py; larnd-sim, larndsim/fee.py, export_to_hdf5
    """
    import h5py

    from hepops import _core

    clock = clock or Clock.of(channel_map.detector.tick)
    detector = channel_map.detector
    hits = hits.to("cpu")
    kept, address, adc, excluded = _choose(hits, channel_map, channels, on_absent, noisy)
    event = kept.event.numpy()
    begin = _starts(hits, event, starts, clock)
    tick = begin[1][np.searchsorted(begin[0], event)] + clock.ticks(kept.time.detach().double().numpy()) + clock.delay
    if len(tick) and int(min(tick.min(), begin[1].min())) < 0:
        raise ValueError(
            f"write_packets: times begin at tick {int(min(tick.min(), begin[1].min()))}, before the first reset"
        )
    rows, order = _packets(tick, address, adc, begin[1], channel_map.io_groups, clock, unix)
    row_of = np.empty(len(order), np.int64)
    row_of[order] = np.flatnonzero(rows["packet_type"] == DATA)
    assn, cut = _truth(kept, event, segments, associations, row_of, len(rows))
    if cut:
        excluded["truth entries beyond associations"] = cut
    copied = _copied(source)
    noted = clock.replace(disorder=0)
    now = time.time()
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.create_group("_header").attrs.update(
            {"version": VERSION, "created": now, "modified": now, "hepops": _core.version, CLOCK: noted.to_json()}
        )
        packets = file.create_dataset("packets", data=rows, maxshape=(None,))
        packets.attrs["packet_types"] = "\n" + "".join(f"{k}: '{name}',\n" for k, name in enumerate(TYPES))
        file.create_dataset("messages", (0,), MESSAGE_ROW, maxshape=(None,))
        configs = file.create_dataset("configs", (0,), CONFIG_ROW, maxshape=(None,))
        configs.attrs.update({"asic_version": "2", **_constants(detector, parameters)})
        file.create_dataset("mc_packets_assn", data=assn, maxshape=(None,))
        if segments is not None:
            file.create_dataset("segments", data=segment_table(segments, positions="f8"), maxshape=(None,))
        for name, values in copied.items():
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))
    kinds = np.bincount(rows["packet_type"], minlength=len(TYPES))
    return {"types": {TYPES[k]: int(n) for k, n in enumerate(kinds) if n}, "excluded": excluded}


def write_raw(
    path: str | Path, packets: Array, tables: Mapping[str, Array] | None = None, clock: Clock | None = None
) -> None:
    """Write packets, and further tables by name, as they are: what h5py reads from a file stands in it again.

    Args:
        path: The file; whole or not there.
        packets: Structured array, such as `hepops.lartpc.packets.PACKET` describes.
        tables: Further datasets, such as `read_truth` gives.
        clock: Noted in the header where it is given.
    """
    import h5py

    now = time.time()
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.create_group("_header").attrs.update({"version": VERSION, "created": now, "modified": now})
        if clock is not None:
            file["_header"].attrs[CLOCK] = clock.to_json()
        for name, values in {"packets": packets, **(tables or {})}.items():
            file.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]))


def _choose(
    hits: Hits, channel_map: ChannelMap, channels: Channels | None, on_absent: str, noisy: str
) -> tuple[Hits, Address, Array, dict[str, int]]:
    """Hits that are written, where they are read, their ADC codes, and what is left out."""
    for name, value, choices in (("on_absent", on_absent, ("raise", "exclude")), ("noisy", noisy, ("keep", "drop"))):
        if value not in choices:
            raise ValueError(f"write_packets: {name} must be one of {choices}, got {value!r}")
    detector = channel_map.detector
    if channels is not None and len(channels) != detector.num_pixels:
        raise ValueError(f"write_packets: channels must be {detector.num_pixels}, one per pixel, got {len(channels)}")
    _check_pixels(hits, detector)
    pixel = detector.pixel_id(hits.tpc, hits.ix, hits.iy)
    address = channel_map.address(pixel)
    absent = address.chip < 0
    if on_absent == "raise" and bool(absent.any()):
        first = int(torch.nonzero(absent)[0])
        where = tuple(int(c[first]) for c in (hits.tpc, hits.ix, hits.iy))
        raise ValueError(
            f"write_packets: {int(absent.sum())} hits are on pixels that no channel reads, the first is hit {first}, "
            f"(tpc, ix, iy) = {where}; on_absent='exclude' leaves them out"
        )
    left = {"on pixels that no channel reads": absent}
    if channels is not None:
        status = channels.status[pixel]
        left["on dead channels"] = (status == DEAD) & ~absent
        left["on noisy channels"] = (status == NOISY) & ~absent & (noisy == "drop")
    keep = ~torch.stack(list(left.values())).any(0)
    kept, pixel = hits[keep], pixel[keep]
    adc = kept.adc if channels is None else channels.digitise(kept.charge, pixel)
    codes = adc.detach().round().long().numpy()
    if len(codes) and not 0 <= codes.min() <= codes.max() <= 255:
        raise ValueError(f"write_packets: a packet holds ADC codes 0 ... 255, got {codes.min()} ... {codes.max()}")
    counts = {reason: int(mask.sum()) for reason, mask in left.items()}
    return kept, Address(*(c[keep] for c in address)), codes, {reason: n for reason, n in counts.items() if n}


def _check_pixels(hits: Hits, detector: Detector) -> None:
    g = detector.geometry
    good = (hits.tpc >= 0) & (hits.tpc < len(detector.tpcs))
    tpc = torch.where(good, hits.tpc, 0)
    good &= (hits.ix >= 0) & (hits.ix < g.nx[tpc]) & (hits.iy >= 0) & (hits.iy < g.ny[tpc])
    if not bool(good.all()):
        first = int(torch.nonzero(~good)[0])
        where = tuple(int(c[first]) for c in (hits.tpc, hits.ix, hits.iy))
        raise ValueError(
            f"write_packets: hit {first} is on (tpc, ix, iy) = {where}, which {detector.name} does not have"
        )
    if not bool(torch.isfinite(hits.time).all()):
        raise ValueError("write_packets: times must be finite")


def _starts(hits: Hits, kept: Array, starts: Tensor | Mapping[int, int] | None, clock: Clock) -> tuple[Array, Array]:
    """Ids of the events with hits that are written, rising, and their time zero [ticks]."""
    every = torch.unique(hits.event).numpy()
    if starts is None:
        length = float(hits.time.detach().max()) / clock.tick if len(hits) else 0.0
        spacing = max(SPACING, 2 * int(abs(length)) + abs(clock.delay))
        ticks = (1 + np.arange(len(every), dtype=np.int64)) * spacing
    elif isinstance(starts, Tensor):
        if tuple(starts.shape) != (len(every),) or starts.dtype != torch.int64:
            raise ValueError(
                f"write_packets: starts must be int64 ({len(every)},), one per event, got {starts.dtype} "
                f"{tuple(starts.shape)}"
            )
        ticks = starts.numpy()
    else:
        lacking = [e for e in every.tolist() if e not in starts]
        if lacking:
            raise ValueError(f"write_packets: starts has no event {lacking[0]}, of {len(lacking)} that are missing")
        ticks = np.array([int(starts[e]) for e in every.tolist()], np.int64)
    used = np.isin(every, kept)
    return every[used], ticks[used]


def _packets(
    tick: Array, address: Address, adc: Array, begin: Array, groups: list[int], clock: Clock, unix: int
) -> tuple[Array, Array]:
    """All packets in the order of time, and the hits in the order of the data packets."""
    period, per_second = clock.period, 1e6 / clock.tick
    ends = [int(f(np.concatenate([tick, begin]))) if len(begin) else 0 for f in (np.min, np.max)]
    first, last = ends[0] // period, ends[1] // period
    if clock.synced and last - first >= _MOST_RESETS:
        raise ValueError(f"write_packets: starts span {last - first + 1} resets of the clock, more than {_MOST_RESETS}")
    resets = np.arange(first, last + 1, dtype=np.int64) if clock.synced else np.zeros(1, np.int64)
    each, repeat = np.array(groups, np.uint8), len(groups)

    def service(kind: int, at: Array, stamp: Array, **fields: int) -> tuple[Array, Array]:
        rows = np.zeros(len(at) * repeat, PACKET)
        rows["packet_type"], rows["timestamp"] = kind, np.repeat(stamp, repeat)
        rows["io_group"] = np.tile(each, len(at))
        for name, value in fields.items():
            rows[name] = value
        return rows, np.repeat(at, repeat)

    seconds = np.unique(np.concatenate([resets * period, begin]))
    parts = [
        # What PACMAN's clock reads when it is reset: the period, 0 at the start.
        service(SYNC, resets * period, np.where(resets > resets[0], period, 0), trigger_type=SYNC_LETTER)
        if clock.synced
        else service(SYNC, resets[:0], resets[:0]),
        service(TIMESTAMP, seconds, unix + (seconds // per_second).astype(np.int64)),
        service(TRIGGER, np.unique(begin), np.unique(begin) % period, trigger_type=TRIGGER_BITS),
        (_data(tick, address, adc, period), tick),
    ]
    kind = np.repeat(np.arange(len(parts)), [len(rows) for rows, _ in parts])
    at = np.concatenate([t for _, t in parts])
    rows = np.concatenate([rows for rows, _ in parts])
    order = np.lexsort((kind, at))
    hit = order[kind[order] == len(parts) - 1] - (len(rows) - len(tick))
    return rows[order], hit


def _data(tick: Array, address: Address, adc: Array, period: int) -> Array:
    rows = np.zeros(len(tick), PACKET)
    rows["packet_type"], rows["first_packet"], rows["direction"] = DATA, 1, 1
    columns = (c.numpy() for c in address)
    rows["io_group"], rows["io_channel"], rows["chip_id"], rows["channel_id"] = columns
    rows["timestamp"] = tick % period
    rows["receipt_timestamp"] = tick % period
    rows["dataword"] = adc
    rows["parity"], rows["valid_parity"] = parity(rows), 1
    return rows


def _truth(
    hits: Hits, event: Array, segments: Segments | None, associations: int | None, row_of: Array, rows: int
) -> tuple[Array, int]:
    """`mc_packets_assn`, where `row_of` has the row of each hit, and how many entries did not fit."""
    truth = hits.truth or Truth(*(torch.zeros(0, dtype=d) for d in (torch.int64, torch.int64, torch.float64)))
    hit, segment = truth.hit.numpy(), truth.segment.numpy()
    share = truth.fraction.detach().double().numpy()
    most = int(np.bincount(hit, minlength=1).max()) if len(hit) else 0
    if associations is not None and associations < 1:
        raise ValueError(f"write_packets: associations must be positive, got {associations}")
    table: Array = np.zeros(rows, association(associations or max(LEAST, most), segments is not None))
    table["event_ids"] = -1
    table["event_ids"][row_of, 0] = event
    cut = _ranked(table["segment_ids"], table["fraction"], hit, segment, share, row_of)
    if segments is not None:
        pairs: Array = np.zeros((0, 2), np.int64)
        sums: Array = np.zeros(0)
        if len(hit):
            if int(segment.max()) >= len(segments):
                raise ValueError(
                    f"write_packets: truth names segment {segment.max()}, but there are {len(segments)} segments"
                )
            track = segments.track.cpu().numpy()[segment]
            pairs, of = np.unique(np.stack([hit, track], 1), axis=0, return_inverse=True)
            sums = np.bincount(of.ravel(), weights=share, minlength=len(pairs))
        _ranked(table["file_traj_ids"], table["fraction_traj"], pairs[:, 0], pairs[:, 1], sums, row_of)
    return table, cut


def _ranked(ids: Array, shares: Array, hit: Array, value: Array, share: Array, row_of: Array) -> int:
    """Fill a hit's row with its values, largest shares first, -1 where there is none; entries that do not fit."""
    ids[:] = -1
    order = np.lexsort((-np.abs(share), hit))
    hit, value, share = hit[order], value[order], share[order]
    begins = np.flatnonzero(np.diff(hit, prepend=-1)) if len(hit) else np.zeros(0, np.int64)
    rank = np.arange(len(hit)) - np.repeat(begins, np.diff(begins, append=len(hit)))
    fits = rank < ids.shape[1]
    row, rank = row_of[hit[fits]], rank[fits]
    ids[row, rank] = value[fits]
    shares[row, rank] = share[fits]
    return int((~fits).sum())


def _constants(detector: Detector, parameters: Parameters | None) -> dict[str, float]:
    """What larnd-sim notes with its packets: cm/us, cm2/us, us, cm."""
    p = parameters or detector.nominal
    return {
        "vdrift": float(velocity(p.efield, p.temperature)),
        "long_diff": p.longitudinal_diffusion,
        "tran_diff": p.transverse_diffusion,
        "lifetime": p.lifetime,
        "drift_length": detector.drift_length,
    }


def _copied(source: str | Path | None) -> dict[str, Array]:
    if source is None:
        return {}
    with open_hdf5(source) as file:
        return {name: file[name][()] for name in COPIED if name in file}
