"""Figures of a training and of labelled events; style and colours are those of `hepops.lartpc.plot`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hepops.lartpc.plot import BLUE, CHARGE_MAP, FAINT, GREEN, GREY, ORANGE, PURPLE, RED, _figure, _frame, _label

from .sample import CLASSES, Sample
from .score import Score
from .training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR = dict(zip(CLASSES, (BLUE, ORANGE, GREEN, PURPLE), strict=True))
NAMES = dict(zip(CLASSES, ("muon", "proton", "delta ray", "shower"), strict=True))
NOISE = FAINT
PITCH = 0.4434  # module0's voxel [cm]


def event_display(event: Sample, given: Tensor, pitch: float = PITCH) -> "Figure":
    """One event three times, in space and seen along the drift: its charge, the true classes, those that were given.

    Args:
        event: Voxels of one event.
        given: Class of each voxel, int64 (num_voxels).
        pitch: Side of a voxel [cm].

    Raises:
        ValueError: none, or more than one event; or `given` does not fit.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    if len(event.events) != 1:
        raise ValueError(f"event must be one event, got {len(event.events)}")
    if given.shape != event.label.shape:
        raise ValueError(f"given must be {tuple(event.label.shape)}, one class per voxel, got {tuple(given.shape)}")
    import_module("mpl_toolkits.mplot3d")  # registers the projection
    score = Score.of(event.label, given)
    place = (event.coordinates[:, 1:].double().numpy() + 0.5) * pitch
    charge = event.charge.numpy()
    low = max(float(np.percentile(charge, 2)), 1.0)
    scale = LogNorm(low, max(float(charge.max()), 2 * low))
    truth, named = (
        np.array([COLOUR[CLASSES[c]] if c >= 0 else NOISE for c in row.tolist()]) for row in (event.label, given)
    )
    wrong = ((event.label != given) & (event.label >= 0)).numpy()

    figure = _figure(13.2, 9.6)
    grid = figure.add_gridspec(2, 3, height_ratios=[1.05, 1.0])
    # Rare classes are drawn last, so that they are not hidden under the frequent ones.
    counts = event.class_counts().tolist()
    rank = np.array([counts[c] if c >= 0 else 10**9 for c in event.label.tolist()])
    orders = (np.argsort(charge, kind="stable"), *[np.argsort(-rank, kind="stable")] * 2)
    titles = ("charge", "truth", f"network: {100 * score.accuracy:.1f} % right")
    limits = _limits(place)
    flats: list[Any] = []
    for column, (title, order) in enumerate(zip(titles, orders, strict=True)):
        space: Any = figure.add_subplot(grid[0, column], projection="3d")
        flat = figure.add_subplot(grid[1, column])
        style: dict[str, Any] = {"c": (charge, truth, named)[column][order]}
        if column == 0:
            style |= {"cmap": CHARGE_MAP, "norm": scale}
        x, y, z = place[order].T
        space.scatter(z, x, y, s=5, depthshade=False, linewidths=0, **style)
        image = flat.scatter(z, y, s=_size(limits), marker="s", linewidths=0, **style)
        if column == 2 and wrong.any():
            flat.scatter(place[wrong, 2], place[wrong, 1], s=1.6 * _size(limits) + 4, facecolors="none",
                         edgecolors="black", linewidths=0.3, alpha=0.55, zorder=3)  # fmt: skip
        _space(space, limits)
        space.set_title(title, fontsize=12)
        flat.set(xlabel="z [cm]", aspect="equal", xlim=limits[2], ylim=limits[1])
        if column == 0:
            flat.set_ylabel("y [cm]")
            coloured = image
        flats.append(flat)
        _frame(flat)
    # Of the whole row: taken from one panel alone it would push that one up.
    bar = figure.colorbar(coloured, ax=flats, location="bottom", shrink=0.27, anchor=(0.03, 1.0), pad=0.03, aspect=30)
    _label(bar)
    bar.ax.xaxis.set_minor_formatter(NullFormatter())
    marks = [Line2D([], [], marker="s", linestyle="", color=COLOUR[c], markersize=7, label=NAMES[c]) for c in CLASSES]
    ring = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 7, "linestyle": ""}
    marks.append(Line2D([], [], **ring, label="wrong"))  # type: ignore[arg-type]
    figure.legend(handles=marks, loc="outside lower right", ncols=5, frameon=False, fontsize=11)
    figure.suptitle(f"event {int(event.events[0])}: {len(event)} voxels of {pitch:.4g} cm", fontsize=13)
    return figure


