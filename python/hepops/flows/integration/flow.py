r"""A spline-coupling flow on the latent cube of a map: what a map per axis cannot say, a network does.

x = map(y), y = flow(z), z uniform on the cube, so that :math:`q(x) = |\partial z/\partial y| |\partial y/\partial x|`.
The flow begins at the identity: as the map itself. Networks compute in float32, splines and maps in float64.

References:
    T. Muller et al., Neural importance sampling, ACM Trans. Graph. 38 (2019) 145, arXiv 1808.03856. C. Gao et al.,
    i-flow, Mach. Learn. Sci. Tech. 1 (2020) 045023, arXiv 2001.05486. T. Heimel et al., MadNIS, SciPost Phys. 15
    (2023) 141, arXiv 2212.06172. C. Durkan et al., Neural spline flows, arXiv 1906.04032.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hepops.flows.coupling import Coupling
from hepops.flows.elementwise import Spline
from hepops.flows.networks import MLP

from .pool import Pool
from .proposal import Proposal, build, describe, uniforms
from .vegas import VegasMap


class Single(nn.Module):
    """A network in float32 for coordinates of any dtype in [0, 1], which it sees as [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x.to(torch.float32).mul(2).sub(1))

    @property
    def last(self) -> nn.Linear:
        return self.network.last  # type: ignore[return-value]


def masks(dim: int, layers: int) -> list[Tensor]:
    """Which coordinates a layer changes: by the bits of their index, each bit both ways, so that any two coordinates
    are told apart within 2 ceil(log2 d) layers (i-flow)."""
    bits = max(1, math.ceil(math.log2(dim)))
    index = torch.arange(dim)
    return [((index >> (layer // 2 % bits)) & 1) != layer % 2 for layer in range(layers)]


class FlowProposal(Proposal):
    """The flow on a map.

    Args:
        map: The map below, without strata.
        layers: Couplings; 2 ceil(log2 d) where None.
        bins: Of each spline.
        hidden: Widths of the networks.
    """

    def __init__(
        self, map: VegasMap, layers: int | None = None, bins: int = 16, hidden: Sequence[int] = (64, 64)
    ) -> None:
        if map.strata != 1:
            raise ValueError(f"FlowProposal: the map must have no strata, got {map.strata}")
        if map.dim < 2:
            raise ValueError("FlowProposal: one coordinate leaves nothing to condition on; use the map")
        super().__init__(map.dim)
        self.layers = 2 * max(1, math.ceil(math.log2(map.dim))) if layers is None else layers
        self.bins, self.hidden = bins, tuple(hidden)
        self.map = map
        self.couplings = nn.ModuleList()
        for mask in masks(map.dim, self.layers):
            bijection, active = Spline(bins, tails=None), int(mask.sum())
            network = MLP(map.dim - active, active * bijection.size, self.hidden).to(torch.float32)
            self.couplings.append(Coupling(mask, bijection, Single(network)))

    def to_z(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y -> z and ln |dz/dy|."""
        total = y.new_zeros(len(y), dtype=torch.float64)
        for coupling in self.couplings:
            y, logdet = coupling(y)
            y, total = y.clamp(0, 1), total + logdet  # rounding must not leave the next one's domain
        return y, total

    def to_y(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z -> y and ln |dy/dz|: the inverse of `to_z`."""
        total = z.new_zeros(len(z), dtype=torch.float64)
        for coupling in reversed(self.couplings):
            z, logdet = coupling.inverse(z)  # type: ignore[operator]
            z, total = z.clamp(0, 1), total + logdet
        return z, total

    def config(self) -> dict[str, Any]:
        return {"map": describe(self.map), "layers": self.layers, "bins": self.bins, "hidden": list(self.hidden)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FlowProposal":
        return cls(**{**config, "map": build(config["map"])})

    def cost(self) -> float:
        flops = 2 * sum(p.numel() for p in self.couplings.parameters() if p.dim() == 2)
        return self.map.cost() + flops / 4e10 + 1e-7 * self.layers + 5e-8 * self.dim * self.layers / 2

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        y, logdet_flow = self.to_y(uniforms(numbers, self.dim, seed, step))
        x, logdet_map = self.map.to_x(y)
        return x, -logdet_flow - logdet_map

    def density(self, x: Tensor) -> Tensor:
        y, logdet = self.map.to_y(x)
        return self.to_z(y)[1] + logdet


def train(
    proposal: FlowProposal,
    pool: Pool,
    *,
    steps: int,
    seed: int,
    uniform_share: float,
    rate: float = 1e-2,
    batch: int = 2048,
    variance: float = 0.3,
) -> list[float]:
    r"""Trains the flow on the samples that are there, no evaluation of f: first likelihood, then variance.

    Batches are points in the proportions of their weights w; the losses are :math:`-\langle \ln q \rangle_w` and
    :math:`\ln \langle f/q \rangle_w`, the logarithm of the second moment :math:`\int f^2/q`, q with its uniform share.
    Adam, one cycle of the rate down by a cosine.

    Args:
        proposal: Trained in place.
        pool: Samples.
        steps: Of Adam.
        seed: Of the batches.
        uniform_share: Of the mixture that the flow will be part of.
        rate: At the start.
        batch: Points per step.
        variance: The part of the steps, the last ones, that minimise the variance.

    Returns:
        The loss at each step.
    """
    log_w = pool.log_weights()
    with torch.no_grad():
        y, logdet = proposal.map.to_y(pool.x)
        y = y.to(torch.float32)
        log_f = pool.log_f - torch.logsumexp(log_w, 0)
    optimiser = torch.optim.Adam(proposal.couplings.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed >> 1)
    edges = (log_w - log_w.max()).exp().cumsum(0)
    losses: list[float] = []
    for step in range(steps):
        places = torch.rand(batch, dtype=torch.float64, generator=generator) * edges[-1]
        rows = torch.searchsorted(edges, places, right=True).clamp(max=len(edges) - 1)
        log_q = proposal.to_z(y[rows])[1] + logdet[rows]
        if step < (1 - variance) * steps:
            loss = -log_q.mean()
        else:
            log_q = torch.logaddexp(log_q + math.log1p(-uniform_share), log_q.new_tensor(math.log(uniform_share)))
            loss = torch.logsumexp(log_f[rows] - log_q, 0) - math.log(batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(proposal.couplings.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses
