"""Bijections without parameters, from the real line to a part of it."""

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ._operator import apply, register

Kind = Literal["softplus", "tanh", "sigmoid"]
KINDS: tuple[Kind, ...] = ("softplus", "tanh", "sigmoid")  # in the order of csrc/flows/squash.h


def squash(x: Tensor, kind: Kind, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Softplus, tanh or sigmoid with the logarithm of the slope, or their inverses.

    .. math::
        \mathrm{softplus}:\ y &= \ln(1 + e^x) \in (0, \infty), & \ln y' &= -\ln(1 + e^{-x}) \\
        \tanh:\ y &= \tanh x \in (-1, 1), & \ln y' &= 2 (\ln 2 - |x| - \ln(1 + e^{-2|x|})) \\
        \mathrm{sigmoid}:\ y &= 1 / (1 + e^{-x}) \in (0, 1), & \ln y' &= -|x| - 2 \ln(1 + e^{-|x|})

    Args:
        x: Shape (...), float32 or float64; y where `inverse`.
        kind: "softplus", "tanh" or "sigmoid".
        inverse: Whether to give x from y, and :math:`\ln dx/dy`: of the sigmoid, that is the logit.

    Returns:
        (y, ln dy/dx), each of the shape and dtype of `x`, right to rounding in both tails. Of the inverse, what lies
        outside the range gives NaN for both, and an end of the range its infinity.

    Differentiable any number of times: the second derivatives are made of torch's operators. Deterministic, element by
    element. NaN gives NaN.

    Raises:
        TypeError: `x` is neither float32 nor float64.
        ValueError: an unknown `kind`.

    References:
        | M. Maechler, Accurately computing log(1 - exp(-|a|)), R package Rmpfr (2012)

    Example:
        >>> squash(torch.tensor([0.0, 50.0]), "tanh")
        (tensor([0., 1.]), tensor([  0.0000, -98.6137]))
    """
    if kind not in KINDS:
        raise ValueError(f"squash: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return apply("flows_squash", x, KINDS.index(kind), inverse)


def formula(x: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    if KINDS[kind] == "softplus":
        return softplus(x, threshold=40), logsigmoid(x)
    if KINDS[kind] == "tanh":
        return x.tanh(), logsigmoid(2 * x) + logsigmoid(-2 * x) + math.log(4)
    return x.sigmoid(), logsigmoid(x) + logsigmoid(-x)


register("flows_squash", formula, tensors=1)
