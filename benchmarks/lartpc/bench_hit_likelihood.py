"""log P of pulses with its slopes, and the likelihood of 800 cm of muons; the formula in torch beside it.

The muons of ../shared are used where they are, else those of our own gun.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench, shared
from hepops.lartpc import Chip, Detector, HitLikelihood, Parameters, Segments, Simulator, frontend, gun, read_segments
from hepops.lartpc.likelihood import formula
from hepops.lartpc.likelihood.operator import evaluate

torch.set_num_threads(1)
FILES = shared("data/lartpc/edepsim")
detector = Detector.module0()
chip = Chip.of(detector)
noise = torch.tensor([chip.reset_noise, chip.uncorrelated_noise, chip.discriminator_noise], dtype=torch.float64)
bar = torch.tensor(chip.threshold, dtype=torch.float64)

# Pulses of 20 ticks, of 5 000 to 30 000 e, in rows of 60 ticks, with the hits of sampled chips.
rows, ticks = 200, 60
random = torch.Generator().manual_seed(0)
current = torch.zeros(rows, ticks, dtype=torch.float64)
current[:, 10:30] = (5000 + 25000 * torch.rand(rows, 1, generator=random, dtype=torch.float64)) / 2
hits = frontend(current, detector, seed=1)
first = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(hits.row, minlength=rows).cumsum(0)])
k = torch.round(hits.time / detector.tick).long() - 1
edges, _, _ = chip.edges(hits.adc, hits.charge, torch.zeros_like(hits.adc))
pulses = (current.reshape(-1), torch.arange(rows + 1) * ticks, k, first, edges, bar, noise, chip.clock)


few = 4  # what the formula in torch is given, which takes long
seen = int(first[few])
some = (
    current[:few].reshape(-1),
    torch.arange(few + 1) * ticks,
    k[:seen],
    first[: few + 1],
    edges[:, :seen].contiguous(),
    *pulses[5:],
)


def plain() -> torch.Tensor:
    """log P of the first rows and its slopes, in torch."""
    parts = []
    for r in range(few):
        leaf, mine = current[r].clone().requires_grad_(), slice(int(first[r]), int(first[r + 1]))
        log_p = formula(leaf, k[mine].tolist(), edges[:, mine], bar, noise, chip.clock)
        torch.autograd.grad(log_p.sum(), leaf)
        parts.append(log_p.detach())
    return torch.cat(parts)


theirs = plain()
torch.testing.assert_close(evaluate(*pulses, 0.0, True)[0][: len(theirs)], theirs, rtol=1e-8, atol=1e-8)
size = current.numel() * 8
bench({"200 pulses, value and slopes": lambda: evaluate(*pulses, 1e-4, True)}, 2 * size)
bench({"200 pulses, exact": lambda: evaluate(*pulses, 0.0, True)}, 2 * size, repeats=3)
bench({"4 pulses, exact": lambda: evaluate(*some, 0.0, True)}, 2 * size * few // rows)
bench({"4 pulses, exact, torch": plain}, 2 * size * few // rows, repeats=1)

if FILES:
    parts = [read_segments(FILES / f"muons_{i}.h5") for i in range(4)]
    segments = Segments.cat([dataclasses.replace(s, event=s.event + 1000 * i) for i, s in enumerate(parts)])
else:
    segments = gun.shoot(detector, events=16, energy=300.0, seed=1)
sim = Simulator(detector)
with torch.no_grad():
    measured = sim(segments, seed=1)
names = (*Parameters.SIX, "time_offset")
likelihood = HitLikelihood(chip)
with torch.no_grad():
    waves = sim.waveforms(segments, tangents=names)
bytes_moved = waves.values.numel() * 4 * (2 + len(names))
bench(
    {
        "waveforms with seven tangents": lambda: sim.waveforms(segments, tangents=names),
        "their likelihood and information": lambda: likelihood.of_waveforms(waves, detector, measured, names),
        "both": lambda: likelihood.likelihood(sim, segments, measured, names, True),
    },
    bytes_moved,
    repeats=5,
)
