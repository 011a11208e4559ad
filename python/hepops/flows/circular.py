"""The non-compact projection: bijections of the circle."""

import math

import torch
from torch import Tensor

from ._operator import apply, broadcast, register


def circular(x: Tensor, raw: Tensor, *, weights: bool = False, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Mixtures of non-compact projections and a rotation: angles to angles.

    .. math::
        y &= \sum_k w_k\, 2 \arctan\!\left(e^{s_k} \tan\frac{x}{2}\right) + t \mod 2\pi \\
        \frac{dy}{dx} &= \sum_k \frac{w_k}{e^{-s_k} \cos^2(x/2) + e^{s_k} \sin^2(x/2)}

    Args:
        x: Angles, shape (...), float32 or float64; any real number stands for its angle. y where `inverse`.
        raw: :math:`s_1 \ldots s_K`, then, where `weights`, the K logits of :math:`w`, then :math:`t`: shape (..., K +
            1) or (..., 2 K + 1) of any strides, float64 for a float64 `x`; float32, bfloat16 or float16 for a float32
            one. Leading dimensions are broadcast with those of `x`. K is at most 64.
        weights: Whether the weights are learned; else they are :math:`1/K`.
        inverse: Whether to give x from y, and :math:`\ln dx/dy`. In closed form for K = 1; else by Newton's method with
            a bracket, at most 100 evaluations, to rounding.

    Returns:
        (y in :math:`[-\pi, \pi]`, ln dy/dx), each of the shape and dtype of `x`. Computed in double, rounded once, and
        without a singularity at :math:`\pi`.

    Differentiable any number of times, with respect to `x` and `raw`: the second derivatives are made of torch's
    operators. Deterministic, element by element. NaN gives NaN.

    Raises:
        TypeError: `x` is neither float32 nor float64, or `raw` does not go with it.
        ValueError: another shape of `raw`.

    References:
        | D. J. Rezende et al., arXiv:2002.02428, section 2.1

    Example:
        >>> circular(torch.tensor([0.0, 3.1]), torch.tensor([0.0, 0.5, 1.0]))
        (tensor([ 1.0000, -2.1750]), tensor([ 0.2809, -0.2190]))
    """
    return apply("flows_circular", *broadcast(x, raw), weights, inverse)


def formula(x: Tensor, raw: Tensor, weights: bool) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    K = (raw.shape[-1] - 1) // 2 if weights else raw.shape[-1] - 1
    s, t = raw[..., :K], raw[..., -1]
    w = raw[..., K : 2 * K].softmax(-1) if weights else torch.full_like(s, 1 / K)
    half = (torch.remainder(x + math.pi, 2 * math.pi) - math.pi)[..., None] / 2
    sine, cosine = half.sin(), half.cos()
    theta = 2 * torch.atan2((s / 2).exp() * sine, (-s / 2).exp() * cosine)
    slope = 1 / ((-s).exp() * cosine.square() + s.exp() * sine.square())
    y = (w * theta).sum(-1) + t
    return y - 2 * math.pi * (y / (2 * math.pi)).detach().round(), (w * slope).sum(-1).log()


register("flows_circular", formula)
