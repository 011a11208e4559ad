"""Systematics on cases whose answer is known."""

import math

import pytest
import torch
from hepops.lartpc import Parameters, Simulator, gun, systematics
from torch.testing import assert_close

from .scenes import MODULE0

SIGMA = {"lifetime": 50.0, "birks_a": 0.002}


class One:
    """Stands for Hits: an observable only hands its numbers back."""

    def __init__(self, *numbers):
        self.numbers = torch.tensor(numbers, dtype=torch.float64)


def numbers(hits):
    return hits.numbers


@pytest.fixture(scope="module")
def scene():
    return Simulator(MODULE0, dtype=torch.float64), gun.shoot(MODULE0, events=1, energy=150.0, seed=4)


def test_envelope_of_known_numbers():
    universes = [One(float(k), 2.0 * k) for k in range(5)]
    band = systematics.envelope(numbers, universes, levels=(0.0, 0.5, 1.0))
    assert_close(band.mean, torch.tensor([2.0, 4.0], dtype=torch.float64))
    assert_close(band.std, torch.tensor([2.5, 10.0], dtype=torch.float64).sqrt())
    assert (band.low.tolist(), band.high.tolist()) == ([0, 0], [4, 8])
    assert band.quantiles[:, 0].tolist() == [0, 2, 4]


def test_weights_select_universes():
    universes = [One(float(k)) for k in range(5)]
    band = systematics.envelope(numbers, universes, weights=torch.tensor([0.0, 1, 1, 0, 0]), levels=(0.25, 0.75))
    assert (band.mean.item(), band.low.item(), band.high.item()) == (1.5, 1, 2)
    assert band.quantiles[:, 0].tolist() == [1, 2]
    assert_close(band.std.item(), math.sqrt(0.5))


