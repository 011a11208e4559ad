"""The figure of a fit. matplotlib is loaded here only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .residuals import CHARGE, TIME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .result import FitResult


def overview(result: FitResult) -> Figure:
    """Four panels: parameters, objective, correlations, residuals."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot() needs matplotlib: pip install hepops[plot]") from None
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    _parameters(axes[0, 0], result)
    _objective(axes[0, 1], result)
    _correlations(figure, axes[1, 0], result)
    _residuals(axes[1, 1], result)
    return figure


def _parameters(axes: Axes, result: FitResult) -> None:
    """Distance of each parameter from where it ended; every start in its own line."""
    floor = 1e-12
    for start in range(len(result.starts)):
        path = result.path(start)
        scale = result.values.abs().clamp_min(1e-300)
        distance = ((path - result.values).abs() / scale).clamp_min(floor)
        for k, name in enumerate(result.names):
            best = start == result.best
            axes.plot(
                range(len(path)),
                distance[:, k].tolist(),
                color=f"C{k}",
                alpha=1.0 if best else 0.25,
                marker="o" if best else None,
                markersize=3,
                label=name if best else None,
            )
    axes.set(yscale="log", xlabel="iteration", ylabel="|p / p(end) - 1|", title="parameters", ylim=(floor / 2, None))
    axes.legend(fontsize="small")


def _objective(axes: Axes, result: FitResult) -> None:
    for start in range(len(result.starts)):
        steps = [step for step in result.trace if step.start == start]
        alpha = 1.0 if start == result.best else 0.25
        values = [max(s.value, 1e-300) for s in steps]
        axes.plot([s.iteration - 1 for s in steps], values, marker=".", color="C0", alpha=alpha)
    changes = {s.iteration - 1: s.stage for s in result.trace if s.start == result.best and s.stage}
    if changes:
        axes.axvline(min(changes) - 0.5, color="grey", linestyle=":", label="next stage")
        axes.legend(fontsize="small")
    axes.set(yscale="log", xlabel="iteration", ylabel="F", title="objective")


def _correlations(figure: Figure, axes: Axes, result: FitResult) -> None:
    matrix = result.correlations
    image = axes.imshow(matrix.numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
    figure.colorbar(image, ax=axes)
    ticks = range(len(result.names))
    axes.set_xticks(ticks, result.names, rotation=30, ha="right")
    axes.set_yticks(ticks, result.names)
    for i in ticks:
        for j in ticks:
            dark = abs(float(matrix[i, j])) > 0.6
            axes.text(j, i, f"{float(matrix[i, j]):.2f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_title("correlations")


def _residuals(axes: Axes, result: FitResult) -> None:
    spread = float(result.residuals.abs().max()) if len(result.residuals) else 1.0
    limit = min(max(spread, 1e-300), 8.0)  # what lies beyond is drawn in the last bin
    for kind, name in ((CHARGE, "charge"), (TIME, "time")):
        r = result.residuals[result.kinds == kind].clamp(-limit, limit)
        axes.hist(r.tolist(), bins=60, range=(-limit, limit), histtype="step", label=f"{name} ({len(r)})")
    axes.set(yscale="log", xlabel="(simulated - measured) / sigma", ylabel="number", title="residuals")
    axes.legend(fontsize="small")
