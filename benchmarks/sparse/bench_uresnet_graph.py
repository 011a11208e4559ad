"""A whole UResNet (32 filters, depth 5) at 20 k voxels on a GPU, captured in a CUDA graph: forward and training step.

The maps are given, and a captured pass is compared with the eager one to the last bit before it is timed. Bars: 1.5 ms
forward, 4 ms a step, 10 ms a step without the graph. Without a GPU there is nothing to measure.

python benchmarks/sparse/bench_uresnet_graph.py [--voxels 20000] [--json]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "tests"))

import torch
from harness import record
from hepops.sparse import SparseTensor, models
from sparse.events import events


class Pass:
    """Forward and training step of a network on voxels whose maps are there."""

    def __init__(self, voxels: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        coordinates = events(voxels, seed=1).cuda()
        self.net = models.UResNet(in_channels=1, num_classes=5, filters=32, depth=5, reps=2).cuda()
        self.features = torch.rand(len(coordinates), 1, device="cuda")
        self.labels = torch.randint(0, 5, (len(coordinates),), device="cuda")
        first = SparseTensor(self.features, coordinates)
        self.at = {"coordinate_map_key": first.coordinate_map_key, "coordinate_manager": first.coordinate_manager}
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-4)
        self.autocast = torch.autocast("cuda", dtype, enabled=dtype != torch.float32, cache_enabled=False)

    def forward(self) -> torch.Tensor:
        self.net.eval()
        with torch.no_grad(), self.autocast:
            return self.net(SparseTensor(self.features, **self.at)).features

    def step(self) -> torch.Tensor:
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            logits = self.net(SparseTensor(self.features, **self.at)).features
            loss = torch.nn.functional.cross_entropy(logits, self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


COLUMNS = {
    "forward_ms": "{}, forward",
    "step_ms": "{}, step",
    "eager_forward_ms": "eager, {}, forward",
    "eager_step_ms": "eager, {}, step",
}


def capture(run: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Median of single runs, between events."""
    times = []
    for turn in range(repeats + 5):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        if turn >= 5:
            times.append(start.elapsed_time(stop))
    return sorted(times)[len(times) // 2]


def measure(voxels: int, dtype: torch.dtype, tf32: bool) -> dict[str, float]:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    p = Pass(voxels, dtype)
    graph, y = capture(p.forward)
    p.features.copy_(torch.rand_like(p.features))
    graph.replay()
    assert torch.isfinite(y).all()
    assert torch.equal(y, p.forward()), "what was captured differs from what runs eagerly"
    row = {"voxels": float(voxels), "forward_ms": milliseconds(graph.replay, 50)}
    row["eager_forward_ms"] = milliseconds(p.forward, 20)
    row["eager_step_ms"] = milliseconds(p.step, 20)
    graph, loss = capture(p.step)
    row["step_ms"] = milliseconds(graph.replay, 50)
    assert torch.isfinite(loss).all()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--json", nargs="?", help="merge into results/<machine>.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing to capture")
        return
    rows = {}
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        rows[name] = measure(options.voxels, dtype, tf32)
        print(name, "  ".join(f"{key} {value:.2f}" for key, value in rows[name].items()))
    torch.backends.cuda.matmul.allow_tf32 = False
    record(
        {
            name.format(dtype): {"seconds": 1e-3 * row[column], "voxels": row["voxels"]}
            for dtype, row in rows.items()
            for column, name in COLUMNS.items()
        }
    )


if __name__ == "__main__":
    main()
