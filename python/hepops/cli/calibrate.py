"""hepops calibrate: the detector that made the hits."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options as o
from .chain import Chain, truth_of
from .display import write_figures
from .provenance import check_apart, check_writable, provenance, write_json
from .readout import chip_of, noisy, refuse_others

if TYPE_CHECKING:
    from hepops.lartpc import Chip, Detector
    from hepops.lartpc.fit import FitResult

SUMMARY, VALUES, DONE = "summary.txt", "parameters.json", "provenance.json"
LEFT = ("state.json", "result.h5", "starts.json", SUMMARY, VALUES, DONE)
LOCK = "lock"
FIGURES = ("trace.png", "correlations.png", "residuals.png", "overview.png")


def calibrate(
    hits: Annotated[list[Path], typer.Argument(help="Files of hits.", show_default=False)],
    tracks: Annotated[list[Path], typer.Option("--tracks", help="The tracks that made them.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where the folder holds a fit.")] = False,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            metavar="NAMES",
            help="Parameters, separated by commas. [default: the six; time_offset too of hits with noise]",
            show_default=False,
        ),
    ] = None,
    residual: Annotated[
        Literal["hits", "likelihood"] | None,
        typer.Option(
            "--residual",
            help="Compare hits, or take the likelihood of the measured ones. [default: likelihood of hits with noise]",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--start", metavar="NAME=VALUE", help="Where to begin, or 'random'. [default: nominal]", show_default=False
        ),
    ] = None,
    starts: Annotated[int, typer.Option("--starts", help="How many; all but the first are drawn.")] = 1,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            "--prior", metavar="NAME=MEAN:SIGMA", help="A Gaussian prior, or 'published'.", show_default=False
        ),
    ] = None,
    bounds: Annotated[
        list[str] | None, typer.Option("--bounds", metavar="NAME=LOW:HIGH", help="A range.", show_default=False)
    ] = None,
    method: Annotated[Literal["lm", "adam"], typer.Option("--method", help="Levenberg-Marquardt or Adam.")] = "lm",
    batch_events: Annotated[
        int | None, typer.Option("--batch-events", help="Events per iteration. [default: all]", show_default=False)
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", help="At most, of each start. [default: 30, Adam 300]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of drawn starts and of batches.")] = 0,
    parameter: o.Values = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="A built-in one. [default: that of the hits]", show_default=False)
    ] = None,
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    response: o.ResponseName = None,
    model: o.Model = None,
    step: o.StepLength = None,
    reach: o.Reach = None,
    length: o.Length = None,
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset", metavar="X,Y,Z", help="Of the tracks [cm]. [default: that of the hits]", show_default=False
        ),
    ] = None,
    piece: Annotated[
        int, typer.Option("--piece", help="Segments computed at once, of whole events: what processes share.")
    ] = 2000,
    events: o.Events = None,
    shard: o.Shard = None,
    device: o.DeviceName = "cpu",
    threads: o.Threads = None,
    dtype: o.DType = "float64",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the fit.")] = True,
    quiet: o.Quiet = False,
) -> None:
    """Fit the parameters of the detector that made the hits.

    Started again after a kill it goes on where it was, and ends with the same bits. Files may exceed the memory;
    under torchrun the processes share the events.
    """
    import sys
    import time

    import hepops
    from hepops.lartpc import Parameters, read_config
    from hepops.lartpc.production import HitFiles, Ranks, record

    began = time.perf_counter()
    o.check_seed(seed)
    ranks = Ranks.join()
    for name in (*LEFT, *FIGURES):
        check_apart(output / name, [*hits, *tracks, properties, *(layout or ()), response])
    if not overwrite and ranks.agree(lambda: _was_finished(output)):
        if ranks.rank == 0:
            typer.echo(f"{output}: was finished by an earlier start")
        return
    held: list[Any] = []  # the lock of rank 0
    log = ranks.agree(lambda: _prepare(output, overwrite, ranks.size, held))
    where = o.parse_device(ranks.device(device))
    o.set_threads(threads)
    measured = ranks.agree(lambda: HitFiles.scan(hits))
    configs = [read_config(path) for path in hits]
    config = configs[0]
    given = {"response": response, "model": model, "step": step, "reach": reach, "length": length}
    named = bool(detector or properties or layout or module is not None)
    refuse_others(hits, configs, offset, named, given)
    described = o.detector_of(config, hits[0], detector, properties, layout, module)
    chain = Chain.from_config(config).but(**given, dtype=dtype)
    sim = chain.simulator(described, parameter).to(where)
    index = ranks.agree(lambda: o.scan_tracks(tracks, config, offset))
    index = index.select(o.choose_events(index.events, events, shard))
    # A clock made them: its phase must not be taken for a field.
    clocked = noisy(config)
    names = tuple(name.strip() for name in fit.split(",")) if fit else (*Parameters.SIX, *["time_offset"] * clocked)
    compare = residual or ("likelihood" if clocked and method == "lm" else "hits")
    if clocked and compare == "hits" and ranks.rank == 0:
        typer.echo(
            "hepops: warning: these hits carry noise; a fit of matched hits is biased by several of its errors, "
            "--residual likelihood is not",
            err=True,
        )
    work = record.Work()
    result = hepops.lartpc.fit(
        sim,
        index,
        measured,
        names,
        residual=_objective(compare, method, chip_of(hits, configs, described), described),
        method=method,
        start=_start(start),
        starts=starts,
        priors=_priors(prior),
        bounds=_pairs("--bounds", bounds),
        batch_events=batch_events,
        max_iterations=iterations,
        seed=seed,
        checkpoint=output,
        chunk=piece,
        progress=not quiet and sys.stderr.isatty() and ranks.rank == 0,
        ranks=ranks,
    )
    workers = ranks.gather(work.done())
    if ranks.rank:
        return
    truth = truth_of(config)
    text = report(result, truth)
    write_results(output, result, truth, text, plots)
    source = {
        "hits": [str(path) for path in hits],
        "tracks": [str(path) for path in tracks],
        "digests": [*measured.digests, *index.digests],
        "events": events,
        "shard": shard,
    }
    fitted = {"detector": described.to_dict(), "simulator": chain.to_dict(), "fit": result.config}
    left = result.counts["hits_of_other_events"]
    made = {"provenance": provenance(), "run": record.end(log, time.perf_counter() - began, workers), "source": source}
    write_json(output / DONE, {**made, "hits left out": left, **fitted})
    _tidy(output, held.pop())
    if not result.converged:
        typer.echo(f"hepops: warning: {result.outcome}", err=True)
    for doubt in result.doubts:
        typer.echo(f"hepops: warning: {doubt}", err=True)
    if not quiet:
        typer.echo(text)
        typer.echo(f"-> {output}")


def report(result: "FitResult", truth: dict[str, float] | None) -> str:
    """The summary, and where the hits say what made them, how far from it each parameter is."""
    text = result.summary()
    if truth is None:
        return text
    width = max(map(len, result.names))
    lines = ["", f"{'':{width}}  {'start':>12} {'true':>12} {'fitted':>14} {'off by':>9}  unit"]
    begin = result.path()[0].tolist()
    for name, first, value, unit in zip(result.names, begin, result.values.tolist(), result.units, strict=True):
        known = 0.0 if name == "time_offset" else truth.get(name)
        true = "" if known is None else f"{known:.6g}"
        off = f"{abs(value / known - 1):8.1e}" if known else f"{'':8}"
        lines.append(f"{name:{width}}  {first:12.6g} {true:>12} {value:14.8g} {off}   {unit}")
    return "\n".join([text, *lines])


def write_results(folder: Path, result: "FitResult", truth: dict[str, float] | None, text: str, plots: bool) -> None:
    """Summary, values and figures, each whole or not there."""
    from hepops.core.files import atomic
    from hepops.lartpc import plot

    with atomic(folder / SUMMARY) as part:
        part.write_text(text + "\n")
    rows = zip(result.names, result.values.tolist(), result.errors.tolist(), result.units, strict=True)
    values = {
        name: {"value": value, "error": error if error == error else None, "unit": unit}
        for name, value, error, unit in rows
    }
    write_json(folder / VALUES, {"converged": result.converged, "message": result.message, "parameters": values})
    if plots:
        write_figures(folder / "trace.png", [plot.trace(result, truth)])
        write_figures(folder / "correlations.png", [plot.correlations(result)])
        write_figures(folder / "residuals.png", [plot.residuals(result)])
        write_figures(folder / "overview.png", [plot.overview(result, truth)])


def _objective(compare: str, method: str, chip: "Chip | None", detector: "Detector") -> Any:
    """For `fit`: the likelihood of the front end, or of chips that differ from it; so for hits that are compared."""
    from hepops.lartpc.fit import MatchedHits, Noise, PixelSums, Robust
    from hepops.lartpc.likelihood import HitLikelihood

    if chip is None:
        return "likelihood" if compare == "likelihood" else None
    if compare == "likelihood":
        return HitLikelihood(chip)
    noise = Noise.of(detector)
    if method == "adam":
        return PixelSums(noise, Robust("huber"), chip=chip)
    return [PixelSums(noise, chip=chip), MatchedHits(noise, chip=chip)]


def _prepare(folder: Path, overwrite: bool, processes: int, held: list[Any]) -> list[dict[str, Any]]:
    """A folder that is not there, or empty of a finished fit; an unfinished one goes on.

    Returns:
        The starts so far, this one last; the folder's lock is in `held`.
    """
    from hepops.lartpc.production import record

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: exists and is not a folder")
    if (folder / DONE).exists() and not overwrite:
        raise ValueError(f"{folder}: holds a finished fit; --overwrite begins anew")
    if not folder.exists() and not folder.parent.is_dir():
        raise ValueError(f"{folder}: there is no folder {folder.parent}")
    check_writable(folder if folder.exists() else folder.parent)
    folder.mkdir(exist_ok=True)
    held.append(record.locked(folder / LOCK))
    if overwrite:
        for name in LEFT:
            (folder / name).unlink(missing_ok=True)
    for name in (*LEFT, *FIGURES):  # of a start that was killed as it wrote
        for path in folder.glob(f".{name}.*.part"):
            path.unlink()
    state = folder / "state.json"
    return record.begin(folder, processes, _iterations(state), [state] if state.exists() else [])


def _was_finished(folder: Path) -> bool:
    """Whether a start was killed after its fit was written, before it had tidied; that is done now.

    Raises:
        ValueError: another process is at work there.
    """
    from hepops.lartpc.production import record

    starts = record.read(folder)
    if not starts or not (folder / DONE).is_file():
        return False
    lock = record.locked(folder / LOCK)
    made = json.loads((folder / DONE).read_text()).get("run", {}).get("starts", [{}])
    if any(made[0].get(name) != starts[0][name] for name in ("began", "host")):
        lock.close()
        return False
    _tidy(folder, lock)
    return True


def _tidy(folder: Path, lock: Any) -> None:
    """The end of a fit: what only starts need goes, their record last."""
    from hepops.lartpc.production import record

    (folder / LOCK).unlink()
    lock.close()
    (folder / record.STARTS).unlink()


def _iterations(state: Path) -> int:
    """How many an earlier start has done."""
    try:
        return len(json.loads(state.read_text())["trace"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _start(texts: list[str] | None) -> Any:
    if not texts:
        return "nominal"
    return texts[0] if texts in (["random"], ["nominal"]) else o.parse_values("--start", texts)


def _priors(texts: list[str] | None) -> Any:
    return "published" if texts == ["published"] else _pairs("--prior", texts)


def _pairs(option: str, texts: list[str] | None) -> dict[str, tuple[float, float]] | None:
    if not texts:
        return None
    pairs = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            a, b = (float(number) for number in numbers.split(":"))
        except ValueError:
            raise ValueError(f"{option} must be name=a:b, got {text!r}") from None
        pairs[name.strip()] = (a, b)
    return pairs
