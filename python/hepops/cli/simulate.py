"""hepops simulate: energy deposits in, hits out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .chain import Chain, read_threshold
from .provenance import check_output, provenance

if TYPE_CHECKING:
    from hepops.lartpc import Hits


def simulate(
    tracks: Annotated[list[Path], typer.Argument(help="edep-sim files (HDF5).", show_default=False)],
    output: o.Output,
    overwrite: o.Overwrite = False,
    noise: Annotated[
        bool | None,
        typer.Option(
            "--noise/--no-noise",
            help="The clocked chip with noise, or the continuous one without. [default: --no-noise, unless --seed]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the noise. [default: 0]", show_default=False)] = None,
    parameter: o.Values = None,
    detector: o.DetectorName = "module0",
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    response: o.ResponseName = None,
    model: o.Model = None,
    step: o.StepLength = None,
    reach: o.Reach = None,
    length: o.Length = None,
    threshold: o.ThresholdText = None,
    truth: Annotated[bool, typer.Option("--truth/--no-truth", help="Store which segments made which hit.")] = True,
    offset: o.Offset = "0,0,0",
    on_bad: o.OnBad = "raise",
    same_event: o.SameEvent = "raise",
    events: o.Events = None,
    shard: o.Shard = None,
    device: o.DeviceName = "cpu",
    threads: o.Threads = None,
    dtype: o.DType = "float32",
    quiet: o.Quiet = False,
) -> None:
    """Energy deposits in, hits out."""
    from dataclasses import replace

    import torch

    check_output(output, overwrite, [*tracks, properties, *(layout or ()), response, threshold])
    number = _seed(noise, seed)
    where = o.parse_device(device)
    o.set_threads(threads)
    described = o.build_detector(detector, properties, layout, module)
    chain = Chain(dtype=dtype).but(response=response, model=model, step=step, reach=reach, length=length)
    sim = chain.simulator(described, parameter).to(where)
    bar = read_threshold(threshold, described)
    shift = o.parse_vector(offset)
    every = o.read_files(tracks, shift, on_bad, same_event)
    segments, rows = o.choose(every, events, shard)
    began = time.perf_counter()
    with torch.no_grad(), o.bar("simulate", not quiet) as progress:
        hits = sim(segments.to(where), number, threshold=bar, truth=truth, progress=progress).to("cpu")
    if hits.truth is not None:  # segments are counted in the whole input, whatever part of it was simulated
        hits = replace(hits, truth=hits.truth._replace(segment=rows[hits.truth.segment]))
    source: dict[str, Any] = {
        "files": [str(path) for path in tracks],
        "offset": list(shift),
        "on_bad": on_bad,
        "same_event": same_event,
        "events": events,
        "shard": shard,
        "excluded": every.excluded,
        "notes": every.notes,
    }
    config = {
        "detector": described,
        "parameters": sim.parameters_now,
        "simulator": chain.to_dict(),
        "seed": number,
        "threshold": threshold,
        "source": source,
        "provenance": provenance(),
    }
    hits.save(output, config)
    if not quiet:
        seconds = time.perf_counter() - began
        typer.echo(f"{segments.report()}")
        for line in _losses(hits, float(segments.dE.sum())):
            typer.echo(line)
        typer.echo(f"{len(hits)} hits, {hits.reports['rejected']} silent resets, {seconds:.2f} s -> {output}")


def _losses(hits: "Hits", energy: float) -> list[str]:
    """What did not reach a pixel: energy outside every drift volume, electrons beside the plane."""
    outside, lost = hits.reports["energy_outside"], hits.reports["electrons_lost"]
    arriving = hits.reports["electrons_arriving"]
    lines = []
    if outside > 0:
        lines.append(f"{outside:.4g} of {energy:.4g} MeV outside every drift volume")
    share = f" ({lost / arriving:.2g} of those that arrive)" if arriving > 0 else ""
    return [*lines, f"{lost:.4g} electrons lost beside the plane{share}"]


def _seed(noise: bool | None, seed: int | None) -> int | None:
    if noise is False and seed is not None:
        raise ValueError(f"--seed {seed} with --no-noise: without noise there is nothing to draw")
    o.check_seed(seed)
    return (seed or 0) if noise or seed is not None else None
