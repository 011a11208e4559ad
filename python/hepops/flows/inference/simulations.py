"""Simulations to learn from: parameters of the prior, and the data that a simulator makes of them.

Simulation i of a seed is named: its parameters and its simulator's seed depend on (seed, i) alone, not on the batch,
the process that ran it, or what ran before. A run that was killed goes on from its batches on disk and ends with the
bits of one that was not; a longer one begins with what a shorter one made.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hepops.core import philox_normal, philox_uniform
from hepops.core.files import atomic

from .priors import Prior

Simulator = Callable[[Tensor, Tensor], Tensor]
_SEEDS, _NOISE = 7, 8  # purposes of philox
MANIFEST = "simulations.json"  # says whose batches these are


@dataclass(frozen=True)
class Simulations:
    """What succeeded of n simulations, in the order of their numbers."""

    theta: Tensor  # float64 (n, K)
    x: Tensor  # (n, ...)     data, in the dtype of the simulator
    number: Tensor  # int64 (n)
    prior: Prior
    failures: dict[str, int] = field(default_factory=dict)  # reason -> count of what is not among them

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: Any) -> "Simulations":
        return Simulations(self.theta[rows], self.x[rows], self.number[rows], self.prior, self.failures)

    def split(self, held_out: int) -> tuple["Simulations", "Simulations"]:
        """All but the last `held_out`, and those: no coverage test may use what was learnt from."""
        if not 0 < held_out < len(self):
            raise ValueError(f"split: held_out must lie between 1 and {len(self) - 1}, got {held_out}")
        return self[:-held_out], self[-held_out:]

    def report(self) -> str:
        """One line."""
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(self.failures.items()))
        return f"{len(self)} simulations" + (f", left out: {lost}" if lost else "")


def simulate(
    prior: Prior,
    simulator: Simulator,
    n: int,
    seed: int,
    *,
    batch: int = 100,
    checkpoint: str | Path | None = None,
    workers: int = 0,
    on_error: Literal["raise", "exclude"] = "raise",
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Simulations:
    """Draw parameters and simulate.

    Args:
        prior: Of the parameters.
        simulator: A function of theta, float64 (B, K), and seeds, int64 (B), one for each simulation: (B, ...) data.
            `noise` makes normal numbers of such seeds.
        n: How many.
        seed: In [0, 2^64).
        batch: Simulations per call, and per file of the checkpoint.
        checkpoint: A folder. What it holds of this prior, seed, batch and name is not simulated again; other
            parameters in it are refused.
        workers: Processes (the simulator must pickle, and be importable); 0: none beside this one.
        on_error: "exclude": of a batch whose call raised a ValueError, RuntimeError or ArithmeticError, each row is
            tried by itself, and the failing ones are counted. Any other exception ends the run.
        name: Of the simulator and its settings; a checkpoint of another name is refused.
        progress: Called with (done, n).

    Returns:
        `Simulations`. Rows with a NaN or infinity are left out and counted; where failing depends on theta, what is
        learnt is the posterior given that the simulation succeeds. A warning says so if more than one in a hundred
        failed.

    Deterministic: does not depend on workers, kills, or (as far as the simulator's arithmetic does not) the batch.

    Raises:
        ValueError: bad numbers, data of a wrong shape, nothing left, or a checkpoint of other simulations.

    Example:
        >>> from hepops.flows.inference import Box, noise, simulate
        >>> made = simulate(Box([-1.0], [1.0]), lambda theta, seeds: theta + 0.1 * noise(seeds, 1), 500, seed=1)
        >>> made.x.shape, made.report()
        (torch.Size([500, 1]), '500 simulations')
    """
    for what, number, least in (("n", n, 1), ("batch", batch, 1), ("workers", workers, 0), ("seed", seed, 0)):
        if number < least:
            raise ValueError(f"simulate: {what} must be at least {least}, got {number}")
    if on_error not in ("raise", "exclude"):
        raise ValueError(f'simulate: on_error must be "raise" or "exclude", got {on_error!r}')
    store = _Store(checkpoint, {"prior": prior.to_dict(), "seed": seed, "batch": batch, "name": name})
    ranges = [(first, min(batch, n - first)) for first in range(0, n, batch)]
    tasks = [(prior, simulator, seed, first, count, on_error) for first, count in ranges if store.lacks(first, count)]
    kept: dict[int, dict[str, Tensor]] = {}
    done = n - sum(task[4] for task in tasks)
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers and tasks else None
    try:
        for task, made in zip(tasks, (pool.map if pool else map)(_batch, tasks), strict=True):
            store.write(task[3], made)
            kept[task[3]] = made
            done += task[4]
            if progress is not None:
                progress(done, n)
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    parts = [kept[first] if first in kept else store.read(first, count) for first, count in ranges]
    for (first, count), part in zip(ranges, parts, strict=True):
        if first not in kept and not torch.equal(part["theta"], prior.sample(count, seed, first)):
            raise ValueError(f"{checkpoint}: batch {first} is of other simulations, remove it to simulate it again")
    return _joined(parts, prior, n)


def noise(seeds: Tensor, numbers: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, shape (B, numbers), that belong to seeds (B), any int64: the same in every batch."""
    index = _spread(philox_uniform(seeds, 0, purpose=_NOISE, dtype=torch.float64))[:, None] + torch.arange(
        (numbers + 1) // 2, device=seeds.device
    )
    return philox_normal(index, 0, dtype=dtype).flatten(1)[:, :numbers]


def seeds_of(seed: int, first: int, count: int) -> Tensor:
    """The seeds of simulations first ... first + count - 1: int64 in [0, 2^62)."""
    return _spread(philox_uniform(torch.arange(first, first + count), seed, purpose=_SEEDS, dtype=torch.float64))


def _spread(pair: Tensor) -> Tensor:
    """62 bits of two uniform numbers each: neighbours are far apart."""
    high, low = (pair * 2**31).to(torch.int64).unbind(1)
    return (high << 31) | low


def _batch(task: tuple[Prior, Simulator, int, int, int, str]) -> dict[str, Tensor]:
    prior, simulator, seed, first, count, on_error = task
    theta, seeds = prior.sample(count, seed, first), seeds_of(seed, first, count)
    good = torch.ones(count, dtype=torch.bool)
    try:
        x = _call(simulator, theta, seeds)
    except (ValueError, RuntimeError, ArithmeticError):
        if on_error == "raise":
            raise
        rows = [_alone(simulator, theta[i : i + 1], seeds[i : i + 1]) for i in range(count)]
        shapes = [row.shape for row in rows if row is not None]
        if len(set(shapes)) > 1:
            raise ValueError(f"simulator: data of one shape, got {sorted({tuple(s[1:]) for s in shapes})}") from None
        shape = shapes[0] if shapes else torch.Size([1, 0])
        x = torch.cat([row if row is not None else torch.full(shape, torch.nan) for row in rows])
        good = torch.tensor([row is not None for row in rows])
    finite = torch.isfinite(x).flatten(1).all(1)
    # 0 good, 1 raised, 2 not finite
    return {"theta": theta, "x": x, "state": torch.where(good, torch.where(finite, 0, 2), 1)}


def _call(simulator: Simulator, theta: Tensor, seeds: Tensor) -> Tensor:
    with torch.no_grad():
        x = simulator(theta.clone(), seeds)  # a simulator may overwrite its arguments
    if not isinstance(x, Tensor) or x.is_complex() or x.ndim < 2 or len(x) != len(theta) or not x[:1].numel():
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"simulator must return a real tensor ({len(theta)}, ...) of at least two dimensions, got {got}"
        )
    return (x if x.is_floating_point() else x.to(torch.float64)).detach().cpu()


