r"""Posteriors of parameters given data, and neural posterior estimation.

:math:`q(\theta|x)` is learned from pairs drawn from :math:`p(\theta) p(x|\theta)` by minimising
:math:`-\langle \ln q(\theta|x) \rangle`, whose minimum is the posterior :math:`p(\theta|x)` for every x at once. The
flow lives in the prior's normal coordinate :math:`u = T(\theta)`, so that no mass lies outside the prior's support:

.. math:: \ln q(\theta|x) = \ln q\left(\frac{T(\theta) - m}{h} \middle| x, m\right) - \sum \ln h + \ln |\det T'|

T bends what is linear in theta, most at the ends of a box. Therefore m and h are taken from the linear regression of
theta on x: the middle and half the length, in u, of its value plus and minus the spread that it leaves. Data linear in
theta with normal noise so leave little to learn, wherever in the box they are.

References:
    | G. Papamakarios, I. Murray, NIPS (2016), arXiv:1605.06376
    | D. S. Greenberg, M. Nonnenmacher, J. H. Macke, ICML (2019), arXiv:1905.07488
    | K. Cranmer, J. Brehmer, G. Louppe, PNAS 117 (2020) 30055, arXiv:1911.01429
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .density import Density, FlowMaker, Standardise
from .fitting import Fitted, Training
from .priors import Prior
from .simulations import Simulations
from .statistics import weighted_covariance, weighted_quantiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.6827, 0.9545)


@dataclass(frozen=True)
class Summary:
    """Numbers of a posterior at one x; tensors are float64 on the CPU."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: Tensor  # (K)
    covariance: Tensor  # (K, K)
    median: Tensor  # (K)
    levels: tuple[float, ...]
    intervals: Tensor  # (len(levels), 2, K)  central credible intervals
    draws: Tensor  # (n, K)
    weight: Tensor | None = None  # (n) of the draws; None: equal

    @property
    def errors(self) -> Tensor:
        """(K) standard deviations."""
        return self.covariance.diagonal().sqrt()

    @property
    def correlations(self) -> Tensor:
        """(K, K)"""
        return self.covariance / (self.errors * self.errors[:, None])

    def __str__(self) -> str:
        width = max(map(len, self.names))
        share = f"{100 * self.levels[0]:.4g} % interval"
        lines = [f"{'':{width}}  {'mean':>13} {'error':>11} {'median':>13}  {share:>29}  unit"]
        for k, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            low, high = self.intervals[0, :, k].tolist()
            numbers = f"{float(self.mean[k]):13.7g} {float(self.errors[k]):11.3g} {float(self.median[k]):13.7g}"
            lines.append(f"{name:{width}}  {numbers}  [{low:13.7g}, {high:13.7g}]  {unit}")
        return "\n".join(lines)

    @classmethod
    def of(
        cls, prior: Prior, draws: Tensor, weight: Tensor | None = None, levels: Sequence[float] = LEVELS
    ) -> "Summary":
        """Of draws (n, K), with weights or without."""
        if len(draws) < 2 or not levels:
            raise ValueError(f"a summary needs at least two draws and one level, got {len(draws)} and {list(levels)}")
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"levels must lie between 0 and 1, got {level}")
        mean, covariance = weighted_covariance(draws, weight)
        at = torch.tensor([0.5, *(s for v in levels for s in ((1 - v) / 2, (1 + v) / 2))], dtype=torch.float64)
        q = weighted_quantiles(draws, at, weight)
        intervals = q[1:].reshape(len(levels), 2, -1)
        return cls(prior.names, prior.units, mean, covariance, q[0], tuple(levels), intervals, draws, weight)


