"""The built-in response's table and its slope with the velocity, against the same formula written in torch."""

import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import weighting_potential

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
pitch, tick, bins, size, length = 0.4434, 0.1, 10, 30, 150  # what a simulator with 5 x 5 pixels and 150 ticks asks for
v = torch.tensor(0.16, dtype=torch.float64, device=device)


def plain(v):
    centre = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * pitch / bins
    z = v * tick * torch.arange(1, length + 1, dtype=torch.float64, device=device)
    total = 0.0
    for s in (-1, 1):
        for t in (-1, 1):
            X, Y = centre[:, None, None] + s * pitch / 2, centre[None, :, None] + t * pitch / 2
            total = total + s * t * torch.atan(X * Y / (z * (X * X + Y * Y + z * z).sqrt()))
    return total / (2 * math.pi)


def with_slope(v):
    v = v.detach().requires_grad_()
    phi = plain(v)
    return torch.autograd.grad(phi.sum(), v)[0]


torch.testing.assert_close(weighting_potential(v, pitch)[..., 1:], plain(v), rtol=1e-12, atol=1e-14)
# two tables of float64 out; our operator makes the slope of every entry, autograd here their sum alone
bench(
    {
        "weighting_potential, and slope": lambda: weighting_potential(v, pitch, tick, bins, size, length),
        "weighting_potential in torch": lambda: plain(v),
        "  and the slope of its sum": lambda: with_slope(v),
    },
    2 * 8 * size * size * (length + 1),
)