def _alone(simulator: Simulator, theta: Tensor, seed: Tensor) -> Tensor | None:
    try:
        return _call(simulator, theta, seed)
    except (ValueError, RuntimeError, ArithmeticError):
        return None


def _joined(parts: Sequence[dict[str, Tensor]], prior: Prior, n: int) -> Simulations:
    state = torch.cat([part["state"] for part in parts])
    good = state == 0
    failures = {
        reason: int((state == code).sum())
        for reason, code in (("raised an error", 1), ("not finite", 2))
        if bool((state == code).any())
    }
    if not bool(good.any()):
        raise ValueError(f"simulate: none of {n} simulations succeeded: {failures}")
    if int((~good).sum()) > 0.01 * n:
        warnings.warn(
            f"hepops: {int((~good).sum())} of {n} simulations failed; if that depends on the parameters, what is "
            f"learnt is the posterior given that a simulation succeeds",
            stacklevel=3,
        )
    theta = torch.cat([part["theta"] for part in parts])[good]
    made = [part["x"][part["state"] == 0] for part in parts if bool((part["state"] == 0).any())]
    shapes = {tuple(x.shape[1:]) for x in made}
    if len(shapes) > 1:
        raise ValueError(f"simulator: data of one shape, got {sorted(shapes)}")
    x = torch.cat(made)
    return Simulations(theta, x, good.nonzero()[:, 0], prior, failures)


class _Store:
    """Batches on disk, a file each, and a manifest that says whose they are."""

    def __init__(self, folder: str | Path | None, owner: dict[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        mark = {"format": "hepops.flows.simulations", "version": 1, **owner}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / MANIFEST
        if path.exists():
            try:
                found = json.loads(path.read_text())
            except ValueError:
                raise ValueError(f"{path}: not JSON") from None
            differ = [k for k in mark if not isinstance(found, dict) or found.get(k) != mark[k]]
            if differ:
                raise ValueError(f"{path}: belongs to other simulations, they differ in {', '.join(differ)}")
        else:
            with atomic(path) as part:
                part.write_text(json.dumps(mark, indent=2) + "\n")

    def _path(self, first: int) -> Path:
        assert self.folder is not None
        return self.folder / f"batch_{first:09d}.safetensors"

    def lacks(self, first: int, count: int) -> bool:
        """True too where the file is of a shorter last batch."""
        if self.folder is None or not self._path(first).exists():
            return True
        return len(self.read(first)["state"]) < count

    def read(self, first: int, count: int | None = None) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(self._path(first))
            return {name: found[name][:count] for name in ("theta", "x", "state")}
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{self._path(first)}: damaged, remove it to simulate it again ({error})") from None

    def write(self, first: int, made: dict[str, Tensor]) -> None:
        if self.folder is None:
            return
        from safetensors.torch import save

        with atomic(self._path(first)) as part:
            part.write_bytes(save({name: value.contiguous() for name, value in made.items()}))


def fingerprint(*tensors: Tensor) -> str:
    """A short name for the very bits of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
