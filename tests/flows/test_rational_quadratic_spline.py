import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from core.contract import Contract, assert_same_bits
from hepops import _core
from hepops.core.libraries import DIRECTORY
from hepops.flows import Spline
from hepops.flows._spline_formula import formula
from hepops.flows.functional import rational_quadratic_spline, rational_quadratic_spline_packed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

KINDS = [(t, c) for t in ("linear", "circular", None) for c in ("nflows", "zuko")]
SLOPES = {"linear": -1, "circular": 0, None: 1}


def draw(size, K, tails="linear", **at):
    """x and parameters; away from the ends of the domain, where the derivative of logdet jumps"""
    size = (size,) if isinstance(size, int) else size
    x = torch.randn(*size, **at) if tails == "linear" else 0.9 * torch.tanh(torch.randn(*size, **at))
    return x, *(torch.randn(*size, n, **at) for n in (K, K, K + SLOPES[tails]))


class TestRationalQuadraticSpline(Contract):
    op = torch.ops.hepops.flows_rational_quadratic_spline.default
    public = rational_quadratic_spline
    twice = True
    keywords = {"bound": 1.5}  # noqa: RUF012
    numbers = (-1.5, 1.5, 4, 0, 0, False)

    def function(self, *args):
        return rational_quadratic_spline(*args, **self.keywords)

    def reference(self, *args):
        return formula(*args, **self.keywords)

    def sample(self, size, **at):
        return draw(size, 4, self.keywords.get("tails", "linear"), **at)

    def operands(self, args):
        return *args, None, None, *self.numbers

    @staticmethod
    def rounding(dtype):
        """Sums of terms that are many times their sum. In float64 the reference is rounded as often; in float32 the
        gradient of the inverse direction is that at x as it is returned, rounded."""
        times = 1024 if dtype == torch.float32 else 4096
        return {"rtol": times * torch.finfo(dtype).eps, "atol": 4 * times * torch.finfo(dtype).eps}


class TestInverseOnACircle(TestRationalQuadraticSpline):
    sizes = (0, 1, 15)
    test_second_derivatives = None  # below, of every kind
    keywords = {"bound": 1.0, "tails": "circular", "convention": "zuko", "inverse": True}  # noqa: RUF012
    numbers = (-1.0, 1.0, 4, 1, 1, True)


class TestPacked(TestRationalQuadraticSpline):
    """Widths, heights and slopes behind each other in one tensor."""

    sizes = (0, 1, 15)
    test_second_derivatives = None
    keywords = {"tails": None, "bound": (-1.0, 1.0), "inverse": True}  # noqa: RUF012
    numbers = (-1.0, 1.0, 4, 2, 0, True)

    def function(self, x, raw):
        return rational_quadratic_spline_packed(x, raw, bins=4, **self.keywords)

    def reference(self, x, raw):
        return formula(x, raw[..., :4], raw[..., 4:8], raw[..., 8:], **self.keywords)

    def sample(self, size, **at):
        x, *raw = draw(size, 4, None, **at)
        return x, torch.cat(raw, -1)

    def operands(self, args):
        x, raw = args
        return x, raw, None, None, None, None, *self.numbers


def with_gradients(function, x, *raw):
    """Outputs, and the gradients of a sum of them with the weights 1, 2, 3 ... and 1, -1, 1 ..."""
    arguments = [t.detach().requires_grad_() for t in (x, *raw)]
    y, logdet = function(*arguments)
    n = torch.arange(y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
    return (y, logdet, *torch.autograd.grad((y * (1 + n % 3) + logdet * (1 - 2 * (n % 2))).sum(), arguments))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("tails", "convention"), KINDS)
@pytest.mark.parametrize("K", [1, 2, 5, 8, 10, 16, 32, 50])
def test_any_number_of_bins(K, tails, convention, inverse, device):
    args = draw(37, K, tails, dtype=torch.float64, device=device)
    keywords = {"tails": tails, "convention": convention, "inverse": inverse, "bound": 1.0}
    ours, theirs = (
        with_gradients(lambda *a, f=f: f(*a, **keywords), *args) for f in (rational_quadratic_spline, formula)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("tails", "convention"), KINDS)
