r"""Unweighted events: accept-reject against a quantile of the weights.

Candidate i is kept with probability :math:`\min(1, |w_i| / w_q)`, where :math:`w_q` is the quantile of |w| of a pilot
stream. A kept candidate has weight :math:`\pm 1`, or :math:`w_i / w_q` where that is larger (overweight): the sums of
the weights are those of f whatever quantile was chosen, :math:`I = w_q \sum_{kept} / \text{candidates}`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hepops.flows.random import PICK

from .integrand import Integrand
from .plan import ESTIMATE, PILOT, UNWEIGHT
from .proposal import BLOCK, Proposal, substream, uniforms

TRIED = 65536  # candidates that tell the quantile


@dataclass(frozen=True)
class Events:
    """Unweighted events.

    Attributes:
        x: Shape (n, d), as f is given them.
        weights: Shape (n,): +1 or -1 by the sign of f, beyond where overweight.
        threshold: w_q.
        quantile: Of the pilot's non-zero |w|.
        efficiency: Kept over candidates.
        overweight: The share of the events whose |weight| is above 1.
        overweight_excess: The share of the sum of |weights| that lies above 1.
        candidates: Drawn until the last event.
        neval: Points on which f was called, the pilot's included.
        next: The candidate to go on from (`first=`) for events that follow these.
    """

    x: Tensor
    weights: Tensor
    threshold: float
    quantile: float
    efficiency: float
    overweight: float
    overweight_excess: float
    candidates: int
    neval: int
    next: int

    def __str__(self) -> str:
        return (
            f"{len(self.x)} events of {self.candidates} candidates: efficiency {self.efficiency:.3f} against the "
            f"{self.quantile} quantile of the weights; {self.overweight:.2g} of the events are overweight, and "
            f"{self.overweight_excess:.2g} of the sum of weights lies above 1"
        )


def threshold(size: Tensor, quantile: float) -> float:
    """The quantile of the sizes above zero."""
    positive = size[size > 0].sort().values
    if not len(positive):
        raise ValueError("sample_unweighted: every weight of the pilot is zero")
    return float(positive[min(math.ceil(quantile * len(positive)), len(positive)) - 1])


def events(
    integrand: Integrand, proposal: Proposal, n: int, seed: int, quantile: float, first: int, most: int
) -> Events:
    """n events from candidate `first` on, at most `most` candidates."""

    def stream(number: int) -> Callable[[int, int], tuple[Tensor, Tensor]]:
        def weigh(start: int, count: int) -> tuple[Tensor, Tensor]:
            u, log_q = proposal.sample(count, substream(seed, number), start)
            inside = log_q.isfinite()
            values = integrand.everywhere(u[inside], f"candidates {start} ... {start + count - 1}").nan_to_num(0.0)
            if not integrand.scalar:
                raise ValueError("sample_unweighted: f must be scalar; a vector has no single weight")
            w = u.new_zeros(count)
            w[inside] = values[:, 0] / log_q[inside].exp()
            return integrand.domain(u.clamp(0, 1))[0], w

        return weigh

    level = threshold(stream(PILOT)(0, TRIED)[1].abs(), quantile)
    x, w, after = _collect(stream(ESTIMATE), n, substream(seed, UNWEIGHT), level, first, most)
    size, tried = w.abs(), after - first
    excess = float((size - 1).sum() / size.sum())
    over = float((size > 1).sum()) / n
    return Events(x, w, level, quantile, n / tried, over, excess, tried, integrand.count, after)


def _collect(
    weigh: Callable[[int, int], tuple[Tensor, Tensor]], n: int, seed: int, level: float, first: int, most: int
) -> tuple[Tensor, Tensor, int]:
    """The first n kept candidates from number `first` on: x, weights, and the number after the last.

    Args:
        weigh: (first, n) -> x and signed weights of these candidates.
        n: How many events.
        seed: Of the numbers that decide.
        level: w_q.
        first: The first candidate.
        most: Candidates at most.
    """
    points, weights, have, at = [], [], 0, first
    while have < n:
        if at - first >= most:
            raise RuntimeError(f"sample_unweighted: {have} of {n} events after {most} candidates; see max_candidates")
        count = 16 * BLOCK - at % BLOCK
        x, w = weigh(at, count)
        chance = uniforms(torch.arange(at, at + count), 1, seed, 0, PICK)[:, 0]
        kept = (chance < w.abs() / level).nonzero()[: n - have, 0]
        points.append(x[kept])
        weights.append((w[kept] / level).sign() * (w[kept] / level).abs().clamp(min=1))
        have += len(kept)
        at = at + (int(kept[-1]) + 1 if have == n else count)
    return torch.cat(points), torch.cat(weights), at
