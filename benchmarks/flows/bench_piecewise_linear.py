"""Piecewise linear distribution functions of 16 bins, 200 000 numbers, against torch's operators and nflows."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n, rival
from hepops.flows import piecewise_linear
from hepops.flows.piecewise import linear_formula

x, raw = 0.001 + 0.998 * torch.rand(n // 5), torch.randn(n // 5, 16)
forwards, inverses = {"piecewise_linear, torch": linear_formula}, {}
if splines := rival("nflows.transforms.splines"):
    forwards["piecewise_linear, nflows"] = lambda x, raw: splines.linear_spline(x, raw)
    inverses["piecewise_linear, nflows"] = lambda x, raw: splines.linear_spline(x, raw, inverse=True)
compare("piecewise_linear", piecewise_linear, forwards, x, raw, inverses)
