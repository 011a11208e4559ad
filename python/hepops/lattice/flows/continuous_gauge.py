r"""Continuous flows of gauge fields: gradient flows of Wilson loops with coefficients that depend on time.

.. math:: \dot U_\mu(x) = Z_\mu(x)\, U_\mu(x), \qquad
    Z_\mu(x) = \sum_k c_k(t) \sum_{l \in k} \mathrm{TA}\, h_k(L_l), \qquad
    \frac{d \ln q}{dt} = -\sum_{x, \mu, a} \partial^a Z^a

with L the loops that begin with :math:`U_\mu(x)`. For :math:`\partial^a U = i T^a U`, :math:`Z^a = 2\,\mathrm{Im\,tr}\,
T^a h`, :math:`T^a T^a = C_F = (N^2 - 1)/2N` and :math:`2 T^a_{ij} T^a_{kl} = \delta_{il} \delta_{jk} - \delta_{ij}
\delta_{kl} / N`, each link and loop (which passes the link once) gives

=========== ============================== =============================================================================
kind        h                              :math:`\partial^a Z^a`
=========== ============================== =============================================================================
plaquette   P                              :math:`2 C_F\, \mathrm{Re\,tr}\, P`
double      :math:`P^2`                    :math:`\mathrm{Re} [(2 C_F - 1/N)\, \mathrm{tr}\, P^2 + (\mathrm{tr}\, P)^2]`
square      :math:`P\, \mathrm{Re\,tr}\,P` :math:`2 C_F (\mathrm{Re\,tr}\, P)^2 - |\mathrm{TA}\, P|^2`
rectangle   R (1 x 2 and 2 x 1)            :math:`2 C_F\, \mathrm{Re\,tr}\, R`
=========== ============================== =============================================================================

M. Lüscher, Commun. Math. Phys. 293 (2010) 899, arXiv:0907.5491; S. Bacchio, P. Kessel, S. Schaefer, L. Vaitl,
Phys. Rev. D 107 (2023) L051504, arXiv:2212.08469.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepops.flows.recompute import Recompute, Step, run, run_from_inputs, run_inverting
from hepops.flows.sums import event_sum
from hepops.flows.transform import Transform

from .. import group
from ..geometry import checked_shape, neighbour
from .continuous_scalar import lagrange
from .gauge import over_batch

KINDS = ("plaquette", "double", "square", "rectangle")


def path_product(U: Tensor, path: Sequence[int]) -> Tensor:
    r"""The product of the links along a path from every site, shape (B, L..., N, N).

    Args:
        U: Shape (B, D, L..., N, N).
        path: Steps: mu + 1 forward, -(mu + 1) backward.
    """
    dims = U.shape[1]
    at = [0] * dims
    product: Tensor | None = None
    for step in path:
        mu = abs(step) - 1
        if step < 0:
            at[mu] -= 1
        link = U[:, mu]
        for nu, offset in enumerate(at):
            if offset:
                link = neighbour(link, nu, dims, offset, behind=2)
        link = link if step > 0 else link.mH
        if step > 0:
            at[mu] += 1
        product = link if product is None else product @ link
    assert product is not None
    return product


def plaquette_paths(mu: int, dims: int) -> list[tuple[int, ...]]:
    """The plaquettes that begin with U_mu(x)."""
    m = mu + 1
    return [(m, n, -m, -n) for nu in range(dims) if nu != mu for n in (nu + 1, -nu - 1)]


def rectangle_paths(mu: int, dims: int) -> list[tuple[int, ...]]:
    """The rectangles that begin with U_mu(x): it is the first or the second link of a long side, or a short side."""
    m = mu + 1
    paths: list[tuple[int, ...]] = []
    for nu in range(dims):
        if nu == mu:
            continue
        for n in (nu + 1, -nu - 1):
            paths += [(m, m, n, -m, -m, -n), (m, n, -m, -m, -n, m), (m, n, n, -m, -n, -n)]
    return paths


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(-1)


class LoopField(nn.Module):
    r"""The vector field Z of :class:`ContinuousGauge`, with its divergence in closed form.

    :math:`c_k(t)` is a polynomial by its values at the Chebyshev nodes of [0, 1].

    Args:
        n: N.
        shape: (L_1, ..., L_D); extents of 2 for plaquettes, of 3 for rectangles at least.
        kinds: Of loops: "plaquette", "double", "square", "rectangle". For N = 2 "double" and "square" are the same.
        nodes: Values of each coefficient.
        dtype: Of the parameters.

    The coefficients begin at 0.

    Raises:
        ValueError: An unknown kind, or an extent in which a loop would pass a link twice.
    """

    node: Tensor

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        kinds: Sequence[str] = ("plaquette", "double", "square"),
        nodes: int = 5,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.n, self.shape, self.kinds = n, checked_shape("LoopField", shape), tuple(kinds)
        if not self.kinds or any(kind not in KINDS for kind in self.kinds) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"LoopField: kinds must be some of {KINDS}, each once, got {self.kinds}")
        least = 3 if "rectangle" in self.kinds else 2
        if n < 2 or len(self.shape) < 2 or min(self.shape) < least or nodes < 1:
            raise ValueError(
                f"LoopField: n and D must be at least 2, extents {least} and nodes 1, got {n}, {tuple(self.shape)} and "
                f"{nodes}"
            )
        self.weight = nn.Parameter(torch.zeros(nodes, len(self.kinds), dtype=dtype))
        at = (1 - torch.cos(math.pi * (torch.arange(nodes) + 0.5) / nodes)) / 2
        self.register_buffer("node", at.to(dtype), persistent=False)

    def forward(self, t: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
        """Z, of the shape of U, and its divergence, shape (B), float64."""
        c = dict(zip(self.kinds, (lagrange(t.to(self.weight.dtype), self.node) @ self.weight).unbind(), strict=True))
        rows, density = [], []
        for mu in range(U.shape[1]):
            h, divergence = self._of_direction(U, mu, c)
            rows.append(h)
            density.append(divergence)
        Z = group.traceless_antihermitian(torch.stack(rows, 1))
        return Z, event_sum(torch.stack(density, 1), len(self.shape) + 1)

    def _of_direction(self, U: Tensor, mu: int, c: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """sum_k c_k h_k of the links of one direction, and the divergence at each."""
        n, dims = self.n, U.shape[1]
        casimir = (n * n - 1) / n  # 2 C_F
        h, divergence = torch.zeros_like(U[:, mu]), torch.zeros_like(U[:, mu, ..., 0, 0].real)
        if set(c) != {"rectangle"}:
            P = torch.stack([path_product(U, path) for path in plaquette_paths(mu, dims)])
            trace = _trace(P)
            linear = torch.zeros_like(trace.real)  # the factor of P in h
            if "plaquette" in c:
                linear = linear + c["plaquette"]
                divergence = divergence + c["plaquette"] * casimir * trace.real.sum(0)
            if "square" in c:
                linear = linear + c["square"] * trace.real
                X = group.traceless_antihermitian(P)
                norm = (X.real.square() + X.imag.square()).sum((-2, -1))
                divergence = divergence + c["square"] * (casimir * trace.real.square() - norm).sum(0)
            h = h + (linear[..., None, None] * P).sum(0)
            if "double" in c:
                PP = P @ P
                h = h + c["double"] * PP.sum(0)
                second = (casimir - 1 / n) * _trace(PP).real + trace.square().real
                divergence = divergence + c["double"] * second.sum(0)
        if "rectangle" in c:
            R = torch.stack([path_product(U, path) for path in rectangle_paths(mu, dims)]).sum(0)
            h = h + c["rectangle"] * R
            divergence = divergence + c["rectangle"] * casimir * _trace(R).real
        return h, divergence


def _bracket(A: Tensor, B: Tensor) -> Tensor:
    return A @ B - B @ A


def _dexp_inverse(u: Tensor, v: Tensor) -> Tensor:
    """The inverse of dexp_u at v up to the third order: v - [u, v] / 2 + [u, [u, v]] / 12 + O(u^4)."""
    first = _bracket(u, v)
    return v - first / 2 + _bracket(u, first) / 12


class RKMKStep(Transform):
    r"""One step of the classical Runge-Kutta rule in the algebra, which keeps the group.

    .. math:: k_1 = h Z(U), \quad k_2 = h\,\mathrm{dexp}^{-1}_{k_1/2} Z(e^{k_1/2} U), \quad \ldots, \quad
        U(t + h) = e^{(k_1 + 2 k_2 + 2 k_3 + k_4)/6}\, U + O(h^5)

    and the same weights for the divergence. The inverse is the step from t + h to t: it comes back to
    :math:`O(h^5)`.

    References:
        | H. Munthe-Kaas, Appl. Numer. Math. 29 (1999) 115, doi:10.1016/S0168-9274(98)00030-0
    """

    def __init__(self, field: LoopField, start: float, end: float) -> None:
        super().__init__()
        self.field, self.start, self.end = field, start, end
        D = len(field.shape)
        self.event_dim, self.context_size = D + 3, 0

    def _step(self, U: Tensor, t: float, h: float) -> tuple[Tensor, Tensor]:
        def rate(time: float, U: Tensor) -> tuple[Tensor, Tensor]:
            return self.field(torch.full((), time, dtype=torch.float64, device=U.device), U)

        Z, d1 = rate(t, U)
        k1 = h * Z
        Z, d2 = rate(t + h / 2, group.exp(k1 / 2) @ U)
        k2 = h * _dexp_inverse(k1 / 2, Z)
        Z, d3 = rate(t + h / 2, group.exp(k2 / 2) @ U)
        k3 = h * _dexp_inverse(k2 / 2, Z)
        Z, d4 = rate(t + h, group.exp(k3) @ U)
        k4 = h * _dexp_inverse(k3, Z)
        return group.exp((k1 + 2 * (k2 + k3) + k4) / 6) @ U, h / 6 * (d1 + 2 * (d2 + d3) + d4)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._step(x, self.start, self.end - self.start)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._step(y, self.end, self.start - self.end)


class ContinuousGauge(Transform):
    r"""Links that follow :class:`LoopField` from t = 0 (the base) to 1 (the data), by steps of a fourth-order
    Runge-Kutta-Munthe-Kaas rule.

    Args:
        n: N, 2 or 3.
        shape: (L_1, ..., L_D), D = 2, 3, 4. Fields have shape (B, D, L_1, ..., L_D, N, N).
        kinds, nodes: Of the field.
        steps: Of the integrator. Map and log-determinant are right to :math:`O(\mathrm{steps}^{-4})`, and the inverse
            comes back to within that, not to rounding. Links stay in the group to rounding.
        recompute: What is kept for the backward: None: all; "inputs": one field for each step; "inverse": the last
            field alone (memory constant in steps), with gradients at points that are :math:`O(\mathrm{steps}^{-4})`
            off.
        dtype: Of the parameters: float64 for complex128 links.

    Gauge covariant, and covariant under the symmetries of the lattice. Gradients are those of the steps taken.
    Log-determinants are float64. Deterministic.

    Raises:
        ValueError: steps below 1, another `recompute`, N, or what the field refuses.

    References:
        | M. Lüscher, arXiv:0907.5491; S. Bacchio, P. Kessel, S. Schaefer, L. Vaitl, arXiv:2212.08469

    Example:
        >>> layer = hepops.lattice.flows.ContinuousGauge(2, (4, 4))
        >>> U = hepops.lattice.SUN(2, (4, 4), 1.0).random(1, seed=1)
        >>> bool(torch.equal(layer(U)[0], U)), layer(U)[1].item()  # new: the identity
        (True, 0.0)
    """

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        kinds: Sequence[str] = ("plaquette", "double", "square"),
        nodes: int = 5,
        steps: int = 8,
        recompute: Recompute = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if n not in (2, 3):
            raise ValueError(f"ContinuousGauge: n must be 2 or 3, got {n}")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"ContinuousGauge: steps must be a whole number of at least 1, got {steps!r}")
        if recompute not in (None, "inputs", "inverse"):
            raise ValueError(f'ContinuousGauge: recompute must be None, "inputs" or "inverse", got {recompute!r}')
        self.field, self.steps = LoopField(n, shape, kinds, nodes, dtype), steps
        self.recompute: Recompute = recompute
        D = len(self.field.shape)
        self.event_dim, self.event_shape = D + 3, torch.Size([D, *self.field.shape, n, n])
        self.context_size = 0

    def _follow(self, U: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        steps = [
            Step(RKMKStep(self.field, i / self.steps, (i + 1) / self.steps), backwards, 0) for i in range(self.steps)
        ]
        steps = steps[::-1] if backwards else steps
        if self.recompute is None or not torch.is_grad_enabled():
            return run(steps, U, None)
        if self.recompute == "inputs" or torch.compiler.is_compiling():
            return run_from_inputs(steps, U, None, 1)
        return run_inverting(steps, U, None, len(steps))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return over_batch(self._follow, x, self.event_dim, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return over_batch(self._follow, y, self.event_dim, True)

    def extra_repr(self) -> str:
        return f"SU({self.field.n}), {tuple(self.field.shape)}, kinds={self.field.kinds}, steps={self.steps}"
