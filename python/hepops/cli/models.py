"""hepops models: a registry of saved models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hepops.models import Registry

models = typer.Typer(
    help="Models that can be found again: list, show, get, add, tag, clean.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Where = Annotated[
    str,
    typer.Option("--registry", "-r", envvar="HEPOPS_REGISTRY", help="A folder or a URL.", show_default=False),
]
Reference = Annotated[str, typer.Argument(help="NAME, NAME@VERSION or NAME@TAG.", show_default=False)]


@models.command("list")
def list_models(
    registry: Where,
    name: Annotated[str | None, typer.Argument(help="One model alone.", show_default=False)] = None,
) -> None:
    """All versions, with their tags; exit code 1 where the files of one are gone or were changed."""
    held = _open(registry)
    entries = held.entries(name)
    width = max((len(str(entry)) for entry in entries), default=0)
    broken = []
    for entry in entries:
        try:
            card = held.card(entry)
        except (ValueError, FileNotFoundError) as error:  # the others are there all the same
            broken.append(str(error))
            typer.echo("  ".join([f"{entry!s:{width}}", entry.added, "broken", ",".join(entry.tags)]).rstrip())
            continue
        metrics = " ".join(f"{n}={v:.4g}" for n, v in card.metrics.items() if isinstance(v, (int, float)))
        words = [f"{entry!s:{width}}", entry.added, card.cls.rpartition(".")[2], ",".join(entry.tags), metrics]
        typer.echo("  ".join(word for word in words if word))
    if not entries:
        typer.echo(f"{registry}: no models")
    if left := held.unfinished():
        typer.echo(f"hepops: warning: {len(left)} unfinished additions: `hepops models clean` removes them", err=True)
    for text in broken:
        typer.echo(f"hepops: {text}", err=True)
    if broken:
        raise typer.Exit(1)


@models.command()
def show(reference: Reference, registry: Where) -> None:
    """What is known of a model."""
    held = _open(registry)
    entry = held.entry(reference)
    typer.echo(f"{entry!s}\n{held.card(entry)}")
    typer.echo(f"{'sha256':<12} {entry.sha256}")
    if entry.tags:
        typer.echo(f"{'tags':<12} {', '.join(entry.tags)}")


@models.command()
def get(
    reference: Reference,
    registry: Where,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder to make. [default: the cache]", show_default=False),
    ] = None,
) -> None:
    """The verified files of a model, in a folder."""
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: exists; give a folder that is not there yet")
    typer.echo(str(_open(registry).get(reference, output)))


@models.command()
def add(
    name: Annotated[str, typer.Argument(help="Of the model.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="What hepops.save wrote.", show_default=False)],
    registry: Where,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Repeat it for more.", show_default=False)] = None,
) -> None:
    """Add a saved model as a new version."""
    typer.echo(str(_open(registry).add(name, folder, tags=tag or [])))


@models.command("tag")
def tag_model(
    reference: Reference, tag: Annotated[str, typer.Argument(help="The tag.", show_default=False)], registry: Where
) -> None:
    """Let a tag name a version; it may have named another."""
    held = _open(registry)
    held.tag(reference, tag)
    typer.echo(f"{held.entry(reference)} {tag}")


@models.command()
def clean(
    registry: Where,
    older: Annotated[float, typer.Option("--older", help="Left behind longer ago than so many hours.")] = 24.0,
) -> None:
    """Remove what additions have left that were killed."""
    removed = _open(registry).clean(3600 * older)
    for path in removed:
        typer.echo(path)
    typer.echo(f"{len(removed)} removed")


def _open(url: str) -> "Registry":
    from hepops.models import Registry

    held: Any = Registry(url)
    return held
