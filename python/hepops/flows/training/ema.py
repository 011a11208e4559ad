"""The running mean of the weights of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    r"""Exponential moving average of a module's parameters: :math:`\bar\theta \leftarrow \theta + d_t (\bar\theta -
    \theta)` with :math:`d_t = \min(d, (1 + t)/(10 + t))`, so that the first steps are forgotten.

    Args:
        module: Whose parameters; floating-point ones are averaged.
        decay: d, in [0, 1).

    Raises:
        ValueError: decay out of range.

    Example:
        >>> module = torch.nn.Linear(1, 1)
        >>> average = Average(module, decay=0.99)
        >>> average.update()  # after every step
        >>> with average.in_place():  # validate, save, sample with the mean
        ...     out = module(torch.zeros(1))
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema must lie in [0, 1), got {decay}")
        self.decay, self.count = decay, 0
        self._of: list[Tensor] = list(module.parameters())
        self._mean = [p.detach().clone() for p in self._of]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the mean."""
        keep = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self._mean, self._of, 1 - keep)
        self.count += 1

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the mean where the weights are and keep the weights; a second call puts both back."""
        for mean, p in zip(self._mean, self._of, strict=True):
            kept = p.detach().clone()
            p.copy_(mean)
            mean.copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module has the mean as its weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        return {"count": self.count, "mean": self._mean}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        assert isinstance(state["count"], int) and isinstance(state["mean"], list)
        self.count = state["count"]
        for mean, saved in zip(self._mean, state["mean"], strict=True):
            mean.copy_(saved)
