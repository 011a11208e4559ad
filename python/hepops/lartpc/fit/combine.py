r"""Results of several runs as one: generalised least squares on values and covariances.

.. math:: \hat\theta = \Big(\sum_r P_r^T I_r P_r\Big)^{-1} \sum_r P_r^T I_r \hat\theta_r

P_r picks a run's parameters among all, I_r is the inverse of its covariance. A prior that several runs were given alike
is taken out of each and put in once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .space import TIME_OFFSET


class Fitted(Protocol):
    """What `combine` needs of a result; a combination is one again."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> Tensor: ...
    @property
    def covariance(self) -> Tensor: ...
    @property
    def config(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Combined:
    """Parameters of several runs together; one that a run has for itself is called name[run]."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Tensor  # (K) physical
    covariance: Tensor  # (K, K)
    chi2: float  # of the runs' disagreement
    ndof: int
    config: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        if name not in self.names:
            raise KeyError(f"{name} is not in this combination: {', '.join(self.names)}")
        return float(self.values[self.names.index(name)])

    @property
    def errors(self) -> Tensor:
        """(K) one standard deviation."""
        return self.covariance.diagonal().sqrt()

    @property
    def p_value(self) -> float:
        """Probability of a disagreement as large as this, or larger; NaN where nothing is shared."""
        if not self.ndof:
            return float("nan")
        half = torch.tensor([self.ndof / 2, self.chi2 / 2], dtype=torch.float64)
        return float(torch.special.gammaincc(half[0], half[1]))

    def summary(self) -> str:
        """A table for the terminal."""
        width = max(map(len, self.names))
        rows = zip(self.names, self.values.tolist(), self.errors.tolist(), self.units, strict=True)
        lines = [f"{name:{width}}  {value:14.8g} +- {error:9.3g}  {unit}" for name, value, error, unit in rows]
        return "\n".join((*lines, f"chi2 {self.chi2:.4g} of {self.ndof} degrees of freedom, p = {self.p_value:.3g}"))


def combine(results: Sequence[Fitted], shared: Iterable[str] | None = None) -> Combined:
    """Combine the results of independent runs.

    Args:
        results: At least two, of `fit` (or of `combine`).
        shared: Parameters that are the same in all runs that have them. None: all that more than one run has, but for
            the time offset, which a run has for itself.

    Returns:
        `Combined`. Exact where the likelihoods are Gaussian.

    Raises:
        ValueError: fewer than two results, a shared name that no two runs have, priors of one parameter that differ, a
            covariance that is not finite, or a direction that none of the runs knows.
    """
    if len(results) < 2:
        raise ValueError(f"combine: needs at least two results, got {len(results)}")
    everywhere = [name for result in results for name in result.names]
    twice = [name for name in dict.fromkeys(everywhere) if everywhere.count(name) > 1]
    chosen = tuple(name for name in twice if name != TIME_OFFSET) if shared is None else tuple(shared)
    for name in chosen:
        if name not in twice:
            raise ValueError(f"combine: shared {name!r} is not a parameter of two results ({', '.join(twice)})")
    labels = [
        tuple(n if n in chosen or n not in twice else f"{n}[{r}]" for n in result.names)
        for r, result in enumerate(results)
    ]
    names = tuple(dict.fromkeys(label for row in labels for label in row))
    units = {
        label: unit for row, r in zip(labels, results, strict=True) for label, unit in zip(row, r.units, strict=True)
    }
    information = torch.zeros((len(names), len(names)), dtype=torch.float64)
    rhs = torch.zeros(len(names), dtype=torch.float64)
    priors: dict[str, tuple[float, float]] = {}
    parts = []
    for number, (row, result) in enumerate(zip(labels, results, strict=True)):
        if not bool(torch.isfinite(result.covariance).all()):
            raise ValueError(f"combine: the covariance of result {number} is not finite")
        at = torch.tensor([names.index(label) for label in row])
        own = _inverse(result.covariance)
        parts.append((at, own, result.values))
        mean, weight = _priors(result, row, priors)
        information[at[:, None], at] += own - torch.diag(weight)
        rhs[at] += own @ result.values - weight * mean
    for label, (centre, sigma) in priors.items():
        information[names.index(label), names.index(label)] += sigma**-2
        rhs[names.index(label)] += centre * sigma**-2
    size = information.diagonal().clamp_min(1e-300).rsqrt()
    scaled = information * size * size[:, None]
    least, vectors = torch.linalg.eigh(scaled)
    if float(least[0]) < 1e-12:
        guilty = [n for n, part in zip(names, vectors[:, 0].abs().tolist(), strict=True) if part > 0.1]
        raise ValueError(f"combine: none of the runs can tell {' and '.join(guilty)} apart")
    covariance = torch.linalg.inv(scaled) * size * size[:, None]
    values = covariance @ rhs
    chi2 = sum(float((values[at] - v) @ own @ (values[at] - v)) for at, own, v in parts)
    ndof = sum(len(at) for at, _, _ in parts) - len(names)
    config = {"priors": {label: list(pair) for label, pair in priors.items()}, "runs": len(results)}
    return Combined(names, tuple(units[n] for n in names), values, covariance, chi2, ndof, config)


def _priors(result: Fitted, labels: Sequence[str], seen: dict[str, tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """Mean and weight of a result's priors (K); collected by label."""
    mean, weight = torch.zeros(len(labels), dtype=torch.float64), torch.zeros(len(labels), dtype=torch.float64)
    for k, (name, label) in enumerate(zip(result.names, labels, strict=True)):
        if name not in result.config.get("priors", {}):
            continue
        m, sigma = (float(x) for x in result.config["priors"][name])
        if label in seen and not torch.allclose(torch.tensor(seen[label]), torch.tensor((m, sigma)), rtol=1e-6):
            raise ValueError(f"combine: the priors of {label} differ: {seen[label]} and {(m, sigma)}")
        seen[label] = (m, sigma)
        mean[k], weight[k] = m, sigma**-2
    return mean, weight


def _inverse(covariance: Tensor) -> Tensor:
    size = covariance.diagonal().clamp_min(1e-300).rsqrt()
    inverse: Tensor = torch.linalg.inv(covariance * size * size[:, None]) * size * size[:, None]
    return inverse
