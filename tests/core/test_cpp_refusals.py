"""What the torch-free library says of numbers that are none: an error by name, or NaN where Python gives one."""

import ctypes
import math

import pytest
import torch
from hepops import flows
from hepops.core.libraries import DIRECTORY
from hepops.lartpc import drift, recombine
from torch.testing import assert_close

from . import capi

LIBRARY = DIRECTORY / "libhepops_core.so"
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="libhepops_core was not built (HEPOPS_CORE)")
INF, NAN, HUGE = math.inf, math.nan, torch.iinfo(torch.int64).max


@pytest.fixture(scope="module")
def core():
    return capi.Core(LIBRARY)


def refused(call, *words):
    with pytest.raises(capi.Refused) as error:
        call()
    status, message = error.value.args
    assert status == 1, (status, message)
    for word in words:
        assert word in message, message


def numbers(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "low", "high", "word"),
    [
        ("f64", 0.0, INF, "high must be finite, got inf"),
        ("f64", -INF, INF, "low must be finite, got -inf"),
        ("f64", NAN, 1.0, "low must be finite, got nan"),
        ("f64", 0.0, NAN, "high must be finite, got nan"),
        ("f64", 1.0, 1.0, "low must be below high, got 1 and 1"),
        ("f64", -1e308, 1e308, "must be a domain of float64 numbers, got -1e+308 and 1e+308"),
        ("f32", 0.0, 1e39, "must be a domain of float32 numbers, got 0 and 1e+39"),
        ("f32", 1.0, 1.0 + 1e-10, "must be a domain of float32 numbers"),
    ],
)
def test_domains_of_splines(core, kind, low, high, word):
    """The same are refused by hepops.flows, but for a float64 domain too wide for its own numbers: NaN there."""
    dtype = torch.float64 if kind == "f64" else torch.float32
    s = capi.Spline(4, 2, 0, low, high, 0)
    x, bins, slopes = numbers(2).to(dtype), numbers(2, 4).to(dtype), numbers(2, 5).to(dtype)
    out = [torch.empty_like(t) for t in (x, x, x, bins, bins, slopes)]
    refused(lambda: core.call(f"spline_{kind}", ctypes.byref(s), 2, x, bins, bins, slopes, *out[:2]), word)
    given = (x, x, x, bins, bins, slopes)
    refused(lambda: core.call(f"spline_backward_{kind}", ctypes.byref(s), 2, *given, *out[2:]), word)
    if low > -1e308:
        with pytest.raises(ValueError, match="bound must be"):
            flows.rational_quadratic_spline(x, bins, bins, slopes, tails=None, bound=(low, high))


@pytest.mark.parametrize("name", ["exp", "project"])
@pytest.mark.parametrize("backward", [False, True])
def test_matrices_that_have_no_result_give_pythons_nan_alone(core, name, backward):
    """Zero, singular, NaN, infinite, of 1e300 and of 1e-300 among sound ones, in every place of a register."""
    random = torch.Generator().manual_seed(5)
    sound = torch.randn(41, 3, 3, dtype=torch.complex128, generator=random)
    seeds = torch.randn(41, 3, 3, dtype=torch.complex128, generator=random)
    X = sound.clone()
    X[3], X[10], X[18], X[27] = 0, torch.diag(torch.tensor([1.0, 1.0, 0.0])), NAN, INF
    X[33], X[36] = X[33] * 1e300, X[36] * 1e-300
    odd = [3, 10, 18, 27, 33, 36]
    operator = getattr(torch.ops.hepops, f"_lattice_{name}{'_backward' if backward else ''}")
    before = [seeds] if backward else []
    found, alone = torch.empty_like(X), torch.empty_like(X)
    core.call(f"su3_{name}{'_backward' if backward else ''}", 41, *before, X, found)
    core.call(f"su3_{name}{'_backward' if backward else ''}", 41, *before, sound, alone)
    expected = operator(*before, X)
    none, theirs = found.isnan().any(-1).any(-1), expected.isnan().any(-1).any(-1)
    assert torch.equal(none, theirs)
    assert none[18] and none[27] and none[33] and (name == "exp" or none[3]), "as c_api.h says"
    assert_close(found[~none], expected[~none], rtol=1e-12, atol=1e-12)
    others = [k for k in range(41) if k not in odd]
    assert torch.equal(found[others], alone[others]) and not none[others].any()


