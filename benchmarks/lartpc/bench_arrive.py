"""Recombination and drift of a million deposits in one pass: forward, reverse, and six tangents."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import Parameters, arrive, velocity
from hepops.lartpc.arrive import arrive_tangents

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
rows = torch.rand(6, n, dtype=torch.float64, device=device)
rows[1] = 1 + 10 * rows[1]
rows[3] *= 30
names = tuple(Parameters.SPEC)
values = torch.tensor([getattr(Parameters(), name) for name in names], dtype=torch.float64, device=device)
rows.requires_grad_(), values.requires_grad_()
v0, per_E = velocity(0.5), 0.5005 * velocity(0.5) / 0.5  # the law's value and slope at 0.5 kV/cm


def plain(rows, values):
    dE, dEdx, _, depth, width, t0 = rows
    tau, E, A, k, D_T, D_L, *_, rho, _, w_ion = values
    v = v0 + per_E * (E - 0.5)
    time = depth / v
    charge = A / (1 + k * dEdx / (E * rho)) * dE / w_ion * (-time / tau).exp()
    return torch.stack((charge, t0 + time, (2 * D_T * time).sqrt(), (2 * D_L * time).sqrt() / v, width / v))


functions = {"arrive": arrive, "arrive in torch": plain}
outputs = {name: f(rows, values) for name, f in functions.items()}
torch.testing.assert_close(*outputs.values(), rtol=1e-10, atol=1e-10)

with torch.no_grad():  # six in, five out
    bench({f"{name}, forward": lambda f=f: f(rows, values) for name, f in functions.items()}, 11 * 8 * n)

grad = torch.randn_like(outputs["arrive"])
bench(  # five gradients and six inputs in, six gradients out
    {
        f"{name}, backward": lambda out=out: torch.autograd.grad(out, (rows, values), grad, retain_graph=True)
        for name, out in outputs.items()
    },
    17 * 8 * n,
)

seeds = torch.eye(12, dtype=torch.float64, device=device)[:6]
with torch.no_grad():  # six in, thirty out
    bench({"arrive, six tangents": lambda: arrive_tangents(rows, values, seeds)}, 36 * 8 * n)
