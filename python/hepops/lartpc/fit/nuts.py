r"""The No-U-Turn sampler on a whitened space, for what a covariance cannot say: the posterior itself.

A trajectory of the Hamiltonian :math:`H = -\log\pi(z) + z'^2/2` is doubled, forward or backward by a coin, until it
turns back on itself; the next state is drawn from it with the weights :math:`e^{-H}`. The step is set in the warm-up
by dual averaging, so that the mean acceptance is 0.8. z = L^{-1} (x - \hat x), with L L^T the inverse of the
information at the end of the fit, is nearly a standard normal: no metric is left to learn.

References:
    | M. D. Hoffman, A. Gelman, JMLR 15 (2014) 1593 (trajectories, dual averaging: algorithms 3 and 6)
    | M. Betancourt, arXiv:1701.02434, app. A (multinomial weights)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .target import Target, target_of

if TYPE_CHECKING:
    from .result import FitResult

Density = Callable[[Tensor], tuple[float, Tensor]]  # z (D) -> log density, its gradient (D)

DEEPEST = 8  # doublings: 255 steps
DIVERGED = 1000.0  # energy error
FARTHEST = 30.0  # beyond, in u, the logit is flat: never seen but on a diverging trajectory


@dataclass(frozen=True)
class _State:
    z: Tensor
    momentum: Tensor
    log_density: float
    gradient: Tensor

    @property
    def energy(self) -> float:
        return -self.log_density + 0.5 * float(self.momentum @ self.momentum)


@dataclass(frozen=True)
class _Tree:
    left: _State
    right: _State
    chosen: _State
    log_weight: float  # log of the sum of e^(H0 - H)
    total: Tensor  # sum of momenta
    going: bool
    acceptance: float  # sum over the states of min(1, e^(H0 - H))
    count: int
    diverged: bool


@dataclass(frozen=True)
class Chain:
    """What one chain drew, warm-up left out."""

    draws: Tensor  # (n, D)
    log_density: Tensor  # (n)
    acceptance: Tensor  # (n)
    depth: Tensor  # int64 (n)
    diverged: Tensor  # bool (n)
    step: float


@dataclass(frozen=True)
class Samples:
    """Draws from the posterior of a fit; flat in the physical parameters but for the priors."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    draws: Tensor  # (chains, n, K) physical
    deviations: Tensor  # (chains, n, M) of the nuisances
    chains: tuple[Chain, ...]

    @property
    def mean(self) -> Tensor:
        """(K)"""
        return self.draws.flatten(0, 1).mean(0)

    @property
    def covariance(self) -> Tensor:
        """(K, K)"""
        return torch.cov(self.draws.flatten(0, 1).T).reshape(len(self.names), len(self.names))

    @property
    def effective(self) -> Tensor:
        """(K) effective number of independent draws."""
        return torch.stack([effective_size(self.draws[..., k]) for k in range(len(self.names))])

    @property
    def rhat(self) -> Tensor:
        """(K) split R-hat: 1 where all halves of all chains agree."""
        return torch.stack([split_rhat(self.draws[..., k]) for k in range(len(self.names))])

    @property
    def divergences(self) -> int:
        """Trajectories whose energy was not conserved: the draws then miss a part of the posterior."""
        return sum(int(chain.diverged.sum()) for chain in self.chains)


def nuts(result: FitResult | Target, samples: int = 500, warmup: int = 200, chains: int = 2, seed: int = 0) -> Samples:
    """Draw from the posterior of a fit, nuisances included.

    Args:
        result: Of a fit with a likelihood.
        samples: Of each chain.
        warmup: Draws of each chain that set the step and are thrown away.
        chains: One after the other, begun at a draw of the Gaussian limit.
        seed: Of everything.

    Returns:
        `Samples`. Deterministic. An evaluation of likelihood and score takes place at every step of every trajectory,
        about four for each draw.

    Raises:
        ValueError: numbers that are not positive, or a result without likelihood.
    """
    target = target_of(result, "nuts")
    if min(samples, warmup, chains) < 1:
        raise ValueError(f"nuts: samples, warmup and chains must be positive, got {samples}, {warmup}, {chains}")
    information = target.model(target.point).information
    white = _Whitened(target, information)
    parts, k = [], len(target.names)
    for chain in range(chains):
        generator = torch.Generator().manual_seed(seed + 7919 * chain)
        begin = torch.randn(len(target.point.x), generator=generator, dtype=torch.float64)
        parts.append(sample(white, begin, samples, warmup, generator))
    x = torch.stack([torch.stack([white.unknowns(z) for z in part.draws]) for part in parts])
    p = torch.stack([target.problem.space.physical(row[:, :k])[0] for row in x])
    space = target.problem.space
    return Samples(space.names, space.units, p, x[..., k:], tuple(parts))


