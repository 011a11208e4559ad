"""Times an elementwise bijection in both directions, alone and with its backward, against other programs' forms."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from harness import bench

n = 1_000_000
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)
torch.manual_seed(1)

Function = Callable[..., Any]


def rival(name: str) -> Any:
    """A module of the `bench` extra, or None: then it says so."""
    try:
        return import_module(name)
    except ImportError:
        print(f"without {name}, which is not installed")
        return None


def compare(
    name: str,
    ours: Function,
    forwards: dict[str, Function],
    x: torch.Tensor,
    raw: torch.Tensor | None = None,
    inverses: dict[str, Function] | None = None,
    repeats: int = 5,
) -> None:
    """`ours(x[, raw], inverse=...)`; the others take (x[, raw]); all give (value, log-derivative)."""
    args = [a.to(device).requires_grad_() for a in (x, raw) if a is not None]
    size = 4 * x.numel()
    parameters = raw.numel() * raw.element_size() if raw is not None else 0
    for inverse, others in ((False, forwards), (True, inverses or {})):
        direction = "inverse" if inverse else "forward"
        functions = {name: lambda *a, inverse=inverse: ours(*a, inverse=inverse), **others}
        with torch.no_grad():
            exact = ours(*(a.double() for a in args), inverse=inverse)
            for key, f in functions.items():
                for out, right in zip(f(*args), exact, strict=True):
                    close = (out - right).abs() <= 1e-3 * (1 + right.abs())
                    assert close.double().mean() > 0.999, key  # float32 forms lose single numbers
            # x in, two out, raw in
            bench(
                {f"{key}, {direction}": lambda f=f: f(*args) for key, f in functions.items()},
                3 * size + parameters,
                repeats,
            )

        def both(f: Function) -> None:
            torch.autograd.backward(f(*args), [torch.ones_like(args[0])] * 2)
            for a in args:
                a.grad = None

        # twice what was read, two grads in, one out
        moved = 7 * size + 3 * parameters
        bench({f"{key}, {direction} + backward": lambda f=f: both(f) for key, f in functions.items()}, moved, repeats)
