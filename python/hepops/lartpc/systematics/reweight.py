r"""Universes drawn from one distribution of the parameters, used for another.

.. math:: w_u \propto \frac{p_{\rm to}(\theta_u)}{p_{\rm from}(\theta_u)}, \qquad
          n_{\rm eff} = \frac{(\sum_u w_u)^2}{\sum_u w_u^2}
"""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..parameters import Parameters

LogDensity = Callable[[Mapping[str, Tensor]], Tensor]


class Weights(NamedTuple):
    values: Tensor  # float64 (n), their sum is 1
    effective: float  # of how many equal universes the result is worth
    largest: float  # share of the heaviest universe


def gaussian_log_density(mean: Mapping[str, float], sigma: Mapping[str, float]) -> LogDensity:
    """Independent Gaussians of the named parameters, without the constant.

    Raises:
        ValueError: an unknown name, names that differ, or a sigma that is not positive.
    """
    if set(mean) != set(sigma) or not mean:
        raise ValueError(f"gaussian_log_density: mean names {sorted(mean)}, sigma {sorted(sigma)}")
    for name, s in sigma.items():
        Parameters.spec(name)
        if not s > 0:
            raise ValueError(f"gaussian_log_density: sigma of {name} must be positive, got {s}")

    def log_density(parameters: Mapping[str, Tensor]) -> Tensor:
        terms = [-0.5 * ((parameters[name] - mean[name]) / sigma[name]) ** 2 for name in mean]
        return torch.stack(terms).sum(0)

    return log_density


def reweight(
    parameters: Mapping[str, Tensor], drawn_from: LogDensity, wanted: LogDensity, *, least: float = 10.0
) -> Weights:
    """Importance weights of universes: hits, events and all observables of a universe take its weight.

    Args:
        parameters: Of the universes, name -> (n): `Universes.parameters`.
        drawn_from: Logarithm of the density that they were drawn from, up to a constant.
        wanted: That of the one they shall stand for.
        least: A warning is given where the effective number is smaller.

    Raises:
        ValueError: a density is NaN, or the wanted one is nowhere above 0.
    """
    log = (wanted(parameters) - drawn_from(parameters)).double()
    if bool(torch.isnan(log).any()) or float(log.max()) in (torch.inf, -torch.inf):
        raise ValueError("reweight: no finite weight: does the density that was drawn from cover the wanted one?")
    w = torch.exp(log - log.max())
    effective = float(w.sum() ** 2 / (w * w).sum())
    w = w / w.sum()
    if effective < least:
        warnings.warn(
            f"hepops: {len(w)} universes are worth {effective:.1f} after reweighting: simulate the wanted ones",
            stacklevel=2,
        )
    return Weights(w, effective, float(w.max()))
