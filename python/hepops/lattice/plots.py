"""Figures of ensembles and their statistics. Matplotlib is loaded when the first is drawn (pip install hepops[plot]).

Each function draws one figure and returns it: `figure.savefig("history.png")`. With `axis` it draws into yours.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .observables import effective_mass as _effective_mass
from .statistics import Autocorrelation, Measurement, jackknife, rejection_runs
from .statistics import short as _short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .wilson_flow import FlowHistory

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"


def _axis(axis: Any, xlabel: str, ylabel: str, size: tuple[float, float] = (6.0, 3.8)) -> tuple[Any, Any]:
    """A figure and its axis: the caller's, or new ones."""
    if axis is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("hepops.lattice.plots needs matplotlib: pip install hepops[plot]") from error
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axis = figure.add_subplot()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    return axis.figure, axis


def _series(who: str, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.dim() != 1 or len(x) == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{who}: a series of shape (N), N >= 1, is wanted, got {got}")
    return x.detach().cpu().to(torch.float64)


def history(x: Tensor, label: str = "observable", *, exact: float | None = None, axis: Any = None) -> "Figure":
    """A series against the configuration's number, with its running mean.

    Args:
        x: Shape (N).
        label: Of the ordinate.
        exact: A line where the mean should be.
        axis: To draw into.

    Raises:
        ValueError: not a series.
        ImportError: matplotlib is not installed.
    """
    x = _series("history", x)
    figure, axis = _axis(axis, "configuration", label)
    axis.plot(x, color=BLUE, lw=0.5, alpha=0.55, rasterized=len(x) > 5000)
    axis.plot(x.cumsum(0) / torch.arange(1, len(x) + 1), color=ORANGE, lw=1.8, label="running mean")
    if exact is not None:
        axis.axhline(exact, color="black", ls="--", lw=1, label="exact")
    axis.set_xlim(0, len(x))
    low, high = x.min().item(), x.max().item()
    axis.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low) + 1e-12)  # room for the legend
    axis.legend(frameon=False, loc="upper right", ncols=2)
    return figure


def autocorrelation(a: Autocorrelation, *, axis: Any = None) -> "Figure":
    """The autocorrelation function of one quantity with its errors, its window and its integral.

    Args:
        a: Of `hepops.lattice.statistics.autocorrelation`, of a series of single numbers.
        axis: To draw into.

    Raises:
        ValueError: of more than one quantity.
    """
    if a.tau.numel() != 1:
        raise ValueError(f"autocorrelation: one quantity is drawn, got {a.tau.numel()}")
    W = int(a.window)
    most = min(len(a.rho) - 1, max(3 * W, 10))
    rho, error = a.rho.reshape(-1)[: most + 1].cpu(), a.rho_error.reshape(-1)[: most + 1].cpu()
    figure, axis = _axis(axis, r"$t$ [configurations]", r"$\rho(t) = \Gamma(t)\,/\,\Gamma(0)$")
    axis.axhline(0, color=GREY, lw=0.8)
    axis.axvspan(0, W, color=GREEN, alpha=0.12, lw=0)
    tau = _short(float(a.tau), float(a.tau_error))
    axis.errorbar(range(most + 1), rho, error, fmt="o", ms=3, lw=1, color=BLUE)
    axis.text(0.97, 0.93, rf"$\tau_{{int}} = {tau}$,  $W = {W}$", transform=axis.transAxes, ha="right", va="top")
    axis.set_xlim(-0.01 * most, 1.01 * most)
    return figure


def correlator(C: Measurement, *, axis: Any = None) -> "Figure":
    """C(t) with errors, logarithmic; values that are not positive are left out.

    Args:
        C: One value for each time, as `estimate(correlator(phi))` gives it.
        axis: To draw into.
    """
    figure, axis = _axis(axis, r"$t\,/\,a$", r"$C(t)$")
    value, error = C.value.cpu(), C.error.cpu()
    t = torch.arange(len(value))
    good = value > 0
    axis.errorbar(t[good], value[good], error[good], fmt="o", ms=4, lw=1, capsize=2, color=BLUE)
    axis.set_yscale("log")
    axis.set_xlim(-0.5, len(value) - 0.5)
    return figure