def curves(history: History) -> "Figure":
    """Loss and accuracy against the step, of the training's batches and of the test events; and class by class.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure(13.0, 4.2)
    left, middle, right = figure.subplots(1, 3)
    step = np.array([row["step"] for row in history.steps])
    ends = [row["step"] for row in history.epochs]
    for axes, name, label in ((left, "loss", "loss"), (middle, "accuracy", "accuracy")):
        values = np.array([row[name] for row in history.steps])
        width = max(len(values) // 100, 1)
        axes.plot(step, values, color=FAINT, linewidth=0.7, label="one step")
        if len(values) > 2 * width:
            mean = np.convolve(values, np.ones(width) / width, "valid")
            axes.plot(
                step[width - 1 :],
                mean,
                color=BLUE,
                linewidth=1.6,
                label=f"mean of {width} steps" if width > 1 else None,
            )
        axes.plot(
            ends, [row[f"test_{name}"] for row in history.epochs], "o-", color=RED, markersize=4, label="test events"
        )
        axes.set(xlabel="step", ylabel=label)
        axes.legend(fontsize=9, frameon=False)
    if len(step):
        left.set_yscale("log")
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(NullFormatter())
    for name in CLASSES:
        right.plot(
            ends,
            [row[f"test_{name}"] for row in history.epochs],
            "o-",
            color=COLOUR[name],
            markersize=4,
            label=NAMES[name],
        )
    right.set(xlabel="step", ylabel="accuracy, test events")
    right.legend(fontsize=9, frameon=False)
    for axes in (middle, right):
        axes.set_ylim(top=1.0)
        axes.grid(axis="y", color="#EEEEEE")
    for axes in (left, middle, right):
        _frame(axes)
    return figure


def confusion(score: Score) -> "Figure":
    """Which class the voxels of each true class were given, as shares of the true class, with their number.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure(5.6, 4.9)
    axes = figure.add_subplot()
    shares = (score.matrix.double() / score.matrix.sum(1, keepdim=True).clamp_min(1)).numpy()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = [NAMES[name] for name in CLASSES]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.set(xlabel="given by the network", ylabel="truth")
    for i, row in enumerate(score.matrix.tolist()):
        for j, number in enumerate(row):
            colour = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i - 0.08, f"{100 * shares[i, j]:.1f} %", ha="center", va="center", fontsize=11, color=colour)
            axes.text(
                j,
                i + 0.22,
                f"{number}",
                ha="center",
                va="center",
                fontsize=8,
                color=colour if colour == "white" else GREY,
            )
    axes.set_title(f"{int(score.matrix.sum())} voxels: {100 * score.accuracy:.1f} % right", fontsize=11)
    axes.spines[:].set_visible(False)
    return figure


def _limits(place: Any) -> list[tuple[float, float]]:
    """Ends of the axes: what there is with a margin, no side shorter than 0.4 of the longest."""
    low, high = place.min(0) - 1, place.max(0) + 1
    short = np.maximum(0.4 * (high - low).max() - (high - low), 0) / 2
    return list(zip((low - short).tolist(), (high + short).tolist(), strict=True))


def _size(limits: list[tuple[float, float]]) -> float:
    """Area of a marker [points^2] about as large as a voxel."""
    longest = max(limits[1][1] - limits[1][0], limits[2][1] - limits[2][0])
    return float(np.clip((280 * PITCH / longest) ** 2, 1.5, 40))


def _space(axes: Any, limits: list[tuple[float, float]]) -> None:
    x, y, z = limits
    axes.set(xlim=z, ylim=x, zlim=y)
    sides = np.array([end - begin for begin, end in (z, x, y)])
    axes.set_box_aspect(sides / sides.max(), zoom=0.86)
    axes.set_xlabel("z [cm]", labelpad=-4, fontsize=9)
    axes.set_ylabel("x, drift [cm]", labelpad=-4, fontsize=9)
    axes.set_zlabel("y [cm]", labelpad=-4, fontsize=9)
    axes.view_init(elev=18, azim=-55)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"].update(color="#EEEEEE")
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=7, pad=-3)
