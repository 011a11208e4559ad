"""The user's own channels: maps with their Jacobians, in the user's own coordinates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .domain import Domain
from .proposal import Proposal, uniforms


@dataclass(frozen=True)
class Channel:
    r"""A density that f is known to resemble somewhere, such as a resonance's.

    Args:
        sample: u, shape (n, d), uniform in the unit cube -> x, shape (n, d), between the limits; float64, row by row.
        log_prob: x -> the logarithm of their density, :math:`\ln |\partial u / \partial x|`, shape (n,); -inf where the
            channel does not reach.

    Example:
        >>> import torch
        >>> from hepops.flows import Channel
        >>> cubic = Channel(lambda u: u.sqrt(), lambda x: (2 * x[:, 0]).log())
        >>> cubic.sample(torch.tensor([[0.25]]))
        tensor([[0.5000]])
    """

    sample: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor], Tensor]


_given: ContextVar[tuple[Domain, Sequence[Channel]] | None] = ContextVar("_given", default=None)


@contextmanager
def given(domain: Domain, channels: Sequence[Channel]) -> Iterator[None]:
    """While a saved proposal is built: the functions that its file cannot hold."""
    token = _given.set((domain, channels))
    try:
        yield
    finally:
        _given.reset(token)


class UserChannel(Proposal):
    """A :class:`Channel` as a proposal on the cube; a saved one names its number among the channels given."""

    def __init__(self, domain: Domain, channel: Channel, number: int = 0) -> None:
        super().__init__(domain.dim)
        self.domain, self.channel, self.number = domain, channel, number

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        x = self.channel.sample(uniforms(numbers, self.dim, seed, step))
        if x.shape != (len(numbers), self.dim):
            raise ValueError(
                f"channel {self.number}: sample must give ({len(numbers)}, {self.dim}), got {tuple(x.shape)}"
            )
        u, log_jacobian = self.domain.cube(x)
        return u, self._log_prob(x) + log_jacobian

    def density(self, x: Tensor) -> Tensor:
        points, jacobian = self.domain(x)
        return self._log_prob(points) + jacobian.log()

    def _log_prob(self, x: Tensor) -> Tensor:
        value = self.channel.log_prob(x).to(torch.float64)
        if value.shape != (len(x),):
            raise ValueError(f"channel {self.number}: log_prob must give ({len(x)},), got {tuple(value.shape)}")
        return value

    def config(self) -> dict[str, Any]:
        return {"number": self.number}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "UserChannel":
        place = _given.get()
        if place is None or not 0 <= config["number"] < len(place[1]):
            raise ValueError(
                f"load: channel {config['number']} of the saved integrator must be given again, channels=..."
            )
        return cls(place[0], place[1][config["number"]], config["number"])
