r"""Residual gauge flows: layers of stout-like updates with their exact log-determinant.

.. math:: U'_\mu(x) = e^{X_\mu(x)} U_\mu(x), \quad X_\mu(x) = \mathrm{TA} \sum_l \epsilon_l(x) L_l(x)

on the links of one direction :math:`\mu` and one parity of x, L the 2(D-1) plaquettes that begin with
:math:`U_\mu(x)`. No two such links share a plaquette, so that the Jacobian has one block for each link
(`hepops.lattice.residual`).

R. Abbott et al., arXiv:2305.02402; arXiv:2401.10874.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hepops.flows import Flow
from hepops.flows.sums import event_sum
from hepops.flows.transform import Compose, Transform

from ..geometry import checked_shape, neighbour
from ..residual import residual as update
from ..residual import residual_inverse as undo
from ..sun import SUN
from .gauge import check_layers, check_theory, over_batch

Conditioner = Literal["constants", "loops"]


def staples(U: Tensor, mu: int) -> Tensor:
    """The staples of U_mu(x), ahead and behind in each other direction, shape (2 (D - 1), B, L..., N, N).

    Each closes U_mu(x) to a plaquette: L = U_mu(x) A.
    """
    u, dims = U.unbind(1), U.shape[1]
    rows = []
    for nu in range(dims):
        if nu == mu:
            continue
        ahead = neighbour(u[nu], mu, dims, behind=2)
        rows.append(ahead @ neighbour(u[mu], nu, dims, behind=2).mH @ u[nu].mH)
        rows.append(neighbour(ahead.mH @ u[mu].mH @ u[nu], nu, dims, -1, behind=2))
    return torch.stack(rows)


def frozen_loops(U: Tensor, mu: int) -> Tensor:
    r"""Re tr / N of loops that hold no link of direction mu but those of the other parity, shape (F, B, L...).

    At a site x of the active parity, for each other direction nu: the rectangles of 1 x 2 (mu, nu) whose sides of
    direction mu begin at :math:`x \pm \hat\nu` (one of 2 steps in nu, from the one to the other), and the plaquettes
    of planes without mu that touch x.
    """
    u, dims = U.unbind(1), U.shape[1]
    others = [nu for nu in range(dims) if nu != mu]
    rows = []
    for nu in others:
        two = u[nu] @ neighbour(u[nu], nu, dims, behind=2)
        loop = (
            u[mu] @ neighbour(two, mu, dims, behind=2) @ neighbour(u[mu], nu, dims, 2, behind=2).mH @ two.mH
        )  # begins at the lower left corner, x - nu
        rows.append(neighbour(loop, nu, dims, -1, behind=2))
    for i, nu in enumerate(others):
        for rho in others[i + 1 :]:
            plaquette = (
                u[nu] @ neighbour(u[rho], nu, dims, behind=2) @ neighbour(u[nu], rho, dims, behind=2).mH @ u[rho].mH
            )
            around = plaquette + neighbour(plaquette, nu, dims, -1, behind=2)
            rows.append((around + neighbour(around, rho, dims, -1, behind=2)) / 4)
    return torch.stack(rows).diagonal(dim1=-2, dim2=-1).sum(-1).real / U.shape[-1]


class Residual(Transform):
    r"""The update of the links :math:`U_\mu(x)` with :math:`\sum_\nu x_\nu` even or odd.

    The coefficients are :math:`\epsilon_l = \epsilon_{max} \tanh(r_l)`, of learned constants r or of a network of the
    frozen loops' traces at x (`frozen_loops`): no active link enters it. With :math:`\sum_l |\epsilon_l| < 1` the layer
    is one to one and its log-determinant exact.

    Args:
        n: N, 2 or 3.
        shape: (L_1, ..., L_D), even. Fields have shape (B, D, L_1, ..., L_D, N, N).
        mu: Direction of the active links.
        parity: Of their sites.
        conditioner: "constants", or "loops" for a network with one hidden layer.
        hidden: Its width.
        limit: :math:`\epsilon_{max}`, below 1 / (2 (D - 1)); None is 1 / (2 D), in four dimensions the 1/8 of stout
            links. The inverse is a fixed point of rate :math:`2 (D - 1) \epsilon_{max}` at most.
        tolerance, iterations: Of the inverse (`hepops.lattice.residual_inverse`).
        dtype: Of the parameters.

    Gauge covariant to rounding. Log-determinants are float64. Differentiable once; deterministic.

    Raises:
        ValueError: an odd extent, a direction or a parity that is none, a limit out of range.
        ArithmeticError: the inverse of a field on the CPU has not come to rest.

    References:
        | R. Abbott et al., arXiv:2305.02402; arXiv:2401.10874
        | the limit 1/8: M. Lüscher, Commun. Math. Phys. 293 (2010) 899, arXiv:0907.5491

    Example:
        >>> layer = hepops.lattice.flows.Residual(3, (4, 4), mu=0, parity=0)
        >>> U = hepops.lattice.SUN(3, (4, 4), 1.0).random(1, seed=1)
        >>> V, logdet = layer(U)
        >>> bool((layer.inverse(V)[0] - U).abs().max() < 1e-12)
        True
    """

    active: Tensor

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        mu: int,
        parity: int,
        *,
        conditioner: Conditioner = "constants",
        hidden: int = 16,
        limit: float | None = None,
        tolerance: float = 1e-13,
        iterations: int = 200,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.shape = checked_shape("Residual", shape)
        D = len(self.shape)
        if n not in (2, 3):
            raise ValueError(f"Residual: n must be 2 or 3, got {n}")
        if D < 2 or any(extent % 2 for extent in self.shape):
            raise ValueError(f"Residual: shape must hold 2 to 4 even extents, got {tuple(self.shape)}")
        if not 0 <= mu < D or parity not in (0, 1):
            raise ValueError(f"Residual: mu must lie in [0, {D}) and parity be 0 or 1, got {mu} and {parity}")
        if conditioner not in ("constants", "loops"):
            raise ValueError(f'Residual: conditioner must be "constants" or "loops", got {conditioner!r}')
        limit = 1 / (2 * D) if limit is None else limit
        if not 0 < limit < 1 / (2 * (D - 1)):
            raise ValueError(f"Residual: limit must lie in (0, 1 / {2 * (D - 1)}), got {limit}")
        self.event_dim, self.event_shape, self.context_size = D + 3, torch.Size([D, *self.shape, n, n]), 0
        self.n, self.mu, self.parity, self.limit = n, mu, parity, limit
        self.tolerance, self.iterations = tolerance, iterations
        loops = 2 * (D - 1)
        self.raw = nn.Parameter(torch.full((loops,), 0.1, dtype=dtype))
        self.network = None
        if conditioner == "loops":
            last = nn.Linear(hidden, loops, bias=False, dtype=dtype)
            nn.init.zeros_(last.weight)
            features = (D - 1) + (D - 1) * (D - 2) // 2
            self.network = nn.Sequential(nn.Linear(features, hidden, dtype=dtype), nn.SiLU(), last)
        sites = torch.cartesian_prod(*[torch.arange(e) for e in self.shape]).sum(-1) % 2
        self.register_buffer("active", (sites == parity).nonzero()[:, 0], persistent=False)

    def epsilon(self, U: Tensor) -> Tensor:
        """The coefficients at the active sites, shape (loops, 1 or B, active sites, 1, 1)."""
        raw = self.raw[:, None, None]
        if self.network is not None:
            loops = frozen_loops(U, self.mu).flatten(2)[..., self.active]
            raw = raw + self.network(loops.movedim(0, -1)).movedim(-1, 0)
        return self.limit * raw.tanh()[..., None, None]

    def _staples(self, U: Tensor) -> Tensor:
        """Their weighted sum at the active links, shape (B, active sites, N, N)."""
        A = staples(U, self.mu).flatten(2, -3)[:, :, self.active]
        return (self.epsilon(U) * A).sum(0)

    def _change(self, U: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        A = self._staples(U)
        links = U[:, self.mu].flatten(1, -3)
        before = links[:, self.active]
        if backwards:
            after, logdet = undo(before, A, tolerance=self.tolerance, iterations=self.iterations)
        else:
            after, logdet = update(before, A)
        links = links.index_copy(1, self.active, after).view_as(U[:, self.mu])
        rows = [links if nu == self.mu else row for nu, row in enumerate(U.unbind(1))]
        return torch.stack(rows, 1), event_sum(logdet, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return over_batch(self._change, x, self.event_dim, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return over_batch(self._change, y, self.event_dim, True)

    def extra_repr(self) -> str:
        return f"SU({self.n}), {tuple(self.shape)}, mu={self.mu}, parity={self.parity}, limit={self.limit:.4g}"


def residual(
    theory: SUN,
    layers: int | None = None,
    *,
    recompute: Literal["inputs", "inverse"] | None = None,
    dtype: torch.dtype = torch.float64,
    conditioner: Conditioner = "constants",
    hidden: int = 16,
    limit: float | None = None,
    tolerance: float = 1e-13,
    iterations: int = 200,
) -> Flow:
    """A residual flow of SU(2) or SU(3) links: layers of :class:`Residual` over all directions and parities in turn.

    Args:
        theory: `SUN` with even extents in 2, 3 or 4 dimensions.
        layers: How many; None is 2 D, which updates every link once.
        recompute: Of the stack (`hepops.flows.Compose`).
        dtype: float32 or float64, for complex64 or complex128 links.
        conditioner, hidden, limit, tolerance, iterations: Of the layers.

    Returns:
        A `Flow` whose base is the Haar measure.

    Raises:
        TypeError: another theory.
        ValueError: layers below 1, or what the layers refuse.

    Example:
        >>> flow = hepops.lattice.flows.residual(hepops.lattice.SUN(2, (4, 4), beta=2.2), layers=8)
        >>> flow.sample(2, seed=1).shape
        torch.Size([2, 2, 4, 4, 2, 2])
    """
    check_theory("residual", theory, SUN)
    D = theory.dims
    layers = 2 * D if layers is None else layers
    check_layers("residual", layers)
    stack = [
        Residual(
            theory.n,
            theory.shape,
            mu=k // 2 % D,
            parity=k % 2,
            conditioner=conditioner,
            hidden=hidden,
            limit=limit,
            tolerance=tolerance,
            iterations=iterations,
            dtype=dtype,
        )
        for k in range(layers)
    ]
    return Flow(Compose(stack, recompute=recompute).inv, theory.prior(dtype))
