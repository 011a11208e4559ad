r"""Conditional densities q(y|c) that are learned from pairs: a regression, a flow on what it leaves, an ensemble.

One member is :math:`z = L^{-1}(y - A \tilde c - b)`, with the standardised condition :math:`\tilde c`, A and b the
ridge regression of y on it and L the Cholesky factor of the residuals' covariance, and a neural spline flow q(z|c):

.. math:: \ln q(y|c) = \ln q_{flow}(z | \tilde c) - \ln |\det L|

Where y is linear in c with normal residuals the regression alone is right, and the flow begins as the identity: it has
to learn only what is not. Members differ in weights, in the order of the batches and in what is kept for validation;
their densities are averaged.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import random
from ..flow import Flow
from ..ready import nsf
from .fitting import Fitted, Training, fit

NETWORK: dict[str, Any] = {"layers": 4, "bins": 4, "hidden": [32], "bound": 5.0, "mixing": "lu"}
_RIDGE = 1e-6
FlowMaker = Callable[[int, int], Flow]


class Standardise(nn.Module):
    """The regression of y (D) on c (C), and its inverse; float64 buffers, set by `learn`."""

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    slope: Tensor
    offset: Tensor
    factor: Tensor

    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        sizes: dict[str, tuple[int, ...]] = {
            "centre": (context,),
            "scale": (context,),
            "low": (context,),
            "high": (context,),
        }
        sizes |= {"slope": (context, features), "offset": (features,), "factor": (features, features)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def learn(self, y: Tensor, c: Tensor, regress: bool) -> None:
        """From pairs (n, D) and (n, C); without `regress` A = 0, and L holds the spread of y itself.

        Raises:
            ValueError: y does not vary in every direction.
        """
        n = len(y)
        self.centre.copy_(c.mean(0))
        spread = c.std(0)
        self.scale.copy_(torch.where(spread > 1e-12 * c.abs().amax(0), spread, 1.0))
        self.low.copy_(c.amin(0))
        self.high.copy_(c.amax(0))
        x, self.offset[:] = self.condition(c), y.mean(0)
        self.slope.zero_()
        if regress:
            gram = x.T @ x + _RIDGE * n * torch.eye(x.shape[1], dtype=x.dtype)
            self.slope.copy_(torch.linalg.solve(gram, x.T @ (y - self.offset)))
        rest = y - self.offset - x @ self.slope
        covariance = rest.T @ rest / n
        factor, wrong = torch.linalg.cholesky_ex(covariance)
        variance = (y - self.offset).square().mean(0)
        if int(wrong) or bool((factor.diagonal().square() < 1e-14 * variance).any()):
            raise ValueError(f"{y.shape[1]} numbers are to be learned, but they do not vary in as many directions")
        self.factor.copy_(factor)

    def condition(self, c: Tensor) -> Tensor:
        """c, standardised."""
        return (c.to(torch.float64) - self.centre) / self.scale

    def forward(self, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """z, and ln |det dz/dy|, a number; c is standardised already."""
        rest = y - self.offset - c @ self.slope
        z = torch.linalg.solve_triangular(self.factor, rest[..., None], upper=False)[..., 0]
        return z, -self.factor.diagonal().log().sum()

    def inverse(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        y = z.to(torch.float64) @ self.factor.T + self.offset + c @ self.slope
        return y, self.factor.diagonal().log().sum()


class Member(nn.Module):
    """One density of the ensemble: standardisation, embedding, flow."""

    def __init__(self, features: int, context: int, flow: Flow, embedding: nn.Module | None) -> None:
        super().__init__()
        self.standardise = Standardise(features, context)
        self.flow, self.embedding = flow, embedding

    def context(self, c: Tensor) -> Tensor:
        """What the flow is conditioned on, of a standardised c."""
        c = c.to(self.flow.base.reference.dtype)
        return c if self.embedding is None else self.embedding(c)

    def log_prob(self, y: Tensor, c: Tensor) -> Tensor:
        x = self.standardise.condition(c)
        y, x = _expand(y, x)
        z, logdet = self.standardise(y, x)
        q: Tensor = self.flow.log_prob(z.to(self.flow.base.reference.dtype), self.context(x))
        return q + logdet

    def sample(self, n: int, c: Tensor, seed: int, step: int) -> Tensor:
        x = self.standardise.condition(c)
        z, _ = self.flow.rsample_and_log_prob(n, self.context(x), seed=seed, step=step)
        return self.standardise.inverse(z, x)[0]


def _expand(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(y.shape[:-1], x.shape[:-1])
    return y.expand(*shape, y.shape[-1]), x.expand(*shape, x.shape[-1])


class Density(nn.Module):
    """The mean of the members' densities of y, shape (..., D), given c, shape (..., C).

    Args:
        features, context: D and C.
        members: How many.
        network: Options of `nsf` on top of `NETWORK`.
        embedding: Makes a module (..., C) -> (..., E) for each member; it trains with the flow.
        embedded: E.
        flow: Makes a flow of (D, C or E) in the place of `nsf`.
        seed: Of the weights.
    """

    def __init__(
        self,
        features: int,
        context: int,
        *,
        members: int = 1,
        network: Mapping[str, Any] | None = None,
        embedding: Callable[[], nn.Module] | None = None,
        embedded: int | None = None,
        flow: FlowMaker | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        unknown = sorted(set(network or {}) - set(NETWORK))
        if unknown:
            raise ValueError(f"network: unknown options {unknown}; there are {list(NETWORK)}")
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        if (embedding is None) != (embedded is None):
            raise ValueError("embedding and embedded, the length of what it returns, belong together")
        self.features, self.inputs = features, context
        self.network = {**NETWORK, **(network or {})}
        self.own = {"embedding": embedding is not None, "flow": flow is not None}
        self.embedded = embedded
        made = []
        for k in range(members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed((seed * 1000003 + k) % 2**63)
                width = context if embedded is None else embedded
                body = flow(features, width) if flow is not None else nsf(features, width, **self.network)
                made.append(Member(features, context, body, None if embedding is None else embedding()))
        self.members = nn.ModuleList(made)

    def learn(self, y: Tensor, c: Tensor, training: Training, seed: int) -> list[Fitted]:
        """Standardise and train every member on pairs (n, D), (n, C)."""
        results = []
        for k, member in enumerate(self.members):
            assert isinstance(member, Member)
            member.standardise.learn(y, c, regress=not self.own["embedding"])
            x = member.standardise.condition(c)
            z, _ = member.standardise(y, x)
            dtype = member.flow.base.reference.dtype
            results.append(fit(_Loss(member), z.to(dtype), x.to(dtype), training, seed * 1000003 + k))
        return results

    def log_prob(self, y: Tensor, c: Tensor) -> Tensor:
        """float64, the shape to which the batch shapes of y and c broadcast."""
        parts = [member.log_prob(y, c) for member in self.members]  # type: ignore[operator]
        if len(parts) == 1:
            return parts[0]
        return torch.logsumexp(torch.stack(parts), 0) - math.log(len(parts))

    @torch.no_grad()
    def sample(self, n: int, c: Tensor, seed: int | None = None) -> Tensor:
        """(n, *batch, D): member k makes rows k, k + members, ... ."""
        seed = random.fresh_seed() if seed is None else seed
        count = len(self.members)
        out = c.new_empty((n, *c.shape[:-1], self.features), dtype=torch.float64)
        for k, member in enumerate(self.members):
            rows = len(range(k, n, count))
            if rows:
                out[k::count] = member.sample(rows, c, seed, k)  # type: ignore[operator]
        return out


class _Loss(nn.Module):
    """Mean of -ln q(z|c) of standardised pairs: what `fit` minimises."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.flow, self.embedding = member.flow, member.embedding

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return -self.flow.log_prob(z, c if self.embedding is None else self.embedding(c)).mean()
