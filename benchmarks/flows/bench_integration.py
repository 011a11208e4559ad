"""Effective samples, seconds and evaluations on integrands that are known, with vegas and MadNIS in the same run.

    python benchmarks/flows/bench_integration.py [names ...] [--seeds 1] [--no-rivals] [--json]

The effective sample size per sample is (sum w)^2 / (n sum w^2) of fresh samples; what a Gaussian throws outside is
counted as zero. MadNIS trains with the same number of evaluations. `found` is the estimate over the exact value; the
needle's second peak, a half, is found by none. Seconds are the processor's, one thread.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import torch
from hepops.flows.integration import FlowProposal, VegasMap, learn
from hepops.flows.integration.integrands import ALL, Known

sys.path.append(str(Path(__file__).parents[1]))
from harness import record

BARS = {
    "camel2": (0.97, 500_000),
    "camel4": (0.94, 500_000),
    "camel8": (0.85, 500_000),
    "narrow4": (0.9, 500_000),
    "narrow8": (0.85, 500_000),
    "needle8": (0.0, 500_000),
    "ring": (0.93, 500_000),
    "ridge": (0.8, 500_000),
    "banana4": (0.8, 3_000_000),
    "resonance6": (0.5, 3_000_000),
}
FRESH = 100_000


def row(w: torch.Tensor, known: Known, evaluations: int, learning: float, sampling: float) -> dict[str, float]:
    ess = (w.sum().square() / w.square().sum() / len(w)).item()
    return {
        "ess": round(ess, 4),
        "found": round(w.mean().item() / known.exact, 5),
        "max_weight": round((w.max() / w.mean()).item(), 1),
        "evaluations": evaluations,
        "learning_s": round(learning, 2),
        "sampling_us": round(1e6 * sampling / len(w), 3),
    }


def ours(known: Known, budget: int, seed: int) -> dict[str, float]:
    start = time.process_time()
    found = learn(known, known.dim, budget, seed)
    learned = time.process_time()
    x, log_q = found.proposal.sample(FRESH, seed + 1000)
    sampled = time.process_time()
    kept = log_q.isfinite()
    w = torch.zeros_like(log_q)
    w[kept] = known(x[kept]) * torch.exp(-log_q[kept])
    print(f"    {', '.join(f'{c.name} {c.ess:.3f}' for c in found.candidates)}")
    return row(w, known, found.evaluations, learned - start, sampled - learned)


def vegas(known: Known, budget: int, seed: int) -> dict[str, float]:
    """Ten iterations of the whole budget; the map's own ESS, from the Jacobian of fresh points."""
    import gvar
    import numpy
    import vegas

    gvar.ranseed(seed + 1)
    numpy.random.seed(seed + 1)

    @vegas.lbatchintegrand
    def f(x: numpy.ndarray) -> numpy.ndarray:
        return known(torch.as_tensor(x)).numpy()

    integrator = vegas.Integrator(known.dim * [[0, 1]])
    start = time.process_time()
    result = integrator(f, nitn=10, neval=budget // 10)
    learned = time.process_time()
    y = numpy.random.random((FRESH, known.dim))
    x, jacobian = numpy.empty_like(y), numpy.empty(FRESH)
    integrator.map.map(y, x, jacobian)
    sampled = time.process_time()
    w = known(torch.from_numpy(x)) * torch.from_numpy(jacobian)
    values = row(w, known, result.sum_neval, learned - start, sampled - learned)
    return values | {"found": round(result.mean / known.exact, 5)}


def madnis(known: Known, budget: int, seed: int) -> dict[str, float]:
    from madnis.integrator import Integrator

    torch.manual_seed(seed + 1)
    steps = 500
    integrator = Integrator(
        lambda x: known(x.double()), known.dim, batch_size=budget // steps, learning_rate=1e-3, dtype=torch.float64
    )
    start = time.process_time()
    integrator.train(steps)
    learned = time.process_time()
    with torch.no_grad():
        batch = integrator.sample(FRESH)
    sampled = time.process_time()
    return row(batch.weights.double(), known, steps * (budget // steps), learned - start, sampled - learned)


RIVALS = {"vegas": vegas, "madnis": madnis}


def point_cost(repeats: int = 30) -> dict[str, float]:
    """A flow of 2 couplings, hidden (64, 64), 8 bins, in 4 dimensions on a map: microseconds per sampled point."""
    proposal = FlowProposal(VegasMap(4), layers=2, bins=8, hidden=(64, 64))
    times = []
    for i in range(repeats):
        start = time.process_time()
        proposal.sample(40_960, i)
        times.append((time.process_time() - start) / 40_960)
    return {"sampling_us": round(1e6 * sorted(times)[repeats // 2], 3), "bar_us": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BARS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--json", nargs="?", const=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {"sampled point, 4-D, 2 couplings": point_cost()}
    print(rows)
    rivals = {} if arguments.no_rivals else {k: v for k, v in RIVALS.items() if importlib.util.find_spec(k)}
    for name in RIVALS:
        if name not in rivals and not arguments.no_rivals:
            print(f"{name} is not installed: python -m pip install {name}")
    for name in arguments.names or BARS:
        known, (bar, budget) = ALL[name], BARS[name]
        for seed in range(arguments.seeds):
            for who, run in {"hepops": ours, **rivals}.items():
                values = run(known, budget, seed) | {"bar": bar}
                rows[f"{name} {who} seed {seed}"] = values
                print(f"{name:11} {who:7} {seed:3} {values}", flush=True)
    record(rows)


if __name__ == "__main__":
    main()
