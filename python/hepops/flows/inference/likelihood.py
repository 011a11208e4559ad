r"""Neural likelihood estimation: q(x|theta) is learned, and the posterior is :math:`p(\theta) \prod_r q(x_r|\theta)`.

Unlike the amortised posterior it takes any number of independent observations of one theta, and any prior that has the
support of the first; it costs a sampler for every x.

References:
    | G. Papamakarios, D. C. Sterratt, I. Murray, AISTATS (2019), arXiv:1805.07226
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import random
from .density import Density, FlowMaker
from .fitting import Fitted, Training
from .posterior import Posterior
from .priors import Prior, standard_normal
from .sampler import Chain, ensemble
from .simulations import Simulations


class NeuralLikelihood(nn.Module):
    """What `nle` returns: q(x|theta), normalised in x."""

    def __init__(self, prior: Prior, density: Density, data_shape: Sequence[int]) -> None:
        super().__init__()
        self.prior, self.density, self.data_shape = prior, density, torch.Size(data_shape)
        self.history: list[Fitted] = []

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """ln q(x|theta), float64, the batch shapes of x and theta broadcast; differentiable in both."""
        d = len(self.data_shape)
        if x.ndim < d or x.shape[x.ndim - d :] != self.data_shape:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self.data_shape))}), got {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x holds NaN or infinity")
        flat = x.reshape(*x.shape[: x.ndim - d], -1).to(torch.float64)
        return self.density.log_prob(flat, theta)

    def sample(self, theta: Tensor, n: int, seed: int | None = None) -> Tensor:
        """Data, shape (n, ..., *data): a surrogate of the simulator."""
        x = self.density.sample(n, theta, seed)
        return x.reshape(*x.shape[:-1], *self.data_shape)

    def posterior(self, prior: Prior | None = None, *, repeated: bool = False, **settings: Any) -> "SampledPosterior":
        """The posterior that follows from this likelihood; see `SampledPosterior`."""
        return SampledPosterior(prior or self.prior, self.log_prob, self.data_shape, repeated=repeated, **settings)

    def save(self, folder: str | Path) -> None:
        """Write likelihood.safetensors and likelihood.json, each whole or not there."""
        from .storage import save

        save(folder, "likelihood", self)

    @classmethod
    def load(cls, folder: str | Path, *, flow: FlowMaker | None = None) -> "NeuralLikelihood":
        """A likelihood as `save` wrote it; see `NeuralPosterior.load`."""
        from .storage import fill, load

        return fill(folder, "likelihood", cls(*load(folder, "likelihood", None, flow)))


class SampledPosterior(Posterior):
    r"""The posterior of a prior and a log likelihood, drawn from by an ensemble of walkers in u.

    Args:
        prior: Of theta.
        log_likelihood: A function of x and theta that returns ln p(x|theta), for any batch shapes that broadcast.
        data_shape: Of one observation.
        repeated: x holds R independent observations of one theta, shape (..., R, *data): their likelihoods multiply.
        walkers, warmup, thin: Of the sampler.
        start: A posterior that the walkers start from (of x that are not repeated); None: they are resampled from
            4096 draws of the prior with the likelihood's weights.

    `log_prob` is not normalised.
    """

    def __init__(
        self,
        prior: Prior,
        log_likelihood: Callable[[Tensor, Tensor], Tensor],
        data_shape: Sequence[int],
        *,
        repeated: bool = False,
        walkers: int = 128,
        warmup: int = 200,
        thin: int = 10,
        start: Posterior | None = None,
    ) -> None:
        super().__init__()
        self.prior, self.log_likelihood, self.repeated = prior, log_likelihood, repeated
        self.one = torch.Size(data_shape)
        self.walkers, self.warmup, self.thin, self.start = walkers, warmup, thin, start
        self.data_shape = self.one

    def _one(self, x: Tensor) -> None:
        if self.repeated:
            if x.shape[1:] != self.one or not len(x):
                raise ValueError(f"x must have shape (R, {', '.join(map(str, self.one))}), got {tuple(x.shape)}")
            return
        super()._one(x)

    def _likelihood(self, x: Tensor, theta: Tensor) -> Tensor:
        if not self.repeated:
            return self.log_likelihood(x, theta)
        return self.log_likelihood(x, theta[..., None, :]).sum(-1)

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """ln p(theta) + ln p(x|theta): not normalised."""
        inside = self.prior.inside(theta)
        middle, _ = self.prior.from_normal(torch.zeros(len(self.prior), dtype=torch.float64))
        safe = torch.where(inside[..., None], theta, middle.to(theta))
        value = self.prior.log_prob(theta) + self._likelihood(x, safe)
        return torch.where(inside, value, torch.full_like(value, -math.inf))

    def chain(self, n: int, x: Tensor, seed: int | None = None) -> Chain:
        """At least n draws of theta with the diagnostics of the sampler; x may hold a batch of data."""
        self._flat(x)
        seed = random.fresh_seed() if seed is None else seed

        def target(u: Tensor) -> Tensor:
            value = standard_normal(u) + self._likelihood(x, self.prior.from_normal(u)[0])
            return torch.where(torch.isnan(value), -math.inf, value)

        with torch.no_grad():
            made = ensemble(target, self._begin(x, target, seed), n, seed, warmup=self.warmup, thin=self.thin)
            return made._replace(draws=self.prior.from_normal(made.draws)[0])

    def sample(self, n: int, x: Tensor, seed: int | None = None) -> Tensor:
        return self.chain(n, x, seed).draws[:n]

    def _begin(self, x: Tensor, target: Callable[[Tensor], Tensor], seed: int) -> Tensor:
        """Walkers (W, ..., K)."""
        if self.start is not None:
            return self.prior.to_normal(self.start.sample(self.walkers, x, seed))[0].clamp(-7, 7)
        d = len(self.one) + self.repeated
        batch = x.shape[: x.ndim - d]
        u = random.normal(4096, len(self.prior), seed, purpose=random.PROBE, dtype=torch.float64)
        u = u.reshape(4096, *(1,) * len(batch), -1).expand(4096, *batch, -1)
        weight = target(u) - standard_normal(u)
        # Gumbel's numbers make the top W of (ln w + g) a draw of W without replacement
        g = random.uniform(4096, max(1, math.prod(batch)), seed, purpose=random.PICK, dtype=torch.float64)
        keys = weight - torch.log(-torch.log(g)).reshape(4096, *batch)
        rows = keys.topk(self.walkers, 0).indices
        return u.gather(0, rows[..., None].expand(*rows.shape, u.shape[-1]))


def nle(
    simulations: Simulations,
    *,
    members: int = 1,
    network: Mapping[str, Any] | None = None,
    flow: FlowMaker | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> NeuralLikelihood:
    """Neural likelihood estimation: learn p(x|theta) for every theta.

    Args:
        simulations: From `simulate`; the parameters may be of any distribution that covers the region of interest.
        members, network, flow, training, seed: As of `npe`; the flow is of (D, K).

    Returns:
        `NeuralLikelihood`. Deterministic for a seed and a number of threads.

    Raises:
        ValueError: too few simulations, or data that do not vary in all of their D directions.

    Example:
        >>> from hepops.flows.inference import Box, Training, nle, noise, simulate
        >>> made = simulate(Box([-1.0], [1.0]), lambda theta, seeds: theta + 0.1 * noise(seeds, 1), 500, seed=1)
        >>> posterior = nle(made, training=Training(epochs=3)).posterior(repeated=True)
        >>> float(posterior.summary(torch.full((25, 1), 0.2), n=1000).errors) < 0.03  # 0.1 / sqrt(25)
        True
    """
    x, theta = simulations.x.flatten(1).to(torch.float64), simulations.theta
    density = Density(x.shape[1], theta.shape[1], members=members, network=network, flow=flow, seed=seed)
    made = NeuralLikelihood(simulations.prior, density, simulations.x.shape[1:])
    made.history = density.learn(x, theta, training or Training(), seed)
    return made.eval()
