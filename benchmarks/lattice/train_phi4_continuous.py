"""Trains the continuous flow of phi^4; effective sample size and ln Z of 65 536 fresh samples in double.

    python benchmarks/lattice/train_phi4_continuous.py [--strip] [--json [FOLDER]] [--curve FILE]

8 x 8 sites, m2 = -4, lam = 8 (convention A); with --strip 2 x 8, where ln Z is known exactly: 2.9318987780. Steps are
in float32, by path gradients.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import clock, record
from hepops.flows.training import train_sampler
from hepops.lattice import Phi4
from hepops.lattice.flows import continuous

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--strip", action="store_true")
parser.add_argument("--steps", type=int, default=900)
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--lr", type=float, default=1e-2)
parser.add_argument("--samples", type=int, default=65536)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--curve", type=Path, help="a JSON file for the ESS of the training's batches")
arguments = parser.parse_known_args()[0]


@torch.no_grad()
def log_weights(flow, theory, samples, seed, chunk=2048):
    """ln(e^-S / q) of fresh samples."""
    parts = []
    for first in range(0, samples, chunk):
        phi, log_q = flow.sample_and_log_prob(chunk, seed=seed, first=first)
        parts.append(theory.log_prob(phi) - log_q)
    return torch.cat(parts)


def ess_and_log_z(log_w):
    """(sum w)^2 / (N sum w^2), ln <w> and its error."""
    w = (log_w - log_w.max()).exp()
    ess = (w.mean().square() / w.square().mean()).item()
    return ess, (log_w.max() + w.mean().log()).item(), math.sqrt((1 / ess - 1) / len(w))


theory = Phi4((2, 8) if arguments.strip else (8, 8), m2=-4.0, lam=8.0)
flow = continuous(theory, dtype=torch.float32)
start, cpu = time.perf_counter(), clock()


def progress(step, steps, row):
    if step % 50 == 0:
        passed = time.perf_counter() - start
        print(f"{step:5}/{steps}  KL {row['loss']:.4f}  ESS {row['ess']:.4f}  {passed:.0f} s", flush=True)


training = train_sampler(
    flow,
    theory.log_prob,
    steps=arguments.steps,
    batch=arguments.batch,
    lr=arguments.lr,
    seed=arguments.seed,
    warmup=0.05,
    clip=20.0,
    progress=progress,
)
wall, cpu = time.perf_counter() - start, clock() - cpu
flow = flow.double()
rows = {}
for steps in (8, 16, 32):  # of the integrator: what the training's 8 leave
    flow.transform.transform.steps = steps
    ess, log_z, error = ess_and_log_z(log_weights(flow, theory, arguments.samples, seed=1_000_003))
    print(f"{steps} Runge-Kutta steps: ESS {ess:.4f}, ln Z {log_z:.5f} +- {error:.5f}")
    rows[f"{theory.shape[0]}x{theory.shape[1]}, {steps} Runge-Kutta steps"] = {
        "ess": ess,
        "log_z": log_z,
        "error": error,
        "seconds": cpu,
        "wall_seconds": wall,
        "threads": torch.get_num_threads(),
    }
print(f"{training.step} steps in {wall:.0f} s, {cpu:.0f} s of processor time, {torch.get_num_threads()} threads")
record(rows)
if arguments.curve:
    ess = torch.tensor(training.history["ess"], dtype=torch.float64)
    every = max(len(ess) // 150, 1)
    ess = ess[: len(ess) // every * every].view(-1, every).mean(1)  # of a batch it is noisy
    seconds = [cpu * (i + 1) * every / arguments.steps for i in range(len(ess))]
    shape = "x".join(map(str, theory.shape))
    result = {"name": f"φ⁴ {shape}, continuous", **rows[f"{shape}, 16 Runge-Kutta steps"]}
    curve = {"seconds": seconds, "ess": ess.tolist()}
    arguments.curve.write_text(json.dumps({**result, "curve": curve}, indent=1) + "\n")
