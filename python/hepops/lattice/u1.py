"""Compact U(1) gauge theory."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from hepops.flows.bases import Base, Haar
from hepops.flows.sums import event_sum

from . import random
from .geometry import checked_shape, neighbour
from .stages import plain_trajectory, stages
from .theory import Theory


class U1(Theory):
    r"""Compact U(1) gauge theory with the Wilson action.

    .. math:: S = -\beta \sum_P \cos \theta_P, \qquad
        \theta_{\mu\nu}(x) = \theta_\mu(x) + \theta_\nu(x+\hat\mu) - \theta_\mu(x+\hat\nu) - \theta_\nu(x)

    Args:
        shape: (L_1, ..., L_D), D = 2, 3, 4. Fields are angles, shape (B, D, L_1, ..., L_D); the measure of each is
            :math:`d\theta/2\pi`.
        beta: :math:`\beta`, any real number.
    """

    before = 1

    def __init__(self, shape: Sequence[int], beta: float) -> None:
        self.shape = checked_shape("U1", shape)
        self.event_shape = torch.Size([len(self.shape), *self.shape])
        self.beta = beta

    def plaquette_angles(self, field: Tensor) -> Tensor:
        """theta_P not wrapped, shape (B, planes, L...), planes 01, 02, ... 12, ... in this order."""
        self.check(field)
        d = self.dims
        link = field.unbind(1)
        return torch.stack(
            [
                link[mu] + neighbour(link[nu], mu, d) - neighbour(link[mu], nu, d) - link[nu]
                for mu, nu in combinations(range(d), 2)
            ],
            1,
        )

    def density(self, field: Tensor) -> Tensor:
        return -self.beta * self.plaquette_angles(field).cos().sum(1, dtype=torch.float64)

    def action(self, field: Tensor) -> Tensor:
        return -self.beta * event_sum(self.plaquette_angles(field).cos(), self.dims + 1)

    def force(self, field: Tensor) -> Tensor:
        sine = self.beta * self.plaquette_angles(field).sin()
        d = self.dims
        force = [torch.zeros_like(field[:, 0]) for _ in range(d)]
        for k, (mu, nu) in enumerate(combinations(range(d), 2)):
            s = sine[:, k]
            force[mu] = force[mu] + s - neighbour(s, nu, d, -1)
            force[nu] = force[nu] - s + neighbour(s, mu, d, -1)
        return torch.stack(force, 1)

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Haar("U1", self.event_shape, dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        return torch.zeros(batch, *self.event_shape, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        n = field.shape[0]
        where = {"dtype": field.dtype, "device": field.device}
        return random.normal(n, self.dims * self.sites, seed, first=first, step=step, **where).view_as(field)  # type: ignore[arg-type]

    def kinetic(self, momenta: Tensor) -> Tensor:
        return event_sum(momenta.square() / 2, self.dims + 1)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return torch.remainder(field + time * momenta + math.pi, 2 * math.pi) - math.pi

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "omelyan"
    ) -> tuple[Tensor, Tensor]:
        """Field and momenta at the end of a trajectory of HMC; integrators as `stages.stages` has them."""
        self.check(field)
        self.check(momenta, "momenta")
        field, momenta = plain_trajectory(self.force, field, momenta, stages(integrator, step_size, steps))
        return self.move(field, momenta, 0.0), momenta
