r"""Correlators of scalar fields, and what is made of their means.

Functions of a field give one number, or one correlator, for each configuration. Functions of means take the average
over the ensemble: hand them to `hepops.lattice.statistics.estimate` for errors, with `log_w` for samples of a flow.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from ._checks import checked_scalar


def two_point(phi: Tensor) -> Tensor:
    r"""The two-point function with all translations, by Fourier transforms.

    .. math:: G(x) = \frac1V \sum_y \phi(y)\, \phi(y + x)

    Args:
        phi: Shape (B, L_1, ..., L_D), float32 or float64.

    Returns:
        float64, shape (B, L_1, ..., L_D). Differentiable.

    Raises:
        TypeError: `phi` of another dtype.
        ValueError: `phi` of another shape or an empty batch.

    Example:
        >>> phi = torch.tensor([[1.0, 0.0, 2.0, 0.0]])
        >>> hepops.lattice.observables.two_point(phi)
        tensor([[1.2500, 0.0000, 1.0000, 0.0000]], dtype=torch.float64)
    """
    dims = checked_scalar("two_point", phi)
    where = tuple(range(1, dims + 1))
    spectrum = torch.fft.rfftn(phi.to(torch.float64), dim=where).abs().square()
    return torch.fft.irfftn(spectrum.to(torch.complex128), s=phi.shape[1:], dim=where) / phi[0].numel()


def correlator(phi: Tensor, direction: int = -1) -> Tensor:
    r"""The correlator of zero momentum across a direction.

    .. math:: C(t) = \sum_{\vec x} G(\vec x, t) = \frac1V \sum_{t'} s(t')\, s(t' + t), \qquad
        s(t) = \sum_{\vec x} \phi(\vec x, t)

    Args:
        phi: Shape (B, L_1, ..., L_D), float32 or float64.
        direction: Of t; the last if not given.

    Returns:
        float64, shape (B, L_t), all times round the lattice. Differentiable.

    Raises:
        TypeError: `phi` of another dtype.
        ValueError: `phi` of another shape, a direction that the lattice has not.

    References:
        | I. Montvay, G. Muenster, Quantum Fields on a Lattice, Cambridge 1994, section 2.1

    Example:
        >>> hepops.lattice.observables.correlator(torch.tensor([[[1.0, 2.0], [1.0, 0.0]]]))
        tensor([[2., 2.]], dtype=torch.float64)
    """
    dims = checked_scalar("correlator", phi)
    if not -dims <= direction < dims:
        raise ValueError(f"correlator: direction must be from {-dims} to {dims - 1}, got {direction}")
    across = [1 + mu for mu in range(dims) if mu != direction % dims]
    slices = phi.to(torch.float64).sum(across) if across else phi.to(torch.float64)
    return two_point(slices) * slices.shape[1] / phi[0].numel()


def propagator(phi: Tensor) -> Tensor:
    r"""The propagator of each momentum: :math:`\tilde G(p) = |\tilde\phi(p)|^2 / V`, the Fourier transform of G.

    Args:
        phi: Shape (B, L_1, ..., L_D), float32 or float64.

    Returns:
        float64, shape (B, L_1, ..., L_D), at p = 2 pi k / L in the order of torch.fft. Differentiable.

    Raises:
        TypeError: `phi` of another dtype.
        ValueError: `phi` of another shape.

    Example:
        >>> hepops.lattice.observables.propagator(torch.ones(1, 4))
        tensor([[4., 0., 0., 0.]], dtype=torch.float64)
    """
    dims = checked_scalar("propagator", phi)
    where = tuple(range(1, dims + 1))
    return torch.fft.fftn(phi.to(torch.float64), dim=where).abs().square() / phi[0].numel()


def magnetisation_moments(phi: Tensor) -> Tensor:
    r"""|m|, m^2 and m^4 of the mean field :math:`m = \frac1V \sum_x \phi(x)`.

    Args:
        phi: Shape (B, L_1, ..., L_D), float32 or float64.

    Returns:
        float64, shape (B, 3). Differentiable.

    Raises:
        TypeError: `phi` of another dtype.
        ValueError: `phi` of another shape.

    Example:
        >>> hepops.lattice.observables.magnetisation_moments(torch.full((1, 4, 4), -2.0))
        tensor([[ 2.,  4., 16.]], dtype=torch.float64)
    """
    checked_scalar("magnetisation_moments", phi)
    m = phi.to(torch.float64).flatten(1).mean(1)
    return torch.stack([m.abs(), m**2, m**4], 1)


def binder(moments: Tensor) -> Tensor:
    r"""The Binder cumulant :math:`1 - \langle m^4 \rangle / 3 \langle m^2 \rangle^2` of mean `magnetisation_moments`.

    Args:
        moments: Shape (..., 3).

    Returns:
        Shape (...): 0 for a Gaussian field, 2/3 deep in the broken phase.

    References:
        | K. Binder, Z. Phys. B 43 (1981) 119

    Example:
        >>> phi = hepops.lattice.Phi4((4, 4), m2=1.0, lam=0.0).random(1000, seed=1)
        >>> moments = hepops.lattice.observables.magnetisation_moments(phi)
        >>> U = hepops.lattice.statistics.estimate(moments, hepops.lattice.observables.binder)
        >>> bool(U.sigmas(0.0).abs() < 3)
        True
    """
    return 1 - moments[..., 2] / (3 * moments[..., 1] ** 2)


def susceptibility(moments: Tensor, volume: int, connected: bool = False) -> Tensor:
    r""":math:`\chi = V \langle m^2 \rangle`, connected :math:`V(\langle m^2 \rangle - \langle |m| \rangle^2)`.

    Args:
        moments: Means of `magnetisation_moments`, shape (..., 3).
        volume: V, the number of sites.
        connected: Whether the square of the mean |m| is taken off.

    Returns:
        Shape (...).

    Example:
        >>> hepops.lattice.observables.susceptibility(torch.tensor([0.5, 1.0, 3.0]), 16, connected=True)
        tensor(12.)
    """
    return volume * (moments[..., 1] - (moments[..., 0] ** 2 if connected else 0))


def effective_mass(C: Tensor, form: Literal["acosh", "log"] = "acosh") -> Tensor:
    r"""The effective mass at each time from a correlator.

    .. math:: \text{acosh: } \cosh E(t) = \frac{C(t+1) + C(t-1)}{2\, C(t)} \text{ (exact for one state on a ring)},
        \qquad \text{log: } E(t) = \ln \frac{C(t)}{C(t+1)}

    Args:
        C: Means over an ensemble, shape (..., L_t), all times round the lattice.
        form: "acosh" or "log".

    Returns:
        Shape (..., L_t), of t = 0, 1, ... with C periodic. NaN where noise makes the argument less than 1 or negative;
        near t = 0 (acosh) and L_t/2 (log) it means nothing. Differentiable.

    Raises:
        ValueError: fewer than 3 times, another form.

    Example:
        >>> t = torch.arange(8, dtype=torch.float64)
        >>> hepops.lattice.observables.effective_mass(torch.cosh(0.5 * (t - 4)))[1:4]
        tensor([0.5000, 0.5000, 0.5000], dtype=torch.float64)
    """
    if C.dim() == 0 or C.shape[-1] < 3:
        raise ValueError(f"effective_mass: C must hold 3 times or more, got shape {tuple(C.shape)}")
    ahead, behind = C.roll(-1, -1), C.roll(1, -1)
    if form == "acosh":
        return torch.acosh((ahead + behind) / (2 * C))
    if form != "log":
        raise ValueError(f"effective_mass: form must be 'acosh' or 'log', got {form!r}")
    return (C / ahead).log()


def pole_mass(C: Tensor, first: int = 1, last: int | None = None) -> Tensor:
    r"""The pole mass, acosh[(C(t+1) + C(t-1)) / 2 C(t)], from the times first ... last together.

    .. math:: \cosh E = \frac{\sum_t [C(t+1) + C(t-1)]}{2 \sum_t C(t)}

    which is exact for one state, as each time is, and takes little from the noisy ones.

    Args:
        C: Means over an ensemble, shape (..., L_t), all times round the lattice.
        first: The least t, 1 or more: at t = 0 there is a contact term.
        last: The largest, below L_t; L_t / 2 if not given.

    Returns:
        Shape (...). Differentiable.

    Raises:
        ValueError: times that the correlator has not.

    Example:
        >>> t = torch.arange(8, dtype=torch.float64)
        >>> hepops.lattice.observables.pole_mass(torch.cosh(0.5 * (t - 4)))
        tensor(0.5000, dtype=torch.float64)
    """
    L = C.shape[-1]
    last = L // 2 if last is None else last
    if not 1 <= first <= last < L:
        raise ValueError(f"pole_mass: times must be 1 <= first <= last < {L}, got first {first}, last {last}")
    around = (C.roll(-1, -1) + C.roll(1, -1))[..., first : last + 1].sum(-1)
    return torch.acosh(around / (2 * C[..., first : last + 1].sum(-1)))


def correlation_length(G: Tensor, dims: int) -> Tensor:
    r"""The second-moment correlation length from the means of `propagator`.

    .. math:: \xi = \frac{1}{2 \sin(\pi / L)} \sqrt{\frac{\tilde G(0)}{\tilde G(2\pi/L)} - 1}

    With several directions the squares are averaged. The free field has :math:`\xi = 1/m` exactly.

    Args:
        G: Means over an ensemble, shape (..., L_1, ..., L_D).
        dims: D.

    Returns:
        Shape (...); NaN where noise makes the argument negative. Differentiable.

    Raises:
        ValueError: no direction of 3 sites or more, dims that G has not.

    References:
        | F. Cooper, B. Freedman, D. Preston, Nucl. Phys. B 210 (1982) 210

    Example:
        >>> G = 1 / (4 * torch.sin(torch.pi * torch.arange(6, dtype=torch.float64) / 6) ** 2 + 0.25)
        >>> hepops.lattice.observables.correlation_length(G, 1).round(decimals=6)
        tensor(2., dtype=torch.float64)
    """
    if not 1 <= dims <= G.dim():
        raise ValueError(f"correlation_length: dims must be from 1 to {G.dim()}, got {dims}")
    strides = [math.prod(G.shape[G.dim() - dims + mu + 1 :]) for mu in range(dims)]
    flat = G.flatten(-dims)
    zero, squares = flat[..., 0], []
    for mu, L in enumerate(G.shape[G.dim() - dims :]):
        if L > 2:
            first = flat[..., strides[mu]]
            squares.append((zero / first - 1) / (4 * math.sin(math.pi / L) ** 2))
    if not squares:
        raise ValueError(f"correlation_length: a direction must have 3 sites or more, got shape {tuple(G.shape)}")
    return torch.stack(squares).mean(0).sqrt()


def topological_susceptibility(charges: Tensor, volume: int) -> Tensor:
    r""":math:`\chi_{top} = (\langle Q^2 \rangle - \langle Q \rangle^2) / V` of the means of (Q, Q^2).

    Args:
        charges: Means, shape (..., 2): `torch.stack([Q, Q**2], -1)` averaged.
        volume: V, the number of sites.

    Returns:
        Shape (...).

    Example:
        >>> hepops.lattice.observables.topological_susceptibility(torch.tensor([0.0, 2.0]), 64)
        tensor(0.0312)
    """
    return (charges[..., 1] - charges[..., 0] ** 2) / volume
