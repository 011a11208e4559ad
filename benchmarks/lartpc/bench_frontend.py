"""Hits of a thousand busy pixels of 300 ticks, and of a hundred thousand of which one in ten sees charge."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import frontend

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)


def pulses(pixels, ticks=300, share=1.0):
    """Pulses of 20 to 60 ticks and 5 000 to 30 000 e on a share of the pixels, nothing on the others."""
    random = torch.Generator().manual_seed(0)
    start, length = (torch.randint(*r, (pixels, 1), generator=random) for r in ((50, 200), (20, 60)))
    charge = 5000 + 25000 * torch.rand(pixels, 1, generator=random)
    k = torch.arange(ticks)
    inside = (k >= start) & (k < start + length) & (torch.rand(pixels, 1, generator=random) < share)
    return (inside * charge / (0.1 * length)).to(device)


def plain(current, threshold=5000.0):
    """The sampled loop in torch, all pixels at once, tick by tick."""
    pixels, ticks = current.shape
    at = torch.zeros(pixels, dtype=torch.int64, device=device)  # the tick at which a pixel integrates again, or reads
    ready, charge, held = at.clone(), torch.zeros(pixels, dtype=torch.float64, device=device), at > 0
    hits = []
    for k in range(ticks + 28):
        on = held | (at <= k)
        charge = charge + on * (current[:, k].double() * 0.1 if k < ticks else 0)
        done = held & (at == k)
        hit = done & (charge >= threshold)
        hits.append((hit.nonzero()[:, 0], charge[hit]))
        ready = torch.where(hit, k + 10, ready)
        start = ~held & on & (k >= ready) & (charge >= threshold) & ((k < ticks) | (k == ready))
        at = torch.where(start, k + 18, torch.where(done, k + 2, at))
        charge, held = torch.where(done, 0, charge), (held & ~done) | start
    return hits


few, many = pulses(1000), pulses(100_000, share=0.1)
ours, theirs = frontend(few, threshold=5000.0, sampled=True), plain(few)
assert len(ours) == sum(len(row) for row, _ in theirs) > 1000
torch.testing.assert_close(ours.charge.double().sum(), torch.cat([q for _, q in theirs]).sum())

tangents = torch.randn(6, few.numel(), device=device)
leaf = few.clone().requires_grad_()


def reverse():
    hits = frontend(leaf, threshold=5000.0)
    return torch.autograd.grad(hits.charge.sum() + hits.time.sum(), leaf)


size = few.element_size() * few.numel()
bench(
    {
        "frontend, continuous": lambda: frontend(few, threshold=5000.0),
        "frontend, sampled": lambda: frontend(few, threshold=5000.0, sampled=True),
        "frontend, with noise": lambda: frontend(few, threshold=5000.0, seed=1),
        "sampled, in torch": lambda: plain(few),
    },
    size,
)
bench({"frontend, six tangents": lambda: frontend(few, threshold=5000.0, tangents=tangents)}, 7 * size)
bench({"frontend, reverse": reverse}, 2 * size)
bench(
    {
        "100k pixels, continuous": lambda: frontend(many, threshold=5000.0),
        "100k pixels, with noise": lambda: frontend(many, threshold=5000.0, seed=1),
    },
    many.element_size() * many.numel(),
    repeats=10,
)
