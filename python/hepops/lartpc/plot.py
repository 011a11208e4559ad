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
    from .wires import WireDetector, WireImages

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


def array_display(hits: Hits, detector: Detector, event: int | None = None) -> "Figure":
    """One event in a detector of several modules: from above (z, x), from the side (z, y) and along the beam (x, y).

    Args:
        hits: Of one or more events.
        detector: The detector that made them; its drift volumes are drawn, and the numbers of the modules that are hit.
        event: Which event; None: the first.

    Raises:
        ValueError: no such event.
        ImportError: matplotlib is not installed.
    """
    hits = _of_event(hits, event)
    number = int(hits.event[0])
    wide, high, deep = (float(size) for size in _extent(detector)[1] - _extent(detector)[0])
    total, tallest = 2 * deep + wide, max(wide, high)
    figure = _figure(12.5, float(np.clip(9.5 * tallest / total + 1.6, 3.6, 8.0)))
    grid = figure.add_gridspec(1, 3, width_ratios=[deep, deep, wide])
    scale = _scale(hits)
    order = np.argsort(_numpy(hits.charge))
    at = {name: _numpy(getattr(hits, name))[order] for name in ("x", "y", "z")}
    colours = _numpy(hits.charge)[order] / KILO
    pairs = (("z", "x"), ("z", "y"), ("x", "y"))
    views = [(figure.add_subplot(grid[0, k]), *pair) for k, pair in enumerate(pairs)]
    labels = {"x": "x, drift [cm]", "y": "y [cm]", "z": "z, beam [cm]"}
    for axes, a, b in views:
        _outlines(axes, detector, a, b, set(hits.tpc.tolist()))
        dots = axes.scatter(at[a], at[b], c=colours, cmap=CHARGE_MAP, norm=scale, s=5, linewidths=0, zorder=3)
        axes.set(xlabel=labels[a], ylabel=labels[b], aspect="equal")
        axes.autoscale_view()
        _frame(axes)
    _module_names(views[0][0], detector, set(hits.tpc.tolist()))
    _label(figure.colorbar(dots, ax=figure.axes[:3], shrink=0.85, pad=0.02))
    charge = float(hits.charge.detach().double().sum())
    figure.suptitle(f"{detector.name}, event {number}: {len(hits)} hits, {charge / 1e6:.3g} Me", fontsize=12)
    return figure


def detector_drawing(detector: "Detector | WireDetector") -> "Figure":
    """Drift volumes from above and from the side: anodes (blue), cathodes (red); of wires, a few of each plane.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.lines import Line2D

    figure = _figure(8.6, 5.2)
    left, right = figure.subplots(1, 2)
    for tpc in detector.tpcs:
        for axes, low, high in ((left, tpc.z[0], tpc.z[1]), (right, tpc.y[0], tpc.y[1])):
            axes.plot(
                [low, high, high, low, low], [tpc.anode] * 2 + [tpc.cathode] * 2 + [tpc.anode], color=FAINT, lw=0.8
            )
            axes.plot([low, high], [tpc.anode] * 2, color=BLUE, lw=1.8)
            axes.plot([low, high], [tpc.cathode] * 2, color=RED, lw=1.8)
    left.set(xlabel="z, beam [cm]", ylabel="x, drift [cm]", aspect="equal")
    handles = [Line2D([], [], color=c, lw=1.8, label=n) for c, n in ((BLUE, "anode"), (RED, "cathode"))]
    if isinstance(detector, Detector):
        _module_names(left, detector, set(range(len(detector.tpcs))))
        right.set(xlabel="y [cm]", ylabel="x, drift [cm]", aspect="equal")
        title = f"{detector.name}: {len(detector.tpcs)} TPCs, {detector.num_pixels} pixels"
    else:
        right.clear()
        handles += _wires(right, detector)
        title = f"{detector.name}: {len(detector.tpcs)} TPCs, planes of {_counts(detector)} wires"
    for axes in (left, right):
        _frame(axes)
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    return figure


def wire_views(images: "WireImages", event: int | None = None, tpc: int | None = None) -> "Figure":
    """The images of all planes of one TPC in one event: across the wires [cm] against time [us], voltages in colour.

    Args:
        images: Of one or more events.
        event: Which; None: the first.
        tpc: Which; None: the one with the most charge on its collection plane.

    Raises:
        ValueError: there is nothing of this event in this TPC.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.colors import Normalize, TwoSlopeNorm

    detector = images.detector
    if not len(images):
        raise ValueError("images: there are no wires to draw")
    number = int(images.event.min()) if event is None else event
    last = len(detector.planes) - 1
    if tpc is None:
        charges = [float(images.dense(number, t, last)[0].sum()) for t in range(len(detector.tpcs))]
        tpc = int(np.argmax(charges))
    mine = (images.event == number) & (images.tpc == tpc)
    if not bool(mine.any()):
        raise ValueError(f"event: there is no image of event {number} in TPC {tpc}")
    figure = _figure(4.1 * len(detector.planes) + 0.6, 4.6)
    row = figure.subplots(1, len(detector.planes), squeeze=False, sharey=True)[0]
    times = []
    for k, (axes, plane) in enumerate(zip(row, detector.planes, strict=True)):
        image, first = images.dense(number, tpc, k)
        array = _numpy(image)
        loud = np.abs(array) > 0.01 * np.abs(array).max()
        wires, ticks = np.flatnonzero(loud.any(1)), np.flatnonzero(loud.any(0))
        a, b = max(0, wires[0] - 5), min(len(array), wires[-1] + 6)
        along = detector.span(k, tpc)[0] + plane.pitch * np.arange(a, b + 1)
        time = (first + np.arange(array.shape[1] + 1)) * detector.tick
        times.append((time[ticks[0]], time[ticks[-1] + 1]))
        limit = float(np.abs(array).max())
        signed = plane.kind == "induction"
        norm = TwoSlopeNorm(0.0, -limit, limit) if signed else Normalize(0.0, limit)
        shown = array[a:b] if signed else np.where(loud, array, np.nan)[a:b]  # where there is nothing, the paper
        mesh = axes.pcolormesh(
            along, time, shown.T, cmap="PuOr_r" if signed else CHARGE_MAP, norm=norm, rasterized=True
        )
        figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.9, pad=0.03, label="voltage [mV]")
        axes.set_xlabel("across the wires [cm]")
        axes.set_title(f"plane {plane.name}, {plane.kind}, {plane.angle:g}°", fontsize=10)
        _frame(axes)
    low, high = min(t[0] for t in times), max(t[1] for t in times)
    row[0].set(ylabel="time [µs]", ylim=(low - 0.03 * (high - low), high + 0.03 * (high - low)))
    figure.suptitle(f"{detector.name}, event {number}, TPC {tpc}", fontsize=12)
    return figure


