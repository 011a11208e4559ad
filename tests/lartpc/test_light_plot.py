"""Figures of light show the numbers that they are given, and no labels overlap."""

import numpy as np
import pytest
import torch
from hepops.lartpc import LightSimulator
from hepops.lartpc.light import SiPM

from .test_light import COARSE, track
from .test_plot import check_layout, texts

plot = pytest.importorskip("hepops.lartpc.light.plot")


@pytest.fixture(scope="module")
def event():
    light = LightSimulator.module0(properties=COARSE, step=5.0)
    with torch.no_grad():
        return light, light(track(), seed=1), light.waveforms(track())


def test_waveforms_of_a_trigger(event):
    _, out, wave = event
    figure = plot.light_waveforms(out, 0, wave)
    assert len(figure.axes) == 16
    axes = figure.axes[2]
    drawn = [line for line in axes.lines if line.get_drawstyle() == "steps-mid"]
    assert np.array_equal(1000 * drawn[3].get_ydata(), out.adc[0, 15].numpy())
    assert axes.get_title() == "channels 12 to 17"
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 6 and dashed[0].get_ydata().min() < 0
    assert figure.axes[-1].get_xlabel() == "time from the trigger [µs]"
    assert any("event 0, module 1" in text for text, _ in texts(figure)[0])
    check_layout(figure)
    with pytest.raises(ValueError, match="trigger: there are"):
        plot.light_waveforms(out, 99)


def test_map_of_visibility(event):
    light, _, _ = event
    figure = plot.visibility_map(light, 0, slice(0, 6))
    image = figure.axes[0].images[0]
    left, right, bottom, top = image.get_extent()
    assert (left, bottom) == (0.0, 0.0) and right == pytest.approx(62.076) and top == pytest.approx(124.152)
    shown = np.asarray(image.get_array())
    y, x = 20, 10
    point = torch.tensor([[-15.0, -62.076 + (y + 0.5) * 124.152 / shown.shape[0], 0.0]], dtype=torch.float64)
    point[0, 2] = -31.038 + (x + 0.5) * 62.076 / shown.shape[1]
    point[0, 0] = -30.431 + 30.27225 / 2
    assert shown[y, x] == pytest.approx(1e6 * light.seen(point).share[:6].sum().item(), rel=1e-9)
    assert np.unravel_index(shown.argmax(), shown.shape)[1] == 0  # brightest at the detectors on the low wall
    check_layout(figure)
    for bad in ({"tpc": 5}, {"channels": [99]}, {"channels": []}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            plot.visibility_map(light, **bad)


def test_spectrum_of_single_photons():
    light = torch.zeros(20_000, 1, dtype=torch.float64) + 1.2
    charge = SiPM(gain_spread=0.1).sample(light, 1.0, torch.arange(20_000), seed=4).sum(1)
    charge = charge + 0.07 * torch.randn(20_000, dtype=torch.float64)
    figure = plot.single_photons(charge, 1.2, 0.1, 0.07)
    above, below = figure.axes
    assert above.get_yscale() == "log" and below.get_xlabel() == "charge [photoelectrons]"
    chi2, bins = (float(x) for x in figure._suptitle.get_text().split() if x.isdigit())
    assert abs(chi2 - bins) < 5 * (2 * bins) ** 0.5
    check_layout(figure)
