"""Does an integration tell the truth about itself? Many runs of known integrals, and the PyPI package vegas beside it.

Honesty: `--seeds` runs at `--neval` each. Counted: runs further than 5 standard deviations from the truth, how many
of these had a warning, runs whose lost peaks were found and mended, and warnings about lost peaks where the result is
right (false alarms). Pulls: `--runs` runs of one integral, (mean - truth) / sdev: their width is 1 and their mean 0 if
the errors are right. vegas: 10 iterations of a tenth of neval, of which the first half adapts and is not used.

    python bench_integrator_honesty.py [--seeds 2] [--neval 1000000] [--runs 10] [--only needle8 ...] [--json]
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import torch
from harness import record
from hepops.flows import Integrator
from hepops.flows.integration.integrands import ALL, Known

try:
    import vegas
except ImportError:
    vegas = None

NAMES = ("narrow8", "needle8", "camel2", "camel4", "camel8", "ring", "narrow4")
PULLS = ("camel4", "ring")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--neval", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=NAMES)
    parser.add_argument("--pulls", nargs="*", default=PULLS)
    parser.add_argument("--json", nargs="?")  # read by record()
    return parser.parse_args()


def ours(f: Known, neval: int, seed: int) -> dict[str, Any]:
    start = time.process_time()
    result = Integrator(f, f.dim).integrate(neval, seed=seed)
    assert result.neval <= neval
    return {
        "pull": (result.mean - f.exact) / result.sdev,
        "error": result.sdev / f.exact,
        "ess": result.ess,
        "lost": any("may be lost" in text for text in result.warnings),
        "warned": bool(result.warnings),
        "mended": any("found what learning had missed" in text for text in result.notes),
        "warnings": result.warnings,
        "basin": result.probe.smallest_basin if result.probe else 1.0,
        "seconds": time.process_time() - start,
    }


def theirs(f: Known, neval: int, seed: int) -> dict[str, Any]:
    import gvar

    gvar.ranseed(seed)
    start = time.process_time()

    @vegas.lbatchintegrand
    def batch(x: Any) -> Any:
        return f(torch.from_numpy(x)).numpy()

    integral = vegas.Integrator(f.dim * [[0, 1]])
    integral(batch, nitn=5, neval=neval / 10)
    result = integral(batch, nitn=5, neval=neval / 10, adapt=False)
    return {
        "pull": (result.mean - f.exact) / result.sdev,
        "error": result.sdev / f.exact,
        "warned": result.Q < 1e-3,
        "seconds": time.process_time() - start,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    far = [r for r in runs if abs(r["pull"]) > 5]
    pulls = [r["pull"] for r in runs]
    row = {
        "runs": len(runs),
        "beyond 5 sdev": len(far),
        "beyond 5 sdev without a warning": sum(not r["warned"] for r in far),
        "warned": sum(r["warned"] for r in runs),
        "median relative error": statistics.median(r["error"] for r in runs),
        "pull mean": statistics.mean(pulls),
        "pull width": statistics.stdev(pulls) if len(pulls) > 1 else 0.0,
        "seconds": statistics.median(r["seconds"] for r in runs),
    }
    if "lost" in runs[0]:
        row |= {
            "false alarms": sum(r["lost"] and abs(r["pull"]) <= 5 for r in runs),
            "mended": sum(r["mended"] for r in runs),
            "median ESS": statistics.median(r["ess"] for r in runs),
            "least ESS": min(r["ess"] for r in runs),
            "smallest basin": statistics.median(r["basin"] for r in runs),
        }
    return row


def show(name: str, row: dict[str, float]) -> None:
    print(f"{name:24}", ", ".join(f"{k} {v:.3g}" for k, v in row.items()), flush=True)
    record({name: row})


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options = arguments()
    if vegas is None:
        print("vegas is missing (pip install vegas): no comparison")
    for name in options.only:
        f = ALL[name]
        runs = [ours(f, options.neval, seed) for seed in range(options.seeds)]
        for seed, run in enumerate(runs):
            for text in run["warnings"]:
                print(f"  {name}, seed {seed}, pull {run['pull']:.2f}: {text}")
        show(name, summary(runs))
        if vegas is not None:
            show(f"{name}, vegas", summary([theirs(f, options.neval, seed) for seed in range(min(options.seeds, 20))]))
    for name in options.pulls:
        f = ALL[name]
        show(f"{name}, pulls", summary([ours(f, 200_000, 1000 + seed) for seed in range(options.runs)]))
        if vegas is not None:
            show(f"{name}, pulls, vegas", summary([theirs(f, 200_000, seed) for seed in range(options.runs)]))


if __name__ == "__main__":
    main()
