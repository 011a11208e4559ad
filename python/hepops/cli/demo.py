"""hepops demo: the job, from nothing: tracks, hits of a hidden detector, and the detector found again."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .calibrate import LEFT, report, write_results
from .chain import Chain
from .display import write_figures
from .provenance import provenance, write_json

TRACKS, HITS, FILES = "tracks.h5", "hits.h5", ("tracks.h5", "hits.h5", "demo.json")
MUONS, PROTONS = 3, 8


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("hepops-demo"),
    overwrite: o.Overwrite = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the tracks and of the hidden parameters.")] = 1,
    device: o.DeviceName = "cpu",
    threads: o.Threads = None,
    dtype: o.DType = "float64",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw events and the fit.")] = True,
    quiet: o.Quiet = False,
) -> None:
    """Tracks, hits, calibration, in under a minute.

    Shoot tracks, simulate them with hidden parameters and no noise, and recover all six from another start.
    """
    import sys

    import torch

    import hepops
    from hepops.lartpc import Detector, Parameters, Segments, write_segments
    from hepops.lartpc.gun import shoot

    o.check_seed(seed)
    _prepare(output, overwrite)
    where = o.parse_device(device)
    o.set_threads(threads)
    say = _say(quiet)
    detector = Detector.module0()

    muons = shoot(detector, MUONS, "muon", directions="cosmic", scattering=True, seed=seed)
    protons = shoot(detector, PROTONS, "proton", topology="inside", energy=(100.0, 300.0), seed=seed, first_event=MUONS)
    segments = Segments.cat([muons, protons])
    write_segments(output / TRACKS, segments, positions="f8")
    say(f"tracks       {segments.report()}")

    hidden = _hidden(seed)
    sim = Chain(dtype=dtype).simulator(detector, parameters=hidden).to(where)
    with torch.no_grad():
        hits = sim(segments.to(where), truth=True).to("cpu")
    config = {"detector": detector, "parameters": hidden, "simulator": Chain(dtype=dtype).to_dict(), "seed": None}
    hits.save(output / HITS, {**config, "source": {"files": [TRACKS]}, "provenance": provenance()})
    say(f"hits         {len(hits)} of a detector with other parameters than the nominal ones")

    start = Chain(dtype=dtype).simulator(detector).to(where)
    result = hepops.lartpc.fit(
        start, segments.to(where), hits.to(where), checkpoint=output, progress=not quiet and sys.stderr.isatty()
    )
    say(f"calibration  {result.outcome} of Levenberg-Marquardt")
    text = report(result, hidden.to_dict())
    write_results(output, result, hidden.to_dict(), text, plots)
    if plots:
        _draw(output, segments, hits, sim.to("cpu"))
    write_json(output / "demo.json", {"provenance": provenance(), "hidden": hidden.to_dict()})
    say("\n" + text.split("\n\n")[-1])
    say(f"\nfiles and figures in {output}/")
    worst = max(abs(result[name] / getattr(hidden, name) - 1) for name in Parameters.SIX)
    if not worst < 1e-3:
        raise ValueError(f"demo: a parameter is off by {worst:.1e}, more than 0.1 %")


def _hidden(seed: int) -> Any:
    """Parameters in the middle 60 % of their ranges."""
    import torch

    from hepops.lartpc import Parameters

    draws = torch.rand(len(Parameters.SIX), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = {}
    for name, draw in zip(Parameters.SIX, draws.tolist(), strict=True):
        spec = Parameters.SPEC[name]
        values[name] = float(f"{spec.low + (0.2 + 0.6 * draw) * (spec.high - spec.low):.6g}")
    return Parameters(**values)


def _draw(folder: Path, segments: Any, hits: Any, sim: Any) -> None:
    import torch

    from hepops.lartpc import plot

    counts = torch.bincount(hits.event)
    muon, proton = int(counts[:MUONS].argmax()), MUONS + int(counts[MUONS:].argmax())
    with torch.no_grad():
        for event in (muon, proton):
            waves = sim.waveforms(segments.select([event]))
            figure = plot.event_display(hits, sim.detector, event, waves=waves)
            write_figures(folder / f"event_{event}.png", [figure])


def _prepare(folder: Path, overwrite: bool) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise ValueError(f"{folder}: exists already; --overwrite replaces what the demo writes there")
    folder.mkdir(exist_ok=True)
    for name in (*LEFT, *FILES):
        (folder / name).unlink(missing_ok=True)


def _say(quiet: bool) -> Any:
    began = time.perf_counter()

    def say(text: str) -> None:
        if quiet:
            return
        clock = "" if text.startswith("\n") else f"{time.perf_counter() - began:5.1f} s  "
        typer.echo("\n".join(line if not clock else clock + line for line in text.split("\n")))

    return say
