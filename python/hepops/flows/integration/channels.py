r"""Multi-channel proposals: :math:`q(x) = \sum_k \alpha_k q_k(x)`.

References:
    R. Kleiss, R. Pittau, Weight optimization in multichannel Monte Carlo, Comput. Phys. Commun. 83 (1994) 141,
    hep-ph/9405257. A. Owen, Y. Zhou, Safe and effective importance sampling, J. Am. Stat. Assoc. 95 (2000) 135.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hepops.flows.random import PICK

from .proposal import Proposal, build, describe, substream, uniforms


class Channels(Proposal):
    r"""A mixture :math:`q = \sum_k \alpha_k q_k`, weighted by the whole of it (the balance heuristic).

    A sample takes its channel by its own number; the density of the other channels at x is evaluated, that of its own
    comes with the draw, so that a network runs once per point. A channel whose share is at least s bounds the
    weights: :math:`f/q \le f/(s\, q_k)`; a uniform one is the defence against peaks that were not seen.

    Args:
        channels: The proposals :math:`q_k`, of one dim.
        shares: :math:`\alpha_k \ge 0`; normalised to sum 1. Equal where None.
    """

    shares: Tensor

    def __init__(self, channels: Sequence[Proposal], shares: Sequence[float] | Tensor | None = None) -> None:
        channels = list(channels)
        if not channels:
            raise ValueError("Channels: channels must not be empty")
        if len({c.dim for c in channels}) > 1:
            raise ValueError(f"Channels: channels must be of one dim, got {[c.dim for c in channels]}")
        super().__init__(channels[0].dim)
        self.channels = nn.ModuleList(channels)
        given = torch.ones(len(channels)) if shares is None else torch.as_tensor(shares)
        self.register_buffer("shares", torch.empty(len(channels), dtype=torch.float64))
        self.set_shares(given)

    def set_shares(self, shares: Sequence[float] | Tensor) -> None:
        """Sets and normalises the shares."""
        given = torch.as_tensor(shares, dtype=torch.float64, device=self.shares.device)
        if given.shape != self.shares.shape or not bool(((given >= 0) & given.isfinite()).all()) or given.sum() <= 0:
            raise ValueError(
                f"Channels: shares must be {len(self.shares)} numbers >= 0 with a positive sum, got {given.tolist()}"
            )
        self.shares.copy_(given / given.sum())

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        pick = uniforms(numbers, 1, substream(seed, -1), step, PICK)[:, 0]
        edges = self.shares.cumsum(0)
        # rounding of the last edge must not pick a channel of share 0
        chosen = torch.bucketize(pick * edges[-1], edges[:-1], right=True)
        x = self._place.new_empty(len(numbers), self.dim)
        terms = self._place.new_full((len(numbers), len(self.channels)), -math.inf)
        rows = [(chosen == k).nonzero()[:, 0] for k in range(len(self.channels))]
        for k, channel in enumerate(self.channels):
            if len(rows[k]):
                points, own = channel.draw(numbers[rows[k]], substream(seed, k), step)  # type: ignore[operator]
                x[rows[k]] = points
                terms[rows[k], k] = own
        for k, channel in enumerate(self.channels):
            others = (chosen != k).nonzero()[:, 0]
            if self.shares[k] > 0 and len(others):
                terms[others, k] = channel.density(x[others].clamp(0, 1))  # type: ignore[operator]
        return x, torch.logsumexp(terms + self.shares.log(), 1)

    def cost(self) -> float:
        return 1e-7 + sum(c.cost() for c, s in zip(self.channels, self.shares.tolist(), strict=True) if s > 0)  # type: ignore[operator]

    def terms(self, x: Tensor) -> Tensor:
        """ln q_k(x), shape (n, K), of points in the cube."""
        return torch.stack([channel.log_prob(x) for channel in self.channels], 1)  # type: ignore[operator]

    def density(self, x: Tensor) -> Tensor:
        used = [k for k in range(len(self.channels)) if self.shares[k] > 0]
        terms = torch.stack([self.channels[k].density(x) for k in used], 1)  # type: ignore[operator]
        return torch.logsumexp(terms + self.shares[used].log(), 1)

    def config(self) -> dict[str, Any]:
        return {"channels": [describe(c) for c in self.channels]}  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Channels":
        return cls([build(c) for c in config["channels"]])


@torch.no_grad()
def learn_shares(log_terms: Tensor, log_moment: Tensor, least: Tensor, steps: int = 100) -> Tensor:
    r"""The shares of least variance, by the multiplicative rule of Kleiss and Pittau.

    The second moment :math:`\sum_i c_i / q(x_i)`, :math:`q = \sum_k \alpha_k q_k`, is convex in the shares and has its
    minimum where every :math:`W_k = \sum_i c_i q_k(x_i) / q(x_i)^2` of a channel in use is the same:
    :math:`\alpha_k \leftarrow \alpha_k \sqrt{W_k}`, normalised, with each share kept at its least.

    Args:
        log_terms: ln q_k(x_i), shape (n, K).
        log_moment: ln c_i = ln(f^2 / p), p the density of the points, shape (n,).
        least: The least share of each, shape (K,), of sum at most 1.
        steps: Of the rule.

    Returns:
        The shares, shape (K,).
    """
    free = 1 - least.sum()
    alpha = torch.full_like(least, 1 / len(least)) * free + least
    for _ in range(steps):
        log_q = torch.logsumexp(log_terms + alpha.log(), 1)
        log_W = torch.logsumexp(log_moment[:, None] + log_terms - 2 * log_q[:, None], 0)
        alpha = alpha * (0.5 * (log_W - log_W.max())).exp()
        alpha = alpha / alpha.sum()
        above = (alpha - least).clamp(min=0)
        alpha = least + (above * free / above.sum() if above.sum() > 0 else 0 * above)
    return alpha / alpha.sum()
