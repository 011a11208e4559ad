"""Flows on tori and spheres that are ready to be trained."""

import math
from collections.abc import Sequence
from typing import Literal

import torch

from ..bases import Uniform, UniformSphere
from ..coupling import Coupling
from ..elementwise import Elementwise, Spline
from ..flow import Flow
from ..networks import MLP, Periodic
from ..transform import Compose, Transform
from .circle import CircularSpline, MoebiusMixture
from .rotation import Rotation
from .sphere import RecursiveSphere
from .torus import RecursiveTorus

Kind = Literal["spline", "moebius"]


def _bijection(kind: Kind, bins: int) -> Elementwise:
    if kind not in ("spline", "moebius"):
        raise ValueError(f"bijection must be 'spline' or 'moebius', got {kind!r}")
    return CircularSpline(bins) if kind == "spline" else MoebiusMixture(bins)


def torus(
    features: int,
    context: int = 0,
    *,
    layers: int = 4,
    bijection: Kind = "spline",
    bins: int = 8,
    hidden: Sequence[int] = (64, 64),
    autoregressive: bool = False,
) -> Flow:
    r"""A flow of D angles in :math:`[-\pi, \pi]`: circular bijections over uniform angles.

    Args:
        features: D.
        context: C, 0 without.
        layers: How many; couplings change alternating halves, autoregressive layers alternate the order.
        bijection: "spline" (:class:`CircularSpline`) or "moebius" (:class:`MoebiusMixture`; a slower inverse).
        bins: Bins of a spline, or components of a mixture.
        hidden: Widths of the networks.
        autoregressive: Layers of :class:`RecursiveTorus` instead of couplings; always for one angle.

    Densities are with respect to :math:`d\theta_1 \ldots d\theta_D`, continuous across :math:`\pi`. A new flow is
    uniform.

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428

    Example:
        >>> flow = hepops.flows.torus(2)
        >>> flow.log_prob(torch.zeros(1, 2))  # -2 ln 2 pi
        tensor([-3.6758], dtype=torch.float64, ...)
    """
    steps: list[Transform] = []
    for i in range(layers):
        g = _bijection(bijection, bins)
        if autoregressive or features == 1:
            order = range(features) if i % 2 == 0 else range(features - 1, -1, -1)
            steps.append(RecursiveTorus(features, g, hidden=hidden, context=context, order=order))
            continue
        mask = (torch.arange(features) + i) % 2 == 0
        active = int(mask.sum())
        network = Periodic(MLP(2 * (features - active), active * g.size, hidden, context))
        steps.append(Coupling(mask, g, network, context=context))
    return Flow(Compose(steps), Uniform(features, -math.pi, math.pi))


def sphere(
    d: int,
    context: int = 0,
    *,
    layers: int = 4,
    bijection: Kind = "spline",
    bins: int = 8,
    hidden: Sequence[int] = (64, 64),
    seed: int = 0,
) -> Flow:
    r"""A flow of unit vectors of :math:`\mathbb{R}^{d+1}`: recursive layers, and rotations that are learned.

    Args:
        d: Dimension of the sphere.
        context: C, 0 without.
        layers: Pairs of a :class:`Rotation` and a :class:`RecursiveSphere`.
        bijection: Of the circle, "spline" or "moebius".
        bins: Of the splines, or components of the mixture.
        hidden: Widths of the networks.
        seed: Of the rotations in the beginning.

    Densities are with respect to the surface measure. A new flow is uniform.

    References:
        | D. J. Rezende et al., Normalizing flows on tori and spheres, arXiv:2002.02428

    Example:
        >>> flow = hepops.flows.sphere(2)
        >>> flow.log_prob(torch.tensor([[0.6, 0.0, 0.8]]))  # -ln 4 pi
        tensor([-2.5310], dtype=torch.float64, ...)
    """
    steps: list[Transform] = []
    for i in range(layers):
        height = Spline(bins, (-1.0, 1.0), None)
        steps.append(Rotation(d + 1, seed + i))
        steps.append(RecursiveSphere(d, height, _bijection(bijection, bins), hidden=hidden, context=context))
    return Flow(Compose(steps), UniformSphere(d))
