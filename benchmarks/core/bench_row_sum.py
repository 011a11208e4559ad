"""Sums of rows in double: a million pairs, and a thousand rows of a thousand, against torch's."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.core import row_sum

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
for n, m in ((1_000_000, 2), (1_000_000, 8), (1000, 1000), (1, 2)):
    x = torch.randn(n, m, device=device)
    exact = x.double().sum(-1)
    torch.testing.assert_close(row_sum(x), exact, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(row_sum(x, accurate=True)[0], exact, rtol=1e-13, atol=1e-12)
    bench(  # x in, sums out
        {
            f"row_sum, {n} x {m}": lambda x=x: row_sum(x),
            f"row_sum, double-double, {n} x {m}": lambda x=x: row_sum(x, accurate=True),
            f"sum(dtype=float64), {n} x {m}": lambda x=x: x.sum(-1, dtype=torch.float64),
            f"double().sum, {n} x {m}": lambda x=x: x.double().sum(-1),
        },
        x.numel() * 4 + n * 8,
        repeats=10 if n > 1 else 1000,
    )
