"""hepops segment: a network that tells muon, proton, delta ray and shower apart, from nothing."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .display import write_figures
from .provenance import provenance, write_json

DONE = "provenance.json"
LEFT = (
    DONE, "state.pt", "history.csv", "metrics.json", "model.safetensors", "config.json", "model.yaml", "SHA256SUMS",
    "summary.txt",
)  # fmt: skip
DISPLAYS = 4  # events drawn


def segment(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("hepops-segmentation"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train anew; events that fit are kept.")] = False,
    events: Annotated[int, typer.Option("--events", help="Events to learn from.")] = 1200,
    test_events: Annotated[int, typer.Option("--test-events", help="Further events, to measure with.")] = 200,
    epochs: Annotated[int, typer.Option("--epochs", help="How often each event is seen.")] = 24,
    batch: Annotated[int, typer.Option("--batch", help="Events per step.")] = 8,
    rate: Annotated[float, typer.Option("--rate", help="The highest learning rate.")] = 3e-3,
    filters: Annotated[int, typer.Option("--filters", help="Channels of the finest level.")] = 16,
    depth: Annotated[int, typer.Option("--depth", help="Levels.")] = 5,
    reps: Annotated[int, typer.Option("--reps", help="Residual blocks on each level.")] = 2,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="Stop training after so long; the same command goes on.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of events, weights and order.")] = 0,
    threads: o.Threads = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw curves and events.")] = True,
    quiet: o.Quiet = False,
) -> None:
    """Train a network that tells muon, proton, delta ray and shower apart, voxel by voxel.

    Events are shot and simulated, the network learns from most and is measured on the others. Started again after a
    kill it goes on where it was, and ends with the same bits.
    """
    import sys

    import torch
    from tqdm import tqdm

    from hepops.core.files import atomic
    from hepops.segmentation import Plan, Sample, train
    from hepops.segmentation.sample import prepare
    from hepops.sparse.models import Configuration

    o.check_seed(seed)
    for name, number in (("--events", events), ("--test-events", test_events)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    network = {"filters": filters, "depth": depth, "reps": reps}
    plan = Plan(epochs=epochs, batch=batch, rate=rate, seed=seed, network=network)
    if minutes is not None and not minutes > 0:
        raise ValueError(f"--minutes must be positive, got {minutes}")
    Configuration.of(network)  # refuses before any work is done
    _prepare(output, overwrite)
    o.set_threads(threads)
    shown = None if not quiet and sys.stderr.isatty() else True
    began, cpu = time.perf_counter(), sum(os.times()[:4])

    with tqdm(desc="events", total=events + test_events, unit="event", disable=shown, leave=False) as bar:

        def count(done: int, total: int) -> None:
            bar.update(done - bar.n)

        workers = torch.get_num_threads()
        whole = prepare(output / "events", events + test_events, seed=seed, workers=workers, progress=count)
    parts = whole.split()
    learn = Sample.cat([part for part in parts if int(part.coordinates[0, 0]) < events])
    test = Sample.cat([part for part in parts if int(part.coordinates[0, 0]) >= events])
    made = time.perf_counter() - began
    if not quiet:
        typer.echo(f"events    {len(parts)} with {len(whole)} voxels in {made:.0f} s")

    with tqdm(desc="train", unit="step", disable=shown, leave=False) as bar:

        def update(step: int, steps: int, measured: dict[str, float]) -> None:
            bar.total = steps
            bar.update(step - bar.n)
            names = {"loss": "loss", "accuracy": "accuracy", "test_accuracy": "test"}
            bar.set_postfix({short: f"{measured[name]:.3f}" for name, short in names.items() if name in measured})

        trained = train(output, learn, test, plan, minutes=minutes, progress=update)
    wall = time.perf_counter() - began
    if not trained.finished:
        left = f"step {trained.step} of {trained.steps} after {minutes:g} minutes: the same command goes on"
        typer.echo(f"hepops: warning: not finished, {left}", err=True)
    text = trained.score.table()
    with atomic(output / "summary.txt") as part:
        part.write_text(f"{text}\n\n{events} events, {trained.step} steps; {test_events} events to measure with\n")
    if plots:
        _draw(output, trained, test)
    if trained.finished:
        write_json(output / DONE, {"provenance": provenance()})
    if not quiet:
        cpu = sum(os.times()[:4]) - cpu  # the workers' too
        typer.echo(f"training  {trained.step} steps of {plan.batch} events")
        typer.echo(f"in all    {wall:.0f} s, {cpu:.0f} s of CPU\n\n{text}\n\n-> {output}")


def _draw(folder: Path, trained: Any, test: Any) -> None:
    from hepops.segmentation import confusion, curves, event_display

    write_figures(folder / "curves.png", [curves(trained.history)])
    write_figures(folder / "confusion.png", [confusion(trained.score)])
    parts = sorted(test.split(), key=lambda part: (-int(part.class_counts().count_nonzero()), -len(part)))
    for part in parts[:DISPLAYS]:
        number = int(part.coordinates[0, 0])
        given = trained.segmenter.label(part.coordinates, part.charge)
        write_figures(folder / f"event_{number}.png", [event_display(part, given)])


def _prepare(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: exists and is not a folder")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise ValueError(f"{folder}: there is no folder {folder.parent}")
    if (folder / DONE).exists() and not overwrite:
        raise ValueError(f"{folder}: holds a finished training; --overwrite begins anew")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in (*LEFT, "events")):
        raise ValueError(f"{folder}: holds other files; give a folder of its own")
    folder.mkdir(exist_ok=True)
    if overwrite:
        for name in LEFT:
            (folder / name).unlink(missing_ok=True)