def test_second_derivatives_of_both_directions(tails, convention):
    x, *raw = draw(3, 2, tails, dtype=torch.float64)
    args = [t.requires_grad_() for t in (x, torch.cat(raw, -1))]
    for inverse in (False, True):

        def function(*a, inverse=inverse):
            keywords = {"tails": tails, "convention": convention, "inverse": inverse, "bound": 1.0}
            return rational_quadratic_spline_packed(*a, bins=2, **keywords)

        assert torch.autograd.gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("K", [4, 8, 10])
def test_channels_first_is_read_as_it_lies(K, device, dtype):
    """(N, C K', H, W) of a convolution, and x of its own strides: the bits of contiguous tensors."""
    N, C, H, W, K3 = 2, 3, 5, 7, 3 * K - 1
    raw = torch.randn(N, C * K3, H, W, device=device, dtype=dtype).view(N, C, K3, H, W).movedim(2, -1)
    x = torch.randn(N, H, W, C, device=device, dtype=dtype).permute(0, 3, 1, 2)
    assert not raw.is_contiguous() and not x.is_contiguous()

    def packed(x, raw):
        return rational_quadratic_spline_packed(x, raw, bins=K)

    def parts(x, raw):
        return rational_quadratic_spline(x, raw[..., :K], raw[..., K : 2 * K], raw[..., 2 * K :])

    ours = with_gradients(packed, x, raw)
    for others in (with_gradients(packed, x.contiguous(), raw.contiguous()), with_gradients(parts, x, raw)):
        for a, b in zip(ours, others, strict=True):
            assert_same_bits(a, b)


def test_dimensions_that_do_not_merge(device):
    """More of them than the kernel walks over: a copy, and the same numbers."""
    sizes = (2, 1, 3, 2, 2, 3, 2, 2)
    x, raw = torch.randn(*sizes, device=device), torch.randn(*sizes, 11, device=device)
    order = (7, 1, 5, 3, 4, 2, 6, 0)
    a, b = x.permute(order), raw.permute(*order, 8)
    ours = rational_quadratic_spline_packed(a, b, bins=4)
    theirs = rational_quadratic_spline_packed(a.contiguous(), b.contiguous(), bins=4)
    for p, q in zip(ours, theirs, strict=True):
        assert_same_bits(p, q)


def test_parameters_that_elements_share(device):
    """Their gradient is the sum over the elements."""
    x, raw = (
        torch.randn(6, 5, dtype=torch.float64, device=device),
        torch.randn(5, 11, dtype=torch.float64, device=device),
    )

    def function(x, raw):
        return rational_quadratic_spline_packed(x, raw, bins=4)

    ours = with_gradients(function, x, raw)
    theirs = with_gradients(lambda x, raw: function(x, raw.expand(6, 5, 11).contiguous()), x, raw)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-13, atol=1e-13)
    wide = rational_quadratic_spline(x[0, 0], *(p[:, None] for p in raw.split([4, 4, 3], -1)))
    assert wide[0].shape == (5, 1)


@pytest.mark.parametrize("tails", ["linear", "circular", None])
def test_a_domain_of_each_element(tails, device, dtype):
    x, *raw = draw((7, 3), 5, tails, device=device, dtype=dtype)
    low = -1 - torch.rand(3, device=device, dtype=dtype)
    high = 1 + torch.rand(7, 1, device=device, dtype=dtype)
    for inverse in (False, True):
        y, logdet = rational_quadratic_spline(x, *raw, tails=tails, bound=(low, high), inverse=inverse)
        for i in range(7):
            for j in range(3):
                one = rational_quadratic_spline(
                    x[i, j],
                    *(p[i, j] for p in raw),
                    tails=tails,
                    bound=(low[j].item(), high[i, 0].item()),
                    inverse=inverse,
                )
                assert_same_bits(torch.stack(one), torch.stack([y[i, j], logdet[i, j]]))
    half = rational_quadratic_spline(x, *raw, tails=tails, bound=high)
    assert_same_bits(half[0], rational_quadratic_spline(x, *raw, tails=tails, bound=(-high, high))[0])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_parameters_of_half_precision(kind, device):
    """Read as they are, computed in double; their gradient is rounded to them."""
    x, *raw = draw(50, 8, device=device)
    raw = [p.to(kind) for p in raw]
    function = rational_quadratic_spline
    ours, theirs = with_gradients(function, x, *raw), with_gradients(function, x, *(p.float() for p in raw))
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        assert_same_bits(a, b)
    for a, b in zip(ours[3:], theirs[3:], strict=True):
        assert a.dtype == kind
        assert_same_bits(a, b.to(kind))


