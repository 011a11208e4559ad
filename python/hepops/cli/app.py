"""The application: its commands, and errors in one line.

Exit code 0: done; 1: refused or failed, with one line on stderr; 2: the command line itself is wrong, one line too;
130: interrupted.
"""

import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import (
    calibrate,
    demo,
    display,
    export,
    gun,
    info,
    merge,
    models,
    packets,
    posterior,
    reproduce,
    run,
    segment,
    simulate,
)
from .examples import EXAMPLES
from .provenance import COMMAND


class OneLine(TyperGroup):
    """A group of commands whose errors and warnings take one line each; `--debug`, anywhere, shows where they arose."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in words
        words = [word for word in words if word != "--debug"]
        COMMAND.set(shlex.join(["hepops", *words]))
        run = super().main
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            try:
                code = run(words, prog_name, complete_var, False, windows_expand_args, **extra)
            except typer.Abort:
                code = _fail("interrupted", 130)
            except Exception as error:
                if debug:
                    raise
                # a wrong command line: typer's own errors know how to say what is wrong
                message = getattr(error, "format_message", None)
                code = _fail(message(), 2) if message else _fail(_sentence(error), 1)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def _fail(message: str, code: int) -> int:
    typer.echo(f"hepops: {' '.join(message.split())}", err=True)
    return code


def _sentence(error: Exception) -> str:
    """Errors that the library raises on purpose speak for themselves; others are named."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    if isinstance(error, ValueError | TypeError | OSError | ImportError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    text = " ".join(str(message).split()).removeprefix("hepops: ")
    typer.echo(f"hepops: warning: {text}", err=True)


app = typer.Typer(
    cls=OneLine,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="--debug, anywhere on the line, shows where an error arose.",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="KIND:FOLDER",
            help="Log the command's trainings and fits: csv, tensorboard, mlflow or wandb. Repeat it for more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Liquid-argon TPCs from energy deposits to calibrated hits; networks, models, runs. Begin with `hepops demo`."""
    if version:
        from hepops import _core

        typer.echo(_core.version)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif log:
        context.with_resource(_logged(log))


@contextmanager
def _logged(texts: Sequence[str]) -> Iterator[None]:
    """The run of "kind:folder" and others."""
    from hepops.runs import log

    places = dict(text.partition(":")[::2] for text in texts)
    if bad := [text for text in texts if not text.partition(":")[2]]:
        raise ValueError(f"--log must be kind:folder, such as csv:runs/1, got {bad[0]!r}")
    options: dict[str, Any] = {kind: {"folder": place} for kind, place in places.items()}
    with log(next(iter(places.values())), list(places), **options) as run:
        run.parameters({"command": COMMAND.get()})
        yield


for command in (
    demo.demo, simulate.simulate, calibrate.calibrate, display.display, gun.gun, merge.merge,
    segment.segment, export.export, run.run, posterior.posterior, info.info, reproduce.reproduce,
    packets.export_packets, packets.import_packets,
):  # fmt: skip
    known = command.__name__.replace("_", "-")
    app.command(epilog=f"\b\nExample:\n  {EXAMPLES[known]}")(command)
app.add_typer(models.models, name="models")


def main() -> None:
    """The entry point."""
    app(prog_name="hepops")
