"""SU(N) gauge theory."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from hepops.core.ops import call
from hepops.flows.bases import Base, Haar
from hepops.flows.sums import event_sum

from . import group, random, wilson, wilson_formula
from .coupling import real_number
from .geometry import checked_shape, neighbour
from .stages import Stages, stages
from .theory import Theory

# c1 of the actions improved by rectangles: M. Luscher, P. Weisz, Commun. Math. Phys. 97 (1985) 59, at tree level;
# Y. Iwasaki, arXiv:1111.7054
IMPROVEMENTS = {"symanzik": -1 / 12, "iwasaki": -0.331}
UNITARY = {torch.complex64: 1e-4, torch.complex128: 1e-10}  # what thousands of steps leave of a group's matrices


class SUN(Theory):
    r"""SU(N) gauge theory with Wilson's action, or one that rectangles improve.

    .. math:: S = -\frac{\beta}{N} \Big[(1 - 8 c_1) \sum_{x,\,\mu<\nu} \mathrm{Re\,tr}\, P_{\mu\nu}(x)
        + c_1 \sum_{x,\,\mu\neq\nu} \mathrm{Re\,tr}\, R_{\mu\nu}(x)\Big], \qquad
        P_{\mu\nu}(x) = U_\mu(x)\, U_\nu(x+\hat\mu)\, U_\mu(x+\hat\nu)^\dagger\, U_\nu(x)^\dagger

    and R the loop of two links along mu and one along nu.

    Args:
        n: N, at least 2. N = 2 and 3 have kernels of their own; larger N are made of torch's operators.
        shape: (L_1, ..., L_D), D = 2, 3, 4. Fields are links, shape (B, D, L_1, ..., L_D, N, N), complex.
        beta: :math:`\beta`, any real number.
        c1: :math:`c_1`.
        improvement: Its name instead: "symanzik" (-1/12) or "iwasaki" (-0.331).
        compute: torch.float64 multiplies complex64 links in double; None computes in the precision of the links.
        accumulate: "double", or "double-double" (N = 2, 3) for sums of about 32 digits. Actions are float64 in any
            case.

    Raises:
        TypeError: `shape` or `n` are no integers, a coupling is no plain real number.
        ValueError: n below 2, one dimension or more than four, a coupling that is not finite, an unknown choice.

    Example:
        >>> theory = hepops.lattice.SUN(3, (4, 4, 4, 4), beta=6.0)
        >>> theory.action(theory.cold(1)), theory.plaquette(theory.cold(1))
        (tensor([-9216.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """

    before, behind = 1, 2
    complex = True

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        beta: float,
        c1: float = 0.0,
        compute: torch.dtype | None = None,
        accumulate: str = "double",
        *,
        improvement: str | None = None,
    ) -> None:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"SUN: n must be an integer, got {n!r}")
        n = operator.index(n)
        if n < 2:
            raise ValueError(f"SUN: n must be at least 2, got {n}")
        self.shape = checked_shape("SUN", shape)
        if len(self.shape) < 2:
            raise ValueError(f"SUN: shape must hold 2 to 4 extents, got {tuple(self.shape)}")
        if improvement is not None:
            if improvement not in IMPROVEMENTS or c1 != 0:
                raise ValueError(
                    f"SUN: improvement must be one of {', '.join(IMPROVEMENTS)} and excludes c1, got "
                    f"{improvement!r} and c1 = {c1}"
                )
            c1 = IMPROVEMENTS[improvement]
        if compute not in (None, torch.float32, torch.float64):
            raise ValueError(f"SUN: compute must be torch.float32, torch.float64 or None, got {compute}")
        if accumulate not in ("double", "double-double"):
            raise ValueError(f'SUN: accumulate must be "double" or "double-double", got {accumulate!r}')
        if accumulate != "double" and n > 3:
            raise ValueError(f"SUN: accumulate={accumulate!r} needs n = 2 or 3, got {n}")
        self.n, self.compute, self.accumulate = n, compute, accumulate
        self.beta, self.c1 = real_number("SUN", "beta", beta), real_number("SUN", "c1", c1)
        self.event_shape = torch.Size([len(self.shape), *self.shape, n, n])
        self.reach = 1 if self.c1 == 0 else 2  # how far ahead a site's density looks

    def check(self, field: Tensor, name: str = "field", unitary: bool = False) -> None:
        """Refuse what is no batch of this theory's links; where `unitary`, also matrices outside the group.

        Raises:
            TypeError: another dtype.
            ValueError: another shape, or a link that deviates from SU(N) by more than 1e-10 (complex64: 1e-4).
        """
        super().check(field, name)
        if self.compute == torch.float32 and field.dtype == torch.complex128:
            raise TypeError(f"SUN: {name} must be torch.complex64 for compute=torch.float32, got {field.dtype}")
        if not unitary:
            return
        deviation = self.deviation(field)
        if not (deviation <= UNITARY[field.dtype]).all():
            raise ValueError(
                f"SUN: {name} has links outside SU({self.n}): U U^+ - 1 or det U - 1 reach "
                f"{deviation.max().item():.3g}, allowed are {UNITARY[field.dtype]:g}"
            )

    def deviation(self, U: Tensor) -> Tensor:
        """The largest entry of U U^+ - 1 and det U - 1 over all links, shape (B)."""
        one = torch.eye(self.n, dtype=U.dtype, device=U.device)
        product = (U @ U.mH - one).abs().flatten(1)
        return torch.maximum(product.amax(1), (torch.linalg.det(U) - 1).abs().flatten(1).amax(1))

    def _law(self, name: str, U: Tensor, *arguments: object, **options: bool) -> Tensor:
        """An operator on SU(2) and SU(3), its formula for other N."""
        self.check(U)
        wide = self.compute == torch.float64 and U.dtype == torch.complex64
        if self.n <= 3:
            law: Callable[..., Tensor] = getattr(wilson, name)
            return law(U, *arguments, wide=wide, **options)
        formula: Callable[..., Tensor] = getattr(wilson_formula, name)
        result = formula(U.to(torch.complex128) if wide else U, *arguments)
        return result.to(U.dtype if result.is_complex() else result.dtype)

    def action(self, field: Tensor) -> Tensor:
        accurate = {"accurate": True} if self.accumulate == "double-double" else {}
        return self._law("wilson_action", field, self.beta, self.c1, **accurate)

    def force(self, field: Tensor) -> Tensor:
        return self._law("wilson_force", field, self.beta, self.c1)

    def action_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        if self.n > 3:
            return super().action_and_force(field)
        self.check(field)
        wide = self.compute == torch.float64 and field.dtype == torch.complex64
        accurate = self.accumulate == "double-double"
        return wilson.wilson_action_and_force(field, self.beta, self.c1, wide=wide, accurate=accurate)

    def hessian_vector(self, field: Tensor, v: Tensor) -> Tensor:
        """The second derivative of the action times v, entry by entry as torch's gradient is, without a graph."""
        self.check(field)
        self.check(v, "v")
        if v.shape != field.shape:
            raise ValueError(f"SUN: v must have shape {tuple(field.shape)}, got {tuple(v.shape)}")
        with torch.enable_grad():
            U = field.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.action(U).sum(), U, create_graph=True)
            return torch.autograd.grad(slope, U, v.to(U.dtype))[0]  # the derivative is symmetric

    def staples(self, U: Tensor) -> Tensor:
        """A, shape of U: Re tr(U A) summed over links counts each plaquette four times. Those of plaquettes alone."""
        return self._law("wilson_staples", U)

    def traces(self, U: Tensor, rectangles: bool = False) -> Tensor:
        """Re tr P, shape (B, planes, L...), planes 01, 02, ... 12, ... in this order; then, where `rectangles`, Re tr R
        of (mu, nu) = 01, 02, ..., 10, 12, ... ."""
        return self._law("loop_traces", U, rectangles)

    def density(self, field: Tensor) -> Tensor:
        self.check(field)
        planes = math.comb(self.dims, 2)
        field = field.to(torch.complex128) if self.compute == torch.float64 else field
        traces = self.traces(field, self.c1 != 0)
        total = (1 - 8 * self.c1) * traces[:, :planes].sum(1, dtype=torch.float64)
        if self.c1 != 0:
            total = total + self.c1 * traces[:, planes:].sum(1, dtype=torch.float64)
        return -self.beta / self.n * total

    def plaquettes(self, U: Tensor) -> Tensor:
        """The matrices P, shape (B, planes, L..., N, N), planes 01, 02, ... 12, ... in this order."""
        self.check(U)
        u = U.unbind(1)
        at = functools.partial(neighbour, dims=self.dims, behind=2)
        pairs = combinations(range(self.dims), 2)
        return torch.stack([u[mu] @ at(u[nu], mu) @ at(u[mu], nu).mH @ u[nu].mH for mu, nu in pairs], 1)

    def plaquette(self, U: Tensor) -> Tensor:
        """The mean of Re tr P / N, shape (B), float64."""
        return event_sum(self.traces(U), self.dims + 1) / (self.n * self.sites * math.comb(self.dims, 2))

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        return Haar(f"SU{self.n}", self.event_shape[:-2], dtype)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        kind = torch.promote_types(dtype, torch.complex32)
        self.check_cold(batch, kind)
        one = torch.eye(self.n, dtype=kind, device=device)
        return one.expand(batch, *self.event_shape).clone()

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        self.check(field)
        n, generators = field.shape[0], self.n**2 - 1
        links, real = self.dims * self.sites, field.real.dtype
        p = random.normal(n, links * generators, seed, first=first, step=step, dtype=real, device=field.device)
        return from_coordinates(p.view(*field.shape[:-2], generators), self.n)

    def kinetic(self, momenta: Tensor) -> Tensor:
        self.check(momenta, "momenta")
        return event_sum(torch.view_as_real(momenta.resolve_conj()).square(), self.dims + 4)

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return group.exp(time * momenta) @ field

    def trajectory(
        self, field: Tensor, momenta: Tensor, step_size: float, steps: int, integrator: str = "leapfrog"
    ) -> tuple[Tensor, Tensor]:
        r"""Links and momenta at the end of a trajectory of molecular dynamics, dU/dt = P U, dP/dt = -F.

        Args:
            field: U.
            momenta: P, in the algebra, shape and dtype of `field`.
            step_size: :math:`\epsilon`; a negative one goes back.
            steps: Their number.
            integrator: "leapfrog", "omelyan" or "force_gradient" (`stages.stages`).

        Returns:
            (U', P'). SU(2) and SU(3) go the whole way in one operator, unless a gradient is asked for.

        Raises:
            TypeError: another dtype, or two of them.
            ValueError: another shape, or what `stages` refuses.
        """
        self.check(field)
        self.check(momenta, "momenta")
        if momenta.dtype != field.dtype or momenta.shape != field.shape:
            raise TypeError(
                f"SUN: momenta must be as the field, {field.dtype} of shape {tuple(field.shape)}, got "
                f"{momenta.dtype} of shape {tuple(momenta.shape)}"
            )
        plan = stages(integrator, step_size, steps)
        gradient = torch.is_grad_enabled() and (field.requires_grad or momenta.requires_grad)
        if self.n > 3 or gradient:
            return plain_trajectory(self, field, momenta, plan)
        wide = self.compute == torch.float64 and field.dtype == torch.complex64
        op = torch.ops.hepops._lattice_wilson_trajectory.default
        lists = [list(plan.kicks), list(plan.bends), list(plan.drifts)]
        U, P = call(op, field, momenta, self.beta, self.c1, *lists, wide)
        return U, P

    def exact(self) -> dict[str, float]:
        """What is known of this theory, as `exact.gauge2d` gives it: SU(2) and SU(3) with Wilson's action in two
        dimensions, {} elsewhere."""
        from . import exact

        known = self.dims == 2 and self.n <= 3 and self.c1 == 0
        return exact.torus(f"SU{self.n}", self.shape, self.beta) if known else {}

    def exact_log_z(self) -> float | None:
        """ln Z where it is known, else None."""
        return self.exact().get("log_z")


def plain_trajectory(theory: SUN, U: Tensor, P: Tensor, plan: Stages) -> tuple[Tensor, Tensor]:
    """The stages one by one."""

    def kicked(U: Tensor, P: Tensor, k: int) -> Tensor:
        at = theory.move(U, theory.force(U), -plan.bends[k]) if plan.bends[k] else U
        return P - plan.kicks[k] * theory.force(at)

    P = kicked(U, P, 0)
    for k, drift in enumerate(plan.drifts, 1):
        U = theory.move(U, P, drift)
        P = kicked(U, P, k)
    return U, P


def from_coordinates(p: Tensor, n: int) -> Tensor:
    """group.from_coordinates entry by entry: the bits of a configuration do not depend on the batch."""
    X, diagonal = p.new_zeros(*p.shape[:-1], n, n, 2), p.new_zeros(*p.shape[:-1], n)
    a = 0
    for k in range(1, n):
        for j in range(k):
            symmetric, antisymmetric = p[..., a] / 2, p[..., a + 1] / 2
            X[..., j, k, 0], X[..., j, k, 1] = antisymmetric, symmetric
            X[..., k, j, 0], X[..., k, j, 1] = -antisymmetric, symmetric
            a += 2
        scaled = p[..., a, None] / math.sqrt(2 * k * (k + 1))
        diagonal[..., :k] += scaled
        diagonal[..., k : k + 1] -= k * scaled
        a += 1
    X.diagonal(dim1=-3, dim2=-2)[..., 1, :] = diagonal
    return torch.view_as_complex(X)