class _Whitened:
    """log posterior as a function of z: x_common = L z, x_single = -D^-1 B^T x_common + D^-1/2 z."""

    def __init__(self, target: Target, information: object):
        from .arrow import Arrow

        assert isinstance(information, Arrow)
        self.target = target
        dead = ~(information.diagonal > 0)
        whole = information.without(dead)
        size = whole.corner.diagonal().rsqrt()
        S = torch.linalg.inv(whole.schur() * size * size[:, None])
        self.lower = torch.linalg.cholesky((S + S.T) / 2) * size[:, None]
        self.lower = self.lower.masked_fill(dead[: len(size), None], 0.0)
        self.pull = (whole.border / whole.tail).T
        self.tail = whole.tail.rsqrt().masked_fill(dead[len(size) :], 0.0)

    def unknowns(self, z: Tensor) -> Tensor:
        dense = len(self.lower)
        common = self.lower @ z[:dense]
        x = self.target.point.x + torch.cat((common, self.tail * z[dense:] - self.pull @ common))
        return x.clamp(-FARTHEST, FARTHEST)

    def __call__(self, z: Tensor) -> tuple[float, Tensor]:
        x, space = self.unknowns(z), self.target.problem.space
        k, dense = len(space), len(self.lower)
        point = self.target.at(x)
        u = x[:k]
        # flat in p: the density of u has the factor dp/du = (high - low) s (1 - s)
        jacobian = float((torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)).sum())
        gradient = -self.target.model(point).gradient
        gradient[:k] += 1 - 2 * torch.sigmoid(u)
        common = self.lower.T @ (gradient[:dense] - self.pull.T @ gradient[dense:])
        return jacobian - self.target.value(point), torch.cat((common, self.tail * gradient[dense:]))


def sample(
    density: Density, begin: Tensor, samples: int, warmup: int, generator: torch.Generator, accept: float = 0.8
) -> Chain:
    """One chain on any differentiable log density of D numbers.

    Args:
        density: Returns log density and gradient (D).
        begin: (D), float64.
        samples: Draws kept.
        warmup: Draws before, which set the step.
        generator: Of all random numbers.
        accept: Mean acceptance that the step is set for.
    """
    log_density, gradient = density(begin)
    state = _State(begin, torch.zeros_like(begin), log_density, gradient)
    step = _first_step(density, state, generator)
    # dual averaging: Hoffman & Gelman (2014), eq. 6, with their gamma, t0 and kappa
    target, error, smoothed = math.log(10 * step), 0.0, 0.0
    rows = []
    for n in range(1, warmup + samples + 1):
        state, tree, depth = _transition(density, state, step, generator)
        rate = tree.acceptance / max(1, tree.count)
        if n <= warmup:
            weight = 1 / (n + 10)
            error = (1 - weight) * error + weight * (accept - rate)
            log_step = target - math.sqrt(n) / 0.05 * error
            smoothed = n**-0.75 * log_step + (1 - n**-0.75) * smoothed
            step = math.exp(log_step if n < warmup else smoothed)
        else:
            rows.append((state.z, state.log_density, rate, depth, tree.diverged))
    z, density_, rates, depths, diverged = zip(*rows, strict=True)
    log_densities, acceptance = (torch.tensor(c, dtype=torch.float64) for c in (density_, rates))
    return Chain(torch.stack(z), log_densities, acceptance, torch.tensor(depths), torch.tensor(diverged), step)


def _first_step(density: Density, state: _State, generator: torch.Generator) -> float:
    """Doubled or halved until one leapfrog step is accepted about every second time."""
    momentum = torch.randn(len(state.z), generator=generator, dtype=torch.float64)
    state = _State(state.z, momentum, state.log_density, state.gradient)
    step = 1.0
    gain = state.energy - _leapfrog(density, state, step).energy
    direction = 1 if gain > math.log(0.5) else -1
    for _ in range(30):
        trial = state.energy - _leapfrog(density, state, step * 2.0**direction).energy
        if math.isnan(trial) or direction * trial <= direction * math.log(0.5):
            break
        step *= 2.0**direction
    return step


