"""Distribution functions with piecewise constant and piecewise linear densities: bijections of [0, 1]."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from ._operator import apply, broadcast, register

FLOOR = 1e-3  # least width and density: csrc/flows/piecewise_quadratic.h


def piecewise_linear(x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""A distribution function that is linear on K equal bins of [0, 1].

    .. math:: y = \sum_{j<k} p_j + p_k (K x - k), \qquad \frac{dy}{dx} = K p_k, \qquad k = \lfloor K x \rfloor, \quad
        p = \mathrm{softmax}(\mathrm{raw})

    Args:
        x: Shape (...), float32 or float64, in [0, 1]; y where `inverse`.
        raw: Logits of the K bins, shape (..., K) of any strides, float64 for a float64 `x`; float32, bfloat16 or
            float16 for a float32 one. Leading dimensions are broadcast with those of `x`. K is at most 128.
        inverse: Whether to give x from y, and :math:`\ln dx/dy`.

    Returns:
        (y in [0, 1], ln dy/dx), each of the shape and dtype of `x`. Computed in double, rounded once. Both are NaN
        where `x` is outside [0, 1] or NaN.

    Differentiable any number of times, with respect to `x` and `raw`: the second derivatives are made of torch's
    operators. At a border of two bins the slope is that of the right one. Deterministic, element by element.

    Raises:
        TypeError: `x` is neither float32 nor float64, or `raw` does not go with it.
        ValueError: another shape of `raw`.

    References:
        | T. Mueller et al., Neural importance sampling, arXiv:1808.03856, section 4.1

    Example:
        >>> piecewise_linear(torch.tensor([0.25, 0.75]), torch.tensor([0.0, math.log(3.0)]))
        (tensor([0.1250, 0.6250]), tensor([-0.6931,  0.4055]))
    """
    return apply("flows_piecewise_linear", *broadcast(x, raw), inverse)


def piecewise_quadratic(x: Tensor, raw: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""A distribution function on [0, 1] whose density is continuous, and linear on each of K bins of free widths.

    .. math::
        y &= C_k + W_k \left(H_k u + \tfrac12 (H_{k+1} - H_k) u^2\right), \qquad
        \frac{dy}{dx} = H_k + (H_{k+1} - H_k) u, \qquad u = (x - X_k) / W_k \\
        W &= m + (1 - m K)\, \mathrm{softmax}(w), \quad U = \ln(1 + e^v) + m, \quad
        H = m + (1 - m)\, U \Big/ \sum_j W_j \tfrac{U_j + U_{j+1}}{2}, \quad m = 10^{-3}

    Args:
        x: Shape (...), float32 or float64, in [0, 1]; y where `inverse`.
        raw: :math:`w_1 \ldots w_K, v_0 \ldots v_K`, shape (..., 2 K + 1) of any strides, float64 for a float64 `x`;
            float32, bfloat16 or float16 for a float32 one. Leading dimensions are broadcast with those of `x`. K is at
            most 64.
        inverse: Whether to give x from y, and :math:`\ln dx/dy`: the root of a quadratic.

    Returns:
        (y in [0, 1], ln dy/dx), each of the shape and dtype of `x`. Computed in double, rounded once. Both are NaN
        where `x` is outside [0, 1] or NaN.

    Differentiable any number of times, with respect to `x` and `raw`: the second derivatives are made of torch's
    operators. Deterministic, element by element. The floors are those of nflows, with equal values.

    Raises:
        TypeError: `x` is neither float32 nor float64, or `raw` does not go with it.
        ValueError: another shape of `raw`.

    References:
        | T. Mueller et al., Neural importance sampling, arXiv:1808.03856, section 4.2
        | C. Durkan et al., nflows (2020)

    Example:
        >>> piecewise_quadratic(torch.tensor([0.25, 0.5]), torch.tensor([0.0, 0.0, 1.0, -1.0, 1.0]))
        (tensor([0.3267, 0.5000]), tensor([ 0.0000, -0.9505]))
    """
    return apply("flows_piecewise_quadratic", *broadcast(x, raw), inverse)


def _edges(steps: Tensor) -> Tensor:
    """Where steps begin and end: one more than there are."""
    return pad(steps.cumsum(-1), (1, 0))


def _inside(x: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
    inside = (x >= 0) & (x <= 1)
    return tuple(torch.where(inside, r, torch.full_like(r, math.nan)) for r in results)


def linear_formula(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    K = raw.shape[-1]
    p, t = raw.softmax(-1), K * x
    k = t.detach().nan_to_num().floor().clamp(0, K - 1).long()[..., None]
    share = p.gather(-1, k)[..., 0]
    y = _edges(p).gather(-1, k)[..., 0] + share * (t - k[..., 0])
    return _inside(x, y, (K * share).log())  # type: ignore[return-value]


def quadratic_formula(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """The same in torch's operators."""
    K = (raw.shape[-1] - 1) // 2
    W = FLOOR + (1 - FLOOR * K) * raw[..., :K].softmax(-1)
    U = softplus(raw[..., K:], threshold=40) + FLOOR
    area = (W * (U[..., 1:] + U[..., :-1]) / 2).sum(-1, keepdim=True)
    H = FLOOR + (1 - FLOOR) * U / area
    X, C = _edges(W), _edges(W * (H[..., 1:] + H[..., :-1]) / 2)
    k = (x.detach()[..., None] >= X[..., 1:-1]).sum(-1, keepdim=True)
    left, right, width = H.gather(-1, k)[..., 0], H.gather(-1, k + 1)[..., 0], W.gather(-1, k)[..., 0]
    u = (x - X.gather(-1, k)[..., 0]) / width
    y = C.gather(-1, k)[..., 0] + width * u * (left + (right - left) * u / 2)
    return _inside(x, y, (left + (right - left) * u).log())  # type: ignore[return-value]


register("flows_piecewise_linear", linear_formula)
register("flows_piecewise_quadratic", quadratic_formula)
