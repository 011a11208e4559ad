"""Compact U(1) gauge theory."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor

from hepops.core.ops import call
from hepops.flows.bases import Base, Haar
from hepops.flows.sums import event_sum

from . import random
from . import u1_kernels as _u1_kernels  # noqa: F401  (registers the operators)
from .coupling import real_number
from .geometry import checked_shape, neighbour
from .precision import is_accurate, is_wide
from .stages import plain_trajectory, plan, stages
from .theory import Theory

_ops = torch.ops.hepops


class U1(Theory):
    r"""Compact U(1) gauge theory with the Wilson action.

    .. math:: S = -\beta \sum_P \cos \theta_P, \qquad
        \theta_{\mu\nu}(x) = \theta_\mu(x) + \theta_\nu(x+\hat\mu) - \theta_\mu(x+\hat\nu) - \theta_\nu(x)

    Args:
        shape: (L_1, ..., L_D), D = 2, 3, 4. Fields are angles, shape (B, D, L_1, ..., L_D), float64 or float32; the
            measure of each is :math:`d\theta/2\pi`.
        beta: :math:`\beta`, any real number.
        compute: torch.float64 computes float32 fields in double.
        accumulate: "double" or "double-double", what sums over sites are in; the result is float64.

    Actions, forces, densities and plaquettes are differentiable any number of times in the field. Sums have one order,
    whatever the batch and the number of threads.

    Raises:
        TypeError: beta is no plain real number.
        ValueError: one dimension, or beta not finite.

    References:
        | K. G. Wilson, Phys. Rev. D 10 (1974) 2445

    Example:
        >>> theory = hepops.lattice.U1((8, 8), beta=2.0)
        >>> theory.action(theory.cold(1))
        tensor([-128.], dtype=torch.float64)
    """

    before = 1

    def __init__(
        self, shape: Sequence[int], beta: float, compute: torch.dtype | None = None, accumulate: str = "double"
    ) -> None:
        self.shape = checked_shape("U1", shape)
        if len(self.shape) < 2:
            raise ValueError(f"U1: shape must hold 2 to 4 extents, got {tuple(self.shape)}")
        self.event_shape = torch.Size([len(self.shape), *self.shape])
        self.beta = real_number("U1", "beta", beta)
        self.wide, self.accurate = is_wide("U1", compute), is_accurate("U1", accumulate)

    def plaquette_angles(self, field: Tensor) -> Tensor:
        """theta_P not wrapped, shape (B, planes, L...), planes 01, 02, ... 12, ... in this order."""
        self.check(field)
        return cast(Tensor, call(_ops._lattice_u1_angles, field))

    def plaquette(self, field: Tensor) -> Tensor:
        """The mean of cos theta_P, shape (B), float64."""
        cosines = self.plaquette_angles(field).cos()
        return event_sum(cosines, self.dims + 1) / (self.sites * math.comb(self.dims, 2))

    def charge_density(self, field: Tensor) -> Tensor:
        r"""wrap(theta_P) / 2 pi in two dimensions, shape (B, L_1, L_2): its sum is an integer, the topological charge.

        Raises:
            ValueError: not two dimensions.
        """
        if self.dims != 2:
            raise ValueError(f"U1.charge: needs two dimensions, got shape {tuple(self.shape)}")
        angle = self.plaquette_angles(field)[:, 0]
        return (angle - 2 * math.pi * (angle / (2 * math.pi)).round()) / (2 * math.pi)

    def charge(self, field: Tensor) -> Tensor:
        """The topological charge Q = sum wrap(theta_P) / 2 pi in two dimensions, shape (B), float64."""
        return event_sum(self.charge_density(field), 2)

    def staple(self, field: Tensor) -> Tensor:
        r"""V of each link, complex, shape of the field: S depends on it as :math:`-\beta\, \mathrm{Re}(e^{i\theta} V)`.

        Heatbath draws theta from a von Mises density at -arg V with concentration beta |V|; theta -> -2 arg V - theta
        is an over-relaxation. (With the conjugate V, as some write it, the signs of arg V turn.)
        """
        turn = torch.polar(torch.ones_like(angle := self.plaquette_angles(field)), angle)
        d, total = self.dims, [torch.zeros_like(turn[:, 0]) for _ in range(self.dims)]
        for k, (mu, nu) in enumerate(combinations(range(d), 2)):
            here, back = turn[:, k], turn[:, k].conj()
            total[mu] = total[mu] + here + neighbour(back, nu, d, -1)
            total[nu] = total[nu] + back + neighbour(here, mu, d, -1)
        return torch.stack(total, 1) * torch.polar(torch.ones_like(field), -field)

    def gauge_transform(self, field: Tensor, alpha: Tensor) -> Tensor:
        r""":math:`\theta_\mu(x) + \alpha(x) - \alpha(x + \hat\mu)`, wrapped; alpha has shape (B, L...)."""
        self.check(field)
        if alpha.shape != field[:, 0].shape:
            raise ValueError(
                f"U1.gauge_transform: alpha must have shape {tuple(field[:, 0].shape)}, got {tuple(alpha.shape)}"
            )
        steps = [alpha - neighbour(alpha, mu, self.dims) for mu in range(self.dims)]
        return self.move(field, torch.stack(steps, 1), 1.0)

    def action(self, field: Tensor) -> Tensor:
        self.check(field)
        return cast(Tensor, call(_ops._lattice_u1_action, field, self.beta, self.wide, self.accurate))

    def force(self, field: Tensor) -> Tensor:
        self.check(field)
        return cast(Tensor, call(_ops._lattice_u1_force, field, self.beta, self.wide))

    def action_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        self.check(field)
        action, force = call(_ops._lattice_u1_action_and_force, field, self.beta, self.wide, self.accurate)
        return action, force

    def density(self, field: Tensor) -> Tensor:
        """The action of the plaquettes at each site, float64, shape (B, L...): the sum over a box is its part.

        A plaquette belongs to the site that it starts from. Computed as the action is, site by site.
        """
        self.check(field)
        return cast(Tensor, call(_ops._lattice_u1_density, field.double() if self.wide else field, self.beta)).double()

    def hessian_vector(self, field: Tensor, v: Tensor) -> Tensor:
        """The second derivative of the action times v, like the field."""
        self.check(field)
        self.check(v, "v")
        return cast(Tensor, call(_ops._lattice_u1_hessian, field, v, self.beta, self.wide))

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Haar("U1", self.event_shape, dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        self.check_cold(batch, dtype)
        return torch.zeros(batch, *self.event_shape, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        self.check(field)
        n = field.shape[0]
        where = {"dtype": field.dtype, "device": field.device}
        return random.normal(n, self.dims * self.sites, seed, first=first, step=step, **where).view_as(field)  # type: ignore[arg-type]

    def kinetic(self, momenta: Tensor) -> Tensor:
        self.check(momenta, "momenta")
        return event_sum(momenta.square() / 2, self.dims + 1)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return torch.remainder(field + time * momenta + math.pi, 2 * math.pi) - math.pi

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "omelyan"
    ) -> tuple[Tensor, Tensor]:
        """Field and momenta at the end of a trajectory of HMC; integrators as `stages.stages` has them.

        Two passes over the sites for each kick and drift; a small lattice stays in the cache for the whole of it. Where
        a gradient is wanted, the same in differentiable steps. The angles are wrapped at the end.
        """
        self.check(field)
        self.check(momenta, "momenta")
        if torch.is_grad_enabled() and (field.requires_grad or momenta.requires_grad):
            field, momenta = plain_trajectory(self.force, field, momenta, stages(integrator, step_size, steps))
            return self.move(field, momenta, 0.0), momenta
        dtype = torch.float64 if self.wide else field.dtype
        where = (field.to(dtype), momenta.to(dtype), plan(integrator, step_size, steps), self.beta)
        ends = call(_ops._lattice_u1_trajectory, *where)
        return ends[0].to(field.dtype), ends[1].to(field.dtype)

    def exact(self) -> dict[str, float]:
        """What is known of this theory, as `exact.gauge2d` gives it; {} but in two dimensions."""
        from . import exact

        return exact.torus("U1", self.shape, self.beta) if self.dims == 2 else {}

    def exact_log_z(self) -> float | None:
        """ln Z in two dimensions, else None."""
        return self.exact().get("log_z")
