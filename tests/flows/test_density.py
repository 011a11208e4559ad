"""Densities of tables: normalised in the columns' own units, uniform tail probabilities, files, figures, bad input."""

import json
import math
import os

import numpy as np
import pytest
import torch
from hepops.flows import Normal, nsf
from hepops.flows.columns import Column, cell_points, make_columns
from hepops.flows.density import Density, Reference
from hepops.flows.density_flow import LinesAndCircles, density_flow
from hepops.flows.density_plots import curve
from hepops.flows.samples import COLUMNS, KINDS, radiative_return
from hepops.flows.training.order import SPLIT, permutation

SMALL = {"layers": 2, "bins": 4, "hidden": (16,), "epochs": 1, "batch": 200}


def _table(n, seed=0):
    """One column of each kind, on each other dependent."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return {
        "a": 100 + 5 * a,
        "pt": np.exp(0.5 * rng.normal(size=n) + 0.3 * a),
        "cos": np.tanh(rng.normal(size=n)),
        "phi": np.remainder(3 + 0.5 * rng.normal(size=n) + 0.5 * a + np.pi, 2 * np.pi) - np.pi,
        "n": rng.poisson(2 + np.abs(a)).astype(float),
    }


ALL_KINDS = {"pt": "positive", "cos": ("bounded", -1, 1), "phi": ("periodic", -np.pi, np.pi), "n": "integer"}


@pytest.fixture(scope="module")
def fitted():
    return Density.fit(_table(3000), kinds=ALL_KINDS, seed=4, **SMALL)


# Columns


@pytest.mark.parametrize("kind", ["real", "positive", ("bounded", -2, 5), ("periodic", -1, 3), "integer"])
def test_columns_come_back_and_know_their_derivative(kind):
    x = torch.linspace(0.1, 2.9, 57, dtype=torch.float64)
    x = torch.arange(1.0, 40.0, dtype=torch.float64) if kind == "integer" else x
    column = make_columns(["c"], {"c": kind})[0].learnt(x, None)
    x.requires_grad_()
    u, log_slope = column.forward(x)
    torch.testing.assert_close(column.inverse(u), x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad(u.sum(), x)[0].log(), log_slope, rtol=1e-12, atol=1e-12)
    if kind not in ("integer",) and not column.periodic:
        assert abs(u.mean()) < 1e-12 and abs(u.std(correction=0) - 1) < 1e-12


def test_columns_learn_with_weights():
    x, v = torch.tensor([1.0, 3.0, 50.0]).double(), torch.tensor([3.0, 1.0, 0.0]).double()
    column = Column("c").learnt(x, v)
    assert column.mean == pytest.approx(1.5) and column.width == pytest.approx(math.sqrt(0.75))


def test_periodic_columns_are_circles():
    column = Column("phi", "periodic", 0.0, 360.0)
    u, _ = column.forward(torch.tensor([10.0, 370.0, -350.0, 359.999], dtype=torch.float64))
    torch.testing.assert_close(u[:3], u[:1].expand(3), rtol=0, atol=1e-12)
    flow = density_flow([True, False], layers=2, bins=4, hidden=(8,), dtype=torch.float64)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.5)
    ends = flow.log_prob(torch.tensor([[-math.pi + 1e-12, 0.3], [math.pi - 1e-12, 0.3]], dtype=torch.float64))
    assert abs(ends[0] - ends[1]) < 1e-7  # the density has no seam


def test_bounded_and_positive_samples_stay_inside():
    far = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64)
    for column in (Column("c", "bounded", -1.0, 1.0), Column("c", "positive")):
        assert not column.outside(column.inverse(far)).any()


def test_cell_points_are_spread_over_the_cell():
    for D in (1, 2, 3):
        points = cell_points(64, D)
        assert points.shape == (64, D) and points.abs().max() <= 0.5
        assert points.mean(0).abs().max() < 0.02 and (points.var(0) - 1 / 12).abs().max() < 0.01


def test_base_of_lines_and_circles():
    base = LinesAndCircles([False, True, True, False])
    z = base.draw(50_000, seed=1).double()
    assert z[:, 1].abs().max() <= math.pi and z[:, 0].abs().max() > 3.2
    assert np.abs(np.corrcoef(np.stack([*z.T, *(z**2).T, *z.cos().T])) - np.eye(12))[:4].max() < 0.03
    torch.testing.assert_close(z[:, [1, 2]].var(0), torch.full((2,), math.pi**2 / 3).double(), rtol=0.02, atol=0)
    line = Normal(2).log_prob(z[:, [0, 3]].float())
    torch.testing.assert_close(base.log_prob(z), line - 2 * math.log(2 * math.pi), rtol=0, atol=1e-5)


# The density


def test_mass_is_one_in_the_units_of_the_columns():
    x = _table(2000)
    table = {k: x[k] for k in ("cos", "phi", "n")}
    density = Density.fit(table, kinds={k: ALL_KINDS[k] for k in table}, seed=1, **SMALL)
    cos, phi = ((np.arange(60) + 0.5) / 60 * 2 - 1), ((np.arange(50) + 0.5) / 50 * 2 - 1) * np.pi
    grid = np.stack(np.meshgrid(cos, phi, np.arange(-3.0, 16.0), indexing="ij"), -1).reshape(-1, 3)
    mass = density.log_prob(grid).exp().sum() * (2 / 60) * (2 * np.pi / 50)
    assert abs(mass - 1) < 0.02


def test_log_prob_changes_by_the_units():
    x = np.random.default_rng(1).normal(size=(1000, 1))
    one, other = (Density.fit(s * x, seed=1, **SMALL) for s in (1.0, 1000.0))
    torch.testing.assert_close(one.log_prob(x) - math.log(1000), other.log_prob(1000 * x), rtol=0, atol=1e-4)


def test_it_learns_the_entropy_of_a_curved_density():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 6000))
    density = Density.fit({"x": 7 * a, "y": 0.01 * (a**2 + 0.3 * b)}, layers=4, epochs=8, batch=256, lr=5e-3, seed=1)
    entropy = 2 * 0.5 * math.log(2 * math.pi * math.e) + math.log(7 * 0.01 * 0.3)
    assert density.reference.log_prob.mean() > -entropy - 0.12


def test_weights_move_the_density_and_may_be_a_column():
    x = np.concatenate([np.full(1000, -1.0), np.full(1000, 1.0)]) + 0.1 * np.random.default_rng(0).normal(size=2000)
    w = np.where(x < 0, 3.0, 1.0)
    by_name = Density.fit({"x": x, "w": w}, weights="w", seed=2, **{**SMALL, "epochs": 20, "bins": 8})
    by_array = Density.fit({"x": x}, weights=w, seed=2, **{**SMALL, "epochs": 20, "bins": 8})
    assert by_name.names == ("x",)
    assert torch.equal(by_name.log_prob({"x": x}), by_array.log_prob({"x": x}))
    assert abs((by_name.sample(5000, seed=1)["x"] < 0).mean() - 0.75) < 0.04


def test_samples_have_the_columns_and_their_domains(fitted):
    table = fitted.sample(2000, seed=3)
    assert list(table) == ["a", "pt", "cos", "phi", "n"]
    assert (table["pt"] > 0).all() and (np.abs(table["cos"]) < 1).all() and (np.abs(table["phi"]) <= np.pi).all()
    assert np.array_equal(table["n"], table["n"].round())
    assert fitted.log_prob(table).isfinite().all()
    rows = fitted.sample(2000, seed=3, form="numpy")
    assert np.array_equal(rows[:, 0], table["a"])
    late = fitted.sample(500, seed=3, first=1500, form="numpy")  # rows are named: the batch does not matter
    assert np.allclose(late, rows[1500:], rtol=1e-5, atol=1e-5)


def test_samples_as_data_frames(fitted):
    pandas = pytest.importorskip("pandas")
    frame = fitted.sample(10, seed=1, form="pandas")
    assert isinstance(frame, pandas.DataFrame) and list(frame) == list(fitted.names)
    torch.testing.assert_close(fitted.log_prob(frame), fitted.log_prob(frame.to_numpy()), rtol=0, atol=0)


def test_outside_the_domain_the_density_is_zero(fitted):
    x = fitted.sample(4, seed=1)
    x["pt"][0], x["cos"][1], x["n"][2] = -1.0, 1.5, 2.5
    assert fitted.log_prob(x).isinf().tolist() == [True, True, True, False]


def test_a_flow_of_ones_own(tmp_path):
    x = np.random.default_rng(1).normal(size=(500, 2))
    density = Density.fit(x, flow=lambda D: nsf(D, layers=2, hidden=(8,)), epochs=1, seed=1)
    density.save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="give one of its shape as flow"):
        Density.load(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="does not fit the flow"):
        Density.load(tmp_path / "d.safetensors", flow=nsf(2, layers=3))
    loaded = Density.load(tmp_path / "d.safetensors", flow=nsf(2, layers=2, hidden=(8,)))
    assert torch.equal(loaded.log_prob(x), density.log_prob(x))


def test_the_same_seed_the_same_bits(fitted):
    torch.manual_seed(99)
    again = Density.fit(_table(3000), kinds=ALL_KINDS, seed=4, **SMALL)
    x = fitted.sample(100, seed=1)
    assert torch.equal(again.log_prob(x), fitted.log_prob(x))


# Anomalies


def _distance_to_uniform(p):
    """Kolmogorov and Smirnov's sqrt(n) D: above 1.95 once in a thousand."""
    p = np.sort(np.asarray(p))
    n = len(p)
    return math.sqrt(n) * max(np.max(np.arange(1, n + 1) / n - p), np.max(p - np.arange(n) / n))


