"""Integrands, channels, numbers and files that nobody meant to give."""

import json
import math

import numpy as np
import pytest
import torch
from hepops.flows import Channel, Integrator
from hepops.flows.integration import storage

MAP = {"candidates": ("map",)}


def gauss(x):
    return torch.exp(-50 * (x - 0.5).square().sum(1))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_an_integrand_of_any_size_has_its_error(scale):
    """Weights are squared: without a scale of their own the error was 0, or an OverflowError."""
    plain = Integrator(gauss, 2, **MAP).integrate(5000, seed=1)
    result = Integrator(lambda x: scale * gauss(x), 2, **MAP).integrate(5000, seed=1)
    assert result.mean == pytest.approx(scale * plain.mean, rel=1e-10)
    assert result.sdev == pytest.approx(scale * plain.sdev, rel=1e-10)
    assert result.ess == pytest.approx(plain.ess, rel=1e-9)
    assert result.warnings == plain.warnings
    assert result.iterations[0].mean == pytest.approx(scale * plain.iterations[0].mean, rel=1e-9)


def test_a_huge_vector():
    result = Integrator(lambda x: 1e250 * torch.stack([gauss(x), -gauss(x)], 1), 2, **MAP).integrate(5000, seed=1)
    assert result.mean[0] == pytest.approx(1e250 * math.pi / 50, rel=0.1)
    assert (result.sdev > 0).all() and result.sdev.isfinite().all()


def test_a_target_that_no_double_reaches():
    result = Integrator(lambda x: 1e200 * gauss(x), 2, **MAP).integrate(5000, seed=1, target_error=1e-200)
    assert any("the target was missed" in text for text in result.warnings)


@pytest.mark.parametrize("bounds", [[(-1e300, 1e300)] * 2, [(0, 1e-300)] * 2])
def test_a_volume_beyond_the_doubles_is_refused(bounds):
    with pytest.raises(ValueError, match="the volume must lie in"):
        Integrator(gauss, bounds)


@pytest.mark.parametrize("dtype", [">f8", np.longdouble, np.float16])
def test_arrays_of_any_layout(dtype):
    def f(x):
        return np.repeat(x[:, 0], 2).astype(dtype)[::-2][::-1]

    plain = Integrator(lambda x: x[:, 0], 2, backend="numpy", **MAP).integrate(2000, seed=1)
    result = Integrator(f, 2, backend="numpy", **MAP).integrate(2000, seed=1)
    assert result.mean == pytest.approx(plain.mean, rel=2e-3 if dtype is np.float16 else 1e-15)


def test_an_array_of_objects_is_named():
    with pytest.raises(TypeError, match="array of numbers, got ndarray of object"):
        Integrator(lambda x: np.array([None] * len(x)), 2, backend="numpy").integrate(2000, seed=1)


def test_an_integrand_may_differentiate():
    """The look runs without gradients of its own: f is called as the caller would."""

    def f(x):
        return torch.autograd.grad((x.requires_grad_() ** 3).sum(), x)[0][:, 0]

    result = Integrator(f, 2, **MAP).integrate(20_000, seed=1)
    assert result.probe is not None
    assert abs(result.mean - 1) < 5 * result.sdev


def test_an_integrand_that_writes_into_x_is_told_the_right_point():
    def f(x):
        y = torch.where(x[:, 0] > 0.5, torch.nan, 1.0)
        x.fill_(-7.0)
        return y

    with pytest.raises(ValueError, match=r"gave \[nan\] at x = \[0\.\d+, 0\.\d+\]"):
        Integrator(f, 2).integrate(2000, seed=1)


def test_a_look_that_was_not_taken_is_told():
    result = Integrator(gauss, 2, **MAP).integrate(5000, seed=1)
    assert result.probe is None
    assert any("no look for lost peaks was taken" in text for text in result.notes)
    assert "note: no look for lost peaks" in str(result)


def numbers(**options):
    return Integrator(gauss, 2, **MAP).integrate(**({"neval": 2000, "seed": 1} | options))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"neval": "1"}, TypeError),
        ({"neval": 1000.5}, ValueError),
        ({"neval": math.nan}, ValueError),
        ({"iterations": 1.5}, ValueError),
        ({"seed": 1.5}, ValueError),
        ({"seed": True}, TypeError),
        ({"seconds_per_evaluation": -1.0}, ValueError),
        ({"seconds_per_evaluation": math.nan}, ValueError),
        ({"time_limit": math.nan}, ValueError),
    ],
)
def test_numbers_are_checked_before_f_is_called(options, error):
    with pytest.raises(error, match=next(iter(options))):
        numbers(**options)


def test_whole_numbers_of_any_type():
    result = numbers(neval=2e3, seed=np.int64(1))
    assert (result.mean, result.neval) == (numbers().mean, numbers().neval)
    assert Integrator(gauss, np.int64(2), discrete={1: np.int64(3)}).domain.dim == 2


