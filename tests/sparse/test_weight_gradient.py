import itertools

import pytest
import torch
from core.contract import Contract
from hepops.sparse import weight_gradient
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sparse import plain
from sparse.test_convolve import MAPS


class TestWeightGradient(Contract):
    op = torch.ops.hepops.sparse_weight_gradient.default
    public = staticmethod(weight_gradient)
    sizes = (0, 1, 15, 60)
    large = 20_000
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"must be float16, bfloat16, float32 or float64"

    @staticmethod
    def function(x, grad, *rest):
        return weight_gradient(x, grad, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]))

    @staticmethod
    def reference(x, grad, *rest):
        return plain.weight_gradient(x, grad, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]))

    @staticmethod
    def sample(size, **at):
        m = plain.submanifold(size, device=at["device"])
        triples = plain.triples_tensor(m, at["device"])
        return torch.randn(size, 2, **at), torch.randn(size, 3, **at), *m.forward, *m.backward, triples

    def operands(self, args):
        return *args[:10], 27, False, True, False, 1

    @staticmethod
    def rounding(dtype):
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 256 * torch.finfo(dtype).eps}


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", MAPS)
def test_is_the_sum_over_the_triples(name, index, device, dtype):
    kernel_map = MAPS[name](device=device, index=index)
    for flip, transposed, groups in itertools.product((False, True), (False, True), (1, 2)):
        x = torch.randn(kernel_map.num_in, 6, device=device, dtype=dtype)
        grad = torch.randn(kernel_map.num_out, 10, device=device, dtype=dtype)
        ours = weight_gradient(x, grad, kernel_map, flip=flip, transposed=transposed, groups=groups)
        exact = plain.weight_gradient(x.double(), grad.double(), kernel_map, flip, transposed, groups)
        # sums of 700 products of order 1, rounded at each
        assert_close(ours, exact.to(dtype), rtol=0, atol=1024 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("transposed", [False, True])
def test_closes_under_differentiation(transposed, device):
    kernel_map = plain.strided(20, device=device)
    x = torch.randn(kernel_map.num_in, 4, dtype=torch.float64, device=device, requires_grad=True)
    grad = torch.randn(kernel_map.num_out, 2, dtype=torch.float64, device=device, requires_grad=True)

    def function(x, grad):
        return weight_gradient(x, grad, kernel_map, flip=True, transposed=transposed, groups=2)

    assert gradcheck(function, (x, grad), atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, (x, grad), atol=1e-8, rtol=1e-6)


def test_refuses_what_does_not_match(device):
    m = plain.strided(20, device=device)
    x, grad = torch.rand(20, 2, device=device), torch.rand(m.num_out, 3, device=device)
    with pytest.raises(ValueError, match=r"grad has shape \(4, 3\) where the kernel map writes"):
        weight_gradient(x, grad[:4], m)
    with pytest.raises(ValueError, match="x has 19 rows, the kernel map reads 20"):
        weight_gradient(x[:19], grad, m)
    with pytest.raises(TypeError, match="grad has dtype Double, expected Float"):
        weight_gradient(x, grad.double(), m)
    with pytest.raises(ValueError, match="2 groups do not divide 2 and 3 channels"):
        weight_gradient(x, grad, m, groups=2)
