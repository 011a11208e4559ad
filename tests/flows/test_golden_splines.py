"""The splines of nflows, zuko and normflows, and mpmath's, as they were computed with 40 digits or in float64."""

import math

import numpy as np
import pytest
import torch
from conftest import shared
from hepops.flows.functional import rational_quadratic_spline
from torch.testing import assert_close

SETS = "ABCD"
STEEP = "CD"


def number(key):
    return torch.from_numpy(np.load(shared("golden/flows/rqs_ncp.npz"))[key])


def parameters(name, circular=False):
    W, H, D = (number(f"nflows_linear_{name}_{k}") for k in "WHD")
    return W, H, number(f"normflows_circular_{name}_Dc") if circular else D


def cases():
    for name in SETS:
        yield pytest.param((f"nflows_linear_{name}", name, "nflows", "linear"), id=f"nflows-{name}")
        yield pytest.param((f"zuko_{name}", name, "zuko", "linear"), id=f"zuko-{name}")
        yield pytest.param((f"normflows_circular_{name}", name, "nflows", "circular"), id=f"circular-{name}")


@pytest.fixture(params=cases())
def case(request, device):
    """(x, y, logdet, x of y, the raw parameters, the keywords)"""
    key, name, convention, tails = request.param
    x = number(f"{key}_x" if tails == "circular" else f"nflows_linear_{name}_x")
    y, logdet = number(f"{key}_y"), number(f"{key}_logdet")
    back = number(f"{key}_xinv" if convention == "zuko" else f"{key}_x_inv")
    bound = math.pi if tails == "circular" else float(number(f"nflows_linear_{name}_B"))
    raw = [p.to(device) for p in parameters(name, tails == "circular")]
    keywords = {"bound": bound, "tails": tails, "convention": convention}
    return name, [t.to(device) for t in (x, y, logdet, back)], raw, keywords


def test_values_and_log_derivatives(case):
    name, (x, y, logdet, _), raw, keywords = case
    ours, slope = rational_quadratic_spline(x, *raw, **keywords)
    assert_close(ours, y, rtol=0, atol=1e-12)
    assert_close(slope, logdet, rtol=0, atol=1e-9 if name in STEEP else 1e-10)


def test_inverse(case):
    """x follows y as 1/(dy/dx): no closer than the rounding of y allows."""
    name, (x, y, logdet, back), raw, keywords = case
    ours, slope = rational_quadratic_spline(y, *raw, inverse=True, **keywords)
    allowed = 1e-12 * (-logdet).exp().clamp(min=1)
    assert (ours - back).abs().le(2 * allowed).all()  # theirs has an error too
    inside = x.abs() <= keywords["bound"]
    assert (ours - x).abs().le(allowed)[inside].all()
    assert_close(rational_quadratic_spline(ours, *raw, **keywords)[0], y, rtol=0, atol=1e-12)
    there = rational_quadratic_spline(ours, *raw, **keywords)[1]
    assert_close(slope, -there, rtol=0, atol=1e-9 if name in STEEP else 1e-10)


@pytest.mark.parametrize("name", SETS)
def test_log_derivative_of_the_inverse(name, device):
    y, logdet = (number(f"nflows_linear_{name}_{k}").to(device) for k in ("y", "logdet_inv"))
    raw = [p.to(device) for p in parameters(name)]
    ours = rational_quadratic_spline(y, *raw, inverse=True, bound=float(number(f"nflows_linear_{name}_B")))[1]
    # by how much the rounding of y moves it: its slope, from two neighbours
    step = 1e-9
    near = [
        rational_quadratic_spline(y + s, *raw, inverse=True, bound=float(number(f"nflows_linear_{name}_B")))[1]
        for s in (-step, step)
    ]
    steepness = (near[1] - near[0]).abs() / (2 * step)
    assert (ours - logdet).abs().le(1e-10 + 4e-15 * steepness).all()


@pytest.mark.parametrize("name", SETS)
def test_forty_digits(name, device):
    """The first 64 rows, evaluated by mpmath."""
    y, logdet = (number(f"mpmath_linear_{name}_{k}").to(device) for k in ("y", "logdet"))
    x, *raw = (t[:64].to(device) for t in (number(f"nflows_linear_{name}_x"), *parameters(name)))
    ours = rational_quadratic_spline(x, *raw, bound=float(number(f"nflows_linear_{name}_B")))
    assert_close(ours[0], y, rtol=0, atol=2e-14)
    assert_close(ours[1], logdet, rtol=0, atol=1e-9 if name in STEEP else 1e-12)


