"""Figures of sparse events: features, labels, truth beside prediction. matplotlib is loaded when the first is drawn
(extra `plot`).

Every function returns a matplotlib Figure of its own, not registered with pyplot: show it in a notebook, or save it
with ``figure.savefig("event.pdf")``. Colours are those of Okabe and Ito (classes) and viridis (features), which the
colour-blind tell apart. A projection has one pixel for each voxel, or, where an event is larger than `PIXELS`, for each
block of voxels: thin tracks stay in sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .tensor import SparseTensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

# M. Okabe, K. Ito, Color Universal Design (2008), without yellow, which white paper swallows; then two greys
CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
RIGHT, WRONG, FAINT = "#C8C8C8", "#D55E00", "#E3E3E3"
AXES = "xyzuvw"
PIXELS = 240  # along the longer side of a projection


class _Event(NamedTuple):
    """The voxels of one event on the CPU."""

    number: int
    place: Array  # (n, D) [voxels]
    rows: Tensor  # int64 (n), in the tensor
    stride: Array  # (D)


class _Colouring(NamedTuple):
    """How values become colours: a norm and a map of numbers, or the colour of each class."""

    norm: Any
    colours: Any
    names: Sequence[str] | None


def plot_features(
    x: SparseTensor,
    event: int | None = None,
    *,
    channel: int = 0,
    log: bool = False,
    label: str | None = None,
    projections: bool = True,
) -> Figure:
    """One event, coloured by a feature.

    Args:
        x: voxels of one or more events, D = 1 to 6; of more than three axes the first three are drawn.
        event: batch id; None: the first.
        channel: which feature.
        log: logarithmic colours; values that are not positive are left out.
        label: of the colour bar; by default the channel's number.
        projections: in 3D, also the sums along each axis.

    Returns:
        A Figure: for 3D the event in space and its three projections, for 2D one image, for 1D steps.

    Raises:
        ValueError: no such event or channel, or no voxels to draw.
        ImportError: matplotlib is not installed.

    Example:
        >>> x = SparseTensor(torch.rand(50, 1), torch.arange(50)[:, None] * torch.tensor([[0, 1, 2, 1]]))
        >>> plot_features(x, label="charge").axes[0].name
        '3d'
    """
    found = _event(x, event)
    if not -x.num_channels <= channel < x.num_channels:
        raise ValueError(f"channel must be below {x.num_channels}, got {channel}")
    values = x.features.detach()[found.rows, channel].double().cpu().numpy()
    if log:
        keep = values > 0
        found = found._replace(place=found.place[keep], rows=found.rows[torch.from_numpy(keep)])
        values = values[keep]
    if not len(values):
        raise ValueError(f"event {found.number} has no voxels to draw")
    panels = _panels(found, projections)
    figure, axes = _layout(panels, rows=1)
    colouring = _by_value(values, log)
    for view, ax in zip(panels, axes[0], strict=True):
        # sums along an axis have a scale of their own
        own = _by_value(_project(found, view, values)[0], log) if len(view) == 2 else colouring
        _draw(ax, view, found, values, own)
    _colour_bars(figure, axes[0], panels, label or f"channel {channel % x.num_channels}", found, values, log)
    figure.suptitle(_title(found))
    return figure


def plot_labels(
    x: SparseTensor,
    labels: Tensor,
    event: int | None = None,
    *,
    names: Sequence[str] | None = None,
    projections: bool = True,
) -> Figure:
    """One event, coloured by class; a projected pixel has the most frequent class along its line of sight.

    Args:
        x: voxels of one or more events.
        labels: integer (N) for the rows of x; logits (N, C) count as their largest. Negative ones are drawn faintly.
        event: batch id; None: the first.
        names: of the classes.
        projections: in 3D, also along each axis.

    Returns:
        A Figure.

    Raises:
        ValueError: labels that do not fit the voxels, more than 8 classes, no such event. ImportError: no matplotlib.
    """
    found = _event(x, event)
    values = _labels(labels, x, "labels")[found.rows].numpy()
    colouring = _by_class([values], names)
    panels = _panels(found, projections)
    figure, axes = _layout(panels, rows=1)
    for view, ax in zip(panels, axes[0], strict=True):
        _draw(ax, view, found, values, colouring)
    _legend(figure, colouring, values)
    figure.suptitle(_title(found))
    return figure


def plot_comparison(
    x: SparseTensor,
    truth: Tensor,
    prediction: Tensor,
    event: int | None = None,
    *,
    names: Sequence[str] | None = None,
    view: str = "3d",
) -> Figure:
    """Truth, prediction, and the voxels that differ, side by side, with the share of each class that is right.

    Args:
        x: voxels of one or more events.
        truth, prediction: integer (N) for the rows of x, or logits (N, C). Voxels with negative truth are faint and do
            not count.
        event: batch id; None: the first.
        names: of the classes.
        view: "3d", or the axes to look at, as "xy", "xz", "zy".

    Returns:
        A Figure.

    Raises:
        ValueError: as `plot_labels`, or a view of axes that are not there.

    Example:
        >>> x = SparseTensor(torch.rand(50, 1), torch.arange(50)[:, None] * torch.tensor([[0, 1, 2, 1]]))
        >>> truth, logits = torch.randint(3, (50,)), torch.randn(50, 3)
        >>> [ax.get_title().split(":")[0] for ax in plot_comparison(x, truth, logits, view="xz").axes]
        ['truth', 'prediction', 'wrong']
    """
    found = _event(x, event)
    both = [_labels(v, x, n)[found.rows].numpy() for v, n in ((truth, "truth"), (prediction, "prediction"))]
    colouring = _by_class(both, names)
    panel = _view(view, found)
    figure, axes = _layout([panel] * 3, rows=1)
    counted = both[0] >= 0
    wrong = (both[0] != both[1]) & counted
    _draw(axes[0][0], panel, found, both[0], colouring)
    _draw(axes[0][1], panel, found, both[1], colouring)
    verdict = np.where(counted, wrong, -1).astype(int)
    if len(panel) == 2:
        _shares(axes[0][2], panel, found, wrong, counted)
    else:
        _draw(axes[0][2], panel, found, verdict, _Colouring(None, (RIGHT, WRONG), ("right", "wrong")))
    share = 1 - wrong.sum() / max(counted.sum(), 1)
    for ax, title in zip(axes[0], ("truth", "prediction", f"wrong: {wrong.sum()} of {counted.sum()}"), strict=True):
        ax.set_title(title, fontsize=10)
    _legend(figure, colouring, both[0], both[1])
    figure.suptitle(f"{_title(found)}, {100 * share:.1f} % right")
    return figure


# Events and panels


def _event(x: SparseTensor, event: int | None) -> _Event:
    batch = x.coordinates[:, 0]
    if not len(batch):
        raise ValueError("the sparse tensor has no voxels to draw")
    number = int(batch.min()) if event is None else int(event)
    rows = (batch == number).nonzero()[:, 0].cpu()
    if not len(rows):
        raise ValueError(f"event {number} is not there; the batch ids are {batch.unique().tolist()[:12]}")
    place = x.coordinates[:, 1:4].cpu()[rows].numpy()
    return _Event(number, place, rows, np.array(x.stride[:3]))


def _labels(labels: Tensor, x: SparseTensor, name: str) -> Tensor:
    labels = labels.detach().cpu()
    if labels.dim() == 2 and labels.is_floating_point():
        labels = labels.argmax(1)
    if labels.shape != (len(x),) or labels.is_floating_point():
        raise ValueError(f"{name} must be integer ({len(x)},), or logits ({len(x)}, C), got {labels.dtype} "
                         f"{tuple(labels.shape)}")  # fmt: skip
    return labels.long()


def _panels(found: _Event, projections: bool) -> list[tuple[int, ...]]:
    """The axes of each panel."""
    D = found.place.shape[1]
    if D < 3:
        return [tuple(range(D))]
    return [(0, 1, 2), *([(0, 1), (0, 2), (2, 1)] if projections else [])]


def _view(view: str, found: _Event) -> tuple[int, ...]:
    D = found.place.shape[1]
    if view == "3d":
        return tuple(range(D))
    axes = tuple(AXES.find(letter) for letter in view)
    if len(axes) != 2 or len(set(axes)) != 2 or not all(0 <= a < D for a in axes):
        raise ValueError(f"view must be '3d' or two of the axes {AXES[:D]!r}, got {view!r}")
    return axes


def _layout(panels: Sequence[tuple[int, ...]], rows: int) -> tuple[Figure, list[list[Any]]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install hepops[plot]") from None
    import_module("mpl_toolkits.mplot3d")  # registers the projection
    widths = [1.25 if len(view) == 3 else 1.0 for view in panels]
    figure = Figure(figsize=(3.6 * sum(widths) + 0.6, 4.3 * rows), dpi=110)
    figure.set_layout_engine("constrained", h_pad=0.09)
    grid = figure.add_gridspec(rows, len(panels), width_ratios=widths)
    kinds: list[dict[str, Any]] = [{"projection": "3d"} if len(view) == 3 else {} for view in panels]
    return figure, [[figure.add_subplot(grid[r, c], **kinds[c]) for c in range(len(panels))] for r in range(rows)]


def _title(found: _Event) -> str:
    return f"event {found.number}: {len(found.place):,} voxels".replace(",", " ")


# Colours


def _by_value(values: Array, log: bool) -> _Colouring:
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return _Colouring((LogNorm if log else Normalize)(low, high), "viridis", None)


def _by_class(values: Sequence[Array], names: Sequence[str] | None) -> _Colouring:
    number = max([int(v.max(initial=-1)) for v in values]) + 1
    if number > len(CLASSES):
        raise ValueError(f"at most {len(CLASSES)} classes can be told apart, got label {number - 1}")
    if names is not None and len(names) < number:
        raise ValueError(f"names must be {number} or more, got {list(names)}")
    names = list(names) if names is not None else [f"class {i}" for i in range(number)]
    return _Colouring(None, CLASSES, names)


def _rgb(labels: Array, colours: Sequence[str]) -> Array:
    from matplotlib.colors import to_rgba_array

    table = np.concatenate([to_rgba_array(colours), to_rgba_array([FAINT])])
    return table[labels]  # -1 is the last


# Panels


def _draw(ax: Axes, view: tuple[int, ...], found: _Event, values: Array, colouring: _Colouring) -> None:
    if len(view) == 3:
        _space(ax, found, values, colouring)
    elif len(view) == 2:
        _image(ax, view, found, values, colouring)
    else:
        _steps(ax, found, values, colouring)


def _space(ax: Any, found: _Event, values: Array, colouring: _Colouring) -> None:
    c = found.place + 0.5 * found.stride
    size = float(np.clip(9000 / len(c), 0.8, 14))
    common: dict[str, Any] = {"s": size, "marker": "s", "linewidths": 0, "depthshade": False}
    if colouring.norm is None:
        colours = _rgb(np.maximum(values, -1), colouring.colours)
        colours[values < 0, 3] = 0.35
        ax.scatter(*c.T, c=colours, **common)
    else:
        ax.scatter(*c.T, c=values, cmap=colouring.colours, norm=colouring.norm, **common)
    low, high = _box(found)
    for a, axis in enumerate("xyz"):
        getattr(ax, f"set_{axis}lim")(low[a], high[a])
        getattr(ax, f"set_{axis}label")(f"{axis} [voxels]", fontsize=8, labelpad=-4)
        getattr(ax, f"{axis}axis").set_pane_color((0.97, 0.97, 0.97, 1.0))
    ax.tick_params(labelsize=7, pad=-2)
    ax.locator_params(nbins=5)
    extent = high - low
    ax.set_box_aspect(np.maximum(extent / extent.max(), 0.25), zoom=0.95)


def _box(found: _Event) -> tuple[Array, Array]:
    """The event's box [voxels], with a margin of a twentieth."""
    low, high = found.place.min(0), found.place.max(0) + found.stride
    margin = np.maximum(0.05 * (high - low), found.stride)
    return low - margin, high + margin


