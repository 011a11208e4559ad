import pytest
import torch
from core.contract import Contract, assert_same_bits, differentiable
from hepops.sparse import moments, norm_act
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close


def plain(x, weight, bias, mean, variance, residual, eps, slope):
    if mean is None:
        mean = x.sum(0) / max(len(x), 1)
        variance = ((x - mean) ** 2).sum(0) / max(len(x), 1)
    z = (x - mean) * (variance + eps).rsqrt()
    z = z if weight is None else z * weight
    z = z if bias is None else z + bias
    y = torch.where(z > 0, z, slope * z)
    return y if residual is None else y + residual


class NormContract:
    op = torch.ops.hepops.sparse_norm_act.default
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = "must be float16, bfloat16, float32 or float64"
    public = staticmethod(norm_act)
    reference = staticmethod(plain)

    @pytest.fixture(autouse=True)
    def _compile_afresh(self):
        """The contracts share one function, whose compilations torch counts."""
        torch._dynamo.reset()

    @staticmethod
    def function(x, weight, bias, mean, variance, residual, eps, slope):
        return norm_act(x, weight, bias, mean=mean, variance=variance, residual=residual, eps=eps, slope=slope)

    def operands(self, args):
        x, weight, bias, mean, variance, residual, eps, slope = args
        through = mean is None
        if through:
            mean, variance = (m.detach() for m in moments(x.detach()))
        return x, mean, variance, weight, bias, residual, eps, slope, through

    @staticmethod
    def rounding(dtype):
        """Sums of 300 terms of order 1 in double, and the scale of one row's norm, 1 / sqrt(eps) = 32."""
        eps = torch.finfo(dtype).eps
        return {"rtol": 64 * eps, "atol": 128 * eps}


class TestBatchStatistics(NormContract, Contract):
    @staticmethod
    def sample(size, **at):
        weight, bias = torch.rand(3, **at) + 0.5, torch.randn(3, **at)
        return torch.randn(size, 3, **at), weight, bias, None, None, torch.randn(size, 3, **at), 1e-3, 0.33


class TestBatchStatisticsAlone(NormContract, Contract):
    @staticmethod
    def sample(size, **at):
        return torch.randn(size, 3, **at), None, None, None, None, None, 1e-3, 1.0


class TestConstants(NormContract, Contract):
    @staticmethod
    def sample(size, **at):
        weight, bias, mean = torch.rand(3, **at) + 0.5, torch.randn(3, **at), torch.randn(3, **at)
        return torch.randn(size, 3, **at), weight, bias, mean, torch.rand(3, **at) + 0.2, None, 1e-3, 0.0


def both_ways(function, x, *arguments):
    x = x.detach().requires_grad_()
    y = function(x, *arguments)
    torch.manual_seed(2)
    seed = torch.randn_like(y, dtype=torch.float32).bfloat16()  # that every dtype can hold
    return y.detach(), torch.autograd.grad(y, x, seed.to(y))[0]


@pytest.mark.parametrize("channels", [1, 2, 5, 31, 32, 33, 47, 64, 100, 600])
@pytest.mark.parametrize("through", [True, False])
def test_any_number_of_channels_and_rows(device, channels, through):
    weight, bias = torch.rand(channels, device=device) + 0.5, torch.randn(channels, device=device)
    given = (None, None) if through else (weight.double() - 1, bias.double() ** 2)
    for rows in (2, 7, 63, 64, 65, 257, 700):
        x = torch.randn(rows, channels, device=device, dtype=torch.float64)
        arguments = weight.double(), bias.double(), *given, None, 1e-3, 0.2
        ours, theirs = (both_ways(f, x, *arguments) for f in (NormContract.function, plain))
        assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 32, 47])
