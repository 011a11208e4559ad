"""Kernel maps of a 3^3 kernel from voxels in random order, sort and merging included, against spconv where it imports.

Also all maps of a U-Net of five levels, kernels as wide as their stride, and, in fresh processes, the first call.
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "tests")]

import torch
from harness import bench, record
from hepops.sparse.coordinates import coarsen, index
from hepops.sparse.kernel_map import build, build_pyramid
from sparse.events import events


def box(size: int, low: int) -> torch.Tensor:
    """Offsets (size^3, 3), the first axis fastest."""
    x = torch.arange(size) + low
    z, y, x = torch.meshgrid(x, x, x, indexing="ij")
    return torch.stack([x, y, z], -1).reshape(-1, 3)


CENTRED = box(3, -1)
ONE = (1, 1, 1)


def kernel_map(c: torch.Tensor):
    own, first, _ = index(c, ONE)
    return build(own, c if len(first) == len(c) else c[first], own, CENTRED)


def first_call(n: int, what: str) -> float:
    """Seconds of the first call in a process, after the imports and the voxels."""
    program = (
        f"import sys; sys.path[:0] = {sys.path[-2:]!r}\n"
        "import time, torch; torch.set_num_threads(1)\n"
        "from sparse.events import events; import sparse\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import bench_kernel_map as b\n"
        f"c = events({n}, 1); start = time.process_time(); b.{what}(c); print(time.process_time() - start)"
    )
    return min(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(3))


def rival(c: torch.Tensor):
    """spconv's pairs of the same kernel, or None where it does not import."""
    try:
        from spconv.core import ConvAlgo
        from spconv.pytorch.ops import get_indice_pairs
    except ImportError:
        return None
    three, shape = [3, 3, 3], [768] * 3
    return lambda: get_indice_pairs(c, 1, shape, ConvAlgo.Native, three, [1] * 3, [1] * 3, [1] * 3, [0] * 3, subm=True)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    for n in (5_000, 20_000, 100_000):
        c = events(n, seed=1).to(device)
        made = kernel_map(c)
        assert len(made.pairs) == len(build(index(c, ONE)[0], c, index(c, ONE)[0], CENTRED, plain=True).pairs)
        size = 16 * n + 8 * len(made.pairs)
        candidates = {f"map of 3^3, {n}": lambda c=c: kernel_map(c)}
        theirs = rival(c) if device == "cpu" else None
        if theirs:
            counts = theirs()[2]  # of the pairs, but for the centre's
            assert int(counts.sum()) in (len(made.pairs), len(made.pairs) - n) or 2 * int(counts.sum()) + n == len(
                made.pairs
            ), (counts, len(made.pairs))
            candidates[f"spconv, map of 3^3, {n}"] = theirs
        bench(candidates, size, repeats=20)

        pyramid = build_pyramid(c)
        lists = [x for m in pyramid.submanifold for x in m.forward]
        lists += [x for m in pyramid.strided for x in (*m.forward, *m.backward)]
        size = 16 * n + sum(x.numel() * x.element_size() for x in lists)
        bench({f"all maps of a U-Net, {n}": lambda c=c: build_pyramid(c)}, size, repeats=20)

        own, _, _ = index(c, ONE)
        cells, coarse = coarsen(c, own, (48, 48, 48))
        wide = box(48, 0)
        bench(
            {f"kernel = stride = 48^3, {n}": lambda c=c, o=own, a=cells, b=coarse, w=wide: build(o, a, b, w)},
            24 * n,
            repeats=10,
        )
        for what in ("kernel_map", "build_pyramid") if device == "cpu" else ():
            cold = first_call(n, what)
            print(f"{what}, {n}, first call of a process {1e3 * cold:9.3f} ms")
            record({f"{what}, {n}, first call": {"seconds": cold, "threads": 1}})
    one = events(1, seed=1).to(device)
    start = time.process_time()
    for _ in range(1000):
        kernel_map(one)
    print(f"map of 3^3, one voxel {1e3 * (time.process_time() - start):9.3f} us")


if __name__ == "__main__":
    main()
