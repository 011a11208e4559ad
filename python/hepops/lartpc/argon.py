"""Properties of liquid argon along its boiling line: mobility, diffusion, density, vapour pressure.

Formulas for host and autograd: numbers or float64 tensors of any shape, differentiable as torch is. The simulator's own
mobility is that of csrc/lartpc/drift.h; a test holds the two together.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CRITICAL_TEMPERATURE = 150.687  # [K]
CRITICAL_PRESSURE = 48.63  # [bar]
CRITICAL_DENSITY = 0.5356  # [g/cm3]
TRIPLE_TEMPERATURE = 83.8058  # [K]
ATMOSPHERE = 1.01325  # [bar]

# Mobility and energy of the electrons: Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160, E in kV/cm.
_A, _T0 = (551.6, 7158.3, 4440.43, 4.29, 43.63, 0.2053), 89.0
_B, _T1 = (0.0075, 742.9, 3269.6, 31678.2), 87.0


class Diffusion(NamedTuple):
    """Diffusion coefficients [cm2/us]."""

    transverse: Tensor
    longitudinal: Tensor


def _tensor(x: float | Tensor) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def _temperature(name: str, temperature: float | Tensor) -> Tensor:
    T = _tensor(temperature)
    if T.device.type == "cpu" and not bool(((T >= TRIPLE_TEMPERATURE) & (T <= CRITICAL_TEMPERATURE)).all()):
        raise ValueError(
            f"{name}: temperature must lie between the triple point {TRIPLE_TEMPERATURE} K and the critical point "
            f"{CRITICAL_TEMPERATURE} K, got {temperature}"
        )
    return T


def _field(name: str, field: float | Tensor) -> Tensor:
    E = _tensor(field)
    if E.device.type == "cpu" and not bool((E > 0).all()):
        raise ValueError(f"{name}: field must be positive [kV/cm], got {field}")
    return E


def mobility(field: float | Tensor, temperature: float | Tensor = 87.17) -> Tensor:
    """Mobility of electrons [cm2/V/s] in a field [kV/cm] at a temperature [K], the law of `drift`; float64.

    Raises:
        ValueError: a field that is not positive.

    Example:
        >>> round(mobility(0.5).item(), 3)
        319.29
    """
    E, T = _field("mobility", field), _tensor(temperature)
    a0, a1, a2, a3, a4, a5 = _A
    above = a0 + a1 * E + a2 * E**1.5 + a3 * E**2.5
    return above / (1 + a1 / a0 * E + a4 * E**2 + a5 * E**3) * (T / _T0) ** -1.5


def nominal_diffusion(field: float | Tensor = 0.5, temperature: float | Tensor = 87.17) -> Diffusion:
    r"""What the measurements of Li et al. say of diffusion in a field and at a temperature.

    .. math::
        D_L = \mu \epsilon_L / e, \qquad \frac{D_L}{D_T} = 1 + \frac{E}{\mu} \frac{\partial\mu}{\partial E}, \qquad
        \epsilon_L = \frac{b_0 + b_1 E + b_2 E^2}{1 + (b_1/b_0) E + b_3 E^2} \frac{T}{87\,\mathrm{K}}

    with :math:`\epsilon_L` in eV, E in kV/cm. The simulator does not use it: there both coefficients are parameters of
    their own, and do not follow the field (larnd-sim's convention, whose values are 8.8e-6 and 4.0e-6).

    Args:
        field: [kV/cm].
        temperature: [K].

    Returns:
        Diffusion(transverse, longitudinal) [cm2/us], float64.

    References:
        | Y. Li et al., Nucl. Instrum. Meth. A 816 (2016) 160; the ratio: R. E. Robson, Aust. J. Phys. 25 (1972) 685

    Example:
        >>> [round(1e6 * d.item(), 2) for d in nominal_diffusion(0.5, 87.0)]
        [13.24, 6.63]
    """
    E, T = _field("nominal_diffusion", field), _tensor(temperature)
    a0, a1, a2, a3, a4, a5 = _A
    above, below = a0 + a1 * E + a2 * E**1.5 + a3 * E**2.5, 1 + a1 / a0 * E + a4 * E**2 + a5 * E**3
    above_E, below_E = a1 + 1.5 * a2 * E**0.5 + 2.5 * a3 * E**1.5, a1 / a0 + 2 * a4 * E + 3 * a5 * E**2
    ratio = 1 + E * (above_E / above - below_E / below)
    b0, b1, b2, b3 = _B
    energy = (b0 + b1 * E + b2 * E**2) / (1 + b1 / b0 * E + b3 * E**2) * (T / _T1)
    longitudinal = mobility(E, T) * energy * 1e-6  # cm2/s -> cm2/us
    return Diffusion(longitudinal / ratio, longitudinal)


def density(temperature: float | Tensor) -> Tensor:
    r"""Of the liquid on its boiling line [g/cm3].

    .. math:: \ln(\rho/\rho_c) = 1.5004262\,\theta^{0.334} - 0.3138129\,\theta^{2/3} + 0.086461622\,\theta^{7/3}
              - 0.041477525\,\theta^4, \qquad \theta = 1 - T/T_c

    Raises:
        ValueError: no liquid exists at this temperature.

    References:
        | Ch. Tegeler, R. Span, W. Wagner, J. Phys. Chem. Ref. Data 28 (1999) 779, eq. 2.6

    Example:
        >>> round(density(87.302).item(), 4)
        1.3954
    """
    x = 1 - _temperature("density", temperature) / CRITICAL_TEMPERATURE
    exponent = 1.5004262 * x**0.334 - 0.31381290 * x ** (2 / 3) + 0.086461622 * x ** (7 / 3) - 0.041477525 * x**4
    return CRITICAL_DENSITY * torch.exp(exponent)


def vapour_pressure(temperature: float | Tensor) -> Tensor:
    """On the boiling line [bar] (Tegeler, Span and Wagner 1999).

    Raises:
        ValueError: no liquid exists at this temperature.
    """
    T = _temperature("vapour_pressure", temperature)
    x = 1 - T / CRITICAL_TEMPERATURE
    exponent = -5.9409785 * x + 1.3553888 * x**1.5 - 0.46497607 * x**2 - 1.5399043 * x**4.5
    return CRITICAL_PRESSURE * torch.exp(CRITICAL_TEMPERATURE / T * exponent)


def boiling_point(pressure: float = ATMOSPHERE) -> float:
    """The temperature [K] at which liquid argon boils under a pressure [bar].

    Raises:
        ValueError: a pressure outside that of the triple and the critical point.

    Example:
        >>> round(boiling_point(), 3), round(boiling_point(1.05), 2)
        (87.303, 87.64)
    """
    low, high = TRIPLE_TEMPERATURE, CRITICAL_TEMPERATURE
    ends = [vapour_pressure(T).item() for T in (low, high)]
    if not ends[0] <= pressure <= ends[1]:
        raise ValueError(f"boiling_point: pressure must lie in [{ends[0]:.4f}, {ends[1]:.2f}] bar, got {pressure}")
    for _ in range(50):  # bisection: 67 K / 2^50 is below rounding
        middle = (low + high) / 2
        low, high = (middle, high) if vapour_pressure(middle).item() < pressure else (low, middle)
    return (low + high) / 2
