"""Walkers that stretch towards each other: a Markov chain that needs no tuning and does not see linear maps.

Half of the walkers move at a time, each along the line to one of the other half: Y = X_j + z (X_k - X_j), z with
density 1/sqrt(z) in [1/a, a], a = 2, accepted with probability min(1, z^(K-1) p(Y) / p(X_k)).

References:
    | J. Goodman, J. Weare, Commun. Appl. Math. Comput. Sci. 5 (2010) 65
    | D. Foreman-Mackey et al., PASP 125 (2013) 306, arXiv:1202.3665
    | A. Gelman, D. B. Rubin, Stat. Sci. 7 (1992) 457, for R
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import random

_STRETCH = 2.0


class Chain(NamedTuple):
    """Draws of an ensemble, and how good they are; (...) are the batch dimensions of independent problems."""

    draws: Tensor  # float64 (n, ..., K), step by step, all walkers of a step together
    acceptance: Tensor  # float64 (...)   share of the moves that were accepted
    tau: Tensor  # float64 (..., K)       integrated autocorrelation time of the ensemble's mean, in kept steps
    rhat: Tensor  # float64 (..., K)      Gelman and Rubin's R of the walkers' two halves in time

    @property
    def ess(self) -> Tensor:
        """Effective number of draws, (..., K)."""
        return len(self.draws) / self.tau


def ensemble(
    log_prob: Callable[[Tensor], Tensor], start: Tensor, n: int, seed: int, *, warmup: int = 200, thin: int = 10
) -> Chain:
    """At least n draws.

    Args:
        log_prob: Log density of (W, ..., K), shape (W, ...), up to a constant; never NaN.
        start: Walkers (W, ..., K), W even and at least 2 K, of a finite density.
        n: Draws: steps are kept until there are so many.
        seed: In [0, 2^64).
        warmup: Steps that are thrown away.
        thin: One step in so many is kept.

    Deterministic for a seed.

    Raises:
        ValueError: too few walkers, or none of a finite density.
    """
    W, K = start.shape[0], start.shape[-1]
    if W % 2 or W < 2 * K or W < 4:
        raise ValueError(f"ensemble: needs an even number of walkers, at least {max(4, 2 * K)}, got {W}")
    for name, number, least in (("n", n, 1), ("thin", thin, 1), ("warmup", warmup, 0)):
        if number < least:
            raise ValueError(f"ensemble: {name} must be at least {least}, got {number}")
    x = start.clone()
    value = log_prob(x)
    if not bool(torch.isfinite(value).any(0).all()):
        raise ValueError("ensemble: no walker starts where the density is above zero")
    kept = []
    steps = warmup + thin * math.ceil(n / W)
    accepted = torch.zeros(value.shape[1:], dtype=torch.float64)
    for step in range(steps):
        for half in (0, 1):
            x, value, moved = _move(log_prob, x, value, half, seed, 2 * step + half)
            accepted += moved
        if step >= warmup and (step - warmup) % thin == thin - 1:
            kept.append(x)
    walkers = torch.stack(kept)  # (steps, W, ..., K)
    tau = autocorrelation(walkers.mean(1))
    return Chain(walkers.flatten(0, 1), accepted / (steps * W), tau, _rhat(walkers))


def _move(
    log_prob: Callable[[Tensor], Tensor], x: Tensor, value: Tensor, half: int, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    W, K = x.shape[0], x.shape[-1]
    mine, others = x[half::2], x[1 - half :: 2]
    batch = value.shape[1:]
    u = random.uniform(W // 2, 3 * max(1, math.prod(batch)), seed, step=step, purpose=random.TRAIN, dtype=torch.float64)
    first, second, third = u.reshape(W // 2, 3, *batch).unbind(1)
    z = (1 + first * (_STRETCH - 1)).square() / _STRETCH
    partner = (second * (W // 2)).to(torch.int64).clamp(max=W // 2 - 1)
    from_ = others.gather(0, partner[..., None].expand(*partner.shape, K))
    proposed = from_ + z[..., None] * (mine - from_)
    new, old = log_prob(proposed), value[half::2]
    take = third.log() < (K - 1) * z.log() + new - old
    take |= torch.isinf(old) & torch.isfinite(new)
    x, value = x.clone(), value.clone()
    x[half::2] = torch.where(take[..., None], proposed, mine)
    value[half::2] = torch.where(take, new, old)
    return x, value, take.sum(0).double()


def autocorrelation(series: Tensor) -> Tensor:
    """Integrated autocorrelation time along the first axis, with Sokal's window of 5 tau; NaN of fewer than 4 steps."""
    n = len(series)
    rest = (series - series.mean(0)).double()
    if n < 4:
        return torch.full(series.shape[1:], math.nan, dtype=torch.float64)
    power = torch.fft.rfft(rest, 2 * n, dim=0).abs().square()
    gamma = torch.fft.irfft(power, 2 * n, dim=0)[:n]
    rho = gamma / gamma[:1].clamp_min(1e-300)
    tau = 2 * rho.cumsum(0) - 1
    window = torch.arange(n, dtype=torch.float64).reshape(-1, *(1,) * (series.ndim - 1))
    stop = (window >= 5 * tau).to(torch.int64)
    stop[-1] = 1
    return tau.gather(0, stop.argmax(0, keepdim=True))[0].clamp_min(1.0)


def _rhat(walkers: Tensor) -> Tensor:
    """Each walker's first and second half of the kept steps are chains; NaN of fewer than 4 steps."""
    n = len(walkers) // 2
    if n < 2:
        return torch.full(walkers.shape[2:], math.nan, dtype=torch.float64)
    chains = torch.cat([walkers[:n], walkers[n : 2 * n]], 1)
    within = chains.var(0).mean(0)
    between = chains.mean(0).var(0)
    return (((n - 1) / n * within + between) / within.clamp_min(1e-300)).sqrt()