class Posterior(nn.Module):
    """p(theta|x) of data x, shape (..., *data); subclasses write `sample`, and `log_prob` up to a constant or exact."""

    prior: Prior
    data_shape: torch.Size

    def sample(self, n: int, x: Tensor, seed: int | None = None) -> Tensor:
        """n draws for each x: shape (n, ..., K), float64."""
        raise NotImplementedError

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Shape of the batch dimensions of theta and x, broadcast; float64."""
        raise NotImplementedError

    def summary(self, x: Tensor, n: int = 10_000, seed: int = 0, levels: Sequence[float] = LEVELS) -> Summary:
        """Mean, covariance, median and credible intervals at one x, by n draws: their error falls as 1/sqrt(n)."""
        self._one(x)
        return Summary.of(self.prior, self.sample(n, x, seed), levels=levels)

    def map(self, x: Tensor, n: int = 1000, seed: int = 0, steps: int = 100) -> Tensor:
        """The point of highest density in theta, shape (K): the best of n draws, then a search from there (L-BFGS)."""
        self._one(x)
        draws = self.sample(n, x, seed)
        with torch.no_grad():
            best = draws[self.log_prob(draws, x).argmax()]
        u, _ = self.prior.to_normal(best)
        width = self.prior.to_normal(draws)[0].std(0).clamp_min(1e-9)
        shift = torch.zeros_like(u, requires_grad=True)
        search = torch.optim.LBFGS([shift], max_iter=steps, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            value = -self.log_prob(self.prior.from_normal(u + width * shift)[0], x)
            value.backward()
            return value

        search.step(loss)
        with torch.no_grad():
            found = self.prior.from_normal(u + width * shift)[0]
            better = self.log_prob(found, x) >= self.log_prob(best, x)  # False of NaN
        return found if bool(better) else best

    def corner(
        self, x: Tensor, n: int = 10_000, seed: int = 0, truth: Tensor | Sequence[float] | None = None
    ) -> "Figure":
        """Marginal densities of one and of two parameters."""
        from .plots import corner

        self._one(x)
        return corner({"posterior": self.sample(n, x, seed)}, self.prior.names, self.prior.units, truth=truth)

    def _one(self, x: Tensor) -> None:
        if x.shape != self.data_shape:
            raise ValueError(f"x must be the data of one experiment, {tuple(self.data_shape)}, got {tuple(x.shape)}")

    def _flat(self, x: Tensor) -> Tensor:
        """(..., D), checked."""
        d = len(self.data_shape)
        if x.shape[x.ndim - d :] != self.data_shape or x.ndim < d:
            raise ValueError(f"x must have shape (..., {', '.join(map(str, self.data_shape))}), got {tuple(x.shape)}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x holds NaN or infinity")
        return x.reshape(*x.shape[: x.ndim - d], -1).to(torch.float64)


class NeuralPosterior(Posterior):
    """What `npe` returns: amortised, so that a new x costs no training and no simulation.

    `density` is q(u|x); `history` holds the losses of the training of each member.
    """

    slope: Tensor
    offset: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, prior: Prior, density: Density, data_shape: Sequence[int]) -> None:
        super().__init__()
        self.prior, self.density, self.data_shape = prior, density, torch.Size(data_shape)
        self.history: list[Fitted] = []
        count, K = self.data_shape.numel(), len(prior)
        sizes = {"slope": (count, K), "offset": (K,), "spread": (K,), "low": (K,), "high": (K,)}
        for name, size in sizes.items():  # the regression of theta on x, the width of what it leaves, ends of theta
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    def _learn(self, simulations: Simulations, training: Training, seed: int) -> None:
        x, theta = simulations.x.flatten(1).to(torch.float64), simulations.theta
        if not self.density.own["embedding"]:
            regression = Standardise(theta.shape[1], x.shape[1])
            regression.learn(theta, x, regress=True)
            slope = regression.slope / regression.scale[:, None]
            self.slope.copy_(slope)
            self.offset.copy_(regression.offset - regression.centre @ slope)
            self.spread.copy_((theta - x @ self.slope - self.offset).std(0))
        self.low.copy_(theta.amin(0))
        self.high.copy_(theta.amax(0))
        c, middle, half = self._condition(x)
        u, _ = self.prior.to_normal(theta)
        self.history = self.density.learn((u - middle) / half, c, training, seed)

    def _condition(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The condition, x (..., D) and m, with m and h (..., K); with an embedding x alone, 0 and 1."""
        if self.density.own["embedding"]:
            middle = x.new_zeros(*x.shape[:-1], len(self.prior))
            return x, middle, torch.ones_like(middle)
        theta = (x @ self.slope + self.offset).clamp(self.low, self.high)
        middle, half = self.prior.local(theta, self.spread)
        return torch.cat([x, middle], -1), middle, half

    def sample(self, n: int, x: Tensor, seed: int | None = None) -> Tensor:
        """n draws for each x: shape (n, ..., K); draw i of a seed is the same for every n (of one member)."""
        if n < 0:
            raise ValueError(f"sample: n must not be negative, got {n}")
        c, middle, half = self._condition(self._flat(x))
        self._compare(c)
        return self.prior.from_normal(middle + half * self.density.sample(n, c, seed))[0]

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Normalised; -inf outside the prior's support. Differentiable in theta."""
        c, middle, half = self._condition(self._flat(x))
        theta = self.prior._check(theta)
        u, logdet = self.prior.to_normal(theta)
        inside = self.prior.inside(theta)
        u = torch.where(inside[..., None], u, torch.zeros_like(u))
        q = self.density.log_prob((u - middle) / half, c) + logdet - half.log().sum(-1)
        return torch.where(inside, q, torch.full_like(q, -math.inf))

    def _compare(self, c: Tensor) -> None:
        """A warning where one x lies outside of what was learnt from: there the posterior is a guess."""
        if c.ndim > 1:  # of many data, as in a test of coverage, some do
            return
        learned: Any = self.density.members[0].standardise
        reach = 0.05 * (learned.high - learned.low)
        outside = (c < learned.low - reach) | (c > learned.high + reach)
        if bool(outside.any()):
            warnings.warn(
                f"hepops: {int(outside.sum())} numbers of x lie outside of all that was simulated: the posterior is "
                f"extrapolated",
                stacklevel=3,
            )

    def save(self, folder: str | Path) -> None:
        """Write posterior.safetensors and posterior.json, each whole or not there."""
        from .storage import save

        save(folder, "posterior", self)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        embedding: Callable[[], nn.Module] | None = None,
        flow: FlowMaker | None = None,
    ) -> "NeuralPosterior":
        """A posterior as `save` wrote it, to the last bit; nothing of the files is executed.

        Args:
            folder: The folder.
            embedding, flow: Where the posterior had its own: what makes them.

        Raises:
            FileNotFoundError: a file is not there.
            ValueError: another format, a later version, or weights that do not fit.
        """
        from .storage import fill, load

        return fill(folder, "posterior", cls(*load(folder, "posterior", embedding, flow)))


