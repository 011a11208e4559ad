r"""Scalar :math:`\phi^4` theory, in the three conventions of the literature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hepops.flows.bases import Base, Normal
from hepops.flows.sums import event_sum

from . import random
from .geometry import checked_shape, neighbour
from .stages import plain_trajectory, stages
from .theory import Theory


class Phi4(Theory):
    r"""Scalar :math:`\phi^4` theory.

    .. math::
        S_A &= \sum_x \Big[\sum_\mu (\phi_{x+\hat\mu} - \phi_x)^2 + m^2 \phi_x^2 + \lambda \phi_x^4\Big] \\
        S_B &= \sum_x \Big[\tfrac12 \sum_\mu (\phi_{x+\hat\mu} - \phi_x)^2 + \tfrac12 m^2 \phi_x^2
               + \lambda \phi_x^4\Big] \\
        S_C &= \sum_x \Big[-2 \kappa \sum_\mu \phi_x \phi_{x+\hat\mu} + (1 - 2 \lambda) \phi_x^2
               + \lambda \phi_x^4\Big]

    Args:
        shape: (L_1, ..., L_D). Fields have shape (B, L_1, ..., L_D). An extent of 2 counts both bonds.
        m2: :math:`m^2` (A and B).
        lam: :math:`\lambda`.
        convention: "A", "B" or "C".
        kappa: :math:`\kappa` (C).

    Raises:
        ValueError: a coupling is missing, not wanted or not finite, or the action has no lower bound.
    """

    def __init__(
        self,
        shape: Sequence[int],
        m2: float | None = None,
        lam: float | None = None,
        convention: str = "A",
        kappa: float | None = None,
    ) -> None:
        self.shape = self.event_shape = checked_shape("Phi4", shape)
        self.convention, self.m2, self.lam, self.kappa = convention, m2, lam, kappa
        d = len(self.shape)
        assert lam is not None
        # S = sum_x [hop sum_mu phi phi_mu + square phi^2 + quartic phi^4]
        if convention == "C":
            assert kappa is not None
            self.hop, self.square, self.quartic = -2 * kappa, 1 - 2 * lam, lam
        else:
            assert m2 is not None
            scale = 1.0 if convention == "A" else 0.5
            self.hop, self.square, self.quartic = -2 * scale, scale * (2 * d + m2), lam

    def _pairs(self, phi: Tensor) -> Tensor:
        return torch.stack([neighbour(phi, mu, self.dims) for mu in range(self.dims)]).sum(0)

    def density(self, field: Tensor) -> Tensor:
        self.check(field)
        square = field.square()
        density = self.hop * field * self._pairs(field) + self.square * square + self.quartic * square.square()
        return density.double()

    def action(self, field: Tensor) -> Tensor:
        return event_sum(self.density(field), self.dims)

    def force(self, field: Tensor) -> Tensor:
        self.check(field)
        phi = field
        around = self._pairs(phi) + torch.stack([neighbour(phi, mu, self.dims, -1) for mu in range(self.dims)]).sum(0)
        return self.hop * around + 2 * self.square * phi + 4 * self.quartic * phi**3

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Normal(self.shape, dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        return torch.zeros(batch, *self.shape, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        n = field.shape[0]
        where = {"dtype": field.dtype, "device": field.device}
        return random.normal(n, self.sites, seed, first=first, step=step, **where).view_as(field)  # type: ignore[arg-type]

    def kinetic(self, momenta: Tensor) -> Tensor:
        return event_sum(momenta.square() / 2, self.dims)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return field + time * momenta

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "omelyan"
    ) -> tuple[Tensor, Tensor]:
        """Field and momenta at the end of a trajectory of HMC; integrators as `stages.stages` has them."""
        self.check(field)
        self.check(momenta, "momenta")
        return plain_trajectory(self.force, field, momenta, stages(integrator, step_size, steps))
