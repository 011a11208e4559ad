"""Figures of systematics, in the style of hepops.lartpc.plot; matplotlib is loaded when the first is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..plot import BLUE, GREY, _figure
from .bands import Covariance, Envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..plot import Array

# Pale orange under pale blue: opaque, so that the legend shows what the bands look like.
YELLOW, SKY = "#F7DFA8", "#8FC3E3"


def band_plot(
    edges: Tensor,
    nominal: Tensor,
    envelope: Envelope,
    *,
    xlabel: str = "observable",
    ylabel: str = "hits per bin",
    scale: float = 1.0,
) -> "Figure":
    """A histogram with its envelope: the outer quantiles as a band, and below the ratio to the nominal.

    Args:
        edges: (K + 1) of the bins; divided by `scale` on the axis.
        nominal: (K) the histogram itself.
        envelope: Of the same histogram over the universes.
        xlabel: What was counted, with its unit.
        ylabel: Of the upper panel.
        scale: Of the axis: 1000 shows electrons as thousands of them.
    """
    if nominal.shape != envelope.mean.shape or len(edges) != len(nominal) + 1:
        raise ValueError(
            f"band_plot: edges {tuple(edges.shape)}, nominal {tuple(nominal.shape)} and envelope "
            f"{tuple(envelope.mean.shape)} do not fit"
        )
    x = edges.cpu().numpy() / scale
    centre = nominal.cpu().numpy()
    low, high = envelope.quantiles[0].cpu().numpy(), envelope.quantiles[-1].cpu().numpy()
    least, most = envelope.low.cpu().numpy(), envelope.high.cpu().numpy()
    figure = _figure(6.4, 4.6)
    top, ratio = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    share = f"{envelope.levels[-1] - envelope.levels[0]:.0%} of universes"
    safe = np.where(centre > 0, centre, np.nan)
    for axes, scaled in ((top, 1.0), (ratio, safe)):
        _band(axes, x, least / scaled, most / scaled, YELLOW, "all universes")
        _band(axes, x, low / scaled, high / scaled, SKY, share)
        axes.stairs(centre / scaled, x, color="black", linewidth=1.2, label="nominal", baseline=None)
        axes.spines[["top", "right"]].set_visible(False)
    top.set_ylabel(ylabel)
    top.set_ylim(bottom=0)
    top.legend(frameon=False)
    ratio.set_ylabel("ratio")
    ratio.set_xlabel(xlabel)
    ratio.axhline(1.0, color=GREY, linewidth=0.6)
    ratio.set_xlim(x[0], x[-1])
    return figure


def _band(axes: "Axes", x: "Array", low: "Array", high: "Array", colour: str, label: str) -> None:
    repeat = np.repeat(x, 2)[1:-1]
    axes.fill_between(repeat, np.repeat(low, 2), np.repeat(high, 2), color=colour, linewidth=0, label=label)


def correlation_plot(
    covariance: Covariance, edges: Tensor | None = None, *, label: str = "bin", scale: float = 1.0
) -> "Figure":
    """The correlation matrix of an observable's bins, and the share of the variance of its principal directions."""
    from matplotlib.ticker import MaxNLocator

    matrix = covariance.correlation.cpu().numpy().copy()
    still = (covariance.matrix.diagonal() == 0).cpu().numpy()
    matrix[still], matrix[:, still] = np.nan, np.nan  # a number that never varies has no correlation
    n = len(matrix)
    ends: Sequence[float] = (0, n) if edges is None else (float(edges[0]) / scale, float(edges[-1]) / scale)
    figure = _figure(8.4, 4.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    image = left.imshow(
        matrix, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower", extent=(*ends, *ends), interpolation="nearest"
    )
    left.set_facecolor("#DDDDDD")
    if still.any():
        left.set_title("grey: bins that never vary", fontsize=9)
    left.set_xlabel(label)
    left.set_ylabel(label)
    figure.colorbar(image, ax=left, label="correlation")
    values, _ = covariance.principal()
    share = (values / values.sum().clamp(min=1e-300)).cpu().numpy()[:12]
    right.bar(np.arange(1, len(share) + 1), share, color=BLUE)
    right.set_yscale("log")
    right.set_ylim(max(1e-6, float(share[share > 0].min()) / 2) if (share > 0).any() else 1e-6, 2)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("principal direction")
    right.set_ylabel("share of the variance")
    right.spines[["top", "right"]].set_visible(False)
    return figure
