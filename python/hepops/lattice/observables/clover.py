r"""The clover field strength, and the energy and topological charge that are made of it."""

import math
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from ._checks import checked_angles, checked_links
from .paths import ANTIHERMITIAN, TRACES, Step, products, total, volume, walk


def _leaves(mu: int, nu: int) -> list[tuple[int, ...]]:
    """The four plaquettes at x in the plane, all turning from mu to nu."""
    return [(mu, nu, ~mu, ~nu), (nu, ~mu, ~nu, mu), (~mu, ~nu, mu, nu), (~nu, mu, nu, ~mu)]


def field_strength(U: Tensor) -> Tensor:
    r"""The clover field strength, antihermitian and traceless.

    .. math:: F_{\mu\nu}(x) = \mathrm{TA}\Big(\frac14 \sum_{\text{4 leaves}} P\Big), \qquad
        F = i F^a T^a \to i a^2 F^a_{\mu\nu} T^a

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128.

    Returns:
        Shape (B, planes, L..., N, N), planes 01, 02, ..., 12, ...; the dtype of U, computed in double. Differentiable
        once (N = 2, 3). Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape.

    References:
        | B. Sheikholeslami, R. Wohlert, Nucl. Phys. B 259 (1985) 572

    Example:
        >>> U = hepops.lattice.SUN(3, (4, 4, 4, 4), beta=6.0).random(1, seed=1)
        >>> hepops.lattice.observables.field_strength(U).shape
        torch.Size([1, 6, 4, 4, 4, 4, 3, 3])
    """
    dims = checked_links("field_strength", U)
    planes = combinations(range(dims), 2)
    outputs = tuple(tuple(walk(leaf, dims)[0] for leaf in _leaves(mu, nu)) for mu, nu in planes)
    return products(U, outputs, ANTIHERMITIAN, 0.25)


def _pair_traces(F: Tensor, pairs: tuple[tuple[int, int, bool], ...], scale: float) -> Tensor:
    """scale sum tr F_a F_b, or -tr F_a F_b where the flag is set: F_a^+ = -F_a."""
    here = (0,) * (F.dim() - 4)
    paths: tuple[tuple[Step, ...], ...] = tuple(((a, minus, here), (b, False, here)) for a, b, minus in pairs)
    return products(F, (paths,), TRACES, scale).real[:, 0]


def energy_density(U: Tensor, form: Literal["clover", "plaquette"] = "clover") -> Tensor:
    r"""The energy density :math:`E = \frac14 F^a_{\mu\nu} F^a_{\mu\nu}` (sums over mu, nu, a) at each site.

    .. math:: E_{clover}(x) = -\sum_{\mu<\nu} \mathrm{tr}\, F_{\mu\nu}(x)^2, \qquad
        E_{plaq}(x) = 2 \sum_{\mu<\nu} \mathrm{Re\,tr}\,[1 - P_{\mu\nu}(x)]

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128.
        form: "clover" or "plaquette".

    Returns:
        float64, shape (B, L...). Differentiable once (N = 2, 3). Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, another form.

    References:
        | M. Luescher, JHEP 08 (2010) 071, arXiv:1006.4518, eqs. 3.1 and 3.5

    Example:
        >>> U = hepops.lattice.SUN(2, (4, 4, 4, 4), beta=2.4).random(2, seed=1)
        >>> hepops.lattice.observables.energy_density(U).shape
        torch.Size([2, 4, 4, 4, 4])
    """
    dims = checked_links("energy_density", U)
    planes = tuple(combinations(range(dims), 2))
    if form == "clover":
        return _pair_traces(field_strength(U), tuple((k, k, True) for k in range(len(planes))), 1.0)
    if form != "plaquette":
        raise ValueError(f"energy_density: form must be 'clover' or 'plaquette', got {form!r}")
    loops = tuple(walk((mu, nu, ~mu, ~nu), dims)[0] for mu, nu in planes)
    return 2 * (U.shape[-1] * len(planes) - products(U, (loops,), TRACES).real[:, 0])


def energy(U: Tensor, form: Literal["clover", "plaquette"] = "clover") -> Tensor:
    """The mean of `energy_density` over the lattice, float64, shape (B).

    Example:
        >>> hepops.lattice.observables.energy(hepops.lattice.SUN(2, (4, 4), beta=2.4).cold(1))
        tensor([0.], dtype=torch.float64)
    """
    return total(energy_density(U, form)) / volume(U)


def charge_density(U: Tensor) -> Tensor:
    r"""The topological charge at each site.

    .. math:: q(x) &= \frac{1}{32\pi^2} \varepsilon_{\mu\nu\rho\sigma} \mathrm{tr}\, G_{\mu\nu} G_{\rho\sigma}
        = -\frac1{4\pi^2} \mathrm{tr}\,[F_{01} F_{23} - F_{02} F_{13} + F_{03} F_{12}](x),
        \qquad F = i G \quad \text{(SU(N), 4D, clover)} \\
        q(x) &= \frac1{2\pi} \mathrm{wrap}(\theta_{01}(x)), \qquad \mathrm{wrap} \in (-\pi, \pi]
        \quad \text{(U(1), 2D, geometric)}

    Args:
        U: Links in four dimensions, shape (B, 4, L..., N, N), complex64 or complex128; or the angles of U(1) in two,
            shape (B, 2, L_1, L_2), float32 or float64.

    Returns:
        float64, shape (B, L...). The sum of the geometric one is an integer; its derivative is that of the angles, 0 in
        the sum. The clover's is no integer but on smooth fields (flow them: `hepops.lattice.wilson_flow`).
        Differentiable once (N = 2, 3). Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, another number of dimensions.

    References:
        | P. Di Vecchia, K. Fabricius, G. C. Rossi, G. Veneziano, Nucl. Phys. B 192 (1981) 392
        | M. Luescher, Commun. Math. Phys. 85 (1982) 39 (geometric)

    Example:
        >>> flux = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
        >>> flux[0, 1] = 2 * torch.pi / 16 * torch.arange(4.0)[:, None]
        >>> flux[0, 0, 3] = -2 * torch.pi / 4 * torch.arange(4.0)
        >>> hepops.lattice.observables.charge_density(flux).sum().round(decimals=12)
        tensor(1., dtype=torch.float64)
    """
    if isinstance(U, Tensor) and U.is_floating_point():
        dims = checked_angles("charge_density", U)
        if dims != 2:
            raise ValueError(f"charge_density: the geometric charge of U(1) is that of 2 dimensions, got {dims}")
        link = U.to(torch.float64)
        across, up = link[:, 0], link[:, 1]
        angle = across + up.roll(-1, 1) - across.roll(-1, 2) - up
        return (angle - 2 * math.pi * torch.ceil(angle / (2 * math.pi) - 0.5)) / (2 * math.pi)
    dims = checked_links("charge_density", U)
    if dims != 4:
        raise ValueError(f"charge_density: the charge of SU(N) is that of 4 dimensions, got {dims}")
    pairs = ((0, 5, False), (1, 4, True), (2, 3, False))  # F_02^+ = -F_02
    return _pair_traces(field_strength(U), pairs, -1 / (4 * math.pi**2))


def topological_charge(U: Tensor) -> Tensor:
    """Q, the sum of `charge_density` over the lattice, float64, shape (B).

    Example:
        >>> hepops.lattice.observables.topological_charge(hepops.lattice.U1((4, 4), beta=2.0).cold(2))
        tensor([0., 0.], dtype=torch.float64)
    """
    return total(charge_density(U))
