"""2^3 pools of 100 000 voxels, 32 channels, forward and backward, against torch's index_add and index_reduce."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests")]

import numpy as np
import torch
from harness import bench
from hepops.sparse import pool
from sparse import lists

n, channels = 100_000, 32
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
coords = lists.events(n)
n = len(coords)
cell = np.c_[coords[:, :1], coords[:, 1:] // 2]
coarse, parent = np.unique(cell, axis=0, return_inverse=True)
corner = (coords[:, 1:] % 2) @ [1, 2, 4]
m = len(coarse)
# the schedule of a kernel map follows a space-filling curve; here a plain sort by cells stands for it
order = np.lexsort((corner, parent))
forward = lists.pairs_of(np.arange(n), parent, corner, np.arange(m), device=device)
backward = lists.pairs_of(parent, np.arange(n), corner, order, device=device)
o = torch.as_tensor(parent, device=device)

for dtype in (torch.float32, torch.bfloat16):
    x = torch.randn(n, channels, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn(m, channels, device=device, dtype=dtype)
    zeros = torch.zeros(m, channels, device=device, dtype=dtype)

    def step(forward_step, x=x, grad=grad):
        return torch.autograd.grad(forward_step(x), x, grad)

    theirs = {
        "sum": lambda x, z=zeros: z.index_add(0, o, x),
        "max": lambda x, z=zeros: z.index_reduce(0, o, x, "amax", include_self=False),
    }
    candidates, steps = {}, {}
    for mode in ("sum", "avg", "max"):
        ours = lambda x, mode=mode: pool(x, forward, backward, mode)  # noqa: E731
        candidates[f"{mode}, {dtype}"] = lambda f=ours, x=x: f(x.detach())
        steps[f"{mode}, {dtype}, both ways"] = lambda f=ours, s=step: s(f)
        if mode in theirs:
            rival = theirs[mode]
            tolerance = 1e-5 if dtype == torch.float32 else 0.1
            torch.testing.assert_close(ours(x), rival(x), rtol=tolerance, atol=tolerance)
            candidates[f"torch {mode}, {dtype}"] = lambda f=rival, x=x: f(x.detach())
            steps[f"torch {mode}, {dtype}, both ways"] = lambda f=rival, s=step: s(f)
    # features in and out, and one pair a row; the gradient the same again
    bytes_moved = x.element_size() * channels * (n + m) + 8 * n
    bench(candidates, bytes_moved, repeats=15)
    bench(steps, 2 * bytes_moved, repeats=15)
