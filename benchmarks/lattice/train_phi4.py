"""Trains a checkerboard flow of phi^4 (m2 = -4, lam = 8) by the reverse KL, and measures it on fresh samples in double.

    python train_phi4.py --seconds 240 --json phi4.json
    python train_phi4.py --shape 2 8 --layers 8 --seconds 30      # ln Z is known: shared/golden/flows/scalar_exact.json

`--seconds` are those of the processor, evaluations of the curve included. What is written as JSON: the options, the
curve (processor seconds, samples seen, ESS of 8192 fresh samples), and of 65 536 fresh samples ESS and ln Z.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from hepops.flows import Flow
from hepops.flows.training import train_sampler
from hepops.flows.weights import effective_sample_size, log_normaliser
from hepops.lattice import Phi4
from hepops.lattice.flows import affine_flow, spline_flow
from torch import Tensor

EXACT = {(2, 4): 1.4936526544175166, (2, 8): 2.9318987780187236}  # scalar_exact.json, convention A


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", default=[8, 8])
    parser.add_argument("--kind", choices=("affine", "spline"), default="affine")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, nargs="*", default=[8, 8])
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--odd", action="store_true", help="layers that commute with a change of sign")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--loss", choices=("reverse_kl", "path"), default="reverse_kl")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--points", type=int, default=12, help="of the curve")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def made(theory: Phi4, o: argparse.Namespace) -> Flow:
    torch.manual_seed(o.seed)
    common = {"layers": o.layers, "hidden": o.hidden, "kernel": o.kernel, "odd": o.odd}
    if o.kind == "spline":
        return spline_flow(theory, **common)
    return affine_flow(theory, activation="tanh" if o.odd else "leaky_relu", recompute="inverse", **common)


@torch.no_grad()
def log_weights(flow: Flow, theory: Phi4, count: int, seed: int) -> Tensor:
    """ln w of fresh samples: the flow and the action in double, the weights as they were trained."""
    weights = {name: p.detach().clone() for name, p in flow.state_dict().items()}
    base, flow.base = flow.base, theory.prior(torch.float64)
    flow.double()
    parts = []
    for first in range(0, count, 4096):
        phi, log_q = flow.rsample_and_log_prob(min(4096, count - first), seed=seed, first=first)
        parts.append(theory.log_prob(phi) - log_q)
    flow.base = base
    flow.float()
    flow.load_state_dict(weights)
    return torch.cat(parts)


def main() -> None:
    o = options()
    budget = 60 * o.minutes if o.minutes else o.seconds
    torch.set_num_threads(o.threads)
    theory = Phi4(o.shape, -4.0, 8.0)
    began = time.process_time()
    # how many steps the budget allows: by the time of a few, of a flow that is thrown away
    trained = {"batch": o.batch, "lr": o.lr, "loss": o.loss, "clip": 10.0, "seed": o.seed}
    trial = made(theory, o)
    train_sampler(trial, theory.log_prob, steps=5, **trained)
    start = time.process_time()
    train_sampler(trial, theory.log_prob, steps=20, **trained)
    each = (time.process_time() - start) / 20
    flow = made(theory, o)
    log_weights(flow, theory, 8192, 0)
    start = time.process_time()
    log_weights(flow, theory, 8192, 0)
    look = time.process_time() - start
    steps = max(int((budget - (start - began) - o.points * look) / each), 10)
    curve: list[dict[str, float]] = []

    def progress(step: int, _steps: int, _row: dict[str, float]) -> None:
        if step % max(steps // o.points, 1) == 0:
            spent = time.process_time() - began
            ess = float(effective_sample_size(log_weights(flow, theory, 8192, 1000 + step)))
            curve.append({"cpu_seconds": round(spent, 1), "samples": step * o.batch, "ess": round(ess, 4)})
            print(f"{spent:8.1f} s  step {step:6}  ESS {ess:.3f}", flush=True)

    train_sampler(flow, theory.log_prob, steps=steps, progress=progress, **trained)
    spent = time.process_time() - began
    log_w = log_weights(flow, theory, 65536, 7)
    z, ess = log_normaliser(log_w), float(effective_sample_size(log_w))
    exact = EXACT.get(tuple(o.shape))
    print(f"{steps} steps of {o.batch}, {spent:.0f} s of the processor, {o.threads} threads")
    print(f"ESS {ess:.4f} of 65536, ln Z {z.value:.5f} +- {z.error:.5f}" + (f", exact {exact:.5f}" if exact else ""))
    if o.json:
        rest = {k: v for k, v in vars(o).items() if k not in ("json", "minutes")}
        result = {"cpu_seconds": round(spent, 1), "steps": steps, "ess": ess}
        result |= {"log_z": float(z.value), "log_z_error": float(z.error), "log_z_exact": exact}
        where = {"machine": platform.machine(), "torch": torch.__version__}
        o.json.write_text(json.dumps({"options": rest, **where, **result, "curve": curve}, indent=2) + "\n")


if __name__ == "__main__":
    main()
