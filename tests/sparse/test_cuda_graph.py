"""A network whose maps are known can be captured in a CUDA graph: nothing in it waits for what a GPU has computed.

Where there is no GPU, the operators that a forward and backward pass call are looked at on the CPU.
"""

import pytest
import torch
from conftest import needs_gpu
from core.contract import assert_same_bits
from hepops.sparse import SparseTensor, models
from torch.utils._python_dispatch import TorchDispatchMode

from sparse.events import events

# What reads a number on the host, has a size that depends on numbers, or brings numbers from the host.
WAITS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "lift_fresh", "repeat_interleave",
    "_sparse_index", "_sparse_canonical", "_sparse_coarsen", "_sparse_pairs", "_sparse_regroup",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Notes the operators that a CUDA graph cannot hold."""

    def __init__(self):
        super().__init__()
        self.found, self.seen = [], set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        self.seen.add(name)
        masks = name.startswith("index") and any(
            torch.is_tensor(i) and i.dtype in (torch.bool, torch.uint8)
            for a in args
            if isinstance(a, (list, tuple))
            for i in a
        )
        if name in WAITS or masks:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def uresnet(device):
    torch.manual_seed(0)
    return models.UResNet(in_channels=1, num_classes=5, filters=8, depth=3, reps=1).to(device)


class Step:
    """Forward and training step on voxels whose maps a first pass has built."""

    def __init__(self, device, voxels=700):
        self.net, coordinates = uresnet(device), events(voxels, seed=1).to(device)
        self.x = torch.rand(len(coordinates), 1, device=device)
        self.labels = torch.randint(0, 5, (len(coordinates),), device=device)
        first = SparseTensor(self.x, coordinates)
        self.at = {"coordinate_map_key": first.coordinate_map_key, "coordinate_manager": first.coordinate_manager}
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3)

    def infer(self):
        self.net.eval()
        with torch.no_grad():
            return self.net(SparseTensor(self.x, **self.at)).features

    def train(self):
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.net(SparseTensor(self.x, **self.at)).features, self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


@pytest.mark.parametrize("what", ["infer", "train"])
def test_nothing_waits_once_the_maps_are_there(what):
    step = Step("cpu")
    run = getattr(step, what)
    with Waits() as building:
        run()
    assert "_sparse_pairs" in building.seen or "_sparse_index" in building.seen  # so that the next can fail
    with Waits() as waits:
        run()
    assert "sparse_convolve" in waits.seen or "_sparse_convolve_fused" in waits.seen
    assert not waits.found


def captured(run):
    """A graph of run(), and what it returned."""
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


@needs_gpu
def test_a_captured_forward_is_the_eager_one():
    step = Step("cuda")
    graph, y = captured(step.infer)
    for _ in range(3):
        step.x.copy_(torch.rand_like(step.x))
        graph.replay()
        assert_same_bits(y, step.infer())


@needs_gpu
def test_captured_training_is_the_eager_one():
    ours, theirs = Step("cuda"), Step("cuda")
    graph, loss = captured(ours.train)
    for _ in range(3):
        theirs.train()  # as often as the warm-up; a capture runs nothing
    for _ in range(4):
        graph.replay()
        assert_same_bits(loss, theirs.train())
    for a, b in zip(ours.net.parameters(), theirs.net.parameters(), strict=True):
        assert_same_bits(a.detach(), b.detach())
