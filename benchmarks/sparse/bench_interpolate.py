"""50 000 queries between 8 corners each among 100 000 rows of 32 channels, both ways, against gathers of torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.sparse import interpolate

n, queries, channels = 100_000, 50_000, 32
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
x = torch.randn(n, channels, device=device, requires_grad=True)
rows = torch.randint(-1, n, (queries, 8), device=device)
rows[torch.rand(queries, 8, device=device) < 0.5] = -1
fractions = torch.rand(queries, 3, device=device, requires_grad=True)
grad = torch.randn(queries, channels, device=device)
upper = torch.cartesian_prod(*[torch.arange(2, device=device)] * 3) == 1


def theirs(x, fractions):
    weights = torch.where(upper, fractions[:, None], 1 - fractions[:, None]).prod(2) * (rows >= 0)
    return (weights[..., None] * x[rows.clamp(min=0)]).sum(1)


def both_ways(function):
    return torch.autograd.grad(function(x, fractions), (x, fractions), grad)


def ours(x, fractions):
    return interpolate(x, rows, fractions)


torch.testing.assert_close(both_ways(ours), both_ways(theirs), rtol=1e-4, atol=1e-4)
met = int((rows >= 0).sum())
size = 4 * channels
with torch.no_grad():
    bench(
        {"interpolate": lambda: ours(x, fractions), "torch": lambda: theirs(x, fractions)},
        met * size + 8 * rows.numel() + queries * size,
        repeats=10,
    )
# and back: x and the gradient by every corner, the gradient of x once
bench(
    {"interpolate, both ways": lambda: both_ways(ours), "torch, both ways": lambda: both_ways(theirs)},
    3 * met * size + 16 * rows.numel() + (2 * queries + n) * size,
    repeats=10,
)
