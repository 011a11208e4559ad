r"""Two-dimensional gauge theories: every character expansion is a sum over one irrep.

:math:`e^{-S_P(U)} = \sum_r d_r a_r \chi_r(U)`, and on a torus of V plaquettes, of any shape

.. math::
    Z = \sum_r a_r^V, \qquad \langle \tfrac{1}{d_F} \mathrm{Re\,tr} P \rangle = \frac1V \frac{d \ln Z}{d\beta}, \qquad
    \langle W(A) \rangle = \frac1Z \sum_{s,\, r \in s \otimes F} \frac{d_r}{d_s d_F} a_r^A a_s^{V - A}

for a contractible loop around A plaquettes. In infinite volume only the trivial irrep is left outside of the loop:
Z = a_0^V, W = (a_F / a_0)^A.

References:
    | A. A. Migdal, Sov. Phys. JETP 42 (1975) 413; J.-M. Drouffe, J.-B. Zuber, Phys. Rept. 102 (1983) 1, section 3
    | B. Ye. Rusakov, Mod. Phys. Lett. A 5 (1990) 693 (Wilson loops on closed surfaces)
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coupling import real_number
from ..geometry import checked_shape
from .bessel import bessel_ratios

GROUPS = ("U1", "SU2", "SU3")
LARGEST = 1e4  # beta of SU(3): a grid of 2000 x 2000 eigenphases
LARGEST_CHARGE = 1e3  # beta of chi_top: quadrature of 2800 nodes
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Characters:
    """The irreps r of a group at one beta, the trivial one first.

    Attributes:
        log_a0: ln a_0.
        a: a_r / a_0.
        slope: (d a_r / d beta) / a_0.
        dimension: d_r.
        fundamental: d_F.
        products: Pairs (s, r) with r in s x F, shape (2, pairs).
    """

    log_a0: float
    a: Array
    slope: Array
    dimension: Array
    fundamental: int
    products: NDArray[np.int64]


def _checked(group: str, beta: float) -> float:
    if group not in GROUPS:
        raise ValueError(f"exact: group must be one of {', '.join(GROUPS)}, got {group!r}")
    beta = real_number("exact", "beta", beta)
    if group == "SU3" and abs(beta) > LARGEST:
        raise ValueError(f"exact: beta of SU3 must lie within {LARGEST:g} of 0, got {beta!r}")
    return beta


def _count(name: str, value: int, least: int) -> int:
    """A number of plaquettes."""
    if not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"exact: {name} must be a whole number of at least {least}, got {value!r}")
    return operator.index(value)


def _orders(beta: float) -> int:
    """How many orders n it takes until I_n / I_0 ~ exp(-n^2 / 2 beta), or (beta / 2)^n / n!, is below 1e-20."""
    return 24 + int(10 * math.sqrt(abs(beta)))


def _u1(beta: float) -> Characters:
    n_max = _orders(beta)
    log_i0, ratio = bessel_ratios(beta, n_max + 1)
    n = np.arange(-n_max, n_max + 1)
    n = n[np.argsort(np.abs(n), kind="stable")]
    place = {int(k): i for i, k in enumerate(n)}
    pairs = [(place[int(k)], place[int(k) + 1]) for k in n if int(k) + 1 in place]
    # dI_n/dx = (I_{n-1} + I_{n+1}) / 2
    slope = (ratio[np.abs(n - 1)] + ratio[np.abs(n + 1)]) / 2
    return Characters(log_i0, ratio[np.abs(n)], slope, np.ones(len(n)), 1, np.array(pairs).T)


def _su2(beta: float) -> Characters:
    """a_n = 2 I_n(beta) / beta for n = d_r = 1, 2, ..., and da_n/dbeta = 2 I_{n+1} / beta + 2 (n - 1) I_n / beta^2."""
    n_max = _orders(beta)
    log_i0, ratio = bessel_ratios(beta, n_max + 2)
    n = np.arange(1, n_max + 1)
    if abs(beta) < 1e-8:  # to first order: a_1 = 1 + beta^2 / 8, a_2 = beta / 4, a_3 = beta^2 / 24
        a, slope = np.zeros(n_max), np.zeros(n_max)
        a[:2], slope[:3], log_a0 = [1.0, beta / 4], [beta / 4, 0.25, beta / 12], 0.0
    else:
        a0 = 2 * ratio[1] / beta
        a = 2 * ratio[n] / beta / a0
        slope = (2 * ratio[n + 1] / beta + 2 * (n - 1) * ratio[n] / beta**2) / a0
        log_a0 = log_i0 + math.log(a0)
    up = np.array([[k, k + 1] for k in range(n_max - 1)]).T
    return Characters(log_a0, a, slope, n.astype(float), 2, np.concatenate([up, up[::-1]], 1))


def _su3(beta: float) -> Characters:
    r"""f_r = \int dU chi_r(U)^* exp(beta Re tr U / 3), from Weyl's integral over the torus of eigenphases.

    |Delta|^2 chi_r = conj(Delta) sum_w sign(w) e^{i w(l) theta}: f_r is one Fourier coefficient of conj(Delta) e^{-S},
    a smooth periodic function, of which the trapezoidal rule (an FFT) has all the digits. f of irrep lambda =
    (p + q, q, 0), with l = lambda + (2, 1, 0), theta_3 = -theta_1 - theta_2.
    """
    p_max = 12 + int(5 * math.sqrt(abs(beta)))
    points = 2 * (2 * p_max + 8) + 32
    theta = 2 * np.pi * np.arange(points) / points
    x, y = np.exp(1j * theta)[:, None], np.exp(1j * theta)[None, :]
    z = 1 / (x * y)
    trace = (x + y + z).real / 3
    peak = max(beta * 1.0, -beta * 0.5)  # Re tr U / 3 lies in [-1/2, 1]
    weight = np.conj((x - y) * (x - z) * (y - z)) * np.exp(beta * trace - peak)

    def coefficients(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
        return np.asarray(np.fft.ifft2(values))  # mean of values e^{+i k theta}

    f, df = coefficients(weight), coefficients(weight * trace)
    irreps = sorted(
        ((p, q) for p in range(p_max + 1) for q in range(p_max + 1)), key=lambda r: (r[0] + r[1], r[0], r[1])
    )
    place = {r: i for i, r in enumerate(irreps)}
    p, q = np.array(irreps).T
    dimension = (p + 1) * (q + 1) * (p + q + 2) / 2
    # e^{i (l_1 - l_3) theta_1 + i (l_2 - l_3) theta_2}
    a, slope = (c[p + q + 2, q + 1].real / dimension for c in (f, df))
    pairs = [
        (place[s], place[r])
        for s in irreps
        for r in ((s[0] + 1, s[1]), (s[0] - 1, s[1] + 1), (s[0], s[1] - 1))
        if r in place
    ]
    # what is common to all, the sign of the permutation included, falls out of the ratios
    return Characters(math.log(abs(a[0])) + peak, a / a[0], slope / a[0], dimension, 3, np.array(pairs).T)


def characters(group: str, beta: float) -> Characters:
    """The character expansion of e^{-S_P}, extended until what is left out is below 1e-16 of the trivial irrep's.

    Args:
        group: "U1", "SU2" or "SU3".
        beta: Any real number; of SU(3) within 10^4 of 0.

    Raises:
        TypeError: beta is no real number.
        ValueError: another group, or beta not finite or out of range.
    """
    beta = _checked(group, beta)
    return {"U1": _u1, "SU2": _su2, "SU3": _su3}[group](beta)


def log_z(group: str, beta: float, volume: int) -> float:
    """ln Z on any torus of `volume` plaquettes; the measure of each link is Haar's, normalised.

    Raises:
        ValueError: a volume below 1, and as :func:`characters`.

    Example:
        >>> print(round(hepops.lattice.exact.log_z("U1", 2.0, 64), 10))
        52.7355866551
    """
    volume, c = _count("volume", volume, 1), characters(group, beta)
    return volume * c.log_a0 + math.log((c.a**volume).sum())


def plaquette(group: str, beta: float, volume: int | None = None) -> float:
    """The mean of Re tr P / N (U(1): cos theta_P) on a torus of `volume` plaquettes, or in infinite volume.

    Raises:
        ValueError: a volume below 1, and as :func:`characters`.

    Example:
        >>> print(round(hepops.lattice.exact.plaquette("SU2", 2.2), 12))
        0.46447902527
    """
    c = characters(group, beta)
    if volume is None:
        return float(c.slope[0])
    volume = _count("volume", volume, 1)
    return float((c.a ** (volume - 1) * c.slope).sum() / (c.a**volume).sum())


def wilson_loop(group: str, beta: float, area: int, volume: int | None = None) -> float:
    """The mean of Re tr W / N of a contractible loop without self-crossing around `area` plaquettes.

    Raises:
        ValueError: the area is no whole number, negative or above the volume, and as :func:`characters`.

    Example:
        >>> print(round(hepops.lattice.exact.wilson_loop("SU3", 6.0, 4, 64), 8))
        0.03187406
    """
    volume = None if volume is None else _count("volume", volume, 1)
    if not hasattr(area, "__index__") or area < 0 or (volume is not None and area > volume):
        raise ValueError(f"exact.wilson_loop: area must lie in 0 ... volume = {volume}, got {area}")
    c = characters(group, beta)
    s, r = c.products
    weight = c.dimension[r] / (c.dimension[s] * c.fundamental)
    if volume is None:
        first = s == 0
        return float((weight[first] * c.a[r[first]] ** area).sum())
    return float((weight * c.a[r] ** area * c.a[s] ** (volume - area)).sum() / (c.a**volume).sum())


def _charges(beta: float) -> tuple[Array, Array, Array]:
    r"""c_n(v) = \int dP/2pi e^{beta cos P + i P v / 2pi - i n P} and its first and second derivatives in v, at v = 0.

    Gauss-Legendre: the integrands are entire, but not periodic.
    """
    n = np.arange(-_orders(beta), _orders(beta) + 1)
    nodes, weights = np.polynomial.legendre.leggauss(128 + 4 * len(n))
    P = np.pi * nodes
    measure = weights / 2 * np.exp(beta * np.cos(P) - abs(beta))
    turn = n[:, None] * P
    c = np.cos(turn) @ measure
    dc = np.sin(turn) @ (measure * P / (2 * np.pi))
    d2c = -np.cos(turn) @ (measure * (P / (2 * np.pi)) ** 2)
    scale = c[len(n) // 2]
    return c / scale, dc / scale, d2c / scale


def chi_top(beta: float, volume: int | None = None) -> float:
    r"""The topological susceptibility of U(1), <Q^2> / V with Q = sum wrap(theta_P) / 2 pi, or in infinite volume.

    .. math:: Z(\vartheta) = \sum_n c_n(\vartheta)^V, \qquad \langle Q^2 \rangle = - Z''(0) / Z(0)

    Accurate to about 1e-15 of <Q^2>/V at beta of order 1; where <Q^2> is tiny it is a difference of larger numbers.

    Raises:
        ValueError: beta further than 10^3 from 0, a volume below 1.

    References:
        | C. Bonati, P. Rossi, Phys. Rev. D 99 (2019) 054503, arXiv:1901.09830

    Example:
        >>> print(round(hepops.lattice.exact.chi_top(2.0), 12))
        0.019364045628
    """
    beta = _checked("U1", beta)
    if abs(beta) > LARGEST_CHARGE:
        raise ValueError(f"exact: beta of chi_top must lie within {LARGEST_CHARGE:g} of 0, got {beta!r}")
    c, dc, d2c = _charges(beta)
    if volume is None:
        return float(-d2c[len(c) // 2])
    volume = _count("volume", volume, 1)
    bend = (volume - 1) * c ** max(volume - 2, 0) * dc**2 + c ** (volume - 1) * d2c
    return float(-bend.sum() / (c**volume).sum())


def torus(group: str, shape: Sequence[int], beta: float) -> dict[str, float]:
    """What is known on a torus of two extents: log_z, plaquette, action (the mean of S) and, for U(1), chi_top =
    <Q^2> / V (beta within 10^3 of 0).

    Raises:
        ValueError: not two extents, and as :func:`characters`.
    """
    if len(checked_shape("exact.torus", shape)) != 2:
        raise ValueError(f"exact.torus: shape must hold two extents, got {tuple(shape)}")
    volume = math.prod(shape)
    known = {"log_z": log_z(group, beta, volume), "plaquette": plaquette(group, beta, volume)}
    known["action"] = -beta * volume * known["plaquette"]
    if group == "U1" and abs(beta) <= LARGEST_CHARGE:
        known["chi_top"] = chi_top(beta, volume)
    return known
