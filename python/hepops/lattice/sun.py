"""SU(N) gauge theory."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from hepops.flows.bases import Base, Haar
from hepops.flows.sums import event_sum

from . import group, random
from .geometry import checked_shape, neighbour
from .theory import Theory


class SUN(Theory):
    r"""SU(N) gauge theory with the Wilson action.

    .. math:: S = -\frac{\beta}{N} \sum_P \mathrm{Re\,tr}\, P, \qquad
        P_{\mu\nu}(x) = U_\mu(x)\, U_\nu(x+\hat\mu)\, U_\mu(x+\hat\nu)^\dagger\, U_\nu(x)^\dagger

    Args:
        n: N.
        shape: (L_1, ..., L_D), D = 2, 3, 4. Fields are links, shape (B, D, L_1, ..., L_D, N, N), complex.
        beta: :math:`\beta`, any real number.
    """

    before, behind = 1, 2
    complex = True

    def __init__(self, n: int, shape: Sequence[int], beta: float) -> None:
        self.n, self.beta = n, beta
        self.shape = checked_shape("SUN", shape)
        self.event_shape = torch.Size([len(self.shape), *self.shape, n, n])

    def _at(self, matrices: Tensor, mu: int, steps: int = 1) -> Tensor:
        return neighbour(matrices, mu, self.dims, steps, behind=2)

    def plaquettes(self, U: Tensor) -> Tensor:
        """The matrices P, shape (B, planes, L..., N, N), planes 01, 02, ... 12, ... in this order."""
        self.check(U)
        u = U.unbind(1)
        return torch.stack(
            [
                u[mu] @ self._at(u[nu], mu) @ self._at(u[mu], nu).mH @ u[nu].mH
                for mu, nu in combinations(range(self.dims), 2)
            ],
            1,
        )

    def plaquette(self, U: Tensor) -> Tensor:
        """The mean of Re tr P / N, shape (B), float64."""
        traces = self.plaquettes(U).diagonal(dim1=-2, dim2=-1).sum(-1).real
        return event_sum(traces, self.dims + 1) / (self.n * self.sites * math.comb(self.dims, 2))

    def staples(self, U: Tensor) -> Tensor:
        """A, shape of U: Re tr(U A) summed over links counts each plaquette four times."""
        self.check(U)
        u = U.unbind(1)
        rows = []
        for mu in range(self.dims):
            total = torch.zeros_like(u[mu])
            for nu in range(self.dims):
                if nu == mu:
                    continue
                ahead = self._at(u[nu], mu)
                total = total + ahead @ self._at(u[mu], nu).mH @ u[nu].mH
                total = total + self._at(ahead.mH @ u[mu].mH @ u[nu], nu, -1)
            rows.append(total)
        return torch.stack(rows, 1)

    def density(self, field: Tensor) -> Tensor:
        traces = self.plaquettes(field).diagonal(dim1=-2, dim2=-1).sum(-1).real
        return -self.beta / self.n * traces.sum(1, dtype=torch.float64)

    def action(self, field: Tensor) -> Tensor:
        traces = self.plaquettes(field).diagonal(dim1=-2, dim2=-1).sum(-1).real
        return -self.beta / self.n * event_sum(traces, self.dims + 1)

    def force(self, field: Tensor) -> Tensor:
        return self.beta / (2 * self.n) * group.traceless_antihermitian(field @ self.staples(field))

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Haar(f"SU{self.n}", self.event_shape[:-2], dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        one = torch.eye(self.n, dtype=torch.promote_types(dtype, torch.complex32), device=device)
        return one.expand(batch, *self.event_shape).clone()

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        n, generators = field.shape[0], self.n**2 - 1
        links = self.dims * self.sites
        p = random.normal(
            n, links * generators, seed, first=first, step=step, dtype=field.real.dtype, device=field.device
        )
        return group.from_coordinates(p.view(*field.shape[:-2], generators), self.n)

    def kinetic(self, momenta: Tensor) -> Tensor:
        squares = momenta.real.square() + momenta.imag.square()
        return event_sum(squares, self.dims + 3)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return group.exp(time * momenta) @ field
