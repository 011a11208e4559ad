"""hepops reproduce: a saved run once more, and what differs."""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hepops.runs import Comparison

# Commands that a file may name, and whether their output is a folder. None of them writes elsewhere.
COMMANDS = {"simulate": False, "gun": False, "calibrate": True, "segment": True, "posterior": True}
SHOWN = 20


def reproduce(
    run: Annotated[Path, typer.Argument(help="A file of hits or tracks, or the folder of a run.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to keep the new one. [default: removed at the end]", show_default=False
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", help="Where its inputs lie. [default: where it ran]", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say what differs, nothing else.")] = False,
) -> None:
    """Do a saved run again, in a new place, and compare bit by bit.

    Takes what simulate, gun, calibrate, segment and posterior wrote, and folders of hepops.runs.start. Exit code 1
    where anything differs.
    """
    from hepops.runs.tasks import CONFIGURATION

    if not run.exists():
        raise FileNotFoundError(f"{run}: no such file or folder")
    if output is not None and output.exists():
        raise ValueError(f"{output}: exists already; give a new place")
    saved = run.is_dir() and (run / CONFIGURATION).is_file()
    with tempfile.TemporaryDirectory(prefix="hepops-reproduce-") as folder:
        new = (output or Path(folder) / run.absolute().name).absolute()
        found = _configured(run, new) if saved else _commanded(run, new, directory)
    for note in found.notes:
        typer.echo(f"hepops: warning: {note}", err=True)
    for line in found.differences[:SHOWN]:
        typer.echo(line)
    if len(found.differences) > SHOWN:
        typer.echo(f"and {len(found.differences) - SHOWN} more")
    if not found.same:
        typer.echo(f"{len(found.differences)} differences in {found.parts} parts of {found.files} files")
        raise typer.Exit(1)
    if not quiet:
        typer.echo(f"the same bits: {found.parts} parts of {found.files} files")


def _configured(run: Path, new: Path) -> "Comparison":
    from hepops.runs import repeat

    return repeat(run, new)


def _commanded(run: Path, new: Path, directory: Path | None) -> "Comparison":
    from hepops.runs.compare import compare
    from hepops.runs.environment import differences

    from .info import made
    from .provenance import provenance, sha256

    known: dict[str, Any] = made(run).get("provenance", {})
    words = words_of(run, known)
    where = directory or Path(known.get("directory", "."))
    if not where.is_dir():
        raise ValueError(f"{run}: ran in {where}, which is not there; --directory says where its inputs lie")
    inputs = known.get("inputs")
    for name, expected in (inputs if isinstance(inputs, dict) else {}).items():
        if not (where / name).is_file():
            raise ValueError(f"{run}: its input {name} is not in {where}; --directory says where its inputs lie")
        if (is_now := sha256(where / name)) != expected:
            raise ValueError(
                f"{run}: its input {name} is not the one that it was made from: SHA-256 {is_now}, expected {expected}"
            )
    line = [sys.executable, "-m", "hepops.cli", *words, "--output", str(new)]
    done = subprocess.run(line, cwd=where, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"{run}: `hepops {shlex.join(words)}` failed: {said[0].removeprefix('hepops: ')}")
    found = compare(run, new)
    found.notes = differences(known, provenance())
    return found


def words_of(run: Path, known: dict[str, Any]) -> list[str]:
    """The command that made a run, without its output.

    Raises:
        ValueError: it does not say, or it was none that can be repeated.
    """
    try:
        words = shlex.split(str(known.get("command") or ""))
    except ValueError as error:
        raise ValueError(f"{run}: was made by {known['command']!r:.80}, which is no command ({error})") from None
    while len(words) > 2 and words[1].startswith("--log"):
        del words[1 : 3 if words[1] == "--log" else 2]
    if len(words) < 2 or words[0] != "hepops" or words[1] not in COMMANDS:
        said = known.get("command") or "nothing"
        raise ValueError(f"{run}: was made by {said!r}, which is none of {', '.join(COMMANDS)}")
    kept: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word in ("-o", "--output"):
            next(rest, None)
        elif not word.startswith(("-o", "--output=")) and word not in ("--overwrite", "-q", "--quiet"):
            kept.append(word)
    return [*kept, "--quiet"]
