import pytest
import torch
from hepops.segmentation import Score, confusion, curves, event_display, make
from hepops.segmentation.training import History

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def event():
    return make(1, seed=1)


def drawn(figure, path):
    figure.savefig(path)
    assert path.stat().st_size > 5000
    return figure


def test_an_event_is_drawn_three_times_with_its_errors(event, tmp_path):
    given = event.label.clamp_min(0)
    given[:7] = (given[:7] + 1) % 4
    figure = drawn(event_display(event, given), tmp_path / "event.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert {"charge", "truth"} <= set(titles) and any("% right" in title for title in titles)
    assert f"network: {100 * (1 - 7 / len(event)):.1f} % right" in titles
    marks = [len(c.get_offsets()) for axes in figure.axes for c in axes.collections]
    assert marks.count(len(event)) == 6 and marks.count(7) == 1  # and a ring around each wrong voxel


def test_display_refuses_what_does_not_fit(event):
    with pytest.raises(ValueError, match="event must be one event, got 2"):
        event_display(make(2, seed=1), torch.zeros(3))
    with pytest.raises(ValueError, match="given must be"):
        event_display(event, torch.zeros(3))


def test_curves_and_confusion(tmp_path):
    steps = [{"step": i + 1, "epoch": i // 5, "rate": 0.1, "loss": 1 / (i + 1), "accuracy": 0.5} for i in range(250)]
    names = ("loss", "accuracy", "muon", "proton", "delta", "shower")
    history = History(
        steps, [{"step": 125, **{f"test_{n}": 0.6 for n in names}}, {"step": 250, **{f"test_{n}": 0.7 for n in names}}]
    )
    figure = drawn(curves(history), tmp_path / "curves.png")
    assert len(figure.axes) == 3
    drawn(curves(History(steps[:1], [])), tmp_path / "begin.png")
    drawn(confusion(Score(torch.tensor([[5, 1, 0, 0], [0, 9, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]))), tmp_path / "c.png")
