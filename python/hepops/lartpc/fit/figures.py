"""Figures of what fits can say: profiles, contours, pulls. matplotlib is loaded when the first is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hepops.lartpc.plot import BLUE, FAINT, GREY, ORANGE, RED, SYMBOLS, _figure, _frame, _unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .coverage import Coverage
    from .profile import Contour, Profile


def _name(name: str, unit: str) -> str:
    label = f"{SYMBOLS.get(name, name.replace('_', ' '))}"
    return label if unit == "1" else f"{label} [{_unit(unit)}]"


def _numbers(axes: Any, which: str = "both") -> None:
    axes.ticklabel_format(axis=which, style="sci", scilimits=(-3, 5), useOffset=False)
    axes.locator_params(axis=which, nbins=5)


def profile(p: Profile, truth: float | None) -> Figure:
    """Delta = -log L less its minimum, with the parabola of the covariance and the interval of one sigma."""
    figure = _figure(5.2, 4.0)
    axes = figure.add_subplot()
    span = max(float((p.values - p.best).abs().max()), p.error)
    x = np.linspace(p.best - span, p.best + span, 200)
    axes.plot(x, 0.5 * ((x - p.best) / p.error) ** 2, color=FAINT, linewidth=2, label="parabola")
    good = p.converged.numpy()
    axes.plot(p.values.numpy(), p.delta.numpy(), color=BLUE, linewidth=1.4)
    axes.plot(p.values.numpy()[good], p.delta.numpy()[good], "o", color=BLUE, markersize=4, label="profile")
    if not good.all():
        axes.plot(p.values.numpy()[~good], p.delta.numpy()[~good], "x", color=RED, label="not converged")
    low, high = p.interval
    if math.isfinite(low) and math.isfinite(high):
        axes.axvspan(low, high, color=BLUE, alpha=0.12, linewidth=0)
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    if truth is not None:
        axes.axvline(truth, color=RED, linestyle="--", linewidth=1.2, label="true")
    axes.set(xlabel=_name(p.name, p.unit), ylabel=r"$-\Delta\,\log L$")
    axes.set_ylim(bottom=0)
    _numbers(axes, "x")
    axes.legend(fontsize=9, loc="upper center")
    _frame(axes)
    return figure


def contour(c: Contour, truth: Mapping[str, float] | None) -> Figure:
    """Contours joined by a periodic interpolation of their radius, and the ellipses of the covariance, dashed."""
    figure = _figure(5.2, 4.6)
    axes = figure.add_subplot()
    lower = np.linalg.cholesky(c.covariance.numpy())
    best = c.best.numpy()
    angle = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack((np.cos(angle), np.sin(angle)))
    for level, points, good in zip(c.levels, c.points.numpy(), c.converged.numpy(), strict=True):
        ellipse = best[:, None] + math.sqrt(-2 * math.log1p(-level)) * lower @ circle
        axes.plot(*ellipse, color=FAINT, linestyle="--", linewidth=1.4)
        colour = BLUE if level == c.levels[0] else ORANGE
        white = np.linalg.solve(lower, (points - best).T)
        radius = _periodic(np.hypot(*white), angle)
        axes.plot(
            *(best[:, None] + lower @ (radius * circle)), color=colour, linewidth=1.6, label=f"{100 * level:.3g} %"
        )
        axes.plot(*points[good].T, "o", color=colour, markersize=3.5)
        axes.plot(*points[~good].T, "x", color=RED, markersize=5)
    axes.plot(*best, "+", color=BLUE, markersize=10, label="fit")
    if truth is not None and all(name in truth for name in c.names):
        axes.plot(*(truth[name] for name in c.names), "*", color=RED, markersize=11, label="true", linestyle="none")
    axes.plot([], [], color=FAINT, linestyle="--", label="covariance")
    axes.set(xlabel=_name(c.names[0], c.units[0]), ylabel=_name(c.names[1], c.units[1]))
    _numbers(axes)
    axes.margins(0.08)
    axes.legend(fontsize=8.5)
    _frame(axes)
    return figure


def _periodic(radius: Any, angle: Any) -> Any:
    """Trigonometric interpolation of values at equidistant angles."""
    n = len(radius)
    c = np.fft.rfft(radius) / n
    waves = np.exp(1j * np.outer(np.arange(len(c)), angle))
    weight = np.where((np.arange(len(c)) == 0) | (2 * np.arange(len(c)) == n), 1.0, 2.0)
    return np.real((weight * c) @ waves)


def pulls(c: Coverage) -> Figure:
    """One histogram per parameter, beside the normal distribution with as many entries."""
    count = len(c.names)
    columns = 2 if count == 4 else min(4 if count > 6 else 3, count)
    rows = -(-count // columns)
    figure = _figure(2.9 * columns + 0.3, 2.4 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    edges = np.linspace(-4, 4, 17 if len(c.good) < 100 else 25)
    x = np.linspace(-4, 4, 200)
    normal = len(c.good) * (edges[1] - edges[0]) * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for k, (axes, name) in enumerate(zip(grid, c.names, strict=False)):
        values = c.good[:, k].clamp(-3.999, 3.999).numpy()
        axes.hist(values, bins=edges, color=BLUE, alpha=0.75)
        axes.plot(x, normal, color=RED, linewidth=1.3)
        text = f"mean {float(c.means[k]):.2f}\nwidth {float(c.widths[k]):.2f}".replace("-", "\u2212")
        axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
        axes.set_title(SYMBOLS.get(name, name), fontsize=11)
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])
        _frame(axes)
    for axes in grid[:count:columns]:
        axes.set_ylabel("toys per bin")
    for axes in grid[max(0, count - columns) : count]:
        axes.set_xlabel(r"(fit $-$ true) / error")
        axes.tick_params(labelbottom=True)
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure


def samples(draws: torch.Tensor, names: tuple[str, ...], units: tuple[str, ...]) -> Figure:
    """Posterior draws of two parameters after another: a triangle of clouds, histograms on its diagonal."""
    flat, count = draws.flatten(0, 1).numpy(), len(names)
    figure = _figure(1.9 * count + 0.6, 1.8 * count + 0.4)
    grid = figure.subplots(count, count, squeeze=False, sharex="col")
    for i in range(count):
        for j in range(count):
            axes = grid[i, j]
            if j > i:
                axes.set_axis_off()
            elif i == j:
                axes.hist(flat[:, i], bins=30, color=BLUE, alpha=0.75)
                axes.set_yticks([])
            else:
                axes.plot(flat[:, j], flat[:, i], ".", color=BLUE, markersize=1.5, alpha=0.5, rasterized=True)
            if i == count - 1:
                axes.set_xlabel(_name(names[j], units[j]), fontsize=9)
            if j == 0 and i:
                axes.set_ylabel(_name(names[i], units[i]), fontsize=9)
            axes.tick_params(labelsize=7)
            _frame(axes)
    return figure
