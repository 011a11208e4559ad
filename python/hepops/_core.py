"""What this hepops is and what it runs on; single numbers of the laws for hosts.

The functions of csrc/load/about.h through ctypes: no module is compiled for a Python, so one wheel serves them all.
Tensors go through torch.ops.hepops instead.
"""

import ctypes
import sys
from pathlib import Path

LIBRARY = "libhepops_ops.so"


def _directory() -> Path:
    """Where the libraries are: beside this file, or where an editable install keeps them apart from the sources."""
    searched = [Path(part) for part in sys.modules["hepops"].__path__]
    for part in searched:
        if (part / LIBRARY).exists():
            return part
    raise ImportError(f"hepops: no {LIBRARY} in {', '.join(map(str, searched))}; was hepops built? (make build, or pip)")


directory = _directory()
_library = ctypes.CDLL(str(directory / LIBRARY))
_library.hepops_about.restype = ctypes.c_char_p
_library.hepops_about.argtypes = [ctypes.c_char_p]
_library.hepops_drift_velocity.restype = ctypes.c_double
_library.hepops_drift_velocity.argtypes = [ctypes.c_double, ctypes.c_double]


def _about(name: str) -> str:
    text: bytes | None = _library.hepops_about(name.encode())
    if text is None:
        raise ImportError(f"hepops: {directory / LIBRARY} does not know {name!r}; it is of another version")
    return text.decode()


version = _about("version")
compiler = _about("compiler")
build_type = _about("build_type")
cpu_levels = _about("cpu_levels")  # "v2 v3 v4", those built
cuda_version = _about("cuda_version")  # of nvcc; empty where the CUDA library was not built
cuda_architectures = _about("cuda_architectures")  # "75 80 90"
torch_built_with = _about("torch_built_with")
torch_oldest = _about("torch_oldest")  # the oldest whose stable ABI serves


def cpu_level() -> str:
    """The best x86-64 level of this processor: v2, v3 or v4 (elsewhere: generic)."""
    return _about("cpu_level")


def cpu_features() -> dict[str, bool]:
    """The instruction sets that the levels need, and whether this processor has them."""
    pairs = (word.split("=") for word in _about("cpu_features").split())
    return {name: has == "1" for name, has in pairs}


def drift_velocity(field: float, temperature: float) -> float:
    """Drift velocity [cm/us] in liquid argon, of a field [kV/cm] and a temperature [K]."""
    return float(_library.hepops_drift_velocity(field, temperature))
