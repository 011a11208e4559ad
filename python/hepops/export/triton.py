"""A model repository of NVIDIA Triton for a package: its Python backend loads the package and calls it."""

import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from hepops.core.files import atomic

from .package import describe

_TYPES = {"int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
          "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "bool": "TYPE_BOOL"}  # fmt: skip
PACKAGE = "model.pt2"


def triton_repository(package: str | Path, folder: str | Path, name: str | None = None, version: int = 1) -> Path:
    """Lay out ``folder/name``: config.pbtxt, ``version``/model.py and the package beside it.

    Args:
        package: That `export` wrote; it is verified first, and its SHA-256 stands in config.pbtxt, which the backend
            compares before it loads anything.
        folder: The model repository (``tritonserver --model-repository=folder``), made where it is not there.
        name: Of the model; None: the package's stem.
        version: Of the model, positive. A version that is there is not written over.

    Returns:
        The model's folder.

    Raises:
        FileNotFoundError, ValueError: as `describe`; a name that Triton does not take, or a version that is there.
    """
    description = describe(package)
    name = Path(package).stem if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.startswith("."):
        raise ValueError(f"triton_repository: name must be letters, digits, _ . -, got {name!r}")
    if version < 1:
        raise ValueError(f"triton_repository: version must be positive, got {version}")
    model = Path(folder) / name
    place = model / str(version)
    if place.exists():
        raise ValueError(f"triton_repository: {place} is there already: versions do not change")
    place.mkdir(parents=True)
    with atomic(place / PACKAGE) as part:
        shutil.copyfile(package, part)
    with atomic(place / "model.py") as part:
        part.write_text(resources.files(__package__).joinpath("triton_model.py").read_text())
    with atomic(model / "config.pbtxt") as part:
        part.write_text(_configuration(name, description))
    return model


def _configuration(name: str, description: dict[str, Any]) -> str:
    def tensor(x: dict[str, Any]) -> str:
        dims = ", ".join(str(n) if isinstance(n, int) else "-1" for n in x["shape"])
        return f'  {{\n    name: "{x["name"]}"\n    data_type: {_TYPES[x["dtype"]]}\n    dims: [ {dims} ]\n  }}'

    def tensors(kind: str) -> str:
        return f"{kind} [\n" + ",\n".join(tensor(x) for x in description[kind + "s"]) + "\n]\n"

    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n'  # events are told apart by their first coordinate
        + tensors("input")
        + tensors("output")
        + "instance_group [\n  {\n    kind: KIND_CPU\n    count: 1\n  }\n]\n"
        + f'parameters {{\n  key: "sha256"\n  value: {{ string_value: "{description["sha256"]}" }}\n}}\n'
    )
