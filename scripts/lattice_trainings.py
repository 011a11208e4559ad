"""The figure of trained lattice flows in docs/lattice-flows.md, from the curves in benchmarks/results/curves.

python scripts/lattice_trainings.py docs/images
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

CURVES = Path(__file__).parents[1] / "benchmarks" / "results" / "curves"
STYLES = [  # Okabe and Ito, with strokes of their own
    ("#0072B2", "-"), ("#D55E00", "-"), ("#009E73", "--"), ("#CC79A7", "--"), ("#E69F00", "-."), ("#000000", ":"),
]  # fmt: skip
SMOOTH = 8  # points of a running mean: a batch's effective sample size is noisy


def main(folder: Path) -> None:
    figure, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for path, (colour, stroke) in zip(sorted(CURVES.glob("*.json")), STYLES, strict=True):
        found = json.loads(path.read_text())
        seconds, ess = (torch.tensor(found["curve"][k], dtype=torch.float64) for k in ("seconds", "ess"))
        width = SMOOTH if len(ess) > 10 * SMOOTH else 1
        mean = torch.nn.functional.avg_pool1d(ess[None], width, 1)[0]
        name = found["name"].replace("beta", "β")
        axis.plot(seconds[-len(mean) :], mean, lw=1.4, color=colour, linestyle=stroke, label=name)
        axis.plot(found["seconds"], found["ess"], "o", color=colour)
    axis.set_xscale("log")
    axis.set_ylim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("processor time of the training [s]")
    axis.set_ylabel("effective sample size / N")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(folder / "lattice-trainings.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
