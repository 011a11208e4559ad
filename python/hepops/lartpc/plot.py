"""Figures: events, waveforms, fits. matplotlib is loaded when the first is drawn (extra `plot`).

Every function returns a matplotlib Figure of its own, not registered with pyplot: show it in a notebook, or save it
with ``figure.savefig("event.pdf")``. Colours are those of Okabe and Ito (lines) and viridis (charge), which the
colour-blind tell apart and which keep their order in grey.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .detector import Detector
from .hits import Hits
from .parameters import Parameters
from .waveforms import Waveforms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    from .fit import FitResult

Array = np.ndarray[Any, Any]

# M. Okabe, K. Ito, Color Universal Design (2008), without yellow, which white paper swallows
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, "#000000", "#7F7F7F")
GREY, FAINT = "#5F5F5F", "#C8C8C8"
CHARGE_MAP = "viridis"
KILO = 1000.0  # electrons in the unit of the axes, ke
SYMBOLS = {
    "lifetime": r"$\tau$", "efield": r"$E$", "birks_a": r"$A_b$", "birks_k": r"$k_b$",
    "transverse_diffusion": r"$D_T$", "longitudinal_diffusion": r"$D_L$",
    "box_alpha": r"$\alpha$", "box_beta": r"$\beta$", "ellipsoid_ratio": r"$R_e$",
    "density": r"$\rho$", "temperature": r"$T$", "w_ion": r"$W_{ion}$", "time_offset": r"$t_{offset}$",
}  # fmt: skip


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install hepops[plot]") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


# ---- events


def event_display(
    hits: Hits,
    detector: Detector,
    event: int | None = None,
    *,
    waves: Waveforms | None = None,
    pixel: tuple[int, int, int] | None = None,
) -> "Figure":
    """One event: its hits in space, the charge on each pixel plane, and on request the current of one pixel.

    Args:
        hits: Of one or more events.
        detector: The detector that made them.
        event: Which event; None: the first.
        waves: Adds the waveform of one pixel.
        pixel: Which one, (tpc, ix, iy); None: the one with the most hits, and among those with the most charge.

    Returns:
        A Figure: hits in 3D (x drift, y up, z beam), pixel planes of up to two TPCs, and the waveform.

    Raises:
        ValueError: no such event, or no such pixel.
        ImportError: matplotlib is not installed.
    """
    hits = _of_event(hits, event)
    number = int(hits.event[0])
    planes = _charged_planes(hits, most=2)
    figure = _figure(11.5 if waves else 5.5 + 3.0 * len(planes), 9.0 if waves else 5.4)
    rows = figure.add_gridspec(2 if waves else 1, 1, height_ratios=[5.4, 3.4] if waves else [1], hspace=0.08)
    top = rows[0].subgridspec(1, 1 + len(planes), width_ratios=[1.5, *[1.0] * len(planes)])
    scale = _scale(hits)
    import_module("mpl_toolkits.mplot3d")  # registers the projection

    space: Any = figure.add_subplot(top[0], projection="3d")
    _space(space, hits, detector, scale)
    images = []
    for k, tpc in enumerate(planes):
        axes = figure.add_subplot(top[1 + k])
        images.append(_plane(axes, hits, detector, tpc, scale))
        if k:
            axes.set_ylabel("")
    bar = figure.colorbar(images[-1], ax=figure.axes[1 : 1 + len(planes)], shrink=0.85, pad=0.03)
    _label(bar)
    charge = float(hits.charge.detach().double().sum())
    figure.suptitle(f"{detector.name}, event {number}: {len(hits)} hits, {charge / 1e6:.3g} Me", fontsize=12)
    if waves is not None:
        pair = rows[1].subgridspec(1, 2)
        left = figure.add_subplot(pair[0])
        _waveform((left, figure.add_subplot(pair[1], sharex=left)), waves, hits, detector, _row_of(waves, hits, pixel))
    return figure


def pixel_plane(hits: Hits, detector: Detector, tpc: int, event: int | None = None) -> "Figure":
    """Charge on the pixels of one TPC in one event, the first by default; axes in cm, zoomed on what is hit.

    Raises:
        ValueError: no such event, or it has no hit in this TPC.
        ImportError: matplotlib is not installed.
    """
    hits = _of_event(hits, event)
    if not bool((hits.tpc == tpc).any()):
        raise ValueError(f"tpc: event {int(hits.event[0])} has no hit in TPC {tpc}")
    figure = _figure(6.0, 5.5)
    axes = figure.add_subplot()
    image = _plane(axes, hits, detector, tpc, _scale(hits))
    _label(figure.colorbar(image, ax=axes))
    return figure


def waveform(waves: Waveforms, hits: Hits, detector: Detector, pixel: tuple[int, int, int] | None = None) -> "Figure":
    """Current of one pixel, and the charge that its chip integrated: threshold, crossing, integration window.

    Args:
        waves: Of the same events as the hits.
        hits: Of one or more events; the first event is taken.
        detector: The detector that made them.
        pixel: Which one, (tpc, ix, iy); None: the one with the most hits, and among those with the most charge.

    The charge is drawn backwards from each reading, Q(t) = q - (integral of the current from t to the reading), as far
    as zero: what came before was swallowed by a reset.

    Raises:
        ValueError: no such pixel.
        ImportError: matplotlib is not installed.
    """
    hits = _of_event(hits, None)
    figure = _figure(7.5, 5.4)
    axes = figure.subplots(2, 1, sharex=True)
    _waveform((axes[0], axes[1]), waves, hits, detector, _row_of(waves, hits, pixel))
    axes[0].set_xlabel("")
    return figure


def _of_event(hits: Hits, event: int | None) -> Hits:
    if not len(hits):
        raise ValueError("hits: there are none to draw")
    number = int(hits.event[0]) if event is None else event
    chosen = hits[hits.event == number]
    if not len(chosen):
        raise ValueError(f"event: there is no hit of event {number}")
    return chosen.to("cpu")


def _charged_planes(hits: Hits, most: int) -> list[int]:
    """The TPCs with the most charge, in order of their number."""
    tpcs, where = torch.unique(hits.tpc, return_inverse=True)
    charge = torch.zeros(len(tpcs), dtype=torch.float64).index_add(0, where, hits.charge.detach().double())
    return sorted(tpcs[charge.argsort(descending=True)[:most]].tolist())


def _scale(hits: Hits) -> "LogNorm":
    """Colours [ke], logarithmic: a hit just above threshold and a pixel under a stopping proton are far apart."""
    from matplotlib.colors import LogNorm

    low = max(float(np.percentile(_numpy(hits.charge), 1)) / KILO, 0.1)
    return LogNorm(low, max(float(hits.per_pixel().charge.max()) / KILO, 2 * low), clip=True)


def _label(bar: "Colorbar") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    bar.set_label("charge [ke]")
    bar.locator = LogLocator(subs=(1, 2, 3, 5, 7))
    bar.formatter = ScalarFormatter()
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.update_ticks()


def _space(axes: Any, hits: Hits, detector: Detector, scale: "LogNorm") -> None:
    for tpc in detector.tpcs:
        corners = np.array([(z, x, y) for z in tpc.z for x in (tpc.anode, tpc.cathode) for y in tpc.y])
        for a in range(8):
            for bit in (1, 2, 4):
                if not a & bit:
                    axes.plot(*corners[[a, a | bit]].T, color=FAINT, linewidth=0.8, zorder=0)
    order = np.argsort(_numpy(hits.charge))
    x, y, z, charge = (_numpy(column)[order] for column in (hits.x, hits.y, hits.z, hits.charge))
    axes.scatter(z, x, y, c=charge / KILO, cmap=CHARGE_MAP, norm=scale, s=7, depthshade=False)
    axes.set_xlabel("z, beam [cm]", labelpad=-2)
    axes.set_ylabel("x, drift [cm]", labelpad=-2)
    axes.set_zlabel("y [cm]", labelpad=2)
    ends = np.array([(t.z, (t.anode, t.cathode), t.y) for t in detector.tpcs])
    sides = np.maximum(ends.max((0, 2)) - ends.min((0, 2)), 1.0)
    axes.set_box_aspect(sides / sides.max(), zoom=0.9)
    axes.view_init(elev=18, azim=-55)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"].update(color="#EEEEEE")
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=8, pad=-1)
    axes.zaxis.set_tick_params(pad=3)


def _plane(axes: "Axes", hits: Hits, detector: Detector, tpc: int, scale: "LogNorm") -> Any:
    """Sums per pixel; a pixel without a hit stays white."""
    sums = hits[hits.tpc == tpc].per_pixel()
    ix, iy = _numpy(sums.ix), _numpy(sums.iy)
    volume, pitch = detector.tpcs[tpc], detector.pixel_pitch
    # a frame of two pixels, and no side shorter than half of the other
    low, high = np.array([ix.min(), iy.min()]) - 2, np.array([ix.max(), iy.max()]) + 3
    short = np.maximum(0, (high - low).max() // 2 - (high - low))
    low, high = low - short // 2, high + short - short // 2
    image = np.full(high - low, np.nan)
    image[ix - low[0], iy - low[1]] = _numpy(sums.charge) / KILO
    z, y = (
        edge + pitch * np.arange(a, b + 1) for edge, a, b in zip((volume.z[0], volume.y[0]), low, high, strict=True)
    )
    mesh = axes.pcolormesh(z, y, image.T, cmap=CHARGE_MAP, norm=scale, rasterized=True)
    axes.set(xlabel="z [cm]", ylabel="y [cm]", title=f"TPC {tpc}, anode at x = {volume.anode:.4g} cm", aspect="equal")
    axes.title.set_fontsize(10)
    _frame(axes)
    return mesh


def _row_of(waves: Waveforms, hits: Hits, pixel: tuple[int, int, int] | None) -> int:
    if pixel is None:
        sums = hits.per_pixel()
        best = max(range(len(sums.ix)), key=lambda i: (int(sums.num_hits[i]), float(sums.charge[i])))
        pixel = int(sums.tpc[best]), int(sums.ix[best]), int(sums.iy[best])
    wanted = (int(hits.event[0]), *pixel)
    same = torch.ones(len(waves), dtype=torch.bool, device=waves.event.device)
    for column, value in zip((waves.event, waves.tpc, waves.ix, waves.iy), wanted, strict=True):
        same &= column == value
    if not bool(same.any()):
        raise ValueError(f"pixel: no current on (tpc, ix, iy) = {pixel} in event {wanted[0]}")
    return int(same.nonzero()[0, 0])


def _waveform(pair: tuple["Axes", "Axes"], waves: Waveforms, hits: Hits, detector: Detector, row: int) -> None:
    chip, tick = detector.frontend, waves.tick
    first, last = (int(waves.offsets[row + k]) for k in range(2))
    current = _numpy(waves.values[first:last]).astype(np.float64)
    edges = (int(waves.first_tick[row]) + np.arange(len(current) + 1)) * tick
    total = np.concatenate([[0.0], np.cumsum(current) * tick])  # charge since the start of the window, at the edges
    name = tuple(int(column[row]) for column in (waves.event, waves.tpc, waves.ix, waves.iy))
    mine = torch.ones(len(hits), dtype=torch.bool)
    for column, value in zip((hits.event, hits.tpc, hits.ix, hits.iy), name, strict=True):
        mine &= column == value
    times, charges = _numpy(hits.time[mine]), _numpy(hits.charge[mine])
    window = chip.integration * tick

    above, below = pair
    above.stairs(current / KILO, edges, color=BLUE, linewidth=1.4, baseline=None, label="current")
    above.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    above.set(ylabel="current [ke/µs]", xlabel="time [µs]")
    title = f"pixel ({name[2]}, {name[3]}) of TPC {name[1]}, event {name[0]}"
    above.set_title(title, fontsize=10)
    below.axhline(chip.threshold / KILO, color=RED, linestyle="--", linewidth=1.2, label="threshold")
    free_from = edges[0]
    for k, (time, charge) in enumerate(zip(times, charges, strict=True)):
        end = time + window
        for axes in pair:
            axes.axvspan(
                time, end, color=ORANGE, alpha=0.25, linewidth=0, zorder=0, label="integration" if not k else None
            )
        at = np.unique(np.concatenate([edges[(edges > free_from) & (edges < end)], [free_from, time, end]]))
        Q = charge - (np.interp(end, edges, total) - np.interp(at, edges, total))
        empty = np.flatnonzero((Q <= 0) & (at < time))
        begin = empty[-1] if len(empty) else 0
        below.plot(at[begin:], Q[begin:] / KILO, color=BLUE, linewidth=1.4, label="charge" if not k else None)
        crossing = np.interp(time, at, Q) / KILO
        below.plot(time, crossing, "o", color=RED, markersize=5, label="crossing" if not k else None)
        below.plot(end, charge / KILO, "s", color=GREEN, markersize=5, label="reading" if not k else None)
        if len(times) <= 12:
            at_reading, above_it = (end, charge / KILO), (0, 6)
            below.annotate(
                f"{charge / KILO:.1f}",
                at_reading,
                above_it,
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=GREY,
            )
        free_from = end + chip.reset * tick
    below.set(ylabel="charge since reset [ke]", xlabel="time [µs]")
    below.set_ylim(bottom=min(0.0, below.get_ylim()[0]))
    below.set_ylim(top=1.15 * below.get_ylim()[1])
    if len(times):
        busy = np.flatnonzero(np.abs(current) > 0.01 * np.abs(current).max())
        begin, end = min(edges[busy[0]], times[0]), max(edges[busy[-1]], times[-1] + window)
        pad = 0.08 * (end - begin)
        above.set_xlim(begin - pad, end + 1.6 * pad)
    below.legend(fontsize=8, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, frameon=False, columnspacing=1.0)
    for axes in pair:
        _frame(axes)


# ---- fits


def overview(result: "FitResult", truth: Mapping[str, float] | None = None) -> "Figure":
    """A fit at a glance: parameters, objective, correlations, residuals.

    Args:
        result: Of `hepops.lartpc.fit`.
        truth: Values that made the data, where they are known; distances are then from them, not from the end.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure(12, 9)
    axes = figure.subplots(2, 2)
    _convergence(axes[0, 0], result, truth)
    _objective(axes[0, 1], result)
    _correlations(axes[1, 0], result)
    _residuals(axes[1, 1], result)
    return figure


