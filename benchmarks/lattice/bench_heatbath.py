"""Heatbath sweeps per link, against the same algorithm in torch's operators (whole colours at once)."""

import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.lattice import SUN, U1, Heatbath
from hepops.lattice.samplers import formula

torch.set_num_threads(1)


def drawn(link, count):
    return torch.rand(len(link), 2, dtype=torch.float64)


for name, theory in {
    "U(1) 8^4": U1((8,) * 4, 1.0),
    "SU(2) 8^4": SUN(2, (8,) * 4, 2.3),
    "SU(3) 8^4": SUN(3, (8,) * 4, 6.0),
}.items():
    sampler = Heatbath(theory)
    chains = sampler.run(20, 1, seed=1).chains
    small = type(theory)(*((2,) * 4,), 1.0) if isinstance(theory, U1) else SUN(theory.n, (2,) * 4, theory.beta)
    field = small.random(1, seed=1)
    start = sampler.__class__(small).start(field, 3)
    Heatbath(small).update(start)
    wanted = formula.heatbath(small, field, formula.named(3, 0))
    off = (start.field - wanted).abs()
    assert (off if off.is_complex() or theory.complex else torch.minimum(off, 2 * math.pi - off)).max() < 1e-9
    field = chains.field
    links = theory.dims * theory.sites
    times = seconds(
        {
            "heatbath": lambda s=sampler, c=chains: s.update(c),
            "over-relaxation": lambda s=sampler, f=field: s.reflect(f),
            "heatbath, torch": lambda t=theory, f=field: formula.heatbath(t, f, drawn),
        },
        5,
    )
    for kind, time in times.items():
        print(f"{name:10} {kind:18} {1e6 * time / links:8.3f} us a link")
    print(f"{name:10} {times['heatbath, torch'] / times['heatbath']:.0f} times faster than torch")
    record({f"{name} {k}": {"seconds": t, "us_per_link": round(1e6 * t / links, 3)} for k, t in times.items()})
