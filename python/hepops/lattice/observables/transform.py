r"""Gauge transformations, and smearing, which commutes with them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hepops.flows.bases import Haar

from .. import group
from ..geometry import neighbour
from ._checks import checked_angles, checked_directions, checked_links
from .paths import ANTIHERMITIAN, products, walk


def gauge_transform(U: Tensor, g: Tensor) -> Tensor:
    r"""The links after a gauge transformation.

    .. math:: U_\mu(x) \to g(x)\, U_\mu(x)\, g(x+\hat\mu)^\dagger, \qquad
        \theta_\mu(x) \to \theta_\mu(x) + \alpha(x) - \alpha(x+\hat\mu) \quad \text{(U(1), wrapped)}

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128; or angles, shape (B, D, L...), real.
        g: Matrices of the group, shape (B, L..., N, N), dtype of U; or angles, shape (B, L...).

    Returns:
        Like U. Differentiable once with respect to both (N = 2, 3). Deterministic.

    Raises:
        TypeError: `U` of another dtype, `g` of another than U.
        ValueError: `U` of another shape, `g` of one that does not fit.

    Example:
        >>> theory = hepops.lattice.SUN(3, (4, 4), beta=5.0)
        >>> U = theory.random(2, seed=1)
        >>> g = hepops.lattice.observables.random_transformation(U, seed=2)
        >>> V = hepops.lattice.observables.gauge_transform(U, g)
        >>> bool((theory.action(V) - theory.action(U)).abs().max() < 1e-10)
        True
    """
    angles = isinstance(U, Tensor) and U.is_floating_point()
    dims = checked_angles("gauge_transform", U) if angles else checked_links("gauge_transform", U)
    if g.dtype != U.dtype:
        raise TypeError(f"gauge_transform: g must have the dtype of U, {U.dtype}, got {g.dtype}")
    shape = U.shape[:1] + U.shape[2:]
    if g.shape != shape:
        raise ValueError(f"gauge_transform: g must have shape {tuple(shape)}, got {tuple(g.shape)}")
    if angles:
        moved = [U[:, mu] + g - neighbour(g, mu, dims) for mu in range(dims)]
        theta = torch.stack(moved, 1)
        return theta - 2 * torch.pi * torch.ceil(theta / (2 * torch.pi) - 0.5)
    here = (0,) * dims
    ahead = [tuple(int(d == mu) for d in range(dims)) for mu in range(dims)]
    outputs = tuple((((dims, False, here), (mu, False, here), (dims, True, ahead[mu])),) for mu in range(dims))
    return products(torch.cat([U, g[:, None]], 1), outputs)


def random_transformation(U: Tensor, seed: int, *, first: int = 0, step: int = 0) -> Tensor:
    """A transformation for each configuration, uniform in the group at each site: g of `gauge_transform`.

    Args:
        U: Links or angles, whose shape and dtype it follows.
        seed: Of the random numbers.
        first: Number of the first configuration: it has the same transformation in any batch.
        step: Another transformation for each.

    Example:
        >>> theta = hepops.lattice.U1((4, 4), beta=2.0).cold(3)
        >>> hepops.lattice.observables.random_transformation(theta, seed=1).shape
        torch.Size([3, 4, 4])
    """
    if U.is_floating_point():
        base = Haar("U1", U.shape[2:], U.dtype)
    else:
        base = Haar(f"SU{U.shape[-1]}", U.shape[2:-2], U.real.dtype)
    return base.to(U.device).draw(U.shape[0], seed, first, step)


def stout(U: Tensor, rho: float, steps: int = 1, directions: Sequence[int] | None = None) -> Tensor:
    r"""Stout smearing.

    .. math:: U_\mu \to e^{-\rho\, \mathrm{TA}(U_\mu A_\mu)}\, U_\mu

    A_mu is the sum of the staples in the planes of `directions`. It commutes with gauge transformations.

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128.
        rho: :math:`\rho`, stable up to 1 / (2 (D - 1)) or so: 0.15 is usual in 4 dimensions.
        steps: How often.
        directions: Whose links change, with staples in these directions: (0, 1, 2) smears in space where time is
            direction 3. All if not given.

    Returns:
        Like U, in the group. Differentiable once (N = 2, 3). Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, fewer than two directions, a negative number of steps.

    References:
        | C. Morningstar, M. Peardon, Phys. Rev. D 69 (2004) 054501, hep-lat/0311018

    Example:
        >>> theory = hepops.lattice.SUN(2, (4, 4, 4, 4), beta=2.4)
        >>> U = theory.random(1, seed=1)
        >>> bool(theory.plaquette(hepops.lattice.observables.stout(U, 0.1)) > theory.plaquette(U))
        True
    """
    dims = checked_links("stout", U)
    wanted = tuple(range(dims)) if directions is None else checked_directions("stout", tuple(directions), dims)
    if len(set(wanted)) < 2 or len(set(wanted)) < len(wanted):
        raise ValueError(f"stout: directions must be two or more different ones, got {directions}")
    if steps < 0:
        raise ValueError(f"stout: steps must not be negative, got {steps}")
    outputs = tuple(
        tuple(walk(p, dims)[0] for nu in wanted if nu != mu for p in ((mu, nu, ~mu, ~nu), (mu, ~nu, ~mu, nu)))
        for mu in wanted
    )
    index = torch.tensor(wanted, device=U.device)
    for _ in range(steps):
        X = products(U, outputs, ANTIHERMITIAN, -rho)
        if len(wanted) == dims and wanted == tuple(range(dims)):
            U = group.exp(X) @ U
        else:
            U = U.index_copy(1, index, group.exp(X) @ U[:, index])
    return U
