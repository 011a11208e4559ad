"""Batch norm with leaky ReLU, 100 000 and 20 000 rows of 32 channels, forward and both ways, against torch's."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.sparse import moments, norm_act

channels = 32
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
weight = (torch.rand(channels, device=device) + 0.5).requires_grad_()
bias = torch.randn(channels, device=device, requires_grad=True)
for n in (100_000, 20_000):
    x = torch.randn(n, channels, device=device, requires_grad=True)
    grad = torch.randn(n, channels, device=device)
    with torch.no_grad():
        mean, variance = moments(x)
        mean32, variance32 = mean.float(), variance.float()

    def ours(x=x):
        return norm_act(x, weight, bias, slope=0.33)

    def theirs(x=x):
        norm = torch.nn.functional.batch_norm(x, None, None, weight, bias, training=True)
        return torch.nn.functional.leaky_relu(norm, 0.33)

    def both_ways(function, x=x, grad=grad):
        return torch.autograd.grad(function(), (x, weight, bias), grad)

    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
    exact = torch.nn.functional.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True)
    for a, b in zip(both_ways(ours), both_ways(lambda z=exact: torch.nn.functional.leaky_relu(z, 0.33)), strict=True):
        # torch in float64; at z = 0, where rounding decides on which side an element is, one in 100 000 may differ
        assert ((a - b).abs() > 1e-4 * (1 + b.abs())).double().mean() < 1e-5
    with torch.no_grad():
        apply = {
            f"apply, {n} rows": lambda x=x, m=mean, v=variance: norm_act(
                x, weight, bias, mean=m, variance=v, slope=0.33
            ),
            f"torch batch_norm, evaluation, {n} rows": lambda x=x, m=mean32, v=variance32: (
                torch.nn.functional.batch_norm(x, m, v, weight, bias)
            ),
        }
        size = x.element_size() * x.numel()
        bench(apply, 2 * size)
        # twice read, once written
        bench({f"norm_act, {n} rows": ours, f"torch, {n} rows": theirs}, 3 * size)
    # and back: twice read two of them, once written
    bench(
        {
            f"norm_act, both ways, {n} rows": lambda f=ours, b=both_ways: b(f),
            f"torch, both ways, {n} rows": lambda f=theirs, b=both_ways: b(f),
        },
        8 * size,
    )
