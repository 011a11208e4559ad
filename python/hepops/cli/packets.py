"""hepops export-packets and import-packets: hits to LArPix packets, and packets to hits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options as o
from .chain import made_with
from .provenance import check_output, provenance

if TYPE_CHECKING:
    from hepops.lartpc import ChannelMap, Channels, Clock, Detector, Parameters

ChannelFile = Annotated[
    Path | None,
    typer.Option(
        "--channels",
        help="Constants per channel (.npz, .json, .csv; .yaml: bad channels). [default: the front end's]",
        show_default=False,
    ),
]
MissingChannels = Annotated[
    Literal["raise", "default", "dead"],
    typer.Option("--missing", help="Pixels that --channels lacks: refuse, front end's constants, or dead."),
]
Noisy = Annotated[Literal["keep", "drop"], typer.Option("--noisy", help="Hits of noisy channels.")]
ClockName = Annotated[
    Literal["pps", "rollover"] | None,
    typer.Option(
        "--clock",
        help="Reset every second, or rolls over after 2^31 ticks. [default: the file's, or pps]",
        show_default=False,
    ),
]
Delay = Annotated[int | None, typer.Option("--delay", help="Ticks from the crossing to the timestamp.")]
DetectorOf = Annotated[
    str | None, typer.Option("--detector", help="A built-in one. [default: the file's, or module0]", show_default=False)
]


def export_packets(
    hits: Annotated[Path, typer.Argument(help="A file of hits.", show_default=False)],
    output: o.Output,
    overwrite: o.Overwrite = False,
    tracks: Annotated[
        list[Path] | None,
        typer.Option("--tracks", help="The tracks that made them: adds the truth tables.", show_default=False),
    ] = None,
    detector: DetectorOf = None,
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    channels: ChannelFile = None,
    missing: MissingChannels = "raise",
    clock: ClockName = None,
    delay: Delay = None,
    absent: Annotated[
        Literal["raise", "exclude"], typer.Option("--on-absent", help="Hits on pixels that no channel reads.")
    ] = "raise",
    noisy: Noisy = "keep",
    quiet: o.Quiet = False,
) -> None:
    """Write hits as LArPix packets, as larnd-sim writes them."""
    from hepops.lartpc import read_config, read_hits, write_packets

    check_output(output, overwrite, [hits, *(tracks or ()), properties, *(layout or ()), channels])
    found, config = read_hits(hits), read_config(hits)
    described = o.detector_of(config, hits, detector, properties, layout, module)
    channel_map = _map(described, properties, layout, module)
    segments = o.read_tracks(tracks, config) if tracks else None
    counts = write_packets(
        output,
        found,
        channel_map,
        _channels(channels, described, channel_map, missing),
        clock=_clock(clock, delay),
        segments=segments,
        source=tracks[0] if tracks and len(tracks) == 1 and tracks[0].suffix != ".root" else None,
        on_absent=absent,
        noisy=noisy,
        parameters=_first(made_with(config)),
    )
    if not quiet:
        _print(counts["types"], "packets")
        _print(counts["excluded"], "left out")
        typer.echo(f"-> {output}")


def import_packets(
    packets: Annotated[Path, typer.Argument(help="A file of LArPix packets (HDF5).", show_default=False)],
    output: o.Output,
    overwrite: o.Overwrite = False,
    detector: DetectorOf = None,
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    channels: ChannelFile = None,
    missing: MissingChannels = "raise",
    events: Annotated[
        Literal["truth", "trigger", "gap", "window"] | None,
        typer.Option("--events", help="How packets become events. [default: truth, else gap]", show_default=False),
    ] = None,
    gap: Annotated[float | None, typer.Option("--gap", help="A pause that ends an event [us].")] = None,
    window: Annotated[float | None, typer.Option("--window", help="How long an event lasts [us].")] = None,
    before: Annotated[float | None, typer.Option("--before", help="Of a trigger, that belongs to it [us].")] = None,
    clock: ClockName = None,
    delay: Delay = None,
    noisy: Noisy = "keep",
    parity: Annotated[
        Literal["flag", "compute", "ignore"],
        typer.Option("--parity", help="By valid_parity, computed, or not checked."),
    ] = "flag",
    on_bad: Annotated[
        Literal["exclude", "raise"], typer.Option("--on-bad", help="Bad packets: leave out and count, or refuse.")
    ] = "exclude",
    missing_sync: Annotated[
        Literal["count", "raise"], typer.Option("--missing-sync", help="Resets of the clock without a sync packet.")
    ] = "count",
    quiet: o.Quiet = False,
) -> None:
    """Read LArPix packets of a detector or of larnd-sim into a file of hits."""
    from hepops.lartpc import Channels, EventRule, read_packets
    from hepops.lartpc.packets.read import default_events

    check_output(output, overwrite, [packets, properties, *(layout or ()), channels])
    described = o.build_detector(detector or "module0", properties, layout, module)
    channel_map = _map(described, properties, layout, module)
    times = {name: value for name, value in (("gap", gap), ("window", window), ("before", before)) if value is not None}
    rule = EventRule(how=events or default_events(packets), **times)
    constants = _channels(channels, described, channel_map, missing)
    unread = ~channel_map.connected
    if bool(unread.any()):  # no channel, no hit: not a silence of the argon
        constants = (constants or Channels.default(described)).with_status(unread.nonzero()[:, 0], "dead")
    hits = read_packets(
        packets,
        channel_map,
        constants,
        events=rule,
        clock=_clock(clock, delay),
        noisy=noisy,
        check_parity=parity,
        on_bad=on_bad,
        missing_sync=missing_sync,
    )
    source = {"files": [str(packets)], "events": rule.to_dict(), "channels": str(channels) if channels else None}
    config: dict[str, Any] = {
        "detector": described, "seed": None, "measured": True, "source": source, "provenance": provenance(),
    }  # fmt: skip
    if constants is not None:  # pixel by pixel beside the hits: what their codes mean, for `calibrate`
        beside = output.with_suffix(".channels.npz")
        constants.save(beside)
        config["channels"] = beside.name
    hits.save(output, config)
    if not quiet:
        report = hits.reports["packets"]
        _print(report["types"], "packets")
        _print(report["excluded"], "left out")
        _print(report["notes"], "noted")
        typer.echo(f"{len(hits)} hits of {len(hits.reports['event_start']['event'])} events -> {output}")


def _map(detector: "Detector", properties: Path | None, layout: list[Path] | None, module: int | None) -> "ChannelMap":
    """The channels of the files, else the built-in numbering."""
    from hepops.lartpc import ChannelMap

    if properties is None or not layout:
        return ChannelMap.builtin(detector)
    files = layout[0] if len(layout) == 1 else layout
    return ChannelMap.from_yaml(properties, files, detector=detector, module=module)


def _channels(
    path: Path | None, detector: "Detector", channel_map: "ChannelMap", missing: Literal["raise", "default", "dead"]
) -> "Channels | None":
    from hepops.lartpc import Channels

    return None if path is None else Channels.load(path, detector, channel_map, missing=missing)


def _clock(name: str | None, delay: int | None) -> "Clock | None":
    from hepops.lartpc import Clock

    if name is None and delay is None:
        return None
    return Clock.rollover(delay or 0) if name == "rollover" else Clock.pps(delay or 0)


def _first(made: "Parameters | dict[int, Parameters] | None") -> "Parameters | None":
    """The one set that larnd-sim's files have room for: of modules that differ, the first's."""
    return made[min(made)] if isinstance(made, dict) else made


def _print(counts: dict[str, Any], what: str) -> None:
    if counts:
        typer.echo(f"{what}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
