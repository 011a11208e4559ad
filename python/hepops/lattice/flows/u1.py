r"""Gauge-equivariant couplings of U(1) angles."""

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from hepops.flows import CircularMixture, CircularSpline, Compose, Elementwise, Flow
from hepops.flows.recompute import Recompute
from hepops.flows.sums import event_sum

from ..u1 import U1
from .gauge import GaugeCoupling, Sight
from .loops import Kind
from .masks import Mask, Path, Pattern, numbered, sweep, walk


class U1Coupling(GaugeCoupling):
    r"""Links :math:`\theta_\mu(x)` of a mask move with a loop that goes through them:

    .. math:: P' = h(P;\, \text{frozen loops}), \qquad \theta' = \theta + P' - P, \qquad
        \ln J = \sum_\text{active} \ln h'(P)

    P is a plaquette of the link, or :math:`\theta + \arg \sum_k e^{i \alpha_k}`, :math:`\alpha_k` its staples. The
    network is given cos and sin of frozen loops.

    Args:
        mask: The active links.
        bijection: h, of the circle: `hepops.flows.CircularSpline` or `hepops.flows.CircularMixture`.
        **sight: loop, radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.
    """

    links: Tensor
    signs: Tensor

    def __init__(self, mask: Mask, bijection: Elementwise, **sight: Unpack[Sight]) -> None:
        super().__init__(mask, bijection.identity(), 2, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape])
        self.event_dim, self.bijection = len(self.event_shape), bijection
        through = [self._loop((mask.mu + 1, *path)) for path in self.staples]
        links, signs = _table([*self.kinds, *through])
        self.count = links.shape[1] - len(self.active) * len(through)
        self._look(self.index, 2, self.count)
        self._keep("links", links.flatten())
        self._keep("signs", signs.to(torch.get_default_dtype())[..., None])

    def _loop(self, path: Path) -> Kind:
        shape, sites = self.mask.shape, self.mask.sites
        return Kind(walk(shape, sites, path), path, numbered(shape, 0, sites))

    def _change(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        rows = x.flatten(1).t().contiguous()  # links, batch
        frozen, P = self._angles(rows)
        raw = self._raw(torch.cat([frozen.cos(), frozen.sin()])).movedim(0, -1)
        image, logdet = (self.bijection.inverse if inverse else self.bijection.forward)(P, raw)
        moved = rows.index_select(0, self.active) + (image - P)
        moved = moved - (moved.detach() / (2 * math.pi)).round_().mul_(2 * math.pi)
        return rows.index_copy(0, self.active, moved).t().view(x.shape), event_sum(logdet.t(), 1)

    def _angles(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of the frozen loops, (loops, batch), and of the loops that move, (n, batch)."""
        steps = rows.index_select(0, self.links).view(*self.signs.shape[:2], -1)
        frozen, P = (self.signs * steps).sum(0).split([self.count, self.signs.shape[1] - self.count])
        if len(self.staples) > 1:  # the phase of their sum: theta + arg sum_k e^{i alpha_k} = arg sum_k e^{i P_k}
            P = P.view(len(self.staples), len(self.active), -1)
            P = torch.atan2(P.sin().sum(0), P.cos().sum(0))
        return frozen, P


class SplineAndTurn(CircularSpline):
    """A circular spline and a phase, of angles modulo 2 pi: the spline wraps what it is given, the coupling the link."""

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw, phase = raw.split([self.size - 1, 1], -1)
        y, logdet = self.spline.forward(x, raw)
        return y + phase[..., 0], logdet

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raw, phase = raw.split([self.size - 1, 1], -1)
        return self.spline.inverse(y - phase[..., 0], raw)


def _table(kinds: list[Kind]) -> tuple[Tensor, Tensor]:
    """Links and signs of all loops, (steps, loops): the shorter ones go along one link and back."""
    longest = max(len(kind.path) for kind in kinds)
    links, signs = [], []
    for kind in kinds:
        spare = longest - len(kind.path)
        links.append(torch.cat([kind.links, kind.links[:, :1].expand(-1, spare)], 1).t())
        sign = [1 if step > 0 else -1 for step in kind.path] + [1, -1] * (spare // 2)
        signs.append(torch.tensor(sign)[:, None].expand(-1, len(kind.links)))
    return torch.cat(links, 1), torch.cat(signs, 1)


def u1_coupling(
    theory: U1,
    layers: int = 16,
    bijection: Literal["spline", "ncp"] = "spline",
    *,
    bins: int = 8,
    pattern: Pattern = "lines",
    dtype: torch.dtype = torch.float64,
    recompute: Recompute = None,
    every: int | None = None,
    **sight: Unpack[Sight],
) -> Flow:
    """A flow of U(1) links."""
    masks = sweep(theory.shape, pattern)
    h = SplineAndTurn(bins) if bijection == "spline" else CircularMixture(bins, weights=True)
    stack = [U1Coupling(masks[k % len(masks)], h, **sight).to(dtype) for k in range(layers)]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
