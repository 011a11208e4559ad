"""What an integrator refuses, and how it tells."""

import pytest
import torch
from hepops.flows import IntegrationWarning, Integrator, integrate

EASY = {"candidates": ("map",), "probe_share": 0.0, "seed": 1}


def good(x):
    return x.sum(1)


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        (0, ValueError, "at least 1, got 0"),
        ([], ValueError, "at least one axis"),
        ([(1, 0)], ValueError, "low must be below high.*got 1.0, 0.0 on axis 0"),
        ([(0, float("nan"))], ValueError, "low must be below high"),
        ([(0, 1, 2)], TypeError, "bounds must be"),
        ("ab", TypeError, "bounds must be"),
        ([(-1.7e308, 1.7e308)], ValueError, "high - low finite"),
    ],
)
def test_bounds(bounds, error, message):
    with pytest.raises(error, match=message):
        Integrator(good, bounds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discrete": {2: 3}}, "axes must be in 0 ... 1, got 2"),
        ({"discrete": {0: []}}, "count or positive weights"),
        ({"discrete": {0: [1.0, -1.0]}}, "count or positive weights"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"backend": "jax"}, "backend must be 'torch' or 'numpy', got 'jax'|one of torch, numpy, got 'jax'"),
        ({"invalid": "ignore"}, "invalid must be .* got 'ignore'"),
        ({"importance": "max"}, "importance must be 'norm'"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        Integrator(good, 2, **options)


def test_types():
    with pytest.raises(TypeError, match="f must be callable, got int"):
        Integrator(3, 2)
    with pytest.raises(TypeError, match="float32 or float64"):
        Integrator(good, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neval": 10}, "neval must be at least 100, got 10"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"learning_share": 0.5, "probe_share": 0.3}, "at most 0.9 together"),
        ({"target_error": -1.0}, "target_error must be positive, got -1.0"),
        ({"target_relative": 0.0}, "target_relative must be positive"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_arguments_of_integrate(options, message):
    with pytest.raises(ValueError, match=message):
        Integrator(good, 2).integrate(**options)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x.sum(), ValueError, r"must give shape \(\d+,\) or"),
        (lambda x: x.sum(1)[:-1], ValueError, "must give shape"),
        (lambda x: x[:, :, None], ValueError, "must give shape"),
        (lambda x: x[:, :0], ValueError, "must give shape"),
        (lambda x: x.sum(1) + 1j, TypeError, "complex128 .*real and imaginary part as a vector"),
        (lambda x: "text", TypeError, "must give a tensor or an array of numbers, got str"),
        (lambda x: torch.where(x[:, 0] > 0.5, torch.nan, 1.0), ValueError, "gave .*nan.* at x = .*invalid='exclude'"),
        (lambda x: 1 / (x[:, 0] > 0.5), ValueError, "gave .*inf"),
    ],
)
def test_what_f_returns(f, error, message):
    with pytest.raises(error, match=message):
        integrate(f, 2, 5_000, **EASY)


def test_another_shape_than_before():
    sizes = iter(range(1000))

    def f(x):
        return x if next(sizes) > 1 else x.sum(1)

    with pytest.raises(ValueError, match="another shape than before"):
        integrate(f, 2, 50_000, **EASY)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_excluded_points_are_counted_and_told(bad):
    with pytest.warns(IntegrationWarning, match="gave NaN or an infinity and count as zero"):
        result = integrate(lambda x: torch.where(x[:, 0] < 0.25, bad, 1.0), 1, 20_000, invalid="exclude", **EASY)
    assert abs(result.mean - 0.75) < 5 * result.sdev + 1e-9
    assert result.excluded > sum(part.excluded for part in result.iterations) > 0
    assert result.zeros == 0, "an excluded point is no cut"


def test_integers_and_booleans_are_numbers():
    assert abs(integrate(lambda x: (3 * x[:, 0]).long(), 1, 20_000, **EASY).mean - 1) < 0.05
    assert abs(integrate(lambda x: x[:, 0] < 0.5, 1, 20_000, **EASY).mean - 0.5) < 0.05


def test_what_f_raises_goes_through_with_where():
    calls = []

    def f(x):
        calls.append(len(x))
        if sum(calls) > 15_000:
            raise ZeroDivisionError("the matrix element")
        return x.sum(1)

    with pytest.raises(ZeroDivisionError, match="the matrix element") as info:
        integrate(f, 2, 20_000, **EASY)
    (note,) = info.value.__notes__
    assert "iteration" in note and "samples" in note and "checkpoint=" in note


def test_points_are_fs_own():
    """What f does to its points changes nothing."""

    def f(x):
        value = x.sum(1)
        x.zero_()
        return value

    assert integrate(f, 2, 5_000, **EASY).mean == integrate(good, 2, 5_000, **EASY).mean


def test_before_there_is_a_proposal(tmp_path):
    integrator = Integrator(good, 2)
    for call in (lambda: integrator.sample_unweighted(1), lambda: integrator.save(tmp_path / "x"),
                 lambda: integrator.sample(1, seed=1)):  # fmt: skip
        with pytest.raises(RuntimeError, match="integrate first"):
            call()
