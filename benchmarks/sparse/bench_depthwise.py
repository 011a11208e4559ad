"""A depthwise 3^3 convolution and its gradients on one core, against a gather and a sum of torch's; in bytes moved."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import numpy as np
import torch
from harness import bench
from hepops.sparse import depthwise
from voxels import kernel_map, voxels

torch.set_num_threads(1)
number = 20_000
coordinates = voxels(number)
m = kernel_map(coordinates[np.random.default_rng(1).permutation(number)])
read, place = m.forward[0].long().unbind(1)
written = m.forward[3].long()[place]
entries = m.forward[1].long()
offset = torch.repeat_interleave(entries[:-1, 1], entries[1:, 0] - entries[:-1, 0])
for channels in (32, 128):
    x, w = torch.randn(number, channels), torch.randn(27, channels)
    leaf, weight = x.clone().requires_grad_(), w.clone().requires_grad_()

    def plain(x=x, w=w):
        return torch.zeros_like(x).index_add_(0, written, x[read] * w[offset])

    def both(leaf=leaf, weight=weight):
        depthwise(leaf, weight, m).sum().backward()

    torch.testing.assert_close(depthwise(x, w, m), plain())
    candidates = {"forward": lambda x=x, w=w: depthwise(x, w, m), "forward + backward": both, "torch, forward": plain}
    # each pair's row, and its eight bytes; each row written
    bytes_moved = len(read) * (4 * channels + 8) + 4 * number * channels
    bench({f"{name}, {channels} channels": run for name, run in candidates.items()}, bytes_moved, repeats=9)