def test_covariance_is_that_of_numpy():
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[:, 2] = 5.0
    found = systematics.covariance(numbers, [One(*row) for row in rows.tolist()])
    assert_close(found.matrix, torch.cov(rows.T), rtol=1e-12, atol=1e-14)
    assert_close(found.correlation[:2, :2], torch.corrcoef(rows[:, :2].T), rtol=1e-12, atol=1e-14)
    assert found.correlation[2].tolist() == [0, 0, 1]
    values, vectors = found.principal()
    assert_close(vectors.T * values @ vectors, found.matrix, rtol=1e-12, atol=1e-13)
    assert len(found.principal(0.5)[0]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: systematics.envelope(numbers, []), "no universe"),
        (lambda: systematics.spread(numbers, [One(1.0), One(1.0, 2.0)]), r"universe 1 has shape \(2,\)"),
        (lambda: systematics.envelope(numbers, [One(1.0)], levels=(1.2,)), r"levels must lie in \[0, 1\]"),
        (lambda: systematics.covariance(numbers, [One(1.0)]), "two universes"),
        (lambda: systematics.envelope(numbers, [One(1.0)], weights=torch.tensor([-1.0])), "not negative"),
        (lambda: systematics.charge_histogram(torch.tensor([1.0, 1.0])), "rising"),
        (lambda: systematics.hits_per_pixel(0), "at least 1"),
        (lambda: systematics.throws(["lifetime"], [2200.0], torch.tensor([[-1.0]]), 3, seed=1), "positive"),
        (lambda: systematics.throws(["lifetime"], [2200.0], torch.tensor([[math.nan]]), 3, seed=1), "NaN"),
        (lambda: systematics.throws(["lifetime"], [2200.0, 1.0], torch.eye(1), 3, seed=1), "do not fit"),
        (lambda: systematics.throws(["lifetime"], [-2200.0], torch.eye(1), 3, seed=1), "outside of what the laws"),
        (lambda: systematics.knobs(Parameters(), {"lifetime": 0.0}), "sigma of lifetime must be positive"),
        (lambda: systematics.knobs(Parameters(), {"birks_a": 0.5}), "birks_a"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_observables(scene):
    sim, segs = scene
    with torch.no_grad():
        hits = sim(segs)
    edges = torch.linspace(0, 1e6, 50)
    assert int(systematics.charge_histogram(edges)(hits).sum()) == len(hits)
    weighed = systematics.time_histogram(torch.tensor([-1e4, 1e4]), charge=True)(hits)
    assert_close(weighed, systematics.total_charge(hits))
    pixels = systematics.hits_per_pixel(50)(hits)
    assert int(pixels.sum()) == len(hits.per_pixel().charge)
    assert int((pixels * torch.arange(1, 51)).sum()) == len(hits)


def test_throws_have_the_covariance():
    matrix = torch.tensor([[400.0, 0.05], [0.05, 1e-4]], dtype=torch.float64)
    drawn = systematics.throws(["lifetime", "birks_a"], [2200.0, 0.8], matrix, 20_000, seed=3)
    found = torch.cov(torch.stack(list(drawn.values())))
    # the relative error of a variance from n draws is sqrt(2 / n) = 1 %
    assert_close(found / matrix, torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=0.05)
    again = systematics.throws(["lifetime", "birks_a"], [2200.0, 0.8], matrix, 20_000, seed=3)
    assert torch.equal(drawn["lifetime"], again["lifetime"])
    near = systematics.throws(["birks_a"], [0.999], torch.tensor([[1e-4]]), 500, seed=1)["birks_a"]
    assert float(near.max()) <= 1.0


def test_knobs_change_what_they_should(scene):
    sim, segs = scene
    nominal, table = systematics.knob_table(sim, segs, lambda h: h.charge.sum().reshape(1) * len(h) ** 0, SIGMA)
    assert [knob.name for knob in table] == list(SIGMA)
    with torch.no_grad():
        assert_close(nominal, sim(segs).charge.sum().reshape(1), rtol=1e-11, atol=0)
    for knob in table:
        assert knob.low.item() < 0 < knob.high.item()  # more lifetime, more charge; more A_b likewise


def test_linear_prediction_is_of_second_order(scene):
    """Half the change leaves a quarter of the error; the remainder that is stated has its size."""
    sim, segs = scene
    linear = systematics.Linear(sim, segs, {"lifetime": 20.0})
    sets = {"lifetime": torch.tensor([2200.0, 2210.0, 2220.0], dtype=torch.float64)}
    true = sim.universes(sets, segs)
    rms = linear.compare(list(true), sets)[:, 2:]
    assert rms[0].max() < 1e-9
    ratio = rms[2] / rms[1]
    assert bool(((ratio > 3.5) & (ratio < 4.5)).all())
    validity = linear.validity(sets)
    stated = torch.stack((validity.time_remainder, validity.charge_remainder), 1)
    assert_close(stated[2], rms[2], rtol=0.2, atol=0)
    assert bool(validity.good.all())


def test_linear_says_where_it_fails(scene):
    sim, segs = scene
    linear = systematics.Linear(sim, segs, SIGMA)
    validity = linear.validity({"lifetime": [2200.0, 600.0], "birks_a": [0.8, 0.8]})
    assert validity.good.tolist() == [True, False]
    assert validity.lost[0] == 0 and validity.lost[1] > 0 and validity.crossing[1] > 0
    with pytest.raises(ValueError, match="efield varies, but there is no tangent"):
        linear.predict([Parameters(efield=0.51)])
    with pytest.raises(ValueError, match="sigma of lifetime must be positive"):
        systematics.Linear(sim, segs, {"lifetime": -1.0})


def test_reweighting_moves_the_mean():
    """x ~ N(0, 1) reweighted to N(.5, .8): known moments, and known n_eff = n / E[w^2]."""
    n = 50_000
    x = 2200 + 100 * torch.randn(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = systematics.gaussian_log_density({"lifetime": 2200.0}, {"lifetime": 100.0})
    wanted = systematics.gaussian_log_density({"lifetime": 2250.0}, {"lifetime": 80.0})
    w = systematics.reweight({"lifetime": x}, drawn, wanted)
    mean = float((w.values * x).sum())
    assert abs(mean - 2250) < 5 * 80 / math.sqrt(w.effective)
    s, m = 0.8, 0.5  # E[w^2] of two Gaussians
    square = math.exp(m * m / (2 - s * s)) / (s * math.sqrt(2 - s * s))
    assert w.effective / n == pytest.approx(1 / square, rel=0.02)
    with pytest.warns(UserWarning, match="are worth"):
        far = systematics.gaussian_log_density({"lifetime": 3000.0}, {"lifetime": 10.0})
        systematics.reweight({"lifetime": x[:50]}, drawn, far)
    with pytest.raises(ValueError, match="no finite weight"):
        systematics.reweight({"lifetime": x * math.nan}, drawn, wanted)


def test_figures_are_drawn(scene):
    pytest.importorskip("matplotlib")
    edges = torch.linspace(0, 4, 5)
    universes = [One(1.0, 2.0 + k, 3.0, 0.0) for k in range(4)]
    band, spread = systematics.envelope(numbers, universes), systematics.covariance(numbers, universes)
    figure = systematics.band_plot(edges, universes[0].numbers, band, xlabel="x")
    assert [axes.get_ylabel() for axes in figure.axes] == ["hits per bin", "ratio"]
    assert len(systematics.correlation_plot(spread, edges).axes) == 3
    with pytest.raises(ValueError, match="do not fit"):
        systematics.band_plot(edges[:3], universes[0].numbers, band, xlabel="x")


def test_far_beyond_a_sigma_is_never_called_good():
    """Close to the plane a short lifetime moves little to second order, and much to higher ones."""
    sim = Simulator(MODULE0)
    near = gun.shoot(MODULE0, events=1, energy=100.0, seed=1)
    linear = systematics.Linear(sim, near, {"lifetime": 100.0})
    wanted = {"lifetime": [2150.0, 300.0]}
    assert linear.validity(wanted).good.tolist() == [True, False]
    assert float(linear.compare(list(sim.universes(wanted, near)), wanted)[1, 3]) > 0.01
