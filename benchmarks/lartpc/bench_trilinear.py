"""A field map of four channels at a million points, forward and backward, beside torch's grid_sample."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import trilinear

n, channels, shape = 1_000_000, 4, (33, 65, 33)
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
origin, spacing = (-30.0, -62.0, -31.0), (0.95, 1.95, 1.95)


def rival(map, points):
    """grid_sample wants the grid as (x, y, z) from the last axis to the first, in -1 ... 1."""
    low, h = (torch.tensor(t, dtype=points.dtype, device=device) for t in (origin, spacing))
    count = torch.tensor(shape, dtype=points.dtype, device=device)
    unit = (2 * (points - low) / (h * (count - 1)) - 1).flip(1)[None, None, None]
    return torch.nn.functional.grid_sample(map[None], unit, align_corners=True)[0, :, 0, 0].T


def measure(dtype, tolerance):
    print(dtype)
    map = torch.randn(channels, *shape, dtype=dtype, device=device, requires_grad=True)
    size = torch.tensor(spacing, dtype=dtype, device=device) * (torch.tensor(shape, device=device) - 1)
    # 0.999: torch's own rounding must stay inside
    points = torch.tensor(origin, dtype=dtype, device=device) + 0.999 * size * torch.rand(
        n, 3, dtype=dtype, device=device
    )
    points.requires_grad_()
    functions = {"trilinear": lambda m, x: trilinear(m, x, origin, spacing), "torch grid_sample": rival}
    outputs = {name: f(map, points) for name, f in functions.items()}
    torch.testing.assert_close(*outputs.values(), rtol=tolerance, atol=tolerance)
    item = map.element_size()
    with torch.no_grad():  # a point in, four channels out; the map stays in the cache
        bench(
            {f"{name}, forward": lambda f=f: f(map, points) for name, f in functions.items()}, (3 + channels) * item * n
        )
    grad = torch.randn_like(outputs["trilinear"])
    bench(  # a point and four channels in, three slopes out
        {
            f"{name}, backward": lambda out=out: torch.autograd.grad(out, (map, points), grad, retain_graph=True)
            for name, out in outputs.items()
        },
        (6 + channels) * item * n,
    )


measure(torch.float64, 1e-11)
measure(torch.float32, 2e-3)
