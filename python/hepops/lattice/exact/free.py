r"""The free field, S = sum_x [h phi sum_mu phi(x+mu) + s phi^2]: Gaussian, diagonal in momentum space.

.. math:: \langle \phi\phi \rangle(p) = \frac{1}{2 (s + h \sum_\mu \cos p_\mu)}, \qquad
    \ln Z = \frac{V}{2} \ln \pi - \frac12 \sum_p \ln \Big(s + h \sum_\mu \cos p_\mu\Big), \qquad
    \langle S \rangle = V / 2

References:
    | I. Montvay, G. Muenster, Quantum Fields on a Lattice, Cambridge 1994, section 2.1
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Law = tuple[float, float, float]


def _spectrum(shape: Sequence[int], law: Law) -> Array:
    """s + h sum_mu cos p_mu for every momentum, shape (L_1, ..., L_D)."""
    hop, square, quartic = law
    if quartic != 0:
        raise ValueError(f"exact.free: lam must be 0, got {quartic}")
    total = np.full(tuple(shape), square)
    for mu, extent in enumerate(shape):
        sizes = [1] * len(shape)
        sizes[mu] = extent
        total = total + hop * np.cos(2 * np.pi * np.arange(extent) / extent).reshape(sizes)
    if total.min() <= 0:
        raise ValueError(f"exact.free: the action has no lower bound, (h, s, lam) = {law}")
    return total


def propagator(shape: Sequence[int], law: Law) -> Array:
    """G(x) = <phi(0) phi(x)>, shape (L_1, ..., L_D).

    Args:
        shape: Extents.
        law: (h, s, 0), as `Phi4.law` gives it.
    """
    return np.fft.ifftn(1 / (2 * _spectrum(shape, law))).real


def correlator(shape: Sequence[int], law: Law, direction: int = 0) -> Array:
    r"""C(t) = sum over the other directions of G, at zero momentum: shape (L_direction,).

    In closed form cosh(E (t - L/2)) / (2 |h| sinh E sinh(E L/2)), E the pole mass.
    """
    other = tuple(mu for mu in range(len(shape)) if mu != direction)
    return np.asarray(propagator(shape, law).sum(other))


def pole_mass(dims: int, law: Law) -> float | None:
    """E with s + h (D - 1 + cosh E) = 0; None where hopping is not ferromagnetic (h >= 0)."""
    hop, square, _ = law
    return math.acosh((square + hop * (dims - 1)) / -hop) if hop < 0 else None


def log_z(shape: Sequence[int], law: Law) -> float:
    """ln Z, the measure of each site d phi."""
    spectrum = _spectrum(shape, law)
    return float(spectrum.size / 2 * math.log(math.pi) - 0.5 * np.log(spectrum).sum())


def known(shape: Sequence[int], law: Law) -> dict[str, float]:
    """log_z, phi2, phi4 = 3 phi2^2, action, chi2 = sum_x G(x), and pole_mass where there is one."""
    G = propagator(shape, law)
    phi2 = float(G.flat[0])
    values = {"log_z": log_z(shape, law), "phi2": phi2, "phi4": 3 * phi2**2, "action": G.size / 2}
    values["chi2"] = float(1 / (2 * _spectrum(shape, law).flat[0]))
    mass = pole_mass(len(shape), law)
    return values if mass is None else values | {"pole_mass": mass}
