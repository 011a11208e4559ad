r"""Gauge-equivariant couplings of U(1) angles.

| non-compact projection: :math:`h(P) = 2 \arctan(e^s \tan(P/2)) + t`, mixtures of them average
| circular spline: monotone and rational quadratic on the circle, then a phase

G. Kanwar et al., arXiv:2003.06413; D. J. Rezende et al., arXiv:2002.02428
"""

import math
from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor

from hepops.flows import CircularMixture, CircularSpline, Compose, Elementwise, Flow
from hepops.flows.recompute import Recompute
from hepops.flows.sums import event_sum

from ..u1 import U1
from .gauge import GaugeCoupling, Loop, Sight, check_theory, loop_of, masks_of
from .loops import Kind
from .masks import Mask, Path, Pattern, numbered, walk


class U1Coupling(GaugeCoupling):
    r"""Links :math:`\theta_\mu(x)` of a mask move with a loop that goes through them:

    .. math:: P' = h(P;\, \text{frozen loops}), \qquad \theta' = \theta + P' - P, \qquad
        \ln J = \sum_\text{active} \ln h'(P)

    P is a plaquette of the link, or :math:`\theta + \arg \sum_k e^{i \alpha_k}`, :math:`\alpha_k` its staples. The
    network is given cos and sin of frozen loops.

    Args:
        mask: The active links.
        bijection: h, of the circle: `hepops.flows.CircularSpline` or `hepops.flows.CircularMixture`.
        loop: What moves, "plaquette" or "staples".
        **sight: radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.

    Differentiable as often as h is. Deterministic: sums over links are in double and in one order.

    Raises:
        ValueError: no loop near the links is frozen, or an unknown `loop`; fields of another shape.

    References:
        | G. Kanwar et al., Phys. Rev. Lett. 125 (2020) 121601, arXiv:2003.06413

    Example:
        >>> mask = hepops.lattice.flows.lines((4, 4), mu=0, offset=1)
        >>> layer = hepops.lattice.flows.U1Coupling(mask, hepops.flows.CircularSpline(4)).double()
        >>> theta, logdet = layer(hepops.lattice.U1((4, 4), 1.0).random(3, seed=1))
        >>> theta.shape, logdet.shape
        (torch.Size([3, 2, 4, 4]), torch.Size([3]))
    """

    links: Tensor
    signs: Tensor

    def __init__(self, mask: Mask, bijection: Elementwise, loop: Loop = "plaquette", **sight: Unpack[Sight]) -> None:
        super().__init__(mask, bijection.identity(), 2, loop=loop, **sight)
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
        steps = rows.index_select(0, self.links).view(*self.signs.shape[:2], rows.shape[1])
        frozen, P = (self.signs * steps).sum(0).split([self.count, self.signs.shape[1] - self.count])
        if len(self.staples) > 1:  # the phase of their sum: theta + arg sum_k e^{i alpha_k} = arg sum_k e^{i P_k}
            P = P.view(len(self.staples), len(self.active), rows.shape[1])
            P = torch.atan2(P.sin().sum(0), P.cos().sum(0))
        return frozen, P


class SplineAndTurn(CircularSpline):
    """A circular spline and a phase, of angles modulo 2 pi: the spline wraps its input, the coupling the link."""

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
    loop: Loop | Sequence[Loop] = "plaquette",
    pattern: Pattern | None = None,
    dtype: torch.dtype = torch.float64,
    recompute: Recompute = None,
    every: int | None = None,
    **sight: Unpack[Sight],
) -> Flow:
    r"""A flow of U(1) links, from uniform angles: couplings whose masks sweep over all links again and again.

    Args:
        theory: Its lattice; in two dimensions the extents are multiples of 4 (with the pattern "lines"), else even.
        layers: How many; 8 of "lines" or 2 D of "parity" change every link once.
        bijection: "spline", a circular spline and a phase (closed inverse), or "ncp", a mixture of non-compact
            projections and a phase.
        bins: Of the spline, or components of the mixture.
        loop: What moves, "plaquette" or "staples" (see :class:`GaugeCoupling`), or one of them for each sweep in turn.
        pattern: Of the masks; None is "lines" in two dimensions and "parity" in more.
        dtype: float32 or float64.
        recompute, every: What the backward keeps: see `hepops.flows.Compose`.
        **sight: radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.

    Returns:
        The flow, which begins as the identity. The weights do not know the volume: see :func:`transfer`.

    Raises:
        TypeError: another theory.
        ValueError: extents too small or not divisible for the masks, layers below 1, another name.

    References:
        | G. Kanwar et al., Phys. Rev. Lett. 125 (2020) 121601, arXiv:2003.06413
        | D. J. Rezende et al., arXiv:2002.02428

    Example:
        >>> flow = hepops.lattice.flows.u1_coupling(hepops.lattice.U1((8, 8), beta=2.0), layers=8)
        >>> theta, log_q = flow.sample_and_log_prob(3, seed=1)
        >>> theta.shape, log_q.shape
        (torch.Size([3, 2, 8, 8]), torch.Size([3]))
    """
    check_theory("u1_coupling", theory, U1)
    masks = masks_of("u1_coupling", theory, layers, pattern)
    if bijection not in ("spline", "ncp"):
        raise ValueError(f"u1_coupling: bijection must be 'spline' or 'ncp', got {bijection!r}")
    h = SplineAndTurn(bins) if bijection == "spline" else CircularMixture(bins, weights=True)
    loops = [loop_of(loop, k, len(masks)) for k in range(layers)]
    stack = [U1Coupling(masks[k % len(masks)], h, loop=name, **sight).to(dtype) for k, name in enumerate(loops)]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
