"""The user's own channels: maps with their Jacobians, in the user's own coordinates."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .domain import Domain
from .proposal import BLOCK, Proposal, inside, normals, uniforms


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
        if not isinstance(channel, Channel):
            raise TypeError(f"channel {number}: must be a Channel, got {type(channel).__name__}")
        self.domain, self.channel, self.number = domain, channel, number

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        x = self.channel.sample(uniforms(numbers, self.dim, seed, step))
        if not isinstance(x, Tensor):
            raise TypeError(f"channel {self.number}: sample must give a tensor, got {type(x).__name__}")
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
        value = self.channel.log_prob(x)
        if not isinstance(value, Tensor):
            raise TypeError(f"channel {self.number}: log_prob must give a tensor, got {type(value).__name__}")
        value = value.to(torch.float64)
        if value.shape != (len(x),):
            raise ValueError(f"channel {self.number}: log_prob must give ({len(x)},), got {tuple(value.shape)}")
        return value

    @torch.no_grad()
    def check(self, seed: int, n: int = 4096) -> None:
        r"""ValueError where `log_prob` is seen not to be the density of `sample`.

        With g half uniform, half a normal density of the samples' mean and covariance, n points of each of q and g make
        :math:`m = (q + g)/2`, and the share of q in half a cube H is the mean of :math:`1_H\, q/m`, whose terms are at
        most 2: it must be the share of the samples that lie in H, and 1 in all, within 6 standard deviations.
        A factor of a density that is far narrower than its own covariance may pass unseen.
        """
        numbers = torch.arange(n)
        x, log_q = (
            torch.cat(parts) for parts in zip(*(self.draw(b, seed, 0) for b in numbers.split(BLOCK)), strict=True)
        )
        log_q = torch.where(inside(x), log_q, -math.inf)
        if bool((x.isnan().any(1) | ~(log_q < math.inf) | (inside(x) & ~log_q.isfinite())).any()):
            raise ValueError(f"channel {self.number}: sample or log_prob gave NaN, or samples without a density")
        centre, spread = x.mean(0), x.T.cov().reshape(self.dim, self.dim)
        ridge = (1e-9 * spread.diagonal().mean() + 1e-24) * torch.eye(self.dim, dtype=torch.float64)
        factor = torch.linalg.cholesky(spread + ridge)
        normal = torch.distributions.MultivariateNormal(centre, scale_tril=factor, validate_args=False)
        other = uniforms(numbers, self.dim, seed, 1)
        bell = centre + normals(numbers, self.dim, seed, 2) @ factor.T
        other = torch.where((numbers % 2 == 0)[:, None], other, bell)
        points = torch.cat([x, other])
        q = torch.cat([log_q, self.log_prob(other)]).exp()
        g = 0.5 * inside(points) + 0.5 * normal.log_prob(points).exp()
        terms = (2 * q / (q + g)).nan_to_num(2.0)
        halves = torch.cat([torch.ones(2 * n, 1), (points < centre).to(x)], 1) * inside(points)[:, None]
        # q of the samples' own share is 1 where it is right, so that what is compared is a mean of differences
        apart = halves * terms[:, None]
        apart[:n] -= 2 * halves[:n]
        mean = apart.view(2, n, -1).mean(1).mean(0)
        sdev = (apart.view(2, n, -1).var(1).sum(0) / 4 / n).sqrt()
        if bool((mean.abs() > 6 * sdev + 1e-6).any()):
            raise ValueError(
                f"channel {self.number}: log_prob is not the density of sample: in all it integrates to "
                f"{1 + float(mean[0]):.3g} +- {float(sdev[0]):.1g} instead of 1, in half-spaces it is off by "
                f"{[round(m, 3) for m in mean[1:].tolist()]}"
            )

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
