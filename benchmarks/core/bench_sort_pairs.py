"""A million keys and their permutation, of 20 and of 60 bits, against torch's stable sort."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.core import sort_pairs

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
for bits in (20, 60):
    keys = torch.randint(0, 1 << bits, (n,), device=device)
    theirs = torch.sort(keys, stable=True)
    assert all((a == b).all() for a, b in zip(sort_pairs(keys, bits=bits), theirs, strict=True))
    bench(  # keys in, keys and permutation out
        {
            f"sort_pairs, {bits} bits": lambda keys=keys, bits=bits: sort_pairs(keys, bits=bits),
            f"torch.sort, {bits} bits": lambda keys=keys: torch.sort(keys, stable=True),
        },
        3 * 8 * n,
        repeats=10,
    )