def test_halves_are_computed_in_float32_and_rounded_once(device, kind, channels):
    weight, bias = torch.rand(channels, device=device) + 0.5, torch.randn(channels, device=device)
    x, r = (torch.randn(700, channels, device=device).to(kind) for _ in range(2))
    ours = both_ways(NormContract.function, x, weight, bias, None, None, r, 1e-3, 0.2)
    theirs = both_ways(plain, x.double(), weight.double(), bias.double(), None, None, r.double(), 1e-3, 0.2)
    for a, b in zip(ours, theirs, strict=True):  # half a step of the dtype, and float32's rounding
        assert_close(a.double(), b, rtol=0.51 * torch.finfo(kind).eps, atol=2e-6)


def test_a_mean_far_beyond_the_spread_costs_no_digits(device):
    """x - mean is taken about the mean as float32 holds it, and the rest of the mean is in the shift."""
    x = (torch.randn(1000, 33, device=device, dtype=torch.float64) + 3e4).float()
    ours = both_ways(NormContract.function, x, None, None, None, None, None, 1e-3, 0.2)
    theirs = both_ways(plain, x.double(), None, None, None, None, None, 1e-3, 0.2)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.double(), b, rtol=1e-6, atol=1e-6)


def test_agrees_with_torch(device, dtype):
    """Batch norm and leaky ReLU of torch, in training and in evaluation."""
    x, weight, bias = (torch.randn(s, device=device, dtype=dtype) for s in ((500, 32), (32,), (32,)))
    mean, variance = torch.randn(32, device=device, dtype=dtype), torch.rand(32, device=device, dtype=dtype)
    for training in (True, False):
        norm = torch.nn.functional.batch_norm(x, mean.clone(), variance.clone(), weight, bias, training, eps=1e-4)
        given = {} if training else {"mean": mean, "variance": variance}
        ours = norm_act(x, weight, bias, eps=1e-4, slope=0.33, **given)
        assert_close(ours, torch.nn.functional.leaky_relu(norm, 0.33), rtol=1e-5, atol=1e-5)


def test_moments_from_elsewhere_are_gone_through(device):
    """As a convolution gives them: the same bits as without."""
    x, weight = torch.randn(1000, 8, device=device), torch.rand(8, device=device)
    mean, variance = moments(x)
    given = {"mean": mean, "variance": variance, "through": True}
    ours = both_ways(lambda x: norm_act(x, weight, slope=0.1, **given), x)
    assert_same_bits(ours, both_ways(lambda x: norm_act(x, weight, slope=0.1), x))


def test_moments_with_a_graph_give_the_same_gradient(device):
    """Two ways for one derivative: through, or constants that know where they come from."""
    x = torch.randn(300, 8, device=device, dtype=torch.float64)

    def apart(x):
        mean, variance = moments(x)
        return norm_act(x, mean=mean, variance=variance, slope=0.1)

    assert_close(both_ways(apart, x), both_ways(lambda x: norm_act(x, slope=0.1), x), rtol=1e-12, atol=1e-12)


