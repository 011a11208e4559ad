"""The posterior of a detector's parameters: noise, score, Fisher information, and the chain to a posterior."""

import math

import pytest
import torch
from hepops.calibration import Experiment, Known, Score, calibrate
from hepops.flows.inference import NeuralPosterior, Training
from hepops.lartpc import Detector, Parameters, Simulator, gun
from torch.testing import assert_close

DETECTOR = Detector.module0()
TRACKS = gun.shoot(DETECTOR, 1, "proton", topology="inside", energy=(110.0, 120.0), seed=3)
NAMES = ("efield", "birks_k")
NOMINAL = torch.tensor([Parameters.SPEC[name].nominal for name in NAMES], dtype=torch.float64)


def experiment(noise=None, dtype=torch.float64):
    return Experiment(Simulator(DETECTOR, dtype=dtype), TRACKS, noise or Known(), NAMES)


def test_the_noise_is_what_it_says_and_named_by_its_seed():
    setting = experiment(Known(sigma_charge=500.0, sigma_time=0.3))
    clean = setting.sim(TRACKS)
    differences = []
    for seed in range(20):
        hits = setting.measure(NOMINAL, seed)
        assert torch.equal(hits.event, clean.event) and torch.equal(hits.ix, clean.ix)
        differences.append(torch.stack([(hits.charge - clean.charge) / 500, (hits.time - clean.time) / 0.3]))
    draws = torch.stack(differences).detach().flatten()
    assert_close(draws.mean(), torch.zeros(()).double(), rtol=0, atol=4 / len(draws) ** 0.5)
    assert_close(draws.std(), torch.ones(()).double(), rtol=0, atol=3 / len(draws) ** 0.5)
    rows = torch.stack(differences).detach().flatten(1)
    assert float(torch.corrcoef(rows[:2])[0, 1].abs()) < 4 / rows.shape[1] ** 0.5  # neighbouring seeds share nothing
    assert torch.equal(setting.measure(NOMINAL, 7).charge, setting.measure(NOMINAL, 7).charge)


def test_information_is_that_of_finite_differences():
    setting = experiment()
    score = Score(setting, NOMINAL)
    slopes = []
    for k in range(2):
        sides = []
        for sign in (-1, 1):
            theta = NOMINAL.clone()
            theta[k] += sign * 1e-3 * score.errors[k]
            setting.set(theta)
            with torch.no_grad():
                sides.append(setting.sim(TRACKS))
        assert len(sides[0]) == len(sides[1]) == len(score.hits)
        change = [(sides[1].charge - sides[0].charge) / 1068.0, (sides[1].time - sides[0].time) / 0.2]
        slopes.append(torch.cat(change) / (2e-3 * score.errors[k]))
    jacobian = torch.stack(slopes)
    assert_close(jacobian @ jacobian.T, score.information, rtol=1e-5, atol=0)
    assert_close(score.covariance @ score.information, torch.eye(2).double(), rtol=0, atol=1e-8)


def test_the_score_of_noise_has_the_covariance_of_the_information():
    """t is in units of the errors: mean 0, width 1, and the correlations of the inverse information."""
    score = Score(experiment(dtype=torch.float32), NOMINAL)
    n = 100
    t = score(NOMINAL.expand(n, 2), torch.arange(n))
    assert_close(t.mean(0), torch.zeros(2).double(), rtol=0, atol=4 / math.sqrt(n))
    correlation = score.covariance / (score.errors * score.errors[:, None])
    assert_close(torch.cov(t.T), correlation, rtol=0, atol=6 / math.sqrt(n))
    assert torch.equal(score(NOMINAL[None], torch.tensor([5])), t[5:6])
    assert float(score.compress(score.hits).abs().max()) == 0.0


def test_the_score_finds_a_small_shift():
    setting = experiment()
    score = Score(setting, NOMINAL)
    shift = torch.tensor([0.5, -0.3], dtype=torch.float64)
    setting.set(NOMINAL + shift * score.errors)
    with torch.no_grad():
        assert_close(score.compress(setting.sim(TRACKS)), shift, rtol=0, atol=0.02)
    assert_close(score.estimate(shift), NOMINAL + shift * score.errors)


def test_the_chain_ends_with_the_posterior_of_the_fit(tmp_path):
    setting = experiment(dtype=torch.float32)
    true = NOMINAL * torch.tensor([1.002, 1.05])
    measured = setting.measure(true, 2**62)
    told = []
    made = calibrate(
        setting,
        measured,
        simulations=250,
        held_out=60,
        training=Training(epochs=30),
        folder=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (310, 310)
    # 250 simulations: widths within 25 %, the mean within half an error, of the fit's and of the information's
    assert_close(made.ratio, torch.ones(2).double(), rtol=0, atol=0.25)
    assert_close(made.ratio_to_fit, torch.ones(2).double(), rtol=0, atol=0.3)
    assert float(((made.result.mean - made.linear.mean) / made.linear.errors).abs().max()) < 0.5
    assert float((made.result.correlations - made.linear.correlations).abs().max()) < 0.2
    assert bool(made.prior.inside(true)) and float(((made.result.mean - true) / made.result.errors).abs().max()) < 4
    assert made.sbc.p_value > 0.01 and made.tarp.p_value > 0.01 and made.tarp_corner.p_value > 0.01
    assert_close(made.held_out_ratio, torch.ones(2).double(), rtol=0, atol=0.35)
    text = made.summary(true)
    assert all(word in text for word in ("efield", "birks_k", "pull", "SBC: 60", "TARP: 60"))
    made.posterior.save(tmp_path)
    assert torch.equal(
        NeuralPosterior.load(tmp_path).sample(5, made.t, seed=1), made.posterior.sample(5, made.t, seed=1)
    )
    again = calibrate(setting, measured, simulations=250, held_out=60, training=Training(epochs=30), folder=tmp_path)
    assert torch.equal(again.result.mean, made.result.mean)  # nothing was simulated anew, and the bits are the same
    other = Experiment(setting.sim, TRACKS, Known(sigma_time=0.5), NAMES)
    with pytest.raises(ValueError, match=r"another|other"):
        calibrate(other, measured, simulations=250, held_out=60, folder=tmp_path)


def test_the_clocked_chip_can_be_measured():
    setting = Experiment(Simulator(DETECTOR), TRACKS, None, NAMES)
    score = Score(setting, NOMINAL)
    t = score(NOMINAL.expand(20, 2), torch.arange(20))
    assert bool(torch.isfinite(t).all()) and float(t.std(0).min()) > 0.5
    assert setting.fingerprint() != experiment().fingerprint()


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="sigma_charge must be positive"):
        Known(sigma_charge=0.0)
    with pytest.raises(ValueError, match="unknown parameter 'field'"):
        Experiment(Simulator(DETECTOR), TRACKS, Known(), ("field",))
    with pytest.raises(ValueError, match="names must be different"):
        Experiment(Simulator(DETECTOR), TRACKS, Known(), ("efield", "efield"))
    with pytest.raises(ValueError, match="singular information"):
        Score(Experiment(Simulator(DETECTOR), TRACKS, Known(), ("w_ion", "birks_a")), torch.tensor([23.6e-6, 0.8]))
    with pytest.raises(ValueError, match="simulations must be at least 50"):
        calibrate(experiment(), experiment().measure(NOMINAL, 1), simulations=10)
    with pytest.raises(ValueError, match="width must be at least 1"):
        calibrate(experiment(), experiment().measure(NOMINAL, 1), width=0.1)
