"""Piecewise quadratic distribution functions of 16 bins, 200 000 numbers, against torch's operators and nflows."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n, rival
from hepops.flows import piecewise_quadratic
from hepops.flows.piecewise import quadratic_formula

x, raw = 0.001 + 0.998 * torch.rand(n // 5), torch.randn(n // 5, 33)
forwards, inverses = {"piecewise_quadratic, torch": quadratic_formula}, {}
if splines := rival("nflows.transforms.splines"):
    forwards["piecewise_quadratic, nflows"] = lambda x, raw: splines.quadratic_spline(x, raw[..., :16], raw[..., 16:])
    inverses["piecewise_quadratic, nflows"] = lambda x, raw: splines.quadratic_spline(
        x, raw[..., :16], raw[..., 16:], inverse=True
    )
compare("piecewise_quadratic", piecewise_quadratic, forwards, x, raw, inverses)
