import math

import numpy as np
import pytest
import torch
from hepops.lartpc import Parameters
from hypothesis import given
from hypothesis import strategies as st

NAMES = list(Parameters.SPEC)
names = st.sampled_from(NAMES)
inside = st.floats(1e-6, 1 - 1e-6)


def test_nominal_values_are_those_of_the_table_and_within_their_ranges():
    assert [getattr(Parameters(), name) for name in NAMES] == [spec.nominal for spec in Parameters.SPEC.values()]
    assert set(NAMES) == set(Parameters.model_fields)
    for spec in Parameters.SPEC.values():
        assert spec.floor <= spec.low < spec.nominal < spec.high <= spec.ceiling


def test_the_six_have_the_published_ranges():
    ranges = {
        name: (Parameters.SPEC[name].nominal, Parameters.SPEC[name].low, Parameters.SPEC[name].high)
        for name in Parameters.SIX
    }
    assert ranges == {
        "lifetime": (2200, 500, 5000),
        "efield": (0.5, 0.45, 0.55),
        "birks_a": (0.8, 0.78, 0.88),
        "birks_k": (0.0486, 0.04, 0.07),
        "transverse_diffusion": (8.8e-6, 4e-6, 14e-6),
        "longitudinal_diffusion": (4e-6, 2e-6, 9e-6),
    }


@given(names, inside)
def test_the_transform_goes_there_and_back(name, share):
    spec = Parameters.SPEC[name]
    value = spec.low + share * (spec.high - spec.low)
    u = Parameters.to_unconstrained(name, value)
    assert Parameters.from_unconstrained(name, u) == pytest.approx(value, rel=1e-12)
    tensor = torch.tensor([value, value], dtype=torch.float64)
    torch.testing.assert_close(
        Parameters.to_unconstrained(name, tensor), torch.full_like(tensor, u), rtol=1e-9, atol=1e-9
    )


@given(names, st.floats(-30, 30))
def test_the_derivative_is_that_of_the_transform(name, u):
    spec = Parameters.SPEC[name]
    point = torch.tensor(u, dtype=torch.float64, requires_grad=True)
    Parameters.from_unconstrained(name, point).backward()
    assert Parameters.derivative(name, u) == pytest.approx(point.grad.item(), rel=1e-9)
    assert Parameters.derivative(name, point).item() == pytest.approx(point.grad.item(), rel=1e-9)
    assert 0 < Parameters.derivative(name, u) <= (spec.high - spec.low) / 4 * (1 + 1e-15)


@given(names, st.floats(-1e4, 1e4))
def test_no_step_leaves_the_range_or_overflows(name, u):
    spec = Parameters.SPEC[name]
    assert spec.low <= Parameters.from_unconstrained(name, u) <= spec.high
    assert math.isfinite(Parameters.derivative(name, u))


def test_other_bounds_can_be_given():
    assert Parameters.from_unconstrained("efield", 0.0, bounds=(0.2, 0.4)) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"bounds of efield must rise within \[0.001, 10\]"):
        Parameters.to_unconstrained("efield", 0.3, bounds=(0.4, 0.2))


@pytest.mark.parametrize("value", [0.45, 0.55, 0.6, float("nan")])
def test_what_is_not_inside_the_range_has_no_unconstrained_value(value):
    with pytest.raises(ValueError, match=r"efield must lie inside \(0.45, 0.55\) kV/cm to be fitted"):
        Parameters.to_unconstrained("efield", value)
    with pytest.raises(ValueError, match="efield must lie inside"):
        Parameters.to_unconstrained("efield", torch.tensor([0.5, value]))


def test_round_trips_keep_every_bit():
    parameters = Parameters(lifetime=1234.5678901234567, efield=0.1 + 0.2, w_ion=1 / 4.237e4)
    assert Parameters.from_dict(parameters.to_dict()) == parameters
    assert Parameters.from_json(parameters.to_json()) == parameters
    assert parameters.replace(efield=0.5).lifetime == parameters.lifetime


def test_numbers_of_other_libraries_are_numbers():
    assert Parameters(lifetime=torch.tensor(2000.0), efield=np.float32(0.5), birks_a=np.array(0.8)) == Parameters(
        lifetime=2000
    )


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(liftime=1.0), r"Parameters: unknown name 'liftime', did you mean 'lifetime'\?"),
        (dict(lifetime=-1.0), r"Parameters: lifetime must lie in \[1, 1e\+09\] us, got -1.0"),
        (dict(efield=0.0), r"efield must lie in \[0.001, 10\] kV/cm, got 0.0"),
        (dict(birks_a=1.01), r"birks_a must lie in \[0.001, 1\]"),
        (dict(temperature=300), "temperature must lie in"),
        (dict(density=float("nan")), "density: Input should be a finite number, got nan"),
        (dict(lifetime=float("inf")), "lifetime: Input should be a finite number, got inf"),
        (dict(lifetime="long"), "lifetime: Input should be a valid number"),
        (dict(lifetime=None), "lifetime: Input should be a valid number, got None"),
    ],
)
def test_errors_are_one_line_and_name_the_parameter(values, message):
    with pytest.raises(ValueError, match=message) as error:
        Parameters(**values)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        Parameters().replace(**values)


def test_other_errors():
    with pytest.raises(ValueError, match="unknown parameter 'field', did you mean 'efield'"):
        Parameters.spec("field")
    with pytest.raises(ValueError, match="Parameters: not JSON"):
        Parameters.from_json("{")
    with pytest.raises(ValueError, match="JSON must hold an object"):
        Parameters.from_json("[1]")
    with pytest.raises(ValueError, match="frozen"):
        Parameters().lifetime = 3.0
