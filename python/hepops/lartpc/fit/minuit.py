"""The likelihood of a fit handed over to iminuit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .problem import Point
from .target import Target, covariance_of, target_of

if TYPE_CHECKING:
    from .result import FitResult


def to_minuit(result: FitResult | Target) -> Any:
    """An `iminuit.Minuit` on the exact gradient, at the end of the fit, with its errors as steps.

    Its parameters are the physical ones, within their ranges, then the nuisances' deviations; errordef is 1/2, since
    the function is -log L (less log priors). ``m.migrad()``, ``m.hesse()``, ``m.minos("lifetime")`` work as ever.

    Raises:
        ImportError: iminuit is not installed.
        ValueError: a result without likelihood.
    """
    target = target_of(result, "to_minuit")
    try:
        from iminuit import Minuit  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ImportError("to_minuit needs iminuit: pip install iminuit") from None
    space, k = target.problem.space, len(target.names)
    edge = 1.01e-3 * (space.high - space.low)  # where the fit's own variables end
    last: list[tuple[list[float], Point]] = []

    def evaluated(x: Sequence[float]) -> Point:
        """The last point is kept: value and gradient are asked for one after the other."""
        key = [float(v) for v in x]
        if not last or last[0][0] != key:
            p = torch.tensor(key[:k], dtype=torch.float64)
            point = target.at(target.unknowns(p, torch.tensor(key[k:], dtype=torch.float64)))
            last[:] = [(key, point)]
        return last[0][1]

    def value(x: Sequence[float]) -> float:
        return target.value(evaluated(x))

    def gradient(x: Sequence[float]) -> list[float]:
        point = evaluated(x)
        slope = torch.cat((point.slope, torch.ones(len(point.x) - k, dtype=torch.float64)))
        physical: list[float] = (target.model(point).gradient / slope).tolist()
        return physical

    names = (*target.names, *target.problem.unknowns.labels)
    begin: Tensor = torch.cat((target.point.p, target.point.x[k:]))
    minuit = Minuit(value, begin.tolist(), grad=gradient, name=names)
    minuit.errordef = Minuit.LIKELIHOOD
    covariance, spread = covariance_of(target.model(target.point).information, target.point.slope)
    errors = torch.cat((covariance.diagonal().sqrt(), spread.nan_to_num(1.0)))
    for name, error in zip(names, errors.tolist(), strict=True):
        minuit.errors[name] = error
    for name, low, high in zip(target.names, (space.low + edge).tolist(), (space.high - edge).tolist(), strict=True):
        minuit.limits[name] = (low, high)
    return minuit