def test_double_x_with_single_parameters(device):
    x, *raw = draw(50, 8, device=device)
    ours = with_gradients(rational_quadratic_spline, x.double(), *raw)
    theirs = with_gradients(rational_quadratic_spline, x.double(), *(p.double() for p in raw))
    for a, b in zip(ours, theirs, strict=True):
        assert_same_bits(a, b.to(a.dtype))


def test_autocast(device):
    """A network's halves are the parameters; x stays single, or is made so."""
    layer = torch.nn.Linear(3, 11).to(device)
    x, context = torch.randn(20, device=device), torch.randn(20, 3, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        raw = layer(context)
        y, logdet = rational_quadratic_spline_packed(x, raw, bins=4)
        again, _ = rational_quadratic_spline_packed(x.bfloat16(), raw, bins=4)
        (y.square().mean() - logdet.mean()).backward()
    assert raw.dtype == torch.bfloat16 and y.dtype == again.dtype == torch.float32
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.any()
    with pytest.raises(TypeError, match="must be float32 or float64"):
        rational_quadratic_spline_packed(x.bfloat16(), raw, bins=4)


def test_compiled_for_any_batch():
    def function(x, raw):
        y, logdet = rational_quadratic_spline_packed(x.sin(), raw, bins=4, tails="circular")
        return y * 2, logdet.sum()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (3, 21):
        x, raw = torch.randn(n, requires_grad=True), torch.randn(n, 12, requires_grad=True)
        ours, theirs = compiled(x, raw), function(x, raw)
        slopes = [torch.autograd.grad(a.sum() + b, (x, raw)) for a, b in (ours, theirs)]
        for a, b in zip([*ours, *slopes[0]], [*theirs, *slopes[1]], strict=True):
            assert_close(a, b)


def test_transforms_of_torch_func():
    """vmap of the function and of its gradient, and the second derivative."""
    x, raw = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 11, dtype=torch.float64)

    def log_prob(raw, x, f):
        y, logdet = f(x, raw[:4], raw[4:8], raw[8:])
        return (logdet - y * y / 2).sum()

    pairs = []
    for f in (rational_quadratic_spline, formula):
        values = torch.vmap(lambda r, x, f=f: log_prob(r, x, f))(raw, x)
        slopes = torch.vmap(torch.func.grad(lambda r, x, f=f: log_prob(r, x, f)))(raw, x)
        shared = torch.vmap(torch.func.grad(lambda r, x, f=f: log_prob(r, x, f)), (None, 0))(raw[0], x)
        curvature = torch.func.jacrev(torch.func.grad(lambda r, f=f: log_prob(r, x[0], f)))(raw[0])
        hessian = torch.func.hessian(lambda r, f=f: log_prob(r, x[0], f))(raw[0])
        forward = torch.func.jacfwd(lambda r, f=f: log_prob(r, x[0], f))(raw[0])
        pairs.append((values, slopes, shared, curvature, hessian, forward))
    for a, b in zip(*pairs, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_backward_keeps_the_inputs_alone():
    """x and the 23 parameters: 96 bytes an element."""
    x, raw = torch.randn(100, requires_grad=True), torch.randn(100, 23, requires_grad=True)
    kept = {}

    def pack(t):
        kept[t.data_ptr()] = t.nbytes
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        rational_quadratic_spline_packed(x, raw, bins=8)
    assert sum(kept.values()) == 100 * 96


def test_elementwise_spline_begins_at_the_identity(device):
    for tails, convention in KINDS:
        spline = Spline(6, tails=tails, convention=convention, bound=1.0 if tails is None else None)
        x = torch.linspace(-1, 1, 9, device=device)
        y, logdet = spline.forward(x, spline.identity().to(device).expand(9, spline.size))
        assert_close(y, x, rtol=0, atol=1e-6)
        assert_close(logdet, torch.zeros_like(x), rtol=0, atol=1e-6)


EXTREME = [0.0, -0.0, 1e-45, -1e-40, 1e-8, 1.0, -1.0, 5.0, -30.0, 88.0, 1e4, -1e4, 1e30, -3e38]
numbers = st.one_of(st.sampled_from(EXTREME), st.floats(-10, 10, width=32))


@given(
    data=st.data(),
    K=st.sampled_from([1, 3, 8]),
    kind=st.sampled_from(KINDS),
    bound=st.sampled_from([1e-3, 1.0, 5.0, 1e4]),
)
def test_every_finite_input(data, K, kind, bound):
    """Values in the domain, an inverse as near as float32 can say, no exception."""
    tails, convention = kind
    n = 9
    raw = torch.from_numpy(data.draw(arrays(np.float32, (n, 3 * K + SLOPES[tails]), elements=numbers)))
    x = torch.from_numpy(data.draw(arrays(np.float32, n, elements=numbers))) * (bound / 5)
    x = x.clamp(-3e38, 3e38)
    if tails is None:
        x = x.clamp(-bound, bound)
    keywords = {"bins": K, "tails": tails, "convention": convention, "bound": bound}
    bound = float(np.float32(bound))
    ulp = float(np.spacing(np.float32(bound)))
    y, logdet = rational_quadratic_spline_packed(x, raw, **keywords)
    exact, _ = rational_quadratic_spline_packed(x.double(), raw.double(), **{**keywords, "bound": bound})
    assert y.isfinite().all() and logdet.isfinite().all()
    inside = x.abs() <= bound
    assert (y.abs() <= bound)[inside].all()
    if tails == "linear":
        assert_same_bits(y[~inside], x[~inside])
        assert not logdet[~inside].any()
    else:
        assert (y.abs() <= bound).all()
    assert ((y - exact).abs() <= 2 * ulp)[inside].all()
    back, slope = rational_quadratic_spline_packed(y, raw, inverse=True, **keywords)
    assert back.isfinite().all() and slope.isfinite().all()
    again, there = rational_quadratic_spline_packed(back.double(), raw.double(), **{**keywords, "bound": bound})
    steepness = there.exp()
    assert ((again - y).abs() <= 2 * ulp * steepness.clamp(min=1))[inside].all()
    assert ((slope + there).abs() <= 1e-4)[inside].all()


def test_on_the_knots(device):
    """float32 knots, and their neighbours, in both directions."""
    raw = torch.randn(40, 1, 23, device=device)
    share = 1e-3 + (1 - 8e-3) * raw[..., :8].double().softmax(-1)
    knots = (-5 + 10 * share.cumsum(-1)[:, 0, :7]).float()
    for x in (
        knots,
        knots.nextafter(torch.tensor(9.0, device=device)),
        knots.nextafter(torch.tensor(-9.0, device=device)),
    ):
        y, logdet = rational_quadratic_spline_packed(x, raw, bins=8)
        exact = rational_quadratic_spline_packed(x.double(), raw.double(), bins=8)
        assert_close(y.double(), exact[0], rtol=0, atol=4.8e-7)
        assert_close(logdet.double(), exact[1], rtol=0, atol=1e-6)
        back, slope = rational_quadratic_spline_packed(y, raw, bins=8, inverse=True)
        assert_close(slope, -rational_quadratic_spline_packed(back, raw, bins=8)[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bound", "tails"), [(5.0, "linear"), ((-1.0, 2.5), None), (math.pi, "circular")])
def test_ends_of_the_domain(bound, tails, device, dtype):
    """They are mapped onto themselves, to the bit; circular ones are not wrapped."""
    low, high = bound if isinstance(bound, tuple) else (-bound, bound)
    ends = torch.tensor([low, high], device=device, dtype=dtype)
    raw = torch.randn(2, 16 + 8 + SLOPES[tails], device=device, dtype=dtype)
    for inverse in (False, True):
        y, logdet = rational_quadratic_spline_packed(ends, raw, bins=8, tails=tails, bound=bound, inverse=inverse)
        assert_same_bits(y, ends)
        if tails == "linear":
            assert_close(logdet, torch.zeros_like(y), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)


def test_a_circle_closes(device):
    """x and x + period have one image, however far."""
    x, raw = (
        0.9 * torch.randn(30, device=device, dtype=torch.float64).tanh() * math.pi,
        torch.randn(30, 24, device=device),
    )
    y, logdet = rational_quadratic_spline_packed(x, raw, bins=8, tails="circular")
    for turns in (-1, 1, 1000):
        far = rational_quadratic_spline_packed(x + 2 * math.pi * turns, raw, bins=8, tails="circular")
        assert_close(far[0], y, rtol=0, atol=1e-9)
        assert_close(far[1], logdet, rtol=0, atol=1e-8)
    huge = rational_quadratic_spline_packed(torch.full_like(x, 1e300), raw, bins=8, tails="circular")[0]
    assert (huge.abs() <= math.pi).all()


@pytest.mark.parametrize("inverse", [False, True])
def test_what_is_no_number(inverse, device, dtype):
    inf, nan = math.inf, math.nan
    x = torch.tensor([nan, inf, -inf, 7.0, 0.5], device=device, dtype=dtype)
    raw = torch.randn(5, 12, device=device, dtype=dtype)

    def at(tails):
        size = 8 + 4 + SLOPES[tails]
        wide = torch.cat([raw, raw[:, :1]], -1)[:, :size]
        return rational_quadratic_spline_packed(x, wide, bins=4, tails=tails, bound=5.0, inverse=inverse)

    y, logdet = at("linear")
    assert y[0].isnan() and logdet[0].isnan()
    assert_same_bits(y[1:4], x[1:4])
    assert not logdet[1:4].any() and y[4].isfinite()
    y, logdet = at(None)
    assert y[:4].isnan().all() and logdet[:4].isnan().all() and y[4].isfinite()
    y, logdet = at("circular")
    assert y[:3].isnan().all() and logdet[:3].isnan().all() and y[3:].isfinite().all()
    for place in (0, 5):  # a width, a height
        for bad in (nan, inf):
            spoilt = raw[:, :11].clone()
            spoilt[4, place] = bad
            y, logdet = rational_quadratic_spline_packed(x, spoilt, bins=4, inverse=inverse)
            assert y[4].isnan() and logdet[4].isnan()
    spoilt = raw[:, :11].clone()
    spoilt[:, 8:] = nan  # slopes
    y, logdet = rational_quadratic_spline_packed(x, spoilt, bins=4, inverse=inverse)
    assert y[4].isnan() and logdet[4].isnan() and y[3] == 7


def test_refuses_what_does_not_go_together():
    x, widths, heights, slopes = draw(6, 5)

    def refused(kind, match, *args, f=rational_quadratic_spline, **keywords):
        with pytest.raises(kind, match=match):
            f(*args, **keywords)

    refused(ValueError, r"heights has shape \(6, 4\), expected \(..., 5\)", x, widths, heights[:, :4], slopes)
    refused(ValueError, r"slopes has shape \(6, 5\), expected \(..., 4\): K - 1", x, widths, heights, heights)
    refused(ValueError, r"\(..., 5\): K with circular", x, widths, heights, slopes, tails="circular")
    refused(ValueError, r"\(..., 6\): K \+ 1 without", x, widths, heights, slopes, tails=None)
    refused(ValueError, r"widths must have at least 1 bin", x, widths[:, :0], heights, slopes)
    refused(ValueError, r"x has shape \(6,\), which does not broadcast with \(5,\)", x, widths[:5], heights, slopes)
    refused(ValueError, r"tails must be .* got 'round'", x, widths, heights, slopes, tails="round")
    refused(ValueError, r"convention must be .* got 'mine'", x, widths, heights, slopes, convention="mine")
    refused(ValueError, r"bound must be positive and finite, got -1", x, widths, heights, slopes, bound=-1.0)
    refused(ValueError, r"bound must be positive and finite, got nan", x, widths, heights, slopes, bound=math.nan)
    refused(ValueError, r"low below high, got \(1.0, 0.0\)", x, widths, heights, slopes, bound=(1.0, 0.0))
    refused(ValueError, "bound has no gradient", x, widths, heights, slopes, bound=torch.ones(1, requires_grad=True))
    refused(TypeError, "widths has dtype Double where x has Float", x, *(p.double() for p in (widths, heights, slopes)))
    refused(TypeError, "heights has dtype", x, widths, heights.half(), slopes)
    wide = torch.zeros(6, 1000)
    refused(ValueError, "1000 bins of a width of at least 1/1000", x, wide, wide, wide[:, 1:])
    rational_quadratic_spline(x, wide, wide, wide[:, 1:], convention="zuko")
    packed = rational_quadratic_spline_packed
    refused(ValueError, r"raw has shape \(6, 5\), expected \(..., 14\)", x, widths, f=packed, bins=5)
    refused(ValueError, "bins must be at least 1, got 0", x, widths, f=packed, bins=0)


CHILD = """
import hashlib, torch
from hepops.flows.functional import rational_quadratic_spline_packed as spline
torch.manual_seed(0)
x, raw = torch.randn(1000, dtype=torch.float64), torch.randn(1000, 23, dtype=torch.float64)
raw.requires_grad_()
y, logdet = spline(x, raw, bins=8)
back = spline(y, raw, bins=8, inverse=True)[0]
(y.sum() + logdet.sum()).backward()
print(*(t.detach().double().sum().item() for t in (y, logdet, back, raw.grad.abs())))
print(((back - x).abs() * logdet.exp().clamp(max=1)).max().item())
"""


def test_cpu_levels_agree():
    """To rounding: a level without fused multiply-add rounds twice."""
    levels = sorted(path.stem.removeprefix("libhepops_cpu_") for path in DIRECTORY.glob("libhepops_cpu_*.so"))
    levels = [level for level in levels if level <= _core.cpu_level()]
    if len(levels) < 2:
        pytest.skip(f"built for {levels} alone")
    results = []
    for level in levels:
        environment = {**os.environ, "HEPOPS_CPU_LEVEL": level}
        run = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=True)
        sums, error = run.stdout.splitlines()
        assert float(error) < 1e-14  # |x' - x| min(1, dy/dx): some ulp(5), as y is rounded
        results.append(np.array(sums.split(), dtype=float))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-12)


@pytest.mark.parametrize(
    "bound, error, message",
    [
        ([-1, 1], TypeError, r"bound must be of numbers or tensors, got \[-1, 1\]"),
        ((1.0, 2.0, 3.0), ValueError, r"bound must be a number or a pair \(low, high\)"),
        (1e39, ValueError, "bound must be a domain of float32 numbers"),
        ((1e8, 1e8 + 1), ValueError, "bound must be a domain of float32 numbers"),
    ],
)
def test_refuses_what_is_no_domain(bound, error, message):
    logits = torch.zeros(4)
    with pytest.raises(error, match=message):
        rational_quadratic_spline(torch.zeros(2), logits, logits, logits[:3], bound=bound)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_end_that_is_not_finite_is_no_identity(bad, device):
    x, logits = torch.zeros(2, device=device), torch.zeros(4, device=device)
    bound = torch.tensor([bad, 1.0], device=device)
    for inverse in (False, True):
        y, logdet = rational_quadratic_spline(x, logits, logits, logits[:3], bound=bound, inverse=inverse)
        assert y.isnan().tolist() == logdet.isnan().tolist() == [True, False]


@pytest.mark.parametrize("options", [{"bins": 1000}, {"bins": 0}, {"bound": -1.0}, {"tails": "x"}, {"convention": "x"}])
def test_elementwise_spline_refuses_when_it_is_made(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Spline(**options)
