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

# Kicks dP = -k eps F(U), drifts U -> exp(d eps P) U between them, and for each kick how far the field at which the force
# is taken is displaced: exp(-s eps^2 F) U (H. Yin, R. D. Mawhinney, arXiv:1111.5059, of the force-gradient integrator)
_LAMBDA = 0.1931833275037836  # I. P. Omelyan, I. M. Mryglod, R. Folk, Comput. Phys. Commun. 151 (2003) 272
INTEGRATORS = {
    "leapfrog": ((1 / 2, 1 / 2), (1.0,), (0.0, 0.0)),
    "omelyan": ((_LAMBDA, 1 - 2 * _LAMBDA, _LAMBDA), (1 / 2, 1 / 2), (0.0, 0.0, 0.0)),
    "force_gradient": ((1 / 6, 2 / 3, 1 / 6), (1 / 2, 1 / 2), (0.0, 1 / 24, 0.0)),
}


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

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "leapfrog"
    ) -> tuple[Tensor, Tensor]:
        r"""Links and momenta after `steps` steps of the equations of motion dU/dt = P U, dP/dt = -F.

        Args:
            field: U.
            momenta: P, in the algebra, shape and dtype of `field`.
            step_size: :math:`\epsilon`; a negative one goes back.
            steps: Their number.
            integrator: "leapfrog", "omelyan" or "force_gradient".

        Returns:
            (U', P').

        Raises:
            ValueError: another integrator.
        """
        self.check(field)
        self.check(momenta, "momenta")
        if integrator not in INTEGRATORS:
            raise ValueError(f"SUN: integrator must be one of {', '.join(INTEGRATORS)}, got {integrator!r}")
        kicks, drifts, shifts = INTEGRATORS[integrator]
        U, P = field, momenta
        for _ in range(steps):
            for kick, drift, shift in zip(kicks, (*drifts, 0.0), shifts, strict=True):
                at = self.move(U, self.force(U), -shift * step_size**2) if shift else U
                P = P - kick * step_size * self.force(at)
                U = self.move(U, P, drift * step_size) if drift else U
        return U, P
