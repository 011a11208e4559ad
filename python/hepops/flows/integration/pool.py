r"""All samples so far, weighted as draws from the mixture of all that they were drawn from.

With :math:`n_t` samples of proposal :math:`q_t`, every sample, wherever it came from, has the weight

.. math:: w_i = \frac{f(x_i)}{\sum_t n_t q_t(x_i)}, \qquad \sum_i w_i \approx I,

the balance heuristic of multiple importance sampling: an early proposal that did badly does no harm, and nothing that f
was evaluated for is thrown away.

References:
    E. Veach, L. Guibas, SIGGRAPH 1995, 419. J.-M. Cornuet et al., Scand. J. Stat. 39 (2012) 798, arXiv 0907.1254.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .proposal import Proposal


class Pool:
    """Samples where f is not zero, |f| and the density of all that was drawn.

    Attributes:
        x: Shape (n, d).
        log_f: ln |f|, shape (n,).
        log_mix: ln of sum_t n_t q_t(x), shape (n,).
        drawn: Samples in all, the zeros and those outside the cube among them.
    """

    def __init__(self, dim: int) -> None:
        self.x = torch.empty(0, dim, dtype=torch.float64)
        self.log_f = torch.empty(0, dtype=torch.float64)
        self.log_mix = torch.empty(0, dtype=torch.float64)
        self.sources: list[tuple[Proposal, int]] = []
        self.drawn = 0

    @torch.no_grad()
    def add(self, proposal: Proposal, n: int, x: Tensor, log_q: Tensor, log_f: Tensor) -> None:
        """Adds what n draws of a proposal gave: the points of f != 0 alone."""
        new = log_q + math.log(n)
        for source, count in self.sources:
            new = torch.logaddexp(new, source.log_prob(x) + math.log(count))
        if len(self.x):
            self.log_mix = torch.logaddexp(self.log_mix, proposal.log_prob(self.x) + math.log(n))
        self.x, self.log_f = torch.cat([self.x, x]), torch.cat([self.log_f, log_f])
        self.log_mix = torch.cat([self.log_mix, new])
        self.sources.append((proposal, n))
        self.drawn += n

    @torch.no_grad()
    def merged(self, other: "Pool") -> "Pool":
        """Both, as one."""
        pool = Pool(self.x.shape[1])
        mixes = []
        for a, b in ((self, other), (other, self)):
            mix = a.log_mix
            for source, count in b.sources:
                mix = torch.logaddexp(mix, source.log_prob(a.x) + math.log(count))
            mixes.append(mix)
        pool.x, pool.log_f = torch.cat([self.x, other.x]), torch.cat([self.log_f, other.log_f])
        pool.log_mix = torch.cat(mixes)
        pool.sources = self.sources + other.sources
        pool.drawn = self.drawn + other.drawn
        return pool

    def log_weights(self, b: float = 1.0) -> Tensor:
        """ln |f|^b / sum_t n_t q_t."""
        return b * self.log_f - self.log_mix

    def second_moment(self, log_q: Tensor) -> Tensor:
        r"""ln of the terms of :math:`\int f^2 / q`, the sum of what is given for ln q at the points."""
        return 2 * self.log_f - self.log_mix - log_q

    @torch.no_grad()
    def ess(self, log_q: Tensor) -> float:
        r""":math:`(\int |f|)^2 / \int f^2/q`: the effective sample size per sample that a proposal will have."""
        if not len(self.x):
            return 0.0
        first = torch.logsumexp(self.log_weights(), 0)
        return math.exp(min(0.0, float(2 * first - torch.logsumexp(self.second_moment(log_q), 0))))


def effective(log_w: Tensor) -> float:
    """(sum w)^2 / sum w^2, the effective number of points."""
    if not len(log_w):
        return 0.0
    return math.exp(float(2 * torch.logsumexp(log_w, 0) - torch.logsumexp(2 * log_w, 0)))


def resample(log_w: Tensor, n: int, u: float) -> Tensor:
    """Indices of n points in the proportions of their weights (systematic resampling, u in (0, 1))."""
    edges = (log_w - log_w.max()).exp().cumsum(0)
    places = (torch.arange(n, dtype=torch.float64) + u) / n * edges[-1]
    return torch.searchsorted(edges, places, right=True).clamp(max=len(edges) - 1)


Evaluator = Callable[[Tensor], Tensor]


class Counted:
    """f with its evaluations counted, never more than the budget.

    Values that are not finite count as zero, and are counted.
    """

    def __init__(self, f: Evaluator, budget: int) -> None:
        self.f, self.budget, self.used, self.excluded = f, budget, 0, 0

    @property
    def left(self) -> int:
        return self.budget - self.used

    def __call__(self, x: Tensor) -> Tensor:
        """ln |f|, -inf where it is zero."""
        self.used += len(x)
        values = self.f(x).detach().to(torch.float64)
        if values.shape != (len(x),):
            raise ValueError(f"learn: f must give shape ({len(x)},) for {len(x)} points, got {tuple(values.shape)}")
        finite = values.isfinite()
        self.excluded += int((~finite).sum())
        return torch.where(finite, values.abs(), 0.0).log()

    def draw(self, pool: Pool, proposal: Proposal, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        """Samples a proposal into the pool: ln w of all n samples, -inf for zeros. n shrinks to what is left."""
        n = min(n, self.left)
        if n < 1:
            return torch.empty(0, dtype=torch.float64)
        x, log_q = proposal.sample(n, seed, first, step)
        kept = log_q.isfinite()
        log_f = torch.full_like(log_q, -math.inf)
        if bool(kept.any()):
            log_f[kept] = self(x[kept])
        nonzero = log_f > -math.inf
        pool.add(proposal, n, x[nonzero], log_q[nonzero], log_f[nonzero])
        return torch.where(nonzero, log_f - log_q, -math.inf)
