"""Markov chains that advance together."""

import dataclasses
import math
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
        state: What a sampler keeps of each chain beside, shapes (B, ...).
    """

    field: Tensor
    seed: int
    first: int = 0
    step: int = 0
    state: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"chains: seed must be in [0, 2^64), got {self.seed}")
        if self.first < 0 or not 0 <= self.step < 1 << 32:
            raise ValueError(f"chains: first must not be negative, step in [0, 2^32), got {self.first} and {self.step}")

    def __len__(self) -> int:
        return self.field.shape[0]


def check_start(who: str, theory: Theory, start: Tensor) -> None:
    """Refuse a field that is none of the theory's: another shape or dtype, NaN, links that are not unitary.

    Reads the field once, on a GPU as well.

    Raises:
        TypeError, ValueError: as `Theory.check`; the largest deviation from unitarity is in the message.
    """
    theory.check(start)
    if not bool(torch.isfinite(torch.view_as_real(start) if start.is_complex() else start).all()):
        raise ValueError(f"{who}: the field to start from has NaN or infinite values")
    if not theory.complex or start.numel() == 0:
        return
    worst = deviation(start)
    tolerance = math.sqrt(torch.finfo(start.dtype).eps)
    if worst > tolerance:
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
    return {"class": type(value).__name__, **held}
