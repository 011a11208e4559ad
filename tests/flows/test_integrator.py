"""What an integration promises: its value, its error, its accounts, the same bits again."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from hepops.flows import Channel, IntegrationWarning, Integrator, integrate
from hepops.flows.integration import integrands

QUICK = {"candidates": ("map",)}
EASY = {**QUICK, "probe_share": 0.0}


def within(result, truth, sigmas=5):
    mean, sdev, truth = (torch.as_tensor(v, dtype=torch.float64) for v in (result.mean, result.sdev, truth))
    return bool(((mean - truth).abs() <= sigmas * sdev).all())


@pytest.mark.parametrize("name", ["camel2", "camel4", "ring"])
def test_known_integrals_come_out_within_their_errors(name):
    f = integrands.ALL[name]
    result = integrate(f, f.dim, 60_000, seed=3, **QUICK)
    assert within(result, f.exact) and 0 < result.sdev < 0.02 * f.exact
    assert result.dof == 9 and 0 < result.Q <= 1 and 0 < result.ess <= 1
    assert not result.warnings


def test_the_error_is_the_scatter_of_repeated_runs():
    # 40 runs: the standard deviation of a width is 1/sqrt(80) = 0.11
    integrator = Integrator(integrands.camel(2), 2, **QUICK)
    integrator.integrate(20_000, seed=0)
    runs = [integrator.integrate(5_000, seed=100 + i, learn=False, probe_share=0) for i in range(40)]
    pulls = torch.tensor([(r.mean - integrands.camel(2).exact) / r.sdev for r in runs])
    assert 0.6 < float(pulls.std()) < 1.4 and abs(float(pulls.mean())) < 0.6
    assert all(r.learning == 0 for r in runs)


def test_every_call_of_f_is_counted_and_none_is_outside():
    calls = []

    def f(x):
        calls.append(len(x))
        assert ((x >= torch.tensor([-1.0, 2.0])) & (x <= torch.tensor([3.0, 2.5]))).all()
        return torch.exp(-(x - torch.tensor([1.0, 2.2])).square().sum(1))

    result = integrate(f, [(-1, 3), (2, 2.5)], 40_000, seed=1)
    assert result.neval == sum(calls) <= 40_000
    assert result.neval == result.learning + result.probing + result.piloting + result.estimating
    assert result.learning > 0 and result.probing > 0 and result.count >= result.estimating


def test_signed_and_vector_integrands_with_their_covariance():
    def f(x):
        return torch.stack([x[:, 0], x[:, 0] - x[:, 1], -x.sum(1)], 1)

    result = integrate(f, 2, 20_000, seed=2, **EASY)
    assert within(result, [0.5, 0.0, -1.0])
    assert result.covariance.shape == (3, 3)
    # the third is minus twice the first plus the second
    a = torch.tensor([-2.0, 1.0, -1.0], dtype=torch.float64)
    assert float(a @ result.covariance @ a) < 1e-12 * float(result.covariance.diagonal().sum())
    assert result.dof == 9 * 2, "a component that the others make adds no degree of freedom"


def test_importance_may_be_one_component():
    def f(x):
        narrow = torch.exp(-((x - 0.5) / 0.01).square().sum(1))
        return torch.stack([narrow, torch.ones_like(narrow)], 1)

    one, both = (integrate(f, 2, 40_000, seed=1, importance=i, **EASY) for i in (0, "norm"))
    assert one.sdev[0] < both.sdev[0]
    with pytest.raises(ValueError, match="importance must name one of 2 components, got 2"):
        integrate(f, 2, 2_000, importance=2, seed=1)


def test_numpy_integrands():
    def f(x):
        assert isinstance(x, np.ndarray)
        return np.exp(-np.sum(x**2, axis=1))

    result = integrate(f, 2, 20_000, seed=1, backend="numpy", **EASY)
    assert within(result, (math.sqrt(math.pi) / 2 * math.erf(1)) ** 2)
    as_torch = integrate(lambda x: np.exp(-np.sum(x.numpy() ** 2, axis=1)), 2, 20_000, seed=1, **EASY)
    assert as_torch.mean == result.mean, "an array may be returned to either"


@pytest.mark.parametrize(
    ("limits", "f", "truth"),
    [
        ((-math.inf, math.inf), lambda x: torch.exp(-x[:, 0].square()), math.sqrt(math.pi)),
        ((0, math.inf), lambda x: torch.exp(-x[:, 0]), 1.0),
        ((-math.inf, 1), lambda x: torch.exp(x[:, 0]), math.e),
        ((2, 5), lambda x: x[:, 0], 10.5),
    ],
)
def test_limits(limits, f, truth):
    assert within(integrate(f, [limits], 30_000, seed=1, **QUICK), truth)


def test_discrete_axes_are_sums_with_learned_probabilities():
    weights = [1.0, 2.0, 0.5, 4.0]

    def f(x):
        k = x[:, 1]
        assert bool((k == k.round()).all()) and bool((k >= 0).all()) and bool((k < 4).all())
        return torch.where(k == 2, 100.0, 1.0) * (1 + x[:, 0])

    integrator = Integrator(f, [(0, 1), (0, 1)], discrete={1: weights}, **QUICK)
    result = integrator.integrate(40_000, seed=1)
    assert within(result, 1.5 * (1 + 2 + 50 + 4))
    p = integrator.domain.probabilities[1]
    assert p.argmax() == 2 and p[2] > 0.7, "the term that matters is drawn most"
    assert result.ess > 0.8


def test_cuts_are_counted():
    result = integrate(lambda x: x[:, 0] < 0.25, 1, 20_000, seed=1, learning_share=0, probe_share=0)
    assert within(result, 0.25)
    assert result.zeros == result.count - round(result.mean * result.count)


def test_a_users_channel_with_its_own_jacobian():
    # f = 1/sqrt(x) / 2 on (0, 4): its own density, up to the factor 2
    channel = Channel(lambda u: 4 * u.square(), lambda x: -(4 * x[:, 0].sqrt()).log())
    with_it = integrate(lambda x: 0.5 / x[:, 0].sqrt(), [(0, 4)], 40_000, seed=1, channels=[channel])
    assert within(with_it, 2.0) and with_it.ess > 0.95


def test_a_vector_integrand_may_need_its_own_gradients():
    # f is called with gradients as the caller has them, and what it returns is detached
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    result = integrate(lambda x: scale * x[:, 0], 1, 2_000, seed=1, learning_share=0)
    assert within(result, 1.0) and isinstance(result.mean, float)


def test_float32_integrands():
    def f(x):
        assert x.dtype == torch.float32
        return x.sum(1)

    assert within(integrate(f, 2, 10_000, seed=1, dtype=torch.float32, **EASY), 1.0)


def test_a_target_is_planned_from_a_pilot():
    f = integrands.camel(2)
    integrator = Integrator(f, 2, **QUICK)
    result = integrator.integrate(400_000, seed=1, learning_share=0.1, target_relative=2e-3)
    assert result.sdev <= 2e-3 * result.mean and result.neval < 200_000 and not result.warnings
    absolute = integrator.integrate(400_000, seed=1, target_error=1e-2, probe_share=0)
    assert absolute.sdev <= 1e-2 and absolute.neval < result.neval
    with pytest.warns(IntegrationWarning, match="the target was missed"):
        integrator.integrate(5_000, seed=1, target_error=1e-5, probe_share=0)


def test_results_do_not_depend_on_the_batch():
    results = [integrate(integrands.camel(2), 2, 60_000, seed=5, batch=b, **QUICK) for b in (1000, 4096, 100_000)]
    for other in results[1:]:
        assert (other.mean, other.sdev, other.chi2, other.max_weight) == (
            results[0].mean, results[0].sdev, results[0].chi2, results[0].max_weight)  # fmt: skip


def test_a_seed_from_torch_repeats():
    torch.manual_seed(7)
    one = integrate(integrands.camel(2), 2, 5_000, **EASY)
    torch.manual_seed(7)
    assert integrate(integrands.camel(2), 2, 5_000, **EASY).mean == one.mean
    assert integrate(integrands.camel(2), 2, 5_000, **EASY).mean != one.mean


def test_a_time_limit_ends_between_iterations():
    with pytest.warns(IntegrationWarning, match="the time was over after 2 of 10"):
        result = integrate(integrands.camel(2), 2, 20_000, seed=1, time_limit=1e-9, **EASY)
    assert len(result.iterations) == 2 and within(result, integrands.camel(2).exact)


def test_progress_is_told():
    told = []
    integrate(integrands.camel(2), 2, 5_000, seed=1, progress=lambda n, what: told.append((n, what)), **EASY)
    assert [n for n, _ in told] == sorted(n for n, _ in told)
    assert "iteration 9" in told[-1][1] and told[-1][0] <= 5_000


def test_the_progress_bar_runs(capsys):
    integrate(integrands.camel(2), 2, 5_000, seed=1, progress=True, **EASY)
    assert "iteration 9" in capsys.readouterr().err


def test_a_result_prints_and_is_plain_data():
    result = integrate(integrands.camel(2), 2, 60_000, seed=1, **QUICK)
    text, table = str(result), result.table()
    assert f"{result.mean:.10g}" in text and f"neval = {result.neval}" in text and "would be seen with 95 %" in text
    assert len(table.splitlines()) == 11 + len(text.splitlines())
    assert json.loads(json.dumps(result.to_dict()))["mean"] == result.mean


def test_gvars_are_correlated():
    gvar = pytest.importorskip("gvar")
    result = integrate(lambda x: torch.stack([x[:, 0], 1 - x[:, 0]], 1), 1, 5_000, seed=1, **EASY)
    a, b = result.to_gvar()
    assert gvar.sdev(a + b) < 1e-3 * gvar.sdev(a)
    one = integrate(lambda x: x[:, 0], 1, 5_000, seed=1, **EASY)
    assert gvar.mean(one.to_gvar()) == one.mean


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    for dim in (1, 3):
        result = integrate(lambda x: torch.exp(-x.sum(1)), dim, 20_000, seed=1, **QUICK)
        figure = result.plot(tmp_path / f"{dim}.png", truth=(1 - math.exp(-1)) ** dim)
        assert (tmp_path / f"{dim}.png").stat().st_size > 10_000 and figure.axes


@pytest.mark.parametrize(
    ("scale", "message"),
    [(1e-7, "effective samples"), (1e-7, "of the sum of all weights")],
)
def test_a_result_that_rests_on_few_samples_says_so(scale, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrationWarning)
        result = integrate(lambda x: 1 / (x[:, 0] + scale), 1, 4_000, seed=1, learning_share=0)
    assert any(message in text for text in result.warnings)


def test_zero_everywhere_is_said():
    with pytest.warns(IntegrationWarning, match="zero at every sample"):
        result = integrate(lambda x: torch.zeros(len(x)), 2, 2_000, seed=1)
    assert result.mean == 0 and result.sdev == 0 and result.zeros == result.count
