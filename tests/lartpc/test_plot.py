"""Figures: they show the numbers that they are given, their axes say what in which unit, and no labels overlap."""

import hepops
import numpy as np
import pytest
import torch
from hepops.lartpc import Detector, ModularSimulator, Parameters, Segments, Simulator, gun
from hepops.lartpc.wires import WireDetector, WireSimulator
from matplotlib.backends.backend_agg import FigureCanvasAgg

plot = pytest.importorskip("hepops.lartpc.plot")
SLANTED = ("z, beam [cm]", "x, drift [cm]")  # the box around a slanted text is larger than the text
HIDDEN = Parameters(lifetime=1500.0, efield=0.49)


@pytest.fixture(scope="module")
def event():
    detector = Detector.module0()
    parts = [
        gun.shoot(detector, 1, "muon", directions=(1.0, 1.0, 0.3), seed=1),
        gun.shoot(detector, 2, "proton", topology="inside", energy=(80.0, 120.0), seed=1, first_event=1),
    ]
    segments = Segments.cat(parts)
    sim = Simulator(detector, HIDDEN, dtype=torch.float64)
    with torch.no_grad():
        return detector, segments, sim(segments), sim.waveforms(segments)


@pytest.fixture(scope="module")
def result(event):
    detector, segments, hits, _ = event
    sim = Simulator(detector, dtype=torch.float64)
    return hepops.lartpc.fit(sim, segments, hits, ["lifetime", "efield"], starts=2)


def texts(figure):
    """Every text that is drawn, with its box on the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = list(figure.texts)
    for axes in figure.axes:
        found += [axes.title, *axes.texts, *(axes.get_legend().get_texts() if axes.get_legend() else [])]
        for axis in (axes.xaxis, axes.yaxis, *([axes.zaxis] if axes.name == "3d" else [])):
            low, high = sorted(axis.get_view_interval())  # ticks beyond exist and are not drawn
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, axis.offsetText, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    seen = [t for t in found if t.get_visible() and t.get_text().strip()]
    if figure._suptitle is not None:
        seen.append(figure._suptitle)
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in dict.fromkeys(seen)], figure.bbox


def check_layout(figure):
    """No text overlaps another or leaves the page; 2D axes have labels."""
    boxes, page = texts(figure)
    for text, box in boxes:
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < page.width + 1 and box.y1 < page.height + 1, (
            f"{text!r} is cut off"
        )
    upright = [(text, box) for text, box in boxes if text not in SLANTED]
    for i, (text, box) in enumerate(upright):
        for other, second in upright[i + 1 :]:
            width = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert width <= 2 or height <= 2, f"{text!r} overlaps {other!r}"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("with_waves", [False, True], ids=["hits", "waveform"])
def test_event_display(event, number, with_waves):
    detector, _, hits, waves = event
    figure = plot.event_display(hits, detector, number, waves=waves if with_waves else None)
    space, *planes = figure.axes
    mine = hits[hits.event == number]
    assert len(space.collections[0].get_offsets()) == len(mine)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels.count("z [cm]") == len(torch.unique(mine.tpc))
    assert "charge [ke]" in [axes.get_ylabel() for axes in planes]
    assert any(f"event {number}" in text for text, _ in texts(figure)[0])
    check_layout(figure)


def test_plane_shows_the_charge_of_each_pixel_where_it_is(event):
    detector, _, hits, _ = event
    tpc = int(hits.tpc[0])
    axes = plot.pixel_plane(hits, detector, tpc, int(hits.event[0])).axes[0]
    mesh = axes.collections[0]
    sums = hits[(hits.event == hits.event[0]) & (hits.tpc == tpc)].per_pixel()
    shown = mesh.get_array()
    assert np.nansum(shown.filled(np.nan)) * 1000 == pytest.approx(float(sums.charge.sum()), rel=1e-12)
    centre = detector.pixel_centre(sums.tpc, sums.ix, sums.iy)[0]
    corners = mesh.get_coordinates()
    column = np.searchsorted(corners[0, :, 0], float(centre[2])) - 1
    row = np.searchsorted(corners[:, 0, 1], float(centre[1])) - 1
    assert shown[row, column] * 1000 == pytest.approx(float(sums.charge[0]), rel=1e-12)


def test_waveform_crosses_the_threshold_where_the_hit_is(event):
    """The charge is drawn backwards from the reading: that it meets the threshold at the hit's time is no tautology."""
    detector, _, hits, waves = event
    figure = plot.waveform(waves, hits, detector)
    below = figure.axes[1]
    crossings = [line for line in below.lines if line.get_marker() == "o"]
    assert crossings
    heights = [float(line.get_ydata()[0]) for line in crossings]
    assert heights[0] == pytest.approx(detector.frontend.threshold / 1000, rel=1e-6)
    assert min(heights) > detector.frontend.threshold / 1000 * (
        1 - 1e-6
    )  # later ones may have waited for the busy time
    assert figure.axes[0].get_ylabel() == "current [ke/µs]" and below.get_xlabel() == "time [µs]"
    check_layout(figure)


