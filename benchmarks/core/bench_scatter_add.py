"""A million entries of 1 and of 16 numbers to 100 000 rows, in both modes, against torch's index_add."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.core import scatter_add

n, rows = 1_000_000, 100_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
index = torch.randint(0, rows, (n,), device=device)
for channels in (1, 16):
    values = torch.rand(n, channels, device=device)
    zeros = torch.zeros(rows, channels, device=device)
    candidates = {
        "deterministic": lambda v=values: scatter_add(index, v, rows),
        "atomic": lambda v=values: scatter_add(index, v, rows, mode="atomic"),
        "index_add": lambda v=values, z=zeros: z.index_add(0, index, v),
    }
    for run in candidates.values():
        torch.testing.assert_close(run(), candidates["deterministic"]())
    # index and values in, sums out
    bench(
        {f"{name}, {channels} channels": run for name, run in candidates.items()},
        8 * n + 4 * channels * (n + rows),
        repeats=10,
    )
