r"""Landau's distribution of the energy loss in a thin layer.

.. math:: f(\lambda) = \frac{1}{2\pi i}\int_{c-i\infty}^{c+i\infty} e^{s\ln s + \lambda s}\,ds
          = \frac1\pi \int_0^\infty e^{-t\ln t - \lambda t} \sin(\pi t)\,dt

ln f and the logarithms of both tails are Chebyshev interpolants on nine pieces, made on first use from these integrals:
left of -1 along the vertical through the saddle point s = exp(-1 - lambda), where nothing cancels and the factor
exp(-s) is taken out; right of it the second form, by the double exponential rule. Relative error of density and tails:
1e-13 for any lambda (beyond 1e8 f = 1/lambda^2 is taken as it stands, right within 4e-7).

References:
    | L. D. Landau, J. Phys. (USSR) 8 (1944) 201
    | K. S. Koelbig, B. Schorr, Comput. Phys. Commun. 31 (1984) 97, for the integral representations
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .curve import Array

Kind = Literal["density", "below", "above"]

# Ends of the pieces: of exp(1 + lambda) left of -1, of lambda to 4, of ln lambda beyond.
_LEFT, _MIDDLE = (0.0, 0.03, 0.2, 1.0), (-1.0, 1.5, 4.0)
_RIGHT = tuple(np.log([4.0, 30.0, 1e3, 1e5, 1e8]))
_DEGREE = 26


def landau_log_density(lam: Tensor | float) -> Tensor:
    r"""ln f of Landau's distribution.

    Args:
        lam: :math:`\lambda`, any shape, float64.

    Returns:
        float64, the shape of `lam`; finite for every finite lambda. Differentiable as often as torch is, on pieces that
        join within 1e-13; the slope is right within 1e-10. Deterministic.

    References:
        | L. D. Landau, J. Phys. (USSR) 8 (1944) 201

    Example:
        >>> from hepops.lartpc.calorimetry import landau_log_density
        >>> round(float(landau_log_density(-0.22278298).exp()), 7)  # the most probable value
        0.1806556
    """
    return _evaluate("density", torch.as_tensor(lam, dtype=torch.float64))


def landau_cdf(lam: Tensor | float, upper: bool = False) -> Tensor:
    """Probability of less than `lam`, or with `upper` of more, each with its own relative precision.

    Arguments, differentiability and sources as of `landau_log_density`.

    Example:
        >>> from hepops.lartpc.calorimetry import landau_cdf
        >>> round(float(landau_cdf(1.3557804)), 6)  # the median
        0.5
    """
    lam = torch.as_tensor(lam, dtype=torch.float64)
    left = lam < -1
    below = _evaluate("below", torch.where(left, lam, -2.0)).exp()
    above = _evaluate("above", torch.where(left, 0.0, lam)).exp()
    return torch.where(left, 1 - below, above) if upper else torch.where(left, below, 1 - above)


def landau_quantile(p: Tensor | float) -> Tensor:
    """The lambda below which the loss lies with probability `p`.

    Args:
        p: float64, any shape, between 0 and 1, both excluded.

    Returns:
        float64, the shape of `p`. Differentiable once. Deterministic.

    Raises:
        ValueError: a probability that is not inside (0, 1).

    Example:
        >>> from hepops.lartpc.calorimetry import landau_quantile
        >>> [round(x, 4) for x in landau_quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()]
        [-1.0923, 1.3558, 11.6493]
    """
    p = torch.as_tensor(p, dtype=torch.float64)
    if not bool(((p > 0) & (p < 1)).all()):
        raise ValueError(f"p must lie inside (0, 1), got {p.tolist()}")
    with torch.no_grad():
        # bisection in asinh(lambda): from -7, where the probability is 1e-176, to 1e17
        low, high = torch.full_like(p, -np.arcsinh(7.0)), torch.full_like(p, np.arcsinh(1e17))
        for _ in range(80):
            middle = (low + high) / 2
            lam = torch.sinh(middle)
            more = torch.where(p < 0.5, landau_cdf(lam) < p, landau_cdf(lam, upper=True) > 1 - p)
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        lam = torch.sinh((low + high) / 2)
        density = landau_log_density(lam).exp()
    return lam + (p - p.detach()) / density  # dlambda/dp = 1/f


def _evaluate(kind: Kind, lam: Tensor) -> Tensor:
    """A logarithm of `kind`, by its piece."""
    low, high, coefficients = _pieces(kind, lam.device)
    left, right = lam < -1, lam >= _MIDDLE[-1]
    w = torch.exp(1 + torch.where(left, lam, -1.0))  # 1/s at the saddle
    far = torch.log(torch.where(right, lam, _MIDDLE[-1]))
    x = torch.where(left, w, torch.where(right, far, lam))
    n_left, n_middle = len(_LEFT) - 1, len(_MIDDLE) - 1
    piece = torch.where(
        left,
        _place(_LEFT, x),
        torch.where(right, _place(_RIGHT, x) + n_left + n_middle, _place(_MIDDLE, x) + n_left),
    )
    t = 2 * (x.clamp(max=_RIGHT[-1]) - low[piece]) / (high[piece] - low[piece]) - 1
    value = _clenshaw(coefficients[piece], t)
    power = {"density": 0.5, "below": -0.5, "above": 0.0}[kind]
    slope = {"density": -2.0, "below": 0.0, "above": -1.0}[kind]
    lead = torch.where(left, -1 / w - power * torch.log(w) - 0.5 * np.log(2 * np.pi), torch.where(right, slope * x, 0))
    return value + lead


def _place(ends: tuple[float, ...], x: Tensor) -> Tensor:
    inner = torch.tensor(ends[1:-1], dtype=torch.float64, device=x.device)
    return torch.searchsorted(inner, x.detach().contiguous(), right=True)


def _clenshaw(c: Tensor, t: Tensor) -> Tensor:
    """sum_k c_k T_k(t), coefficients (..., degree + 1)."""
    b1 = b2 = torch.zeros_like(t)
    for k in range(c.shape[-1] - 1, 0, -1):
        b1, b2 = 2 * t * b1 - b2 + c[..., k], b1
    return t * b1 - b2 + c[..., 0]


@cache
def _pieces(kind: Kind, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ends (pieces) and coefficients (pieces, degree + 1) of the logarithm less its leading terms."""
    ends: list[tuple[float, float]] = []
    rows: list[Array] = []
    families: list[tuple[tuple[float, ...], Callable[[Array], Array], Callable[[Kind, Array], Array]]] = [
        (_LEFT, lambda w: np.log(w) - 1, _left),
        (_MIDDLE, lambda x: x, lambda kind, lam: np.log(_right(kind, lam))),
        (_RIGHT, np.exp, lambda kind, lam: np.log(_right(kind, lam)) + (2 if kind == "density" else 1) * np.log(lam)),
    ]
    angle = np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)
    for borders, to_lambda, function in families:
        for a, b in pairwise(borders):
            x = (a + b) / 2 + (b - a) / 2 * np.cos(angle)
            wrong = (kind == "below" and function is not _left) or (kind == "above" and function is _left)
            y = np.zeros_like(x) if wrong else function(kind, to_lambda(x))
            c = 2 / (_DEGREE + 1) * np.cos(np.outer(np.arange(_DEGREE + 1), angle)) @ y
            c[0] /= 2
            ends.append((float(a), float(b)))
            rows.append(c)
    low, high = torch.tensor(ends, dtype=torch.float64, device=device).T
    return low, high, torch.from_numpy(np.array(rows)).to(device)


