r"""Vavilov's distribution of the energy loss in a layer, as a map of a standard normal variable.

In units of :math:`\xi`, :math:`y = (\Delta - \bar\Delta)/\xi`, single collisions have the spectrum
:math:`(1 - \beta^2 e\kappa)/e^2` up to :math:`e = 1/\kappa`, and the cumulants follow:

.. math:: \ln\langle e^{-sy}\rangle = \kappa\left[1 - e^{-z} - z(1+\beta^2) + (z+\beta^2)\,\mathrm{Ein}(z)\right],
          \quad z = s/\kappa, \quad \mathrm{Ein}(z) = \int_0^z \frac{1-e^{-t}}{t}\,dt

It is Landau's for small :math:`\kappa`, with :math:`y = \lambda + 1 - \gamma_E + \beta^2 + \ln\kappa`, and a Gaussian's
of variance :math:`(1-\beta^2/2)/\kappa` for large. y(z; kappa, beta^2) is the quantile of y at the probability that a
standard normal variable has at z. The characteristic function is inverted by FFT, on first use (about a second), at 28
Chebyshev nodes in ln kappa and 6 in beta^2; in z it is a cubic Hermite curve with exact slopes.

Held where the table ends: below kappa = 1e-3 the shape is that of 1e-3 (it differs from Landau's in the one loss per
thousand beyond lambda = 1000); above 30 the deviation from the Gaussian falls as kappa^-1/2; beyond z = -6 and 5
(probabilities 1e-9 and 3e-7) the map goes on along a straight line.

References:
    | P. V. Vavilov, Sov. Phys. JETP 5 (1957) 749
    | B. Schorr, Comput. Phys. Commun. 7 (1974) 215, for the inversion by a Fourier series
"""

from functools import cache
from math import erfc, log, pi, sqrt

import numpy as np
import torch
from torch import Tensor

from .curve import Array
from .ranges import EULER

SMALLEST, LARGEST = 1e-3, 30.0  # ends of the table in kappa
_Z = np.arange(-60, 51) / 10.0
_NODES = (28, 6)  # in ln kappa, in beta^2


def vavilov(z: Tensor, kappa: Tensor, beta2: Tensor) -> Tensor:
    r"""The loss, from its mean and in units of xi, at a normal score.

    Args:
        z: Standard normal variable, any shape.
        kappa: :math:`\xi/W`, xi over the largest energy given to one electron, same shape or one that broadcasts.
        beta2: beta squared of the particle, likewise.

    Returns:
        float64, y of the shape of all three; rises with z. Differentiable in all three (z: twice, piecewise).
        Deterministic.

    References:
        | P. V. Vavilov, Sov. Phys. JETP 5 (1957) 749

    Example:
        >>> from hepops.lartpc.calorimetry import vavilov
        >>> kappa, beta2 = torch.tensor([0.01, 1.0]).double(), torch.tensor([0.9, 0.5]).double()
        >>> vavilov(torch.zeros(2).double(), kappa, beta2)  # medians lie below the mean
        tensor([-2.1102, -0.0751], dtype=torch.float64)
    """
    z, kappa, beta2 = torch.broadcast_tensors(z.double(), kappa.double(), beta2.double())
    if not bool((kappa.detach() > 0).all()) or not bool(((beta2.detach() >= 0) & (beta2.detach() <= 1)).all()):
        raise ValueError("vavilov: kappa must be positive and beta2 between 0 and 1")
    held = kappa.clamp(SMALLEST, LARGEST)
    values, slopes = _table(z.device)
    x = (torch.log(held) - log(SMALLEST)) / (log(LARGEST) - log(SMALLEST)) * 2 - 1
    basis = (_chebyshev(x, _NODES[0])[..., :, None] * _chebyshev(2 * beta2 - 1, _NODES[1])[..., None, :]).flatten(-2)
    first, step = float(_Z[0]), 0.1
    k = torch.floor((z.detach() - first) / step).long().clamp(0, len(_Z) - 2)
    y0, y1 = (basis * values[k]).sum(-1), (basis * values[k + 1]).sum(-1)
    d0, d1 = (basis * slopes[k]).sum(-1) * step, (basis * slopes[k + 1]).sum(-1) * step
    t = (z - first) / step - k
    inside = torch.where(t < 0, 0.0, torch.where(t > 1, 1.0, t))  # clamp has no slope at its ends, where knots lie
    u = 1 - inside
    v = u * u * ((1 + 2 * inside) * y0 + inside * d0) + inside * inside * ((1 + 2 * u) * y1 - u * d1)
    v = v + torch.where(t < 0, t * d0, torch.where(t > 1, (t - 1) * d1, 0.0))
    gauss = z * torch.sqrt(1 - beta2 / 2)
    v = gauss + (v - gauss) * torch.sqrt(LARGEST / kappa.clamp(min=LARGEST))
    return v / torch.sqrt(kappa.clamp(min=SMALLEST)) + torch.log(kappa.clamp(max=SMALLEST) / SMALLEST)