def effective_mass(
    correlators: Tensor, *, bin_size: int = 1, mass: Measurement | None = None, axis: Any = None
) -> "Figure":
    """The effective mass acosh[(C(t+1) + C(t-1)) / 2 C(t)] with jackknife errors, up to the middle of the lattice.

    Args:
        correlators: C(t) of each configuration, shape (N, L_t), in the order of the chain.
        bin_size: Consecutive configurations in a bin.
        mass: Drawn as a band.
        axis: To draw into.

    Raises:
        ValueError: fewer than 2 bins, NaN.
    """
    E = jackknife(correlators, _effective_mass, bin_size=bin_size)
    figure, axis = _axis(axis, r"$t\,/\,a$", r"$a E_\mathrm{eff}(t)$")
    t = torch.arange(1, correlators.shape[1] // 2 + 1)
    value, error = E.value.cpu()[t], E.error.cpu()[t]
    good = value.isfinite() & error.isfinite()
    if mass is not None:
        m, s = float(mass.value), float(mass.error)
        axis.axhspan(m - s, m + s, color=ORANGE, alpha=0.3, lw=0, label=rf"$aE = {_short(m, s)}$")
        axis.legend(frameon=False)
    axis.errorbar(t[good], value[good], error[good], fmt="o", ms=4, lw=1, capsize=2, color=BLUE)
    axis.set_xlim(0.5, float(t[-1]) + 0.5)
    return figure


def flow_scales(history: "FlowHistory", *, form: str = "clover", bin_size: int = 1, axis: Any = None) -> "Figure":
    """t^2 <E> and t d(t^2 <E>)/dt along the Wilson flow, with t0 and w0^2 where they reach 0.3.

    Args:
        history: Of an ensemble.
        form: "clover" or "plaquette".
        bin_size: Consecutive configurations in a bin.
        axis: To draw into.
    """
    from .wilson_flow import flow_derivative, t0, w0

    t = history.times
    E = history.energy if form == "clover" else history.plaquette
    figure, axis = _axis(axis, r"flow time $t\,/\,a^2$", "dimensionless")
    slope = r"$t\,\frac{d}{dt}\,t^2\langle E\rangle$"
    curves = [
        (BLUE, r"$t^2\langle E\rangle$", lambda E: t**2 * E),
        (ORANGE, slope, lambda E: flow_derivative(t, E)),
    ]
    for colour, name, function in curves:
        m = jackknife(E, function, bin_size=bin_size)
        low, high = (m.value - m.error).cpu(), (m.value + m.error).cpu()
        axis.fill_between(t.cpu(), low, high, color=colour, alpha=0.3, lw=0)
        axis.plot(t.cpu(), m.value.cpu(), color=colour, lw=1.4, label=name)
    axis.axhline(0.3, color=GREY, lw=0.8, ls="--")
    for colour, name, scale, power in ((BLUE, r"t_0/a^2", t0, 1), (ORANGE, r"w_0/a", w0, 2)):
        try:
            m = scale(history, form=form, bin_size=bin_size)  # type: ignore[arg-type]
        except ValueError:  # not reached: nothing to mark
            continue
        axis.plot([float(m.value) ** power], [0.3], "o", ms=6, color=colour, label=f"${name} = {m}$")
    axis.set_xlim(0, float(t[-1]))
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, loc="upper left")
    return figure


def wilson_loops(loops: Measurement, *, axis: Any = None) -> "Figure":
    """W(R, T) with errors against the area, logarithmic: one colour for each R.

    Args:
        loops: Shape (R, T), R and T from 1.
        axis: To draw into.
    """
    figure, axis = _axis(axis, r"area $RT\,/\,a^2$", r"$W(R, T)$")
    value, error = loops.value.cpu(), loops.error.cpu()
    for R, colour in zip(range(1, len(value) + 1), _colours(len(value)), strict=True):
        T = torch.arange(1, value.shape[1] + 1)
        good = value[R - 1] > 0
        axis.errorbar(
            (R * T)[good], value[R - 1][good], error[R - 1][good], fmt="o-", ms=4, lw=1, color=colour, label=R
        )
    axis.set_yscale("log")
    axis.legend(frameon=False, title=r"$R/a$")
    return figure


