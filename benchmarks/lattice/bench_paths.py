"""Gauge observables of SU(2) and SU(3) on 16^4, forward, and with gradients on 8^4, against the same in torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lattice import SUN
from hepops.lattice.observables import clover, field_strength, gauge_transform, loops, topological_charge, transform
from hepops.lattice.observables import paths as ops

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


def in_torch(function):
    """The function with every product of links by the plain form."""

    def run(*arguments):
        modules = (ops, clover, loops, transform)
        for module in modules:
            module.products = ops.formula
        try:
            return function(*arguments)
        finally:
            for module in modules:
                module.products = products

    products = ops.products
    return run


def compare(name, function, *arguments, bytes_moved, repeats):
    torch.testing.assert_close(function(*arguments), in_torch(function)(*arguments), rtol=1e-9, atol=1e-9)
    candidates = {name: lambda: function(*arguments), f"{name}, torch": lambda: in_torch(function)(*arguments)}
    bench(candidates, bytes_moved, repeats)


def with_gradient(function):
    def run(U):
        U = U.detach().requires_grad_()
        return torch.autograd.grad(function(U).sum(), U)[0]

    return run


for n in (2, 3):
    theory = SUN(n, (16,) * 4, 6.0)
    U, g = theory.random(1, seed=1).to(device), theory.random(1, seed=2).to(device)[:, 0]
    links, few = U.numel() * 16, 3
    label = f"SU({n}) 16^4"
    compare(f"{label} plaquette loops", lambda U: loops.wilson_loops(U, 1, 1), U, bytes_moved=2 * links, repeats=few)
    compare(f"{label} clover F", field_strength, U, bytes_moved=int(2.5 * links), repeats=few)
    compare(f"{label} charge Q", topological_charge, U, bytes_moved=4 * links, repeats=few)
    compare(f"{label} Polyakov", loops.polyakov_loops, U, bytes_moved=links // 4, repeats=few)
    compare(f"{label} transform", gauge_transform, U, g, bytes_moved=int(4.5 * links), repeats=few)
    small = SUN(n, (8,) * 4, 6.0).random(1, seed=1).to(device)
    label, links = f"SU({n}) 8^4", small.numel() * 16
    compare(f"{label} loops to 3 x 3", lambda U: loops.wilson_loops(U, 3, 3), small, bytes_moved=4 * links, repeats=few)
    compare(f"{label} charge, gradient", with_gradient(topological_charge), small, bytes_moved=8 * links, repeats=few)
    loop = with_gradient(lambda U: loops.wilson_loops(U, 2, 2))
    compare(f"{label} loops, gradient", loop, small, bytes_moved=8 * links, repeats=few)
