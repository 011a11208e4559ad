"""Periodic 3 x 3 convolutions of 2^18 sites, forward and with their backward, against padding and torch's conv2d."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.lattice import convolve
from hepops.lattice.convolve import formula
from torch import Tensor
from torch.nn import functional as F

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
torch.manual_seed(1)


def padded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias))


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return convolve(x, weight, bias, "leaky_relu")


rows = {}
for inputs, outputs, extent in ((8, 8, 16), (8, 8, 8), (8, 8, 4), (1, 8, 16), (8, 2, 16), (12, 12, 8)):
    batch = (1 << 18) // extent**2
    args = [
        torch.randn(batch, inputs, extent, extent, device=device),
        0.2 * torch.randn(outputs, inputs, 3, 3, device=device),
        torch.randn(outputs, device=device),
    ]
    exact = formula(*(a.double() for a in args), activation="leaky_relu")
    for f in (ours, padded):
        assert (f(*args) - exact).abs().max() < 1e-4
    leaves = [a.clone().requires_grad_() for a in args]
    G = torch.randn_like(exact, dtype=torch.float32)

    def both(f, leaves=leaves, G=G):
        torch.autograd.grad(f(*leaves), leaves, G)

    name = f"{inputs} -> {outputs}, {extent} x {extent}, batch {batch}"
    times = seconds(
        {
            "forward": lambda args=args: ours(*args),
            "forward, torch": lambda args=args: padded(*args),
            "with backward": lambda: both(ours),
            "with backward, torch": lambda: both(padded),
        },
        5,
    )
    flops = 2 * 9 * inputs * outputs * batch * extent**2
    print(name)
    for key, time in times.items():
        work = flops * (3 if "backward" in key else 1)
        print(f"    {key:24} {1e3 * time:8.2f} ms {1e-9 * work / time:7.1f} Gflop/s")
        rows[f"{name}: {key}"] = {"seconds": time, "Gflop_per_s": round(1e-9 * work / time, 1)}
    for kind in ("forward", "with backward"):
        print(f"    {kind}: {times[kind + ', torch'] / times[kind]:.1f} x as fast")
record(rows)
