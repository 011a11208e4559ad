"""hepops posterior: what hits say of the detector that made them, as a posterior that was tested."""

import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import options as o
from .display import write_figures
from .provenance import provenance, write_json

DONE = "provenance.json"
FILES = ("posterior.safetensors", "posterior.json", "result.json", "summary.txt", "corner.png", "sbc.png", "tarp.png")
FOLDERS = ("fit", "simulations")
TRUTH = {
    "lifetime": 1900.0,
    "efield": 0.495,
    "birks_a": 0.81,
    "birks_k": 0.050,
    "transverse_diffusion": 9.5e-6,
    "longitudinal_diffusion": 5.0e-6,
}


def posterior(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder.")] = Path("hepops-posterior"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
    parameter: o.Values = None,
    muons: Annotated[int, typer.Option("--muons", help="Cosmic muons, an event each.")] = 2,
    protons: Annotated[int, typer.Option("--protons", help="Protons that stop in the detector, an event each.")] = 4,
    noise: Annotated[
        Literal["known", "chip"],
        typer.Option("--noise", help="Normal noise on every hit, or the clocked chip with its own."),
    ] = "known",
    charge_noise: Annotated[float, typer.Option("--charge-noise", help="Of a hit's charge, known [e].")] = 1068.0,
    time_noise: Annotated[float, typer.Option("--time-noise", help="Of a hit's time, known [us].")] = 0.2,
    simulations: Annotated[int, typer.Option("--simulations", help="To learn from.")] = 3000,
    held_out: Annotated[int, typer.Option("--held-out", help="Further ones, to test with.")] = 300,
    width: Annotated[float, typer.Option("--width", help="Half of the prior's box, in the fit's errors.")] = 6.0,
    members: Annotated[int, typer.Option("--members", help="Networks of the ensemble.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", help="Of the training, at most.")] = 60,
    workers: Annotated[int, typer.Option("--workers", help="Processes that simulate; 0: this one.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of tracks, noise, simulations and training.")] = 0,
    threads: o.Threads = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the posterior and its tests.")] = True,
    quiet: o.Quiet = False,
) -> None:
    """The posterior of the six parameters of a simulated detector, learned from simulations of its hits.

    Tracks are shot and measured, with noise, in a detector whose parameters (--parameter) are then forgotten. Killed,
    the same command goes on with the simulations that it has.
    """
    import sys

    import torch
    from tqdm import tqdm

    from hepops.calibration import Experiment, Known, calibrate
    from hepops.core.files import atomic
    from hepops.flows.inference import Training
    from hepops.lartpc import Detector, Parameters, Segments, Simulator, gun

    o.check_seed(seed)
    least = {"--muons": (muons, 1), "--protons": (protons, 1), "--simulations": (simulations, 50),
             "--held-out": (held_out, 40), "--width": (width, 1),
             "--members": (members, 1), "--workers": (workers, 0)}  # fmt: skip
    for name, (number, bound) in least.items():
        if not number >= bound:
            raise ValueError(f"{name} must be at least {bound}, got {number}")
    truth = Parameters(**{**TRUTH, **o.parse_values("--parameter", parameter)})
    known = Known(sigma_charge=charge_noise, sigma_time=time_noise) if noise == "known" else None
    training = Training(epochs=epochs)
    _prepare(output, overwrite)
    o.set_threads(threads)
    began, cpu = time.perf_counter(), sum(os.times()[:4])

    detector = Detector.module0()
    through: Any = {"directions": "cosmic", "scattering": True, "seed": seed}
    inside: Any = {"topology": "inside", "energy": (100.0, 250.0), "seed": seed, "first_event": muons}
    tracks = Segments.cat([gun.shoot(detector, muons, **through), gun.shoot(detector, protons, "proton", **inside)])
    fixed = {n: v for n, v in truth.to_dict().items() if n not in Parameters.SIX}
    experiment = Experiment(Simulator(detector, Parameters(**fixed)), tracks, known)
    true = torch.tensor([getattr(truth, name) for name in Parameters.SIX], dtype=torch.float64)
    measured = experiment.measure(true, 2**62 + seed % 2**60)  # a seed that no simulation has
    shown = None if not quiet and sys.stderr.isatty() else True
    with tqdm(desc="simulate", total=simulations + held_out, disable=shown, leave=False) as bar:

        def count(done: int, total: int) -> None:
            bar.update(done - bar.n)

        found = calibrate(
            experiment,
            measured,
            simulations=simulations,
            held_out=held_out,
            width=width,
            members=members,
            training=training,
            seed=seed,
            folder=output,
            workers=workers,
            progress=count,
        )
    found.posterior.save(output)
    text = found.summary(true)
    with atomic(output / "summary.txt") as part:
        part.write_text(text + "\n")
    values = {"parameters": list(Parameters.SIX), "truth": true.tolist(), "measured hits": len(measured)}
    write_json(output / "result.json", values | found.to_dict())
    if plots:
        write_figures(output / "corner.png", [found.corner(true)])
        write_figures(output / "sbc.png", [found.sbc.plot()])
        write_figures(output / "tarp.png", [found.tarp.plot()])
    write_json(output / DONE, {"provenance": provenance()})
    if not quiet:
        spent = sum(os.times()[:4]) - cpu
        typer.echo(f"{len(measured)} hits, {time.perf_counter() - began:.0f} s, {spent:.0f} s of CPU\n\n{text}")
        typer.echo(f"\n-> {output}")


def _prepare(folder: Path, overwrite: bool) -> None:
    import shutil

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: exists and is not a folder")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise ValueError(f"{folder}: there is no folder {folder.parent}")
    if (folder / DONE).exists() and not overwrite:
        raise ValueError(f"{folder}: holds a finished posterior; --overwrite begins anew")
    own = (DONE, *FILES, *FOLDERS)
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).exists() for name in own):
        raise ValueError(f"{folder}: holds other files; give a folder of its own")
    folder.mkdir(exist_ok=True)
    if overwrite:
        for name in (DONE, *FILES):
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
