r"""A look, independent of the proposal, for peaks of f that its samples never met.

An integral over samples of q says nothing about where q does not go, and its :math:`\chi^2` is good. So:

1. a scrambled Sobol stream covers the cube; at its points the ratio :math:`r = |f| / q` is taken;
2. from the points of the largest r, and from as many plain points of the stream where f is not zero, walkers climb r:
   normal steps, taken where r does not fall, longer after a success and shorter after a failure (a fifth of the steps
   succeed). Where q follows f the ratio is flat; towards a peak that q lacks it rises like f;
3. ends where r exceeds 10 times the largest weight of the samples are peaks that may be lost. Around each a normal
   density is fitted to f (population Monte Carlo), whose weights give the mass :math:`\int |f|` of the region where r
   is that large. An edge of negligible mass is no peak.

What it can see: of m plain walkers one starts in a basin (the points from which r rises to the peak) of volume v with
probability :math:`1 - (1-v)^m`; of S Sobol points one falls on a peak without any slope around it (f = 0) with about
:math:`1 - (1-v)^S`. :attr:`Probe.smallest_basin` and :attr:`Probe.smallest_volume` are the v of 95 %.

References:
    I. Rechenberg's one-fifth rule: H.-G. Beyer, H.-P. Schwefel, Evolution strategies, Natural Computing 1 (2002) 3.
    O. Cappé, A. Guillin, J.-M. Marin, C. Robert, Population Monte Carlo, J. Comput. Graph. Stat. 13 (2004) 907.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from hepops.flows.random import PROBE

from .peaks import ALARM, ROUNDS, Look, Peak, belongs, fit, fit_cost, fold
from .proposal import normals, substream

SLOTS = 128  # walkers at a time


@dataclass(frozen=True)
class Probe:
    """What the look found.

    Attributes:
        peaks: Regions above the alarm, of the largest mass first.
        evaluations: Of f.
        points: Of the Sobol stream.
        walkers: That started from plain points of it.
        smallest_basin: Volume of the smallest basin, of 1, that is met with 95 %.
        smallest_volume: The same for a peak without slopes.
    """

    peaks: tuple[Peak, ...]
    evaluations: int
    points: int
    walkers: int
    smallest_basin: float
    smallest_volume: float

    def __str__(self) -> str:
        return (
            f"{self.points} Sobol points, climbs from {self.walkers} of them: a basin of {self.smallest_basin:.1g} of "
            f"the volume, or a peak without slopes of {self.smallest_volume:.1g}, would be seen with 95 %"
        )


def probe(
    size: Callable[[Tensor], Tensor],
    log_q: Callable[[Tensor], Tensor],
    dim: int,
    budget: int,
    seed: int,
    *,
    largest: float,
    known: Tensor | None = None,
) -> Probe:
    """Looks for peaks with at most `budget` evaluations.

    Args:
        size: |f| at points u of the cube, shape (n, d) -> (n,).
        log_q: The proposal's log density there.
        dim: d, at most 21201 (torch's Sobol numbers).
        budget: About 40 % go to the stream, the rest to the climbs and the fits.
        seed: Names every number that is drawn.
        largest: The largest weight |f|/q that the proposal's own samples have.
        known: Points of the largest weights among those samples, shape (n, d): more walkers start there.
    """
    look = Look(size, log_q)
    points = 1 << max(int(math.log2(max(0.4 * budget, 2))), 1)
    u, ratio = stream(look, dim, points, seed)
    high = ratio.topk(min(max(budget // 5000, 4), points // 2)).indices
    plain = (ratio > -math.inf).nonzero()[:, 0]
    starts, heights = torch.cat([u[high], u[plain]]), torch.cat([ratio[high], ratio[plain]])
    ahead = len(high)
    if known is not None and len(known):
        starts, heights = torch.cat([known, starts]), torch.cat([look(known), heights])
        ahead += len(known)
    n = min(max(budget // 10 // ROUNDS, 32 + 16 * dim), 128 + 64 * dim)
    reserve = max(fit_cost(n), min(8 * fit_cost(n), budget // 8))
    steps = 100 + 25 * dim
    climbs = climb(look, starts, heights, steps, budget - reserve - look.count, substream(seed, 1), math.log(largest))
    peaks: list[Peak] = []
    for i in climbs.height.argsort(descending=True).tolist():
        if climbs.height[i] <= math.log(ALARM * largest) or look.count + fit_cost(n) > budget:
            break
        if not any(belongs(climbs.at[i], peak) for peak in peaks):
            peaks.append(fit(look, climbs.at[i], float(climbs.height[i]), n, substream(seed, 2 + len(peaks)), largest))
    peaks.sort(key=lambda peak: -peak.mass)
    walkers = int(climbs.done[ahead:].sum())
    basin = 1 - 0.05 ** (1 / walkers) if walkers else 1.0
    return Probe(tuple(peaks), look.count, points, walkers, basin, 1 - 0.05 ** (1 / points))


def stream(look: Callable[[Tensor], Tensor], dim: int, points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scrambled Sobol points (Owen's scrambling by `seed`) and ln r there."""
    engine = SobolEngine(dim, scramble=True, seed=seed & 0x7FFFFFFF)
    parts = [engine.draw(min(4096, points - i), dtype=torch.float64) for i in range(0, points, 4096)]
    ratio = torch.cat([look(part) for part in parts])
    return torch.cat(parts), ratio


@dataclass(frozen=True)
class Climbs:
    """Where walkers ended.

    Attributes:
        at: Shape (n, d), in the order of their starts.
        height: ln r there.
        done: Which came to an end before the budget did, shape (n,).
    """

    at: Tensor
    height: Tensor
    done: Tensor


def climb(look: Look, start: Tensor, height: Tensor, steps: int, budget: int, seed: int, plateau: float) -> Climbs:
    """Walkers that climb ln r, SLOTS of them at a time; when one is done the next start takes its place.

    A walker is done after so many steps, or when it stands near or above the largest weight's logarithm, `plateau`,
    and rose by less than a factor of two in 50 steps: it has reached what the proposal knows, or a top.

    Args:
        look: ln r.
        start: Shape (n, d). height: ln r there, shape (n,).
        steps: Of one walker at most.
        budget: Evaluations at most, of all.
        seed: Of their steps.
        plateau: ln of the largest weight.
    """
    at, height, before = start.clone(), height.clone(), height.clone()
    n, dim = start.shape
    length = at.new_full((n,), 0.25 / math.sqrt(dim))
    age, done = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool)
    going = torch.arange(min(SLOTS, n, max(budget // steps, 4)))
    following, last = len(going), look.count + budget
    for step in range(1, 1 << 30):
        if not len(going) or look.count + len(going) > last:
            break
        z = normals(torch.arange(SLOTS), dim, seed, step, PROBE)[: len(going)]
        new = fold(at[going] + length[going, None] * z)
        ratio = look(new)
        up = ratio >= height[going]
        moved = up & (ratio > -math.inf)
        at[going[moved]], height[going[moved]] = new[moved], ratio[moved]
        length[going] = (length[going] * torch.where(up, 1.5, 1.5**-0.25)).clamp(1e-12, 0.5)
        age[going] += 1
        mark = age[going] % 50 == 0
        flat = mark & (height[going] > plateau - 2) & (height[going] < before[going] + math.log(2))
        before[going[mark]] = height[going[mark]]
        over = flat | (age[going] >= steps)
        if bool(over.any()):
            done[going[over]] = True
            fresh = torch.arange(following, min(following + int(over.sum()), n))
            going, following = torch.cat([going[~over], fresh]), following + len(fresh)
    return Climbs(at[:following], height[:following], done[:following])


def enough(dim: int) -> int:
    """The budget below which a look makes no sense."""
    return 3 * fit_cost(32 + 16 * dim)
