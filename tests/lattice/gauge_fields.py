"""Fields whose observables are known, and plain NumPy loops over sites as the other opinion."""

import itertools

import numpy as np
import torch


def constant_flux(shape, n, m, dtype=torch.complex128):
    """SU(2) links exp(i theta sigma_3) with the same plaquette in each 01 and in each 23: angles 2 pi n / L0 L1, ..."""
    L = shape
    x = torch.meshgrid(*[torch.arange(extent, dtype=torch.float64) for extent in L], indexing="ij")
    angle = torch.zeros(4, *L, dtype=torch.float64)
    for mu, nu, flux in ((0, 1, n), (2, 3, m)):
        angle[nu] = 2 * np.pi * flux / (L[mu] * L[nu]) * x[mu]
        angle[mu] = torch.where(x[mu] == L[mu] - 1, -2 * np.pi * flux / L[nu] * x[nu], 0.0)
    phase = torch.polar(torch.ones_like(angle), angle)
    zero = torch.zeros_like(phase)
    rows = torch.stack([torch.stack([phase, zero], -1), torch.stack([zero, phase.conj()], -1)], -2)
    return rows.to(dtype)[None]


def standing_wave(dims, amplitude, extent=4):
    """SU(2) links with theta_1 = (-1)^{x_0} a about sigma_3: its plaquettes in 01 turn by -2 a (-1)^{x_0}."""
    shape = (extent,) * dims
    sign = 1 - 2 * (torch.arange(extent) % 2).double()
    angle = torch.zeros(dims, *shape, dtype=torch.float64)
    angle[1] = amplitude * sign.view(-1, *[1] * (dims - 1))
    phase = torch.polar(torch.ones_like(angle), angle)
    zero = torch.zeros_like(phase)
    return torch.stack([torch.stack([phase, zero], -1), torch.stack([zero, phase.conj()], -1)], -2)[None]


class Walker:
    """Products of links of one configuration, site by site."""

    def __init__(self, U):
        self.U = U.numpy()
        self.dims = self.U.shape[0]
        self.shape = self.U.shape[1:-2]
        self.n = self.U.shape[-1]

    def sites(self):
        return itertools.product(*map(range, self.shape))

    def product(self, x, path):
        at, M = list(x), np.eye(self.n, dtype=complex)
        for direction in path:
            mu = direction if direction >= 0 else ~direction
            if direction < 0:
                at[mu] = (at[mu] - 1) % self.shape[mu]
                M = M @ self.U[(mu, *at)].conj().T
            else:
                M = M @ self.U[(mu, *at)]
                at[mu] = (at[mu] + 1) % self.shape[mu]
        return M

    def clover(self, x, mu, nu):
        leaves = [(mu, nu, ~mu, ~nu), (nu, ~mu, ~nu, mu), (~mu, ~nu, mu, nu), (~nu, mu, nu, ~mu)]
        C = sum(self.product(x, leaf) for leaf in leaves) / 4
        X = (C - C.conj().T) / 2
        return X - np.trace(X) / self.n * np.eye(self.n)
