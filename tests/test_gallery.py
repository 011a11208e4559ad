"""Every plot of docs/gallery.md: one call without options, axes that say what they show, colours for all eyes.

Whether labels overlap is asked beside each (tests/lartpc/test_plot.py and its like).
"""

import re
from functools import cache

import hepops
import pytest
import torch
from conftest import ROOT
from hepops import segmentation
from hepops.flows import Density, Integrator
from hepops.flows.inference import plots as posterior_plots
from hepops.flows.inference.coverage import SBC, TARP
from hepops.lartpc import Detector, Simulator, conditions, gun, plot, systematics
from hepops.lartpc.fit.coverage import Coverage
from hepops.lattice import SUN, observables, plots, statistics
from hepops.lattice.statistics import estimate
from hepops.lattice.wilson_flow import FlowHistory
from hepops.segmentation.training import History

pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

# M. Okabe, K. Ito, Color Universal Design (2008); their tints on white and greys are told apart as they are.
SAFE = [to_rgb(c) for c in ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")]
MAPS = {"viridis", "cividis", "magma", "Blues", "Greys", "PuOr", "PuOr_r", "RdBu", "RdBu_r", "Oranges"}


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def hits():
    detector = Detector.module0()
    segments = gun.shoot(detector, 1, "proton", topology="inside", energy=(80.0, 120.0), seed=1)
    sim = Simulator(detector, dtype=torch.float64)
    with torch.no_grad():
        return detector, segments, sim(segments), sim.waveforms(segments)


@cache
def fitted():
    detector, segments, measured, _ = hits()
    return hepops.lartpc.fit(Simulator(detector, dtype=torch.float64), segments, measured, ["lifetime", "efield"])


@cache
def universes():
    detector, segments, _, _ = hits()
    sim = Simulator(detector)
    found = sim.universes({"lifetime": torch.tensor([1500.0, 2200.0, 3000.0])}, segments)
    edges = torch.linspace(5e3, 60e3, 12)
    seen = systematics.charge_histogram(edges)
    return edges, seen(sim(segments)), systematics.envelope(seen, found), systematics.covariance(seen, found)


@cache
def labelled():
    event = segmentation.make(1, seed=1)
    given = event.label.clamp_min(0).roll(3)
    return event, given, segmentation.Score.of(event.label, given)


def history():
    row = {"epoch": 0, "rate": 0.1, "loss": 0.5, "accuracy": 0.5}
    end = {f"test_{name}": 0.6 for name in ("loss", "accuracy", *segmentation.CLASSES)}
    return History([{"step": i + 1, **row} for i in range(20)], [{"step": 20, **end}])


@cache
def density():
    return Density.fit({"energy": random(400).exp().numpy(), "cos": random(400, seed=2).tanh().numpy()}, epochs=1)


def ranks():
    p, counts = torch.tensor([0.4, 0.6]), torch.full((10, 2), 6)
    return SBC(("efield", "birks_k"), torch.zeros(60, 2), torch.zeros(60, 2), 127, 10, counts, p, p)


def credible():
    alpha = torch.linspace(0, 1, 21)
    return TARP(torch.zeros(60), alpha, alpha, torch.stack([alpha - 0.1, alpha + 0.1]), 0.0, 1.0)


def flow_history():
    t = torch.linspace(0, 4, 41, dtype=torch.float64)
    E = torch.where(t > 0, (0.1 + 0.002 * random(20, 1)) / t.clamp_min(1e-9), 0)
    return FlowHistory(t, E, E, None, torch.zeros(0), torch.zeros(20))


def loops():
    return observables.wilson_loops(SUN(2, (4, 4), 2.0).cold(40), 2, 2)[:, 0] - 0.1 * torch.rand(40, 2, 2).double()


def lifetime():
    days, true = torch.arange(8).double(), 2400 - 120 * torch.arange(8).double()
    return conditions.smooth(days, 1 / true * (1 + 0.02 * random(8)), torch.diag((0.02 / true) ** 2))


def pulls():
    draws, names = random(50, 3), ("lifetime", "efield", "birks_a")
    return Coverage(names, torch.ones(3), torch.ones(3), draws, torch.ones(50, dtype=torch.bool), "step")


CALLS = {
    "lartpc.plot.event_display": lambda: plot.event_display(hits()[2], hits()[0]),
    "lartpc.plot.array_display": lambda: plot.array_display(hits()[2], hits()[0]),
    "lartpc.plot.waveform": lambda: plot.waveform(hits()[3], hits()[2], hits()[0]),
    "lartpc.plot.trace": lambda: plot.trace(fitted()),
    "lartpc.plot.correlations": lambda: plot.correlations(fitted()),
    "lartpc.plot.residuals": lambda: plot.residuals(fitted()),
    "conditions.smooth": lambda: lifetime().plot(),
    "fit.coverage": lambda: pulls().plot(),
    "systematics.band_plot": lambda: systematics.band_plot(*universes()[:3]),
    "systematics.correlation_plot": lambda: systematics.correlation_plot(universes()[3]),
    "found.corner": lambda: posterior_plots.corner({"hits": random(500, 2)}, ("efield", "birks_k"), ("kV/cm", "1")),
    "found.sbc.plot": lambda: ranks().plot(),
    "found.tarp.plot": lambda: credible().plot(),
    "segmentation.event_display": lambda: segmentation.event_display(*labelled()[:2]),
    "segmentation.confusion": lambda: segmentation.confusion(labelled()[2]),
    "segmentation.curves": lambda: segmentation.curves(history()),
    "result.plot": lambda: Integrator(lambda x: (-x.square().sum(1)).exp(), 2).integrate(4000, seed=1).plot(),
    "density.plot_corner": lambda: density().plot_corner(),
    "density.plot_log_prob": lambda: density().plot_log_prob(),
    "lattice.plots.history": lambda: plots.history(random(100)),
    "lattice.plots.autocorrelation": lambda: plots.autocorrelation(statistics.autocorrelation(random(300))),
    "lattice.plots.charge_history": lambda: plots.charge_history(random(100).round()),
    "lattice.plots.log_weights": lambda: plots.log_weights(random(300)),
    "lattice.plots.correlator": lambda: plots.correlator(estimate(1 + 0.01 * random(40, 8))),
    "lattice.plots.effective_mass": lambda: plots.effective_mass((-torch.arange(8.0)).exp() + 1e-4 * random(40, 8)),
    "lattice.plots.wilson_loops": lambda: plots.wilson_loops(estimate(loops())),
    "lattice.plots.creutz_ratios": lambda: plots.creutz_ratios(
        estimate(0.5 - 0.1 * torch.rand(40, 2, 2).double(), observables.creutz_ratios)
    ),
    "lattice.plots.flow_scales": lambda: plots.flow_scales(flow_history()),
    "lattice.plots.acceptance_runs": lambda: plots.acceptance_runs(random(200) > 0),
}


def safe(colour) -> bool:
    """Black, white and grey; one of SAFE, or it on white: 1 - colour is a share of 1 - safe."""
    away = [1 - part for part in to_rgb(colour)]
    if max(away) - min(away) < 0.02:
        return True
    for base in SAFE:
        full = [1 - part for part in base]
        share = sum(a * f for a, f in zip(away, full, strict=True)) / sum(f * f for f in full)
        if 0 < share <= 1.02 and max(abs(a - share * f) for a, f in zip(away, full, strict=True)) < 0.04:
            return True
    return False


def said(axes, way: str) -> bool:
    """Where there are numbers along an axis, it has a label, or one that it shares a column (x) or a row (y) with."""
    axis = getattr(axes, f"{way}axis")
    words = [tick.label1.get_text() for tick in axis.get_major_ticks() if tick.label1.get_visible()]
    if not any(re.search(r"\d", word) for word in words) or axis.get_label_text():
        return True
    place = axes.get_subplotspec()
    span = place.colspan if way == "x" else place.rowspan
    for other in axes.figure.axes:
        if (spot := other.get_subplotspec()) is not None and getattr(other, f"{way}axis").get_label_text():
            theirs = spot.colspan if way == "x" else spot.rowspan
            if set(span) & set(theirs):
                return True
    return False


def colours(axes):
    """Of all that is drawn; of what a map colours its name."""
    maps = {image.get_cmap().name for image in axes.images}
    drawn = [line.get_color() for line in axes.lines]
    drawn += [patch.get_facecolor() for patch in axes.patches] + [patch.get_edgecolor() for patch in axes.patches]
    for collection in axes.collections:
        if collection.get_array() is not None and collection.get_cmap().name != "unnamed":  # contours have their own
            maps.add(collection.get_cmap().name)
        else:
            drawn += [*collection.get_facecolor(), *collection.get_edgecolor()]
    return [colour for colour in drawn if to_rgba(colour)[3] > 0], maps


@pytest.mark.parametrize("name", CALLS)
def test_default_says_what_it_shows_in_colours_for_all(name, tmp_path):
    figure = CALLS[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert figure.axes
    for axes in figure.axes:
        if not axes.axison or axes.get_label() == "<colorbar>" or not axes.has_data():
            continue
        for way in "xy":
            assert said(axes, way), f"{name}, {axes.get_title()!r}: numbers along {way}, and no word of what they are"
        drawn, maps = colours(axes)
        assert maps <= MAPS, f"{name}: {maps - MAPS}"
        for colour in drawn:
            assert safe(colour), f"{name}: {colour}"


def test_bars_of_colour_say_what_they_mean():
    for name in (
        "lartpc.plot.event_display",
        "result.plot",
        "systematics.correlation_plot",
        "segmentation.event_display",
    ):
        bars = [axes for axes in CALLS[name]().axes if axes.get_label() == "<colorbar>"]
        assert bars and all(axes.get_ylabel() or axes.get_xlabel() for axes in bars), name


def test_the_gallery_is_complete():
    """Every call that the page shows is drawn above, and no plot of a package is missing there."""
    page = (ROOT / "docs" / "gallery.md").read_text()
    shown = {match.split("(")[0] for match in re.findall(r"`([\w.]+\(.*?)`", page)} - {"figure.savefig"}
    elsewhere = {"lartpc.plot.wire_views", "fit.contour"}  # tests/lartpc/test_plot.py, test_fit_likelihood.py
    assert shown - elsewhere <= set(CALLS), shown - elsewhere - set(CALLS)
    for name in vars(plots)["__all__"] if "__all__" in vars(plots) else ():
        assert f"lattice.plots.{name}(" in page, name


@pytest.mark.parametrize(("colour", "is_safe"), [("#FF0000", False), ("#0072B2", True), ("#A6CBE3", True),
                                                 ("#2CA02C", False), ("#777777", True)])  # fmt: skip
def test_what_counts_as_safe(colour, is_safe):
    assert safe(colour) == is_safe
