"""Figures of light: triggered waveforms, maps of visibility, single-photon spectra (extra `plot`).

Every function returns a matplotlib Figure, in the style of `hepops.lartpc.plot`.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..plot import BLUE, COLOURS, FAINT, GREY, RED, Array, _figure, _frame, _numpy
from .seen import frame_size
from .sipm import photon_spectrum
from .waveforms import LightWaveforms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .readout import LightReadout
    from .simulator import LightSimulator

VISIBILITY_MAP = "viridis"


def light_waveforms(
    readout: "LightReadout", trigger: int = 0, expected: LightWaveforms | None = None, per_panel: int = 6
) -> "Figure":
    """The digitised channels of one trigger, detector by detector, with the trigger's time.

    Args:
        readout: With at least one trigger.
        trigger: Which one.
        expected: Waveforms without noise of the same event, drawn in grey as their sum over each detector's channels.
        per_panel: Channels of a detector, drawn together.

    Raises:
        ValueError: no such trigger.
        ImportError: matplotlib is not installed.
    """
    if not 0 <= trigger < len(readout):
        raise ValueError(f"trigger: there are {len(readout)}, got {trigger}")
    adc, channel = _numpy(readout.adc[trigger]) / 1000, _numpy(readout.channel[trigger])
    time = _numpy(readout.sample_time()[trigger] - readout.time[trigger])
    panels = -(-len(channel) // per_panel)
    columns = 4 if panels >= 4 else panels
    rows = -(-panels // columns)
    figure = _figure(2.9 * columns, 0.5 + 1.75 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    mean = _expected(expected, readout, trigger) if expected is not None else None
    for k, axes in enumerate(grid.flat):
        if k >= panels:
            axes.set_visible(False)
            continue
        own = slice(k * per_panel, (k + 1) * per_panel)
        for i, row in enumerate(adc[own]):
            axes.plot(time, row, color=COLOURS[i % len(COLOURS)], lw=0.7, alpha=0.9, drawstyle="steps-mid")
        if mean is not None:
            for row in mean[own] / 1000:
                axes.plot(time, row, color=GREY, lw=1.0, ls="--")
        axes.axvline(0, color=FAINT, lw=0.8, zorder=0)
        axes.set_title(f"channels {channel[own][0]} to {channel[own][-1]}", fontsize=8.5)
        _frame(axes)
    for axes in grid[-1]:
        axes.set_xlabel("time from the trigger [µs]")
    figure.supylabel("signal [1000 ADC]", fontsize=10)
    event, module, at = (x[trigger].item() for x in (readout.event, readout.module, readout.time))
    figure.suptitle(f"event {event}, module {module}, triggered at {at:.2f} µs", fontsize=11)
    return figure


def _expected(expected: LightWaveforms, readout: "LightReadout", trigger: int) -> Array:
    """The noise-free waveforms at the middles of the samples; 0 outside their window."""
    groups = torch.nonzero(expected.event == readout.event[trigger]).flatten()
    values = dict(
        zip(
            expected.channel[groups].flatten().tolist(),
            _numpy(expected.values[groups].flatten(0, 1)),
            strict=True,
        )
    )
    when, at = _numpy(expected.time()[groups[0]]), _numpy(readout.sample_time()[trigger])
    none = np.zeros_like(when)
    rows = [np.interp(at, when, values.get(c, none), left=0.0, right=0.0) for c in readout.channel[trigger].tolist()]
    return np.stack(rows)


def visibility_map(
    light: "LightSimulator", tpc: int = 0, channels: "slice | list[int] | None" = None, bins: int = 80
) -> "Figure":
    """What a TPC's channels see of it, in the three planes through its middle: the sum of some channels' shares.

    Args:
        light: Its visibility, with the channels' efficiency.
        tpc: Which TPC.
        channels: Of the TPC, counted from 0; None: all.
        bins: Points along the longest side.

    Raises:
        ValueError: no such TPC or channel.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.colors import LogNorm

    if not 0 <= tpc < len(light.detector.tpcs):
        raise ValueError(f"tpc: {light.detector.name} has {len(light.detector.tpcs)}, got {tpc}")
    per_tpc = light.properties.channels_per_tpc
    chosen = list(range(per_tpc))[channels] if isinstance(channels, slice) else channels
    chosen = list(range(per_tpc)) if chosen is None else chosen
    if not chosen or not all(0 <= c < per_tpc for c in chosen):
        raise ValueError(f"channels: must lie in 0 to {per_tpc - 1}, got {chosen}")
    size = frame_size(light.detector)[tpc]
    names = ("along z [cm]", "height [cm]", "depth [cm]")
    planes = ((0, 1), (2, 1), (0, 2))
    images = []
    for first, second in planes:
        x, y = (
            (torch.arange(n).double() + 0.5) / n * size[k]
            for k in (first, second)
            for n in (max(8, int(bins * size[k] / size.max())),)
        )
        at = (size / 2).expand(len(y), len(x), 3).clone()
        at[..., first], at[..., second] = x, y[:, None]
        images.append(_numpy(_seen(light, at.reshape(-1, 3), tpc, chosen)).reshape(len(y), len(x)) * 1e6)
    low, high = min(i.min() for i in images), max(i.max() for i in images)
    norm = LogNorm(max(low, high / 1000), high)
    figure = _figure(5.6, 6.2)
    extent = [float(x) for x in size]
    grid = figure.add_gridspec(2, 2, width_ratios=(extent[0], extent[2]), height_ratios=(extent[1], extent[2]))
    for (first, second), image, place in zip(planes, images, (grid[0, 0], grid[0, 1], grid[1, 0]), strict=True):
        axes = figure.add_subplot(place)
        drawn = axes.imshow(
            image,
            origin="lower",
            extent=(0.0, extent[first], 0.0, extent[second]),
            norm=norm,
            cmap=VISIBILITY_MAP,
            interpolation="bilinear",
        )
        axes.set_xlabel(names[first])
        axes.set_ylabel(names[second])
    bar = figure.colorbar(drawn, ax=figure.axes, shrink=0.7, pad=0.02)
    bar.set_label("photoelectrons per million photons")
    which = "all channels" if len(chosen) == per_tpc else f"channels {chosen[0]} to {chosen[-1]}"
    figure.suptitle(f"{light.detector.name}, TPC {tpc}, {which}", fontsize=11)
    return figure


