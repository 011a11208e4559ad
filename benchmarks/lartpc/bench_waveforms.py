"""Currents of muon tracks on their pixels, one core: forward, six tangents, reverse mode; multiply-adds per second.

The contraction of a node's bins with the response takes bins_u x bins_v x ticks multiply-adds for each pixel that sees
the node, the arrival in time taps x ticks more. The rival is the same contraction as a dense product in torch, which is
what is left of the problem for a library of matrix products: without the layout, the arrival and the derivatives.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.lartpc import Detector, Parameters, Simulator, gun, simulator, waveforms
from hepops.lartpc.waveforms import waveforms_and_tangents

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
detector = Detector.module0()
tracks = gun.shoot(detector, events=16, energy=300.0, step=0.5, seed=1).to(device)


def planned(sim):
    """What the operator is given for the tracks, and that both of its faces agree."""
    seen, plan = [], simulator.plan

    def record_plan(*args, **settings):
        seen.append((args, plan(*args, **settings), settings))
        return seen[-1][1]

    simulator.plan = record_plan
    with torch.no_grad():
        single = sim.waveforms(tracks)
        both = sim.waveforms(tracks, tangents=Parameters.SIX)
    simulator.plan = plan
    torch.testing.assert_close(single.values, both.values, rtol=1e-4, atol=1e-4 * float(single.values.abs().max()))
    return seen[0]


def run(dtype):
    (nodes, _, _, velocity, response), layout, settings = planned(Simulator(detector, dtype=dtype).to(device))
    velocity, nodes = velocity.detach(), nodes.detach().requires_grad_()
    places = layout.places[layout.pair // layout.node_row.shape[1]]
    ticks, taps = response.length + 1 - places[:, 6], 2 * places[:, 5] + 2
    products = int((places[:, 1] * places[:, 3] * ticks + taps * (ticks + taps)).sum())

    def forward():
        return waveforms(nodes, velocity, response, layout, **settings)

    along = torch.randn(6, 5, nodes.shape[1], dtype=torch.float64, device=device)
    along_v = torch.randn(6, dtype=torch.float64, device=device)
    values = forward()
    grad = torch.randn_like(values)
    pairs, cells = len(layout.pair), int((places[:, 1] * places[:, 3]).float().mean())
    weights = torch.rand(pairs, cells, dtype=dtype, device=device)
    table = response.r.reshape(-1, response.r.shape[2])[:cells]
    with torch.no_grad():
        times = seconds(
            {
                "forward": forward,
                "six tangents": lambda: waveforms_and_tangents(
                    nodes, velocity, along, along_v, response, layout, **settings
                ),
                "reverse": lambda: torch.autograd.grad(values, nodes, grad, retain_graph=True),
                "dense product in torch": lambda: weights @ table,
            },
            10,
        )
    print(f"{dtype}: {nodes.shape[1]} nodes, {len(layout.first)} rows, {pairs} pairs, {layout.total} ticks")
    for name, t in times.items():
        print(f"  {name:24} {1e3 * t:9.2f} ms   {products / t * 1e-9:7.1f} G forward multiply-adds/s")
    name = str(dtype).removeprefix("torch.")
    return {f"{name}, {what}": {"seconds": t, "products_per_s": products / t} for what, t in times.items()}


record(run(torch.float32) | run(torch.float64))
