r"""The tempered start: a Gaussian mixture follows :math:`|f|^b` from b = 0, where all is flat, to b = 1.

Each step draws from the mixture of before, raises b as far as the weights :math:`|f|^b/q` of these samples keep an
effective sample size of `least_ess`, and fits the mixture to all samples so far with the weights of the new b. Peaks
that are narrow at b = 1 are wide where they are first met.

References:
    R. Neal, Annealed importance sampling, Stat. Comput. 11 (2001) 125, physics/9803008. O. Cappe et al., Population
    Monte Carlo, J. Comput. Graph. Stat. 13 (2004) 907.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .channels import Channels
from .gaussians import GaussianMixture, fit, split
from .pool import Counted, Pool, effective, resample
from .proposal import Proposal, Uniform, substream

Report = Callable[..., None]


def defended(channel: Proposal, share: float) -> Channels:
    """A proposal with a uniform channel of this share."""
    return Channels([channel, Uniform(channel.dim)], [1 - share, share])


def raise_power(log_f: Tensor, log_q: Tensor, b: float, least: float) -> float:
    """The largest power in [b, 1] at which the weights |f|^b/q keep an effective number of `least`, by bisection."""
    if effective(log_f - log_q) >= least:
        return 1.0
    low, high = b, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high) if low > 0 else math.sqrt(max(low, 1e-6) * high)
        if effective(middle * log_f - log_q) >= least:
            low = middle
        else:
            high = middle
    return low


def compress(pool: Pool, log_w: Tensor, points: int, seed: int) -> tuple[Tensor, Tensor]:
    """At most `points` points that stand for all in the proportions of their weights, with their multiplicities."""
    u = float(torch.rand((), generator=torch.Generator().manual_seed(seed >> 1)))
    index, times = torch.unique(resample(log_w, points, u), return_counts=True)
    return pool.x[index], times.to(torch.float64)


def fit_best(
    pool: Pool, log_w: Tensor, before: GaussianMixture | None, components: int, points: int, seed: int
) -> GaussianMixture:
    """The likeliest, on the half of the points that it was not fitted to, of several starts.

    They are the mixture of before, that with its heaviest components split, and new starts; the best is fitted again to
    all points.
    """
    x, w = compress(pool, log_w, points, seed)
    mark = torch.rand(len(x), generator=torch.Generator().manual_seed(seed >> 1)) < 0.5
    if int(mark.sum()) < 2 or int((~mark).sum()) < 2:
        mark[:] = True
    # no more components than points can carry
    limit = max(1, min(components, int(effective(log_w) / (3 * (x.shape[1] + 1)))))
    starts: list[GaussianMixture | int] = [limit, max(1, limit // 2)]
    if before is not None:
        starts.append(before)
        if before.components < limit:
            starts.append(split(before, before.shares, limit))
    best, best_score = None, -math.inf
    for i, start in enumerate(starts):
        mixture, _ = fit(x[mark], w[mark], start, steps=15, seed=substream(seed, i))
        score = float(w[~mark] @ mixture.density(x[~mark])) if not bool(mark.all()) else 0.0
        if score > best_score:
            best, best_score = mixture, score
    assert best is not None
    return fit(x, w, best, steps=10)[0]


def tempered(
    f: Counted,
    dim: int,
    budget: int,
    seed: int,
    *,
    batch: int,
    components: int,
    uniform_share: float,
    least_ess: float = 0.12,
    points: int = 6000,
    report: Report,
) -> tuple[Pool, GaussianMixture | None, float]:
    """Runs the start.

    Returns:
        The samples, the mixture and the b that it reached (below 1 where the budget ended first); no mixture where f
        was zero at all of them.
    """
    pool = Pool(dim)
    limit = f.used + budget
    proposal: Proposal = Uniform(dim)
    mixture: GaussianMixture | None = None
    b = 0.0
    step = 0
    while f.used < limit and b < 1:
        n = min(batch, limit - f.used)
        before = len(pool.x)
        log_w = f.draw(pool, proposal, n, substream(seed, step))
        new = slice(before, None)
        if not len(pool.x):
            step += 1
            continue
        log_q = pool.log_f[new] - log_w[log_w > -math.inf]
        least = least_ess * len(log_w)
        previous = b
        b = raise_power(pool.log_f[new], log_q, b, least)
        if b <= previous:  # all samples so far decide where the last ones do not carry
            b = max(previous, raise_power(pool.log_f, pool.log_mix, previous, least))
        if len(pool.x) > 2 * (dim + 1):
            mixture = fit_best(pool, pool.log_weights(b), mixture, components, points, substream(seed, 1000 + step))
            # a wide defence while little is known
            proposal = defended(mixture, max(uniform_share, 0.1 * (1 - b)))
        report(
            stage="tempered", b=b, ess=effective(log_w) / len(log_w), components=mixture.components if mixture else 0
        )
        step += 1
    return pool, mixture, b
