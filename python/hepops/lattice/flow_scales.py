"""The scales t0 and w0 of the Wilson flow, with errors from an ensemble."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .statistics import Measurement, jackknife

if TYPE_CHECKING:
    from .wilson_flow import FlowHistory


def crossing(times: Tensor, values: Tensor, target: float) -> Tensor:
    """The first time at which values, shape (..., T), reach the target, by cubic interpolation; NaN if they do not.

    Example:
        >>> t = torch.linspace(0, 1, 11, dtype=torch.float64)
        >>> crossing(t, t**3, 0.3) ** 3
        tensor(0.3000, dtype=torch.float64)
    """
    above = values >= target
    k = above.to(torch.int8).argmax(-1)  # the first at or above
    most = values.shape[-1]
    first = (k - 2).clamp(0, max(most - 4, 0))
    near = first[..., None] + torch.arange(min(4, most), device=values.device)
    t, f = times.to(values)[near], values.gather(-1, near)
    low, high = times.to(values)[(k - 1).clamp_min(0)], times.to(values)[k]
    for _ in range(60):  # bisection: the interpolation agrees with the values at both ends
        middle = (low + high) / 2
        reached = _lagrange(t, f, middle) >= target
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    found = above.any(-1) & (k > 0)
    return torch.where(found, (low + high) / 2, math.nan)


def _lagrange(t: Tensor, f: Tensor, at: Tensor) -> Tensor:
    """The polynomial through the points (t, f), shape (..., 4)."""
    total = torch.zeros_like(at)
    for i in range(t.shape[-1]):
        weight = torch.ones_like(at)
        for j in range(t.shape[-1]):
            if i != j:
                weight = weight * (at - t[..., j]) / (t[..., i] - t[..., j])
        total = total + weight * f[..., i]
    return total


def flow_derivative(times: Tensor, energies: Tensor) -> Tensor:
    """W(t) = t d(t^2 E)/dt at the times, shape of the energies (..., T): second-order differences."""
    t = times.to(energies)
    (slope,) = torch.gradient(t.square() * energies, spacing=(t,), dim=-1, edge_order=2)
    return t * slope


def _scale(
    history: "FlowHistory", form: str, function: Callable[[Tensor], Tensor], bin_size: int, name: str
) -> Measurement:
    if form not in ("clover", "plaquette"):
        raise ValueError(f"{name}: form must be 'clover' or 'plaquette', got {form!r}")
    if len(history.times) < 5:
        raise ValueError(f"{name}: 5 times or more are needed, got {len(history.times)}: measure more often")
    E = history.energy if form == "clover" else history.plaquette
    if not bool(function(E.mean(0)).isfinite()):
        raise ValueError(f"{name}: the target is not reached by t = {float(history.times[-1]):g}: flow longer")
    return jackknife(E, function, bin_size=bin_size)


def t0(
    history: "FlowHistory",
    target: float = 0.3,
    *,
    form: Literal["clover", "plaquette"] = "clover",
    bin_size: int = 1,
) -> Measurement:
    r"""The time where :math:`t^2 \langle E \rangle = 0.3`, with its error from the jackknife over configurations.

    Args:
        history: Of an ensemble, in the order of its chain.
        target: In place of 0.3.
        form: Of the energy.
        bin_size: Consecutive configurations in a bin.

    Raises:
        ValueError: the target is not reached, fewer than 5 times or 2 bins, another form.

    References:
        | M. Luescher, JHEP 08 (2010) 071, arXiv:1006.4518, eq. 4.1
    """
    t = history.times
    return _scale(history, form, lambda E: crossing(t, t.square() * E, target), bin_size, "t0")


def w0(
    history: "FlowHistory",
    target: float = 0.3,
    *,
    form: Literal["clover", "plaquette"] = "clover",
    bin_size: int = 1,
) -> Measurement:
    r"""w0 where :math:`t \frac{d}{dt} t^2 \langle E \rangle = 0.3` at :math:`t = w_0^2`; error by jackknife.

    Args:
        history: Of an ensemble, in the order of its chain.
        target: In place of 0.3.
        form: Of the energy.
        bin_size: Consecutive configurations in a bin.

    Raises:
        ValueError: the target is not reached, fewer than 5 times or 2 bins, another form.

    References:
        | S. Borsanyi et al., JHEP 09 (2012) 010, arXiv:1203.4469
    """
    t = history.times
    return _scale(history, form, lambda E: crossing(t, flow_derivative(t, E), target).sqrt(), bin_size, "w0")
