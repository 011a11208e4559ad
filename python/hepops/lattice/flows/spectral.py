r"""Spectral flows of SU(2) and SU(3) links."""

from typing import Unpack

import torch
from torch import Tensor

from hepops.flows import Compose, Flow, Spline
from hepops.flows.recompute import Recompute
from hepops.flows.sums import event_sum

from ..observables.paths import TRACES, Step, products
from ..spectral import spectral as spectral_map
from ..sun import SUN
from .gauge import GaugeCoupling, Sight, masks_of
from .masks import Mask, Path, Pattern, numbered
from .staple import to_group


class SpectralCoupling(GaugeCoupling):
    r"""Links of a mask move with the eigenvalues of a loop W = U A that goes through them:

    .. math:: W = V\, \mathrm{diag}(e^{i\theta})\, V^\dagger \to W' = V\, \mathrm{diag}(e^{i\theta'})\, V^\dagger,
        \qquad U' = W' A^\dagger

    with :math:`\theta \to \theta'` by splines (`hepops.lattice.spectral`) whose parameters a network makes of the
    traces of frozen loops: Re tr / N, for SU(3) also Im tr / N.

    Args:
        mask: The active links.
        n: N, 2 or 3.
        bins: Of the splines.
        **sight: loop, radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.

    Differentiable once. Deterministic: sums over links are in double and in one order.

    Raises:
        ValueError: no loop near the links is frozen, or an unknown `loop`; fields of another shape.

    References:
        | D. Boyda et al., Phys. Rev. D 103 (2021) 074504, arXiv:2008.05456

    Example:
        >>> mask = hepops.lattice.flows.parity((2, 2, 2, 2), mu=0, parity=1)
        >>> layer = hepops.lattice.flows.SpectralCoupling(mask, 3).double()
        >>> U, logdet = layer(hepops.lattice.SUN(3, mask.shape, 1.0).random(3, seed=1))
        >>> U.shape, logdet.shape
        (torch.Size([3, 4, 2, 2, 2, 2, 3, 3]), torch.Size([3]))
    """

    sites: Tensor

    def __init__(self, mask: Mask, n: int, bins: int = 8, **sight: Unpack[Sight]) -> None:
        raw = Spline(bins, tails=None).identity().repeat(n - 1)
        super().__init__(mask, raw, 1 if n == 2 else 2, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape, n, n])
        self.event_dim, self.n, self.bins = len(self.event_shape), n, bins
        volume = mask.shape.numel()
        starts = torch.cat([k * volume + kind.sites for k, kind in enumerate(self.kinds)])
        self._look(starts[self.index], 1 if n == 2 else 2, len(self.kinds) * volume)
        self._keep("sites", numbered(mask.shape, 0, mask.sites))
        here = (0,) * len(mask.shape)
        ahead = tuple(int(i == mask.mu) for i in range(len(mask.shape)))
        self.loops = tuple((_steps(kind.path, here),) for kind in self.kinds)
        self.around = (tuple(_steps(path, ahead) for path in self.staples),)

    def _change(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        d = len(self.mask.shape)
        traces = products(x, self.loops, TRACES, 1 / self.n).flatten(1).t()
        numbers = traces.real if self.n == 2 else torch.cat([traces.real, traces.imag])
        raw = self._raw(numbers.to(x.real.dtype)).movedim(0, -1).transpose(0, 1)
        A = products(x, self.around).flatten(1, d + 1).index_select(1, self.sites)
        A = to_group(A) if len(self.staples) > 1 else A
        links = x.flatten(1, d + 1)
        W, logdet = spectral_map(links.index_select(1, self.active) @ A, raw.unflatten(-1, (self.n - 1, -1)), inverse)
        return links.index_copy(1, self.active, W @ A.mH).view(x.shape), event_sum(logdet, 1)


def _steps(path: Path, start: tuple[int, ...]) -> tuple[Step, ...]:
    """As the operator of path products has them: direction, whether back, displacement."""
    at, steps = list(start), []
    for step in path:
        mu = abs(step) - 1
        at[mu] -= step < 0
        steps.append((mu, step < 0, tuple(at)))
        at[mu] += step > 0
    return tuple(steps)


def spectral(
    theory: SUN,
    layers: int = 16,
    *,
    bins: int = 8,
    pattern: Pattern | None = None,
    dtype: torch.dtype = torch.float64,
    recompute: Recompute = None,
    every: int | None = None,
    **sight: Unpack[Sight],
) -> Flow:
    r"""A spectral flow of SU(2) or SU(3) links, from the Haar measure: masks sweep over all links again and again.

    Args:
        theory: Its group and lattice; in two dimensions the extents are multiples of 4 (with the pattern "lines"), else
            even.
        layers: How many; 8 of "lines" or 2 D of "parity" change every link once.
        bins: Of the splines.
        pattern: Of the masks; None is "lines" in two dimensions and "parity" in more.
        dtype: float32 or float64, for links of complex64 or complex128.
        recompute, every: What the backward keeps: see `hepops.flows.Compose`.
        **sight: loop ("plaquette" or "staples"), radius, plaquettes, twins, hidden, activation: see
            :class:`GaugeCoupling`.

    Returns:
        The flow, which begins as the identity. The weights do not know the volume: see :func:`transfer`.

    Raises:
        ValueError: another group, extents too small or not divisible for the masks, layers below 1, another name.

    References:
        | D. Boyda et al., Phys. Rev. D 103 (2021) 074504, arXiv:2008.05456
        | staples: arXiv:2501.18288

    Example:
        >>> theory = hepops.lattice.SUN(3, (4, 4), beta=4.0)
        >>> flow = hepops.lattice.flows.spectral(theory, layers=8)
        >>> U, log_q = flow.sample_and_log_prob(2, seed=1)
        >>> U.shape, log_q.shape
        (torch.Size([2, 2, 4, 4, 3, 3]), torch.Size([2]))
    """
    if theory.n not in (2, 3):
        raise ValueError(f"spectral: N must be 2 or 3, got {theory.n}")
    masks = masks_of("spectral", theory, layers, pattern)
    stack = [SpectralCoupling(masks[k % len(masks)], theory.n, bins, **sight).to(dtype) for k in range(layers)]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
