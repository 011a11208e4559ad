r"""Scalar :math:`\phi^4` theory, in the three conventions of the literature."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from hepops.core.ops import call
from hepops.flows.bases import Base, Normal
from hepops.flows.sums import event_sum

from . import phi4_couplings as couplings
from . import phi4_kernels as _phi4_kernels  # noqa: F401  (registers the operators)
from . import random
from .geometry import checked_shape
from .phi4_couplings import STANDARD, Conversion
from .precision import is_accurate, is_wide, working_dtype
from .stages import plain_trajectory, plan, stages
from .theory import Theory

_ops = torch.ops.hepops


class Phi4(Theory):
    r"""Scalar :math:`\phi^4` theory.

    .. math::
        S_A &= \sum_x \Big[\sum_\mu (\phi_{x+\hat\mu} - \phi_x)^2 + m^2 \phi_x^2 + \lambda \phi_x^4\Big] \\
        S_B &= \sum_x \Big[\tfrac{\kappa}{2} \sum_\mu (\phi_{x+\hat\mu} - \phi_x)^2 + \tfrac12 m^2 \phi_x^2
               + \lambda \phi_x^4\Big] \\
        S_C &= \sum_x \Big[-2 \kappa \sum_\mu \phi_x \phi_{x+\hat\mu} + (1 - 2 \lambda) \phi_x^2
               + \lambda \phi_x^4\Big]

    All are :math:`\sum_x [h\, \phi_x \sum_\mu \phi_{x+\hat\mu} + s\, \phi_x^2 + \lambda \phi_x^4]`, with (h, s) =
    (-2, m^2 + 2 D), (-kappa, m^2 / 2 + kappa D), (-2 kappa, 1 - 2 lambda): this is what is computed.

    Args:
        shape: (L_1, ..., L_D), D = 1 ... 4. Fields have shape (B, L_1, ..., L_D), float64, float32, or bfloat16 and
            float16, which are computed in float32. An extent of 2 counts both bonds; one of 1, that of a site with
            itself.
        m2: :math:`m^2` (A and B).
        lam: :math:`\lambda`.
        convention: "A", "B" or "C".
        kappa: :math:`\kappa` (B, where it is 1 unless given, and C).
        compute: torch.float64 computes float32 fields in double.
        accumulate: "double" or "double-double", what sums over sites are in; the result is float64.

    A coupling may be a tensor of one number: actions, forces and densities are then differentiable in it, at the
    cost of a pass for each of the three terms. Those on a GPU are read back once, to check them.

    Actions, forces and densities are differentiable any number of times in the field. Sums have one order, whatever
    the batch and the number of threads.

    Raises:
        TypeError: a coupling is no real number.
        ValueError: a coupling is missing, not wanted or not finite, or the action has no lower bound (lam < 0, or
            lam = 0 and a mode that the quadratic part does not damp).

    References:
        | M. S. Albergo, G. Kanwar, P. E. Shanahan, arXiv:1904.12072, eq. 17 (A)
        | I. Montvay, G. Muenster, Quantum Fields on a Lattice, Cambridge 1994, section 2.1 (B, C)

    Example:
        >>> theory = hepops.lattice.Phi4((8, 8), m2=-4.0, lam=8.0)
        >>> theory.action(torch.ones(1, 8, 8))
        tensor([256.], dtype=torch.float64)
    """

    def __init__(
        self,
        shape: Sequence[int],
        m2: float | Tensor | None = None,
        lam: float | Tensor | None = None,
        convention: str = "A",
        kappa: float | Tensor | None = None,
        compute: torch.dtype | None = None,
        accumulate: str = "double",
    ) -> None:
        self.shape = self.event_shape = checked_shape("Phi4", shape)
        if convention == "B" and kappa is None:
            kappa = 1.0
        couplings.check(self.shape, m2, lam, convention, kappa)
        self.convention, self.m2, self.lam, self.kappa = convention, m2, lam, kappa
        self.wide, self.accurate = is_wide("Phi4", compute), is_accurate("Phi4", accumulate)
        self._learned = any(isinstance(c, Tensor) and c.requires_grad for c in (m2, lam, kappa))
        self._plain = None if self._learned else tuple(couplings.plain(c) for c in self._law())

    @classmethod
    def standard(cls, name: str, **options: Any) -> "Phi4":
        """The couplings E1 ... E5 of arXiv:1904.12072 (m2 = -4, L = 6, 8, 10, 12, 14), and "tutorial" (2101.08176)."""
        if name not in STANDARD:
            raise ValueError(f"Phi4.standard: name must be one of {', '.join(STANDARD)}, got {name!r}")
        length, lam = STANDARD[name]
        return cls((length, length), m2=-4.0, lam=lam, **options)

    def _law(self) -> tuple[Any, Any, Any]:
        return couplings.law(len(self.shape), self.m2, self.lam, self.convention, self.kappa)

    @property
    def law(self) -> tuple[float, float, float]:
        """(h, s, lambda) of S = sum_x [h phi sum_mu phi(x+mu) + s phi^2 + lambda phi^4]."""
        return cast(tuple[float, float, float], self._plain or tuple(couplings.plain(c) for c in self._law()))

    def to_convention(self, convention: str) -> Conversion:
        r"""This theory in another convention.

        Returns:
            (theory, scale, log_z): the field there is `scale` times the one here, the actions are equal, and
            :math:`\ln Z' = \ln Z + \text{log_z}`.

        Raises:
            ValueError: an unknown convention; A and B need kappa > 0.
        """
        (m2, lam, kappa), scale = couplings.converted(len(self.shape), self.law, convention)
        options: dict[str, Any] = {"compute": torch.float64 if self.wide else None}
        options["accumulate"] = "double-double" if self.accurate else "double"
        theory = Phi4(self.shape, m2, lam, convention, kappa, **options)
        return Conversion(theory, scale, self.sites * couplings.log(scale))

    def check(self, field: Tensor, name: str = "field") -> None:
        if isinstance(field, Tensor) and field.dtype in (torch.float16, torch.bfloat16):
            field = torch.empty(field.shape, device="meta")  # stored in half, computed in float32
        super().check(field, name)

    def _terms(self, function: Any) -> Tensor:
        """h f(1, 0, 0) + s f(0, 1, 0) + lambda f(0, 0, 1): differentiable in the couplings."""
        units = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
        terms = [function(*unit) for unit in units]
        law = [torch.as_tensor(c, device=terms[0].device).to(terms[0].dtype) for c in self._law()]
        return torch.stack([c * term for c, term in zip(law, terms, strict=True)]).sum(0)

    def action(self, field: Tensor) -> Tensor:
        self.check(field)
        phi, options = field.to(working_dtype(field)), (self.wide, self.accurate)
        if self._learned:
            return self._terms(lambda *law: call(_ops._lattice_phi4_action, phi, *law, *options))
        return cast(Tensor, call(_ops._lattice_phi4_action, phi, *self.law, *options))

    def force(self, field: Tensor) -> Tensor:
        self.check(field)
        phi = field.to(working_dtype(field))
        if self._learned:
            return self._terms(lambda *law: call(_ops._lattice_phi4_force, phi, *law, self.wide)).to(field.dtype)
        return cast(Tensor, call(_ops._lattice_phi4_force, phi, *self.law, self.wide)).to(field.dtype)

    def action_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        self.check(field)
        if self._learned:
            return self.action(field), self.force(field)
        phi = field.to(working_dtype(field))
        action, force = call(_ops._lattice_phi4_action_and_force, phi, *self.law, self.wide, self.accurate)
        return action, force.to(field.dtype)

    def density(self, field: Tensor) -> Tensor:
        """The action of each site, with its bonds ahead, float64, shape (B, L...): the sum over a box is its part.

        A bond that leaves the box belongs to it where its first site does. Computed as the action is, site by site.
        """
        self.check(field)
        phi = field.to(torch.float64 if self.wide else working_dtype(field))
        if self._learned:
            return self._terms(lambda *law: call(_ops._lattice_phi4_density, phi, *law)).double()
        return cast(Tensor, call(_ops._lattice_phi4_density, phi, *self.law)).double()

    def hessian_vector(self, field: Tensor, v: Tensor) -> Tensor:
        """The second derivative of the action times v, like the field."""
        self.check(field)
        self.check(v, "v")
        phi = field.to(working_dtype(field))
        return cast(Tensor, call(_ops._lattice_phi4_hessian, phi, v.to(phi.dtype), *self.law, self.wide)).to(
            field.dtype
        )

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Normal(self.shape, dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        self.check_cold(batch, dtype)
        return torch.zeros(batch, *self.shape, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        self.check(field)
        n = field.shape[0]
        where = {"dtype": working_dtype(field), "device": field.device}
        p = random.normal(n, self.sites, seed, first=first, step=step, **where)  # type: ignore[arg-type]
        return p.to(field.dtype).view(field.shape)

    def kinetic(self, momenta: Tensor) -> Tensor:
        self.check(momenta, "momenta")
        return event_sum(momenta.to(working_dtype(momenta)).square() / 2, self.dims)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return field + time * momenta

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "omelyan"
    ) -> tuple[Tensor, Tensor]:
        """Field and momenta at the end of a trajectory of HMC; integrators as `stages.stages` has them.

        One pass over the sites for each kick and drift; a small lattice stays in the cache for the whole of it. Where a
        gradient is wanted, the same in differentiable steps.
        """
        self.check(field)
        self.check(momenta, "momenta")
        if self._learned or (torch.is_grad_enabled() and (field.requires_grad or momenta.requires_grad)):
            return plain_trajectory(self.force, field, momenta, stages(integrator, step_size, steps))
        dtype = torch.float64 if self.wide else working_dtype(field)
        ends = call(
            _ops._lattice_phi4_trajectory,
            field.to(dtype),
            momenta.to(dtype),
            plan(integrator, step_size, steps),
            *self.law,
        )
        return ends[0].to(field.dtype), ends[1].to(field.dtype)

    def exact(self) -> dict[str, float]:
        """What is known of this theory, as `exact.scalar` gives it; {} where nothing is."""
        from . import exact

        return exact.scalar(self.shape, self.law)

    def exact_log_z(self) -> float | None:
        """ln Z where it is known (lam = 0; one dimension; strips of up to three sites), else None."""
        return self.exact().get("log_z")