@pytest.mark.parametrize("terms", ["ab", True, [[1.0]], -1])
def test_terms(terms):
    with pytest.raises((TypeError, ValueError), match="axis 1 needs a count or positive weights"):
        Integrator(gauss, 2, discrete={1: terms})


def square(u):
    return u.sqrt()


def density(x):
    return (2 * x).log().sum(1)


@pytest.mark.parametrize(
    ("sample", "log_prob", "message"),
    [
        (square, lambda x: density(x) + math.log(4), "integrates to 1.*instead of 1"),
        (square, lambda x: density(x) - 0.2, "not the density of sample"),
        (lambda u: u**2, density, "not the density of sample"),
        (lambda u: u.flip(1).sqrt() * torch.tensor([1.0, 0.5]), density, "not the density of sample"),
        (square, lambda x: x[:, 0] * math.nan, "gave NaN"),
        (square, lambda x: x[:, 0] * 0 - math.inf, "without a density"),
        (lambda u: u * math.nan, density, "NaN"),
    ],
)
def test_a_channel_whose_density_is_another_ones_is_refused(sample, log_prob, message):
    """It would bias the estimate in silence: 0.0639 +- 0.00001 instead of 1/4 for the first."""
    integrator = Integrator(lambda x: x.prod(1), 2, channels=[Channel(sample, log_prob)])
    with pytest.raises(ValueError, match=f"channel 0: .*{message}"):
        integrator.integrate(5000, seed=1)


def cauchy(gamma):
    low, high = math.atan(-0.4 / gamma), math.atan(0.6 / gamma)

    def sample(u):
        return torch.cat([0.4 + gamma * torch.tan(low + (high - low) * u[:, :1]), u[:, 1:]], 1)

    def log_prob(x):
        return -(((x[:, 0] - 0.4) / gamma).square() + 1).log() - math.log(gamma * (high - low))

    return Channel(sample, log_prob)


@pytest.mark.parametrize("gamma", [1.0, 1e-2, 1e-4, 1e-6])
def test_a_right_channel_is_never_refused(gamma):
    channel = Integrator(gauss, 2, channels=[cauchy(gamma)]).channels[0]
    for seed in range(50):
        channel.check(seed)


@pytest.mark.parametrize("gamma", [1e-2, 3e-2])
def test_a_resonance_of_the_wrong_width_is_refused(gamma):
    wrong = Channel(cauchy(gamma).sample, cauchy(1.3 * gamma).log_prob)
    with pytest.raises(ValueError, match="not the density"):
        Integrator(gauss, 2, channels=[wrong]).channels[0].check(1)


@pytest.mark.parametrize("channel", [3, Channel(lambda u: None, density), Channel(square, lambda x: None)])
def test_channels_that_are_none(channel):
    with pytest.raises(TypeError, match="channel 0: "):
        Integrator(gauss, 2, channels=[channel]).integrate(2000, seed=1)


def test_a_checkpoint_that_cannot_be_written_is_told_before_f_is_called(tmp_path):
    calls = []
    integrator = Integrator(lambda x: calls.append(x) or x[:, 0], 2)
    for path in (tmp_path / "none" / "a", tmp_path):
        with pytest.raises(OSError, match="no file can be written"):
            integrator.integrate(2000, seed=1, checkpoint=path)
    assert not calls


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "s"
    integrator = Integrator(gauss, 2, **MAP)
    integrator.integrate(5000, seed=1)
    integrator.save(path)
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, tensors: data.pop("prepared"),
        lambda data, tensors: data["prepared"].update(more=1),
        lambda data, tensors: data["prepared"].update(proposal={"kind": "VegasMap", "dim": 2, "increments": 10**13}),
        lambda data, tensors: data["prepared"]["proposal"].update(kind="os.system"),
        lambda data, tensors: data["domain"].update(limits=[["0", "1"]] * 3),
        lambda data, tensors: data["domain"].update(limits=[["a", "b"]] * 2),
        lambda data, tensors: data.update(prepared=[1]),
        lambda data, tensors: tensors.clear(),
        lambda data, tensors: [t.fill_(math.nan) for t in tensors.values() if t.is_floating_point()],
    ],
)
def test_damaged_files_are_a_value_error_that_names_them(saved, tmp_path, damage):
    data, tensors = storage.read(saved)
    data = json.loads(json.dumps(data))
    damage(data, tensors)
    storage.write(tmp_path / "damaged", data, tensors)
    with pytest.raises(ValueError, match="damaged: damaged"):
        Integrator.load(tmp_path / "damaged", gauss)


def test_bounds_come_from_the_file(saved):
    with pytest.raises(TypeError, match="bounds come from the file"):
        Integrator.load(saved, gauss, bounds=3)
