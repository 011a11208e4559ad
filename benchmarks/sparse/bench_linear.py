"""A linear layer on 20 000 rows on one core, as a share of what the core can multiply and add, against torch's own."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record, seconds
from hepops.sparse import linear
from peak import peak

torch.set_num_threads(1)
P, number = peak(), 20_000
rows: dict[str, dict[str, float]] = {}
for channels in (16, 32, 64, 128, 160):
    x, w = torch.randn(number, channels), torch.randn(channels, channels)
    torch.testing.assert_close(linear(x, w), (x.double() @ w.double()).float(), rtol=0, atol=1e-3)
    candidates = {"ours": lambda x=x, w=w: linear(x, w), "torch": lambda x=x, w=w: x @ w}
    flop = 2.0 * number * channels**2
    for name, median in seconds(candidates, 30).items():
        name = f"{name}, {channels} channels"
        print(f"{name:30} {1e3 * median:9.3f} ms {1e-9 * flop / median:7.1f} GFLOP/s {flop / median / P:6.2f} P")
        rows[name] = {"seconds": median, "flop": flop, "share_of_peak": round(flop / median / P, 3)}
record(rows)
