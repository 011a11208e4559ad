r"""Wilson loops, Creutz ratios, Polyakov loops."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ._checks import as_links, checked_directions, checked_links
from .paths import TRACES, Step, products, total, volume, walk


def _lengths(name: str, lengths: int | Sequence[int], extent: int) -> tuple[int, ...]:
    wanted = tuple(range(1, lengths + 1)) if isinstance(lengths, int) else tuple(lengths)
    if not wanted or not all(isinstance(n, int) and 1 <= n < extent for n in wanted):
        raise ValueError(
            f"wilson_loops: {name} must be lengths from 1 to {extent - 1}, below the extent {extent} of their "
            f"direction (a line as long as the lattice closes: see polyakov_loops), got {lengths}"
        )
    return wanted


def wilson_loops(
    U: Tensor, r: int | Sequence[int], t: int | Sequence[int], planes: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    r"""Rectangular Wilson loops, averaged over the lattice.

    .. math:: W_{\mu\nu}(R, T) = \frac1V \sum_x \frac1N \mathrm{Re\,tr}\big[
        L_\mu^R(x)\, L_\nu^T(x + R\hat\mu)\, L_\mu^R(x + T\hat\nu)^\dagger\, L_\nu^T(x)^\dagger\big],
        \qquad L_\mu^R(x) = U_\mu(x) \cdots U_\mu(x + (R-1)\hat\mu)

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128; or the angles of U(1), (B, D, L...), real.
        r: The lengths R along :math:`\mu`, each below L_mu; an integer stands for 1 ... r.
        t: The lengths T along :math:`\nu`, likewise.
        planes: Pairs (mu, nu); all with mu < nu if not given.

    Returns:
        float64, shape (B, planes, lengths R, lengths T). Lines are computed once and serve every loop: 4 products a
        loop, whatever its size. Differentiable once. Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, a length that is not below the extent, a plane that the lattice has not.

    References:
        | K. G. Wilson, Phys. Rev. D 10 (1974) 2445

    Example:
        >>> U = hepops.lattice.SUN(2, (4, 4, 4), beta=2.0).random(5, seed=1)
        >>> hepops.lattice.observables.wilson_loops(U, 2, (1, 3)).shape  # W(1, 1), W(1, 3), W(2, 1), W(2, 3)
        torch.Size([5, 3, 2, 2])
    """
    U = as_links(U)
    dims, shape = checked_links("wilson_loops", U), U.shape[2:-2]
    planes = tuple(combinations(range(dims), 2)) if planes is None else tuple(tuple(p) for p in planes)  # type: ignore[misc]
    lines: dict[tuple[int, int], int] = {}  # (mu, length) -> its number among the lines
    loops, sizes = [], (0, 0)
    for plane in planes:
        if len(plane) != 2 or plane[0] == plane[1]:
            raise ValueError(f"wilson_loops: planes must be pairs of different directions, got {plane}")
        mu, nu = checked_directions("wilson_loops", plane, dims)
        rs, ts = _lengths("r", r, shape[mu]), _lengths("t", t, shape[nu])
        sizes = len(rs), len(ts)
        for R in rs:
            for T in ts:
                across, up = (lines.setdefault(key, len(lines)) for key in ((mu, R), (nu, T)))
                loops.append((_rectangle(across, up, mu, nu, R, T, dims),))
    fields = products(U, tuple((walk([mu] * length, dims)[0],) for mu, length in lines))
    traces = products(fields, tuple(loops), TRACES, 1 / (U.shape[-1] * volume(U)))
    return total(traces.real.flatten(0, 1)).view(U.shape[0], len(planes), *sizes)


def _rectangle(across: int, up: int, mu: int, nu: int, R: int, T: int, dims: int) -> tuple[Step, ...]:
    def at(direction: int, steps: int) -> tuple[int, ...]:
        return tuple(steps if d == direction else 0 for d in range(dims))

    here = (0,) * dims
    return (across, False, here), (up, False, at(mu, R)), (across, True, at(nu, T)), (up, True, here)


def creutz_ratios(loops: Tensor) -> Tensor:
    r"""Creutz ratios of loops W(R, T), R, T = 1, 2, ...: the string tension where the loops are large.

    .. math:: \chi(R, T) = -\ln \frac{W(R, T)\, W(R-1, T-1)}{W(R, T-1)\, W(R-1, T)}, \qquad W(0, T) = W(R, 0) = 1

    Args:
        loops: Means over an ensemble, shape (..., R, T), as `wilson_loops(U, r, t)` gives them for integers r and t.

    Returns:
        Shape (..., R, T); NaN where a mean loop is not positive, which noise makes it. A function of means: give it to
        `hepops.lattice.statistics.estimate` for errors. Differentiable.

    Raises:
        ValueError: fewer than two dimensions.

    References:
        | M. Creutz, Phys. Rev. Lett. 45 (1980) 313

    Example:
        >>> area = torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 4))
        >>> hepops.lattice.observables.creutz_ratios(torch.exp(-0.25 * area - 0.1))[1:, 1:].round(decimals=6)
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])
    """
    if loops.dim() < 2:
        raise ValueError(f"creutz_ratios: loops must have shape (..., R, T), got {tuple(loops.shape)}")
    log = torch.nn.functional.pad(loops.log(), (1, 0, 1, 0))  # ln W(0, T) = 0
    return -(log[..., 1:, 1:] + log[..., :-1, :-1] - log[..., 1:, :-1] - log[..., :-1, 1:])


def polyakov_loops(U: Tensor, direction: int = -1) -> Tensor:
    r"""The Polyakov loop at each site of the lattice across its direction.

    .. math:: P(\vec x) = \frac1N \mathrm{tr} \prod_{t=0}^{L_\mu - 1} U_\mu(\vec x, t)

    Args:
        U: Links, shape (B, D, L..., N, N), complex64 or complex128; or the angles of U(1), (B, D, L...), real.
        direction: mu; negative ones count from the last.

    Returns:
        complex128, shape (B, L... without L_mu). Its mean over the sites is the order parameter. Differentiable once.
        Deterministic.

    Raises:
        TypeError: `U` of another dtype.
        ValueError: `U` of another shape, a direction that the lattice has not.

    References:
        | A. M. Polyakov, Phys. Lett. B 72 (1978) 477

    Example:
        >>> cold = hepops.lattice.SUN(3, (4, 4, 4, 2), beta=6.0).cold(1)
        >>> hepops.lattice.observables.polyakov_loops(cold).mean((1, 2, 3))
        tensor([1.+0.j], dtype=torch.complex128)
    """
    U = as_links(U)
    dims = checked_links("polyakov_loops", U)
    (mu,) = checked_directions("polyakov_loops", (direction % dims if -dims <= direction < 0 else direction,), dims)
    slices = U[:, mu].movedim(1 + mu, 1)  # the links at each time are the fields on the lattice across
    path = tuple((time, False, (0,) * (dims - 1)) for time in range(slices.shape[1]))
    return products(slices, ((path,),), TRACES, 1 / U.shape[-1])[:, 0]


def polyakov_correlator(loops: Tensor) -> Tensor:
    r"""The correlator of Polyakov loops with all translations, by Fourier transforms.

    .. math:: C(\vec r) = \frac1{V_\perp} \sum_{\vec x} \mathrm{Re}\, P(\vec x)\, P(\vec x + \vec r)^*
        \sim e^{-L_\mu V(r)}

    Args:
        loops: Of `polyakov_loops`, shape (B, L...), complex.

    Returns:
        float64, shape (B, L...), C at the displacement r. Differentiable.

    Raises:
        TypeError: not complex.

    Example:
        >>> P = torch.tensor([[1.0 + 0j, 1j, -1.0, -1j]], dtype=torch.complex128)
        >>> hepops.lattice.observables.polyakov_correlator(P).round(decimals=12)
        tensor([[ 1.,  0., -1.,  0.]], dtype=torch.float64)
    """
    if not loops.is_complex():
        raise TypeError(f"polyakov_correlator: loops must be complex, got {loops.dtype}")
    where = tuple(range(1, loops.dim()))
    spectrum = torch.fft.fftn(loops.to(torch.complex128), dim=where).abs().square()
    sites = loops[0].numel()
    return torch.fft.ifftn(spectrum.to(torch.complex128), dim=where).real / sites
