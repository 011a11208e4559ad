"""Packets in, hits out: larpix files, larnd-sim's and our own, in parts of bounded memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hepops.core.files import open_hdf5

from ..detector import Detector
from ..drift import velocity
from ..hits import Hits, Truth
from .channel_map import ChannelMap
from .channels import DEAD, NOISY, Channels
from .clock import NEAR, Clock
from .events import Builder, Columns, EventRule
from .format import DATA, TRIGGER, TYPES, Array, check_packets, parity

CLOCK = "hepops_clock"  # attribute of /_header
CHUNK = 1 << 18  # packets read at a time


def read_packets(
    path: str | Path,
    channel_map: ChannelMap,
    channels: Channels | None = None,
    *,
    events: EventRule | Literal["truth", "trigger", "gap", "window"] | None = None,
    clock: Clock | None = None,
    truth: bool = True,
    noisy: Literal["keep", "drop"] = "keep",
    check_parity: Literal["flag", "compute", "ignore"] = "flag",
    on_bad: Literal["exclude", "raise"] = "exclude",
    missing_sync: Literal["count", "raise"] = "count",
) -> Hits:
    """Hits of a file of LArPix packets (HDF5 format 2.x): of a detector, of larnd-sim, or of `write_packets`.

    Args:
        path: The file.
        channel_map: Which channel reads which pixel.
        channels: Pedestals, gains, dead and noisy channels; the detector's front end for all where not given.
        events: How packets become events, a name or an `EventRule`; by default "truth" where the file has
            `mc_packets_assn`, else "gap".
        clock: The file's clock; by default what `write_packets` noted, else a pulse per second.
        truth: Whether to read which segments made the hits.
        noisy: Whether hits of noisy channels stay.
        check_parity: By the file's `valid_parity`, computed from the fields, or not at all.
        on_bad: What to do with packets of bad parity, of chips or channels that the layout does not have, of unknown
            type or with a timestamp beyond the clock's period: leave out and count, or refuse the file.
        missing_sync: What to do where the clock was reset and no sync packet tells: count it, or refuse the file.

    Returns:
        Hits, sorted by (event, tpc, iy, ix, time), on the CPU: `adc` as read, `charge` from it (float64), `time` since
        the event's time zero [us], `x` from it with the drift velocity of the nominal field. `reports["packets"]`
        counts what the file holds and what was left out, by reason; `reports["event_start"]` has the events' ids and
        their time zero in ticks since the first reset of the file's clock. By truth an event must be shorter than half
        the clock's period. Deterministic; not differentiable.

    Raises:
        ValueError: a foreign or truncated file, a missing field, another format version; what on_bad or missing_sync
            refuse, with the first row.
        FileNotFoundError: no such file.

    References:
        | larpix-control, larpix/format/hdf5format.py; larnd-sim, larndsim/fee.py, export_to_hdf5
    """
    reader = _Reader(Path(path), channel_map, channels, events, clock, truth, noisy, check_parity, on_bad, missing_sync)
    for _ in reader.parts(CHUNK):
        pass
    return reader.hits(reader.builder.ready(True), whole=True)


def iterate_packets(
    path: str | Path, channel_map: ChannelMap, channels: Channels | None = None, *, chunk: int = CHUNK, **options: Any
) -> Iterator[Hits]:
    """The same, some whole events at a time: never holds more than `chunk` packets and the events they stand in.

    An event whose packets stand in several blocks of the file ("truth" only) comes in several parts, and is counted.
    `Hits.cat` of all is the whole, up to the order of such events; the counts in `reports["packets"]` are those up to
    there, the last has all. The options are those of `read_packets`.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be positive, got {chunk}")
    names = ("events", "clock", "truth", "noisy", "check_parity", "on_bad", "missing_sync")
    unknown = set(options) - set(names)
    if unknown:
        raise TypeError(f"iterate_packets: unknown option {sorted(unknown)[0]!r}, known are {', '.join(names)}")
    defaults = {"truth": True, "noisy": "keep", "check_parity": "flag", "on_bad": "exclude", "missing_sync": "count"}
    reader = _Reader(Path(path), channel_map, channels, *(options.get(n, defaults.get(n)) for n in names))
    for _ in reader.parts(chunk):
        done = reader.builder.ready(False)
        if done is not None:
            yield reader.hits(done)
    yield reader.hits(reader.builder.ready(True))


def default_events(path: str | Path) -> Literal["truth", "gap"]:
    """How `read_packets` builds events where nothing is said."""
    with open_hdf5(path) as file:
        return "truth" if "mc_packets_assn" in file else "gap"


