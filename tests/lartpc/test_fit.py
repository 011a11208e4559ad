"""The fit's machinery on a detector of closed formulas; with the simulator itself at the foot."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hepops
import pytest
import torch
from conftest import shared
from hepops.lartpc import Detector, Parameters, Segments, Simulator, fit, read_segments
from hepops.lartpc.fit import FitResult, HitLoss, Likelihood, MatchedHits, Noise, PixelSums, Robust
from hepops.lartpc.gun import shoot

from lartpc.analytic import AnalyticDetector, tracks

SIX = Parameters.SIX
TRUTH = torch.tensor([getattr(Parameters(), name) for name in SIX], dtype=torch.float64)


@pytest.fixture(scope="module")
def muons():
    segments = tracks(8)
    return segments, AnalyticDetector()(segments)


def test_the_package_is_the_function(muons):
    assert hepops.lartpc.fit is sys.modules["hepops.lartpc.fit"]
    assert callable(fit) and fit.fit.__doc__ and fit.chamfer and fit.soft_dtw and fit.mmd_charge
    result = hepops.lartpc.fit(AnalyticDetector(), *muons, parameters=["lifetime"])
    assert result.names == ("lifetime",)


def test_every_start_finds_the_six(muons):
    result = fit(AnalyticDetector(), *muons, start="random", starts=5, seed=3)
    for n, finish in enumerate(result.starts):
        assert finish.converged, finish
        near = (result.path(n)[1:] / TRUTH - 1).abs().max(1).values < 1e-3
        assert near.nonzero()[0].item() < 15
        torch.testing.assert_close(torch.tensor(finish.parameters, dtype=torch.float64), TRUTH, rtol=1e-8, atol=0)
    assert result.converged and result.counts["simulated_only"] == result.counts["measured_only"] == 0
    assert result.chi2 < 1e-9 and result.ndof == 2 * len(muons[1]) - 6


def test_the_simulator_is_not_changed_until_asked(muons):
    sim = AnalyticDetector(Parameters(lifetime=1500.0, efield=0.51))
    before = {name: value.clone() for name, value in sim.state_dict().items()}
    result = fit(sim, *muons, parameters=["lifetime", "efield"], start={"efield": 0.48})
    assert all(torch.equal(value, before[name]) for name, value in sim.state_dict().items())
    assert all(p.requires_grad for p in sim.parameters())
    assert result.starts[0].start == (1500.0, 0.48)  # the rest from the simulator
    result.apply(sim)
    assert sim.lifetime.item() == result["lifetime"] and sim.efield.item() == result["efield"]
    assert result["lifetime"] == pytest.approx(2200.0, rel=1e-7)


def test_fixed_parameters_stay_and_priors_pull(muons):
    six = fit(AnalyticDetector(), *muons)
    held = fit(AnalyticDetector(), *muons, start={"lifetime": 2300.0}, fixed=["lifetime"])
    assert held.fixed == {"lifetime": 2300.0} and held["lifetime"] == 2300.0 and "lifetime" not in held.names
    tight = fit(AnalyticDetector(), *muons, priors={"lifetime": (2300.0, 1e-3)})
    assert tight["lifetime"] == pytest.approx(2300.0, abs=0.01)
    # a prior at the truth adds its weight to the information, and its pull to nothing
    sigma = 50.0
    prior = fit(AnalyticDetector(), *muons, priors={"lifetime": (2200.0, sigma)})
    information = torch.linalg.inv(six.covariance)
    information[0, 0] += sigma**-2
    torch.testing.assert_close(prior.covariance, torch.linalg.inv(information), rtol=1e-5, atol=0)
    published = fit(AnalyticDetector(), *muons, priors="published")
    assert published.config["priors"]["birks_a"] == pytest.approx([0.8, 0.003])


def test_covariance_is_that_of_many_toys(muons):
    """Hits smeared with the noise that the residuals assume scatter the fit by the errors that it states."""
    segments, hits = muons
    noise = Noise.of(AnalyticDetector().detector)
    names = ["lifetime", "efield", "birks_a"]
    quadratic = Robust("quadratic")
    pulls = []
    for toy in range(60):
        generator = torch.Generator().manual_seed(toy)
        smear = torch.randn((2, len(hits)), generator=generator, dtype=torch.float64)
        charge = hits.charge.detach() + noise.charge * smear[0]
        clock = noise.time(charge)  # as the residual reads it
        noisy = dataclasses.replace(hits, charge=charge, time=hits.time.detach() + clock * smear[1])
        result = fit(AnalyticDetector(), segments, noisy, names, residual=MatchedHits(noise, quadratic), tolerance=1e-5)
        assert result.converged
        pulls.append((result.values - TRUTH[:3]) / result.errors)
        assert result.chi2 == pytest.approx(result.ndof, abs=6 * (2 * result.ndof) ** 0.5)
    widths, means = torch.stack(pulls).std(0), torch.stack(pulls).mean(0)
    # 60 toys: a width is known to 9 %, a mean to 0.13
    assert ((widths - 1).abs() < 0.3).all(), widths
    assert (means.abs() < 0.5).all(), means


def test_hits_that_belong_to_nothing_lose_their_weight(muons):
    segments, hits = muons
    charge = hits.charge.detach().clone()
    charge[::10] *= 1.7  # one in ten is wrong
    spoilt = dataclasses.replace(hits, charge=charge, time=hits.time.detach())
    result = fit(AnalyticDetector(), segments, spoilt)
    plain = fit(AnalyticDetector(), segments, spoilt, residual=MatchedHits(robust=Robust("quadratic")))
    error, plain_error = (((r.values - TRUTH) / TRUTH).abs() for r in (result, plain))
    assert result.converged and error[2] < 1e-3 < 0.01 < plain_error[2]


def test_a_time_offset_is_told_from_the_field(muons):
    segments, hits = muons
    late = dataclasses.replace(hits, time=hits.time.detach() + 0.05, charge=hits.charge.detach())
    blind = fit(AnalyticDetector(), segments, late)
    result = fit(AnalyticDetector(), segments, late, parameters=[*SIX, "time_offset"])
    assert result["time_offset"] == pytest.approx(0.05, abs=1e-7)
    assert result["efield"] == pytest.approx(0.5, rel=1e-7)
    assert abs(blind["efield"] / 0.5 - 1) > 1e-4
    alone = fit(AnalyticDetector(), segments, late, parameters=["time_offset"])
    assert alone["time_offset"] == pytest.approx(0.05, abs=1e-7)
    reverse = fit(AnalyticDetector(), segments, late, ["time_offset", "birks_a"], method="adam", max_iterations=150)
    assert reverse["time_offset"] == pytest.approx(0.05, abs=5e-3)


def test_batches_change_memory_and_path_but_not_the_end(muons):
    whole = fit(AnalyticDetector(), *muons, start="random")
    chunked = fit(AnalyticDetector(), *muons, start="random", chunk=1)  # one event at a time
    torch.testing.assert_close(chunked.values, whole.values, rtol=1e-9, atol=0)
    assert chunked.counts == whole.counts and chunked.iterations == whole.iterations
    batched = fit(AnalyticDetector(), *muons, start="random", batch_events=3)
    torch.testing.assert_close(batched.values, TRUTH, rtol=1e-7, atol=0)
    assert any(step.stage == 0 and step.report["matched"] < whole.counts["matched"] / 2 for step in batched.trace)


def test_adam_and_the_fields_losses_come_close(muons):
    names, start = ["birks_a", "efield"], {"birks_a": 0.83, "efield": 0.49}
    for objective in (None, HitLoss("chamfer"), HitLoss("mmd_charge", charge_weight=100.0)):
        result = fit(
            AnalyticDetector(), *muons, names, residual=objective, method="adam", start=start, max_iterations=120
        )
        assert result["birks_a"] == pytest.approx(0.8, rel=5e-3), objective
        assert result["efield"] == pytest.approx(0.5, rel=2e-3), objective
        assert len(result.trace) == 120
    assert torch.isnan(result.errors).all()  # a plain loss knows no errors


class GaussianLikelihood:
    """Matched hits as a likelihood: the same minimum, by way of value, score and information."""

    def __init__(self, noise):
        self.residual = MatchedHits(noise, Robust("quadratic"))

    def likelihood(self, sim, segments, measured, parameters, derivatives):
        with torch.no_grad():
            hits = sim(segments, tangents=tuple(parameters) if derivatives else ())
        r = self.residual(hits, measured)
        J = r.jacobian if derivatives else torch.zeros((len(r.values), len(parameters)), dtype=torch.float64)
        value = (r.values**2).sum() / 2
        return Likelihood(value, r.values @ J, J.T @ J, r.report)


class Valley:
    """-log L = d^T A d / 2, narrow and oblique, its lowest point beyond the upper end of the first parameter."""

    A = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)
    low, scale = torch.tensor([1.1, 0.5], dtype=torch.float64), torch.tensor([0.4, 1e-3], dtype=torch.float64)

    def likelihood(self, sim, segments, measured, parameters, derivatives):
        d = (torch.stack([getattr(sim, name).detach().double() for name in parameters]) - self.low) / self.scale
        slope, curve = self.A @ d / self.scale, self.A / self.scale / self.scale[:, None]
        return Likelihood(d @ self.A @ d / 2, slope, curve, {"matched": 1})


def test_a_parameter_at_its_end_does_not_stop_the_others(muons):
    """At the start the gradient of the first parameter points inside, its step, as the second moves, outside."""
    names, bounds = ["birks_a", "efield"], {"birks_a": (0.7, 0.9), "efield": (0.45, 0.55)}
    start = {"birks_a": 0.9, "efield": 0.503}
    result = fit(AnalyticDetector(), *muons, names, residual=[Valley()], start=start, bounds=bounds)
    end = 0.9 - 1e-3 * 0.2
    expected = 0.5 + 0.99 * 1e-3 * (1.1 - end) / 0.4  # the lowest point of the edge
    assert result.converged and result.iterations < 15 and result.at_limit == ("birks_a",)
    assert result["efield"] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("method", ["lm", "adam"])
def test_a_likelihood_takes_the_place_of_residuals(muons, method):
    noise = Noise.of(AnalyticDetector().detector)
    names, options = ["birks_a", "efield"], {"method": method, "start": {"birks_a": 0.81, "efield": 0.499}}
    steps = {"max_iterations": 200} if method == "adam" else {}
    result = fit(AnalyticDetector(), *muons, names, residual=GaussianLikelihood(noise), **options, **steps)
    expected = fit(AnalyticDetector(), *muons, names, residual=MatchedHits(noise, Robust("quadratic")))
    torch.testing.assert_close(result.values, expected.values, rtol=1e-7 if method == "lm" else 1e-3, atol=0)
    torch.testing.assert_close(result.covariance, expected.covariance, rtol=0.1 if method == "adam" else 1e-5, atol=0)


def test_refusals_name_what_is_wrong(muons):
    sim, (segments, hits) = AnalyticDetector(), muons
    for message, options in {
        r"parameters: 'lifetme' is not one of lifetime, efield": {"parameters": ["lifetme"]},
        r"parameters names one twice": {"parameters": ["lifetime", "lifetime"]},
        r"nothing is left to fit": {"fixed": SIX},
        r"fixed: 'w' is not one of": {"fixed": ["w"]},
        r"w_ion and birks_a are degenerate": {"parameters": ["w_ion", "birks_a"]},
        r"density and birks_k are degenerate": {"parameters": ["birks_k", "efield", "density"]},
        r"start: lifetime = 9000 is outside its range \[500, 5000\]": {"start": {"lifetime": 9000.0}},
        r"start: 'w_ion' is not among the parameters": {"start": {"w_ion": 23e-6}},
        r'start must be a mapping, "nominal", "random" or None': {"start": "best"},
        r"starts must be at least 1, got 0": {"starts": 0},
        r'method must be "lm" or "adam", got "?\'?newton': {"method": "newton"},
        r"priors: 'w_ion' is not a free parameter": {"priors": {"w_ion": (23e-6, 1e-7)}},
        r"priors: lifetime needs a finite mean and a positive sigma, got \(2200.0, 0.0\)": {
            "priors": {"lifetime": (2200.0, 0.0)}
        },
        r"bounds of lifetime must rise within \[1, 1e\+09\] us, got \(0, 10\)": {"bounds": {"lifetime": (0, 10)}},
        r"box_alpha has no influence on these hits": {"parameters": ["box_alpha", "efield"]},
        r"chunk and batch_events must be at least 1": {"batch_events": 0},
        r"max_iterations, tolerance and learning_rate must be positive": {"max_iterations": 0},
    }.items():
        with pytest.raises(ValueError, match=message):
            fit(sim, segments, hits, **options)
    with pytest.raises(TypeError, match="is a loss; method 'lm' needs residuals or a likelihood"):
        fit(sim, segments, hits, residual=HitLoss())
    none = torch.zeros(len(segments.event), dtype=torch.bool)
    with pytest.raises(ValueError, match="segments: there are none"):
        fit(sim, segments[none], hits)
    with pytest.raises(ValueError, match="measured: there are no hits"):
        fit(sim, segments, sim(segments[segments.event < 0]))
    with pytest.raises(ValueError, match=r"none of its events \(100, .*\) is among those of the segments \(0, "):
        fit(sim, segments, dataclasses.replace(hits, event=hits.event + 100))
    with pytest.raises(ValueError, match=r"no pixel or hit has a partner on the other side \(\d+ simulated, \d+ meas"):
        fit(sim, segments, dataclasses.replace(hits, iy=hits.iy + 1000))


def test_a_direction_that_the_data_do_not_know_is_refused(muons):
    """One time for all deposits: the field moves it, and so does a time offset, to the last digit."""
    one = Segments(*(column[:1] for column in vars(muons[0]).values() if isinstance(column, torch.Tensor)))
    one = dataclasses.replace(one, dE=one.dE * 30)
    sim = AnalyticDetector()
    with pytest.raises(ValueError, match=r"the information is singular.*cannot tell .*birks_a"):
        fit(sim, one, sim(one), ["birks_a", "lifetime", "efield", "time_offset"])
    given = {"birks_a": (0.8, 0.003), "time_offset": (0.0, 0.01), "lifetime": (2200.0, 1.0)}
    assert fit(sim, one, sim(one), ["birks_a", "lifetime", "efield", "time_offset"], priors=given).converged


def test_hits_of_other_events_are_counted(muons):
    segments, hits = muons
    result = fit(AnalyticDetector(), segments.select(events=[0, 1, 2]), hits, ["birks_a"])
    assert result.counts["hits_of_other_events"] == int((hits.event > 2).sum())
    assert result.counts["matched"] == int((hits.event <= 2).sum())


def test_an_end_at_the_limit_is_said(muons):
    result = fit(AnalyticDetector(), *muons, ["lifetime"], bounds={"lifetime": (500.0, 2000.0)}, start="random")
    assert result.at_limit == ("lifetime",)
    assert "at the end of its range" in result.summary()
    (doubt,) = result.doubts
    assert doubt.startswith("lifetime = ") and doubt.endswith(" is at the end of its range")
    assert f"warning: {doubt}" in result.summary()


def test_most_of_a_side_without_partner_is_said(muons):
    result = fit(AnalyticDetector(), *muons, "lifetime")
    assert result.names == ("lifetime",) and result.doubts == () and "warning" not in result.summary()
    counts = {"matched": 5, "simulated_only": 695, "measured_only": 5}
    lost = dataclasses.replace(result, counts=counts)
    (doubt,) = lost.doubts
    assert doubt.startswith("695 of 700 simulated pixels or hits have no measured partner")
    assert f"warning: {doubt}" in lost.summary()
    (doubt,) = dataclasses.replace(result, counts=counts | {"simulated_only": 0, "measured_only": 6}).doubts
    assert doubt.startswith("6 of 11 measured pixels or hits have no simulated partner")


def test_one_name_is_a_name(muons):
    sim = AnalyticDetector(Parameters(lifetime=1500.0))
    assert fit(sim, *muons, parameters="lifetime").names == ("lifetime",)
    held = fit(sim, *muons, parameters=["lifetime", "efield"], fixed="efield")
    assert held.names == ("lifetime",) and tuple(held.fixed) == ("efield",)


@pytest.mark.parametrize("method", ["lm", "adam"])
def test_the_number_of_iterations_is_said_once(muons, method):
    result = fit(AnalyticDetector(), *muons, start="random", method=method, max_iterations=2)
    assert not result.converged and "after 2 iterations after" not in result.summary()
    assert result.summary().count("2 iterations") == 1 and "2 iterations" in result.outcome


def same(a: FitResult, b: FitResult):
    """To the last bit."""
    for field in dataclasses.fields(FitResult):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, field.name


def test_saved_and_loaded_it_is_the_same(muons, tmp_path):
    result = fit(AnalyticDetector(), *muons, starts=2, checkpoint=tmp_path)
    same(result, FitResult.load(tmp_path / "result.h5"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.h5", "state.json"]
    with pytest.raises(FileNotFoundError, match="no such file"):
        FitResult.load(tmp_path / "other.h5")
    with pytest.raises(ValueError, match=r"state.json: not a readable HDF5 file"):
        FitResult.load(tmp_path / "state.json")
    text = result.summary()
    assert all(name in text for name in SIX) and "2 of 2 starts converged" in text
    torch.testing.assert_close(result.correlations.diagonal(), torch.ones(6, dtype=torch.float64))


def test_plot_shows_the_fit(muons, tmp_path):
    pytest.importorskip("matplotlib")
    figure = fit(AnalyticDetector(), *muons, starts=2).plot()
    assert [axes.get_title() for axes in figure.axes[:4]] == ["parameters", "objective", "correlations", "residuals"]
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 10_000


class Interrupted(AnalyticDetector):
    """Stops like Ctrl-C at the n-th call."""

    left = 10**9  # of the class: a fit works on a copy

    def forward(self, *arguments, **options):
        Interrupted.left -= 1
        if Interrupted.left < 0:
            raise KeyboardInterrupt
        return super().forward(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "calls"),  # the least calls that an iteration, or the end, needs
    [
        ({"starts": 2}, 2),
        ({"batch_events": 2}, 8),
        ({"method": "adam", "max_iterations": 12, "batch_events": 3, "starts": 2}, 6),
    ],
    ids=["lm", "lm-batches", "adam"],
)
def test_a_fit_stopped_at_any_call_ends_the_same(muons, tmp_path, options, calls):
    options = {"start": "random", "parameters": ["lifetime", "efield"], **options}
    Interrupted.left = 10**9
    whole = fit(Interrupted(), *muons, **options)
    interruptions = 0
    Interrupted.left = calls
    while True:
        try:
            resumed = fit(Interrupted(), *muons, **options, checkpoint=tmp_path)
            break
        except KeyboardInterrupt:
            interruptions += 1
            Interrupted.left = calls + interruptions % 3
    assert interruptions > 2
    same(whole, resumed)


PROGRAM = """
import sys
from lartpc.analytic import AnalyticDetector, tracks
from hepops.lartpc import fit
segments = tracks(8)
sim = AnalyticDetector()
fit(sim, segments, sim(segments), start="random", starts=4, checkpoint=sys.argv[1])
"""


def test_a_killed_fit_ends_the_same_bit_for_bit(muons, tmp_path):
    whole = fit(AnalyticDetector(), *muons, start="random", starts=4)
    path = [str(Path(__file__).parents[1]), str(Path(hepops.__file__).parents[1])]
    run = {"env": {**os.environ, "PYTHONPATH": os.pathsep.join(path)}}
    state = tmp_path / "state.json"
    for iterations in (2, 7, 15):  # killed as soon as it has gone so far: anywhere within the next iteration
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], **run)
        deadline = time.monotonic() + 120
        while not (state.exists() and len(json.loads(state.read_text())["trace"]) >= iterations):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "result.h5").exists()
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, **run)
    same(whole, FitResult.load(tmp_path / "result.h5"))


def test_a_checkpoint_of_another_fit_is_refused(muons, tmp_path):
    segments, hits = muons
    fit(AnalyticDetector(), segments, hits, ["lifetime"], checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"belongs to another fit, different in: .*parameters.*"):
        fit(AnalyticDetector(), segments, hits, ["efield"], checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"different in: measured$"):
        later = dataclasses.replace(hits, time=hits.time + 1e-12)
        fit(AnalyticDetector(), segments, later, ["lifetime"], checkpoint=tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"state.json is not the state of a fit"):
        fit(AnalyticDetector(), segments, hits, ["lifetime"], checkpoint=tmp_path)


def test_threads_change_no_bit(muons):
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(fit(AnalyticDetector(), *muons, residual=[PixelSums(), MatchedHits()], start="random"))
    finally:
        torch.set_num_threads(threads)
    same(*results)


def muon_file(index):
    return read_segments(shared(f"data/lartpc/edepsim/muons_{index}.h5"))


def test_the_simulator_itself_is_recovered():
    """One file of muons, noise-free, float64, from the far end of every range; bench_fit.py has the whole."""
    segments, sim = muon_file(1), Simulator(Detector.module0(), dtype=torch.float64)
    with torch.no_grad():
        measured = sim(segments)
    result = fit(sim, segments, measured, start="random", seed=5)
    assert result.converged and result.counts["simulated_only"] == result.counts["measured_only"] == 0
    far = (result.path() / TRUTH - 1).abs().max(1).values
    assert far[0] > 0.3 and (far[1:] < 1e-3).nonzero()[0].item() < 15
    assert far[-1] < 1e-8, far


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tolerance_is_that_of_the_precision(dtype):
    """One event of the gun: in the default precision, too, the fit ends and says so."""
    detector = Detector.module0()
    segments = shoot(detector, 1, "proton", topology="inside", energy=(100.0, 200.0), seed=2)
    with torch.no_grad():
        measured = Simulator(detector, Parameters(lifetime=1500.0, efield=0.49), dtype=dtype)(segments)
    result = fit(Simulator(detector, dtype=dtype), segments, measured, ["lifetime", "efield"])
    single = dtype == torch.float32
    assert result.converged, result.summary()
    assert result.config["tolerance"] == (1e-5 if single else 1e-8)
    assert result["efield"] == pytest.approx(0.49, rel=1e-5 if single else 1e-9)
    assert result["lifetime"] == pytest.approx(1500.0, rel=1e-3 if single else 1e-7)


def test_adam_runs_backward_through_the_simulator():
    segments, sim = muon_file(1), Simulator(Detector.module0())
    segments = segments[segments.event == segments.event[0]]
    with torch.no_grad():
        measured = sim(segments)
    options = {"method": "adam", "max_iterations": 60, "start": {"birks_a": 0.83}}
    result = fit(sim, segments, measured, ["birks_a"], **options)
    assert result["birks_a"] == pytest.approx(0.8, rel=5e-3)  # from 4 % away
    result = fit(sim, segments, measured, ["birks_a"], residual=HitLoss("chamfer"), **options)
    assert result["birks_a"] == pytest.approx(0.8, rel=5e-3)  # from 4 % away
