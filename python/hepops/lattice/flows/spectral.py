r"""Spectral flows of SU(2) and SU(3) links."""

from typing import Unpack

import torch
from torch import Tensor

from hepops.flows import Compose, Flow, Spline
from hepops.flows.recompute import Recompute

from ..spectral import spectral as spectral_map
from ..sun import SUN
from .gauge import GaugeCoupling, Sight
from .masks import Mask, Path, Pattern, sweep, walk
from .staple import to_group


class SpectralCoupling(GaugeCoupling):
    def __init__(self, mask: Mask, n: int, bins: int = 8, **sight: Unpack[Sight]) -> None:
        raw = Spline(bins, tails=None).identity().repeat(n - 1)
        super().__init__(mask, raw, 1 if n == 2 else 2, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape, n, n])
        self.event_dim, self.n, self.bins = len(self.event_shape), n, bins
        for k, kind in enumerate(self.kinds):
            self._keep(f"loops{k}", kind.links.t())
        ahead = mask.sites + torch.eye(len(mask.shape), dtype=torch.int64)[mask.mu]
        for k, path in enumerate(self.staples):
            self._keep(f"staples{k}", walk(mask.shape, ahead, path).t())

    def _moved(self, rows: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raw = self._raw(self._traces(rows)).movedim(0, -1)
        A = self._staple(rows)
        W = rows.index_select(0, self.active) @ A
        W, logdet = spectral_map(W, raw.unflatten(-1, (self.n - 1, -1)), inverse)
        return W @ A.mH, logdet

    def _traces(self, rows: Tensor) -> Tensor:
        """Re tr / N of all frozen loops, and Im tr / N where there is one, (channels x loops, batch)."""
        loops = [_chain(rows, getattr(self, f"loops{k}"), kind.path) for k, kind in enumerate(self.kinds)]
        trace = torch.cat([W.diagonal(dim1=-2, dim2=-1).sum(-1) / self.n for W in loops])
        return trace.real if self.n == 2 else torch.cat([trace.real, trace.imag])

    def _staple(self, rows: Tensor) -> Tensor:
        """A of each active link, (n, batch, N, N)."""
        each = [_chain(rows, getattr(self, f"staples{k}"), path) for k, path in enumerate(self.staples)]
        return each[0] if len(each) == 1 else to_group(torch.stack(each).sum(0))


def _chain(rows: Tensor, links: Tensor, path: Path) -> Tensor:
    """Products along paths, of links (steps, n): (n, batch, N, N)."""
    steps = [rows.index_select(0, link) for link in links]
    steps = [U if step > 0 else U.mH for U, step in zip(steps, path, strict=True)]
    product = steps[0]
    for U in steps[1:]:
        product = product @ U
    return product


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
