"""Non-compact projections of a million angles, 4 components, against the same in torch (no rival inverts a mixture)."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n
from hepops.flows import circular
from hepops.flows.circular import formula

x, raw = 6 * torch.rand(n // 5) - 3, 0.5 * torch.randn(n // 5, 5)
compare("circular", circular, {"circular, torch": lambda x, raw: formula(x, raw, False)}, x, raw)
