"""ln Z of two-dimensional gauge theories on a torus, Z = sum_r a_r^V: what trained flows are compared with.

a_r is the coefficient of the character of r in exp(-S of one plaquette), over the dimension of r.
"""

import math

import torch

_ANGLES = 4096


def _bessel(x):
    """I_n(x) e^-x for n = 0 ... 63, from the Fourier series of exp(x cos)."""
    angle = torch.arange(_ANGLES, dtype=torch.float64) * (2 * math.pi / _ANGLES)
    return torch.fft.rfft((x * (angle.cos() - 1)).exp()).real[:64] / _ANGLES


def log_z(n, beta, sites):
    """U(1) for n = 1: a_k = I_k(beta). SU(2): a_k = 2 I_k(beta) / beta. SU(3): determinants of I(beta / 3)."""
    if n == 1:
        series = _bessel(beta)
        a, shift = torch.cat([series, series[1:]]), beta
    elif n == 2:
        a, shift = _bessel(beta)[1:] * 2 / beta, beta
    else:
        a, shift = _three(_bessel(beta / 3)), beta
    a = a[a > 1e-14 * a.max()]  # what is left is rounding
    return sites * shift + torch.logsumexp(sites * a.log(), 0).item()


def _three(bessel, irreps=8, windings=12):
    """a_r of the irreps (p, q): sum over k of det I_{l_j - j + i + k}, l = (p + q, q, 0), over the dimension."""
    terms = []
    i, j = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    for p in range(irreps):
        for q in range(irreps):
            rows = torch.tensor([p + q, q, 0])
            index = rows[j] - j + i + torch.arange(-windings, windings + 1)[:, None, None]
            total = torch.linalg.det(bessel[index.abs()]).sum()
            terms.append(total / ((p + 1) * (q + 1) * (p + q + 2) / 2))
    return torch.stack(terms)
