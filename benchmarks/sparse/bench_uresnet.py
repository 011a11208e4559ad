"""A whole UResNet (32 filters, depth 5), maps included: forward, training step, bfloat16, two threads, memory.

spconv's forward is timed beside it where that is installed.

python benchmarks/sparse/bench_uresnet.py [--sizes 1000 5000 20000 100000] [--json]
"""

import argparse
import itertools
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "tests"))

import torch
from harness import clock, record
from hepops.sparse import SparseTensor, models
from sparse.events import events

COLUMNS = {
    "forward_ms": "{} voxels, forward",
    "step_ms": "{} voxels, step",
    "spconv_forward_ms": "spconv, {} voxels, forward",
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.UResNet(
        num_input=1, num_classes=5, filters=32, depth=5, reps=2, activation={"name": "lrelu", "negative_slope": 0.33}
    ).to(DEVICE)


class Step:
    """One training step from coordinates: maps, forward, loss, backward, optimizer."""

    def __init__(self, net: torch.nn.Module, coordinates: torch.Tensor) -> None:
        self.net, self.coordinates = net, coordinates
        self.features = torch.rand(len(coordinates), 1, device=DEVICE)
        self.labels = torch.randint(0, 5, (len(coordinates),), device=DEVICE)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)

    def __call__(self) -> None:
        self.net.train()
        logits = self.net(SparseTensor(self.features, self.coordinates)).features
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, self.labels).backward()
        self.optimizer.step()

    def infer(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        self.net.eval()
        with torch.no_grad():
            return self.net(SparseTensor(self.features.to(dtype), self.coordinates)).features


def spconv_network() -> torch.nn.Module | None:
    """The same layers in spconv, for its forward time on a CPU; None where it is not installed."""
    try:
        import spconv.pytorch as sp
    except ImportError:
        print("without spconv, which is not installed")
        return None
    act, norm = torch.nn.LeakyReLU, torch.nn.BatchNorm1d

    class Block(sp.SparseModule):
        def __init__(self, i: int, o: int, key: str) -> None:
            super().__init__()
            self.skip = torch.nn.Linear(i, o, bias=False) if i != o else None
            self.conv = sp.SparseSequential(
                norm(i), act(0.33), sp.SubMConv3d(i, o, 3, bias=False, indice_key=key),
                norm(o), act(0.33), sp.SubMConv3d(o, o, 3, bias=False, indice_key=key),
            )  # fmt: skip

        def forward(self, x):
            y = self.conv(x)
            return y.replace_feature(y.features + (self.skip(x.features) if self.skip else x.features))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = [32 * (level + 1) for level in range(5)]
            self.first = sp.SubMConv3d(1, w[0], 3, bias=False, indice_key="0")
            self.blocks = torch.nn.ModuleList(
                sp.SparseSequential(Block(c, c, str(level)), Block(c, c, str(level))) for level, c in enumerate(w)
            )
            self.down = torch.nn.ModuleList(
                sp.SparseSequential(norm(a), act(0.33), sp.SparseConv3d(a, b, 2, 2, bias=False, indice_key=f"d{i}"))
                for i, (a, b) in enumerate(itertools.pairwise(w))
            )
            self.up = torch.nn.ModuleList(
                sp.SparseSequential(norm(b), act(0.33), sp.SparseInverseConv3d(b, a, 2, bias=False, indice_key=f"d{i}"))
                for i, (a, b) in enumerate(itertools.pairwise(w))
            )
            self.merge = torch.nn.ModuleList(
                sp.SparseSequential(Block(2 * c, c, str(level)), Block(c, c, str(level)))
                for level, c in enumerate(w[:-1])
            )
            self.last = sp.SparseSequential(norm(w[0]), act(0.33), torch.nn.Linear(w[0], 5))

        def forward(self, x):
            x, planes = self.first(x), []
            for level, block in enumerate(self.blocks):
                x = block(x)
                if level < 4:
                    planes.append(x)
                    x = self.down[level](x)
            for level in reversed(range(4)):
                x = self.up[level](x)
                x = x.replace_feature(torch.cat([x.features, planes[level].features], 1))
                x = self.merge[level](x)
            return self.last(x).features

    class FromCoordinates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net().eval()

        def forward(self, features, coordinates):
            return self.net(sp.SparseConvTensor(features, coordinates, [768] * 3, 1))

    return FromCoordinates()


def median(run, repeats: int, timer=clock) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = timer()
        run()
        times.append(timer() - start)
    return statistics.median(times)


def memory() -> None:
    """Print how far the peak of resident memory grows after import: events, network and training steps at 100 k."""

    def peak() -> float:  # ru_maxrss would begin at that of the process that started this one
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20

    torch.nn.functional.linear(torch.rand(8, 8), torch.rand(8, 8))
    start = peak()
    step = Step(network(), events(100_000, seed=1))
    step()
    step()
    print(peak() - start)


def again(*arguments: str) -> str:
    """What this script prints in a process of its own: threads and peaks begin anew there."""
    return subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20_000, 100_000])
    parser.add_argument("--memory", action="store_true", help="only measure memory, in this process")
    parser.add_argument("--wall", type=int, metavar="THREADS", help="only measure the wall's seconds of a step at 20 k")
    parser.add_argument("--json", nargs="?", help="merge into results/<machine>.json")
    options = parser.parse_args()
    if options.memory:
        return memory()
    torch.set_num_threads(options.wall or 1)
    if options.wall:
        return print(median(Step(network(), events(20_000, seed=1)), 9, time.perf_counter))
    net, rival, rows = network(), spconv_network(), []
    print(f"UResNet, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, maps included, {DEVICE}")
    for size in options.sizes:
        step = Step(net, events(size, seed=1).to(DEVICE))
        repeats = max(3, min(15, 200_000 // size))
        row = {"voxels": size, "forward_ms": 1e3 * median(step.infer, repeats), "step_ms": 1e3 * median(step, repeats)}
        if rival is not None:
            with torch.no_grad():
                row["spconv_forward_ms"] = 1e3 * median(lambda s=step: rival(s.features, s.coordinates), repeats)
        print("  ".join(f"{name} {value:.1f}" for name, value in row.items()))
        rows.append(row)
    result: dict[str, dict[str, float]] = {}
    for row in rows:
        for column, name in COLUMNS.items():
            if column in row:
                result[name.format(row["voxels"])] = {"seconds": 1e-3 * row[column], "threads": 1}
    whole: dict[str, float] = {}
    step = Step(net, events(20_000, seed=1).to(DEVICE))
    if DEVICE == "cpu":
        wall = {threads: float(again("--wall", str(threads))) for threads in (1, 2)}
        print(f"training step on two threads: {wall[1] / wall[2]:.2f} times as fast by the wall")
        whole["two_threads"] = wall[1] / wall[2]
        grown = float(again("--memory"))
        print(f"growth of peak memory, training step at 100 k: {grown:.2f} GB")
        whole["memory_GB"] = grown
    single = median(step.infer, 9)
    net.to(torch.bfloat16)
    half = median(lambda: step.infer(torch.bfloat16), 9)
    print(f"bfloat16 forward at 20 k: {1e3 * half:.1f} ms, {single / half:.2f} times as fast as float32")
    whole["bfloat16_speedup"] = single / half
    record(result | {"whole": whole})


if __name__ == "__main__":
    main()
