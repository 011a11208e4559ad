"""Figures of a fitted density; matplotlib is loaded when the first is drawn."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .tables import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .density import Density

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"


def corner(
    density: "Density",
    table: Any = None,
    *,
    columns: Sequence[str] | None = None,
    samples: int = 20_000,
    bins: int = 50,
    seed: int = 0,
    labels: Mapping[str, str] | None = None,
) -> "Figure":
    """Samples of the density over data: histograms of each column, contours of each pair.

    Args:
        density: Whose samples.
        table: Data, as of `Density.fit`; None: samples alone.
        columns: Which; None: all.
        samples: How many.
        bins: In each direction.
        seed: Of the samples.
        labels: What to write for a column, with its unit, which a table does not know: {"pt": "$p_T$ [GeV]"}.

    Raises:
        ValueError: a column that the density has not.
        ImportError: matplotlib is not installed.
    """
    names = list(density.names if columns is None else columns)
    missing = [n for n in names if n not in density.names]
    if missing:
        raise ValueError(f"columns: no {', '.join(missing)} in the density, which has {', '.join(density.names)}")
    drawn = density.sample(samples, seed=seed)
    data = None if table is None else read_table(table, density.names)
    D, words = len(names), dict(labels or {})
    if unknown := sorted(set(words) - set(density.names)):
        raise ValueError(f"labels: no {', '.join(unknown)} in the density, which has {', '.join(density.names)}")
    figure, axes = _figure(2.0 * D + 0.6, 2.0 * D + 0.6, D, D)
    edges = {n: _edges(density, n, drawn[n] if data is None else data[n], bins) for n in names}
    for row, y in enumerate(names):
        for column, x in enumerate(names):
            axis = axes[row][column]
            if column > row:
                axis.set_axis_off()
                continue
            if column == row:
                if data is not None:
                    axis.hist(data[x], edges[x], density=True, color=GREY, alpha=0.45)
                axis.hist(drawn[x], edges[x], density=True, histtype="step", color=BLUE, lw=1.3)
                axis.set_yticks([])
            else:
                if data is not None:
                    counts, *_ = np.histogram2d(data[x], data[y], [edges[x], edges[y]])
                    colour = np.ma.masked_equal(counts.T, 0)
                    axis.pcolormesh(edges[x], edges[y], np.log1p(colour), cmap="Greys", rasterized=True)
                _contours(axis, drawn[x], drawn[y], edges[x], edges[y])
            axis.set_xlim(edges[x][0], edges[x][-1])
            axis.tick_params(labelsize=7)
            if row == D - 1:
                axis.set_xlabel(words.get(x, x), fontsize=8)
            else:
                axis.set_xticklabels([])
            if column == 0 and row > 0:
                axis.set_ylabel(words.get(y, y), fontsize=8)
            elif column < row:
                axis.set_yticklabels([])
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=BLUE, label="density: 30, 68, 95, 99 % of its samples")]
    handles += [] if data is None else [Patch(color=GREY, alpha=0.6, label="data")]
    figure.legend(handles=handles, loc="upper right", frameon=False)
    return figure


def log_prob_histogram(
    density: "Density",
    tables: Mapping[str, Any] | None = None,
    *,
    samples: int = 20_000,
    bins: int = 80,
    seed: int = 0,
) -> "Figure":
    """ln p of samples of the density and of the rows that were held out, which agree where the fit is good.

    Args:
        density: Whose ln p.
        tables: Others by name, such as a signal.
        samples: How many.
        bins: Of the histogram; the first one holds what lies below, too.
        seed: Of the samples.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = {"samples": density.log_prob(density.sample(samples, seed=seed, form="numpy")).numpy()}
    weights: dict[str, np.ndarray] = {}
    if density.reference is not None:
        shown["held out"], weights["held out"] = (
            density.reference.log_prob.numpy(),
            density.reference.weights.numpy(),
        )
    shown |= {name: density.log_prob(table).numpy() for name, table in (tables or {}).items()}
    finite = {name: v[np.isfinite(v)] for name, v in shown.items()}
    low = min(np.quantile(v, 0.002) for v in finite.values() if len(v))
    high = max(v.max() for v in finite.values() if len(v))
    edges = np.linspace(low, high, bins + 1)
    figure, axes = _figure(6.4, 4.2, 1, 1)
    axis = axes[0][0]
    for (name, v), colour in zip(shown.items(), (BLUE, GREY, ORANGE, GREEN, PURPLE) * len(shown), strict=False):
        w = weights.get(name, np.ones(len(v)))
        style = (
            {"color": colour, "alpha": 0.45} if name == "held out" else {"color": colour, "histtype": "step", "lw": 1.3}
        )
        axis.hist(np.clip(v, low, high), edges, weights=w / w.sum(), label=f"{name} ({len(v)})", **style)
    axis.set(xlabel="ln p", ylabel="share per bin", yscale="log")
    axis.legend(frameon=False, loc="upper left")
    return figure