def trace(result: "FitResult", truth: Mapping[str, float] | None = None) -> "Figure":
    """Each parameter against the iteration, one panel each; the truth, where it is known, is a dashed line.

    Other starts than the best one are drawn in grey.

    Raises:
        ImportError: matplotlib is not installed.
    """
    count = len(result.names)
    columns = min(3, count)
    rows = -(-count // columns)
    figure = _figure(3.6 * columns + 0.4, 2.5 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for k, (axes, name, unit) in enumerate(zip(grid, result.names, result.units, strict=False)):
        for start in range(len(result.starts)):
            if start != result.best:
                path = result.path(start)[:, k].numpy()
                axes.plot(range(len(path)), path, color=FAINT, linewidth=1)
        path = result.path()[:, k].numpy()
        axes.plot(range(len(path)), path, "o-", color=BLUE, markersize=4, label="fit")
        if truth is not None and name in truth:
            axes.axhline(truth[name], color=RED, linestyle="--", linewidth=1.2, label="true")
        axes.set_title(f"{SYMBOLS.get(name, '')}  {name.replace('_', ' ').replace('efield', 'field')}", fontsize=10)
        axes.set_ylabel("" if unit == "1" else f"[{_unit(unit)}]", fontsize=9)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useOffset=False)
        axes.margins(y=0.15)
        _whole_iterations(axes)
        _frame(axes)
    for axes in grid[count - columns : count]:
        axes.set_xlabel("iteration")
        axes.tick_params(labelbottom=True)
    for axes in grid[count:]:
        axes.set_axis_off()
    grid[0].legend(fontsize=8)
    return figure


def correlations(result: "FitResult") -> "Figure":
    """Correlation matrix of the fitted parameters.

    Raises:
        ImportError: matplotlib is not installed.
    """
    size = 2.4 + 0.62 * len(result.names)
    figure = _figure(size + 0.8, size)
    _correlations(figure.add_subplot(), result)
    return figure


def residuals(result: "FitResult") -> "Figure":
    """Whitened residuals of charge and time at the end of a fit; what lies beyond 8 sigma is in the last bins.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure(6.5, 4.2)
    _residuals(figure.add_subplot(), result)
    return figure


def _convergence(axes: "Axes", result: "FitResult", truth: Mapping[str, float] | None) -> None:
    """Relative distance of each parameter from the truth, or from where it ended."""
    floor = 1e-12
    known = truth or {}
    ends = zip(result.names, result.values.tolist(), strict=True)
    target = torch.tensor([known.get(name, value) for name, value in ends], dtype=torch.float64)
    for start in range(len(result.starts)):
        distance = ((result.path(start) - target) / target.abs().clamp_min(1e-300)).abs().clamp_min(floor)
        best = start == result.best
        for k, name in enumerate(result.names):
            colour = COLOURS[k % len(COLOURS)]
            style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "label": SYMBOLS.get(name, name)} if best else {}
            axes.plot(distance[:, k].tolist(), color=colour, alpha=1.0 if best else 0.2, **style)
    label = "|p / p(true) - 1|" if truth else "|p / p(end) - 1|"
    axes.set(yscale="log", xlabel="iteration", ylabel=label, title="parameters", ylim=(floor / 2, 10))
    axes.legend(fontsize=9, ncols=3, loc="lower left")
    _whole_iterations(axes)
    _frame(axes)


def _objective(axes: "Axes", result: "FitResult") -> None:
    for start in range(len(result.starts)):
        steps = [step for step in result.trace if step.start == start]
        values = [max(s.value, 1e-300) for s in steps]
        best = start == result.best
        axes.plot(
            [s.iteration - 1 for s in steps],
            values,
            "o-",
            markersize=3.5,
            color=BLUE if best else FAINT,
            zorder=2 + best,
        )
    changes = [s.iteration - 1 for s in result.trace if s.start == result.best and s.stage]
    if changes:
        axes.axvline(min(changes) - 0.5, color=GREY, linestyle=":", label="next stage")
        axes.legend(fontsize=9)
    axes.set(yscale="log", xlabel="iteration", ylabel="objective F", title="objective")
    _whole_iterations(axes)
    _frame(axes)


def _correlations(axes: "Axes", result: "FitResult") -> None:
    matrix = result.correlations.numpy()
    image = axes.imshow(matrix, vmin=-1, vmax=1, cmap="PuOr_r")
    axes.figure.colorbar(image, ax=axes, shrink=0.85)
    names = [SYMBOLS.get(name, name) for name in result.names]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            text = f"{value:.2f}".replace("-", "\u2212")  # the minus of mathematics
            axes.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if abs(value) > 0.65 else "black")
    axes.set_title("correlations")


def _residuals(axes: "Axes", result: "FitResult") -> None:
    spread = float(result.residuals.abs().max()) if len(result.residuals) else 1.0
    limit = min(max(spread, 1e-300), 8.0)
    for kind, colour in (("charge", BLUE), ("time", ORANGE)):
        r = result.residuals_of(kind).clamp(-limit, limit).numpy()
        counts, edges = np.histogram(r, bins=60, range=(-limit, limit))
        axes.stairs(counts, edges, color=colour, linewidth=1.5, label=f"{kind} ({len(r)})")
    if limit == 8.0:
        axes.set_xlim(-8.4, 8.4)
    axes.set(yscale="log", xlabel=r"(simulated $-$ measured) / $\sigma$", ylabel="number", title="residuals")
    axes.set_ylim(bottom=0.5)
    axes.legend(fontsize=9)
    _frame(axes)


def _unit(text: str) -> str:
    for plain, pretty in (("cm2", "cm²"), ("cm3", "cm³"), ("us", "µs")):
        text = text.replace(plain, pretty)
    return text


def _whole_iterations(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _frame(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _numpy(column: torch.Tensor) -> Array:
    array: Array = column.detach().cpu().numpy()
    return array


def truth_of(config: Mapping[str, Any]) -> dict[str, float] | None:
    """The parameters that a file of simulated hits says it was made with, by name; None where it does not."""
    made = config.get("parameters")
    return made.to_dict() if isinstance(made, Parameters) else None
