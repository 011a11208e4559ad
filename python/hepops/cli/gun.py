"""hepops gun: a sample of the particle gun, in edep-sim's layout."""

import json
from typing import Annotated, Literal

import typer

from . import options as o
from .provenance import check_output, provenance


def gun(
    output: o.Output,
    overwrite: o.Overwrite = False,
    particle: Annotated[
        str,
        typer.Option(
            "--particle",
            help="muon, pion, kaon, proton, deuteron, alpha or electron; with --radiation positron or photon too.",
        ),
    ] = "muon",
    number: Annotated[int, typer.Option("--number", "-n", help="Events.")] = 10,
    energy: Annotated[
        str | None,
        typer.Option("--energy", metavar="T or A:B", help="Kinetic energy [MeV]. [default: 1000]", show_default=False),
    ] = None,
    topology: Annotated[
        Literal["through", "stopping", "inside"], typer.Option("--topology", help="Where tracks begin and end.")
    ] = "through",
    directions: Annotated[
        Literal["isotropic", "cosmic", "beam"], typer.Option("--directions", help="Where they go.")
    ] = "isotropic",
    tracks: Annotated[int, typer.Option("--tracks", help="Per event.")] = 1,
    step: Annotated[float, typer.Option("--step", help="Longest segment [cm].")] = 0.5,
    scattering: Annotated[bool, typer.Option("--scattering", help="Multiple scattering.")] = False,
    straggling: Annotated[bool, typer.Option("--straggling", help="Fluctuations of the energy loss.")] = False,
    deltas: Annotated[
        float | None,
        typer.Option("--deltas", help="Delta rays above this energy become tracks [MeV].", show_default=False),
    ] = None,
    radiation: Annotated[
        float | None,
        typer.Option(
            "--radiation", help="Electrons shower: photons above this are followed [MeV].", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Event i depends on (seed, i) alone.")] = 0,
    first_event: Annotated[int, typer.Option("--first-event", help="Id of the first event.")] = 0,
    detector: o.DetectorName = "module0",
    properties: o.Properties = None,
    layout: o.Layout = None,
    module: o.Module = None,
    quiet: o.Quiet = False,
) -> None:
    """Shoot particles, write their energy deposits."""
    import h5py

    from hepops.core.files import atomic
    from hepops.lartpc import write_segments
    from hepops.lartpc.gun import shoot

    o.check_seed(seed)
    check_output(output, overwrite, [properties, *(layout or ())])
    segments = shoot(
        o.build_detector(detector, properties, layout, module),
        number,
        particle,
        energy=_energy(energy),
        topology=topology,
        directions=directions,
        tracks=tracks,
        step=step,
        scattering=scattering,
        straggling=straggling,
        deltas=deltas,
        radiation=radiation,
        seed=seed,
        first_event=first_event,
    )
    with atomic(output) as part:
        write_segments(part, segments, positions="f8")
        with h5py.File(part, "r+") as file:
            file.attrs["provenance"] = json.dumps(provenance())
    if not quiet:
        typer.echo(f"{segments.report()} -> {output}")


def _energy(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ValueError(f"--energy must be one number or a:b [MeV], got {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
