"""The spectral coupling, 16 384 loops, 8 bins, float64, one thread: forward, and with its backward, against torch."""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).parents[1])]

import torch
from harness import record, seconds
from hepops.lattice import group, spectral
from hepops.lattice.spectral import formula

torch.set_num_threads(1)
torch.manual_seed(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
n, bins = 16384, 8
Images = tuple[torch.Tensor, torch.Tensor]


def both(f: Callable[..., Images], W: torch.Tensor, raw: torch.Tensor, seeds: Images) -> None:
    W, raw = W.detach().requires_grad_(), raw.detach().requires_grad_()
    torch.autograd.grad(f(W, raw), (W, raw), seeds)


for N in (2, 3):
    W = group.random(N, n, seed=1).to(device)
    raw = torch.randn(n, N - 1, 3 * bins + 1, dtype=torch.float64, device=device)
    seeds = torch.randn_like(W), torch.randn(n, dtype=torch.float64, device=device)
    for ours, theirs in zip(spectral(W, raw), formula(W, raw), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    cases: dict[str, Callable[[Callable[..., Images]], object]] = {
        "forward": lambda f, W=W, raw=raw: f(W, raw),
        "inverse": lambda f, W=W, raw=raw: f(W, raw, True),
        "forward + backward": lambda f, W=W, raw=raw, seeds=seeds: both(f, W, raw, seeds),
    }
    for name, run in cases.items():
        times = seconds({"hepops": lambda run=run: run(spectral), "torch": lambda run=run: run(formula)}, 15)
        per = {key: 1e9 * value / n for key, value in times.items()}
        label = f"SU({N}) {name}"
        print(f"{label:26} {per['hepops']:8.1f} ns {per['torch']:9.1f} ns  {per['torch'] / per['hepops']:6.1f}x")
        record({f"{label}, {key}": {"seconds": value, "loops": n} for key, value in times.items()})
