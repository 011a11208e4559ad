r"""Interacting phi^4 on a chain, and on strips of 2 and 3 sites, by the transfer matrix.

.. math:: Z = \mathrm{Tr}\, T^L, \qquad T(\phi, \phi') = e^{-V(\phi)/2 - \sum_i h \phi_i \phi'_i - V(\phi')/2}

for the fields of one row, a ring of w sites. A bond inside a row is h phi phi' = |h| (phi -+ phi')^2 / 2 - |h| (phi^2
+ phi'^2) / 2, of which the last belongs to the sites. One site's part of T is diagonalised on a grid (the trapezoidal
rule: its error falls faster than any power for integrands that vanish smoothly); the states of a row are products of
its first eigenvectors, between which the bonds inside the row are a matrix.

References:
    | R. P. Feynman, A. R. Hibbs, Quantum Mechanics and Path Integrals, McGraw-Hill 1965 (the transfer operator)
    | L. N. Trefethen, J. A. C. Weideman, SIAM Rev. 56 (2014) 385 (the trapezoidal rule)
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Law = tuple[float, float, float]
WIDEST = 3
STATES = {1: 96, 2: 24, 3: 11}  # eigenvectors of a site, for each width of a row


def _reach(law: Law, dims: int) -> float:
    """Where the weight of a site has fallen below e^-80 of its largest, whatever the neighbours are."""
    hop, square, quartic = law
    soft = square - abs(hop) * dims
    least = -(soft**2) / (4 * quartic) if soft < 0 else 0.0
    # quartic u^2 + soft u = least + 80
    u = (-soft + math.sqrt(soft**2 + 4 * quartic * (least + 80))) / (2 * quartic)
    return math.sqrt(u)


def _site(law: Law, reach: float, points: int, states: int) -> tuple[Array, Array, Array, float]:
    """Grid, eigenvalues (the largest 1), eigenvectors (points, states) and the log of the scale of one site's T."""
    hop, square, quartic = law
    phi = np.linspace(-reach, reach, points)
    exponent = -(square * phi**2 + quartic * phi**4) / 2
    log_t = exponent[:, None] + exponent[None, :] - hop * np.outer(phi, phi)
    top = log_t.max()
    value, vector = np.linalg.eigh(np.exp(log_t - top))
    order = np.argsort(-np.abs(value))[:states]
    scale = float(np.abs(value).max())
    step = phi[1] - phi[0]
    return phi, value[order] / scale, vector[:, order], float(top + math.log(scale * step))


def _between(vectors: Array, weights: Sequence[Array], inside: Array) -> Array:
    """<a b c| prod_i weights_i prod inside |d e f>, shape (m^w, m^w): inside couples neighbours in a row."""
    m, width = vectors.shape[1], len(weights)
    pairs = [np.einsum("na,n,nd->adn", vectors, w, vectors).reshape(m * m, -1) for w in weights]
    if width == 1:
        return pairs[0].sum(1).reshape(m, m)
    if width == 2:
        both = (pairs[0] @ inside**2) @ pairs[1].T  # both bonds
        return both.reshape(m, m, m, m).transpose(0, 2, 1, 3).reshape(m**2, m**2)
    ring = np.einsum("ij,jk,ik->ijk", inside, inside, inside, optimize=True)
    triple = np.tensordot(pairs[0], ring, (1, 0))  # (ad, j, k)
    triple = np.tensordot(triple, pairs[1], (1, 1))  # (ad, k, be)
    triple = np.tensordot(triple, pairs[2], (1, 1))  # (ad, be, cf)
    return triple.reshape([m] * 6).transpose(0, 2, 4, 1, 3, 5).reshape(m**3, m**3)


