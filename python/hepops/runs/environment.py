"""Where and with what a program runs: versions, machine, git revision. Plain data for a file."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from hepops.core.seeds import last_seed


def environment() -> dict[str, Any]:
    """Versions, machine and git revision, as plain data; no user's name and no environment variables.

    Returns:
        hepops, torch, python, cpu_level; `machine` (system, processor, cores, devices, threads); `git` (revision,
        whether there were changes that no commit holds) of the folder in which the program runs, where it is under
        git; `hepops_git`, where hepops is used from its sources; `seed`, that of `seed_everything`, if it was called.
    """
    import torch

    from hepops import _core
    from hepops.core import libraries

    found: dict[str, Any] = {
        "hepops": _core.version,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "cpu_level": libraries.cpu_level(),
        "machine": {**_machine(), "threads": torch.get_num_threads()},
        "git": git(Path.cwd()),
        "hepops_git": _sources(),
        "seed": last_seed(),
    }
    return {name: value for name, value in found.items() if value is not None}


@cache
def _machine() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "devices": devices,
    }


def processor() -> str:
    """The processor's name, where Linux says it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _sources() -> dict[str, Any] | None:
    """Of hepops, where its sources are under git; an environment within somebody's project is not."""
    try:
        _git(Path(__file__).parent, "ls-files", "--error-unmatch", Path(__file__).name)
    except (OSError, subprocess.SubprocessError):
        return None
    return git(Path(__file__).parent)


@cache
def git(folder: Path) -> dict[str, Any] | None:
    """Revision and whether tracked files differ from it; None where there is no git."""
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": revision, "changed": changed}


def _git(folder: Path, *words: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
        stdin=subprocess.DEVNULL,
    )
    return run.stdout.strip()


# What may change the bits of a result; the rest is only worth knowing.
DECIDES = ("hepops", "torch", "python", "cpu_level", "processor", "devices", "hepops_git")


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two environments of what may change bits, in words."""

    def flat(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, **found.get("machine", {})}

    old, new = flat(before), flat(now)
    return [f"{n}: {old[n]} then, {new.get(n)} now" for n in DECIDES if n in old and old[n] != new.get(n)]
