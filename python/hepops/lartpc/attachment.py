"""Electron attachment to impurities as a function of the field."""

from typing import NamedTuple

import torch
from torch import Tensor

# 1 mol of argon in a litre of the liquid at its boiling point: 1395.5 g/l over 39.948 g/mol.
_MOLAR = 34.93  # [mol/l]


class Rate(NamedTuple):
    """k(E) = scale (p0 + p1 E + ...) / (1 + q1 E + ...), E in kV/cm."""

    scale: float  # to [1/us] per ppb (molar) of the impurity
    above: tuple[float, ...]
    below: tuple[float, ...]
    to: float  # the field up to which the fit is used here [kV/cm]


_PER_SECOND = 1e-6 * 1e-9  # 1/s for a mole fraction of 1 -> 1/us for 1 ppb
RATES: dict[str, Rate] = {
    # BNL's measurement, arXiv:2205.06888, coefficients as in BNL's calculator of liquid argon properties.
    "O2": Rate(1e11 * _PER_SECOND, (39.4 / 0.925794, 39.4, 1.20062), (0.925794, 1.63816), 2.0),
    # Fits by BNL to G. Bakale, U. Sowada, W. F. Schmidt, J. Phys. Chem. 80 (1976) 2556, in 1/(M s).
    "O2-Bakale": Rate(
        1e10 * _MOLAR * _PER_SECOND, (10.5435, 9701.70895, 6020.07535), (958.28688, 415.2558, 1053.92648), 10.0
    ),
    "N2O": Rate(1e11 * _MOLAR * _PER_SECOND, (1.09709, 6.68216, -0.05016), (0.0276336,), 10.0),
    "SF6": Rate(1e14 * _MOLAR * _PER_SECOND, (1.884705, 0.026195, 0.00009571), (0.240995,), 10.0),
}
IMPURITIES = tuple(RATES)


def _polynomial(coefficients: tuple[float, ...], E: Tensor) -> Tensor:
    value = torch.zeros_like(E)
    for c in reversed(coefficients):
        value = value * E + c
    return value


def attachment_rate(field: float | Tensor, impurity: str = "O2") -> Tensor:
    r"""Rate at which 1 ppb (molar) of an impurity captures electrons, a rational function fitted to measurements.

    .. math:: k(E) = k_0 \frac{p_0 + p_1 E + p_2 E^2}{1 + q_1 E + q_2 E^2 + q_3 E^3}

    Args:
        field: Positive, up to 2 kV/cm for "O2", 10 kV/cm for the others; a number or a tensor of any shape [kV/cm].
        impurity: "O2" (the BNL group's measurement), "O2-Bakale", "N2O" or "SF6" (fits to Bakale et al.).

    Returns:
        float64, of the shape of `field` [1/us per ppb]: the lifetime at a concentration c is 1 / (k c). The measured
        rates are for argon near its boiling point. Capture by O2 and SF6 falls with the field, by N2O it rises.

    Differentiable as torch is.

    Raises:
        ValueError: an unknown impurity, or (on the CPU) a field outside the range of the fit.

    References:
        | G. Bakale, U. Sowada, W. F. Schmidt, J. Phys. Chem. 80 (1976) 2556
        | arXiv:2205.06888

    Example:
        >>> round(1 / attachment_rate(0.5).item())  # us at 1 ppb of oxygen: the field's rule of thumb is 300
        299
    """
    if impurity not in RATES:
        raise ValueError(f"attachment_rate: impurity must be one of {list(RATES)}, got {impurity!r}")
    rate, E = RATES[impurity], torch.as_tensor(field, dtype=torch.float64)
    if E.device.type == "cpu" and not bool(((E > 0) & (E <= rate.to)).all()):
        raise ValueError(f"attachment_rate: field must lie in (0, {rate.to}] kV/cm for {impurity}, got {field}")
    return rate.scale * _polynomial(rate.above, E) / _polynomial((1.0, *rate.below), E)


def lifetime_ratio(field: float | Tensor, reference: float, impurity: str = "O2") -> Tensor:
    """The electron lifetime in a field [kV/cm] over that in the field `reference`: k(reference) / k(field), float64.

    The concentration drops out: it is the lifetime itself that is measured. Arguments as for `attachment_rate`.

    Example:
        >>> round(lifetime_ratio(0.55, reference=0.5).item(), 4)  # 10 % more field
        1.037
    """
    return attachment_rate(reference, impurity) / attachment_rate(field, impurity)
