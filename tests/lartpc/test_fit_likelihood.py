"""Fits on a likelihood, on a detector of closed formulas: values, errors, nuisances, and what can be asked of them."""

import dataclasses
import math

import pytest
import torch
from hepops.lartpc import Parameters, fit
from hepops.lartpc.fit import Nuisance, PixelSums
from hepops.lartpc.fit.arrow import Arrow

from lartpc.analytic import tracks
from lartpc.noisy import CHARGE, TIME, ExactLikelihood, NoisyDetector

SIX = Parameters.SIX
THREE = ("lifetime", "efield", "birks_a")
NOMINAL = {name: getattr(Parameters(), name) for name in SIX} | {"time_offset": 0.0}
FAR = {"lifetime": 1400.0, "efield": 0.47, "birks_a": 0.84}


@pytest.fixture(scope="module")
def data():
    segments, sim = tracks(30), NoisyDetector()
    with torch.no_grad():
        return segments, sim(segments, seed=3)


@pytest.fixture(scope="module")
def result(data):
    return fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR)


def fisher(segments, names):
    """The expected information of the smeared hits, by hand."""
    hits = NoisyDetector()(segments, tangents=tuple(n for n in names if n != "time_offset"))
    rows = iter(range(len(names)))
    J = []
    for name in names:
        if name == "time_offset":
            J.append(torch.cat((torch.zeros(len(hits)), torch.ones(len(hits)) / TIME)).double())
        else:
            k = next(rows)
            J.append(torch.cat((hits.charge_tangents[k] / CHARGE, hits.time_tangents[k] / TIME)))
    return torch.stack(J) @ torch.stack(J).T


def test_scoring_finds_truth_and_errors(data, result):
    assert result.converged and result.trace[0].stage == 0 and result.trace[-1].stage == 1
    assert (result.pulls(NOMINAL).abs() < 3).all()
    expected = torch.linalg.inv(fisher(data[0], THREE))
    # outer products: the few hits of most charge say most of the recombination
    torch.testing.assert_close(result.errors, expected.diagonal().sqrt(), rtol=0.2, atol=0)
    toys = fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR, toys=20)
    torch.testing.assert_close(toys.errors, expected.diagonal().sqrt(), rtol=0.08, atol=0)  # and 2 % of the lifetime
    assert torch.equal(toys.values, result.values)
    gradient = result.target.model(result.target.point).gradient
    assert float(gradient @ result.target.model(result.target.point).information.solve(gradient)) < 1e-4
    with pytest.raises(ValueError, match="truth: birks_a is not given"):
        result.pulls({"lifetime": 1.0, "efield": 0.5})


def test_hessian_is_that_of_finite_differences_of_the_value(result):
    """Against second differences of log L itself, and against the exact one of a quadratic direction."""
    H = fit.hessian(result)
    target, errors = result.target, result.errors
    h = 0.2 * errors

    def value(shift):
        return target.value(target.at(target.unknowns(target.point.p + shift), derivatives=False))

    for i in range(3):
        for j in range(3):
            a, b = torch.zeros(3).double(), torch.zeros(3).double()
            a[i], b[j] = h[i], h[j]
            second = (value(a + b) - value(a - b) - value(b - a) + value(-a - b)) / (4 * h[i] * h[j])
            # fourth derivatives over steps of .2 sigma: the lifetime's error is no small one
            assert abs(second - H.value[i, j]) * errors[i] * errors[j] < 0.01, (i, j)
    assert (H.error * errors * errors[:, None] < 1e-3).all()
    product = fit.hvp(result, {"efield": 1.0, "lifetime": 2.0})
    expected = H.value @ torch.tensor([2.0, 1.0, 0.0]).double()
    assert ((product.value - expected).abs() < 1e-3 / errors * (H.value.diagonal() * 4).sqrt().max()).all()
    assert (product.error >= 0).all()
    with pytest.raises(ValueError, match="vector must not be zero"):
        fit.hvp(result, {})
    with pytest.raises(ValueError, match="'w_ion' is not a free parameter"):
        fit.hvp(result, {"w_ion": 1.0})