def test_tail_probability_is_uniform_on_null_data(fitted):
    score = fitted.anomaly_score(_table(300, seed=8))
    assert _distance_to_uniform(score.p) < 1.95
    n = len(fitted.reference.log_prob)
    assert n == 300 and score.p.min() >= 1 / 301 and score.p.max() <= 1
    torch.testing.assert_close(score.error, (score.p * (1 - score.p) / n).sqrt())
    model = fitted.anomaly_score(fitted.sample(2000, seed=5), against="model", samples=20_000, seed=6)
    assert _distance_to_uniform(model.p) < 1.95


def test_tail_probability_over_many_fits_is_exactly_uniform():
    # p = (k + 1) / (n + 1) of exchangeable numbers: each value as often as each other, for a small n
    g = torch.Generator().manual_seed(1)
    counts = torch.zeros(6)
    for _ in range(6000):
        x = torch.randn(6, generator=g, dtype=torch.float64)
        p = Reference(x[:5].sort().values, torch.ones(5, dtype=torch.float64)).score(x[5:]).p
        counts[round(float(p) * 6) - 1] += 1
    assert (counts - 1000).abs().max() < 4 * math.sqrt(1000 * 5 / 6)


def test_anomalies_have_small_tail_probabilities(fitted):
    x = _table(200, seed=9)
    x["pt"] *= 30
    score = fitted.anomaly_score(x)
    assert np.median(score.p) < 0.05
    x["pt"] *= -1
    assert (fitted.anomaly_score(x).p == 1 / 301).all()


