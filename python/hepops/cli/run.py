"""hepops run: the voxels of a file through an exported model."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o


def run(
    package: Annotated[Path, typer.Argument(help="A package that `hepops export` wrote.")],
    voxels: Annotated[Path, typer.Argument(help="HDF5 with a dataset for each input, such as coordinates and charge.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 to write.")] = Path("labels.h5"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")] = False,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", help="Of the package, as its maker told it: another is refused.", show_default=False),
    ] = None,
    threads: o.Threads = None,
    quiet: o.Quiet = False,
) -> None:
    """Label the voxels of a file with an exported model.

    The package's checksums are verified before its machine code is loaded.
    """
    import torch

    from hepops.export import label_file, load

    if output.exists() and not overwrite:
        raise ValueError(f"{output}: exists; --overwrite writes over it")
    o.set_threads(threads)
    loaded = load(package, sha256=sha256)
    result = label_file(loaded, voxels, output)
    if quiet:
        return
    classes = loaded.description["classes"]
    counts = torch.bincount(result, minlength=len(classes)).tolist() if classes else []
    for name, count in zip(classes, counts, strict=True):
        typer.echo(f"{name:10} {count}")
    typer.echo(f"{len(result)} voxels\n\n-> {output}")
