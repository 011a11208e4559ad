"""Scaling and shifting, and shifting alone."""

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import softplus

from ._operator import apply, broadcast, register

Scale = Literal["exp", "softclip", "tanh", "softplus", "sigmoid"]
SCALES: tuple[Scale, ...] = ("exp", "softclip", "tanh", "softplus", "sigmoid")  # in the order of csrc/flows/affine.h
LIMITS = {"exp": 0.0, "softclip": -math.log(1e-3), "tanh": 5.0, "softplus": 1e-3, "sigmoid": 1e-3}


def scale_limit(scale: str, limit: float | None) -> float:
    """The limit of a scale, its default where None; refuses what has no meaning."""
    if scale not in LIMITS:
        raise ValueError(f"affine: scale must be one of {', '.join(SCALES)}, got {scale!r}")
    limit = LIMITS[scale] if limit is None else limit
    least_is_fine = scale in ("exp", "softplus", "sigmoid")
    if not (limit >= 0 if least_is_fine else limit > 0) or math.isinf(limit):
        raise ValueError(f"affine: limit must be {'at least 0' if least_is_fine else 'positive'}, got {limit}")
    return limit


def affine(
    x: Tensor, raw: Tensor, *, scale: Scale = "exp", limit: float | None = None, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Scale and shift every number: couplings of RealNVP, masked autoregressive flows.

    .. math:: y = x\, e^{g(s)} + t, \qquad \ln \frac{dy}{dx} = g(s)

    ========== ================================= ================ ==========================================
    scale      law                               default limit    who writes it so
    ========== ================================= ================ ==========================================
    "exp"      :math:`g = s`                                      RealNVP, normflows
    "softclip" :math:`g = s / (1 + |s|/L)`       :math:`\ln 1000` zuko's MonotonicAffineTransform
    "tanh"     :math:`g = L \tanh(s / L)`        5
    "softplus" :math:`e^g = \ln(1 + e^s) + L`    1e-3             nflows' masked affine autoregressive
    "sigmoid"  :math:`e^g = \sigma(s + 2) + L`   1e-3             nflows' affine coupling; L = 0: Glow, normflows
    ========== ================================= ================ ==========================================

    Args:
        x: Shape (...), float32 or float64; y where `inverse`.
        raw: (s, t), shape (..., 2) of any strides, float64 for a float64 `x`; float32, bfloat16 or float16 for a
            float32 one. Leading dimensions are broadcast with those of `x`.
        scale: The form of the scale.
        limit: L.
        inverse: Whether to give :math:`x = (y - t)\, e^{-g}`, and :math:`-g`.

    Returns:
        (y, ln dy/dx), each of the shape and dtype of `x`, computed in it.

    Differentiable any number of times, with respect to `x` and `raw`: the second derivatives are made of torch's
    operators. Deterministic, element by element. NaN gives NaN.

    Raises:
        TypeError: `x` is neither float32 nor float64, or `raw` does not go with it.
        ValueError: another shape of `raw`, an unknown `scale`, a `limit` out of range.

    References:
        | L. Dinh, J. Sohl-Dickstein, S. Bengio, arXiv:1605.08803
        | G. Papamakarios, T. Pavlakou, I. Murray, arXiv:1705.07057

    Example:
        >>> affine(torch.tensor([1.0, -2.0]), torch.tensor([[0.0, 3.0], [math.log(2), 0.5]]))
        (tensor([ 4.0000, -3.5000]), tensor([0.0000, 0.6931]))
    """
    limit = scale_limit(scale, limit)
    return apply("flows_affine", *broadcast(x, raw), SCALES.index(scale), limit, inverse)


def formula(x: Tensor, raw: Tensor, scale: int, limit: float) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    s, t = raw.unbind(-1)
    kind = SCALES[scale]
    if kind == "softclip":
        g = s / (1 + (s / limit).abs())
    elif kind == "tanh":
        g = limit * (s / limit).tanh()
    elif kind == "softplus":
        g = (softplus(s, threshold=40) + limit).log()
    elif kind == "sigmoid":
        g = ((s + 2).sigmoid() + limit).log()
    else:
        g = s + 0  # no view, as the other kinds give none
    return x * g.exp() + t, g


register("flows_affine", formula)
