"""Figures: drawn, saved, with what they show; they refuse what they cannot draw."""

import pytest
import torch
from hepops.lattice import SUN, observables, plots, statistics
from hepops.lattice.statistics import Measurement, estimate
from hepops.lattice.wilson_flow import FlowHistory

pytest.importorskip("matplotlib")


def lines_of(figure):
    return figure.axes[0].get_lines()


def flow_history():
    t = torch.linspace(0, 4, 41, dtype=torch.float64)
    c = 0.1 + 0.002 * torch.randn(20, 1, dtype=torch.float64)
    E = torch.where(t > 0, c / t.clamp_min(1e-9), 0)
    return FlowHistory(t, E, E, None, torch.zeros(0), torch.zeros(20))


def figures():
    x = torch.randn(500, dtype=torch.float64)
    C = torch.cosh(0.5 * (torch.arange(8) - 4).double()) * (1 + 0.01 * torch.randn(100, 8, dtype=torch.float64))
    U = SUN(2, (4, 4), 2.0).cold(40)
    loops = estimate(observables.wilson_loops(U, 2, 2)[:, 0] - 0.1 * torch.rand(40, 2, 2, dtype=torch.float64))
    ratios = estimate(0.5 - 0.1 * torch.rand(40, 2, 2, dtype=torch.float64), observables.creutz_ratios)
    return {
        "history": plots.history(x, r"$\phi^2$", exact=0.0),
        "autocorrelation": plots.autocorrelation(statistics.autocorrelation(x)),
        "correlator": plots.correlator(estimate(C)),
        "effective_mass": plots.effective_mass(C, mass=Measurement(torch.tensor(0.5), torch.tensor(0.01))),
        "flow_scales": plots.flow_scales(flow_history()),
        "wilson_loops": plots.wilson_loops(loops),
        "creutz_ratios": plots.creutz_ratios(ratios, exact=0.2),
        "log_weights": plots.log_weights(0.5 * x),
        "acceptance_runs": plots.acceptance_runs(x > 0),
        "charge_history": plots.charge_history(x.round()),
    }


def test_each_is_drawn_and_labelled(tmp_path):
    drawn = figures()
    for name, figure in drawn.items():
        path = tmp_path / f"{name}.png"
        figure.savefig(path)
        assert path.stat().st_size > 5000
        axis = figure.axes[0]
        assert axis.get_xlabel() and axis.get_ylabel()
        assert axis.has_data()


def test_what_they_show():
    x = torch.tensor([1.0, 3.0, 5.0])
    running = lines_of(plots.history(x))[1].get_ydata()
    assert running.tolist() == [1.0, 2.0, 3.0]
    marked = [line.get_label() for line in lines_of(plots.flow_scales(flow_history()))]
    assert any(label.startswith("$t_0/a^2 = 3.") or label.startswith("$t_0/a^2 = 2.9") for label in marked)
    assert any(label.startswith("$w_0/a = 1.7") for label in marked)


def test_into_an_axis_of_ours():
    figure = plots.history(torch.randn(10))
    again = plots.correlator(Measurement(torch.ones(4), torch.ones(4)), axis=figure.add_subplot())
    assert again is figure and len(figure.axes) == 2


def test_refuses():
    with pytest.raises(ValueError, match=r"history: a series of shape \(N\), N >= 1, is wanted, got \(2, 3\)"):
        plots.history(torch.randn(2, 3))
    with pytest.raises(ValueError, match="one quantity is drawn, got 2"):
        plots.autocorrelation(statistics.autocorrelation(torch.randn(100, 2)))
    with pytest.raises(TypeError, match="accepted must be bool"):
        plots.acceptance_runs(torch.ones(3))
