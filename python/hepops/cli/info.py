"""hepops info: versions, processor, GPU, libraries; or how a file was made."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Hits, tracks or folders of fits: what they hold and how they were made."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Versions, processor, GPU, libraries; or how files were made, when, where and from what."""
    facts = {str(path): made(path) for path in files} if files else _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    if files:
        for line in _lines(facts):
            typer.echo(line)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name:{width}}  {', '.join(value) if isinstance(value, list) else value}")


def made(path: Path) -> dict[str, Any]:
    """What a file of hits or tracks, or the folder of a fit, holds and says of how it was made.

    Raises:
        ValueError: it says nothing, or is no file of ours.
        FileNotFoundError: no such file.
    """
    from hepops.core.files import open_hdf5

    if path.is_dir():
        if not (path / "provenance.json").is_file():
            raise ValueError(f"{path}: holds no finished fit")
        known = json.loads((path / "provenance.json").read_text())
        return {name: known[name] for name in ("provenance", "run", "source") if name in known}
    with open_hdf5(path) as file:
        if "config" in file and "hits" in file:
            texts = file["config"].attrs
            of = {name: json.loads(texts[name]) for name in ("provenance", "run", "source", "seed") if name in texts}
            return {"hits": len(file["hits/event"]), **of}
        if "provenance" in file.attrs:
            known = {"provenance": json.loads(file.attrs["provenance"])}
            return {**(_deposits(file) if "segments" in file else {}), **known}
        if "segments" in file:
            return _deposits(file)
        inside = ", ".join(sorted(file)) or "nothing"
    raise ValueError(f"{path}: does not say how it was made, and holds neither hits nor segments but {inside}")


def _deposits(file: Any) -> dict[str, Any]:
    """What a first look at energy deposits asks: how many, where, of which particles; nothing is judged."""
    import numpy as np

    from hepops.lartpc.edepsim import _NAMES

    data = file["segments"]
    names = list(getattr(data.dtype, "names", None) or ()) if hasattr(data, "dtype") else []

    def column(name: str) -> Any:
        return next((data[n] for n in _NAMES[name] if n in names), None)

    def span(axis: str) -> str:
        ends = [e for e in (column(f"{axis}_start"), column(f"{axis}_end")) if e is not None and len(e)]
        return f"{min(e.min() for e in ends):.5g} ... {max(e.max() for e in ends):.5g}" if ends else "none"

    event, energy, pdg, time = (column(name) for name in ("event", "dE", "pdg", "t0"))
    facts: dict[str, Any] = {"segments": len(data), "columns": names}
    if event is not None and len(event):
        facts["events"] = f"{len(np.unique(event))}, numbers {event.min()} ... {event.max()}"
    if energy is not None:
        facts["energy [MeV]"] = f"{energy.sum(dtype=np.float64):.6g}"
    facts |= {f"{axis} [cm]": span(axis) for axis in "xyz"}
    if time is not None and len(time):
        facts["time [us]"] = f"{time.min():.5g} ... {time.max():.5g}"
    if pdg is not None:
        kinds, counts = np.unique(pdg, return_counts=True)
        facts["particles"] = {str(k): f"{n} segments" for k, n in zip(kinds.tolist(), counts.tolist(), strict=True)}
    return facts


def _lines(value: Any, indent: int = 0) -> list[str]:
    """Nested names and values, a line each."""
    pairs = value.items() if isinstance(value, dict) else ((k, part) for k, part in enumerate(value))
    lines = []
    for name, part in pairs:
        head = f"{'  ' * indent}{name}"
        nested = isinstance(part, dict) or (isinstance(part, list) and any(isinstance(x, dict | list) for x in part))
        if nested:
            lines += [head, *_lines(part, indent + 1)]
        else:
            lines.append(f"{head}  {', '.join(map(str, part)) if isinstance(part, list) else part}")
    return lines


def _facts() -> dict[str, Any]:
    import torch

    from hepops import _core
    from hepops.core import libraries

    built = _core.cuda_version or "none"
    if _core.cuda_version:
        built += f", for {_core.cuda_architectures}"
    return {
        "hepops": _core.version,
        "compiler": f"{_core.compiler}, {_core.build_type}",
        "CPU level": f"{libraries.cpu_level()}, built for {_core.cpu_levels.replace(';', ' ')}",
        "CPU features": [name for name, has in _core.cpu_features().items() if has],
        "CUDA, built with": built,
        "torch, built with": f"{_core.torch_built_with}; any from {_core.torch_oldest} on serves",
        "CUDA, of torch": torch.version.cuda or "none",
        "GPUs": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] or "none",
        "threads": torch.get_num_threads(),
        "libraries": [
            f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)"
            for path in sorted(libraries.DIRECTORY.glob("libhepops_*.so"))
        ],
        "directory": str(libraries.DIRECTORY),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(name) for name in ("numpy", "h5py", "pydantic", "PyYAML", "typer", "matplotlib")},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