def _strip(width: int, length: int, law: Law, reach: float, points: int, states: int) -> dict[str, float]:
    hop, square, quartic = law
    # a site has two bonds in a ring, of which half each is its own
    phi, value, vector, log_scale = _site((hop, square - abs(hop) * (width > 1), quartic), reach, points, states)
    sign = -math.copysign(1.0, hop)
    inside = np.exp(-abs(hop) / 2 * np.subtract.outer(phi, sign * phi) ** 2)
    one = np.ones_like(phi)
    weights = [one] * width
    product = functools.reduce(np.multiply.outer, [value] * width).ravel()

    def matrix(observable: Array) -> Array:
        return _between(vector, [observable, *weights[1:]], inside) * product

    M = matrix(one)
    power, log_norm = np.eye(len(M)), 0.0
    for bit in bin(length - 1)[2:]:  # M^(length - 1), kept in range
        power, log_norm = power @ power, 2 * log_norm
        if bit == "1":
            power = power @ M
        size = float(np.abs(power).max())
        power, log_norm = power / size, log_norm + math.log(size)
    trace = float(np.einsum("ij,ji->", M, power))
    result = {"log_z": math.log(trace) + log_norm + width * length * log_scale}
    for name, k in (("phi2", 2), ("phi4", 4)):
        result[name] = float(np.einsum("ij,ji->", matrix(phi**k), power)) / trace
    return result


@functools.lru_cache(maxsize=32)
def _known(width: int, length: int, law: Law, dims: int) -> tuple[tuple[str, float], ...]:
    reach, points = _reach(law, dims), 48 if width == 3 else 96
    result = _strip(width, length, law, reach, points, STATES[width])
    for _ in range(1 if width == 3 else 3):  # a finer grid until nothing changes
        points *= 2
        rougher, result = result, _strip(width, length, law, reach, points, STATES[width])
        change = abs(rougher["log_z"] - result["log_z"])
        if change < 1e-12 * max(1.0, abs(result["log_z"])):
            break
    fewer = _strip(width, length, law, reach, points, STATES[width] * 7 // 8)
    if max(change, abs(fewer["log_z"] - result["log_z"])) > 1e-8:
        return ()  # wells too deep or too wide for the grid or the states
    return tuple(result.items())


def strip_of(shape: Sequence[int]) -> tuple[int, int] | None:
    """(width, length) of a chain or a strip; None for wider lattices. Extents of 1 are left out."""
    wide = sorted(extent for extent in shape if extent > 1)
    if len(wide) > 2 or (len(wide) == 2 and wide[0] > WIDEST):
        return None
    return (wide[0], wide[1]) if len(wide) == 2 else (1, wide[0] if wide else 1)


def known(shape: Sequence[int], law: Law) -> dict[str, float]:
    """log_z, phi2 = <phi^2>, phi4 = <phi^4> and action = <S> of a chain or a strip with lam > 0; {} for other lattices.

    Errors at m2 = -4, lam = 5 ... 8 (A): 1e-12. They are those of the states left out of a row, and grow as the wells
    of the potential grow deep. Where a grid of half the points, or an eighth of the states less, changes ln Z by more
    than 1e-8: {}.

    Args:
        shape: Extents.
        law: (h, s, lam), as `Phi4.law` gives it.
    """
    strip = strip_of(shape)
    if strip is None or law[2] <= 0:
        return {}
    width, length = strip
    ones = sum(extent == 1 for extent in shape)
    if width == 1 and length == 1:
        ones -= 1  # one of them is the chain itself
    hop, square, quartic = law
    # a bond of a site with itself is a part of its square
    values = dict(_known(width, length, (hop, square + hop * ones, quartic), len(shape)))
    if not values:
        return {}
    # phi dS/dphi = 2 (quadratic part) + 4 lam phi^4 has the mean 1 at every site
    values["action"] = math.prod(shape) * (0.5 - quartic * values["phi4"])
    return values


def chain_correlator(length: int, law: Law) -> Array:
    """C(t) = <phi(0) phi(t)> of a chain, t = 0 ... length - 1."""
    reach = _reach(law, 1)
    phi, value, vector, _ = _site(law, reach, 384, STATES[1])
    moved = (vector.T * phi) @ vector
    t = np.arange(length)
    decay, rest = value[:, None] ** t, value[:, None] ** (length - t)
    return np.asarray(np.einsum("ab,bt,at->t", moved**2, decay, rest) / (value**length).sum())
