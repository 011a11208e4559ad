"""A submanifold 3^3 convolution on one core, as a share of what the core can multiply and add; and spconv, if there.

Rows lie in random order, as a caller has them, and sorted; the schedule is Morton's in both. bfloat16 where the
processor has instructions for it, two threads, one voxel (all of it overhead), and a linear layer.

    python bench_convolve.py [voxels ...]          20 000 and 100 000 by default
"""

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import torch
from harness import record, seconds
from hepops.sparse import convolve
from peak import peak
from voxels import box, kernel_map, voxels

torch.set_num_threads(1)
P = peak()
rows: dict[str, dict[str, float]] = {}


def show(name: str, measured: float, flop: float) -> None:
    print(f"{name:50} {1e3 * measured:9.3f} ms {1e-9 * flop / measured:7.1f} GFLOP/s {flop / measured / P:6.2f} P")
    rows[name] = {"seconds": measured, "flop": flop, "share_of_peak": round(flop / measured / P, 3)}


def exact(x: torch.Tensor, w: torch.Tensor, coordinates: np.ndarray, some: int = 50) -> torch.Tensor:
    """The first rows from a dictionary, in double."""
    at = {tuple(c): i for i, c in enumerate(coordinates.tolist())}
    y = torch.zeros(some, w.shape[2], dtype=torch.float64)
    for o in range(some):
        for k, d in enumerate(box(3).tolist()):
            i = at.get(tuple(a + b for a, b in zip(coordinates[o].tolist(), d, strict=True)))
            if i is not None:
                y[o] += x[i].double() @ w[k].double()
    return y


def rival(coordinates: np.ndarray, channels: int):
    """spconv's layer on its own map, forward, and forward and backward; None where it is not installed."""
    try:
        import spconv.pytorch as spconv
    except ImportError:
        return None
    layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="k", algo=spconv.ConvAlgo.Native)
    at = torch.from_numpy(np.concatenate([np.zeros((len(coordinates), 1)), coordinates], 1).astype(np.int32))
    tensor = spconv.SparseConvTensor(torch.rand(len(coordinates), channels), at, [800] * 3, 1)
    with torch.no_grad():
        tensor = layer(tensor).replace_feature(tensor.features)  # its map is made, and kept
    return lambda: layer(tensor)


def measure(number: int) -> None:
    coordinates = voxels(number)
    shuffled = coordinates[np.random.default_rng(1).permutation(number)]
    maps = {"random": kernel_map(shuffled), "sorted": kernel_map(coordinates)}
    pairs = len(maps["sorted"].forward[0])
    print(f"{number} voxels, {pairs / number:.1f} neighbours; P = {1e-9 * P:.0f} GFLOP/s")
    for channels in (16, 32, 64, 128):
        flop = 2.0 * pairs * channels**2
        x, w = torch.randn(number, channels), torch.randn(27, channels, channels) / channels**0.5
        ours = convolve(x, w, maps["random"])[:50].double()
        torch.testing.assert_close(ours, exact(x, w, shuffled), rtol=0, atol=1e-4)
        leaf, weight = x.clone().requires_grad_(), w.clone().requires_grad_()

        def both(leaf=leaf, weight=weight):
            convolve(leaf, weight, maps["random"]).sum().backward()

        candidates = {f"{order} rows": lambda m=m, x=x, w=w: convolve(x, w, m) for order, m in maps.items()}
        candidates["forward + backward"] = both
        half = x.bfloat16(), w.bfloat16()
        candidates["bfloat16"] = lambda half=half: convolve(*half, maps["random"])
        with torch.no_grad():
            spconv = rival(shuffled, channels) if number <= 20_000 and channels <= 64 else None
            if spconv:
                candidates["spconv"] = spconv
        medians = seconds(candidates, 9)
        for name, median in medians.items():
            times = 3 if name == "forward + backward" else 1
            show(f"{name}, {number} voxels, {channels} channels", median, times * flop)


def two_threads() -> None:
    """The wall's time of one thread over that of two, which other programs on the machine make smaller."""
    number, channels = 20_000, 64
    m = kernel_map(voxels(number))
    x, w = torch.randn(number, channels), torch.randn(27, channels, channels)
    walls = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        best = float("inf")
        for _ in range(15):
            start = time.perf_counter()
            convolve(x, w, m)
            best = min(best, time.perf_counter() - start)
        walls.append(best)
    torch.set_num_threads(1)
    print(f"two threads: {walls[0] / walls[1]:.2f} times one")
    rows["two threads"] = {"gain": round(walls[0] / walls[1], 2)}


def one_voxel() -> None:
    m = kernel_map(np.zeros((1, 3), dtype=np.int64))
    x, w = torch.randn(1, 32), torch.randn(27, 32, 32)
    many = 200
    with torch.no_grad():
        medians = seconds({"one voxel, 32 channels": lambda: [convolve(x, w, m) for _ in range(many)]}, 20)
    for name, median in medians.items():
        print(f"{name:50} {1e6 * median / many:9.2f} us")
        rows[name] = {"seconds": median / many}


for number in [int(a) for a in sys.argv[1:] if a.isdigit()] or [20_000, 100_000]:
    measure(number)
two_threads()
one_voxel()
record(rows)