def _seen(light: "LightSimulator", at: Tensor, tpc: int, channels: list[int]) -> Tensor:
    """Share times efficiency, summed over the channels, of points in the TPC's frame."""
    with torch.no_grad():
        share = light.visibility(at, frame_size(light.detector)[tpc].expand_as(at)).share
        numbers = torch.tensor(light.properties.tpc_to_channel[tpc])
        weighted: Tensor = (share * light.efficiency[numbers][:, None])[channels].sum(0)
        return weighted


def single_photons(
    charge: Tensor, photons: float, gain_spread: float, noise: float, crosstalk: float = 0.0
) -> "Figure":
    """The spectrum of flashes' charges [photoelectrons] with the law of `photon_spectrum` and its residuals.

    Raises:
        ImportError: matplotlib is not installed.
    """
    values = _numpy(charge.flatten())
    last = max(3.5, float(np.quantile(values, 0.998)) + 0.5)
    edges = np.linspace(-0.5, last, 161)
    seen = np.histogram(values, edges)[0]
    fine = torch.linspace(-0.5, last, 160 * 10 + 1, dtype=torch.float64)
    density = photon_spectrum((fine[1:] + fine[:-1]) / 2, photons, gain_spread, noise, crosstalk)
    expected = _numpy((density * (fine[1] - fine[0])).reshape(160, 10).sum(1)) * len(values)
    figure = _figure(7.5, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middle = (edges[1:] + edges[:-1]) / 2
    above.stairs(seen, edges, color=BLUE, lw=1.2, label=f"{len(values)} flashes")
    above.plot(middle, expected, color=RED, lw=1.2, label="law")
    above.set_yscale("log")
    above.set_ylim(0.5, 2 * max(seen.max(), 1))
    above.set_ylabel("flashes")
    above.legend(frameon=False)
    enough = expected > 5
    pull = (seen - expected)[enough] / np.sqrt(expected[enough])
    below.plot(middle[enough], pull, ".", color=BLUE, ms=3)
    below.axhline(0, color=GREY, lw=0.8)
    below.set_ylim(-4.5, 4.5)
    below.set_ylabel("pull")
    below.set_xlabel("charge [photoelectrons]")
    for axes in (above, below):
        _frame(axes)
    figure.suptitle(f"chi2 {np.sum(pull**2):.0f} for {enough.sum()} bins", fontsize=11)
    return figure