def _project(found: _Event, view: tuple[int, ...], values: Array) -> tuple[Array, Array, Array, Array, int]:
    """Sums over the pixels that are hit (n): sums, cells (n, 2), the corner, a pixel's size, voxels along its side."""
    axes = list(view)
    low, stride = found.place[:, axes].min(0), found.stride[axes]
    cell = (found.place[:, axes] - low) // stride
    block = int(np.ceil((cell.max(0) + 1).max() / PIXELS))
    cells, where = np.unique(cell // block, axis=0, return_inverse=True)
    sums = np.zeros(len(cells))
    np.add.at(sums, where.reshape(-1), values)
    return sums, cells, low.astype(float), (stride * block).astype(float), block


def _image(ax: Axes, view: tuple[int, ...], found: _Event, values: Array, colouring: _Colouring) -> None:
    if colouring.norm is None:
        shown, cells, low, pixel, block = _majority(found, view, values)
        colours = _rgb(shown, colouring.colours)
    else:
        shown, cells, low, pixel, block = _project(found, view, values)
        colours = None
    if colours is None:
        image: Array = np.full(cells.max(0) + 1, np.nan)
        image[tuple(cells.T)] = shown
        _pixels(ax, view, found, image, low, pixel, block, cmap=colouring.colours, norm=colouring.norm)
    else:
        _pixels(ax, view, found, _canvas(cells, colours), low, pixel, block)


def _shares(ax: Axes, view: tuple[int, ...], found: _Event, wrong: Array, counted: Array) -> None:
    """From grey to WRONG by the share of each pixel's voxels that are."""
    from matplotlib.colors import to_rgba_array

    number, cells, low, pixel, block = _project(found, view, counted.astype(float))
    share = (_project(found, view, wrong.astype(float))[0] / np.maximum(number, 1))[:, None]
    right, bad, faint = to_rgba_array([RIGHT, WRONG, FAINT])
    colours = np.where(number[:, None] > 0, (1 - share) * right + share * bad, faint)
    _pixels(ax, view, found, _canvas(cells, colours), low, pixel, block)


def _canvas(cells: Array, colours: Array) -> Array:
    image = np.ones((*(cells.max(0) + 1), 4))
    image[tuple(cells.T)] = colours
    return image


def _pixels(
    ax: Axes,
    view: tuple[int, ...],
    found: _Event,
    image: Array,
    low: Array,
    pixel: Array,
    block: int,
    **mapping: Any,
) -> None:
    shape = image.shape
    extent = (low[0], low[0] + shape[0] * pixel[0], low[1], low[1] + shape[1] * pixel[1])
    ax.imshow(image.swapaxes(0, 1), origin="lower", extent=extent, interpolation="nearest", aspect="equal", **mapping)
    box = _box(found)
    ax.set_xlim(box[0][view[0]], box[1][view[0]])
    ax.set_ylim(box[0][view[1]], box[1][view[1]])
    ax.set_xlabel(f"{AXES[view[0]]} [voxels]", fontsize=8)
    ax.set_ylabel(f"{AXES[view[1]]} [voxels]", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.locator_params(nbins=5)
    if block > 1:
        ax.text(
            0.98, 0.02, f"pixel: {block} x {block} voxels", transform=ax.transAxes, ha="right", fontsize=6, color="0.45"
        )


def _majority(found: _Event, view: tuple[int, ...], labels: Array) -> tuple[Array, Array, Array, Array, int]:
    """The most frequent label of each pixel; of equally frequent ones the lowest, faint ones only by themselves."""
    best, chosen, made = None, None, None
    for label in [int(v) for v in np.unique(labels) if v >= 0]:
        made = _project(found, view, (labels == label).astype(float))
        better = made[0] > 0 if best is None else made[0] > best
        chosen = np.where(better, label, -1 if chosen is None else chosen)
        best = made[0] if best is None else np.maximum(best, made[0])
    if made is None or chosen is None:
        made = _project(found, view, np.zeros(len(labels)))
        chosen = np.full(len(made[0]), -1)
    return (chosen, *made[1:])


def _steps(ax: Axes, found: _Event, values: Array, colouring: _Colouring) -> None:
    order = np.argsort(found.place[:, 0])
    place, values = found.place[order, 0], values[order]
    width = float(found.stride[0])
    if colouring.norm is None:
        ax.bar(place, 1, width, align="edge", color=_rgb(np.maximum(values, -1), colouring.colours))
        ax.set_yticks([])
    else:
        ax.bar(place, values, width, align="edge", color=CLASSES[0])
    ax.set_xlabel("x [voxels]", fontsize=8)
    ax.tick_params(labelsize=7)


# Keys


def _colour_bars(
    figure: Figure, axes: Sequence[Any], panels: Sequence[Any], label: str, found: _Event, values: Array, log: bool
) -> None:
    from matplotlib.cm import ScalarMappable

    for ax, view in zip(axes, panels, strict=True):
        if len(view) == 1:
            ax.set_ylabel(label, fontsize=8)
            if log:
                ax.set_yscale("log")
            continue
        text, sums = label, values
        if len(view) == 2:
            sums, *_, block = _project(found, view, values)
            if found.place.shape[1] == 3:
                text = f"sum of {label} along {AXES[3 - sum(view)]}"
            elif block > 1:
                text = f"sum of {label} in a pixel"
        colouring = _by_value(sums, log)
        bar = figure.colorbar(
            ScalarMappable(colouring.norm, colouring.colours),
            ax=ax,
            location="bottom",
            shrink=0.75,
            aspect=28,
            pad=0.02,
        )
        bar.set_label(text, fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _legend(figure: Figure, colouring: _Colouring, truth: Array, prediction: Array | None = None) -> None:
    """Colours of the classes that occur, with their number of voxels, or the share that was found."""
    from matplotlib.lines import Line2D

    assert colouring.names is not None
    handles = []
    for label, name in enumerate(colouring.names):
        number = int((truth == label).sum())
        if prediction is None:
            text = f"{name} ({number})"
            there = number
        else:
            counted = truth >= 0
            right = int(((truth == label) & (prediction == label)).sum())
            there = number + int(((prediction == label) & counted).sum())
            text = f"{name}: {100 * right / number:.0f} % of {number}" if number else f"{name}: none, but predicted"
        if there:
            handles.append(Line2D([], [], marker="s", linestyle="", color=colouring.colours[label], label=text))
    if bool((truth < 0).any()):
        handles.append(
            Line2D([], [], marker="s", linestyle="", color=FAINT, label=f"no label ({int((truth < 0).sum())})")
        )
    most = max(2, int(figure.get_figwidth() / 1.6))  # in a row
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), most), frameon=False, fontsize=9
        )