def test_waveform_of_a_chosen_pixel(event):
    detector, _, hits, waves = event
    pixel = tuple(int(column[0]) for column in (hits.tpc, hits.ix, hits.iy))
    assert f"pixel ({pixel[1]}, {pixel[2]})" in plot.waveform(waves, hits, detector, pixel).axes[0].get_title()
    with pytest.raises(ValueError, match=r"pixel: no current on \(tpc, ix, iy\) = \(0, 999, 0\)"):
        plot.waveform(waves, hits, detector, (0, 999, 0))


def test_noisy_hits_are_drawn_too(event):
    detector, segments, _, waves = event
    hits = Simulator(detector, HIDDEN)(segments, seed=1)
    check_layout(plot.event_display(hits, detector, 0, waves=waves))


def test_trace_begins_at_the_start_and_ends_at_the_truth(result):
    figure = plot.trace(result, HIDDEN.to_dict())
    for k, (axes, name) in enumerate(zip(figure.axes, result.names, strict=False)):
        path = axes.lines[-2].get_ydata()
        assert path[0] == result.starts[result.best].start[k]
        assert path[-1] == pytest.approx(getattr(HIDDEN, name), rel=1e-6)
        assert axes.lines[-1].get_ydata()[0] == getattr(HIDDEN, name)
    check_layout(figure)


def test_correlations_show_the_matrix(result):
    axes = plot.correlations(result).axes[0]
    assert np.array_equal(axes.images[0].get_array(), result.correlations.numpy())
    check_layout(axes.figure)


def test_residuals_count_them_all(result):
    axes = plot.residuals(result).axes[0]
    drawn = sum(patch.get_data().values.sum() for patch in axes.patches)
    assert drawn == len(result.residuals)
    check_layout(axes.figure)


def test_overview(result):
    for figure in (result.plot(), plot.overview(result, HIDDEN.to_dict())):
        assert len(figure.axes) == 5
        check_layout(figure)


def test_what_cannot_be_drawn_is_refused(event):
    detector, _, hits, _ = event
    with pytest.raises(ValueError, match="no hit of event 99"):
        plot.event_display(hits, detector, 99)
    with pytest.raises(ValueError, match="none to draw"):
        plot.event_display(hits[:0], detector)
    with pytest.raises(ValueError, match="no hit in TPC 7"):
        plot.pixel_plane(hits, detector, 7)


# ---- several modules, wires


@pytest.fixture(scope="module")
def modules():
    detector = Detector.two_by_two()
    parts = [gun.shoot(detector.module(n), 1, directions=(0.8, -0.6, 0.5), seed=7, first_event=0) for n in (1, 3)]
    with torch.no_grad():
        return detector, ModularSimulator(detector)(Segments.cat(parts))


def test_array_display_has_every_hit_in_three_views(modules):
    detector, hits = modules
    figure = plot.array_display(hits, detector)
    views = figure.axes[:3]
    for axes, (a, b) in zip(views, (("z", "x"), ("z", "y"), ("x", "y")), strict=True):
        at = np.asarray(axes.collections[0].get_offsets())
        mine = torch.stack((getattr(hits, a), getattr(hits, b)), 1).numpy()
        np.testing.assert_allclose(at[np.lexsort(at.T)], mine[np.lexsort(mine.T)], rtol=1e-6)
    assert {text.get_text() for text in views[0].texts} == {"1", "3"}  # the modules that are hit
    check_layout(figure)


def test_a_plane_of_small_pixels_is_drawn_with_its_pitch(modules):
    detector, hits = modules
    axes = plot.pixel_plane(hits, detector, int(hits.tpc.max())).axes[0]
    np.testing.assert_allclose(np.diff(axes.collections[0].get_coordinates()[0, :, 0]), 0.387975, rtol=1e-9)


@pytest.mark.parametrize(
    "detector", [Detector.two_by_two(), Detector.nd_lar(), WireDetector.dune_apa()], ids=lambda d: d.name
)
def test_detector_drawing(detector):
    figure = plot.detector_drawing(detector)
    check_layout(figure)
    heights = {float(y) for line in figure.axes[0].lines for y in line.get_ydata()}
    assert {x for t in detector.tpcs for x in (t.anode, t.cathode)} <= heights


def test_wire_views_show_the_voltages():
    detector = WireDetector.microboone()
    segments = gun.shoot(detector.volumes, 1, energy=60.0, topology="inside", seed=2)
    with torch.no_grad():
        images = WireSimulator(detector)(segments)
    figure = plot.wire_views(images)
    check_layout(figure)
    for k, (axes, plane) in enumerate(zip(figure.axes, detector.planes, strict=False)):
        assert plane.name in axes.get_title() and plane.kind in axes.get_title()
        mesh, (image, first) = axes.collections[0], images.dense(0, 0, k)
        shown = mesh.get_array()
        assert float(np.nanmax(shown.filled(np.nan))) == float(image.max())
        tick, wire = np.unravel_index(np.nanargmax(shown.filled(np.nan)), shown.shape)
        number, at = divmod(int(image.argmax()), image.shape[1])
        corner = mesh.get_coordinates()[tick, wire]
        assert corner[0] == pytest.approx(detector.span(k)[0] + number * plane.pitch)
        assert corner[1] == pytest.approx((first + at) * detector.tick)
    with pytest.raises(ValueError, match="there is no image of event 5"):
        plot.wire_views(images, 5)
