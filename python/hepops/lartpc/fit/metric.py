r"""The expected information, from toys: simulated hits at the fit's own point, whose scores know of no misfit.

The outer products of the data's scores estimate the information only where the model fits: far away, a misfit of d
sigma makes them d^2 times too large, and steps as much too short. Those of toys simulated at the present values are
unbiased everywhere (Fisher's scoring), know it to :math:`\sqrt{2 / n}` of n hits each, and cost one likelihood each.

What the data themselves curve more or less than toys do, the gradients of the fit's own steps tell: each accepted step
s with its change y of the gradient corrects the information by :math:`y y^T / y^T s - I s s^T I / s^T I s`, so that
I s = y, and it stays positive (Broyden, Fletcher, Goldfarb, Shanno). Scoring alone would converge linearly.

References:
    | R. Fletcher, A new approach to variable metric algorithms, Comput. J. 13 (1970) 317
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from .arrow import Arrow
from .data import FileBatch
from .problem import Point, Problem
from .residuals import LikelihoodObject
from .sections import Batch

TOYS, TOYS_PER_EVENT = 2, 6  # of a fit's steps; an event alone has few hits to know its offset's information from
ENOUGH, MOST = 2000, 20  # hits of all toys together that know an information to a few percent; toys at most
GOOD = (0.6, 1.6)  # actual over predicted decrease that a metric must keep
CURVED = 0.05  # least y^T s, as a share of s^T I s, of a step that corrects
LEAST = 1e-4  # least s^T I s: below, y is rounding
PAIRS = 12  # steps that are remembered

Pairs = list[list[list[float]]]  # (s, y) of accepted steps, all unknowns, common ones physical


def expected(
    problem: Problem, objective: LikelihoodObject, x: Tensor, batches: Sequence[Batch | FileBatch], toys: int, seed: int
) -> Arrow:
    """The mean over toys of the sum of outer products, common parameters physical.

    Gains per tile are simulated and looked at as one, which changes an information by as much as they differ.
    """
    x = x.clone()
    for family in problem.unknowns.families:
        if family.spec.per == "tile":
            x[family.first : family.first + len(family)] = 0.0
    parts = problem.toy_information(x, objective, batches, toys, seed)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.scaled(torch.full((len(problem.unknowns),), toys**-0.5, dtype=torch.float64))


class Metric:
    """The information that steps are made with; made anew where it has led astray."""

    def __init__(self, problem: Problem, objective: LikelihoodObject):
        self.problem, self.objective = problem, objective
        single = any(f.spec.per == "event" for f in problem.unknowns.families)
        hits = max(1, sum(len(batch.measured) for batch in problem.batches))
        self.toys = max(TOYS_PER_EVENT if single else TOYS, min(MOST, -(-ENOUGH // hits)))
        self.where: list[float] = []
        self.arrow: Arrow | None = None

    def of(
        self, point: Point, batches: Sequence[Batch | FileBatch], where: list[float], pairs: Pairs, seed: int
    ) -> tuple[Point, list[float]]:
        """A point with this information in place of its own, and where that was made: at `where`, if not empty."""
        terms = point.likelihood
        if terms is None or not terms.scored:
            return point, []  # a likelihood that gives an information of its own is believed
        whole = batches is self.problem.batches
        where = where if where and whole else point.x.tolist()
        if self.arrow is None or self.where != where or not whole:
            toys = self.toys if whole else 1
            x = torch.tensor(where, dtype=torch.float64)
            self.arrow = expected(self.problem, self.objective, x, batches, toys, seed)
            self.where = where
        # a direction that toys happen not to know is believed of the data
        none = ~(self.arrow.diagonal > 0)
        arrow = self.arrow
        if bool(none.any()):
            arrow = arrow.plus_diagonal(torch.where(none, terms.information.diagonal, 0.0))
        if whole and not len(arrow.tail):
            arrow = Arrow.dense(corrected(arrow.corner, pairs))
        return dataclasses.replace(point, likelihood=dataclasses.replace(terms, information=arrow)), where


def corrected(information: Tensor, pairs: Pairs) -> Tensor:
    """The information (K, K) that agrees with the last of these steps and their changes of the gradient."""
    for pair in pairs:
        s, y = torch.tensor(pair, dtype=torch.float64)
        along = information @ s
        expected, found = float(s @ along), float(s @ y)
        if expected > LEAST and found > CURVED * expected:
            information = information + torch.outer(y, y) / found - torch.outer(along, along) / expected
    return information


def remembered(pairs: Pairs, point: Point, trial: Point) -> Pairs:
    """The pairs with this step at their end."""
    if point.likelihood is None or trial.likelihood is None:
        return pairs
    common = len(point.p)
    s = torch.cat((trial.p - point.p, (trial.x - point.x)[common:]))
    y = trial.likelihood.gradient - point.likelihood.gradient
    return [*pairs, [s.tolist(), y.tolist()]][-PAIRS:]


def led_astray(accepted: bool, gain: float, small: bool) -> bool:
    """Whether a step says that the metric is wrong."""
    return not small and not (accepted and GOOD[0] < gain < GOOD[1])
