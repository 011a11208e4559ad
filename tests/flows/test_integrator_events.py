"""Unweighted events."""

import pytest
import torch
from hepops.flows import Integrator
from hepops.flows.integration import integrands

MAP = {"candidates": ("map",)}


@pytest.fixture(scope="module")
def camel():
    integrator = Integrator(integrands.camel(2), 2, **MAP)
    integrator.integrate(40_000, seed=1)
    return integrator


def test_events_are_distributed_as_f(camel):
    events = camel.sample_unweighted(20_000, seed=1)
    # the first moments of f, by quadrature
    grid = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    x = torch.cartesian_prod(grid, grid)
    f = integrands.camel(2)(x)
    for moment in (lambda x: x[:, 0], lambda x: x[:, 0] * x[:, 1], lambda x: (x[:, 0] - x[:, 1]).square()):
        truth = float((moment(x) * f).sum() / f.sum())
        values = moment(events.x)
        mean = float((values * events.weights).sum() / events.weights.sum())
        assert abs(mean - truth) < 5 * float(values.std()) / 20_000**0.5


@pytest.mark.parametrize("quantile", [0.5, 0.99, 1.0])
def test_overweight_events_keep_the_integral(camel, quantile):
    events = camel.sample_unweighted(20_000, seed=2, quantile=quantile)
    integral = events.threshold * float(events.weights.sum()) / events.candidates
    assert abs(integral / integrands.camel(2).exact - 1) < 0.03
    assert events.efficiency == 20_000 / events.candidates
    share = float((events.weights > 1).double().mean())
    assert events.overweight == share and bool((events.weights >= 1).all())
    assert (share > 0.2) if quantile == 0.5 else (share < 0.05)
    assert 0 <= events.overweight_excess <= 1 and "overweight" in str(events)


def test_events_are_numbered(camel):
    all_of_them = camel.sample_unweighted(3000, seed=3)
    first = camel.sample_unweighted(1000, seed=3)
    rest = camel.sample_unweighted(2000, seed=3, first=first.next)
    assert torch.equal(torch.cat([first.x, rest.x]), all_of_them.x)
    assert torch.equal(torch.cat([first.weights, rest.weights]), all_of_them.weights)
    assert rest.next == all_of_them.next


def test_signs_are_kept():
    integrator = Integrator(lambda x: x[:, 0] - 0.25, 1, **MAP)
    integrator.integrate(20_000, seed=1, probe_share=0)
    events = integrator.sample_unweighted(5000, seed=1)
    assert bool(((events.x[:, 0] > 0.25) == (events.weights > 0)).all()) and bool((events.weights < 0).any())


def test_what_is_refused(camel):
    for bad in ({"n": 0}, {"n": 1, "quantile": 0.0}, {"n": 1, "quantile": 1.5}, {"n": 1, "first": -1}):
        with pytest.raises(ValueError, match="sample_unweighted: n must be positive"):
            camel.sample_unweighted(**bad)
    with pytest.raises(RuntimeError, match="of 1000000 events after 65536 candidates"):
        camel.sample_unweighted(1_000_000, seed=1, max_candidates=65536)
    vector = Integrator(lambda x: x, 2, **MAP)
    vector.integrate(2_000, seed=1)
    with pytest.raises(ValueError, match="f must be scalar"):
        vector.sample_unweighted(10, seed=1)
    zero = Integrator(lambda x: torch.zeros(len(x)), 2, **MAP)
    with pytest.warns(RuntimeWarning):
        zero.integrate(2_000, seed=1)
    with pytest.raises(ValueError, match="every weight of the pilot is zero"):
        zero.sample_unweighted(10, seed=1)
