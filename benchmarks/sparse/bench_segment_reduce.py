"""100 000 rows of 32 channels in 16 batch entries, in random order, to one row each, against torch's index_add."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import bench
from hepops.sparse import segment_reduce

n, channels, segments = 100_000, 32, 16
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
owner = torch.randint(0, segments, (n,), device=device)
order = owner.sort(stable=True).indices.int()
starts = torch.searchsorted(owner.sort().values, torch.arange(segments + 1, device=device))
x = torch.randn(n, channels, device=device)
zeros = torch.zeros(segments, channels, device=device)
candidates = {
    "sum": lambda: segment_reduce(x, order, starts, "sum"),
    "mean": lambda: segment_reduce(x, order, starts, "mean"),
    "index_add": lambda: zeros.index_add(0, owner, x),
    "max": lambda: segment_reduce(x, order, starts, "max"),
    "index_reduce": lambda: zeros.index_reduce(0, owner, x, "amax", include_self=False),
}
torch.testing.assert_close(candidates["sum"](), candidates["index_add"](), rtol=1e-4, atol=1e-2)
torch.testing.assert_close(candidates["max"](), candidates["index_reduce"]())
# features and order in
bench(candidates, x.element_size() * x.numel() + 4 * n, repeats=15)