def roc(density: "Density", table: Any, labels: Any) -> "Figure":
    """Share of the anomalies that are found against the share of the others that are taken for some.

    Args:
        density: Small values of it are called anomalous.
        table: Rows, as of `Density.log_prob`.
        labels: 1 for an anomaly, 0 else, (N).

    Raises:
        ValueError: labels that do not fit, or of one kind only.
        ImportError: matplotlib is not installed.
    """
    anomalous = np.asarray(labels).astype(bool)
    log_p = density.log_prob(table).numpy()
    if anomalous.shape != log_p.shape:
        raise ValueError(f"labels must have shape {log_p.shape}, got {anomalous.shape}")
    if anomalous.all() or not anomalous.any():
        raise ValueError(f"labels must be of both kinds, got {int(anomalous.sum())} anomalies among {len(log_p)} rows")
    false, true, area = curve(log_p, anomalous)
    figure, axes = _figure(8.6, 4.0, 1, 2)
    for axis, scale in zip(axes[0], ("linear", "log"), strict=True):
        least = 0.5 / (~anomalous).sum()
        shown = false > 0 if scale == "log" else false >= 0
        axis.plot(false[shown], true[shown], color=BLUE, label=f"area {area:.3f}")
        line = np.geomspace(least, 1, 100) if scale == "log" else np.linspace(0, 1, 2)
        axis.plot(line, line, color=GREY, lw=0.8, ls="--", label="chance")
        axis.set(xlabel="false positives", ylabel="anomalies found", xscale=scale, ylim=(0, 1.02))
        axis.set_xlim(least if scale == "log" else -0.02, 1.02)
    axes[0][0].legend(frameon=False, loc="lower right")
    return figure


def curve(log_p: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Shares of others and of anomalies at or below each value of ln p, and the area, in which ties count half."""
    values, at = np.unique(log_p, return_inverse=True)
    counts = [np.bincount(at[pick], minlength=len(values)) for pick in (~anomalous, anomalous)]
    false, true = (np.concatenate([[0.0], np.cumsum(c) / c.sum()]) for c in counts)
    return false, true, float(((true[1:] + true[:-1]) / 2 * np.diff(false)).sum())


def _figure(width: float, height: float, rows: int, columns: int) -> tuple["Figure", Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install hepops[plot]") from None
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _edges(density: "Density", name: str, values: np.ndarray, bins: int) -> np.ndarray:
    column = density.columns[density.names.index(name)]
    if column.kind in ("periodic", "bounded"):
        return np.linspace(column.low, column.high, bins + 1)
    low, high = np.quantile(values, [0.001, 0.999])
    if column.kind == "integer":
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.5, max(1, round((high - low) / bins)))
    return np.linspace(low, high, bins + 1)


def _contours(axis: Any, x: np.ndarray, y: np.ndarray, across: np.ndarray, up: np.ndarray) -> None:
    counts, *_ = np.histogram2d(x, y, [across, up])
    for _ in range(3):  # binomial smoothing: the noise of single bins would hide the shape
        for axes in (0, 1):
            wide = np.pad(counts, [(1, 1) if a == axes else (0, 0) for a in (0, 1)], mode="edge")
            a, b, c = (np.take(wide, range(i, i + counts.shape[axes]), axes) for i in (0, 1, 2))
            counts = (a + 2 * b + c) / 4
    flat = np.sort(counts.ravel())[::-1]
    held = np.cumsum(flat) / max(flat.sum(), 1)
    levels = sorted(
        {float(flat[min(int(np.searchsorted(held, share)), len(flat) - 1)]) for share in (0.3, 0.68, 0.95, 0.99)}
    )
    levels = [level for level in levels if 0 < level < flat[0]]
    if levels:
        centres = [(e[1:] + e[:-1]) / 2 for e in (across, up)]
        axis.contour(*centres, counts.T, levels=levels, colors=BLUE, linewidths=0.8)