def test_stated_error_of_the_hessian_covers_its_error(data):
    """Gain and noise of a Gaussian have a Hessian in closed form: the differences are off by what they say."""
    segments, hits = data
    names = ("gain", "reset_noise")
    result = fit(NoisyDetector(), segments, hits, names, residual=ExactLikelihood(), bounds={"gain": (0.5, 1.5)})
    sim = NoisyDetector()
    q, s, g = sim(segments).charge.detach(), result["reset_noise"], result["gain"]
    a = (hits.charge - g * q) / s
    gg, gs, ss = (q * q).sum() / s**2, 2 * (a * q).sum() / s**2, (3 * a * a - 1).sum() / s**2
    exact = torch.tensor([[gg, gs], [gs, ss]])
    H = fit.hessian(result, step=0.3)
    size = exact.diagonal().sqrt()
    off = (H.value - exact).abs() / (size * size[:, None])
    assert (off <= H.error / (size * size[:, None]) + 1e-7).all() and float(off.max()) < 1e-3


def test_sandwich_agrees_where_the_model_is_right_and_widens_where_it_is_wrong(data, result):
    for clusters in ("interval", "event"):
        errors = fit.sandwich(result, clusters).diagonal().sqrt()
        torch.testing.assert_close(errors, result.errors, rtol=0.3, atol=0)  # as far as outer products tell
    segments, hits = data
    q = NoisyDetector()(segments).charge.detach()
    loud = dataclasses.replace(hits, charge=q + 2 * (hits.charge - q))  # twice the noise that the model has
    wrong = fit(NoisyDetector(), segments, loud, ("birks_a",), residual=ExactLikelihood())
    robust = float(fit.sandwich(wrong, "interval")[0, 0]) ** 0.5
    # the information that the model believes in: 1 / 4 of the outer products, which see the noise
    honest = 2 * float(fisher(segments, ("birks_a",))[0, 0]) ** -0.5
    assert robust == pytest.approx(honest, rel=0.15)
    with pytest.raises(ValueError, match="30 events cannot tell the spread of 31 unknowns"):
        many = fit(
            NoisyDetector(), segments, hits, ("efield",), residual=ExactLikelihood(), nuisance=[
                Nuisance("lifetime", "run", runs={e: e for e in range(30)})
            ],
        )  # fmt: skip
        fit.sandwich(many, "event")
    with pytest.raises(ValueError, match="clusters must be"):
        fit.sandwich(result, "tpc")


def test_per_event_offsets_are_solved_jointly():
    """300 events, each with its own offset: the six are as good as the arithmetic says, and nothing is dense."""
    segments = tracks(300, seed=4, spacing=0.7)
    offsets = 0.3 * torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = dataclasses.replace(segments, t0=segments.t0 + offsets[segments.event])
    sim = NoisyDetector()
    with torch.no_grad():
        hits = sim(moved, seed=5)
    kinds = [Nuisance("time_offset", "event", prior=0.3)]
    result = fit(sim, segments, hits, THREE, residual=ExactLikelihood(), nuisance=kinds, start=FAR)
    assert result.converged, result.message
    assert (result.pulls(NOMINAL).abs() < 3.5).all()
    pulls = (result.nuisance_values - offsets) / result.nuisance_errors
    assert 0.8 < float(pulls.std()) < 1.2 and float(pulls.abs().max()) < 4.5
    assert result.nuisance_names[7] == "time_offset[event 7]"
    assert result.nuisance("time_offset[event 7]")[0] == float(result.nuisance_values[7])
    model = result.target.model(result.target.point)
    assert model.information.border.shape == (3, 300)
    blind = fit(sim, segments, hits, THREE, residual=ExactLikelihood())
    assert result.errors[1] > blind.errors[1]  # the field is measured by time