def _extent(detector: "Detector | WireDetector") -> Array:
    """Low and high corners x, y, z of all drift volumes, (2, 3)."""
    ends = np.array([((t.anode, t.cathode), t.y, t.z) for t in detector.tpcs])
    return np.stack([ends.min((0, 2)), ends.max((0, 2))])


def _outlines(axes: "Axes", detector: Detector, a: str, b: str, hit: set[int]) -> None:
    """The drift volumes seen along the third axis; those that were hit are darker."""
    seen = set()
    for i, tpc in enumerate(detector.tpcs):
        sides = {"x": (tpc.anode, tpc.cathode), "y": tpc.y, "z": tpc.z}
        (u0, u1), (v0, v1) = sides[a], sides[b]
        if (i in hit, u0, u1, v0, v1) not in seen:
            seen.add((i in hit, u0, u1, v0, v1))
            axes.plot(
                [u0, u1, u1, u0, u0],
                [v0, v0, v1, v1, v0],
                color=GREY if i in hit else FAINT,
                lw=0.8,
                zorder=1 + (i in hit),
            )


def _module_names(axes: "Axes", detector: Detector, hit: set[int]) -> None:
    """The number of each module that has one of these TPCs, in a corner of it in the (z, x) plane."""
    if len(detector.module_numbers) < 2:
        return
    for number in detector.module_numbers:
        own = [i for i, t in enumerate(detector.tpcs) if t.module == number]
        if hit & set(own):
            x = max(max(detector.tpcs[i].anode, detector.tpcs[i].cathode) for i in own)
            z = min(detector.tpcs[i].z[0] for i in own)
            axes.annotate(
                str(number), (z, x), (3, -3), textcoords="offset points", ha="left", va="top", fontsize=8, color=GREY
            )


def _counts(detector: "WireDetector") -> str:
    return ", ".join(str(detector.num_wires(k)) for k in range(len(detector.planes)))


def _wires(axes: "Axes", detector: "WireDetector") -> list[Any]:
    """One wire in forty of each plane of the first TPC, in (z, y)."""
    from matplotlib.lines import Line2D

    tpc, handles = detector.tpcs[0], []
    corners = np.array([(y, z) for y in tpc.y for z in tpc.z])
    reach = float(np.hypot(tpc.y[1] - tpc.y[0], tpc.z[1] - tpc.z[0]))
    for k, plane in enumerate(detector.planes):
        colour = COLOURS[k % len(COLOURS)]
        across = np.array(plane.across)
        along = np.array([across[1], -across[0]])
        low, _ = detector.span(k)
        for i in range(0, detector.num_wires(k), 40):
            middle = across * (low + (i + 0.5) * plane.pitch) + along * float((corners @ along).mean())
            y, z = (middle[j] + along[j] * np.linspace(-reach, reach, 1200) for j in range(2))
            inside = (y >= tpc.y[0]) & (y <= tpc.y[1]) & (z >= tpc.z[0]) & (z <= tpc.z[1])
            axes.plot(z[inside], y[inside], color=colour, lw=0.7)
        label = f"{plane.name}: every 40th wire, {10 * plane.pitch:.4g} mm"
        handles.append(Line2D([], [], color=colour, lw=1.2, label=label))
    axes.set(xlabel="z, beam [cm]", ylabel="y [cm]", aspect="equal")
    return handles


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
    return LogNorm(low, max(float(hits.per_pixel().charge.detach().max()) / KILO, 2 * low), clip=True)


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
    volume, pitch = detector.tpcs[tpc], detector.pitch_of(tpc)
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
