"""Photons of 10^4 deposits on 96 channels of module0: on ticks, and the whole way from segments to waveforms.

The rival on ticks is larnd-sim's way in plain torch: photons summed on ticks of their arrival, then a convolution with
the sampled decay by Fourier transforms; it places photons at the beginning of their tick, so that it is checked on
deposits that arrive there.
"""

import resource
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.lartpc import Detector, LightSimulator, Segments, SolidAngle, VisibilityTable, light_arrivals

torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
kind = {"dtype": torch.float64, "device": device}
deposits, channels, ticks, tick = 10_000, 48, 11_000, 0.001  # of each of two TPCs
tau = torch.tensor([0.007, 1.6], **kind)
generator = torch.Generator(device).manual_seed(1)
photons = torch.rand(channels, deposits, generator=generator, **kind)
whole = torch.randint(0, 3000, (channels, deposits), generator=generator, device=device)
time = (whole.double() + 1e-6) * tick
share = torch.full((deposits,), 0.3, **kind)
half = deposits // 2
offset = torch.tensor([0, half, deposits], device=device)
begin = torch.zeros(2, dtype=torch.long, device=device)


def plain(photons, time):
    """Photons on ticks, then the decay by FFT."""
    k = (time / tick).floor().long()
    arriving = photons.new_zeros(2, channels, ticks)
    arriving[0].scatter_add_(1, k[:, :half], photons[:, :half])
    arriving[1].scatter_add_(1, k[:, half:], photons[:, half:])
    edges = torch.arange(ticks + 1, **kind) * tick
    decay = -(0.3 * torch.exp(-edges / tau[0]) + 0.7 * torch.exp(-edges / tau[1])).diff()
    n = 2 * ticks
    return torch.fft.irfft(torch.fft.rfft(arriving, n) * torch.fft.rfft(decay, n), n)[..., :ticks]


def ours(photons, time):
    return light_arrivals(photons, time, share, tau, offset, begin, ticks, tick)


detector = Detector.module0()
low = torch.tensor([-30.0, -62.0, -31.0], **kind)
start = low + torch.rand(deposits, 3, generator=generator, **kind) * torch.tensor([60.0, 124.0, 62.0], **kind)
start[:, 0] = torch.where(start[:, 0].abs() < 0.5, 5.0, start[:, 0])
zeros = torch.zeros(deposits, dtype=torch.long, device=device)
one = torch.ones(deposits, **kind)
s = Segments(zeros, start, start + 0.1, 0.2 * one, 2.1 * one, 0 * one, zeros + 13, zeros)
table = VisibilityTable.of(SolidAngle.module0(), detector, interpolation="trilinear")
nearest = VisibilityTable.of(SolidAngle.module0(), detector)
models = {"solid angles": SolidAngle.module0(), "table, trilinear": table, "table, nearest": nearest}
simulators = {name: LightSimulator.module0(visibility=m).to(device) for name, m in models.items()}


def peak():
    """Largest memory of the process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Memory first, since the peak of a process never falls.
before = peak()
with torch.no_grad():
    simulators["solid angles"].photons(s)
forward = peak()
simulators["solid angles"].photons(s).values.sum().backward()
print(f"memory above import: photons {forward - before:.0f} MB, and backward {peak() - before:.0f} MB")

for light in simulators.values():
    n = light.photons(s)
    total = n.values.sum() + n.before.sum() + n.after.sum()
    torch.testing.assert_close(total.item(), n.reports["photons_detected"], rtol=1e-11, atol=0)

# The rival's photons begin their decay 1e-6 ticks earlier: 1e-6 of a tick's light.
torch.testing.assert_close(ours(photons, time)[..., 1:-1], plain(photons, time), rtol=1e-5, atol=1e-6)
moved = 8 * (2 * channels * deposits + 2 * channels * ticks)
with torch.no_grad():
    bench(
        {
            "light_arrivals, forward": lambda: ours(photons, time),
            "photons on ticks and FFT, forward": lambda: plain(photons, time),
        },
        moved,
        repeats=10,
    )

photons.requires_grad_(), time.requires_grad_()
results = {"light_arrivals": ours(photons, time), "photons on ticks and FFT": plain(photons, time)}
weight = torch.randn_like(results["photons on ticks and FFT"])
weights = {"light_arrivals": torch.nn.functional.pad(weight, (1, 1)), "photons on ticks and FFT": weight}
inputs = {"light_arrivals": (photons, time), "photons on ticks and FFT": (photons,)}  # the rival has no slope with time
bench(
    {
        f"{name}, backward": lambda name=name: torch.autograd.grad(
            results[name], inputs[name], weights[name], retain_graph=True
        )
        for name in results
    },
    moved,
    repeats=10,
)

with torch.no_grad():
    bench({f"photons, {name}": lambda sim=sim: sim.photons(s) for name, sim in simulators.items()}, moved, repeats=5)
    light = simulators["solid angles"]
    names = ("efield", "birks_a", "birks_k")
    bench(
        {
            "waveforms": lambda: light.waveforms(s),
            "photons, three tangents": lambda: light.photons(s, names),
            "digitised readout": lambda: light(s, seed=1),
        },
        moved,
        repeats=5,
    )