@pytest.mark.parametrize("name", SETS)
def test_gradients(name, device):
    """Of sum(y cy + logdet cl). On a knot the slope of logdet jumps, and either side is right."""
    x, gx, gW, gH, gD, cy, cl = (
        number(f"nflows_linear_{name}_{k}").to(device) for k in ("x", "gx", "gW", "gH", "gD", "cy", "cl")
    )
    raw = [p.to(device) for p in parameters(name)]
    bound = float(number(f"nflows_linear_{name}_B"))
    golden = torch.cat([gx[:, None], gW, gH, gD], -1)
    errors = []
    for nudge in (0, -2e-15 * bound, 2e-15 * bound):
        arguments = [t.clone().requires_grad_() for t in (x + nudge, *raw)]
        outputs = rational_quadratic_spline(*arguments, bound=bound)
        ours = torch.autograd.grad(outputs, arguments, (cy, cl))
        ours = torch.cat([ours[0][:, None], *ours[1:]], -1)
        errors.append((ours - golden).abs().amax(-1) / (1 + golden.abs().amax(-1)))
    tolerance = 1e-9 if name in STEEP else 1e-11
    on_knot = (errors[0] > tolerance).nonzero()[:, 0]
    assert len(on_knot) <= 16 and (on_knot >= 8).all() and (on_knot < 24).all()  # the rows that were put on knots
    assert torch.stack(errors).amin(0).le(tolerance).all()


def ulp(bound):
    return float(np.spacing(np.float32(bound)))


FLOAT_CASES = [(c, t) for c in ("nflows", "zuko") for t in ("linear", "circular", None)]


@pytest.fixture(params=SETS)
def single(request, device):
    """float32 arguments of one set, for any tails."""

    def make(tails):
        W, H, D = parameters(request.param, tails != "linear")
        bound = math.pi if tails == "circular" else float(number(f"nflows_linear_{request.param}_B"))
        x = number(f"{'normflows_circular' if tails == 'circular' else 'nflows_linear'}_{request.param}_x").float()
        if tails is None:
            D, x = torch.cat([D, D[:, :1] / 2], -1), x.clamp(-bound, bound)
        bound = float(np.float32(bound))
        return bound, [t.float().to(device) for t in (x, W, H, D)]

    return make


@pytest.mark.parametrize(("convention", "tails"), FLOAT_CASES)
def test_single_precision(single, convention, tails):
    """Against float64 of the same float32 numbers: 2 ulp(B) and 1e-4; we hold half an ulp and 2e-6."""
    bound, (x, *raw) = single(tails)
    keywords = {"bound": bound, "tails": tails, "convention": convention}
    ours = rational_quadratic_spline(x, *raw, **keywords)
    exact = rational_quadratic_spline(x.double(), *(p.double() for p in raw), **keywords)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    assert_close(ours[0].double(), exact[0], rtol=0, atol=0.6 * ulp(bound))
    assert_close(ours[1].double(), exact[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("convention", "tails"), FLOAT_CASES)
def test_single_precision_inverse(single, convention, tails):
    """|f(x') - y| is ours plus what the rounding of x' to float32 costs, dy/dx ulp(x')/2; |x' - x| likewise."""
    bound, (x, *raw) = single(tails)
    keywords = {"bound": bound, "tails": tails, "convention": convention}
    wide = [p.double() for p in raw]
    y = rational_quadratic_spline(x, *raw, **keywords)[0]
    ours, logdet = rational_quadratic_spline(y, *raw, inverse=True, **keywords)
    back, slope = rational_quadratic_spline(ours.double(), *wide, **keywords)
    steepness = slope.exp()
    residual = (back - y.double()).abs() / ulp(bound)
    assert residual[steepness <= 1].le(2).all()
    assert (residual / steepness.clamp(min=1)).le(2).all()
    assert residual.le(2).all()  # of these sets, to the letter
    exact = rational_quadratic_spline(y.double(), *wide, inverse=True, **keywords)[0]
    assert ((ours - exact).abs() * steepness.clamp(max=1)).le(2 * ulp(bound)).all()
    assert_close(logdet.double(), -slope, rtol=0, atol=1e-5)  # at the returned point
    assert_close(logdet, -rational_quadratic_spline(ours, *raw, **keywords)[1], rtol=0, atol=1e-5)
