import pytest
import torch
from core.contract import Contract
from hepops.sparse import convolve, depthwise
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sparse import plain
from sparse.test_convolve import MAPS


class TestDepthwise(Contract):
    op = torch.ops.hepops.sparse_depthwise.default
    public = staticmethod(depthwise)
    sizes = (0, 1, 15, 60)
    large = 20_000
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"must be float16, bfloat16, float32 or float64"

    @staticmethod
    def function(x, weight, bias, *rest):
        return depthwise(x, weight, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]), bias)

    @staticmethod
    def reference(x, weight, bias, *rest):
        kernel_map = plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0])
        return plain.convolve(x, torch.diag_embed(weight), kernel_map, bias)

    @staticmethod
    def sample(size, **at):
        m = plain.submanifold(size, device=at["device"])
        weights = torch.randn(27, 3, **at) / 4, torch.randn(3, **at)
        lists = *m.forward, *m.backward, plain.triples_tensor(m, at["device"])
        return torch.randn(size, 3, **at), *weights, *lists

    def operands(self, args):
        return *args[:11], False, True

    @staticmethod
    def rounding(dtype):
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 256 * torch.finfo(dtype).eps}


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("flip", [False, True])
def test_is_a_convolution_in_as_many_groups_as_channels(flip, name, index, device, dtype):
    kernel_map = MAPS[name](device=device, index=index)
    x = torch.randn(kernel_map.num_in, 17, device=device, dtype=dtype)
    weight = torch.randn(kernel_map.volume, 17, device=device, dtype=dtype)
    grouped = convolve(x, weight[:, None], kernel_map, flip=flip, groups=17)
    # sums of up to 27 products of order 1
    assert_close(depthwise(x, weight, kernel_map, flip=flip), grouped, rtol=0, atol=64 * torch.finfo(dtype).eps)


def test_closes_under_differentiation(device):
    kernel_map = plain.strided(20, device=device)
    shapes = (20, 3), (8, 3), (3,)
    args = [torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True) for shape in shapes]

    def function(x, weight, bias):
        return depthwise(x, weight, kernel_map, bias, flip=True)

    assert gradcheck(function, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_halves_add_in_single(half, device):
    kernel_map = plain.submanifold(300, device=device)
    x = torch.randn(300, 5, device=device).to(half).requires_grad_()
    weight = torch.randn(27, 5, device=device).requires_grad_()
    y = depthwise(x, weight, kernel_map)
    exact = depthwise(x.double(), weight.double(), kernel_map)
    assert_close(y, exact.to(half), rtol=torch.finfo(half).eps, atol=1e-5)  # rounded once
    seed = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad(out, (x, weight), seed.to(out)) for out in (y, exact))
    assert ours[1].dtype == torch.float32
    assert_close(ours[1], theirs[1].float(), rtol=0, atol=1e-3)  # 300 products, in float32


def test_refuses_what_does_not_match(device):
    m = plain.submanifold(20, device=device)
    x, w = torch.rand(20, 2, device=device), torch.rand(27, 2, device=device)
    with pytest.raises(ValueError, match=r"weight has shape \(27, 2\), expected \(K, 3\)"):
        depthwise(torch.rand(20, 3, device=device), w, m)
    with pytest.raises(TypeError, match="weight has dtype Double where x has Float"):
        depthwise(x, w.double(), m)
    with pytest.raises(ValueError, match="weight has 8 offsets, the kernel map 27"):
        depthwise(x, w[:8], m)
    with pytest.raises(ValueError, match=r"bias has shape \(3\), expected \(2\)"):
        depthwise(x, w, m, torch.rand(3, device=device))
