"""What came of a training: its numbers of every step, printed, plotted, written."""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hepops.core.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("step", "loss", "lr", "norm", "ess", "seconds")
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"


@dataclass
class History:
    """Columns of numbers, one of each per step, and the validations.

    step counts from 1; loss; lr: the learning rate; norm: that of the gradient before clipping; ess: effective sample
    size of the batch, NaN where there are no weights; seconds: of the clock on the wall, since the start and over all
    resumptions. validation: (step, value) of each.
    """

    columns: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    validation: list[tuple[int, float]] = field(default_factory=list)

    def append(self, **row: float) -> None:
        for name in COLUMNS:
            self.columns[name].append(row[name])

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def to_csv(self, path: str | Path) -> None:
        """One row per step; the column of the validation is filled where there was one."""
        values = dict(self.validation)
        with atomic(path) as part, open(part, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*COLUMNS, "validation"])
            for row in zip(*(self.columns[name] for name in COLUMNS), strict=True):
                writer.writerow([int(row[0]), *map(repr, row[1:]), values.get(int(row[0]), "")])


@dataclass
class Training:
    """The end of a training, or where it stopped; prints and plots."""

    history: History
    step: int  # steps done
    steps: int  # of the plan
    stopped: str  # "steps": the plan is done; "patience": the validation rose; "seconds": out of time
    skipped: int  # steps left out for a loss or gradient that was not finite
    best_step: int  # whose weights the module has now
    best_validation: float  # NaN without validation
    seconds: float

    def __str__(self) -> str:
        lines = [f"steps       {self.step} of {self.steps} in {self.seconds:.1f} s, ended by {self.stopped}"]
        tail = [v for v in self.history["loss"][-100:] if math.isfinite(v)]
        if tail:
            lines.append(f"loss        {sum(tail) / len(tail):.6g} (mean of the last {len(tail)})")
        ess = [v for v in self.history["ess"][-100:] if math.isfinite(v)]
        if ess:
            lines.append(f"ESS         {sum(ess) / len(ess):.2%} (mean of the last {len(ess)})")
        if math.isfinite(self.best_validation):
            lines.append(f"validation  {self.best_validation:.6g} at step {self.best_step}")
        if self.skipped:
            lines.append(f"skipped     {self.skipped} steps, whose loss or gradient was not finite")
        return "\n".join(lines)

    def plot(self) -> "Figure":
        """Loss with its validation, learning rate, norm of the gradient, and the effective sample size if there is one.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plots need matplotlib: pip install hepops[plot]") from None
        has_ess = any(math.isfinite(v) for v in self.history["ess"])
        figure = Figure(figsize=(4.6 * (2 + has_ess), 3.6), dpi=110, layout="constrained")
        axes = figure.subplots(1, 2 + has_ess)
        step, loss = self.history["step"], self.history["loss"]
        axes[0].plot(step, loss, color=GREY, lw=0.5, alpha=0.6)
        axes[0].plot(*_smooth(step, loss), color=BLUE, label="training")
        finite = sorted(v for v in loss if math.isfinite(v))
        if self.history.validation:
            at, values = zip(*self.history.validation, strict=True)
            axes[0].plot(at, values, color=ORANGE, label="validation")
            axes[0].axvline(self.best_step, color=ORANGE, lw=0.8, ls=":")
            finite = sorted([*finite, *(v for v in values if math.isfinite(v))])
        if finite:  # the first steps may be far off: they would hide the rest
            low, high = finite[0], finite[int(0.98 * (len(finite) - 1))]
            pad = 0.05 * (high - low) or 1e-3
            axes[0].set_ylim(low - pad, high + pad)
        axes[0].set(xlabel="step", ylabel="loss")
        axes[0].legend(frameon=False)
        axes[1].semilogy(step, self.history["norm"], color=GREY, lw=0.5, label="norm of the gradient")
        axes[1].semilogy(step, self.history["lr"], color=BLUE, label="learning rate")
        axes[1].set(xlabel="step")
        axes[1].legend(frameon=False)
        if has_ess:
            axes[2].plot(step, self.history["ess"], color=GREY, lw=0.5, alpha=0.6)
            axes[2].plot(*_smooth(step, self.history["ess"]), color=BLUE)
            axes[2].set(xlabel="step", ylabel="effective sample size", ylim=(0, 1))
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
        return figure


def _smooth(step: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Means of up to 200 groups of neighbours."""
    width = max(len(values) // 200, 1)
    groups = [(i, [v for v in values[i : i + width] if math.isfinite(v)]) for i in range(0, len(values), width)]
    kept = [(step[i] + (width - 1) / 2, sum(g) / len(g)) for i, g in groups if g]
    return [s for s, _ in kept], [v for _, v in kept]