def _left(kind: Kind, lam: Array) -> Array:
    """ln f or ln F, less -s -+ 1/2 ln s - 1/2 ln 2 pi, s = exp(-1 - lambda), through the saddle.

    With S = s (1 + i v/sqrt(s)) the exponent is S ln S + lambda S = -s + s [(1 + iu) ln(1 + iu) - iu], u = v/sqrt(s).
    """
    s = np.exp(-1 - lam)[:, None]
    v = np.arange(0, 40, 0.02)[None, :]
    u = 1j * v / np.sqrt(s)
    integrand = np.exp(s * ((1 + u) * np.log1p(u) - u)) / (1 + u if kind == "below" else 1)
    total = integrand.real.sum(1) - 0.5
    return np.log(total * 0.02 / np.pi * np.sqrt(2 * np.pi))


def _right(kind: Kind, lam: Array) -> Array:
    """f, or the probability of more; t = tau/lambda', tau = exp(x - exp(-x))."""
    x = np.arange(-4.2, 6.0, 0.02)[None, :]
    tau = np.exp(x - np.exp(-x))
    scale = np.maximum(lam, 2.0)[:, None]
    t = tau / scale
    weight = 0.02 * t * (1 + np.exp(-x))
    # sin(pi t)/t may be summed as it stands: where t is large the exponential has ended it
    wave = np.sin(np.pi * t) if kind == "density" else np.sin(np.pi * t) / t
    return (np.exp(-t * np.log(t) - lam[:, None] * t) * wave * weight).sum(1) / np.pi
