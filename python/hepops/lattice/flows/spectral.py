r"""Spectral flows of SU(2) and SU(3) links."""

from typing import Unpack

import torch
from torch import Tensor

from hepops.flows import Compose, Flow, Spline
from hepops.flows.recompute import Recompute

from ..spectral import spectral as spectral_map
from ..sun import SUN
from .gauge import GaugeCoupling, Sight, Signs
from .masks import Mask, Pattern, sweep
from .staple import to_group


class SpectralCoupling(GaugeCoupling):
    def __init__(self, mask: Mask, n: int, bins: int = 8, **sight: Unpack[Sight]) -> None:
        raw = Spline(bins, tails=None).identity().repeat(n - 1)
        super().__init__(mask, raw, 1 if n == 2 else 2, **sight)
        self.event_shape = torch.Size([len(mask.shape), *mask.shape, n, n])
        self.event_dim, self.n, self.bins = len(self.event_shape), n, bins

    def _numbers(self, rows: Tensor, links: Tensor, signs: Signs) -> list[Tensor]:
        trace = _chain(rows, links, signs).diagonal(dim1=-2, dim2=-1).sum(-1) / self.n
        return [trace.real] if self.n == 2 else [trace.real, trace.imag]

    def _moved(self, rows: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        A = self._staple(rows)
        W = rows.index_select(0, self.active) @ A
        W, logdet = spectral_map(W, raw.unflatten(-1, (self.n - 1, -1)), inverse)
        return W @ A.mH, logdet

    def _staple(self, rows: Tensor) -> Tensor:
        """A of each active link, (n, batch, N, N)."""
        each = [_chain(rows, links, signs) for links, signs in zip(self.paths, self.path_signs, strict=True)]
        return each[0] if len(each) == 1 else to_group(torch.stack(each).sum(0))


def _chain(rows: Tensor, links: Tensor, signs: Signs) -> Tensor:
    """Products along paths, of links (steps, n): (n, batch, N, N)."""
    steps = [rows.index_select(0, link) for link in links]
    steps = [U if sign > 0 else U.mH for U, sign in zip(steps, signs, strict=True)]
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
