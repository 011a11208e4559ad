r"""Spectral flows of SU(2) and SU(3) links."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from hepops.flows import Compose, Flow, Spline
from hepops.flows.recompute import Recompute
from hepops.flows.sums import event_sum

from ..observables.paths import TRACES, Step, products
from ..spectral import spectral as spectral_map
from ..sun import SUN
from .gauge import GaugeCoupling, Loop, Sight, check_theory, loop_of, masks_of
from .masks import Mask, Path, Pattern, numbered, staples
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
        loop: What moves, "plaquette" or "staples".
        **sight: radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.

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
    twins: Tensor

    def __init__(self, mask: Mask, n: int, bins: int = 8, loop: Loop = "plaquette", **sight: Unpack[Sight]) -> None:
        raw = Spline(bins, tails=None).identity().repeat(n - 1)
        super().__init__(mask, raw, 1 if n == 2 else 2, loop=loop, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape, n, n])
        self.event_dim, self.n, self.bins = len(self.event_shape), n, bins
        self._keep("sites", numbered(mask.shape, 0, mask.sites))
        self._place()
        d = len(mask.shape)
        ahead = tuple(int(i == mask.mu) for i in range(d))
        self.closed = tuple((_steps(kind.path, (0,) * d),) for kind in self.kinds if kind.pair is None)
        self.around = tuple((_steps(path, ahead),) for path in staples(mask.mu, d))

    def _place(self) -> None:
        """Where the numbers of the loops stand: plaquettes of every site, then twins of every active link."""
        shape, n = self.mask.shape, len(self.mask.sites)
        ahead = numbered(shape, 0, self.mask.sites + torch.eye(len(shape), dtype=torch.int64)[self.mask.mu])
        link_of = torch.full([shape.numel()], -1).index_copy(0, ahead, torch.arange(n))
        pairs = [kind.pair for kind in self.kinds if kind.pair is not None]
        width = len(staples(self.mask.mu, len(shape)))
        self._keep("twins", torch.tensor([i * width + j for i, j in pairs], dtype=torch.int64))
        places, count, twins = [], 0, 0
        first_twin = (len(self.kinds) - len(pairs)) * shape.numel()
        for kind in self.kinds:
            if kind.pair is None:
                places.append(count + kind.sites)
                count += shape.numel()
            else:
                places.append(first_twin + twins + link_of[kind.sites])
                twins += n
        self._look(torch.cat(places)[self.index], 1 if self.n == 2 else 2, first_twin + twins)

    def _change(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        d = len(self.mask.shape)
        links = x.flatten(1, d + 1)
        each = products(x, self.around).flatten(2, d + 1).index_select(2, self.sites)  # batch, staples, n, N, N
        A = to_group(each.sum(1)) if self.loop == "staples" else each[:, 0]
        raw = self._raw(self._numbers(x, each)).movedim(0, -1).transpose(0, 1).unflatten(-1, (self.n - 1, -1))
        W, logdet = spectral_map(links.index_select(1, self.active) @ A, raw, inverse)
        return links.index_copy(1, self.active, W @ A.mH).view(x.shape), event_sum(logdet, 1)

    def _numbers(self, x: Tensor, each: Tensor) -> Tensor:
        """Re tr / N of the frozen loops, and Im tr / N where there is one, (channels x loops, batch)."""
        parts = []
        if self.closed:
            parts.append(products(x, self.closed, TRACES, 1 / self.n).flatten(1).to(x.dtype))
        if self.twins.numel():  # tr A_i A_j^+, all pairs as one product
            rows = each.transpose(1, 2).flatten(-2)
            gram = (rows @ rows.mH).flatten(-2).index_select(-1, self.twins)
            parts.append(gram.transpose(1, 2).flatten(1) / self.n)
        traces = torch.cat(parts, 1).t()
        return traces.real if self.n == 2 else torch.cat([traces.real, traces.imag])


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
    loop: Loop | Sequence[Loop] = "plaquette",
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
        loop: What moves, "plaquette" or "staples" (see :class:`GaugeCoupling`), or one of them for each sweep in turn.
        pattern: Of the masks; None is "lines" in two dimensions and "parity" in more.
        dtype: float32 or float64, for links of complex64 or complex128.
        recompute, every: What the backward keeps: see `hepops.flows.Compose`.
        **sight: radius, plaquettes, twins, hidden, activation: see :class:`GaugeCoupling`.

    Returns:
        The flow, which begins as the identity. The weights do not know the volume: see :func:`transfer`.

    Raises:
        TypeError: another theory.
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
    check_theory("spectral", theory, SUN)
    if theory.n not in (2, 3):
        raise ValueError(f"spectral: N must be 2 or 3, got {theory.n}")
    masks = masks_of("spectral", theory, layers, pattern)
    loops = [loop_of(loop, k, len(masks)) for k in range(layers)]
    stack = [
        SpectralCoupling(masks[k % len(masks)], theory.n, bins, loop=name, **sight).to(dtype)
        for k, name in enumerate(loops)
    ]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