def test_weights_count_in_the_tail():
    reference = Reference(torch.arange(4).double(), torch.tensor([3.0, 1.0, 0.0, 0.0]).double())
    n = 16 / 10
    assert float(reference.score(torch.tensor([0.5]).double()).p) == pytest.approx((0.75 * n + 1) / (n + 1))


# Files


def test_save_and_load(fitted, tmp_path):
    path = tmp_path / "density.safetensors"
    fitted.save(path)
    loaded = Density.load(path)
    x = _table(50, seed=2)
    assert torch.equal(loaded.log_prob(x), fitted.log_prob(x))
    assert torch.equal(loaded.anomaly_score(x).p, fitted.anomaly_score(x).p)
    assert loaded.columns == fitted.columns and os.listdir(tmp_path) == ["density.safetensors"]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a density that can be read"):
        Density.load(path)
    with pytest.raises(FileNotFoundError):
        Density.load(tmp_path / "none")


def test_foreign_files_are_refused_and_nothing_is_executed(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "foreign", {"hepops": json.dumps({"format": "other"})})
    with pytest.raises(ValueError, match="not a density"):
        Density.load(tmp_path / "foreign")

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save(Evil(), tmp_path / "pickle")
    with pytest.raises(ValueError, match="not a density"):
        Density.load(tmp_path / "pickle")
    assert not (tmp_path / "evil").exists()


