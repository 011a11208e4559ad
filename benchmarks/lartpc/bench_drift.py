"""Arrival of a million deposits at the anode, against the same formulas written in torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import drift, velocity

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
distance = (30 * torch.rand(n, device=device)).requires_grad_()
lifetime = torch.tensor(2200.0, device=device, requires_grad=True)
v = velocity(0.5)


def plain(distance, lifetime):
    time = distance / v
    return (-time / lifetime).exp(), time, (2 * 8.8e-6 * time).sqrt(), (2 * 4e-6 * time).sqrt()


functions = {"drift": drift, "drift in torch": plain}
outputs = {name: f(distance, lifetime) for name, f in functions.items()}
for ours, theirs in zip(*outputs.values(), strict=True):
    torch.testing.assert_close(ours, theirs)

size = distance.element_size() * n
with torch.no_grad():  # distance in, four out
    bench({f"{name}, forward": lambda f=f: f(distance, lifetime) for name, f in functions.items()}, 5 * size)

grads = [torch.ones_like(distance) for _ in range(4)]
bench(  # four grads and distance in, grad_distance out
    {
        f"{name}, backward": lambda out=out: torch.autograd.grad(out, (distance, lifetime), grads, retain_graph=True)
        for name, out in outputs.items()
    },
    6 * size,
)
