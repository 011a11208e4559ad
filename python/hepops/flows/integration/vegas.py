r"""VEGAS+: a map per axis that flattens f, and shares of samples per hypercube of the flattened cube.

The map takes y in the unit cube to x axis by axis: axis a has N increments between edges :math:`e_{a0} = 0 < e_{a1}
< \dots < e_{aN} = 1`, and :math:`x_a = e_{ai} + (N y_a - i)(e_{a,i+1} - e_{ai})`, :math:`i = \lfloor N y_a \rfloor`.
Then

.. math:: q(x) = p_h M \prod_a \frac{1}{N (e_{a,i+1} - e_{ai})},

where y lies in hypercube h of M equal ones and :math:`p_h` is the share of samples that it is given. The density is
computed from the bin of x itself, by the map's own exact inverse.

References:
    G.P. Lepage, A new algorithm for adaptive multidimensional integration, J. Comput. Phys. 27 (1978) 192;
    Adaptive multidimensional integration: VEGAS enhanced, J. Comput. Phys. 439 (2021) 110386, arXiv 2009.05112.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepops.flows.random import PICK

from .proposal import Proposal, uniforms


class Stratified(NamedTuple):
    """Samples of which each hypercube has its fixed number: what `VegasMap.stratified` gives.

    Attributes:
        x: Shape (n, d).
        log_q: Shape (n,): the mean of f exp(-log_q) over all samples of the total is the integral.
        stratum: Shape (n,), int64: the hypercube.
    """

    x: Tensor
    log_q: Tensor
    stratum: Tensor


class VegasMap(Proposal):
    """The VEGAS+ density: a map per axis, and a share per hypercube.

    Args:
        dim: d.
        increments: N, per axis.
        strata: Hypercubes along each axis; 1 for the map alone. Their number is strata^d.
    """

    edges: Tensor
    shares: Tensor
    spread: Tensor

    def __init__(self, dim: int, increments: int = 256, strata: int = 1) -> None:
        super().__init__(dim)
        if increments < 1 or strata < 1:
            raise ValueError(f"VegasMap: increments and strata must be positive, got {increments} and {strata}")
        self.increments, self.strata = increments, strata
        cubes = strata**dim
        self.register_buffer(
            "edges", torch.linspace(0, 1, increments + 1, dtype=torch.float64).repeat(dim, 1).contiguous()
        )
        self.register_buffer("shares", torch.full((cubes,), 1 / cubes, dtype=torch.float64))
        self.register_buffer("spread", torch.full((cubes,), 1 / cubes, dtype=torch.float64))

    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "increments": self.increments, "strata": self.strata}

    # ---- the map

    def to_x(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y, shape (n, d) -> x and ln |dx/dy|, shape (n,)."""
        scaled = y * self.increments
        i = scaled.long().clamp(0, self.increments - 1)
        low, high = (self.edges.gather(1, k.T).T for k in (i, i + 1))
        width = high - low
        return torch.minimum(low + (scaled - i) * width, high), (width * self.increments).log().sum(1)

    def to_y(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x -> y and ln |dy/dx|: the inverse of `to_x`."""
        i = torch.searchsorted(self.edges, x.T.contiguous(), right=True).T.sub(1).clamp(0, self.increments - 1)
        low, high = (self.edges.gather(1, k.T).T for k in (i, i + 1))
        width = high - low
        y = ((i + (x - low) / width) / self.increments).clamp(0, 1)
        return y, -(width * self.increments).log().sum(1)

    def cube(self, y: Tensor) -> Tensor:
        """The hypercube of y, shape (n,), int64: axis 0 slowest."""
        cells = (y * self.strata).long().clamp(0, self.strata - 1)
        h = cells[:, 0]
        for a in range(1, self.dim):
            h = h * self.strata + cells[:, a]
        return h

    def _corner(self, h: Tensor) -> Tensor:
        cells = []
        for _ in range(self.dim):
            cells.append(h % self.strata)
            h = h // self.strata
        return torch.stack(cells[::-1], 1)

    # ---- the density

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        y = uniforms(numbers, self.dim, seed, step)
        log_q = self._place.new_zeros(len(numbers))
        if self.strata > 1:
            edges = self.shares.cumsum(0)
            pick = uniforms(numbers, 1, seed, step, PICK)[:, 0] * edges[-1]
            h = torch.searchsorted(edges, pick, right=True).clamp(max=len(edges) - 1)
            # rounding may put y into the next cube: where it is decides
            y = (self._corner(h) + y) / self.strata
            log_q = (self.shares[self.cube(y)] * len(self.shares)).log()
        x, logdet = self.to_x(y)
        return x, log_q - logdet

    def density(self, x: Tensor) -> Tensor:
        y, logdet = self.to_y(x)
        if self.strata == 1:
            return logdet
        return logdet + (self.shares[self.cube(y)] * len(self.shares)).log()

    def cost(self) -> float:
        return 1e-7 + 3e-8 * self.dim + (1e-7 if self.strata > 1 else 0.0)

    # ---- VEGAS+'s stratified samples

    def allocation(self, total: int) -> Tensor:
        """How many of `total` samples each hypercube has, at least 2, int64: proportional to `spread` beyond that."""
        cubes = len(self.spread)
        if total < 2 * cubes:
            raise ValueError(f"VegasMap: {cubes} hypercubes need at least {2 * cubes} samples, got {total}")
        edges = (self.spread / self.spread.sum() * (total - 2 * cubes)).cumsum(0).round().long()
        edges[-1] = total - 2 * cubes
        return 2 + edges.diff(prepend=edges.new_zeros(1))

    @torch.no_grad()
    def stratified(self, total: int, seed: int, first: int = 0, n: int | None = None, step: int = 0) -> Stratified:
        """Samples first ... first + n - 1 of `total`, in the order of the hypercubes; n None: all that are left."""
        n = total - first if n is None else n
        counts = self.allocation(total)
        numbers = torch.arange(first, first + n, device=counts.device)
        h = torch.searchsorted(counts.cumsum(0), numbers, right=True)
        y = (self._corner(h) + uniforms(numbers, self.dim, seed, step)) / self.strata
        x, logdet = self.to_x(y)
        return Stratified(x, (counts[h].to(torch.float64) / total * len(counts)).log() - logdet, h)

    def stratified_estimate(self, weights: Tensor, stratum: Tensor) -> tuple[float, float]:
        r"""The integral and its standard deviation from all samples of a total: weights f exp(-log_q).

        With :math:`n_h` samples in hypercube h and :math:`s_h^2` the variance of their weights,
        :math:`\sigma^2 = \sum_h n_h s_h^2 / n^2`.
        """
        counts = torch.bincount(stratum, minlength=len(self.shares))
        zeros = weights.new_zeros(len(self.shares))
        mean = zeros.index_add(0, stratum, weights) / counts
        variance = zeros.index_add(0, stratum, (weights - mean[stratum]).square()) / (counts - 1)
        n = len(weights)
        return weights.mean().item(), math.sqrt((counts * variance).sum().item()) / n

    # ---- learning

    @torch.no_grad()
    def refine(self, x: Tensor, log_c: Tensor, alpha: float = 0.75) -> None:
        r"""Moves the edges: increments that add much to the variance shrink.

        Increment i of an axis adds :math:`d_i = \sum_{x \in i} c / q_{map}` to the second moment; smoothed over
        neighbours, normalised and damped to :math:`[(1 - d_i)/\ln(1/d_i)]^\alpha`, it is shared equally among the new
        increments (2009.05112, eq. 17-22).

        Args:
            x: Points, of any density p.
            log_c: ln c = ln(f^2 / p) of each, up to a constant.
            alpha: Damping: 0 changes nothing.
        """
        n = self.increments
        if not len(x):
            return
        y, logdet = self.to_y(x)
        w = (log_c - logdet).sub_((log_c - logdet).max()).exp()
        i = (y * n).long().clamp(0, n - 1)
        for a in range(self.dim):
            d = w.new_zeros(n).index_add(0, i[:, a], w)
            edge = d[:1] * 7 + d[1:2], d[-2:-1] + d[-1:] * 7
            inner = d[:-2] + 6 * d[1:-1] + d[2:]
            d = torch.cat([edge[0], inner, edge[1]]) / 8 if n > 2 else d
            d = (d / d.sum()).clamp(1e-30, 1 - 1e-12)
            d = ((1 - d) / -d.log()) ** alpha
            edges = torch.cat([d.new_zeros(1), d.cumsum(0)])
            target = torch.linspace(0, 1, n + 1, dtype=torch.float64, device=d.device)[1:-1] * edges[-1]
            k = torch.searchsorted(edges, target, right=True).sub(1).clamp(0, n - 1)
            share = (target - edges[k]) / d[k]
            old = self.edges[a]
            new = old[k] + share * (old[k + 1] - old[k])
            # no increment may vanish: a spike would leave a density of infinity
            widths = torch.cat([old[:1], new, old[-1:]]).diff().clamp(min=1e-14)
            self.edges[a, 1:] = widths.cumsum(0) / widths.sum()
            self.edges[a, -1] = 1.0

    @torch.no_grad()
    def stratify(self, x: Tensor, log_f: Tensor, log_p: Tensor, beta: float = 0.75, floor: float = 0.1) -> None:
        r"""Gives hypercubes their shares and spreads: the rms of w = f/q_map in each, and its sd to the power beta.

        Independent samples have the least variance at shares of the root mean square of the weights, stratified ones at
        shares of their standard deviation (damped by beta against its noise, 2009.05112, eq. 35).

        Args:
            x: Points, of any density p, those of f = 0 left out.
            log_f: ln f of each, up to a constant.
            log_p: ln n p: the expected number of points per volume, those of f = 0 among them.
            beta: Damping.
            floor: The part of the shares that is spread equally.
        """
        cubes = len(self.shares)
        y, logdet = self.to_y(x)
        h = self.cube(y)
        log_f = log_f - log_f.max()
        # over a hypercube of y: int w dy = int f dx, int w^2 dy = int f^2/q_map dx; times their number, the means
        zeros = log_f.new_zeros(cubes)
        first = zeros.index_add(0, h, (log_f - log_p).exp()) * cubes
        second = zeros.index_add(0, h, (2 * log_f - logdet - log_p).exp()) * cubes
        for name, value in (("shares", second.sqrt()), ("spread", (second - first**2).clamp(min=0) ** (beta / 2))):
            total = value.sum()
            if total > 0 and bool(total.isfinite()):
                getattr(self, name).copy_((1 - floor) * value / total + floor / cubes)
