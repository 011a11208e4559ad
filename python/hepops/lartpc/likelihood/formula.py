r"""The probability of what one LArPix chip measured, given its current: the law in plain torch, an oracle.

Letters, in ticks: s a restart, j a look, k a measured trigger, h = hold. q(s, t) is the noise-free charge of ticks
s ... t since a restart at s, r ~ N(0, sigma_r) the charge of the reset, N the number of ticks of the window:

    trigger    h_j(r) = Phi((q(s, j) + r - threshold) / sigma_l),   sigma_l^2 = sigma_u^2 + sigma_d^2
    accepted   A_j(r) = h_{j+h}(r), of the reading after tick j + h
    reading    O(r) = int_lo^hi N(Q; q(s, k + h) + r, sigma_u) Phi((Q - threshold) / sigma_d) dQ
    restart    at j + h + reset + 1 = j + d

A measured hit fixes the chip's state, so that a row is a product over intervals: from the restart after a hit to the
next hit, or to the end. V[s] is the probability of the rest of the interval after a silent restart at s:

    U_j(r) = h_j ((1 - A_j) V[j + d] + [j = k] O) + (1 - h_j) U_{j+1}         V[s] = E_r[U_s]

with V[s > k] = 0 before a hit, V[s >= N] = 1 and U = 1 at the end where no hit follows. That sums silent resets to any
depth. See docs/likelihood.md.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtr

HALF_WIDTH = 8.0  # of the grid in r / sigma_r: beyond, 1e-15 of a normal distribution
SPACING = 0.1  # of the grid
SEARCH = torch.arange(-60.0, 60.25, 0.5, dtype=torch.float64)  # where a hit's integrand is looked for
POINTS, WEIGHTS = (  # Gauss-Legendre on [-1, 1], 16 points
    torch.tensor(x, dtype=torch.float64)
    for x in zip(
        *[
            (sign * x, w)
            for x, w in (
                (0.0950125098376374402, 0.1894506104550684963),
                (0.2816035507792589132, 0.1826034150449235889),
                (0.4580167776572273863, 0.1691565193950025382),
                (0.6178762444026437484, 0.1495959888165767321),
                (0.7554044083550030339, 0.1246289712555338720),
                (0.8656312023878317439, 0.0951585116824927848),
                (0.9445750230732325761, 0.0622535239386478929),
                (0.9894009349916499326, 0.0271524594117540949),
            )
            for sign in (-1, 1)
        ],
        strict=True,
    )
)


@dataclass(frozen=True)
class Clock:
    """The chip's times, in ticks of `tick` us."""

    tick: float = 0.1  # [us]
    hold: int = 18  # from the trigger to the end of the integration
    reset: int = 1  # then charge is lost for so long
    busy: int = 9  # then, after a hit, no trigger for so long
    rise_time: float = 0.0  # of the buffer filter [us]; 0: none

    @property
    def keep(self) -> float:
        """What waits in the buffer from one tick to the next."""
        return math.exp(-self.tick / self.rise_time) if self.rise_time > 0 else 0.0

    @property
    def restart(self) -> int:
        """From a trigger's tick to the first of the next integration."""
        return self.hold + self.reset + 1

    @property
    def dead(self) -> int:
        """From a hit's tick to the first at which the next is possible."""
        return self.restart + max(self.busy - 1, 0)


def formula(
    current: Tensor,
    ticks: list[int],
    edges: Tensor,
    threshold: Tensor,
    noise: Tensor,
    clock: Clock = Clock(),
) -> Tensor:
    r"""log P of each interval of one row, exact but for a quadrature in r (1e-10) and one in Q.

    Args:
        current: Of the ticks of the row, float64 (N) [e/us].
        ticks: Of the measured triggers, in order, counted from the row's first.
        edges: Of the charge that each reading may have had, (2, num_hits) [e], -inf and inf allowed; where both are
            equal the reading is known exactly and its probability is a density [1/e].
        threshold: One number, or one for each interval, (num_hits + 1) [e].
        noise: Standard deviations of reset, uncorrelated and discriminator noise, (3) or (num_hits + 1, 3) [e].
        clock: The chip's times.

    Returns:
        float64 (num_hits + 1): one interval for each hit, and the last, without one.

    Differentiable any number of times (autograd) in everything but the ticks.

    Raises:
        ValueError: ticks out of order or nearer than the dead time.

    Example:
        >>> current = torch.zeros(60, dtype=torch.float64)
        >>> current[10:30] = 5000.0
        >>> noise = torch.tensor([900.0, 500.0, 650.0], dtype=torch.float64)
        >>> edges = torch.tensor([[9500.0], [10500.0]], dtype=torch.float64)
        >>> formula(current, [19], edges, torch.tensor(5000.0), noise).exp()
        tensor([0.0918, 1.0000], dtype=torch.float64)
    """
    bar, sigma = threshold.expand(len(ticks) + 1), noise.expand(len(ticks) + 1, 3)
    result, start, first = [], 0, 0
    for hit, k in enumerate(ticks):
        due = hit > 0 and clock.busy > 0 and k == first  # the look at the end of the busy time happens in any case
        if k < first or (k >= len(current) and not due):
            raise ValueError(f"formula: a trigger at tick {k} is impossible, the chip looks from {first} on")
        result.append(_Interval(current, start, first, k, clock, bar[hit], sigma[hit]).hit(edges[:, hit]))
        start, first = k + clock.restart, k + clock.dead
    last = max(len(current), first + 1 if ticks and clock.busy else 0) - 1
    result.append(_Interval(current, start, first, last, clock, bar[-1], sigma[-1]).silence(len(current)))
    return torch.stack(result)


