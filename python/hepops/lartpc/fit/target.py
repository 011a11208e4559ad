"""A likelihood with its data, as a function of the unknowns: what profiles, contours, samplers and minimisers ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .arrow import Arrow
from .metric import Metric
from .optimise import GIVE_UP, attempt
from .problem import Model, Point, Problem
from .residuals import LikelihoodObject
from .state import State

if TYPE_CHECKING:
    from .result import FitResult

MOST = 40  # iterations of a fit within a profile or a toy


@dataclass(frozen=True)
class Target:
    """F = -log L - log priors about the end of a fit; unknowns x are u (K), then the nuisances' deviations (M)."""

    problem: Problem
    objective: LikelihoodObject
    point: Point  # where the fit ended
    metric: Metric | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The common parameters."""
        return self.problem.space.names

    def __deepcopy__(self, memo: object) -> Target:
        return self  # results are copied with what they refer to, not with the data

    def at(self, x: Tensor, derivatives: bool = True) -> Point:
        """Evaluate at any unknowns."""
        return self.problem.at(x, self.objective, self.problem.batches, derivatives)

    def value(self, point: Point) -> float:
        """F at a point."""
        return point.value(self.problem.space, None, torch.ones(2, dtype=torch.float64))

    def model(self, point: Point) -> Model:
        """F, its gradient and the information in the unknowns x."""
        return point.model(self.problem.space, None, torch.ones(2, dtype=torch.float64))

    def unknowns(self, values: Mapping[str, float] | Tensor, deviations: Tensor | None = None) -> Tensor:
        """x of physical values (by name, the others as at the end of the fit; or all K)."""
        space = self.problem.space
        p = values if isinstance(values, Tensor) else self._with(values)
        if not bool(((p >= space.low) & (p <= space.high)).all()):
            bad = int(((p < space.low) | (p > space.high)).nonzero()[0])
            raise ValueError(
                f"{space.names[bad]} = {float(p[bad]):g} is outside its range [{float(space.low[bad]):g}, "
                f"{float(space.high[bad]):g}]"
            )
        tail = self.point.x[len(space) :] if deviations is None else deviations
        return torch.cat((space.unconstrained(p), tail))

    def _with(self, values: Mapping[str, float]) -> Tensor:
        p = self.point.p.clone()
        for name, value in values.items():
            p[self.index(name)] = value
        return p

    def index(self, name: str) -> int:
        """The place of a parameter.

        Raises:
            ValueError: it is not a free parameter.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is not a free parameter of this fit ({', '.join(self.names)})")
        return self.names.index(name)

    def minimise(self, x: Tensor, frozen: tuple[str, ...] = (), most: int = MOST) -> tuple[Point, bool, str]:
        """Scoring from x with some parameters frozen: where it ended, whether it converged, and a message."""
        held = torch.zeros(len(x), dtype=torch.bool)
        held[[self.index(name) for name in frozen]] = True
        point = self.at(x)
        if bool(held.all()):
            return point, True, "nothing is free"
        state = State({}, [], x.tolist(), damping=1e-6, metric=self.point.x.tolist())
        inputs = (self.problem, self.objective, self.problem.batches, state)
        for _ in range(most):
            point, done = attempt(*inputs, point, 0.0, 1e-12, self.metric, held)
            if done:
                return point, True, state.ended or "converged"
            if state.ended or state.damping > GIVE_UP:
                return point, False, state.ended or "stalled"
        return point, False, f"not converged after {most} iterations"

    def moved(self, point: Point) -> Target:
        """The same with another end."""
        return replace(self, point=point)


def target_of(result: FitResult | Target, asks: str) -> Target:
    """The likelihood of a result.

    Raises:
        ValueError: it was not fitted with a likelihood, was read from a file, or rank 0 has it.
    """
    if isinstance(result, Target):
        return result
    if result.target is None:
        raise ValueError(f'{asks}: this result knows no likelihood: fit with residual="likelihood", not from a file')
    if not isinstance(result.target, Target):
        raise ValueError(
            f"{asks}: processes shared this fit, and rank 0 has its likelihood: ask there, or on all of them by "
            f"fit.together(result, question)"
        )
    return result.target


def covariance_of(information: Arrow, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Physical covariance of the common parameters (K, K), and the errors of the nuisances (M), NaN without data."""
    corner, tail = information.inverse()
    k = len(slope)
    size = slope
    variances = torch.cat((corner.diagonal()[k:], tail))
    return corner[:k, :k] * size * size[:, None], torch.where(variances > 0, variances.sqrt(), torch.nan)