def test_arrow_is_the_matrix_it_stands_for():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn((9, 40), generator=generator, dtype=torch.float64)
    A[4:] *= torch.eye(5).double().repeat(1, 8)  # each of the last five has columns of its own
    M = A @ A.T
    arrow = Arrow(M[:4, :4], M[:4, 4:], M[4:, 4:].diagonal())
    rhs = torch.randn(9, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(arrow.solve(rhs), torch.linalg.solve(M, rhs))
    torch.testing.assert_close(arrow.times(rhs), M @ rhs)
    inverse = torch.linalg.inv(M)
    corner, tail = arrow.inverse()
    torch.testing.assert_close(corner, inverse[:4, :4])
    torch.testing.assert_close(tail, inverse.diagonal()[4:])
    held = torch.zeros(9, dtype=torch.bool)
    held[[1, 6]] = True
    free = ~held
    step = arrow.solve(rhs, held)
    assert not step[held].any()
    torch.testing.assert_close(step[free], torch.linalg.solve(M[free][:, free], rhs[free]))


def test_per_tpc_lifetime_and_field(data):
    """Each TPC simulated with its own: found with their errors, and the common values with a prior between."""
    segments = tracks(30, seed=2)
    one = segments[(segments.start[:, 0] < 0) & (segments.end[:, 0] < 0)]
    two = segments[(segments.start[:, 0] > 0) & (segments.end[:, 0] > 0)]
    values = [Parameters(lifetime=1800.0, efield=0.495), Parameters(lifetime=2600.0, efield=0.505)]
    parts = [NoisyDetector(v)(s, seed=k) for k, (v, s) in enumerate(zip(values, (one, two), strict=True))]
    columns = {n: torch.cat([getattr(p, n).detach() for p in parts]) for n in parts[0].columns()}
    hits = dataclasses.replace(parts[0], **columns)
    both = type(segments).cat([one, two])
    kinds = [Nuisance("lifetime", "tpc"), Nuisance("efield", "tpc")]
    result = fit(NoisyDetector(), both, hits, ("birks_a",), residual=ExactLikelihood(), nuisance=kinds)
    assert result.converged, result.message
    for name, base in (("lifetime", 2200.0), ("efield", 0.5)):
        for tpc in (0, 1):
            v, error = result.nuisance(f"{name}[tpc {tpc}]")
            assert abs(v - math.log(getattr(values[tpc], name) / base)) < 4 * error, (name, tpc)
            assert 0 < error < 0.3
    # with the common value free each deviation needs a prior
    with pytest.raises(
        ValueError, match=r"lifetime per tpc and the common lifetime are degenerate \(only their product"
    ):
        fit(
            NoisyDetector(),
            both,
            hits,
            ("lifetime",),
            residual=ExactLikelihood(),
            nuisance=[Nuisance("lifetime", "tpc")],
        )
    kinds = [Nuisance("lifetime", "tpc", prior=0.3), Nuisance("efield", "tpc", prior=0.02)]
    together = fit(NoisyDetector(), both, hits, ("lifetime", "efield"), residual=ExactLikelihood(), nuisance=kinds)
    low, high = (together["lifetime"] * math.exp(together.nuisance(f"lifetime[tpc {t}]")[0]) for t in (0, 1))
    assert low < together["lifetime"] < high


def test_gain_per_tile():
    segments, sim = tracks(60, seed=7), NoisyDetector()
    with torch.no_grad():
        hits = sim(segments, seed=1)
    kind = Nuisance("gain", "tile", prior=0.05)
    tile = (hits.tpc * 4 + hits.iy // 70) * 2 + hits.ix // 70
    truth = 0.05 * torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    quiet = sim(segments).charge.detach()
    hits = dataclasses.replace(hits, charge=hits.charge + (torch.exp(truth[tile]) - 1) * quiet)
    result = fit(sim, segments, hits, ("birks_a", "efield"), residual=ExactLikelihood(), nuisance=[kind])
    assert result.converged and len(result.nuisance_names) == 16
    known = torch.isin(torch.arange(16), tile)
    pulls = ((result.nuisance_values - truth) / result.nuisance_errors)[known]
    assert (pulls.abs() < 4).all() and known.sum() > 10
    assert abs(result["birks_a"] / 0.8 - 1) < 4 * float(result.errors[0]) / 0.8
    with pytest.raises(ValueError, match="gain per tile and the common birks_a are degenerate"):
        fit(sim, segments, hits, ("birks_a",), residual=ExactLikelihood(), nuisance={"gain": "tile"})


def test_profile_is_the_parabola_of_a_gaussian_and_its_interval_the_error(result):
    p = fit.profile(result, "efield", points=7)
    assert p.converged.all() and float(p.delta.min()) < 0.02
    # the outer products know the curvature to 5 %
    low, high = p.interval
    assert (high - low) / 2 == pytest.approx(p.error, rel=0.15)
    assert (p.delta >= -1e-4).all() and p.values[0] < p.best < p.values[-1]
    # along the profile the other parameters are at their best
    alone = fit.hessian(result).value
    H = torch.linalg.inv(torch.linalg.inv(alone)[1:2, 1:2])[0, 0]
    x = p.values - p.best
    torch.testing.assert_close(p.delta, 0.5 * H * x * x, rtol=0.05, atol=2e-3)
    with pytest.raises(ValueError, match="points must be at least 3"):
        fit.profile(result, "efield", points=2)


def test_contours_lie_at_their_level(result):
    c = fit.contour(result, "efield", "birks_a", angles=6)
    assert c.converged.all() and c.points.shape == (2, 6, 2)
    white = torch.linalg.solve(torch.linalg.cholesky(c.covariance), (c.points - c.best).transpose(1, 2))
    radius = white.norm(dim=1)
    for level, r in zip(c.levels, radius, strict=True):
        torch.testing.assert_close(r, torch.full_like(r, (-2 * math.log1p(-level)) ** 0.5), rtol=0.15, atol=0)
    # each point by a fit of the third alone
    target = result.target
    point, ok, _ = target.minimise(target.unknowns(dict(zip(c.names, c.points[0, 1].tolist(), strict=True))), c.names)
    delta = target.value(point) - target.value(target.point)
    assert ok and delta == pytest.approx(-math.log(1 - 0.683), rel=0.03)
    for bad in (("lifetime", "lifetime"), ("lifetime", "w")):
        with pytest.raises(ValueError):
            fit.contour(result, *bad)


def test_figures(result, tmp_path):
    pytest.importorskip("matplotlib")
    figures = {
        "profile": fit.profile(result, "lifetime", points=5).plot(2200.0),
        "contour": fit.contour(result, "lifetime", "birks_a", angles=6).plot(NOMINAL),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_minuit_ends_where_scoring_did(result):
    pytest.importorskip("iminuit")
    m = fit.to_minuit(result)
    m.migrad()
    assert m.valid and m.fval == pytest.approx(result.value, abs=1e-3)
    for name, value, error in zip(result.names, result.values.tolist(), result.errors.tolist(), strict=True):
        assert abs(m.values[name] - value) < 0.05 * error
    m.hesse()
    H = torch.linalg.inv(fit.hessian(result).value).diagonal().sqrt()
    for name, error in zip(result.names, H.tolist(), strict=True):
        assert m.errors[name] == pytest.approx(error, rel=0.05)


def test_mini_batches_end_with_the_information_of_all_events(data):
    data = tuple(part[part.event < 12] for part in data)
    whole = fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR)
    parts = fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR, batch_events=4)
    assert parts.converged and [s.stage for s in parts.trace][-1] == 2
    assert any(s.stage == 1 and s.report["matched"] < 0.6 * whole.counts["matched"] for s in parts.trace)
    assert ((parts.values - whole.values).abs() < 0.02 * whole.errors).all()
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=0.02, atol=0)
    chunked = fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR, chunk=1)
    torch.testing.assert_close(chunked.covariance, whole.covariance, rtol=2e-3, atol=0)  # another path