def _leapfrog(density: Density, s: _State, step: float) -> _State:
    momentum = s.momentum + 0.5 * step * s.gradient
    z = s.z + step * momentum
    log_density, gradient = density(z)
    return _State(z, momentum + 0.5 * step * gradient, log_density, gradient)


def _transition(density: Density, state: _State, step: float, generator: torch.Generator) -> tuple[_State, _Tree, int]:
    momentum = torch.randn(len(state.z), generator=generator, dtype=torch.float64)
    start = _State(state.z, momentum, state.log_density, state.gradient)
    tree = _Tree(start, start, start, 0.0, momentum, True, 0.0, 0, False)
    depth = 0
    while tree.going and depth < DEEPEST:
        forward = _uniform(generator) < 0.5
        new = _grow(density, tree.right if forward else tree.left, step if forward else -step, depth, start, generator)
        # biased towards the new half, which lies further away
        chosen = tree.chosen
        if new.going and math.log(max(_uniform(generator), 1e-300)) < new.log_weight - tree.log_weight:
            chosen = new.chosen
        tree = _joined(tree, new, chosen, forward)
        depth += 1
    return tree.chosen, tree, depth


def _grow(density: Density, at: _State, step: float, depth: int, start: _State, generator: torch.Generator) -> _Tree:
    """2^depth steps beyond a state."""
    if depth == 0:
        new = _leapfrog(density, at, step)
        change = start.energy - new.energy
        change = change if math.isfinite(change) else -math.inf
        good = change > -DIVERGED
        return _Tree(new, new, new, change, new.momentum, good, min(1.0, math.exp(min(0.0, change))), 1, not good)
    first = _grow(density, at, step, depth - 1, start, generator)
    if not first.going:
        return first
    second = _grow(density, first.right if step > 0 else first.left, step, depth - 1, start, generator)
    total = _log_add(first.log_weight, second.log_weight)
    take = math.log(max(_uniform(generator), 1e-300)) < second.log_weight - total
    return _joined(first, second, second.chosen if take else first.chosen, step > 0)


def _joined(a: _Tree, b: _Tree, chosen: _State, forward: bool) -> _Tree:
    """Two adjacent pieces of a trajectory, b after a in the direction of the growth."""
    left, right = (a, b) if forward else (b, a)
    total = a.total + b.total
    straight = all(float(total @ end) > 0 for end in (left.left.momentum, right.right.momentum))
    # also across the seam (Stan's additional check): each half with the nearest state of the other
    straight = straight and all(
        float((left.total + right.left.momentum) @ p) > 0 for p in (left.left.momentum, right.left.momentum)
    )
    straight = straight and all(
        float((right.total + left.right.momentum) @ p) > 0 for p in (left.right.momentum, right.right.momentum)
    )
    return _Tree(
        left.left,
        right.right,
        chosen,
        _log_add(a.log_weight, b.log_weight),
        total,
        a.going and b.going and straight,
        a.acceptance + b.acceptance,
        a.count + b.count,
        a.diverged or b.diverged,
    )


def _log_add(a: float, b: float) -> float:
    top = max(a, b)
    return top if top == -math.inf else top + math.log(math.exp(a - top) + math.exp(b - top))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def effective_size(x: Tensor) -> Tensor:
    """Number of independent draws among those of several chains (chains, n): Geyer's initial positive sequence."""
    chains, n = x.shape
    centred = x - x.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * n)
    autocovariance = torch.fft.irfft(spectrum.abs() ** 2, 2 * n)[:, :n].mean(0) / n
    between = x.mean(1).var() if chains > 1 else x.new_zeros(())
    variance = autocovariance[0] + between
    rho = 1 - (autocovariance[0] - autocovariance) / variance.clamp_min(1e-300)
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(1)
    negative = (pairs < 0).nonzero()
    pairs = pairs[: int(negative[0]) if len(negative) else len(pairs)]
    return chains * n / (2 * pairs.cummin(0).values.sum() - 1).clamp_min(1e-3) if len(pairs) else x.new_tensor(1.0)


def split_rhat(x: Tensor) -> Tensor:
    """Split R-hat of draws (chains, n): A. Gelman et al., Bayesian Data Analysis, 3rd ed., eq. 11.4."""
    half = x.shape[1] // 2
    parts = torch.cat((x[:, :half], x[:, -half:]))
    within, between = parts.var(1).mean(), parts.mean(1).var()
    return ((half - 1) / half + between / within.clamp_min(1e-300)).sqrt()
