"""Splines of a million elements, 8 and 16 bins, in both directions and with the gradients, against the libraries' own.

nflows, normflows and zuko come with the `bench` extra; what is not installed is named and left out. Ours reads and
writes one tensor of parameters, as a network makes it; the rivals get theirs in three, which spares them the slices.
"""

import math
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.flows.functional import rational_quadratic_spline_packed

n = 1_000_000
bound = 5.0
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
torch.manual_seed(1)


def rivals():
    """name -> (function(x, widths, heights, slopes, inverse), convention)"""
    found = {}
    if find_spec("nflows"):
        from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline as nflows

        found["nflows"] = lambda x, *p, inverse: nflows(x, *p, inverse=inverse, tail_bound=bound), "nflows"
    if find_spec("normflows"):
        from normflows.utils.splines import unconstrained_rational_quadratic_spline as normflows

        found["normflows"] = lambda x, *p, inverse: normflows(x, *p, inverse=inverse, tail_bound=bound), "nflows"
    if find_spec("zuko"):
        from zuko.transforms import MonotonicRQSTransform

        def zuko(x, *p, inverse):
            transform = MonotonicRQSTransform(*p, bound=bound)
            if inverse:  # as zuko's flows do: x, and the log-derivative there
                back = transform.inv(x)
                return back, -transform.log_abs_det_jacobian(back, x)
            return transform.call_and_ladj(x)

        compiled = torch.compile(zuko, dynamic=False)
        found["zuko"] = zuko, "zuko"
        found["torch.compile(zuko)"] = lambda x, *p, inverse: compiled(x, *p, inverse=inverse), "zuko"
    for name in ("nflows", "normflows", "zuko"):
        if name not in found:
            print(f"{name} is not installed: pip install hepops[bench]")
    return found


def saved_bytes(function):
    """What a graph keeps for the backward pass, each storage once."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = function()
    del outputs
    return sum(kept.values())


for bins in (8, 16):
    size = 3 * bins - 1
    raw = torch.randn(n, size, device=device)
    x = 2 * torch.randn(n, device=device)
    parts = [p.contiguous() for p in raw.split([bins, bins, bins - 1], -1)]
    seeds = (torch.ones_like(x), torch.ones_like(x))

    def ours(x, raw, *, inverse, convention="nflows", bins=bins):
        return rational_quadratic_spline_packed(x, raw, bins=bins, inverse=inverse, bound=bound, convention=convention)

    candidates = {
        "hepops": (ours, (raw,)),
        "hepops, zuko's": (lambda *a, f=ours, **k: f(*a, **k, convention="zuko"), (raw,)),
    }
    for name, (function, convention) in rivals().items():
        candidates[name] = function, parts
        for inverse in (False, True):
            with torch.no_grad():
                theirs = function(x[:1000], *(p[:1000] for p in parts), inverse=inverse)
                exact = ours(x[:1000].double(), raw[:1000].double(), inverse=inverse, convention=convention)
            for a, b in zip(theirs, exact, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-2 if inverse else 2e-3)

    with torch.no_grad():
        for direction, inverse in (("forward", False), ("inverse", True)):
            bench(
                {
                    f"{name}, {bins} bins, {direction}": lambda f=f, p=p, i=inverse, x=x: f(x, *p, inverse=i)
                    for name, (f, p) in candidates.items()
                },
                4 * n * (1 + size + 2),  # x and parameters in, y and logdet out
                repeats=7,
            )

    def train(function, parameters, x=x, seeds=seeds):
        leaves = [t.detach().requires_grad_() for t in (x, *parameters)]
        return torch.autograd.grad(function(*leaves, inverse=False), leaves, seeds)

    bench(
        {
            f"{name}, {bins} bins, with gradients": lambda f=f, p=p, t=train: t(f, p)
            for name, (f, p) in candidates.items()
        },
        4 * n * (1 + size + 2 + 2 + 1 + size + 1 + size),  # and seeds and inputs in, gradients out
        repeats=7,
    )
    for name, (f, p) in candidates.items():
        m = 10_000
        leaves = [t[:m].clone().requires_grad_() for t in (x, *p)]
        kept = saved_bytes(lambda f=f, leaves=leaves: f(*leaves, inverse=False))
        print(f"{name}, {bins} bins: {math.ceil(kept / m)} bytes an element kept for the backward")
