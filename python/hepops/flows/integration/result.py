"""What an integration gives back: numbers, a table, plots, and gvars."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .honesty import Probe


@dataclass(frozen=True)
class Iteration:
    """One iteration's own estimate; `at` is the point of the largest weight, as f was given it."""

    count: int
    evaluated: int
    mean: Tensor
    sdev: Tensor
    ess: float
    max_weight: float
    zeros: int
    excluded: int
    at: Tensor


@dataclass(frozen=True)
class Result:
    r"""The estimate of an integral.

    Attributes:
        mean: A number, or shape (V,) of a vector integrand.
        sdev: Its standard deviation, same shape.
        covariance: Shape (V, V), V = 1 for a scalar.
        chi2, dof, Q: Of the iterations against their mean, and the probability of a larger chi2.
        ess: :math:`(\sum |w|)^2 / (N \sum w^2)` in [0, 1]: the share of the samples that count.
        neval: Points on which f was called, all of them: learning, the look for lost peaks and the estimate.
        count: Samples of the estimate, those outside the cube included (f is not called there).
        learning, probing, piloting, estimating: How neval divides.
        zeros: Points of the estimate at which f was 0 (cuts).
        excluded: Points at which f was NaN or infinite, in all.
        max_weight: The largest weight over the mean of |w|.
        max_share: The share of the sum of |w| that the largest weight is.
        max_at: Where it is, as f was given it.
        iterations: One entry per iteration of the estimate.
        warnings: What is wrong or may be, in sentences; empty if nothing.
        notes: What was done about it, and what else is of interest.
        probe: The last look for lost peaks; None if it was not taken.
        proposal, why: What samples were drawn from, and the reason it was chosen.
        history: The steps of learning.
        seed: Repeats the run.
        samples, weights: The first samples as f was given them, shape (n, d), and their weights, shape (n, V).
        seconds: Wall clock.
    """

    mean: float | Tensor
    sdev: float | Tensor
    covariance: Tensor
    chi2: float
    dof: int
    Q: float
    ess: float
    neval: int
    count: int
    learning: int
    probing: int
    piloting: int
    estimating: int
    zeros: int
    excluded: int
    max_weight: float
    max_share: float
    max_at: Tensor
    iterations: tuple[Iteration, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    probe: Probe | None
    proposal: str
    why: str
    history: tuple[dict[str, Any], ...]
    seed: int
    samples: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)
    seconds: float = 0.0

    def __str__(self) -> str:
        return "\n".join([*self._values(), *self._account(), *(f"note: {n}" for n in self.notes),
                          *(f"WARNING: {w}" for w in self.warnings)])  # fmt: skip

    def _values(self) -> list[str]:
        means, sdevs = (torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in (self.mean, self.sdev))
        label = ["integral"] if means.numel() == 1 else [f"integral {v}" for v in range(len(means))]
        return [f"{n} = {m:.10g} +- {s:.2g}" for n, m, s in zip(label, means.tolist(), sdevs.tolist(), strict=True)]

    def _account(self) -> list[str]:
        parts = ((self.learning, "learning"), (self.probing, "looking for lost peaks"), (self.piloting, "pilot"),
                 (self.estimating, "estimate"))  # fmt: skip
        return [
            f"chi2/dof = {self.chi2:.3g}/{self.dof}, Q = {self.Q:.2g}; ESS = {self.ess:.3f}, "
            f"largest weight = {self.max_weight:.3g} of the mean",
            f"neval = {self.neval} = " + " + ".join(f"{n} {name}" for n, name in parts if n),
            f"zeros = {self.zeros}, excluded = {self.excluded}; proposal: {self.proposal} ({self.why})",
        ] + ([f"lost peaks: {self.probe}"] if self.probe else [])

    def table(self) -> str:
        """One line per iteration, and the sum of it all."""
        lines = [f"{'it':>4} {'samples':>10} {'mean':>15} {'sdev':>9} {'ESS':>6} {'max w':>8}"]
        for number, part in enumerate(self.iterations):
            lines.append(
                f"{number:4d} {part.count:10d} {float(part.mean[0]):15.8g} {float(part.sdev[0]):9.2g} "
                f"{part.ess:6.3f} {part.max_weight:8.3g}"
            )
        return "\n".join([*lines, str(self)])

    def to_gvar(self) -> Any:
        """A gvar, or an array of correlated ones for a vector. Needs the package gvar."""
        try:
            import gvar  # type: ignore[import-not-found]
        except ImportError as error:
            raise ImportError("Result.to_gvar needs gvar: pip install gvar") from error
        if isinstance(self.mean, float):
            return gvar.gvar(self.mean, self.sdev)
        return gvar.gvar(self.mean.numpy(), self.covariance.numpy())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: all but the samples."""
        skip = ("samples", "weights", "iterations", "probe")
        out = {k: _plain(v) for k, v in vars(self).items() if k not in skip}
        out["iterations"] = [{k: _plain(v) for k, v in vars(part).items()} for part in self.iterations]
        out["probe"] = str(self.probe) if self.probe else None
        return out

    def plot(self, path: str | Path | None = None, truth: float | None = None) -> Any:
        """Estimates by iteration, learning, weights, and the samples in pairs of axes. Needs matplotlib.

        Args:
            path: Written to, where given.
            truth: A line in the first panel.

        Returns:
            The matplotlib figure.
        """
        from .plots import figure

        return figure(self, path, truth)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
