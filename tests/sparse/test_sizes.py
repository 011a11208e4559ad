"""Events of ten sizes through the operators that are no convolutions: compiled whole, and twice at most."""

import pytest
import torch
from hepops.sparse import interpolate, moments, norm_act, pool, segment_broadcast, segment_reduce
from torch._dynamo.testing import CompileCounterWithBackend

from sparse.lists import random_lists
from sparse.segments import random_segments

SIZES = (
    1500,
    1100,
    2000,
    1300,
    1777,
    260,
    513,
    90,
    1000,
    4000,
)  # of the first, no two lengths are alike by chance


def pooled(size):
    forward, backward = random_lists(size, size // 2)
    return (lambda x, *lists: pool(x, lists[:4], lists[4:], "avg")), (torch.randn(size, 4), *forward, *backward)


def pooled_max(size):
    forward, backward = random_lists(size, size // 2)
    return (lambda x, *lists: pool(x, lists[:4], lists[4:], "max")), (torch.randn(size, 4), *forward, *backward)


def centred(size):
    order, starts = random_segments(size)

    def centre(x, order, starts):
        return x - segment_broadcast(segment_reduce(x, order, starts, "mean"), order, starts)

    return centre, (torch.randn(size, 4), order, starts)


def normalised(size):
    def norm(x, weight, bias):
        return norm_act(x, weight, bias, residual=x, slope=0.3) + moments(x).mean.sum()

    return norm, (torch.randn(size, 4), torch.rand(4), torch.rand(4))


def interpolated(size):
    return interpolate, (torch.randn(size, 4), torch.randint(-1, size, (2 * size, 8)), torch.rand(2 * size, 3))


@pytest.mark.parametrize("case", [pooled, pooled_max, centred, normalised, interpolated])
def test_ten_sizes_compile_twice_at_most(case):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    plain, _ = case(10)
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend=counter)
    for size in SIZES:
        function, (x, *rest) = case(size)
        results = []
        for f in (compiled, function):
            leaf = x.detach().requires_grad_()
            y = f(leaf, *rest)
            results.append((y.detach(), *torch.autograd.grad((y**2).sum(), leaf)))
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    assert counter.frame_count <= 2
