"""Rational-quadratic splines in torch's operators: what the fused operator is tested against, and differentiated by."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

Tails = Literal["linear", "circular"] | None
Convention = Literal["nflows", "zuko"]
Bound = float | Tensor | tuple[float | Tensor, float | Tensor] | None

FLOOR = 1e-3  # least width, height (of a domain of length 1) and slope; the same number sets zuko's soft clip


def slope_count(bins: int, tails: Tails) -> int:
    """How many slopes a spline of `bins` bins has free: K - 1 inner ones, K on a circle, all K + 1 without tails."""
    return {"linear": bins - 1, "circular": bins, None: bins + 1}[tails]


def domain(bound: Bound, tails: Tails) -> tuple[float | Tensor, float | Tensor]:
    if bound is None:
        return {"linear": (-5.0, 5.0), "circular": (-math.pi, math.pi), None: (0.0, 1.0)}[tails]
    return bound if isinstance(bound, tuple) else (-bound, bound)


def _softclip(x: Tensor, factor: float) -> Tensor:
    return x / (1 + (factor * x / math.log(FLOOR)).abs())


def formula(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    slopes: Tensor,
    *,
    inverse: bool = False,
    tails: Tails = "linear",
    bound: Bound = None,
    convention: Convention = "nflows",
) -> tuple[Tensor, Tensor]:
    """The spline in the dtype of its arguments."""
    low, high = domain(bound, tails)
    low, high = (torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (low, high))
    span = high - low
    bins = widths.shape[-1]
    if convention == "nflows":
        w, h = (FLOOR + (1 - FLOOR * bins) * v.softmax(-1) for v in (widths, heights))
        d = FLOOR + softplus(slopes)
    else:
        w, h = (_softclip(v, 2).softmax(-1) for v in (widths, heights))
        d = _softclip(slopes, 1).exp()
    if tails == "linear":
        d = pad(d, (1, 1), value=1.0)
    elif tails == "circular":
        d = torch.cat([d, d[..., :1]], -1)
    if tails == "circular":
        z = torch.where((x < low) | (x > high), low + torch.remainder(x - low, span), x)
        inside = torch.ones_like(x, dtype=torch.bool)
    else:
        inside = (x >= low) & (x <= high)
        z = torch.where(inside, x, (low + high) / 2)  # anything that has finite slopes
    inner = [low[..., None] + span[..., None] * pad(v.cumsum(-1)[..., :-1], (1, 0)) for v in (w, h)]
    knots = [torch.cat([k, high[..., None].expand(*k.shape[:-1], 1)], -1) for k in inner]
    edges = knots[1] if inverse else knots[0]
    k = ((z[..., None] >= edges[..., 1:-1]).sum(-1, keepdim=True)).clamp(max=bins - 1)
    edges_of = [torch.broadcast_to(v, (*x.shape, bins + 1)) for v in knots]
    d = torch.broadcast_to(d, (*x.shape, bins + 1))
    x0, y0 = (v.gather(-1, k)[..., 0] for v in edges_of)
    x1, y1 = (v.gather(-1, k + 1)[..., 0] for v in edges_of)
    d0, d1 = d.gather(-1, k)[..., 0], d.gather(-1, k + 1)[..., 0]
    w, h = x1 - x0, y1 - y0
    s = h / w
    D = d0 + d1 - 2 * s
    if inverse:
        t = z - y0
        a, b, c = h * (s - d0) + t * D, h * d0 - t * D, -s * t
        xi = 2 * c / (-b - (b * b - 4 * a * c).clamp(min=0).sqrt())
    else:
        xi = (z - x0) / w
    q = xi * (1 - xi)
    below = s + D * q
    value = x0 + xi * w if inverse else y0 + h * (s * xi * xi + d0 * q) / below
    slope = s * s * (d1 * xi * xi + 2 * s * q + d0 * (1 - xi) ** 2) / (below * below)
    logdet = -slope.log() if inverse else slope.log()
    if tails is None:
        nan = torch.full_like(x, math.nan)
        return torch.where(inside, value, nan), torch.where(inside, logdet, nan)
    return torch.where(inside, value, x), torch.where(inside, logdet, torch.zeros_like(x))
