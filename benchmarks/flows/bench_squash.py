"""Softplus, tanh and sigmoid of a million numbers with their log-derivatives, against the same in torch."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n
from hepops.flows import squash
from torch.nn.functional import logsigmoid, softplus

PLAIN = {
    "softplus": lambda x: (softplus(x), logsigmoid(x)),
    "tanh": lambda x: (x.tanh(), 2 * (0.6931471805599453 - x - softplus(-2 * x))),
    "sigmoid": lambda x: (x.sigmoid(), -softplus(-x) - softplus(x)),
}
INVERSE = {
    "softplus": lambda y: (y + (-(-y).expm1()).log(), -(-(-y).expm1()).log()),
    "tanh": lambda y: (y.atanh(), -(-y * y).log1p()),
    "sigmoid": lambda y: (y.log() - (-y).log1p(), -y.log() - (-y).log1p()),
}

x = 0.001 + 0.998 * torch.rand(n)
for kind in PLAIN:
    name = f"squash, {kind}"
    forwards, inverses = {f"{name}, torch": PLAIN[kind]}, {f"{name}, torch": INVERSE[kind]}
    compare(name, lambda x, kind=kind, **k: squash(x, kind, **k), forwards, x, None, inverses)
