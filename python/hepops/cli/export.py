"""hepops export: a model as a package that runs without Python."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as o

if TYPE_CHECKING:
    from torch import nn


def export(
    model: Annotated[
        Path, typer.Argument(help="A saved model: the folder that `hepops segment` or hepops.save wrote.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The package.")] = Path("model.pt2"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a package that is there.")] = False,
    triton: Annotated[
        Path | None,
        typer.Option("--triton", help="Also write a model repository for Triton's Python backend.", show_default=False),
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """Compile a saved network into a package (.pt2) for Python and C++ programs.

    Prints its inputs, its outputs and the SHA-256 of the file, which `hepops run --sha256` compares.
    """
    from hepops.export import export as write
    from hepops.export import triton_repository

    if output.exists() and not overwrite:
        raise ValueError(f"{output}: exists; --overwrite writes over it")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")
    network = _load(model)
    if not quiet:
        typer.echo("compiling, which takes a minute or two", err=True)
    description = write(network, output)
    if triton is not None:
        repository = triton_repository(output, triton)
    if quiet:
        return
    for kind in ("inputs", "outputs"):
        for x in description[kind]:
            shape = ", ".join(map(str, x["shape"]))
            typer.echo(
                f"{kind[:-1]:8}  {x['name']} {x['dtype']} ({shape}){'  ' + x['meaning'] if x['meaning'] else ''}"
            )
    if description["classes"]:
        typer.echo(f"classes   {', '.join(description['classes'])}")
    typer.echo(f"sha256    {description['sha256']}\n\n-> {output}")
    if triton is not None:
        typer.echo(f"-> {repository}")


def _load(path: Path) -> "nn.Module":
    import json

    import hepops
    from hepops.segmentation import Segmenter
    from hepops.segmentation.network import CONFIG, FORMAT

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    try:
        config = json.loads((path / CONFIG).read_text()) if (path / CONFIG).is_file() else None
    except ValueError as error:
        raise ValueError(f"{path / CONFIG}: not JSON ({error})") from None
    if isinstance(config, dict) and config.get("format") == FORMAT:
        return Segmenter.load(path)
    load = getattr(hepops, "load", None)
    if load is None:
        raise ValueError(f"{path}: not a saved network (there is no {CONFIG} of a {FORMAT})")
    made: nn.Module = load(path)
    return made