def test_combination_of_halves_is_the_whole(data):
    segments, hits = data
    sim, names = NoisyDetector(), (*THREE, "time_offset")
    options = {"residual": ExactLikelihood(), "priors": {"lifetime": (2250.0, 300.0)}}
    whole = fit(sim, segments, hits, names, **options)
    halves = [
        fit(sim, segments[segments.event % 2 == k], hits[hits.event % 2 == k], names, **options) for k in range(2)
    ]
    both = fit.combine(halves, shared=names)
    # a half knows the lifetime to 8 %, where 1 / lifetime is Gaussian and the lifetime is not
    assert ((both.values - whole.values).abs() < 0.3 * whole.errors).all()
    torch.testing.assert_close(both.errors, whole.errors, rtol=0.1, atol=0)
    assert both.ndof == 4 and both.p_value > 1e-3 and both["lifetime"] == float(both.values[0])
    apart = fit.combine(halves)
    assert apart.names == ("lifetime", "efield", "birks_a", "time_offset[0]", "time_offset[1]")
    nested = fit.combine([fit.combine([halves[0], halves[1]], shared=names), halves[0]], shared=names)
    assert (nested.errors < both.errors).all()
    assert "chi2" in both.summary() and "time_offset[1]" in apart.summary()
    for message, call in {
        "needs at least two": lambda: fit.combine(halves[:1]),
        "shared 'w' is not a parameter of two": lambda: fit.combine(halves, shared=["w"]),
        "the priors of lifetime differ": lambda: fit.combine(
            [halves[0], dataclasses.replace(halves[1], config={"priors": {"lifetime": [2250.0, 200.0]}})]
        ),
        "covariance of result 1 is not finite": lambda: fit.combine(
            [halves[0], dataclasses.replace(halves[1], covariance=halves[1].covariance * math.nan)]
        ),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_noise_and_gain_are_fitted_from_the_same_data(data):
    segments, hits = data
    start = {"gain": 0.9, "reset_noise": 1400.0}
    result = fit(
        NoisyDetector(), segments, hits, ("efield", "gain", "reset_noise"), residual=ExactLikelihood(), start=start,
        bounds={"gain": (0.5, 1.5)},
    )  # fmt: skip
    assert result.converged
    assert (result.pulls({"efield": 0.5, "gain": 1.0, "reset_noise": CHARGE}).abs() < 3.5).all()
    n = len(hits)
    assert float(result.errors[2]) == pytest.approx(CHARGE / (2 * n) ** 0.5, rel=0.2)
    held = fit(NoisyDetector(), segments, hits, ("efield", "gain"), residual=ExactLikelihood(), fixed="gain",
               start={"gain": 1.02}, bounds={"gain": (0.5, 1.5)})  # fmt: skip
    assert held.fixed == {"gain": 1.02} and held.value > result.value
    with pytest.raises(ValueError, match="gain is of the chip, which only a likelihood of hits can fit"):
        fit(NoisyDetector(), segments, hits, ("gain",))


def test_refusals_name_what_is_wrong(data):
    sim, (segments, hits) = NoisyDetector(), data
    exact = ExactLikelihood()
    for message, names, options in (
        ("nuisance: 'lifetme' is not one of time_offset, gain, lifetime", THREE, {"nuisance": {"lifetme": "tpc"}}),
        ("nuisance lifetime: per must be one of event, run", THREE, {"nuisance": {"lifetime": "day"}}),
        ("nuisance lifetime: per event is not provided for", THREE, {"nuisance": {"lifetime": "event"}}),
        ("time_offset per event and the common time_offset are degenerate", ("time_offset",),
         {"nuisance": {"time_offset": "event"}}),
        ("gain and birks_a are degenerate", ("gain", "birks_a"), {}),
        ("gain and w_ion are degenerate", ("gain", "w_ion"), {}),
        ("w_ion and birks_a are degenerate", ("w_ion", "birks_a"), {}),
        ("density and birks_k are degenerate", ("density", "birks_k"), {}),
        ("event 1 has no run", ("efield",), {"nuisance": [Nuisance("lifetime", "run", runs={0: 0})]}),
        ("lifetime per tpc is given twice", ("efield",), {"nuisance": [Nuisance("lifetime", "tpc")] * 2}),
        ("lifetime per tpc and per run are degenerate", ("efield",),
         {"nuisance": [Nuisance("lifetime", "tpc"), Nuisance("lifetime", "run")]}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            fit(sim, segments, hits, names, residual=exact, **options)
    with pytest.raises(ValueError, match="the prior must be a positive sigma, got 0"):
        Nuisance("lifetime", "tpc", prior=0.0)
    with pytest.raises(ValueError, match='nuisance: needs method "lm" with a likelihood'):
        fit(sim, segments, hits, THREE, nuisance={"time_offset": "event"})
    with pytest.raises(
        ValueError, match="residual must be an object, several, None or \"likelihood\", got 'liklihood'"
    ):
        fit(sim, segments, hits, THREE, residual="liklihood")
    with pytest.raises(ValueError, match="measured: there are no hits"):
        fit(sim, segments, hits[hits.event < 0], THREE, residual=exact)
    plain = fit(sim, segments, hits, ("efield",))
    for ask in (fit.hvp, fit.profile, fit.contour):
        with pytest.raises(ValueError, match="this result knows no likelihood"):
            ask(plain, "efield", "lifetime") if ask is fit.contour else ask(plain, "efield")
    with pytest.raises(ValueError, match="returns no scores per interval"):

        class Bare(ExactLikelihood):
            def likelihood(self, *arguments):
                full = super().likelihood(*arguments)
                return dataclasses.replace(full, scores=None)

        fit(sim, segments, hits, ("efield",), residual=Bare(), nuisance={"time_offset": "event"})


def test_a_direction_that_hits_do_not_know_is_named(data):
    """One deposit: charge and time of one hit, four parameters."""
    segments = data[0][:1]
    segments = dataclasses.replace(segments, dE=segments.dE * 30)
    sim = NoisyDetector()
    with pytest.raises(ValueError, match=r"information is singular.*cannot tell .*birks_a"):
        fit(sim, segments, sim(segments, seed=1), ("birks_a", "lifetime"), residual=[ExactLikelihood()])


def test_result_is_kept_and_told(result, data, tmp_path):
    kinds = [Nuisance("time_offset", "event", prior=0.1)]
    full = fit(NoisyDetector(), *data, ("efield",), residual=ExactLikelihood(), nuisance=kinds, checkpoint=tmp_path)
    again = fit.FitResult.load(tmp_path / "result.h5")
    assert again.target is None and again.nuisance_names == full.nuisance_names
    assert torch.equal(again.nuisance_values, full.nuisance_values)
    assert "30 time_offset[event]" in full.summary() and "-2 log L" in full.summary()
    resumed = fit(NoisyDetector(), *data, ("efield",), residual=ExactLikelihood(), nuisance=kinds, checkpoint=tmp_path)
    assert torch.equal(resumed.values, full.values)
    with pytest.raises(ValueError, match="different in: nuisance"):
        fit(NoisyDetector(), *data, ("efield",), residual=ExactLikelihood(), checkpoint=tmp_path,
            nuisance=[Nuisance("time_offset", "event", prior=0.2)])  # fmt: skip


def test_stage_of_sums_is_not_asked_twice(data):
    both = fit(NoisyDetector(), *data, THREE, residual=[PixelSums(), ExactLikelihood()], start=FAR)
    alone = fit(NoisyDetector(), *data, THREE, residual=ExactLikelihood(), start=FAR)
    assert ((both.values - alone.values).abs() < 0.02 * alone.errors).all()
