"""Options that several commands share, and what their texts mean."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import torch

    from hepops.lartpc import Detector, Segments
    from hepops.lartpc.production import Index
    from hepops.lartpc.production.index import Array

# ---- the options

Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.")]
DeviceName = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads; the result does not depend on it.")]
DType = Annotated[Literal["float32", "float64"], typer.Option("--dtype", help="Of currents and hits.")]
Events = Annotated[
    str | None, typer.Option("--events", metavar="A:B", help="Only these, counted in the sorted list of ids.")
]
Shard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Part I = 0 ... N-1 of the events; `merge` joins the parts."),
]
DetectorName = Annotated[str, typer.Option("--detector", help="A built-in detector: module0, 2x2, fsd or ndlar.")]
Properties = Annotated[
    Path | None, typer.Option("--properties", metavar="YAML", help="Detector properties, in larnd-sim's format.")
]
Layout = Annotated[
    list[Path] | None, typer.Option("--layout", metavar="YAML", help="Pixel layout; repeat it for one per module.")
]
Module = Annotated[int | None, typer.Option("--module", help="Keep one module of --properties alone.")]
Offset = Annotated[str, typer.Option("--offset", metavar="X,Y,Z", help="Added to all positions of the tracks [cm].")]
OnBad = Annotated[
    Literal["raise", "exclude"], typer.Option("--on-bad", help="Bad segments: refuse the file, or leave out and count.")
]
SameEvent = Annotated[
    Literal["raise", "merge", "renumber"], typer.Option("--same-event", help="Where two files hold the same event id.")
]
Values = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A physical parameter; repeat it for more."),
]
ResponseName = Annotated[
    str | None,
    typer.Option("--response", help="'builtin', or a table (.npy, .npz). [default: builtin]", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Recombination: birks, box or ellipsoid. [default: birks]", show_default=False),
]
StepLength = Annotated[
    float | None, typer.Option("--step", help="Longest piece of track [cm]. [default: 0.1]", show_default=False)
]
Reach = Annotated[
    int | None, typer.Option("--reach", help="Pixels on each side that see a charge. [default: 2]", show_default=False)
]
Length = Annotated[
    int | None, typer.Option("--length", help="Ticks resolved before arrival. [default: 150]", show_default=False)
]
ThresholdText = Annotated[
    str | None,
    typer.Option("--threshold", help="[e], or a .npz table per pixel. [default: the detector's]", show_default=False),
]

# ---- what they mean


def parse_events(text: str | None) -> slice:
    """The slice of "a:b", either end optional."""
    if text is None:
        return slice(None)
    match = re.fullmatch(r"\s*(-?\d+)?:(-?\d+)?\s*", text)
    if match is None:
        raise ValueError(f"--events must be a:b, such as 0:10 for the first ten, got {text!r}")
    first, last = (None if end is None else int(end) for end in match.groups())
    return slice(first, last)


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, n) of "i/n"."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"\s*(\d+)/(\d+)\s*", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"--shard must be i/n with i from 0 to n-1, such as 0/8, got {text!r}")
    return int(match[1]), int(match[2])


def parse_vector(text: str) -> tuple[float, float, float]:
    """Three numbers of "x,y,z"."""
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--offset must be three numbers x,y,z [cm], got {text!r}") from None
    return x, y, z


def parse_values(option: str, texts: Sequence[str] | None) -> dict[str, float]:
    """Numbers by name, of "name=value" each."""
    values: dict[str, float] = {}
    for text in texts or ():
        name, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"{option} must be name=value, got {text!r}")
        if name.strip() in values:
            raise ValueError(f"{option} names {name.strip()} twice")
        values[name.strip()] = value
    return values


def check_seed(seed: int | None) -> None:
    """Refuse a seed that 63 bits do not hold."""
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(f"--seed must lie between 0 and 2**63 - 1, got {seed}")


def parse_device(name: str) -> "torch.device":
    """The device, checked."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"--device {name}: torch finds {count} GPUs")
        if not hasattr(torch.ops.hepops, "recombine") or not _built_for_cuda():
            raise ValueError(f"--device {name}: this hepops was built without CUDA")
    return device


def _built_for_cuda() -> bool:
    from hepops.core import libraries

    return (libraries.DIRECTORY / "libhepops_cuda.so").exists()


def set_threads(threads: int | None) -> None:
    """torch's threads, ours too."""
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}")
    import torch

    torch.set_num_threads(threads)


