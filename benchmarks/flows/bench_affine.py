"""Scale and shift of a million numbers, in each form, against the same in torch; nflows' and zuko's are torch too."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from bijections import compare, n
from hepops.flows import affine

FORMS = {
    "exp": lambda s: (s, s.exp()),
    "softclip": lambda s: ((g := s / (1 + (s / 6.907755).abs())), g.exp()),  # zuko
    "tanh": lambda s: ((g := 5 * (s / 5).tanh()), g.exp()),
    "softplus": lambda s: ((f := torch.nn.functional.softplus(s) + 1e-3).log(), f),  # nflows, autoregressive
    "sigmoid": lambda s: ((f := torch.sigmoid(s + 2) + 1e-3).log(), f),  # nflows, coupling
}


def plain(form):
    def function(x, raw):
        g, factor = FORMS[form](raw[..., 0])
        return x * factor + raw[..., 1], g

    return function


x, raw = torch.randn(n), torch.randn(n, 2)
for form in FORMS:
    name = f"affine, {form}"
    compare(name, lambda *a, form=form, **k: affine(*a, scale=form, **k), {f"{name}, torch": plain(form)}, x, raw)
