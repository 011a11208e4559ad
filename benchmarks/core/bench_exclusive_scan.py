"""Offsets of a million counts, against torch's cumsum, which leaves the leading zero out."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.core import exclusive_scan

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
counts = torch.randint(0, 100, (n,), device=device)
assert (exclusive_scan(counts)[1:] == counts.cumsum(0)).all()

# counts in, offsets out
bench({"exclusive_scan": lambda: exclusive_scan(counts), "cumsum": lambda: counts.cumsum(0)}, 2 * 8 * n)
