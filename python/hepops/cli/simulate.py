"""hepops simulate: energy deposits in, hits out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .chain import Chain, parameters_of, read_threshold
from .provenance import check_output, provenance
from .readout import tables

if TYPE_CHECKING:
    from hepops.lartpc import Hits, Segments


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
    piece: Annotated[
        int, typer.Option("--piece", help="Segments computed at once, of whole events: bounds the memory.")
    ] = 20_000,
    device: o.DeviceName = "cpu",
    threads: o.Threads = None,
    dtype: o.DType = "float32",
    quiet: o.Quiet = False,
) -> None:
    """Energy deposits in, hits out.

    Files may be larger than the memory. Killed, the same command goes on from where it was; under torchrun the
    processes share the events.
    """
    import torch

    from hepops.lartpc.production import Ranks, simulate_files, tidy

    ranks = Ranks.join()
    if not overwrite and ranks.agree(lambda: tidy(output)):
        if ranks.rank == 0:
            typer.echo(f"{output}: was finished by an earlier start")
        return
    check_output(output, overwrite, [*tracks, properties, *(layout or ()), response, threshold])
    number = _seed(noise, seed)
    where = o.parse_device(ranks.device(device))
    o.set_threads(threads)
    described = o.build_detector(detector, properties, layout, module)
    chain = Chain(dtype=dtype).but(response=response, model=model, step=step, reach=reach, length=length)
    sim = chain.simulator(described, parameter).to(where)
    bar = read_threshold(threshold, described)
    shift = o.parse_vector(offset)
    index = ranks.agree(lambda: o.scan_files(tracks, shift, on_bad, same_event))
    ids = o.choose_events(index.events, events, shard)
    source: dict[str, Any] = {
        "files": [str(path) for path in tracks],
        "digests": list(index.digests),
        "offset": list(shift),
        "on_bad": on_bad,
        "same_event": same_event,
        "events": events,
        "shard": shard,
        "excluded": index.excluded,
        "notes": index.notes,
    }
    config = {
        "detector": described,
        **parameters_of(sim),
        "simulator": chain.to_dict(),
        "seed": number,
        "threshold": threshold,
        "tables": tables(threshold=threshold, response=chain.response),
        "source": source,
        "truth": truth,
        "provenance": provenance(),
    }

    def run(segments: "Segments", progress: Any) -> "Hits":
        hits: Hits = sim(segments.to(where), number, threshold=bar, truth=truth, progress=progress)
        return hits.to("cpu")

    with torch.no_grad(), o.bar("simulate", not quiet and ranks.rank == 0) as progress:
        done = simulate_files(
            run, index, ids, output, config, ranks=ranks, piece=piece, fresh=overwrite, progress=progress
        )
    if not quiet and ranks.rank == 0:
        typer.echo(o.report(index, ids))
        for line in _losses(done.reports):
            typer.echo(line)
        resumed = f" ({done.resumed} of {done.pieces} pieces from an earlier start)" if done.resumed else ""
        typer.echo(
            f"{done.hits} hits, {done.reports['rejected']} silent resets, {done.seconds:.2f} s{resumed} -> {output}"
        )


def _losses(reports: dict[str, Any]) -> list[str]:
    """What did not reach a pixel: energy outside every drift volume, electrons beside the plane."""
    outside, lost, arriving = (reports[n] for n in ("energy_outside", "electrons_lost", "electrons_arriving"))
    lines = [f"{outside:.4g} of {reports['energy']:.4g} MeV outside every drift volume"] if outside > 0 else []
    share = f" ({lost / arriving:.2g} of those that arrive)" if arriving > 0 else ""
    return [*lines, f"{lost:.4g} electrons lost beside the plane{share}"]


def _seed(noise: bool | None, seed: int | None) -> int | None:
    if noise is False and seed is not None:
        raise ValueError(f"--seed {seed} with --no-noise: without noise there is nothing to draw")
    o.check_seed(seed)
    return (seed or 0) if noise or seed is not None else None
