"""What a training step of a deep stack keeps and takes: all, the layers' inputs, or the output alone.

The most bytes that live at once beyond what lived before the step, as torch's profiler counts allocations; 64 couplings
must stay below what 4 take when all is kept.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.flows import Compose, Coupling, Spline
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)
N, D = 1024, 4


def couplings(n):
    torch.manual_seed(1)
    masks = [[True, True, False, False], [False, False, True, True]]
    layers = [Coupling(masks[i % 2], Spline(8), hidden=(64, 64)) for i in range(n)]
    for p in (p for layer in layers for p in layer.parameters()):
        torch.nn.init.normal_(p, p.mean().item(), p.std(correction=0).item() + 0.01)
    return layers


def step(f, x):
    def run():
        for p in f.parameters():
            p.grad = None
        y, logdet = f(x)
        (0.5 * y.square().sum() - logdet.sum()).backward()

    return run


def peak(run):
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        run()
    now = most = 0
    for event in p.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU:
            now += event.nbytes()
            most = max(most, now)
    return most


def gradient(f):
    return torch.cat([p.grad.flatten() for p in f.parameters()])


x = torch.randn(N, D)
deep = couplings(64)
stacks = {
    "4, all kept": Compose(couplings(4)),
    "64, all kept": Compose(deep),
    "64, inputs": Compose(deep, "inputs"),
    "64, inputs of every 4th": Compose(deep, "inputs", 4),
    "64, inverse": Compose(deep, "inverse"),
    "64, inverse of every 8": Compose(deep, "inverse", 8),
}
steps = {name: step(f, x) for name, f in stacks.items()}
steps["64, all kept"]()
exact = gradient(stacks["64, all kept"])
medians = seconds(steps, 5)
rows = {}
for name, run in steps.items():
    most = peak(run)
    if name.startswith("64"):
        error = ((gradient(stacks[name]) - exact).norm() / exact.norm()).item()
        assert error == 0 if "inputs" in name else error < 1e-3
    else:
        error = 0.0
    print(f"{name:26} {most / 2**20:8.1f} MiB {1e3 * medians[name]:8.1f} ms a step, gradients off by {error:.1e}")
    rows[name] = {"bytes": most, "seconds": medians[name], "gradient_error": error, "threads": 1}
record(rows)
