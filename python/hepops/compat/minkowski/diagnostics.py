"""What this is and what it runs on."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys

import torch

from hepops import _core


def is_cuda_available() -> bool:
    """Whether hepops was built for GPUs and torch finds one."""
    return bool(_core.cuda_version) and torch.cuda.is_available()


def cuda_version() -> int:
    """The CUDA version that hepops was built with as 1000 major + 10 minor, 0 without CUDA."""
    numbers = [int(part) for part in _core.cuda_version.split(".")[:2] if part.isdigit()]
    return 1000 * numbers[0] + 10 * (numbers[1] if len(numbers) > 1 else 0) if numbers else 0


def cudart_version() -> int:
    """As `cuda_version`."""
    return cuda_version()


def get_gpu_memory_info() -> tuple[int, int]:
    """Free and total bytes of the current GPU.

    Raises:
        ValueError: there is none.
    """
    if not torch.cuda.is_available():
        raise ValueError("torch finds no GPU")
    free, total = torch.cuda.mem_get_info()
    return free, total


def parse_nvidia_smi() -> dict[str, str]:
    """What `nvidia-smi -q` says, line by line; empty where there is no such command."""
    if shutil.which("nvidia-smi") is None:
        return {}
    said = subprocess.run(["nvidia-smi", "-q"], capture_output=True, text=True, check=False).stdout
    pairs = [line.split(":") for line in said.splitlines() if line.count(":") == 1]
    return {name.strip(): value.strip() for name, value in pairs}


def print_diagnostics() -> None:
    """Print versions of the system, torch, the GPU's driver and hepops."""
    import hepops

    print(f"System: {platform.platform()}, Python {sys.version.split()[0]}")
    print(f"torch: {torch.__version__}, CUDA {torch.version.cuda}, GPU found: {torch.cuda.is_available()}")
    for name, value in parse_nvidia_smi().items():
        if "version" in name.lower():
            print(f"{name}: {value}")
    print(f"hepops: {hepops.__version__} in the place of MinkowskiEngine, built with CUDA {_core.cuda_version or 'no'}")
