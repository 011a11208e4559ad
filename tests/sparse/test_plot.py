"""What is drawn is what was given; the pictures themselves are looked at."""

import numpy as np
import pytest
import torch
from hepops.sparse import SparseTensor, plot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba


def event(n=80, size=30, dimension=3, batch=2, channels=2):
    place = torch.randperm(batch * size**dimension)[:n]
    columns = [place // size**dimension] + [place // size**a % size for a in range(dimension)]
    return SparseTensor(torch.rand(n, channels) + 0.1, torch.stack(columns, 1))


def draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_every_dimension_is_drawn(dimension):
    x = event(20, dimension=dimension)
    labels = torch.randint(3, (20,))
    pictures = [plot.plot_features(x, 1), plot.plot_labels(x, labels, 1), plot.plot_comparison(x, labels, labels, 1)]
    for figure in pictures:
        assert (draw(figure)[..., :3] < 250).any()
        assert "event 1" in figure.get_suptitle()


def test_projections_sum_the_feature_and_lose_none_of_it():
    x = event()
    rows = x.coordinates[:, 0] == 1
    figure = plot.plot_features(x, 1, channel=1, label="charge")
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(images) == 3
    for image in images:
        assert np.nansum(np.ma.filled(image, np.nan)) == pytest.approx(float(x.features[rows, 1].sum()), rel=1e-5)
    assert any("sum of charge along z" in ax.get_xlabel() for ax in figure.axes)


def test_large_events_are_drawn_in_blocks_that_keep_the_sum():
    c = torch.tensor([[0, 0, 0], [0, 767, 5], [0, 766, 5]])
    figure = plot.plot_features(SparseTensor(torch.ones(3, 1), c))
    image = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert max(image.shape) <= plot.PIXELS
    assert np.nansum(image) == 3
    assert "pixel: 4 x 4 voxels" in [text.get_text() for text in figure.axes[0].texts]


def test_pixels_lie_where_the_voxels_are():
    c = torch.tensor([[0, 10, 20], [0, 14, 22]])
    figure = plot.plot_features(SparseTensor(torch.tensor([[1.0], [2.0]]), c, stride=2))
    image = figure.axes[0].images[0]
    assert image.get_extent() == [10, 16, 20, 24]
    values = np.ma.filled(image.get_array(), np.nan)
    assert values[0, 0] == 1 and values[1, 2] == 2 and np.isnan(values).sum() == 4


def test_a_pixel_has_the_colour_of_its_most_frequent_class():
    c = torch.tensor([[0, 5, 5, z] for z in range(3)] + [[0, 6, 5, 0]])
    x = SparseTensor(torch.ones(4, 1), c)
    figure = plot.plot_labels(x, torch.tensor([2, 1, 2, -1]))
    image = figure.axes[1].images[0].get_array()
    assert tuple(image[0, 0]) == pytest.approx(to_rgba(plot.CLASSES[2]))
    assert tuple(image[0, 1]) == pytest.approx(to_rgba(plot.FAINT))


def test_the_comparison_counts_what_is_right():
    x = event(60, batch=1)
    truth = torch.arange(60) % 3
    truth[:10] = -1
    logits = torch.nn.functional.one_hot(truth.clamp(min=0), 3).float()
    logits[-5:] = 1 - logits[-5:] * 2
    for view in ("3d", "xy", "zy"):
        figure = plot.plot_comparison(x, truth, logits, names=["muon", "proton", "shower"], view=view)
        draw(figure)
        assert "90.0 % right" in figure.get_suptitle()
        assert figure.axes[2].get_title() == "wrong: 5 of 50"
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert any(word.startswith("muon: ") for word in words) and "no label (10)" in words


def test_what_cannot_be_drawn_is_refused():
    x = event()
    with pytest.raises(ValueError, match="event 7 is not there"):
        plot.plot_features(x, 7)
    with pytest.raises(ValueError, match="channel must be below 2"):
        plot.plot_features(x, channel=2)
    with pytest.raises(ValueError, match="no voxels"):
        plot.plot_features(SparseTensor(torch.zeros(0, 1), torch.zeros(0, 4, dtype=torch.int32)))
    with pytest.raises(ValueError, match="no voxels"):
        plot.plot_features(SparseTensor(torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.int32)), log=True)
    with pytest.raises(ValueError, match=r"labels must be integer \(80,\)"):
        plot.plot_labels(x, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="at most 8 classes"):
        plot.plot_labels(x, torch.full((80,), 8))
    with pytest.raises(ValueError, match="names must be"):
        plot.plot_labels(x, torch.full((80,), 2), names=["a"])
    with pytest.raises(ValueError, match="view must be"):
        plot.plot_comparison(x, torch.zeros(80, dtype=torch.long), torch.zeros(80, dtype=torch.long), view="xw")


def test_a_notebook_sees_events_and_channels():
    x = event(batch=7, channels=8)
    x.features[0, 3] = float("nan")
    html = x._repr_html_()
    assert "2 more" in html and "3 more" in html and "not finite" in html
    assert html.count("<table>") == 2 and html.count("<tr>") == 2 + 6 + 6
    empty = SparseTensor(torch.zeros(0, 1), torch.zeros(0, 4, dtype=torch.int32))
    assert "<table>" not in empty._repr_html_() and "0 voxels" in empty._repr_html_()
