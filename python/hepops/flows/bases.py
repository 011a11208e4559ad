"""Base distributions: where a flow begins."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import random
from .sums import event_sum


class Base(nn.Module):
    """A distribution of events of `event_shape`, that is drawn from by number.

    Subclasses write `draw` and `log_prob`. Sample i of a seed is the same numbers in every batch, on every device and
    rank.
    """

    reference: Tensor

    def __init__(self, event_shape: int | Sequence[int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.event_shape = torch.Size([event_shape] if isinstance(event_shape, int) else event_shape)
        # where the samples are made and in which dtype; moves with the module
        self.register_buffer("reference", torch.zeros((), dtype=dtype or torch.get_default_dtype()), persistent=False)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        """Samples first ... first + n - 1, shape (n, *event_shape)."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density, float64, shape (*batch); -inf outside the support."""
        raise NotImplementedError

    def _numbers(self) -> dict[str, torch.dtype | torch.device]:
        return {"dtype": self.reference.dtype, "device": self.reference.device}


class Normal(Base):
    """Independent normal numbers of mean 0 and variance 1."""

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        z = random.normal(n, self.event_shape.numel(), seed, first=first, step=step, **self._numbers())  # type: ignore[arg-type]
        return z.reshape(n, *self.event_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi) * self.event_shape.numel()
        return -0.5 * event_sum(z.square(), len(self.event_shape)) - constant


class Uniform(Base):
    """Independent uniform numbers in (low, high)."""

    def __init__(
        self,
        event_shape: int | Sequence[int],
        low: float = 0.0,
        high: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(event_shape, dtype)
        if not low < high:
            raise ValueError(f"Uniform: low must be below high, got {low} and {high}")
        self.low, self.high = low, high

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        u = random.uniform(n, self.event_shape.numel(), seed, first=first, step=step, **self._numbers())  # type: ignore[arg-type]
        return (self.low + (self.high - self.low) * u).reshape(n, *self.event_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        inside = ((z >= self.low) & (z <= self.high)).flatten(-len(self.event_shape)).all(-1)
        constant = -math.log(self.high - self.low) * self.event_shape.numel()
        return torch.where(inside, constant, -math.inf).to(torch.float64)