def at_knots(kappa: Tensor, beta2: Tensor, z: Tensor) -> Tensor:
    """y (N, Z) at kappa, beta2 (N) and scores z (Z) that are knots of the table, multiples of 0.1: one product."""
    held = kappa.clamp(SMALLEST, LARGEST)
    x = (torch.log(held) - log(SMALLEST)) / (log(LARGEST) - log(SMALLEST)) * 2 - 1
    basis = _chebyshev(x, _NODES[0])[:, :, None] * _chebyshev(2 * beta2 - 1, _NODES[1])[:, None, :]
    k = torch.round((z - float(_Z[0])) / 0.1).long()
    v = basis.flatten(1) @ _table(z.device)[0][k].T
    gauss = z * torch.sqrt(1 - beta2 / 2)[:, None]
    v = gauss + (v - gauss) * torch.sqrt(LARGEST / kappa.clamp(min=LARGEST))[:, None]
    return v / torch.sqrt(kappa.clamp(min=SMALLEST))[:, None]  # less the shift below SMALLEST: of use where it cancels


def _chebyshev(x: Tensor, n: int) -> Tensor:
    """T_0 ... T_{n-1} at x, (..., n)."""
    rows = [torch.ones_like(x), x]
    for _ in range(n - 2):
        rows.append(2 * x * rows[-1] - rows[-2])
    return torch.stack(rows, -1)


