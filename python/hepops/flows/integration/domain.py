r"""What is integrated over: axes between limits, finite or not, and sums over an index, all seen as a unit cube.

Axis by axis, with u in (0, 1) and the Jacobian :math:`J = \prod dx/du`:

===============================  ==================================  =================================
limits                           x                                   dx/du
===============================  ==================================  =================================
a, b                             :math:`a + (b - a) u`               :math:`b - a`
a, :math:`\infty`                :math:`a + u / (1 - u)`             :math:`1 / (1 - u)^2`
:math:`-\infty`, b               :math:`b - (1 - u) / u`             :math:`1 / u^2`
:math:`-\infty`, :math:`\infty`  :math:`\tan \pi (u - 1/2)`          :math:`\pi (1 + x^2)`
an index k with weights v        k, where u lies in its cell         :math:`v_k / p_k`
===============================  ==================================  =================================

The cells of an index cut (0, 1) into parts of width :math:`p_k`: these are the probabilities of the terms, and they
are learned: :math:`p_k \propto v_k \sqrt{\langle f^2 \rangle_k}` makes the variance smallest.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor

Limits = int | Sequence[tuple[float, float]]
_EDGE = 2.0**-53  # an infinite limit is not reached


class Domain:
    """The axes of an integral and their map from the unit cube.

    Args:
        bounds: The dimension d of the unit cube, or (low, high) for each axis; infinite limits are allowed.
        discrete: Axis -> how many terms its sum has, or the weight of each term. Such an axis gives f the index
            0, 1, ... as a number; its limits in `bounds` are not looked at.
    """

    def __init__(self, bounds: Limits, discrete: Mapping[int, int | Sequence[float]] | None = None) -> None:
        self.limits = _limits(bounds)
        if discrete is not None and not isinstance(discrete, Mapping):
            raise TypeError(f"discrete must map axes to terms, got {type(discrete).__name__}")
        self.dim = len(self.limits)
        self.weights = {axis: _terms(axis, terms, self.dim) for axis, terms in (discrete or {}).items()}
        self.probabilities = {axis: weights / weights.sum() for axis, weights in self.weights.items()}

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """x, shape (n, d), within the limits to the last bit, and J, shape (n,), of points u in the cube."""
        columns, jacobian = [], torch.ones_like(u[:, 0])
        for axis, (low, high) in enumerate(self.limits):
            x, slope = self._index(axis, u[:, axis]) if axis in self.weights else _continuous(u[:, axis], low, high)
            columns.append(x)
            jacobian = jacobian * slope
        return torch.stack(columns, 1), jacobian

    def _index(self, axis: int, u: Tensor) -> tuple[Tensor, Tensor]:
        p, v = self.probabilities[axis].to(u), self.weights[axis].to(u)
        k = torch.bucketize(u * p.sum(), p.cumsum(0)[:-1], right=True)
        return k.to(u), (v / p)[k]

    def cube(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """u and ln J of points x within the limits: the inverse, for domains without a sum."""
        if self.weights:
            raise ValueError("Domain.cube: an index does not say where in its cell u was")
        x = x.to(torch.float64)
        u = torch.stack([_inverse(x[:, axis], low, high) for axis, (low, high) in enumerate(self.limits)], 1)
        return u, self(u)[1].log()

    def learn_probabilities(self, u: Tensor, squares: Tensor) -> None:
        """Sets the terms' probabilities from the mean of f² (without J) in each of the present cells.

        A term keeps at least a tenth of an equal share: what was not seen is not given up.
        """
        for axis, weights in self.weights.items():
            k = self._index(axis, u[:, axis])[0].long()
            count = torch.bincount(k, minlength=len(weights))
            mean = torch.bincount(k, squares, minlength=len(weights)) / count.clamp(min=1)
            ideal = weights * mean.sqrt()
            if not bool(ideal.sum() > 0):
                continue
            ideal = torch.where(count > 0, ideal / ideal.sum(), self.probabilities[axis])
            self.probabilities[axis] = 0.9 * ideal / ideal.sum() + 0.1 / len(weights)

    def state(self) -> dict[str, Any]:
        return {
            "limits": [[repr(low), repr(high)] for low, high in self.limits],
            "weights": {str(axis): w.tolist() for axis, w in self.weights.items()},
            "probabilities": {str(axis): p.tolist() for axis, p in self.probabilities.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Domain":
        limits = [(float(low), float(high)) for low, high in state["limits"]]
        domain = cls(limits, {int(axis): w for axis, w in state["weights"].items()})
        for axis, p in state["probabilities"].items():
            domain.probabilities[int(axis)] = torch.tensor(p, dtype=torch.float64)
        return domain


def _limits(bounds: Limits) -> list[tuple[float, float]]:
    if isinstance(bounds, Integral) and not isinstance(bounds, bool):
        if bounds < 1:
            raise ValueError(f"bounds: a dimension must be at least 1, got {bounds}")
        return [(0.0, 1.0)] * int(bounds)
    try:
        limits = [(float(low), float(high)) for low, high in cast(Sequence[tuple[float, float]], bounds)]
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be a dimension or (low, high) for each axis, got {bounds!r}") from None
    if not limits:
        raise ValueError("bounds must have at least one axis, got none")
    for axis, (low, high) in enumerate(limits):
        if not low < high or (math.isinf(high - low) and not (math.isinf(low) or math.isinf(high))):
            raise ValueError(f"bounds: low must be below high and high - low finite, got {low}, {high} on axis {axis}")
    size = sum(math.log10(high - low) for low, high in limits if math.isfinite(high - low))
    if abs(size) > 300:
        raise ValueError(f"bounds: the volume must lie in [1e-300, 1e300], got 1e{size:.0f}: rescale f's coordinates")
    return limits


def _terms(axis: int, terms: int | Sequence[float], dim: int) -> Tensor:
    if isinstance(axis, bool) or not isinstance(axis, Integral):
        raise TypeError(f"discrete: axes must be integers, got {axis!r}")
    if not 0 <= axis < dim:
        raise ValueError(f"discrete: axes must be in 0 ... {dim - 1}, got {axis}")
    number = isinstance(terms, Integral) and not isinstance(terms, bool)
    try:
        weights = torch.ones(max(int(terms), 0)) if number else torch.as_tensor(terms, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"discrete: axis {axis} needs a count or positive weights, got {terms!r}") from None
    weights = weights.to(torch.float64)
    if weights.dim() != 1 or not len(weights) or not bool(((weights > 0) & weights.isfinite()).all()):
        raise ValueError(f"discrete: axis {axis} needs a count or positive weights, got {terms!r}")
    return weights


def _continuous(u: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    if math.isfinite(low) and math.isfinite(high):
        return (low + (high - low) * u).clamp(low, high), torch.full_like(u, high - low)
    u = u.clamp(_EDGE, 1 - _EDGE)
    if math.isfinite(low):
        return low + u / (1 - u), (1 - u).square().reciprocal()
    if math.isfinite(high):
        return high - (1 - u) / u, u.square().reciprocal()
    x = torch.tan(math.pi * (u - 0.5))
    return x, math.pi * (1 + x.square())


def _inverse(x: Tensor, low: float, high: float) -> Tensor:
    if math.isfinite(low) and math.isfinite(high):
        return (x - low) / (high - low)
    if math.isfinite(low):
        return (x - low) / (1 + x - low)
    if math.isfinite(high):
        return 1 / (1 + high - x)
    return torch.atan(x) / math.pi + 0.5
