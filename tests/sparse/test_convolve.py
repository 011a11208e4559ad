import itertools

import pytest
import torch
from core.contract import Contract, assert_same_bits
from hepops.sparse import convolve
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from sparse import plain


class TestConvolve(Contract):
    op = torch.ops.hepops.sparse_convolve.default
    public = staticmethod(convolve)
    sizes = (0, 1, 15, 60)
    large = 20_000
    twice = True
    refused = (torch.int64, torch.complex64)
    refusal = r"must be float16, bfloat16, float32 or float64"

    @staticmethod
    def function(x, weight, bias, *rest):
        return convolve(x, weight, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]), bias)

    @staticmethod
    def reference(x, weight, bias, *rest):
        return plain.convolve(x, weight, plain.from_tensors(rest[:4], rest[4:8], rest[8], 27, x.shape[0]), bias)

    @staticmethod
    def sample(size, **at):
        """A submanifold layer, 2 channels to 3."""
        m = plain.submanifold(size, device=at["device"])
        return (
            torch.randn(size, 2, **at),
            torch.randn(27, 2, 3, **at) / 5,
            torch.randn(3, **at),
            *m.forward,
            *m.backward,
            plain.triples_tensor(m, at["device"]),
        )

    def operands(self, args):
        return *args[:11], False, True, False, 1

    @staticmethod
    def rounding(dtype):
        # sums of 60 products of order 1, and gradients that sum over 60 rows
        return {"rtol": 64 * torch.finfo(dtype).eps, "atol": 256 * torch.finfo(dtype).eps}


MAPS = {
    "submanifold": lambda **k: plain.submanifold(300, **k),
    "even": lambda **k: plain.submanifold(120, size=2, **k),
    "strided": lambda **k: plain.strided(300, **k),
    "upward": lambda **k: plain.strided(300, **k).transposed(),
    "two dimensions": lambda **k: plain.submanifold(700, size=5, dimension=2, **k),
    "one offset": lambda **k: plain.submanifold(300, size=1, **k),
}


def shape_of(volume, read, written, transposed, groups):
    return (volume, written // groups, read) if transposed else (volume, read // groups, written)


def sample(kernel_map, read, written, transposed, groups, **at):
    x = torch.randn(kernel_map.num_in, read, **at)
    weight = torch.randn(shape_of(kernel_map.volume, read, written, transposed, groups), **at)
    return x, weight / (4 * read / groups) ** 0.5, torch.randn(written, **at)


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("name", MAPS)
def test_is_the_sum_over_the_triples(name, index, device, dtype):
    kernel_map = MAPS[name](device=device, index=index)
    for flip, transposed, groups in itertools.product((False, True), (False, True), (1, 2)):
        x, weight, bias = sample(kernel_map, 6, 10, transposed, groups, device=device, dtype=dtype)
        y = convolve(x, weight, kernel_map, bias, flip=flip, transposed=transposed, groups=groups)
        exact = plain.convolve(x.double(), weight.double(), kernel_map, bias.double(), flip, transposed, groups)
        assert_close(y, exact.to(dtype), rtol=0, atol=32 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["even", "strided", "upward"])
@pytest.mark.parametrize("transposed", [False, True])
def test_closes_under_differentiation(name, transposed, device):
    size = {"even": plain.submanifold(12, size=2, device=device), "strided": plain.strided(20, device=device)}
    size["upward"] = size["strided"].transposed()
    kernel_map = size[name]
    args = sample(kernel_map, 4, 2, transposed, 2, device=device, dtype=torch.float64)
    args = [a.requires_grad_() for a in args]

    def function(x, weight, bias):
        return convolve(x, weight, kernel_map, bias, flip=True, transposed=transposed, groups=2)

    assert gradcheck(function, args, atol=1e-8, rtol=1e-6)
    assert gradgradcheck(function, args, atol=1e-8, rtol=1e-6)


def test_refuses_what_does_not_match(device):
    m = plain.submanifold(20, device=device)
    x, w = torch.rand(20, 2, device=device), torch.rand(27, 2, 3, device=device)
    with pytest.raises(ValueError, match=r"x has 3 channels, a weight of shape \(27, 2, 3\) reads 2"):
        convolve(torch.rand(20, 3, device=device), w, m)
    with pytest.raises(ValueError, match=r"x has 2 channels, a weight of shape \(27, 2, 3\), transposed, reads 3"):
        convolve(x, w, m, transposed=True)
    with pytest.raises(ValueError, match="x has 21 rows, the kernel map reads 20"):
        convolve(torch.rand(21, 2, device=device), w, m)
    with pytest.raises(ValueError, match="weight has 8 offsets, the kernel map 27"):
        convolve(x, w[:8], m)
    with pytest.raises(TypeError, match="weight has dtype Double where x has Float"):
        convolve(x, w.double(), m)
    with pytest.raises(TypeError, match="bias has dtype Double, expected Float"):
        convolve(x, w, m, torch.rand(3, device=device).double())
    with pytest.raises(ValueError, match=r"bias has shape \(2\), expected \(3\)"):
        convolve(x, w, m, torch.rand(2, device=device))
    with pytest.raises(ValueError, match=r"2 groups do not divide a weight of shape \(27, 2, 3\)"):
        convolve(x, w, m, groups=2)
    with pytest.raises(ValueError, match=r"weight must be \(K, A, B\), got shape \(27, 6\)"):
        convolve(x, w.flatten(1), m)
    with pytest.raises(ValueError, match=r"x must be \(N, C\), got shape \(20\)"):
        convolve(x[:, 0], w, m)
    lists = m.forward
    with pytest.raises(ValueError, match=r"tiles has shape \(\d+\), which does not suit a schedule of \(1000\)"):
        far = torch.zeros(1000, dtype=torch.int32, device=device)
        convolve(x, w, m._replace(forward=(*lists[:3], far), mirrored=False))
    with pytest.raises(TypeError, match="the kernel map must be all int32 or all int64"):
        convolve(x, w, m._replace(forward=(*lists[:3], lists[3].long())))


def test_nan_spreads_no_further_than_its_neighbours(device, dtype):
    m = plain.submanifold(300, device=device)
    x, w, _ = sample(m, 5, 7, False, 1, device=device, dtype=dtype)
    x[17, 2] = float("nan")
    touched = {o for i, o, k in m.triples if i == 17}
    y = convolve(x, w, m)
    assert set(y.isnan().any(1).nonzero().flatten().tolist()) == touched
    assert y.isnan().all(1).sum() == len(touched)


def test_rows_without_pairs_are_the_bias(device, dtype):
    kernel_map = plain.plain_map([], 5, 300, 27, device=device)
    bias = torch.randn(3, device=device, dtype=dtype)
    y = convolve(
        torch.rand(5, 2, device=device, dtype=dtype), torch.rand(27, 2, 3, device=device, dtype=dtype), kernel_map, bias
    )
    assert_same_bits(y, bias.expand(300, 3))
