"""Markov chains that advance together."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..theory import Theory


@dataclass
class Chains:
    """Where chains stand. All that follows is named by it: a step of chain c depends on its field and on (seed, c,
    step), not on the other chains, the batch, the threads or the ranks.

    Args:
        field: One configuration of each chain, shape (B, *event_shape).
        seed: In [0, 2^64).
        first: The number of the first chain: a rank or a batch takes its own range.
        step: Updates that were made.
        state: What a sampler keeps of each chain beside, shapes (B, ...); it is of this very field.
    """

    field: Tensor
    seed: int
    first: int = 0
    step: int = 0
    state: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.seed, self.first)
        if not 0 <= self.step < 1 << 32:
            raise ValueError(f"chains: step must be in [0, 2^32), got {self.step}")

    def __len__(self) -> int:
        return self.field.shape[0]

    def advance(self, field: Tensor, **state: Tensor) -> None:
        """One step on: the field, and what is kept beside. The old state was of the old field, and is dropped."""
        self.field, self.state = field, state
        self.step += 1


def check_name(seed: int, first: int) -> None:
    """Refuse what cannot name random numbers.

    Raises:
        TypeError: no integers.
        ValueError: out of range.
    """
    for name, value in (("seed", seed), ("first", first)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"chains: {name} must be an integer, got {value!r}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"chains: seed must be in [0, 2^64), got {seed}")
    if first < 0:
        raise ValueError(f"chains: first must not be negative, got {first}")


def checked_theory(who: str, theory: Theory) -> Theory:
    """The theory of a sampler.

    Raises:
        TypeError: no theory.
    """
    if not isinstance(theory, Theory):
        raise TypeError(f"{who}: theory must be a hepops.lattice.Theory, got {type(theory).__name__}")
    return theory


def check_start(who: str, theory: Theory, start: Tensor) -> None:
    """Refuse a field that is none of the theory's: another shape or dtype, NaN, links that are not unitary.

    Reads the field once, on a GPU as well.

    Raises:
        TypeError, ValueError: as `Theory.check`; the largest deviation from unitarity is in the message.
    """
    theory.check(start)
    if not bool(torch.isfinite(torch.view_as_real(start.resolve_conj()) if start.is_complex() else start).all()):
        raise ValueError(f"{who}: the field to start from has NaN or infinite values")
    if not theory.complex or start.numel() == 0:
        return
    worst = deviation(start)
    if not worst <= (1e-3 if start.dtype == torch.complex64 else 1e-6):  # double ones may come from a file of single
        raise ValueError(
            f"{who}: the links to start from are not in SU({start.shape[-1]}): they are off by {worst:.3g}"
        )


def deviation(links: Tensor) -> float:
    """The largest entry of |U^+ U - 1| and of |det U - 1|."""
    one = torch.eye(links.shape[-1], dtype=links.dtype, device=links.device)
    return max(float((links.mH @ links - one).abs().max()), float((torch.linalg.det(links) - 1).abs().max()))


def describe(value: Any) -> Any:
    """A theory, a sampler or a plain value as JSON has it: the class and what it holds."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (torch.Size, Sequence)):
        return [describe(v) for v in value]
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    plain = (bool, int, float, str, torch.Size, tuple, list, torch.dtype, Theory)
    held = {k: describe(v) for k, v in sorted(vars(value).items()) if isinstance(v, plain) and not k.startswith("_")}
    grid = getattr(value, "grid", None)
    if grid is not None:  # a theory on boxes: each rank has its own files
        held["origin"] = describe(grid.origin)
    return {"class": type(value).__name__, **held}
