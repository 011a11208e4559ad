"""The SU(3) staples of a 16^4 lattice against the same in torch's operators."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from harness import bench
from hepops.lattice import wilson_staples
from wilson_links import U, check, site_bytes, torch_staples

torch.set_num_threads(1)
check(wilson_staples(U), torch_staples(U))
bench(
    {"wilson_staples": lambda: wilson_staples(U), "staples, torch": lambda: torch_staples(U)},
    2 * 16**4 * site_bytes,
    repeats=5,
)
