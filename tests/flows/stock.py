"""One of every transform and every ready flow, with parameters away from where they begin."""

import torch
from hepops import flows
from hepops.flows import Affine, Compose, Coupling, Pointwise, Spline
from torch import nn

D, C = 4, 3  # features, context


def scatter(module: nn.Module, dtype: torch.dtype, scale: float = 0.3) -> nn.Module:
    """The module in `dtype` with its parameters moved at random: nothing is the identity any more."""
    module = module.to(dtype)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    return module


def small(**more):
    return {"hidden": (16, 16), **more}


def made(bijection, order=None, context=0, hidden=(16, 11)):
    return flows.MADE(D, bijection.size, hidden, context, order, activation="tanh")


TRANSFORMS = {
    "halves": lambda: Coupling([True, True, False, False], Spline(5), **small()),
    "last half": lambda: Coupling([False, False, True, True], Spline(5), **small()),
    "alternate": lambda: Coupling([False, True, False, True], Spline(5), **small()),
    "middle": lambda: Coupling([False, True, True, False], Affine(), **small()),
    "index": lambda: Coupling([True, False, False, True], Spline(5, convention="zuko"), **small()),
    "context coupling": lambda: Coupling([True, False, True, False], Spline(5), **small(context=C)),
    "all by context": lambda: Coupling([True] * D, Affine(), **small(context=C)),
    "unconditional": lambda: Coupling([True, True, False, False], Affine(), unconditional=Spline(4), **small()),
    "box": lambda: Coupling([True, True, False, False], Spline(5, tails=None), **small()),
    "circle": lambda: Coupling(
        [True, False, True, False], Spline(5, tails="circular"), flows.Periodic(flows.MLP(4, 2 * 15, (16,)))
    ),
    "residual": lambda: Coupling(
        [True, True, False, False], Spline(5), flows.ResidualMLP(2 + 0, 2 * 14, 16, 2, C), context=C
    ),
    "grid": lambda: Coupling(flows.checkerboard((2, 2)), Spline(5), **small()),
    "pointwise": lambda: Pointwise(Spline(5), D),
    "pointwise grid": lambda: Pointwise(Affine(), (2, 2)),
    "autoregressive": lambda: flows.Autoregressive(Spline(5), made(Spline(5))),
    "autoregressive context": lambda: flows.Autoregressive(Affine(), made(Affine(), "random", C)),
    "autoregressive reverse": lambda: flows.Autoregressive(Affine(), made(Affine(), "reverse")),
    "autoregressive linear": lambda: flows.Autoregressive(Affine(), made(Affine(), hidden=())),
    "iaf": lambda: flows.Autoregressive(Affine(), made(Affine())).inv,
    "masked": lambda: flows.MaskedCoupling(flows.checkerboard((2, 2)), Spline(4), hidden=(4,)),
    "masked channels": lambda: flows.MaskedCoupling(
        torch.stack([flows.checkerboard((2, 2), p) for p in (0, 1)]), Affine(), dims=2, hidden=(4,), context=C
    ),
    "permutation": lambda: flows.Permutation([2, 0, 3, 1]),
    "lu": lambda: flows.LULinear(D),
    "plu": lambda: flows.LULinear(D, "random", seed=3),
    "householder": lambda: flows.Householder(D, 3),
    "exponential": lambda: flows.Orthogonal(D),
    "cayley": lambda: flows.Orthogonal(D, "cayley"),
    "actnorm": lambda: flows.ActNorm(D),
    "shift": lambda: flows.CircularShift(D),
    "compose": lambda: Compose([flows.LULinear(D), Coupling([True, True, False, False], Spline(5), **small())]),
    "compose inputs": lambda: Compose(stack(), "inputs"),
    "compose pairs": lambda: Compose(stack(), "inputs", 2),
    "compose inverse": lambda: Compose(stack(), "inverse"),
}

FLOWS = {
    "nsf": lambda **k: flows.nsf(D, layers=2, bins=5, **small(**k)),
    "nsf context": lambda **k: flows.nsf(D, C, layers=2, **small(**k)),
    "nsf residual lu": lambda **k: flows.nsf(
        3, C, layers=3, convention="zuko", **small(residual=True, mixing="lu", **k)
    ),
    "nsf one feature": lambda **k: flows.nsf(1, layers=2, **small(**k)),
    "nsf one feature context": lambda **k: flows.nsf(1, C, layers=2, **small(**k)),
    "realnvp": lambda **k: flows.realnvp(D, layers=3, **small(mixing="random", activation="tanh", **k)),
    "maf": lambda **k: flows.maf(D, layers=2, **small(**k)),
    "maf context": lambda **k: flows.maf(D, C, layers=2, **small(mixing="householder", **k)),
    "iaf": lambda **k: flows.iaf(D, layers=2, **small(mixing="reverse", **k)),
    "autoregressive nsf": lambda **k: flows.autoregressive_nsf(D, layers=2, **small(mixing="orthogonal", **k)),
    "circular": lambda **k: flows.circular_nsf(D, layers=2, **small(mixing="random", **k)),
    "circular context": lambda **k: flows.circular_nsf(3, C, layers=2, **small(**k)),
    "circle": lambda **k: flows.circular_nsf(1, layers=2, **small(**k)),
}


def stack(n=3):
    masks = [[True, True, False, False], [False, False, True, True]]
    return [Coupling(masks[i % 2], Spline(5), **small(context=C)) for i in range(n)]


def transform(name, dtype=torch.float64, device="cpu"):
    # stacks of steep splines stretch by 10^5, and then say nothing about rounding
    return scatter(TRANSFORMS[name](), dtype, 0.1 if "compose" in name else 0.3).to(device)


def flow(name, dtype=torch.float64, device="cpu", *, scale=0.3, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return scatter(FLOWS[name](**more), dtype, scale).to(device)


def events(transform, *batch, dtype=torch.float64, device="cpu"):
    """Events inside every domain: (0, 1) serves all."""
    shape = transform.event_shape or (D,)
    generator = torch.Generator().manual_seed(11)
    return (0.02 + 0.96 * torch.rand(*batch, *shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def contexts(transform, *batch, dtype=torch.float64, device="cpu"):
    if not transform.context_size:
        return None
    generator = torch.Generator().manual_seed(13)
    return torch.randn(*batch, C, generator=generator, dtype=torch.float64).to(device, dtype)