@cache
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Chebyshev coefficients of y sqrt(kappa) and of its derivative with respect to z, (z, 28 * 6)."""
    n, m = _NODES
    angle, turn = pi * (np.arange(n) + 0.5) / n, pi * (np.arange(m) + 0.5) / m
    kappa = np.exp(log(SMALLEST) + (np.cos(angle) + 1) / 2 * (log(LARGEST) - log(SMALLEST)))
    beta2 = (np.cos(turn) + 1) / 2
    data = np.array([[quantiles(k, b, _Z) for b in beta2] for k in kappa])  # (n, m, 2, z)
    data *= np.sqrt(kappa)[:, None, None, None]
    to_n = 2 / n * np.cos(np.outer(np.arange(n), angle))
    to_m = 2 / m * np.cos(np.outer(np.arange(m), turn))
    to_n[0] /= 2
    to_m[0] /= 2
    c = torch.from_numpy(np.einsum("an,bm,nmqz->qzab", to_n, to_m, data).reshape(2, len(_Z), n * m)).to(device)
    return c[0], c[1]


def quantiles(kappa: float, beta2: float, z: Array) -> tuple[Array, Array]:
    """y at normal scores z, and dy/dz: numpy, by inversion of the characteristic function."""
    y, f, F, Q = distribution(kappa, beta2)
    p = np.array([0.5 * erfc(-v / sqrt(2)) for v in z])
    q = np.array([0.5 * erfc(v / sqrt(2)) for v in z])
    lower = z < 0
    good = (f > 1e-13) & (F > 1e-12) & (Q > 1e-11)
    first, last = int(np.argmax(good)), len(good) - int(np.argmax(good[::-1]))
    y, f, F, Q = (a[first:last] for a in (y, f, F, Q))
    j = np.where(lower, np.searchsorted(F, p), len(Q) - np.searchsorted(Q[::-1], q)).clip(1, len(y) - 1) - 1
    h = y[1] - y[0]
    t, goal = np.full(len(z), 0.5), np.where(lower, p - F[j], Q[j] - q)
    rise = np.where(lower, F[j + 1] - F[j], Q[j] - Q[j + 1])
    for _ in range(60):  # Newton within the cell, on the cubic that F, f make
        a, b = h * f[j] + h * f[j + 1] - 2 * rise, 3 * rise - 2 * h * f[j] - h * f[j + 1]
        value, slope = ((a * t + b) * t + h * f[j]) * t, (3 * a * t + 2 * b) * t + h * f[j]
        t = (t - (value - goal) / slope).clip(0, 1)
    density = ((3 * a * t + 2 * b) * t + h * f[j]) / h
    return y[j] + t * h, np.exp(-z * z / 2) / sqrt(2 * pi) / density


def distribution(kappa: float, beta2: float) -> tuple[Array, Array, Array, Array]:
    """A grid of y, the density and the probabilities of less and of more; absolute error about 1e-14."""
    sigma = sqrt((1 - beta2 / 2) / kappa)
    low = min(-6 + 1 - EULER + beta2 + log(kappa), -9 * sigma if kappa > 0.3 else 0.0)
    length = 3 / kappa + 12 * sigma - low
    step = 2 * pi / length
    s = step * np.arange(1, int((24 + 12 * sqrt(kappa)) / step) + 2)
    phi = np.exp(cumulant(s, kappa, beta2))
    n = 1 << int(np.ceil(np.log2(12 * len(s))))
    y = low + length * np.arange(n) / n
    turn = phi * np.exp(1j * s * low)
    spectrum, ramp = np.zeros(n // 2 + 1, complex), np.zeros(n // 2 + 1, complex)
    spectrum[1 : len(s) + 1], ramp[1 : len(s) + 1] = turn, turn / (1j * s)
    f = np.fft.irfft(spectrum, n) * n / length + 1 / length
    wave = np.fft.irfft(ramp, n) * n / length
    F = (y - low) / length + wave - wave[0]
    Q = (low + length - y) / length - wave + wave[0]  # periodic: the end of the interval is its beginning
    return y, f, F, Q


def cumulant(s: Array, kappa: float, beta2: float) -> Array:
    """ln <exp(-i s y)>, s > 0."""
    z = 1j * s / kappa
    small = np.abs(z) < 1e-2  # the closed form cancels: its series, (-1)^k z^k/k! (1/(k-1) - beta2/k), k >= 2
    zs = np.where(small, z, 0)
    series = sum((-zs) ** k / float(np.prod(np.arange(1, k + 1))) * (1 / (k - 1) - beta2 / k) for k in range(2, 9))
    z = np.where(small, 1j, z)
    closed = 1 - np.exp(-z) - z * (1 + beta2) + (z + beta2) * ein(z)
    return np.asarray(kappa * np.where(small, series, closed))


def ein(z: Array) -> Array:
    """Ein(z) on the positive imaginary axis: its series below 4, the continued fraction of E1 beyond."""
    near = np.abs(z) < 4
    x = np.where(near, z, 0)
    term, total = np.full_like(x, -1), np.zeros_like(x)
    for k in range(1, 40):
        term = term * -x / k
        total = total + term / k
    x = np.where(near, 4j, z)
    fraction = x + 2 * 60 + 1
    for k in range(60, 0, -1):
        fraction = x + 2 * k - 1 - k * k / fraction
    return np.where(near, total, np.exp(-x) / fraction + np.log(x) + EULER)