def creutz_ratios(ratios: Measurement, *, exact: float | None = None, axis: Any = None) -> "Figure":
    """The Creutz ratios chi(R, R) with errors against R.

    Args:
        ratios: Shape (R, T), R and T from 1.
        exact: A line: the string tension.
        axis: To draw into.
    """
    figure, axis = _axis(axis, r"$R\,/\,a$", r"$\chi(R, R)$")
    value, error = ratios.value.diagonal().cpu(), ratios.error.diagonal().cpu()
    R = torch.arange(1, len(value) + 1)
    good = value.isfinite() & error.isfinite()
    axis.errorbar(R[good], value[good], error[good], fmt="o", ms=4, lw=1, capsize=2, color=BLUE)
    if exact is not None:
        axis.axhline(exact, color="black", ls="--", lw=1, label="exact")
        axis.legend(frameon=False)
    axis.set_xticks(R.tolist())
    axis.set_xlim(0.5, len(value) + 0.5)
    return figure


def log_weights(log_w: Tensor, *, bins: int = 60, axis: Any = None) -> "Figure":
    """The histogram of log-weights about their ln Z, with the effective sample size.

    Args:
        log_w: Shape (N).
        bins: Of the histogram.
        axis: To draw into.
    """
    from .statistics import effective_sample_size, log_normaliser

    log_w = _series("log_weights", log_w)
    z, ess = log_normaliser(log_w), float(effective_sample_size(log_w))
    figure, axis = _axis(axis, r"$\ln w - \ln Z$", "samples")
    off = log_w - z.value
    axis.hist(off[off.isfinite()].numpy(), bins, color=BLUE, alpha=0.75)
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yscale("log")
    text = rf"ESS = {ess:.3f}" + "\n" + rf"$\ln Z = {_short(float(z.value), float(z.error))}$"
    axis.text(0.03, 0.95, text, transform=axis.transAxes, va="top")
    axis.set_ylim(top=axis.get_ylim()[1] * 4)  # room for the text
    return figure


def acceptance_runs(accepted: Tensor, *, axis: Any = None) -> "Figure":
    """How long a Metropolis chain stands still: the number of runs of rejections of each length.

    Args:
        accepted: bool, shape (N).
        axis: To draw into.

    Raises:
        TypeError: not bool.
    """
    runs = rejection_runs(accepted).cpu()
    figure, axis = _axis(axis, "rejections in a row", "runs")
    if len(runs):
        lengths, counts = runs.unique(return_counts=True)
        axis.plot(lengths, counts, "o", ms=4, color=BLUE)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    rate = float(accepted.double().mean())
    text = f"acceptance {rate:.3f}\nlongest run {int(runs.max()) if len(runs) else 0}"
    axis.text(0.97, 0.95, text, transform=axis.transAxes, ha="right", va="top")
    return figure


def charge_history(Q: Tensor, *, axis: Any = None) -> "Figure":
    """Q against the configuration's number, with its histogram at the side.

    Args:
        Q: Shape (N).
        axis: To draw into.
    """
    Q = _series("charge_history", Q)
    figure, axis = _axis(axis, "configuration", r"$Q$", (7.0, 3.4))
    axis.plot(Q, color=BLUE, lw=0.7, drawstyle="steps-mid", rasterized=len(Q) > 5000)
    axis.set_xlim(0, len(Q))
    most = float(Q.abs().max().ceil()) + 0.5
    side = axis.inset_axes((1.07, 0, 0.2, 1), sharey=axis)
    edges = (torch.arange(int(2 * most) + 1) - most).tolist()
    side.hist(Q.numpy(), edges, orientation="horizontal", color=BLUE, alpha=0.6, rwidth=0.85)
    side.tick_params(labelleft=False)
    side.set_xlabel("configurations")
    side.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(-most, most)
    return figure


def _colours(count: int) -> Sequence[str]:
    return [(BLUE, ORANGE, GREEN, PURPLE, GREY)[k % 5] for k in range(count)]