# Bad input


def _with(column, value, rows=3):
    table = _table(500)
    table[column][:rows] = value
    return table


@pytest.mark.parametrize(
    "table, options, message",
    [
        (_with("a", math.nan), {}, r"3 of 500 rows have NaN or infinite values \(a: 3\)"),
        (_with("pt", math.inf), {}, r"3 of 500 rows have NaN or infinite values \(pt: 3\)"),
        (_with("a", 1.0, 500), {}, r"column a is constant \(1\)"),
        (_with("pt", 0.0), {"kinds": {"pt": "positive"}}, "column pt: . of .* are not positive"),
        (_with("cos", 1.0), {"kinds": {"cos": ("bounded", -1, 1)}}, r"column cos: . of .* not inside \(-1, 1\)"),
        (_with("n", 0.5), {"kinds": {"n": "integer"}}, "column n: . of .* not whole numbers"),
        (_table(500), {"kinds": {"eta": "real"}}, "kinds: no column eta among a, pt"),
        (_table(500), {"kinds": {"a": "angle"}}, "kinds: column a must be one of real"),
        (_table(500), {"kinds": {"a": "bounded"}}, r"column a must be \('bounded', low, high\)"),
        (_table(500), {"kinds": {"a": ("periodic", 2, 1)}}, "with low < high"),
        (_table(500), {"kinds": {"a": ("real", 2, 1)}}, "takes no bounds"),
        (_table(500), {"weights": np.full(500, -1.0)}, "500 of 500 are negative"),
        (_table(500), {"weights": np.ones(4)}, r"weights must have shape \(500\), got \(4\,\)"),
        (_table(500), {"weights": "w"}, "weights: no column w among a, pt"),
        (_table(500), {"weights": np.full(500, math.nan)}, r"500 of 500 rows .* \(weights: 500\)"),
        (_table(500), {"columns": ["b"]}, "no b in the table"),
        (_table(500), {"calibration": 1.0}, r"calibration must lie in \[0, 1\)"),
        (_table(500), {"missing": "zero"}, "missing must be"),
        (_table(1), {}, "1 rows are left to learn from"),
        (_table(500), {"lr": -1.0}, "lr must be positive"),
    ],
)
def test_refused_by_name(table, options, message):
    with pytest.raises(ValueError, match=message):
        Density.fit(table, **{**SMALL, **options})


def test_rows_with_nan_can_be_dropped_and_are_counted():
    density = Density.fit(_with("a", math.nan), ["a", "pt"], missing="drop", **SMALL)
    assert density.dropped == 3 and "dropped     3 rows" in str(density)
    with pytest.raises(ValueError, match="1 of 1 rows"):
        density.log_prob({"a": [math.nan], "pt": [1.0]})
    with pytest.raises(ValueError, match="no pt in the table"):
        density.log_prob({"a": [1.0]})
    with pytest.raises(ValueError, match="2 names"):
        density.log_prob(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="n must be at least 1"):
        density.sample(0)
    with pytest.raises(ValueError, match="against must be"):
        density.anomaly_score({"a": [1.0], "pt": [1.0]}, against="data")


def test_without_held_out_rows_there_is_no_score_against_them():
    density = Density.fit(np.random.default_rng(0).normal(size=(300, 1)), calibration=0, **SMALL)
    with pytest.raises(ValueError, match="no rows were held out"):
        density.anomaly_score(np.zeros((1, 1)))
    assert 0.9 < float(density.anomaly_score(np.zeros((1, 1)), against="model", samples=1000).p) <= 1


def test_a_killed_fit_goes_on(tmp_path):
    def kill(step, steps, row):
        if step == 2:
            raise KeyboardInterrupt

    options = {**SMALL, "seed": 4, "kinds": ALL_KINDS}
    with pytest.raises(KeyboardInterrupt):
        Density.fit(_table(3000), folder=tmp_path, progress=kill, **options)
    resumed = Density.fit(_table(3000), folder=tmp_path, **options)
    whole = Density.fit(_table(3000), **options)
    x = _table(20, seed=1)
    assert torch.equal(resumed.log_prob(x), whole.log_prob(x))


