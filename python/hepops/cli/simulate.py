"""hepops simulate: energy deposits in, hits out."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .chain import Chain, read_threshold
from .provenance import check_output, provenance


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

    from hepops.lartpc import read_segments

    check_output(output, overwrite)
    number = _seed(noise, seed)
    where = o.parse_device(device)
    o.set_threads(threads)
    described = o.build_detector(detector, properties, layout, module)
    chain = Chain(dtype=dtype).but(response=response, model=model, step=step, reach=reach, length=length)
    sim = chain.simulator(described, parameter).to(where)
    bar = read_threshold(threshold, described)
    shift = o.parse_vector(offset)
    every = read_segments(list(tracks), offset=shift, on_bad=on_bad, same_event=same_event)
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
        typer.echo(f"{len(hits)} hits, {hits.reports['rejected']} silent resets, {seconds:.2f} s -> {output}")


def _seed(noise: bool | None, seed: int | None) -> int | None:
    if noise is False and seed is not None:
        raise ValueError(f"--seed {seed} with --no-noise: without noise there is nothing to draw")
    if seed is not None and seed < 0:
        raise ValueError(f"--seed must not be negative, got {seed}")
    return (seed or 0) if noise or seed is not None else None