def build_detector(name: str, properties: Path | None, layout: list[Path] | None, module: int | None) -> "Detector":
    """The built-in detector, or that of the files."""
    from hepops.lartpc import Detector

    built_in = {"module0": Detector.module0, "2x2": Detector.two_by_two, "fsd": Detector.fsd, "ndlar": Detector.nd_lar}
    if properties is None and not layout:
        if name not in built_in:
            known = ", ".join(built_in)
            raise ValueError(f"--detector must be {known} (others come from --properties and --layout), got {name!r}")
        detector = built_in[name]()
        detector = detector if module is None else detector.module(module)
    elif properties is None or not layout:
        raise ValueError("--properties and --layout belong together, one of them is missing")
    else:
        detector = Detector.from_yaml(properties, layout[0] if len(layout) == 1 else layout, module=module)
    return detector


def detector_of(
    config: dict[str, Any],
    path: Path,
    name: str | None,
    properties: Path | None,
    layout: list[Path] | None,
    module: int | None,
) -> "Detector":
    """The detector that the command line names, else that of the file of hits."""
    if name is None and properties is None and not layout and module is None:
        if "detector" not in config:
            raise ValueError(f"{path}: does not say which detector made it; --detector or --properties and --layout do")
        held: Detector = config["detector"]
        return held
    return build_detector(name or "module0", properties, layout, module)


def read_tracks(
    tracks: list[Path],
    config: dict[str, Any],
) -> "Segments":
    """The tracks of a file of hits, read as the file says they were read."""
    return read_files(tracks, *_as_read(config), hint="simulate's --same-event")


def _as_read(config: dict[str, Any], offset: str | None = None) -> tuple[tuple[float, ...], Any, Any]:
    """Offset, on_bad and same_event of a file of hits; another offset where the command line has one."""
    source: dict[str, Any] = config.get("source", {})
    shift = parse_vector(offset) if offset is not None else tuple(source.get("offset", (0.0, 0.0, 0.0)))
    return shift, source.get("on_bad", "raise"), source.get("same_event", "raise")


def read_files(
    tracks: list[Path],
    offset: tuple[float, ...],
    on_bad: Literal["raise", "exclude"],
    same_event: Literal["raise", "merge", "renumber"],
    hint: str = "--same-event",
) -> "Segments":
    """`read_segments`, whose errors name the option instead of the argument."""
    from hepops.lartpc import read_segments

    try:
        return read_segments(list(tracks), offset=offset, on_bad=on_bad, same_event=same_event)
    except ValueError as error:
        raise ValueError(_option_for_argument(str(error), hint)) from error


def scan_tracks(tracks: list[Path], config: dict[str, Any], offset: str | None = None) -> "Index":
    """The tracks of a file of hits, read as the file says they were read, unless the command line says otherwise."""
    return scan_files(tracks, *_as_read(config, offset), hint="simulate's --same-event")


def scan_files(
    tracks: list[Path],
    offset: tuple[float, ...],
    on_bad: Literal["raise", "exclude"],
    same_event: Literal["raise", "merge", "renumber"],
    hint: str = "--same-event",
) -> "Index":
    """The index of the files, whose errors name the option instead of the argument."""
    from hepops.lartpc.production import Index, Source

    try:
        return Index.scan(Source(tuple(tracks), tuple(offset), on_bad, same_event))
    except ValueError as error:
        raise ValueError(_option_for_argument(str(error), hint)) from error


def _option_for_argument(text: str, hint: str) -> str:
    text = re.sub(r"same_event='(\w+)' or '(\w+)'", rf"{hint} \1 or \2", text)
    return re.sub(r"same_event='(\w+)'", rf"{hint} \1", text)


def choose_events(ids: "Array", events: str | None, shard: str | None) -> "Array":
    """Some of the events, rising.

    Shards are runs of consecutive events in rising order of id: shard i holds those from i N // n to (i + 1) N // n.
    With more shards than events some are empty.
    """
    chosen = ids[parse_events(events)]
    if not len(chosen):
        raise ValueError(f"--events {events} selects none of {len(ids)} events")
    i, n = parse_shard(shard)
    return chosen[i * len(chosen) // n : (i + 1) * len(chosen) // n]


def report(index: "Index", ids: "Array") -> str:
    """One line: how much there was to simulate, what was left out and what was noticed."""
    counts = lambda d: ", ".join(f"{n} {reason}" for reason, n in d.items()) or "none"  # noqa: E731
    head = f"{index.rows(ids).sum()} segments of {len(ids)} events; excluded in all files: {counts(index.excluded)}"
    return head + (f"; notes: {counts(index.notes)}" if index.notes else "")


@contextmanager
def bar(title: str, shown: bool) -> Iterator[Any]:
    """A progress bar on a terminal, fed with (segments done, in all); its rate is that of the last dozens of calls."""
    from tqdm import tqdm

    more: dict[str, Any] = {"unit": " segments", "unit_scale": True, "leave": False, "smoothing": 0.05}
    with tqdm(desc=title, disable=None if shown else True, **more) as progress:

        def update(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        yield update