def test_the_gradient_has_no_component_that_the_norm_removes(device):
    """Adding a constant to a column, or scaling its deviations, changes nothing (but for eps)."""
    x = torch.randn(400, 6, device=device, dtype=torch.float64)
    _, grad = both_ways(lambda x: norm_act(x, eps=0.0, slope=0.2), x)
    assert_close(grad.sum(0), torch.zeros(6, device=device, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_close((grad * x).sum(0), torch.zeros(6, device=device, dtype=torch.float64), rtol=0, atol=1e-11)


def test_one_row_is_its_bias(device, dtype):
    x, bias = torch.randn(1, 5, device=device, dtype=dtype), torch.randn(5, device=device, dtype=dtype)
    y, grad = both_ways(lambda x: norm_act(x, None, bias), x)
    assert_same_bits(y[0], bias)
    assert_same_bits(grad, torch.zeros_like(x))


def test_at_zero_the_slope_is_the_leak(device):
    x = torch.tensor([[0.0], [1.0], [-1.0]], device=device)
    constants = {"mean": torch.zeros(1, device=device), "variance": torch.ones(1, device=device)}
    y, _ = both_ways(lambda x: norm_act(x, eps=0.0, slope=0.25, **constants), x)
    assert y.flatten().tolist() == [0, 1, -0.25]
    x.requires_grad_()
    norm_act(x, eps=0.0, slope=0.25, **constants).sum().backward()
    assert x.grad.flatten().tolist() == [0.25, 1, 0.25]


def test_a_nan_stays_in_its_column(device):
    x = torch.randn(500, 3, device=device)
    x[7, 1] = float("nan")
    y = norm_act(x, slope=0.0)
    assert y.isnan().all(0).tolist() == [False, True, False]
    assert y.isnan().any(0).tolist() == [False, True, False]


def test_two_halves_of_the_rows_make_the_whole(device):
    """What ranks do that share a batch: sums of each, added in one order."""
    ops = torch.ops.hepops
    x, grad = (torch.randn(600, 9, device=device, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.rand(9, device=device, dtype=torch.float64) for _ in range(2))
    mean, variance = moments(x)
    whole, sums = ops._sparse_norm_act_backward(grad, x, mean, variance, weight, bias, 1e-3, 0.2, True)
    parts = [(x[:250], grad[:250]), (x[250:], grad[250:])]
    columns = mean, variance, weight, bias
    total = sum(ops._sparse_norm_act_sums(g, part, *columns, 1e-3, 0.2) for part, g in parts)
    assert_close(total, sums, rtol=1e-13, atol=1e-13)
    count = torch.tensor([600.0], dtype=torch.float64, device=device)
    ours = [ops._sparse_norm_act_gradient(g, part, *columns, total, count, 1e-3, 0.2) for part, g in parts]
    assert_close(torch.cat(ours), whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("given", [False, True])
def test_third_derivatives(given):
    torch.manual_seed(3)
    x, weight = torch.randn(7, 2, dtype=torch.float64), torch.rand(2, dtype=torch.float64) + 0.5
    constants = {"mean": torch.zeros(2), "variance": torch.ones(2)} if given else {}

    def slope(x, weight):
        y = norm_act(x, weight, slope=0.3, eps=0.1, **constants)
        return torch.autograd.grad((y**3).sum(), x, create_graph=True)[0]

    args = differentiable([x, weight])
    assert gradcheck(slope, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(slope, args, atol=1e-7, rtol=1e-5)  # fourth derivatives of order 100


def test_a_gradient_that_depends_on_the_features_is_counted_once():
    """The composite formula sees the gradient and the features as two inputs, though one is made from the other."""
    args = differentiable([torch.randn(6, 2, dtype=torch.float64)])

    def twice(x):
        return norm_act(norm_act(x, slope=0.2, eps=0.1) * x, slope=0.4, eps=0.1)

    assert gradgradcheck(twice, args, atol=1e-8, rtol=1e-6)


def test_no_channels(device):
    x = torch.zeros(5, 0, device=device, requires_grad=True)
    y = norm_act(x)
    assert y.shape == (5, 0)
    y.sum().backward()
    assert x.grad.shape == (5, 0)


def test_refuses_what_has_no_meaning():
    x, c = torch.rand(5, 3), torch.rand(3)
    with pytest.raises(ValueError, match="mean and variance must both be given"):
        norm_act(x, mean=c)
    with pytest.raises(ValueError, match="through means that mean and variance are given"):
        norm_act(x, through=True)
    with pytest.raises(ValueError, match=r"weight must be \(C\) with C = 3 of the features, got shape \(1, 3\)"):
        norm_act(x, c[None])
    with pytest.raises(ValueError, match=r"bias must be \(C\) with C = 3 of the features, got shape \(2\)"):
        norm_act(x, c, c[:2])
    with pytest.raises(ValueError, match=r"residual has shape \(4, 3\), expected \(5, 3\)"):
        norm_act(x, residual=x[:4])
    with pytest.raises(TypeError, match="residual has dtype Double, expected Float"):
        norm_act(x, residual=x.double())
    with pytest.raises(ValueError, match="eps must not be negative, got -1"):
        norm_act(x, eps=-1.0)
    with pytest.raises(ValueError, match=r"features must be \(N, C\), got shape \(5, 3, 1\)"):
        norm_act(x[..., None])
