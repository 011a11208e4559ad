r"""Draws of one posterior, weighted so that they belong to another: :math:`w = p(\theta) p(x|\theta) / q(\theta|x)`.

The effective number :math:`n_{eff} = (\sum w)^2 / \sum w^2` says how far apart the two are, and
:math:`\langle w \rangle` is the evidence p(x) where the target is normalised in x.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import random
from .likelihood import NeuralLikelihood, SampledPosterior
from .posterior import LEVELS, Posterior, Summary
from .priors import Prior


@dataclass(frozen=True)
class Weighted:
    """Draws (n, ..., K) with log weights (n, ...), both float64."""

    theta: Tensor
    log_weight: Tensor
    prior: Prior

    @property
    def ess(self) -> Tensor:
        """Effective share of the draws, in (0, 1], shape (...)."""
        a, b = torch.logsumexp(self.log_weight, 0), torch.logsumexp(2 * self.log_weight, 0)
        return (2 * a - b).exp() / len(self.log_weight)

    @property
    def log_evidence(self) -> Tensor:
        """ln <w>, shape (...)."""
        return torch.logsumexp(self.log_weight, 0) - math.log(len(self.log_weight))

    def summary(self) -> Summary:
        """Of one x."""
        if self.log_weight.ndim != 1:
            raise ValueError(f"summary: needs the draws of one x, got a batch {tuple(self.log_weight.shape[1:])}")
        return Summary.of(self.prior, self.theta, self.log_weight.softmax(0), LEVELS)

    def resample(self, n: int, seed: int) -> Tensor:
        """n draws with equal weights, with repetition: (n, ..., K)."""
        share = self.log_weight.softmax(0).movedim(0, -1)
        batch = share.shape[:-1]
        u = random.uniform(n, max(1, math.prod(batch)), seed, purpose=random.PICK, dtype=torch.float64)
        cumulative = share.cumsum(-1)
        at = u.reshape(n, *batch).movedim(0, -1).contiguous() * cumulative[..., -1:]
        rows = torch.searchsorted(cumulative.contiguous(), at).clamp(max=share.shape[-1] - 1).movedim(-1, 0)
        return self.theta.gather(0, rows[..., None].expand(*rows.shape, self.theta.shape[-1]))


def reweight(
    proposal: Posterior,
    target: SampledPosterior | NeuralLikelihood,
    x: Tensor,
    n: int = 10_000,
    seed: int | None = None,
) -> Weighted:
    """Draw from a proposal with a normalised density, such as `npe` gives, and weight the draws for another posterior.

    Args:
        proposal: Drawn from; its `log_prob` is exact.
        target: A likelihood (with its prior), or what has a `log_prob` up to a constant.
        x: Data, one or a batch.
        n: Draws for each x.
        seed: Of the draws.

    Draws at which the target is NaN get no weight.

    Raises:
        ValueError: the target vanishes at every draw of an x.
    """
    posterior = target.posterior() if isinstance(target, NeuralLikelihood) else target
    theta = proposal.sample(n, x, seed)
    with torch.no_grad():
        log_weight = posterior.log_prob(theta, x) - proposal.log_prob(theta, x)
    log_weight = torch.where(torch.isnan(log_weight), -math.inf, log_weight)
    if not bool(torch.isfinite(log_weight).any(0).all()):
        raise ValueError("reweight: the target vanishes at every draw of the proposal")
    return Weighted(theta, log_weight, posterior.prior)


class Reweighted(Posterior):
    """A proposal corrected by importance weights: `sample` draws `oversample` n, weights and resamples.

    Its `log_prob` is the target's, up to a constant.
    """

    def __init__(self, proposal: Posterior, target: SampledPosterior | NeuralLikelihood, oversample: int = 10) -> None:
        super().__init__()
        if oversample < 1:
            raise ValueError(f"oversample must be at least 1, got {oversample}")
        self.proposal, self.oversample = proposal, oversample
        self.target = target.posterior() if isinstance(target, NeuralLikelihood) else target
        self.prior, self.data_shape = self.target.prior, proposal.data_shape

    def sample(self, n: int, x: Tensor, seed: int | None = None) -> Tensor:
        seed = random.fresh_seed() if seed is None else seed
        return reweight(self.proposal, self.target, x, self.oversample * n, seed).resample(n, seed)

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        return self.target.log_prob(theta, x)