class _Interval:
    """Looks from `first` to `last`, after a restart at `start`; silent restarts look at once."""

    def __init__(
        self, current: Tensor, start: int, first: int, last: int, clock: Clock, threshold: Tensor, noise: Tensor
    ):
        self.start, self.first, self.last, self.clock = start, first, last, clock
        self.threshold, (self.reset, self.uncorrelated, self.discriminator) = threshold, noise
        self.look = (self.uncorrelated**2 + self.discriminator**2).sqrt()
        ticks = max(last + clock.hold + 1 - start, 0)
        charge = current[start : start + ticks] * clock.tick
        charge = torch.cat([charge, charge.new_zeros(ticks - len(charge))])
        self.sum = torch.cat([charge.new_zeros(1), charge.cumsum(0)])  # of what came before each tick
        waits = [charge.new_zeros(())]  # in the buffer, as each tick begins
        for x in charge:
            waits.append(clock.keep * (waits[-1] + x))
        self.waits = torch.stack(waits)

    def charges(self, s: Tensor) -> Tensor:
        """q(s, t) for all t from `start` on, (S, T); nonsense for t < s."""
        at, t = s - self.start, torch.arange(len(self.sum) - 1)
        kept = self.clock.keep ** (t + 1 - at[:, None]).clamp(min=0).double() if self.clock.keep > 0 else 0.0
        return self.sum[1:] - self.waits[1:] - self.sum[at, None] + kept * self.waits[at, None]

    def looks(self, s: Tensor) -> Tensor:
        """Whether it looks at the end of each tick, (S, looks)."""
        t = torch.arange(self.start, self.last + 1)
        begin = torch.where(s == self.start, self.first, s)
        return t >= begin[:, None]

    def stays(self, x: Tensor, looks: Tensor) -> Tensor:
        """log of the probability of no trigger before each look, and at the end, (S, looks + 1, nodes)."""
        stay = torch.where(looks[..., None], log_ndtr(-x[:, : looks.shape[1]]), 0.0)
        return torch.cat([torch.zeros_like(stay[:, :1]), stay.cumsum(1)], 1)

    def scaled(self, q: Tensor, z: Tensor) -> Tensor:
        """(q + r - threshold) / sigma_l at r = z sigma_r, (S, T, nodes)."""
        return (q[..., None] + self.reset * z[:, None] - self.threshold) / self.look

    def values(self, ends: int, hit: Tensor | None) -> Tensor:
        """log V[start], from the last block of restarts to the first; V = 1 at and after `ends`, without a hit."""
        step = self.clock.restart
        n = max(self.last + 1 - self.start, 1)
        after = 0.0 if hit is None else -torch.inf
        log_v = [self.sum.new_full((step,), after)]  # of the restarts after the last one
        for low in reversed(range(0, n, step)):
            s = torch.arange(low, min(low + step, n)) + self.start
            known = torch.cat(log_v[::-1])  # from low + step on
            v = self.block(s, known, hit)
            if hit is None:
                v = torch.where((s >= ends) & (s > self.start), 0.0, v)
            full = torch.cat([v, v.new_full((step - len(v),), after)])
            log_v.append(full)
        return log_v[-1][0]

    def block(self, s: Tensor, known: Tensor, hit: Tensor | None) -> Tensor:
        """log V of the restarts s, from those that are a step or more later."""
        looks = self.looks(s)
        n, hold = looks.shape[1], self.clock.hold
        q = self.charges(s)
        z = torch.arange(-HALF_WIDTH, HALF_WIDTH + SPACING / 2, SPACING, dtype=q.dtype).expand(len(s), -1)
        w = (-0.5 * z[0] ** 2).exp()
        w = w / w.sum()
        x = self.scaled(q, z)
        stays = self.stays(x, looks)
        silent = stays[:, :-1].exp() * ndtr(x[:, :n]) * ndtr(-x[:, hold : hold + n]) @ w
        silent = torch.where(looks, silent, 0.0)
        # V[j + step] for the looks j = start ... last; `known` begins at restart s[0] + step
        ahead = int(s[0]) - self.start
        nearer = known.new_zeros(ahead)
        following = torch.cat([nearer, known])[:n]
        following = torch.cat([following, known.new_full((n - len(following),), 0.0 if hit is None else -torch.inf)])
        looked = looks & (torch.arange(n) >= ahead)
        terms = torch.where(looked & (following > -torch.inf), silent, 0.0)
        if hit is None:
            end: Tensor = stays[:, -1].exp() @ w
            return (end + (terms * following.exp()).sum(1)).log()
        terms = torch.where(torch.arange(n) < n - 1, terms, 0.0)
        log_hit = self.outcome(s, q, looks, hit)
        top = torch.maximum(log_hit, torch.where(terms > 0, following, -torch.inf).amax(1)).detach()
        top = torch.where(top > -torch.inf, top, 0.0)
        rest = torch.where(terms > 0, (following - top[:, None]).exp(), 0.0)
        return ((log_hit - top).exp() + (terms * rest).sum(1)).log() + top

    def outcome(self, s: Tensor, q: Tensor, looks: Tensor, edges: Tensor) -> Tensor:
        """log of the probability of the measured trigger and reading, without a silent reset before."""
        if not bool(looks[:, -1].any()):
            return q.new_full((len(s),), -torch.inf)

        def integrand(z: Tensor) -> Tensor:
            x = self.scaled(q, z)
            last = looks.shape[1] - 1
            log = self.stays(x, looks)[:, last] + log_ndtr(x[:, last]) - 0.5 * z * z - 0.5 * math.log(2 * math.pi)
            return log + self.reading(q[:, last + self.clock.hold, None] + self.reset * z, edges)

        with torch.no_grad():
            wide = SEARCH.to(q.dtype).expand(len(s), -1)
            top = wide[0][integrand(wide).argmax(1)]
        z = top[:, None] + torch.arange(-HALF_WIDTH, HALF_WIDTH + SPACING / 2, SPACING, dtype=q.dtype)
        log = (integrand(z) + math.log(SPACING)).logsumexp(1)
        return torch.where(looks[:, -1], log, -torch.inf)

    def reading(self, mean: Tensor, edges: Tensor) -> Tensor:
        """log O: of a reading within the edges that is accepted, Gauss-Legendre in pieces of half a sigma."""
        lo, hi = edges
        sigma = self.uncorrelated
        if bool(lo == hi):
            log = -0.5 * ((lo - mean) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)
            return log + log_ndtr((lo - self.threshold) / self.discriminator)
        with torch.no_grad():  # where an edge is infinite, how far the integrand reaches
            reach = 10 * torch.maximum(sigma, self.discriminator)
            far_lo = torch.minimum(self.threshold - reach, hi - reach)
            far_hi = torch.maximum(torch.maximum(lo, self.threshold), mean.max()) + reach
        lo, hi = (e if bool(e.isfinite()) else f for e, f in ((lo, far_lo), (hi, far_hi)))
        pieces = min(math.ceil(float((hi - lo).detach()) / float(sigma.detach()) * 2), 1000)
        width = (hi - lo) / pieces
        centre = lo + width * (torch.arange(pieces, dtype=mean.dtype) + 0.5)
        Q = (centre[:, None] + 0.5 * width * POINTS).reshape(-1)
        log_weight = (0.5 * width * WEIGHTS).log().repeat(pieces) - sigma.log() - 0.5 * math.log(2 * math.pi)
        log_weight = log_weight + log_ndtr((Q - self.threshold) / self.discriminator)
        return (log_weight - 0.5 * ((Q - mean[..., None]) / sigma) ** 2).logsumexp(-1)

    def hit(self, edges: Tensor) -> Tensor:
        return self.values(self.last + 1, edges)

    def silence(self, ends: int) -> Tensor:
        if self.last < self.first:
            return self.sum.new_zeros(())
        return self.values(ends, None)