def read_truth(path: str | Path) -> dict[str, Array]:
    """The tables of truth: segments or tracks, trajectories, vertices, mc_hdr, mc_stack, mc_packets_assn.

    Returns:
        Numpy structured arrays by name, as they stand in the file; `read_segments` takes the first of them.
    """
    with open_hdf5(path) as file:
        return {name: file[name][()] for name in TRUTH if name in file}


TRUTH = ("segments", "tracks", "trajectories", "vertices", "mc_hdr", "mc_stack", "mc_packets_assn")


@dataclass
class _Reader:
    path: Path
    channel_map: ChannelMap
    channels: Channels | None
    events: Any
    clock: Clock | None
    truth: bool
    noisy: str
    check_parity: str
    on_bad: str
    missing_sync: str
    rows: int = 0
    types: Counter[int] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        from .clock import Unroller

        for name, choices in {
            "noisy": ("keep", "drop"),
            "check_parity": ("flag", "compute", "ignore"),
            "on_bad": ("exclude", "raise"),
            "missing_sync": ("count", "raise"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        self.detector: Detector = self.channel_map.detector
        self.constants = self.channels or Channels.default(self.detector)
        if len(self.constants) != self.detector.num_pixels:
            raise ValueError(f"channels must be {self.detector.num_pixels}, one per pixel, got {len(self.constants)}")
        self.status = self.constants.status.numpy()
        nominal = [self.detector.nominal_of(i) for i in range(len(self.detector.tpcs))]
        self.velocity = torch.tensor([float(velocity(p.efield, p.temperature)) for p in nominal], dtype=torch.float64)
        self.plain = not self.status.any()
        with open_hdf5(self.path) as file:
            packets = check_packets(self.path, file)
            self.total = len(packets)
            self.association = self._association(file)
            clock = self.clock or _clock_of(file, self.detector.tick)
            self.names = packets.dtype.names
        rule = self.events
        if rule is None:
            rule = "truth" if self.association else "gap"
        self.rule = rule if isinstance(rule, EventRule) else EventRule(how=rule)
        if self.rule.how == "truth" and not self.association:
            raise ValueError(f"{self.path}: there is no 'mc_packets_assn' with event ids, events='truth' needs it")
        self.clock = clock
        self.unroll = Unroller(clock)
        self.builder = Builder(self.rule, clock)
        self.trigger = -1  # stamp of the last trigger packet that no data packet followed yet
        self.trigger_of = -1  # stamp of the trigger of the present event
        self.event = -1  # id of the last data packet's event

    def _association(self, file: Any) -> tuple[str, ...]:
        """Names of the event ids, segment ids and shares, as far as the file has them."""
        if "mc_packets_assn" not in file:
            return ()
        table = file["mc_packets_assn"]
        names = getattr(table.dtype, "names", None) or ()
        ids = next((n for n in ("segment_ids", "track_ids") if n in names), None)
        if ids is None or "fraction" not in names:
            raise ValueError(
                f"{self.path}: 'mc_packets_assn' has no segment_ids (track_ids) and fraction, only {names}"
            )
        if len(table) != self.total:
            raise ValueError(f"{self.path}: {self.total} packets, but 'mc_packets_assn' has {len(table)} rows")
        self.segment_ids, self.event_of_track = _segment_ids(file, ids)
        if "event_ids" in names:
            return ("event_ids", ids, "fraction")
        return (ids, "fraction") if self.event_of_track is not None else ()

    # ---- reading

    def parts(self, chunk: int) -> Iterator[None]:
        """Reads part by part into the builder."""
        with open_hdf5(self.path) as file:
            packets = file["packets"]
            for begin in range(0, self.total, chunk):
                end = min(begin + chunk, self.total)
                rows = packets[begin:end]
                assn = self._assn(file, begin, end) if self.association else {}
                self._take(rows, assn, begin)
                self.rows = end
                yield
        self.unroll.finish()
        self._refuse_missing()

    def _assn(self, file: Any, begin: int, end: int) -> Columns:
        """Event ids, and where truth is asked for segment ids and shares."""
        table = file["mc_packets_assn"]
        wanted = self.association if self.truth or "event_ids" not in self.association else ("event_ids",)
        rows = table[begin:end] if len(wanted) > 1 else table.fields([*wanted])[begin:end]
        n = end - begin
        if "event_ids" in self.association:
            event = rows["event_ids"].reshape(n, -1)[:, 0].astype(np.int64)
        else:  # larnd-sim before event_ids: the event of the first track
            track = rows[self.association[0]].reshape(n, -1)[:, 0]
            assert self.event_of_track is not None
            known = (track >= 0) & (track < len(self.event_of_track))
            event = np.where(known, self.event_of_track[np.where(known, track, 0)], -1)
        columns: Columns = {"event": event}
        if self.truth:
            columns["segment"] = rows[self.association[-2]].reshape(n, -1).astype(np.int64)
            columns["fraction"] = rows["fraction"].reshape(n, -1).astype(np.float64)
        return columns

    def _take(self, rows: Array, assn: Columns, begin: int) -> None:
        kind = rows["packet_type"]
        numbers = np.bincount(kind, minlength=len(TYPES))
        self.types.update({int(k): int(n) for k, n in enumerate(numbers) if n})
        data = np.flatnonzero(kind == DATA)
        data = self._good(rows, data, begin)
        chosen = rows[data]
        pixel = self.channel_map.lookup(*(chosen[n] for n in ("io_group", "io_channel", "chip_id", "channel_id")))
        keep = self._known(pixel, data, begin)
        triggers = np.flatnonzero(kind == TRIGGER)
        # The clock is that of all good packets, whether their channel is known or not.
        timed = np.sort(np.concatenate([data, triggers])) if len(triggers) else data
        tick = self.unroll(rows, timed)
        if self.unroll.missing:
            self._refuse_missing()
        position = np.searchsorted(timed, data) if len(triggers) else slice(None)
        columns: Columns = {
            "tick": tick[position][keep],
            "pixel": pixel[keep],
            "adc": chosen["dataword"][keep].astype(np.int64),
        }
        columns |= {name: column[data[keep]] for name, column in assn.items()}
        if self.rule.how == "truth":
            stamp = rows["timestamp"].astype(np.int64)
            columns["stamp"] = stamp[data[keep]]
            columns["trigger"] = self._trigger_before(columns["event"], data[keep], triggers, stamp)
            none = columns["event"] < 0
            if none.any():
                self._drop("of no true event", data[keep][none], begin)
                columns = {name: column[~none] for name, column in columns.items()}
        self.builder.push(columns, tick[np.searchsorted(timed, triggers)])

    def _drop(self, reason: str, rows: Array, begin: int, bad: bool = True) -> None:
        if len(rows):
            if bad and self.on_bad == "raise":
                raise ValueError(f"{self.path}: {len(rows)} packets {reason}, the first is row {begin + int(rows[0])}")
            self.excluded[reason] += len(rows)

    def _good(self, rows: Array, data: Array, begin: int) -> Array:
        """Data packets whose bits can be believed."""
        odd = np.flatnonzero(rows["packet_type"] >= len(TYPES))
        self._drop("of unknown type", odd, begin)
        bad = np.zeros(len(data), bool)
        if self.check_parity == "flag" and "valid_parity" in self.names:
            bad = rows["valid_parity"][data] == 0
        elif self.check_parity != "ignore":
            if "parity" not in self.names:
                raise ValueError(f"{self.path}: 'packets' has no field parity; check_parity='ignore' reads it")
            bad = parity(rows[data]) != rows["parity"][data]
        if bad.any():
            self._drop("of bad parity", data[bad], begin)
            data = data[~bad]
        assert self.clock is not None
        late = rows["timestamp"][data] > np.uint64(self.clock.period * (1 + NEAR))
        if late.any():
            self._drop("with a timestamp beyond the clock's period", data[late], begin)
            data = data[~late]
        return data

    def _known(self, pixel: Array, data: Array, begin: int) -> Array:
        """Which packets are of pixels that are read, indices."""
        if len(pixel) and pixel.min() < 0:
            self._drop("of chips that are not in the layout", data[pixel == -2], begin)
            self._drop("of channels that are not in the layout", data[pixel == -1], begin)
        keep = pixel >= 0
        if not self.plain:
            status = self.status[np.where(keep, pixel, 0)]
            dead, noisy = keep & (status == DEAD), keep & (status == NOISY)
            self._drop("of dead channels", data[dead], begin, bad=False)
            keep &= ~dead
            if self.noisy == "drop":
                self._drop("of noisy channels", data[noisy], begin, bad=False)
                keep &= ~noisy
            else:
                self.flagged["of noisy channels, kept"] += int(noisy.sum())
        return np.flatnonzero(keep)

    def _trigger_before(self, event: Array, data: Array, triggers: Array, stamp: Array) -> Array:
        """Stamp of the trigger packet between an event's packets and those of the event before, else -1."""
        if not len(event):
            if len(triggers):
                self.trigger = int(stamp[triggers[-1]])
            return np.zeros(0, np.int64)
        begins = np.flatnonzero(np.diff(event, prepend=self.event))
        count = np.searchsorted(triggers, data[begins])
        before = np.searchsorted(triggers, np.append(-1, data)[begins])  # after the packet before
        fresh = np.append(stamp[triggers], -1)[count - 1]
        found = np.where(count > before, fresh, -1)
        if len(begins) and begins[0] == 0 and found[0] < 0:
            found[0] = self.trigger
        run = np.cumsum(np.isin(np.arange(len(event)), begins)) - 1
        of: Array = np.where(run < 0, self.trigger_of, np.append(found, -1)[run])
        self.event, self.trigger_of = int(event[-1]), int(of[-1])
        self.trigger = int(stamp[triggers[-1]]) if len(triggers) and triggers[-1] > data[-1] else -1
        return of

    def _refuse_missing(self) -> None:
        if self.missing_sync == "raise" and self.unroll.missing:
            row = self.unroll.first_missing
            where = "" if row is None else f", the first before row {row}"
            raise ValueError(f"{self.path}: {self.unroll.missing} resets of the clock without a sync packet{where}")

    # ---- hits

    def hits(self, found: Columns | None, whole: bool = False) -> Hits:
        """Hits of whole events."""
        if found is None:
            names = ("tick", "pixel", "adc", "event", "start", "time")
            found = {name: np.zeros(0, np.int64) for name in names}
            if self.truth and self.association:
                found |= {"segment": np.zeros((0, 1), np.int64), "fraction": np.zeros((0, 1))}
        event, pixel, time = found["event"], found["pixel"], found["time"]
        order = np.lexsort((time, pixel, event))
        event, pixel, time = event[order], pixel[order], time[order]
        new = np.ones(len(order), bool)
        new[1:] = (event[1:] != event[:-1]) | (pixel[1:] != pixel[:-1])
        row = np.cumsum(new) - 1
        rank = np.arange(len(order)) - np.flatnonzero(new)[row] if len(order) else row
        place = torch.from_numpy(pixel)
        tpc, ix, iy = self.detector.pixel_from_id(place)
        assert self.clock is not None
        seconds = torch.from_numpy(time * self.clock.tick)
        adc = torch.from_numpy(found["adc"][order])
        _, y, z = self.detector.pixel_centre(tpc, ix, iy).unbind(-1)
        drifted = self.velocity[tpc] * seconds
        truth = self._truth(found, order)
        starts, first = np.unique(event, return_index=True)
        reports = {
            "packets": self.report(),
            "pixels": int(new.sum()),
            "event_start": {"event": starts.tolist(), "tick": found["start"][order][first].tolist()},
        }
        return Hits(
            event=torch.from_numpy(event), tpc=tpc, ix=ix, iy=iy,
            x=self.detector.drift_position(drifted, tpc), y=y, z=z,
            time=seconds, charge=self.constants.calibrate(adc, place), adc=adc, row=torch.from_numpy(row),
            rank=torch.from_numpy(rank), truth=truth, reports=reports,
        )  # fmt: skip

    def _truth(self, found: Columns, order: Array) -> Truth | None:
        if "segment" not in found:
            return None
        segment, fraction = found["segment"][order], found["fraction"][order]
        hit, entry = np.nonzero((segment >= 0) & (fraction != 0))
        ids, share = segment[hit, entry], fraction[hit, entry]
        if self.segment_ids is not None:
            sorter = np.argsort(self.segment_ids, kind="stable")
            at = np.searchsorted(self.segment_ids, ids, sorter=sorter)
            row = sorter[np.minimum(at, len(sorter) - 1)] if len(sorter) else np.zeros_like(ids)
            known = (at < len(sorter)) & (self.segment_ids[row] == ids) if len(sorter) else np.zeros(len(ids), bool)
            self.flagged["truth entries of segments that the file lacks"] += int((~known).sum())
            hit, ids, share = hit[known], row[known], share[known]
        return Truth(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (hit, ids, share)))

    def report(self) -> dict[str, Any]:
        """Counts so far."""
        kinds = {TYPES[k] if k < len(TYPES) else f"type {k}": n for k, n in sorted(self.types.items())}
        notes = {**self.unroll.report(), **self.builder.counts, **self.flagged}
        return {
            "rows": self.rows,
            "types": kinds,
            "excluded": {reason: n for reason, n in self.excluded.items() if n},
            "notes": {note: n for note, n in notes.items() if n},
            "events": self.rule.how,
        }


def _clock_of(file: Any, tick: float) -> Clock:
    text = file["_header"].attrs.get(CLOCK) if "_header" in file else None
    return Clock.of(tick) if text is None else Clock.from_json(text.decode() if isinstance(text, bytes) else text)


def _segment_ids(file: Any, ids: str) -> tuple[Array | None, Array | None]:
    """The ids of the segments in the file's order where they are not just counted; the event of each track."""
    name = next((n for n in ("segments", "tracks") if n in file), None)
    if name is None:
        return None, None
    fields = file[name].dtype.names or ()
    event = next((n for n in ("eventID", "event_id") if n in fields), None)
    events = file[name].fields(event)[:].astype(np.int64) if event else None
    if ids == "track_ids" or "segment_id" not in fields:
        return None, events
    found = file[name].fields("segment_id")[:].astype(np.int64)
    return (None if np.array_equal(found, np.arange(len(found))) else found), events
