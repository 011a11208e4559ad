"""The weight gradient of a submanifold 3^3 convolution on one core, as a share of what the core can do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import torch
from harness import record, seconds
from hepops.sparse import weight_gradient
from peak import peak
from voxels import kernel_map, voxels

torch.set_num_threads(1)
P = peak()
rows: dict[str, dict[str, float]] = {}
for number in [int(a) for a in sys.argv[1:] if a.isdigit()] or [20_000, 100_000]:
    coordinates = voxels(number)
    shuffled = coordinates[np.random.default_rng(1).permutation(number)]
    maps = {"random": kernel_map(shuffled), "sorted": kernel_map(coordinates)}
    read, place = maps["random"].forward[0].long().unbind(1)
    written = maps["random"].forward[3].long()[place]
    for channels in (16, 32, 64, 128):
        x, grad = torch.randn(number, channels), torch.randn(number, channels)
        entries = maps["random"].forward[1].long()
        offset = torch.repeat_interleave(entries[:-1, 1], entries[1:, 0] - entries[:-1, 0])
        centre = offset == 13
        exact = x[read[centre]].double().T @ grad[written[centre]].double()
        ours = weight_gradient(x, grad, maps["random"])[13].double()
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-3)  # sums of 10^4 to 10^5 products of order 1
        flop = 2.0 * len(read) * channels**2
        medians = seconds({o: lambda m=m, x=x, g=grad: weight_gradient(x, g, m) for o, m in maps.items()}, 9)
        for order, median in medians.items():
            name = f"{order} rows, {number} voxels, {channels} channels"
            print(f"{name:50} {1e3 * median:9.3f} ms {1e-9 * flop / median:7.1f} GFLOP/s {flop / median / P:6.2f} P")
            rows[name] = {"seconds": median, "flop": flop, "share_of_peak": round(flop / median / P, 3)}
record(rows)
