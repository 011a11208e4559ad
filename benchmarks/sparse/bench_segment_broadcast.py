"""One row of 32 channels for each of 16 batch entries to their 100 000 rows, against torch's index_select."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.sparse import segment_broadcast

n, channels, segments = 100_000, 32, 16
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
owner = torch.randint(0, segments, (n,), device=device)
order = owner.sort(stable=True).indices.int()
starts = torch.searchsorted(owner.sort().values, torch.arange(segments + 1, device=device))
v = torch.randn(segments, channels, device=device, requires_grad=True)
grad = torch.randn(n, channels, device=device)
candidates = {
    "broadcast": lambda: segment_broadcast(v.detach(), order, starts),
    "index_select": lambda: v.detach().index_select(0, owner),
    "broadcast, both ways": lambda: torch.autograd.grad(segment_broadcast(v, order, starts), v, grad),
    "index_select, both ways": lambda: torch.autograd.grad(v.index_select(0, owner), v, grad),
}
torch.testing.assert_close(candidates["broadcast"](), candidates["index_select"](), rtol=0, atol=0)
# rows out, order in; the way back reads as much
bench(candidates, v.element_size() * n * channels + 4 * n, repeats=15)
