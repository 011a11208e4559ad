"""Mixtures of 8 sigmoids, 200 000 numbers, against the same in torch (log-sum-exp, as Flow++ writes it)."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n
from hepops.flows import sigmoid_mixture
from hepops.flows.sigmoid_mixture import formula

x, raw = torch.randn(n // 5), torch.randn(n // 5, 24)
compare("sigmoid_mixture", sigmoid_mixture, {"sigmoid_mixture, torch": formula}, x, raw)
