"""Photons in liquid argon: bremsstrahlung, pair production, Compton scattering.

Per thickness t = x/X0 in radiation lengths, with E, k, E' the energies of electron, photon and positron:

  bremsstrahlung   dN/dk dt = [ (1 + (1-y)^2) R1(d) - 2/3 (1-y) R2(d) ] / k,     y = k/E,   d = D k / (E (E - k))
  pairs            dN/dv dt = (v^2 + (1-v)^2) R1(d) + 2/3 v (1-v) R2(d),         v = E'/k,  d = D / (k v (1-v))

with D = 136 m_e Z^(-1/3), R_i = (phi_i(d) - 4/3 ln Z) / (phi_1(0) - 4/3 ln Z) and Butcher and Messel's screening
functions

  phi_1 = 20.867 - 3.242 d + 0.625 d^2,  phi_2 = 20.209 - 1.930 d - 0.086 d^2  for d <= 1,
  phi_1 = phi_2 = 21.12 - 4.184 ln(d + 0.952)  beyond.

At high energies d -> 0: the forms of complete screening, which lose E/X0 and make 7/9 pairs per radiation length.
Coulomb corrections (1 % in argon), the LPM effect and bremsstrahlung below the cut are left out. Compton scattering
is Klein and Nishina's on free electrons. There is no photoelectric effect: below the cut a photon's energy stays
where it is.

References:
    | J. C. Butcher, H. Messel, Nucl. Phys. 20 (1960) 15
    | W. R. Nelson, H. Hirayama, D. W. O. Rogers, The EGS4 code system, SLAC-265 (1985), ch. 2
    | Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815; Particle Data Group (2024), ch. 34.4 and 34.5
    | O. Klein, Y. Nishina, Z. Phys. 52 (1929) 853
"""

import math
from functools import cache
from typing import Any

import numpy as np

from .stopping import M_E, RADIATION_LENGTH, A, K, Z

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

_D = 136.0 * M_E * Z ** (-1 / 3)  # [MeV]
_LOG_Z = 4 / 3 * math.log(Z)
_FULL = 20.867 - _LOG_Z
_MOST = 4 / 3 + 0.1  # above the bremsstrahlung's bracket at any y and d


def screening(d: Array | float) -> tuple[Array, Array]:
    """R1 and R2 at the screening variable d >= 0; not below 0."""
    d = np.asarray(d, np.float64)
    far = 21.12 - 4.184 * np.log(d + 0.952)
    phi1 = np.where(d <= 1, 20.867 - 3.242 * d + 0.625 * d**2, far)
    phi2 = np.where(d <= 1, 20.209 - 1.930 * d - 0.086 * d**2, far)
    return np.maximum(phi1 - _LOG_Z, 0) / _FULL, np.maximum(phi2 - _LOG_Z, 0) / _FULL


def bremsstrahlung(k: Array | float, energy: Array | float) -> Array:
    """k dN/dk per radiation length of an electron of total `energy` E [MeV]; 0 from its kinetic energy on."""
    k, E = np.asarray(k, np.float64), np.asarray(energy, np.float64)
    left = np.maximum(E - k, M_E)
    R1, R2 = screening(_D * k / (E * left))
    y = k / E
    return np.where(k < E - M_E, np.maximum((1 + (1 - y) ** 2) * R1 - 2 / 3 * (1 - y) * R2, 0), 0.0)


def pair_share(v: Array | float, k: Array | float) -> Array:
    """dN/dv per radiation length of a photon of k [MeV]; v: the positron's share. 0 where one has less than m_e."""
    v, k = np.asarray(v, np.float64), np.asarray(k, np.float64)
    product = np.maximum(v * (1 - v), 1e-300)
    R1, R2 = screening(_D / (k * product))
    return np.where(np.minimum(v, 1 - v) * k > M_E, (v**2 + (1 - v) ** 2) * R1 + 2 / 3 * product * R2, 0.0)


def compton_rate(k: Array | float) -> Array:
    """Compton scatterings of a photon of k [MeV] per thickness [cm2/g], of Z free electrons per atom."""
    q = np.asarray(k, np.float64) / M_E
    log = np.log1p(2 * q)
    first = (1 + q) / q**2 * (2 * (1 + q) / (1 + 2 * q) - log / q)
    return K / (2 * M_E) * Z / A * (first + log / (2 * q) - (1 + 3 * q) / (1 + 2 * q) ** 2)


@cache
def _pair_table() -> tuple[Array, Array]:
    """ln k and pairs per radiation length, 100 points per decade, by Gauss-Legendre in v."""
    k = np.geomspace(2 * M_E, 1e6, 602)
    x, w = np.polynomial.legendre.leggauss(200)
    least = np.minimum(M_E / k, 0.5)[:, None]
    v = least + (1 - 2 * least) * (x + 1) / 2
    return np.log(k), (pair_share(v, k[:, None]) * w).sum(1) * (1 - 2 * least[:, 0]) / 2


def pair_rate(k: Array | float) -> Array:
    """Pairs of a photon of k [MeV] per radiation length."""
    logs, rates = _pair_table()
    return np.interp(np.log(np.asarray(k, np.float64)), logs, rates, left=0.0)


def radiated(T: float, thickness: float, cut: float, rng: Rng) -> list[float]:
    """Photons [MeV] above the cut of an electron of kinetic energy T over a thickness [g/cm2]: 1/k, kept as above."""
    if cut >= T:
        return []
    span = math.log(T / cut)
    number = rng.poisson(_MOST * span * thickness / RADIATION_LENGTH)
    if not number:
        return []
    drawn = rng.uniform(size=(number, 2))
    k = cut * np.exp(drawn[:, 0] * span)
    kept: list[float] = k[drawn[:, 1] * _MOST < bremsstrahlung(k, T + M_E)].tolist()
    return kept


def pair(k: float, rng: Rng) -> tuple[float, float]:
    """Kinetic energies of the electron and the positron that a photon of k > 2 m_e becomes [MeV]."""
    least = M_E / k
    while True:
        drawn = rng.uniform(size=(16, 2))
        v = least + (1 - 2 * least) * drawn[:, 0]
        good = drawn[:, 1] < pair_share(v, k)  # the bracket is 1 at most
        if good.any():
            share = float(v[good][0])
            return max((1 - share) * k - M_E, 0.0), max(share * k - M_E, 0.0)
        if float(pair_share(0.5, k)) == 0.0 and k < 2.2 * M_E:  # so near the threshold that nothing is left to share
            return (k - 2 * M_E) / 2, (k - 2 * M_E) / 2


def compton(k: float, rng: Rng) -> tuple[float, float]:
    """Energy [MeV] and cosine of the angle of the photon that a photon of k is scattered into."""
    q = k / M_E
    least = 1 / (1 + 2 * q)
    a, b = -math.log(least), (1 - least**2) / 2
    while True:  # a mixture of 1/e and e, kept with 1 - e sin^2 / (1 + e^2), e the share that is left
        first, second, third = rng.uniform(size=3)
        e = math.exp(-a * second) if first * (a + b) < a else math.sqrt(least**2 + (1 - least**2) * second)
        t = (1 - e) / (q * e)  # 1 - cos
        if third < 1 - e * t * (2 - t) / (1 + e * e):
            return e * k, 1 - t
