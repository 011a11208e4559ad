"""Re tr of the plaquettes of a 16^4 lattice of SU(3) links against the same in torch's operators."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from harness import bench
from hepops.lattice import loop_traces, wilson_formula
from wilson_links import U, check, site_bytes

torch.set_num_threads(1)
check(loop_traces(U), wilson_formula.loop_traces(U))
bench(
    {"loop_traces": lambda: loop_traces(U), "traces, torch": lambda: wilson_formula.loop_traces(U)},
    16**4 * (site_bytes + 6 * 8),
    repeats=5,
)
