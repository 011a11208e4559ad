r"""Gauge-equivariant couplings of U(1) angles."""

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from hepops.flows import CircularMixture, CircularSpline, Compose, Elementwise, Flow
from hepops.flows.recompute import Recompute

from ..u1 import U1
from .gauge import GaugeCoupling, Sight, Signs
from .masks import Mask, Pattern, sweep


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

    def __init__(self, mask: Mask, bijection: Elementwise, **sight: Unpack[Sight]) -> None:
        super().__init__(mask, bijection.identity(), 2, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape])
        self.event_dim, self.bijection = len(self.event_shape), bijection

    def _numbers(self, rows: Tensor, links: Tensor, signs: Signs) -> list[Tensor]:
        angles = _sum(rows, links, signs)
        return [angles.cos(), angles.sin()]

    def _moved(self, rows: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        staple = self._staple(rows)
        P = rows.index_select(0, self.active) + staple
        P, logdet = (self.bijection.inverse if inverse else self.bijection.forward)(P, raw)
        return _wrap(P - staple), logdet

    def _staple(self, rows: Tensor) -> Tensor:
        """The angle that makes a loop of each active link, (n, batch)."""
        angles = [_sum(rows, links, signs) for links, signs in zip(self.paths, self.path_signs, strict=True)]
        if len(angles) == 1:
            return angles[0]
        together = torch.stack(angles)
        return torch.atan2(together.sin().sum(0), together.cos().sum(0))


def _sum(rows: Tensor, links: Tensor, signs: Signs) -> Tensor:
    """Angles of paths, of links (steps, n): (n, batch)."""
    steps = rows.index_select(0, links.flatten()).view(len(signs), -1)
    return (rows.new_tensor(signs) @ steps).view(links.shape[1], -1)


def _wrap(angle: Tensor) -> Tensor:
    return angle - 2 * math.pi * (angle.detach() / (2 * math.pi)).round()


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
    h = CircularSpline(bins) if bijection == "spline" else CircularMixture(bins, weights=True)
    stack = [U1Coupling(masks[k % len(masks)], h, **sight).to(dtype) for k in range(layers)]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
