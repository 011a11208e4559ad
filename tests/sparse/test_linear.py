import pytest
import torch
from core.contract import Contract
from hepops.sparse import linear
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close


class TestLinear(Contract):
    op = torch.ops.hepops.sparse_linear.default
    public = staticmethod(linear)
    sizes = (0, 1, 15, 60)
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"must be float16, bfloat16, float32 or float64"

    @staticmethod
    def function(x, weight, bias):
        return linear(x, weight, bias)

    @staticmethod
    def reference(x, weight, bias):
        return x @ weight + bias

    @staticmethod
    def sample(size, **at):
        return torch.randn(size, 3, **at), torch.randn(3, 5, **at), torch.randn(5, **at)

    def operands(self, args):
        return *args, False

    @staticmethod
    def rounding(dtype):
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("channels", [(1, 1), (40, 70), (129, 3), (16, 64)])
def test_is_a_product_of_matrices(channels, transposed, device, dtype):
    x = torch.randn(700, channels[0], device=device, dtype=dtype, requires_grad=True)
    w = torch.randn(*channels[:: -1 if transposed else 1], device=device, dtype=dtype, requires_grad=True)
    b = torch.randn(channels[1], device=device, dtype=dtype, requires_grad=True)
    y = linear(x, w, b, transposed=transposed)
    exact = x.double() @ (w.double().T if transposed else w.double()) + b.double()
    # sums of up to 129, and of 700, products of order 1
    assert_close(y, exact.to(dtype), rtol=0, atol=256 * torch.finfo(dtype).eps)
    seed = torch.randn_like(y)
    ours = torch.autograd.grad(y, (x, w, b), seed)
    theirs = torch.autograd.grad(exact, (x, w, b), seed.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, rtol=0, atol=1024 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("transposed", [False, True])
def test_closes_under_differentiation(transposed, device):
    shapes = (4, 3), (2, 3) if transposed else (3, 2), (2,)
    args = [torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True) for shape in shapes]

    def function(x, weight, bias):
        return linear(x, weight, bias, transposed=transposed)

    assert gradcheck(function, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_halves_add_in_single(half, device):
    x, w = torch.randn(300, 64, device=device).to(half), torch.randn(64, 33, device=device).to(half)
    exact = (x.double() @ w.double()).to(half)
    assert_close(linear(x, w), exact, rtol=torch.finfo(half).eps, atol=1e-5)  # rounded once


def test_refuses_what_does_not_match(device):
    x, w = torch.rand(4, 3, device=device), torch.rand(3, 2, device=device)
    with pytest.raises(ValueError, match=r"linear: x has 3 channels, a weight of shape \(2, 3\) reads 2"):
        linear(x, w.T)
    with pytest.raises(ValueError, match=r"linear: weight must be \(A, B\), got shape \(1, 3, 2\)"):
        linear(x, w[None])
    with pytest.raises(TypeError, match="linear: weight has dtype Double where x has Float"):
        linear(x, w.double())
    with pytest.raises(ValueError, match=r"linear: bias has shape \(3\), expected \(2\)"):
        linear(x, w, torch.rand(3, device=device))
