"""Plots of an integration."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .result import Result

# Okabe and Ito; stages have markers of their own, too
_INK, _BAND, _MARK = "#0072B2", "#A6CBE3", "#D55E00"
_STAGES = (("#E69F00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#56B4E9", "D"), ("#999999", "P"))


def figure(result: "Result", path: str | Path | None, truth: float | None) -> Any:
    """Four kinds of panel: iterations, learning, weights, and up to three pairs of axes."""
    from matplotlib.figure import Figure

    dim = result.samples.shape[1]
    pairs = _pairs(result, dim)
    columns = max(3, len(pairs))
    fig = Figure(figsize=(4.2 * columns, 7.4), layout="constrained")
    axes = fig.subplots(2, columns, squeeze=False)
    _iterations(axes[0, 0], result, truth)
    _learning(axes[0, 1], result)
    _weights(axes[0, 2], result)
    for axis in axes[0, 3:]:
        axis.axis("off")
    for column in range(columns):
        if column < len(pairs):
            _projection(axes[1, column], fig, result, *pairs[column])
        elif dim == 1 and column == 0:
            _line(axes[1, column], result)
        else:
            axes[1, column].axis("off")
    if path is not None:
        fig.savefig(path, dpi=110)
    return fig


def _iterations(axis: Any, result: "Result", truth: float | None) -> None:
    means = [float(part.mean[0]) for part in result.iterations]
    errors = [float(part.sdev[0]) for part in result.iterations]
    mean, sdev = (float(torch.as_tensor(v).reshape(-1)[0]) for v in (result.mean, result.sdev))
    axis.axhspan(mean - sdev, mean + sdev, color=_BAND, lw=0, label="all iterations")
    axis.errorbar(range(len(means)), means, errors, fmt="o", ms=4, color=_INK, capsize=2, label="each")
    if truth is not None:
        axis.axhline(truth, color=_MARK, lw=1, label="truth")
    axis.set(xlabel="iteration", ylabel="estimate", title=f"chi2/dof = {result.chi2:.2f}/{result.dof}")
    axis.ticklabel_format(useOffset=False, axis="y")
    axis.margins(y=0.25)  # room for the legend
    axis.legend(fontsize=7, ncols=3, columnspacing=1, handlelength=1.2)


def _learning(axis: Any, result: "Result") -> None:
    stages: dict[str, list[tuple[float, float]]] = {}
    for step in result.history:
        if isinstance(step.get("ess"), float) and "evaluations" in step:
            stages.setdefault(str(step.get("stage", "")), []).append((step["evaluations"], step["ess"]))
    for (name, points), (colour, marker) in zip(stages.items(), _STAGES * len(stages), strict=False):
        axis.plot(*zip(*points, strict=True), marker=marker, color=colour, ms=4, lw=1, label=name)
    axis.axhline(result.ess, color="black", ls="--", lw=1, label="estimate")
    axis.set(
        xlabel="evaluations",
        ylabel="effective sample size / samples",
        ylim=(0, 1.02),
        title=f"learning: {result.proposal}",
    )
    axis.locator_params(axis="x", nbins=5)
    axis.legend(fontsize=8)


def _weights(axis: Any, result: "Result") -> None:
    size = _size(result)
    positive = size[size > 0]
    axis.set(
        xlabel=r"log$_{10}$(|weight| / mean), least $-6$",
        ylabel="samples",
        title=f"{len(size) - len(positive)} of {len(size)} zero",
    )
    if len(positive):
        axis.hist((positive / size.mean()).log10().clamp(min=-6).numpy(), bins=60, color=_INK)
        axis.set_yscale("log")


def _projection(axis: Any, fig: Any, result: "Result", i: int, j: int) -> None:
    """Where samples fall (their |f| is told by colour: the mean of |w| in a cell is |f| summed over the other axes)."""
    size = _size(result)
    x = result.samples
    shown = axis.hexbin(x[:, i].numpy(), x[:, j].numpy(), size.numpy(), reduce_C_function=sum, gridsize=45,
                        cmap="viridis", mincnt=1, linewidths=0)  # fmt: skip
    shown.set_array(shown.get_array() / float(size.sum()))
    shown.autoscale()
    keep = slice(0, 400)
    axis.plot(x[keep, i].numpy(), x[keep, j].numpy(), ".", ms=1.5, color="w", alpha=0.7)
    axis.set(xlabel=f"x[{i}]", ylabel=f"x[{j}]", title="|f| (colour) and samples (dots)")
    fig.colorbar(shown, ax=axis, shrink=0.85, label="share of the integral in a cell")


def _line(axis: Any, result: "Result") -> None:
    """One axis: the density of samples, and |f| over its integral."""
    size, x = _size(result), result.samples[:, 0].numpy()
    axis.hist(x, bins=60, density=True, color=_BAND, label="samples")
    axis.hist(x, bins=60, weights=size.numpy(), density=True, histtype="step", color=_INK, label="|f|")
    axis.set(xlabel="x[0]", ylabel="density")
    axis.legend(fontsize=8)


def _size(result: "Result") -> torch.Tensor:
    return result.weights.norm(dim=1) if result.weights.shape[1] > 1 else result.weights[:, 0].abs()


def _pairs(result: "Result", dim: int, most: int = 3) -> list[tuple[int, int]]:
    """The pairs of axes that are correlated most under |f|, else the first ones."""
    if dim < 2:
        return []
    size = _size(result)
    p = size / size.sum().clamp(min=1e-300)
    ranks = result.samples.argsort(0).argsort(0).to(torch.float64)
    apart = ranks - p @ ranks
    covariance = (p[:, None] * apart).T @ apart
    spread = covariance.diagonal().clamp(min=1e-12).sqrt()
    strength = (covariance / (spread[:, None] * spread)).abs()
    every = [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    return sorted(every, key=lambda ij: -float(strength[ij].nan_to_num(0.0)))[:most]