def npe(
    simulations: Simulations,
    *,
    members: int = 1,
    network: Mapping[str, Any] | None = None,
    embedding: Callable[[], nn.Module] | None = None,
    embedded: int | None = None,
    flow: FlowMaker | None = None,
    training: Training | None = None,
    seed: int = 0,
) -> NeuralPosterior:
    """Neural posterior estimation: learn p(theta|x) for every x.

    Args:
        simulations: Of the prior itself, from `simulate`.
        members: Of an ensemble, whose densities are averaged: it is wider where they disagree.
        network: Options of the spline flow: layers, bins, hidden, bound.
        embedding: Makes a network of the standardised, flattened data (..., D) -> (..., E), trained with the flow. By
            default the data are the context themselves, and a linear regression on them precedes the flow.
        embedded: E.
        flow: Makes a flow of (K, D or E) in the place of `nsf`.
        training: How to train.
        seed: Of weights, order and validation sets.

    Returns:
        `NeuralPosterior`. Deterministic for a seed and a number of threads.

    Raises:
        ValueError: too few simulations, or parameters that do not vary.

    Example:
        >>> from hepops.flows.inference import Box, Training, noise, npe, simulate
        >>> made = simulate(Box([-1.0], [1.0]), lambda theta, seeds: theta + 0.1 * noise(seeds, 1), 500, seed=1)
        >>> posterior = npe(made, training=Training(epochs=3))
        >>> draws = posterior.sample(1000, torch.tensor([0.2]), seed=2)
        >>> draws.shape, bool((draws.mean() - 0.2).abs() < 0.05)
        (torch.Size([1000, 1]), True)
    """
    count, K = simulations.x[0].numel(), len(simulations.prior)
    density = Density(
        K,
        count if embedding is not None else count + K,
        members=members,
        network=network,
        embedding=embedding,
        embedded=embedded,
        flow=flow,
        seed=seed,
    )
    made = NeuralPosterior(simulations.prior, density, simulations.x.shape[1:])
    made._learn(simulations, training or Training(), seed)
    return made.eval()