def test_coefficients_of_staples(core):
    links = torch.eye(3, dtype=torch.complex128).expand(2, 2, 2, 3, 3).contiguous()
    for c, word in (((NAN, 0.0), "c0 must be finite, got nan"), ((1.0, INF), "c1 must be finite, got inf")):
        values = [ctypes.c_double(x) for x in c]
        refused(lambda v=values: core.call("su3_staples", 2, torch.tensor([2, 2]), *v, links, links.clone()), word)


@pytest.mark.parametrize("value", [NAN, -1.0])
def test_parameters_of_the_laws(core, value):
    """Each by its name, as Python's functions refuse them."""
    x, out = numbers(1) + 1, numbers(1)
    in_python = {"birks_a": "A", "birks_k": "k", "efield": "field", "box_alpha": "alpha", "box_beta": "beta",
                 "ellipsoid_ratio": "ratio"}  # fmt: skip
    laws = {
        recombine: ("birks_a", "birks_k", "box_alpha", "box_beta", "ellipsoid_ratio", "efield", "density"),
        drift: ("lifetime", "efield", "transverse_diffusion", "longitudinal_diffusion", "temperature"),
    }
    for law, names in laws.items():
        for name in names:
            p = core.config().parameters
            setattr(p, name, value)
            call = ("recombine", ctypes.byref(p), 0, 1, x, None, out)
            if law is drift:
                call = ("drift", ctypes.byref(p), 1, x, out, None, None, None)
            refused(lambda call=call: core.call(*call), f"{name} must", f"got {value:g}")
            with pytest.raises(ValueError, match="must"):
                law(x, **{in_python.get(name, name): value})


def test_sizes_whose_product_wraps(core):
    one = numbers(18)
    s = capi.Spline(6, 2, 0, 0.0, 1.0, 0)
    refused(
        lambda: core.call("spline_f64", ctypes.byref(s), HUGE // 4, *[one] * 6), "count must be", f"got {HUGE // 4}"
    )
    refused(lambda: core.call("su3_exp", HUGE // 9, one, one), "count must be 0 to", f"got {HUGE // 9}")
    made, columns = ctypes.c_void_p(), [torch.zeros(1, dtype=torch.int64)] * 3
    core.call("map_create", 1, *columns, 1, 1, 1 << 20, ctypes.byref(made))
    x = torch.zeros(4)
    for sizes, word in (
        ((1 << 40, 1), f"in must be 1 to 2^24, got {1 << 40}"),
        ((1, 1 << 40), f"out must be 1 to 2^24, got {1 << 40}"),
        ((1 << 23, 1 << 22), "weight of 1048576 x 8388608 x 4194304 numbers"),
    ):
        refused(lambda sizes=sizes: core.call("convolve", made, *sizes, x, x, None, x), word)
        refused(lambda sizes=sizes: core.call("convolve_backward", made, *sizes, x, x, x, x, x, None), word)
    core.c.hepops_map_destroy(made)


def test_volumes_and_tables_that_are_none(core):
    def volume(**changes):
        config = core.config(module0=True)
        tpc = capi.TPC.from_buffer_copy(config.tpcs[0])
        for name, value in changes.items():
            setattr(tpc, name, value)
        config.tpcs, config.num_tpcs = ctypes.pointer(tpc), 1
        return lambda: core.simulator(config)

    refused(volume(anode=NAN), "anode of TPC 0 must lie in", "got nan")
    refused(volume(cathode=1e300), "cathode of TPC 0", "got 1e+300")
    refused(volume(z=(ctypes.c_double * 2)(0, INF)), "z[1] of TPC 0", "got inf")
    refused(volume(nx=HUGE), f"nx of TPC 0 must be 1 to 2^24, got {HUGE}")
    refused(volume(ny=0), "ny of TPC 0", "got 0")
    config = core.config(module0=True)
    config.num_tpcs = HUGE
    refused(lambda: core.simulator(config), "num_tpcs must be", f"got {HUGE}")

    current = numbers(4)
    sound = {"current": current.data_ptr(), "bins_x": 2, "bins_y": 2, "ticks": 1, "tick": 0.1, "velocity": 0.16,
             "bins": 2, "drift_length": 0.0}  # fmt: skip
    for name, value, word in (
        ("bins_x", 1 << 62, "bins_x must be 1 to 32768"),
        ("ticks", HUGE, "ticks must be 1 to 16777216"),
        ("tick", INF, "tick must be positive [us], got inf"),
        ("velocity", INF, "velocity must be positive [cm/us], got inf"),
        ("drift_length", INF, "drift_length must not be negative [cm], got inf"),
    ):
        config = core.config(module0=True)
        config.table = ctypes.pointer(capi.Table(*(sound | {name: value}).values()))
        refused(lambda config=config: core.simulator(config), f"table: {word}")
