"""hepops display: pictures of events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as o
from .chain import Chain, made_with
from .provenance import check_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")


def display(
    hits: Annotated[Path, typer.Argument(help="A file of hits.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=".png, .pdf or .svg. [default: event_ID.png]", show_default=False),
    ] = None,
    overwrite: o.Overwrite = False,
    event: Annotated[
        int | None, typer.Option("--event", help="Id of one event. [default: the first]", show_default=False)
    ] = None,
    events: o.Events = None,
    tracks: Annotated[
        list[Path] | None,
        typer.Option(
            "--tracks", help="The tracks that made the hits: adds the waveform of a pixel.", show_default=False
        ),
    ] = None,
    pixel: Annotated[
        str | None,
        typer.Option(
            "--pixel", metavar="TPC,IX,IY", help="Which. [default: that with the most hits]", show_default=False
        ),
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="Where the file does not hold one.", show_default=False)
    ] = None,
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    threads: o.Threads = None,
    quiet: o.Quiet = False,
) -> None:
    """Draw events.

    Hits in space, pixel planes, and with --tracks the waveform of a pixel. Several events make a PDF of several pages.
    """
    import torch

    from hepops.lartpc import plot, read_config, read_hits

    o.set_threads(threads)
    measured, config = read_hits(hits), read_config(hits)
    described = o.detector_of(config, hits, detector, properties, layout, module)
    ids = torch.unique(measured.event)[o.parse_events(events)].tolist()
    if event is not None and events is not None:
        raise ValueError("--event and --events: give one of them")
    if not ids:
        raise ValueError(f"{hits}: no event with hits" + (f" in --events {events}" if events else ""))
    numbers = ids if events is not None else [ids[0] if event is None else event]
    path = output or Path(f"event_{numbers[0]}.png")
    if path.suffix not in FORMATS:
        raise ValueError(f"--output must end in {', '.join(FORMATS)}, got {path}")
    if len(numbers) > 1 and path.suffix != ".pdf":
        raise ValueError(f"--output: {len(numbers)} events need a .pdf, got {path}")
    if pixel is not None and not tracks:
        raise ValueError("--pixel needs --tracks, the waveform is simulated from them")
    check_output(path, overwrite, [hits, *(tracks or ()), properties, *(layout or ())])
    place = _pixel(pixel)
    deposits = o.read_tracks(tracks, config) if tracks else None
    figures = []
    for number in numbers:
        waves = None
        if deposits is not None:
            sim = Chain.from_config(config).simulator(described, parameters=made_with(config))
            with torch.no_grad():
                waves = sim.waveforms(deposits.select([number]))
        figures.append(plot.event_display(measured, described, number, waves=waves, pixel=place))
    write_figures(path, figures)
    if not quiet:
        what = f"{len(figures)} events" if len(figures) > 1 else f"event {numbers[0]}"
        typer.echo(f"{what} of {len(torch.unique(measured.event))} (--event, --events: others) -> {path}")


def write_figures(path: Path, figures: "list[Figure]") -> None:
    """One file, whole or not there; several figures are the pages of a PDF."""
    from hepops.core.files import atomic

    kind = path.suffix.removeprefix(".")
    with atomic(path) as part:
        if len(figures) == 1:
            figures[0].savefig(part, format=kind, dpi=150)
            return
        from matplotlib.backends.backend_pdf import PdfPages

        with PdfPages(part) as pages:
            for figure in figures:
                pages.savefig(figure)


def _pixel(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        tpc, ix, iy = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--pixel must be tpc,ix,iy, got {text!r}") from None
    return tpc, ix, iy
