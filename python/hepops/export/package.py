"""Models to packages: trace, compile, describe."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hepops import _core
from hepops.core.files import atomic

from .adapt import VOXELS, Adapted, adapt
from .archive import FORMAT, VERSION, add_description, read_description

# The wrapper's code runs once a call; to optimise it takes a minute and gains nothing.
_COMPILER = {"aot_inductor.compile_wrapper_opt_level": "O0"}


def export(
    model: nn.Module,
    path: str | Path,
    example: Sequence[Tensor] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compile a model for the CPU into a package that Python and C++ programs run.

    Args:
        model: A `hepops.segmentation.Segmenter` (coordinates, charge -> logits), a network of sparse layers such as
            UResNet (coordinates, features -> features of the result), or any module that takes and gives one tensor or
            more. It is exported as it is in evaluation.
        path: The package to write, `.pt2`.
        example: Inputs to trace with; the first axis of each may have any length from 2 in the package. None: of a
            Segmenter and of networks with a `config`, the voxels of a random walk.
        metadata: Numbers, texts and lists that stand in the description (training data, DOI, licence ...).

    Returns:
        The description, with `sha256`, that of the file. Kernel maps are built within the package, so that C++ gives it
        nothing but voxels. Compiled for this machine: the processor's level stands in the description, and `load`
        refuses it where the processor has less.

    Values are those of the model in Python to rounding (the kernels are the same; what stands around them is compiled
    anew). Not differentiable; deterministic.

    Raises:
        TypeError: not a module.
        ValueError: an example that is missing or does not fit, a network whose maps do not export, a path that does not
            end in .pt2, metadata that is not JSON.

    Example:
        >>> # export(Segmenter.load("segmentation"), "segmenter.pt2"); load("segmenter.pt2")(coordinates, charge)
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"export: path must end in .pt2, got {str(path)!r}")
    more = _plain("metadata", dict(metadata or {}))
    training = model.training if isinstance(model, nn.Module) else False
    try:
        with torch.no_grad():
            adapted = adapt(model.eval() if isinstance(model, nn.Module) else model, example)
            program = _trace(adapted)
            description = _describe(model, adapted, more)
            with tempfile.TemporaryDirectory() as folder:
                made = torch._inductor.aoti_compile_and_package(
                    program, package_path=str(Path(folder) / path.name), inductor_configs=dict(_COMPILER)
                )
                add_description(Path(made), description)
                with atomic(path) as part:
                    shutil.copyfile(made, part)
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    return describe(path)


def describe(path: str | Path) -> dict[str, Any]:
    """What a package is, once all its members have the checksums that its description names; nothing is executed.

    Returns:
        model (class, configuration), inputs, outputs (name, dtype, shape, meaning), classes, machine, versions,
        metadata, members (SHA-256 of each), and sha256 of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a package, a truncated one, one with compressed or missing members, or one that was changed: the
            message names file and member.
    """
    return read_description(path)


def _trace(adapted: Adapted) -> torch.export.ExportedProgram:
    rows = {len(x) for x in adapted.example if x.dim()}
    if len(rows) != 1:
        raise ValueError(f"export: the inputs of the example must have one length, got {sorted(rows)}")
    number = torch.export.Dim(VOXELS, min=2)
    shapes = tuple({0: number} if x.dim() else None for x in adapted.example)
    return torch.export.export(_Positional(adapted.module), (adapted.example,), dynamic_shapes=(shapes,), strict=False)


class _Positional(nn.Module):
    """The same whatever the module calls its inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: tuple[Tensor, ...]) -> Any:
        return self.module(*inputs)


def _describe(model: nn.Module, adapted: Adapted, metadata: dict[str, Any]) -> dict[str, Any]:
    results = adapted.module(*adapted.example)
    results = (results,) if isinstance(results, Tensor) else tuple(results)
    names = [adapted.output] if len(results) == 1 else [f"{adapted.output}{i}" for i in range(len(results))]
    rows = len(adapted.example[0])
    inputs = zip(adapted.names, adapted.example, adapted.meanings, strict=True)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "configuration": _plain("configuration", adapted.configuration),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        "inputs": [_tensor(name, x, meaning, rows) for name, x, meaning in inputs],
        "outputs": [_tensor(name, x, "", rows) for name, x in zip(names, results, strict=True)],
        "classes": list(adapted.classes),
        "machine": {"device": "cpu", "level": _core.cpu_level()},
        "versions": {"hepops": _core.version, "torch": torch.__version__},
        "metadata": metadata,
    }


def _tensor(name: str, x: Tensor, meaning: str, rows: int) -> dict[str, Any]:
    shape = [VOXELS if axis == 0 and n == rows else n for axis, n in enumerate(x.shape)]
    return {"name": name, "dtype": str(x.dtype).removeprefix("torch."), "shape": shape, "meaning": meaning}


def _plain(name: str, x: dict[str, Any]) -> dict[str, Any]:
    """Through JSON and back, so that it is written as it is described."""
    import json

    try:
        plain: dict[str, Any] = json.loads(json.dumps(x))
    except (TypeError, ValueError) as error:
        raise ValueError(f"export: {name} must be what JSON can say ({error})") from None
    return plain
