"""Held-out log-likelihood of a collision sample against zuko's neural spline flow with the same budget.

The sample is `hepops.flows.samples.radiative_return`: eight observables on a curved surface as thick as the detector's
resolution. All flows see the same columns (logarithms and logits, standardised; angles cut open, since zuko's flow has
no circles), the same batches, optimiser, rates and clipping, by the same `Trainer` on one thread. zuko trains for the
seconds given; the same architecture of ours then does the same number of steps, and what the same seconds allow; so
does the default flow of `Density`. Log-densities are those in the units of the table.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from harness import record
from hepops.flows import autoregressive_nsf
from hepops.flows.columns import make_columns
from hepops.flows.density_flow import density_flow
from hepops.flows.samples import COLUMNS, KINDS, radiative_return
from hepops.flows.training import Order, Trainer

BATCH, RATE = 512, 3e-3


class Zuko(nn.Module):
    """zuko's NSF with the interface of ours."""

    def __init__(self) -> None:
        super().__init__()
        import zuko

        self.flow = zuko.flows.NSF(len(COLUMNS), transforms=3, hidden_features=(64, 64), bins=8)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x)


FLOWS = {
    "zuko NSF": Zuko,
    "the same of hepops": lambda: autoregressive_nsf(
        len(COLUMNS), layers=3, bins=8, hidden=(64, 64), mixing="reverse", validate=False
    ),
    "couplings of Density": lambda: density_flow([False] * len(COLUMNS), layers=6, bins=8, hidden=(64, 64)),
}


def columns_of(events: Tensor, learnt: list) -> tuple[Tensor, Tensor]:
    parts = [c.forward(events[:, i]) for i, c in enumerate(learnt)]
    return torch.stack([u for u, _ in parts], 1).float(), torch.stack([s for _, s in parts], 1).sum(1)


def train(name: str, data: Tensor, steps: int) -> tuple[nn.Module, float]:
    """A trained flow, and its processor seconds."""
    torch.manual_seed(0)
    flow, order = FLOWS[name](), Order(len(data), BATCH, seed=1)
    flow.validate = False

    def objective(step: int, first: int, count: int) -> tuple[Tensor, None]:
        return -flow.log_prob(data[order.rows(step, first, count)]).mean(), None

    start = time.process_time()
    Trainer(steps=steps, batch=BATCH, lr=RATE, clip=5.0).run(flow, objective)
    return flow, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the processor, for each training")
    parser.add_argument("--events", type=int, default=50_000)
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    try:
        import zuko  # noqa: F401
    except ImportError:
        print("without zuko, which is not installed (pip install zuko): nothing to compare with")
        return
    kinds = {name: kind if kind[0] != "periodic" else "real" for name, kind in KINDS.items()}
    data, held = (torch.from_numpy(radiative_return(n, seed).values) for n, seed in ((options.events, 1), (20_000, 2)))
    learnt = [c.learnt(data[:, i], None) for i, c in enumerate(make_columns(COLUMNS, kinds))]
    (data, _), (held, slope) = columns_of(data, learnt), columns_of(held, learnt)

    rows: dict[str, dict[str, float]] = {}
    base: Tensor | None = None
    print(f"{'':40} {'steps':>7} {'CPU s':>7} {'ms/step':>8} {'held-out ln p':>14} {'above zuko':>18}")

    def run(name: str, steps: int, label: str) -> None:
        nonlocal base
        flow, seconds = train(name, data, steps)
        with torch.no_grad():
            log_p = torch.cat([flow.log_prob(part).double() for part in held.split(4096)]) + slope
        assert log_p.isfinite().all(), f"{name}: a held-out event has no density"
        base = log_p if base is None else base
        gain = log_p - base  # event by event: what they share drops out
        error = float(gain.std()) / math.sqrt(len(gain))
        numbers = {"steps": steps, "seconds": seconds, "held_out": float(log_p.mean())}
        rows[label] = numbers | {"above_zuko": float(gain.mean()), "above_zuko_error": error}
        print(
            f"{label:40} {steps:7d} {seconds:7.1f} {1e3 * seconds / steps:8.2f} {log_p.mean():14.4f}"
            f" {gain.mean():9.4f} +- {error:.4f}",
            flush=True,
        )

    cost = {name: min(train(name, data, 20)[1] for _ in range(3)) / 20 for name in FLOWS}
    for name in FLOWS:
        steps = max(int(options.seconds / cost[name]), 1)
        if name == "zuko NSF":
            allowed = steps
        elif name == "the same of hepops":
            run(name, allowed, f"{name}, same steps")
        run(name, steps, name if name == "zuko NSF" else f"{name}, same seconds")
    record({label: row | {"threads": 1} for label, row in rows.items()})


if __name__ == "__main__":
    main()
