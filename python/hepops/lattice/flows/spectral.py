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
from .gauge import GaugeCoupling, Sight
from .masks import Mask, Path, Pattern, numbered, sweep
from .staple import to_group


class SpectralCoupling(GaugeCoupling):
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
    """A spectral flow of SU(2) or SU(3) links."""
    masks = sweep(theory.shape, pattern or ("lines" if theory.dims == 2 else "parity"))
    stack = [SpectralCoupling(masks[k % len(masks)], theory.n, bins, **sight).to(dtype) for k in range(layers)]
    return Flow(Compose(stack, recompute, every).inv, theory.prior(dtype))