# Figures and the sample


def test_area_under_the_curve_counts_ties_half():
    log_p = np.array([0.0, 1.0, 1.0, 2.0])
    *_, area = curve(log_p, np.array([True, True, False, False]))
    assert area == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_figures(fitted, tmp_path):
    pytest.importorskip("matplotlib")
    x = _table(200, seed=1)
    for i, figure in enumerate(
        (
            fitted.plot_corner(x, columns=["a", "n", "cos"], samples=500),
            fitted.plot_corner(columns=["a", "phi"], samples=500),
            fitted.plot_log_prob({"other": x}, samples=500),
            fitted.plot_roc(x, np.arange(200) % 2),
        )
    ):
        figure.savefig(tmp_path / f"{i}.png", dpi=30)
    with pytest.raises(ValueError, match="labels must have shape"):
        fitted.plot_roc(x, np.ones(3))
    with pytest.raises(ValueError, match="both kinds"):
        fitted.plot_roc(x, np.ones(200))
    with pytest.raises(ValueError, match="no eta in the density"):
        fitted.plot_corner(columns=["eta"])


def test_radiative_return():
    table = radiative_return(20_000, seed=2, resolution=1e-6)
    assert table.columns == COLUMNS == tuple(KINDS)
    assert np.array_equal(table.values, radiative_return(20_000, seed=2, resolution=1e-6).values)
    # momentum is conserved where nothing is smeared: the photon balances the muons
    k, c, f, pt1, c1, pt2, c2, df = table.values.T
    sin, sin1, sin2 = (np.sqrt(1 - v * v) for v in (c, c1, c2))
    assert np.abs(k * c + pt1 * c1 / sin1 + pt2 * c2 / sin2).max() < 0.05
    assert np.abs(k * sin * np.cos(f) + pt1 + pt2 * np.cos(df)).max() < 0.01
    assert np.abs(k * sin * np.sin(f) + pt2 * np.sin(df)).max() < 0.01
    assert np.abs(k + pt1 / sin1 + pt2 / sin2 - 200).max() < 0.05
    mass = np.sqrt(200**2 - 400 * k)
    assert 90.5 < np.median(mass[np.abs(mass - 91.2) < 10]) < 91.9  # the Z
    for bad in ({"n": 0}, {"n": 1, "energy": -1.0}, {"n": 1, "resolution": 0.0}):
        with pytest.raises(ValueError, match="n must be at least 1"):
            radiative_return(**bad)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_no_unit_is_too_small_or_too_large(size):
    a = np.random.default_rng(0).normal(size=400)
    plain, scaled = (Density.fit({"a": a * s}, seed=1, **SMALL) for s in (1.0, size))
    expected = plain.log_prob({"a": [0.3]}) - math.log(size)
    torch.testing.assert_close(scaled.log_prob({"a": [0.3 * size]}), expected, rtol=1e-6, atol=1e-5)


def test_an_event_far_from_all_data_is_anomalous_not_an_error(fitted):
    rows = {name: column[:3].copy() for name, column in _table(3000).items()}
    rows["a"][0], rows["pt"][1] = 1e300, 1e-300
    log_prob, score = fitted.log_prob(rows), fitted.anomaly_score(rows).p
    assert log_prob.isfinite().all() and (log_prob[:2] < -1e3).all()
    assert (score[:2] == score.min()).all() and score[2] > score[0]


def test_weights_that_leave_nothing_are_refused():
    table = {"a": np.random.default_rng(0).normal(size=400)}
    with pytest.raises(ValueError, match="rows to learn from are 0"):
        Density.fit(table, weights=np.zeros(400), **SMALL)
    one = np.zeros(400)
    one[permutation(400, 0, 1, SPLIT)[-2:]] = 1  # the first tenth of this order is held out
    with pytest.raises(ValueError, match="rows to calibrate with are 0"):
        Density.fit(table, weights=one, **SMALL)
    with pytest.raises(ValueError, match=r"1 of 400 rows have NaN or infinite values \(weights"):
        Density.fit(table, weights=np.ma.masked_array(np.ones(400), np.arange(400) == 7), **SMALL)
