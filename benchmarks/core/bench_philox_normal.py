"""Two million normal numbers of named indices, against torch.randn, whose numbers have no names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.core import philox_normal

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
index = torch.arange(n, device=device)
numbers = philox_normal(index, seed=1)
assert (philox_normal(index.flip(0), seed=1).flip(0) == numbers).all()
assert abs(numbers.double().mean() - 0.0) < 4e-3

for dtype in (torch.float32, torch.float64):
    bench(  # index in, two numbers out; torch reads no index
        {
            f"philox_normal, {dtype}": lambda dtype=dtype: philox_normal(index, seed=1, dtype=dtype),
            f"torch.randn, {dtype}": lambda dtype=dtype: torch.randn(n, 2, dtype=dtype, device=device),
        },
        (8 + 2 * dtype.itemsize) * n,
    )
