r"""Second derivatives of -log L from its exact score, and the covariance that does not trust the model: the sandwich.

.. math:: H v \approx \frac{g(p + h v) - g(p - h v)}{2 h}, \qquad
    \mathrm{cov} = H^{-1} J H^{-1}, \quad J = \sum_c g_c g_c^T

The score is exact, so that a step h of a fraction of sigma leaves h^2 and rounding alone; a second difference at 2 h
states the error, a third of what they differ by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .target import Target, target_of

if TYPE_CHECKING:
    from .result import FitResult

STEP = 0.1  # sigma
MANY = 10  # events per unknown, from which on sums per event tell the spread of the score


@dataclass(frozen=True)
class Product:
    """A Hessian-vector product with the error of its differences."""

    value: Tensor  # (K) H v, of -log L - log prior, in physical units
    error: Tensor  # (K)


def hvp(result: FitResult | Target, vector: Mapping[str, float] | Tensor, step: float = STEP) -> Product:
    r"""The observed Hessian of :math:`-\log L - \log` prior times a vector, nuisances held.

    Args:
        result: Of a fit with a likelihood; the Hessian is at its end.
        vector: Physical, by name (others zero) or all K.
        step: Length of the difference in sigma, the larger one is twice it.

    Returns:
        `Product`. Not differentiable. Four evaluations of the score.

    Raises:
        ValueError: an unknown name, a zero vector, a step that is not positive, or a result without likelihood.
    """
    target = target_of(result, "hvp")
    v = torch.zeros(len(target.names), dtype=torch.float64)
    if isinstance(vector, Tensor):
        if vector.shape != v.shape:
            raise ValueError(f"vector must be ({len(v)},), one number for each parameter, got {tuple(vector.shape)}")
        v = vector.double()
    else:
        for name, number in vector.items():
            v[target.index(name)] = number
    if not bool(v.any()) or not step > 0:
        raise ValueError(f"vector must not be zero and step must be positive, got {v.tolist()} and {step}")
    k, tail = len(v), torch.zeros(len(target.point.x) - len(v), dtype=torch.float64)
    information = target.model(target.point).information.scaled(_per_physical(target))
    h = step / float(v @ information.times(torch.cat((v, tail)))[:k]) ** 0.5
    near, far = (_difference(target, torch.cat((v, tail)), n * h)[:k] for n in (1, 2))
    return Product(near + (near - far) / 3, (near - far).abs() / 3)


def hessian(result: FitResult | Target, step: float = STEP) -> Product:
    """All columns of `hvp`: value and error (K, K), made symmetric."""
    target = target_of(result, "hessian")
    columns = [hvp(target, v, step) for v in torch.eye(len(target.names), dtype=torch.float64)]
    value, error = (torch.stack([getattr(c, name) for c in columns]) for name in ("value", "error"))
    return Product((value + value.T) / 2, torch.maximum(error, error.T))


def _per_physical(target: Target) -> Tensor:
    """(K + M) du/dp: from unknowns to physical parameters."""
    more = len(target.point.x) - len(target.names)
    return torch.cat((1 / target.point.slope, torch.ones(more, dtype=torch.float64)))


def _gradient(target: Target, p: Tensor, deviations: Tensor) -> Tensor:
    """(K + M) of F with respect to physical parameters and deviations."""
    point = target.at(target.unknowns(p, deviations))
    slope = torch.cat((point.slope, torch.ones(len(deviations), dtype=torch.float64)))
    return target.model(point).gradient / slope


def _difference(target: Target, direction: Tensor, h: float) -> Tensor:
    """(g(+h) - g(-h)) / 2h along a direction of all unknowns (K + M), physical."""
    k, point = len(target.names), target.point
    tail = point.x[k:]
    ends = [_gradient(target, point.p + s * h * direction[:k], tail + s * h * direction[k:]) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * h)


def sandwich(
    result: FitResult | Target, clusters: Literal["event", "interval"] | None = None, step: float = STEP
) -> Tensor:
    r"""The covariance :math:`H^{-1} J H^{-1}` of the common parameters, right even where the model is a little wrong.

    H is the observed Hessian (differences of the exact score), J the spread of the scores that was seen, with what the
    nuisances of single events would take up projected out. Where the model is right it agrees with
    `FitResult.covariance` within the fluctuations of both.

    Args:
        result: Of a fit with a likelihood.
        clusters: What is taken to be independent: "event" or "interval". None: events, where there are ten or more for
            each unknown, else intervals.
        step: Of the differences [sigma].

    Returns:
        (K, K), physical. A prior counts as a measurement with the error that it states.

    Raises:
        ValueError: a result without likelihood, a likelihood without scores, or fewer events than unknowns.
    """
    target = target_of(result, "sandwich")
    terms, unknowns = target.point.likelihood, target.problem.unknowns
    if terms is None or not terms.scores:
        raise ValueError("sandwich: this likelihood returns no scores per interval")
    information = target.model(target.point).information.scaled(_per_physical(target))
    dense = unknowns.dense
    events = target.problem.num_events
    by_event = clusters == "event" or (clusters is None and events >= MANY * dense)
    if clusters not in (None, "event", "interval"):
        raise ValueError(f'clusters must be "event", "interval" or None, got {clusters!r}')
    if by_event and events <= dense:
        raise ValueError(f"sandwich: {events} events cannot tell the spread of {dense} unknowns; use intervals")
    weight = torch.where(information.tail > 0, information.border / information.tail, 0.0)
    J = _by_event(target, weight) if by_event else _by_interval(target, weight)
    prior = torch.cat((target.problem.space.prior_weight, unknowns.weight[len(target.names) : dense]))
    rows = []
    for j in range(dense):
        e = torch.zeros(dense, dtype=torch.float64)
        e[j] = 1.0
        direction = torch.cat((e, -(weight.T @ e)))
        h = step / max(float(information.corner[j, j]), 1e-300) ** 0.5
        near, far = (_difference(target, direction, n * h) for n in (1, 2))
        change = near + (near - far) / 3
        rows.append(change[:dense] - weight @ change[dense:])
    H = torch.stack(rows)
    size = information.corner.diagonal().clamp_min(1e-300).rsqrt()
    inverse = torch.linalg.pinv((H + H.T) / 2 * size * size[:, None]) * size * size[:, None]
    K = len(target.names)
    return (inverse @ (J + torch.diag(prior)) @ inverse)[:K, :K]


def _by_interval(target: Target, weight: Tensor) -> Tensor:
    """The sum over intervals of outer products of scores, single unknowns projected out: A - W B' - B W' + W D W'."""
    terms = target.point.likelihood
    assert terms is not None
    i = terms.information
    cross = weight @ i.border.T
    return i.corner - cross - cross.T + (weight * i.tail) @ weight.T


def _by_event(target: Target, weight: Tensor) -> Tensor:
    """The same over events."""
    terms, unknowns = target.point.likelihood, target.problem.unknowns
    assert terms is not None
    ids = torch.unique(torch.cat([s.event for s in terms.scores]))
    sums = torch.zeros((len(unknowns), len(ids)), dtype=torch.float64)
    for s in terms.scores:
        event = torch.searchsorted(ids, s.event)
        k = len(s.common)
        sums[:k].index_add_(1, event, s.common)
        for f, family in enumerate(unknowns.families):
            flat = sums[family.first : family.first + len(family)].reshape(-1)
            flat.index_add_(0, s.group[f] * len(ids) + event, s.single[f])
    effective = sums[: unknowns.dense] - weight @ sums[unknowns.dense :]
    return effective @ effective.T
