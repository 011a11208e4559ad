"""hepops info: versions, processor, GPU, libraries."""

import importlib.metadata
import json
import platform
from typing import Annotated, Any

import typer


def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, processor, GPU, libraries."""
    facts = _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name:{width}}  {', '.join(value) if isinstance(value, list) else value}")


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
        "CPU level": f"{_core.cpu_level()}, built for {_core.cpu_levels.replace(';', ' ')}",
        "CPU features": [name for name, has in _core.cpu_features().items() if has],
        "CUDA, built with": built,
        "CUDA, of torch": torch.version.cuda or "none",
        "GPUs": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] or "none",
        "threads": torch.get_num_threads(),
        "libraries": sorted(path.name for path in libraries.DIRECTORY.glob("libhepops_*.so")),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        **{name: _version(name) for name in ("numpy", "h5py", "pydantic", "PyYAML", "typer", "matplotlib")},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
