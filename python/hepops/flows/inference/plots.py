"""Figures of posteriors and of coverage tests; matplotlib is loaded when the first is drawn (extra `plot`)."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .coverage import SBC, TARP

# M. Okabe, K. Ito, Color Universal Design (2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
GREY = "#5F5F5F"
LEVELS = (0.6827, 0.9545)


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install hepops[plot]") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def corner(
    draws: Mapping[str, Tensor],
    names: Sequence[str],
    units: Sequence[str] | None = None,
    *,
    truth: Tensor | Sequence[float] | None = None,
    labels: Mapping[str, str] | None = None,
    bins: int = 40,
) -> "Figure":
    """Marginal densities of one parameter on the diagonal, of two below it as contours of 68 and 95 %.

    Args:
        draws: Posteriors by name, (n, K) each, drawn over one another.
        names, units: Of the K parameters.
        truth: Marked by lines.
        labels: What to write for a name.
        bins: Of a histogram.

    Raises:
        ValueError: draws of another shape than the names, or none.
        ImportError: matplotlib is not installed.
    """
    K = len(names)
    for name, values in draws.items():
        if values.ndim != 2 or values.shape[1] != K or len(values) < 2:
            raise ValueError(f"corner: {name} must have shape (n, {K}), got {tuple(values.shape)}")
    if not draws:
        raise ValueError("corner: no draws")
    if truth is not None and len(truth) != K:
        raise ValueError(f"corner: truth must hold {K} numbers, got {len(truth)}")
    every = torch.cat([values.double() for values in draws.values()])
    ends = torch.quantile(every[torch.linspace(0, len(every) - 1, min(len(every), 100_000)).long()],
                          torch.tensor([0.001, 0.999], dtype=torch.float64), 0)  # fmt: skip
    margin = 0.08 * (ends[1] - ends[0])
    margin = torch.where(margin > 0, margin, 1e-6 * ends[0].abs() + 1e-300)
    edges = [np.linspace(a, b, bins + 1) for a, b in zip(*(e.tolist() for e in (ends[0] - margin, ends[1] + margin)),
                                                         strict=True)]  # fmt: skip
    mark = None if truth is None else torch.as_tensor(truth, dtype=torch.float64).tolist()
    titles = [_title(name, (units or [""] * K)[k], labels) for k, name in enumerate(names)]
    figure = _figure(1.2 + 1.75 * K, 1.0 + 1.65 * K)
    grid: Any = figure.subplots(K, K, squeeze=False)
    for i in range(K):
        for j in range(K):
            axes = grid[i][j]
            if j > i:
                axes.axis("off")
                continue
            for colour, values in zip(COLOURS, draws.values(), strict=False):
                x = values.double().numpy()
                if i == j:
                    axes.hist(x[:, i], edges[i], density=True, histtype="step", color=colour, linewidth=1.4)
                else:
                    _contours(axes, x[:, j], x[:, i], edges[j], edges[i], colour)
            if mark is not None:
                axes.axvline(mark[j], color=GREY, linewidth=0.9, linestyle="--")
                if i != j:
                    axes.axhline(mark[i], color=GREY, linewidth=0.9, linestyle="--")
            _ticks(axes, i, j, K, titles, edges)
    handles = _handles(draws, mark is not None)
    if len(handles) > 1:
        figure.legend(handles=handles, loc="upper right", frameon=False, fontsize=11, bbox_to_anchor=(0.98, 0.97))
    return figure


def _ticks(axes: Any, i: int, j: int, K: int, titles: list[str], edges: list[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(edges[j][0], edges[j][-1])
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if i != j:
        axes.set_ylim(edges[i][0], edges[i][-1])
        axes.yaxis.set_major_locator(MaxNLocator(3))
    else:
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.ticklabel_format(useOffset=False, scilimits=(-3, 4))
    axes.xaxis.get_offset_text().set_fontsize(7)
    axes.yaxis.get_offset_text().set_fontsize(7)
    if i == K - 1:
        axes.set_xlabel(titles[j], fontsize=9)
        axes.tick_params(axis="x", labelrotation=30)
    else:
        axes.set_xticklabels([])
        axes.xaxis.get_offset_text().set_visible(False)
    if j == 0 and i > 0:
        axes.set_ylabel(titles[i], fontsize=9)
    elif i != j:
        axes.set_yticklabels([])
        axes.yaxis.get_offset_text().set_visible(False)


def _contours(axes: Any, x: Any, y: Any, x_edges: Any, y_edges: Any, colour: str) -> None:
    """Levels that hold 68 and 95 % of the draws, of a histogram smoothed over neighbouring bins."""
    counts, _, _ = np.histogram2d(x, y, [x_edges, y_edges])
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    for axis in (0, 1):
        counts = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), axis, counts)
    ordered = np.sort(counts.ravel())[::-1]
    share = np.cumsum(ordered) / max(ordered.sum(), 1e-300)
    levels = sorted({float(ordered[np.searchsorted(share, level)]) for level in LEVELS})
    if levels[0] <= 0 or levels[-1] >= ordered[0]:
        return
    middles = [(e[1:] + e[:-1]) / 2 for e in (x_edges, y_edges)]
    axes.contour(*middles, counts.T, levels=levels, colors=colour, linewidths=(0.9, 1.5)[-len(levels) :])


def _handles(draws: Mapping[str, Tensor], truth: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=c, linewidth=1.6, label=name) for c, name in zip(COLOURS, draws, strict=False)]
    return lines + ([Line2D([], [], color=GREY, linestyle="--", label="truth")] if truth else [])


def _title(name: str, unit: str, labels: Mapping[str, str] | None) -> str:
    text = (labels or {}).get(name, name)
    unit = re.sub(r"\bus\b", "µs", unit.replace("cm2", "cm²").replace("cm3", "cm³"))
    return f"{text} [{unit}]" if unit and unit != "1" else text


def ranks(result: "SBC") -> "Figure":
    """Histograms of the ranks of each parameter, with the band of 99 % of a binomial count."""
    K = len(result.names)
    columns = min(K, 3)
    rows = -(-K // columns)
    figure = _figure(1 + 3.2 * columns, 0.8 + 2.3 * rows)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    n, bins = len(result.ranks), result.bins
    low, high = _binomial_band(n, 1 / bins, 0.99)
    edges = np.linspace(0, 1, bins + 1)
    for k, axes in enumerate(grid.ravel()):
        if k >= K:
            axes.axis("off")
            continue
        axes.axhspan(low, high, color="#DDDDDD", linewidth=0, label="99 % of calibrated counts")
        axes.axhline(n / bins, color=GREY, linewidth=0.8)
        axes.stairs(result.counts[:, k].numpy(), edges, color=COLOURS[0], linewidth=1.4, baseline=None)
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="rank / (draws + 1)")
        if k % columns == 0:
            axes.set_ylabel("simulations per bin")
        chi2, ks = float(result.chi2_p[k]), float(result.ks_p[k])
        axes.set_title(f"{result.names[k].replace('_', ' ')}: p = {chi2:.2g} ($\\chi^2$), {ks:.2g} (KS)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    grid[0][0].legend(fontsize=8, frameon=False, loc="lower center")
    return figure


def _binomial_band(n: int, p: float, level: float) -> tuple[float, float]:
    k = torch.arange(n + 1, dtype=torch.float64)
    q = torch.tensor(p, dtype=torch.float64)
    log = torch.lgamma(torch.tensor(n + 1.0).double()) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    cumulative = (log + k * q.log() + (n - k) * torch.log1p(-q)).exp().cumsum(0)
    ends = torch.searchsorted(cumulative, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return float(ends[0]) - 0.5, float(ends[1]) + 0.5


def coverage(result: "TARP") -> "Figure":
    """Expected coverage against credibility: on the diagonal where the posterior is right, below where too narrow."""
    figure = _figure(4.4, 4.2)
    axes = figure.add_subplot()
    alpha = result.alpha.numpy()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    axes.fill_between(alpha, *result.band.numpy(), color=COLOURS[0], alpha=0.25, linewidth=0, label="95 %, bootstrap")
    axes.plot(alpha, result.coverage.numpy(), color=COLOURS[0], linewidth=1.6, label=f"p = {result.p_value:.2g}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="credibility", ylabel="expected coverage", aspect="equal")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
