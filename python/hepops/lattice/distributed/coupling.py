"""A masked coupling on one rank's box of the lattice."""

import torch
from torch import Tensor

from hepops.flows.coupling import in_reach
from hepops.flows.masked import MaskedCoupling
from hepops.flows.transform import Transform

from .grid import Grid
from .halo import halo, interior


class DecomposedCoupling(Transform):
    r"""A :class:`hepops.flows.MaskedCoupling` whose lattice is cut into boxes; it shares that layer's weights.

    The frozen sites' margin is fetched once for the layer, as wide as its network sees; each rank computes the network
    on its box and the margin, and changes its own sites. Log-determinants are those of the whole lattice, summed over
    ranks in their order. After `backward()` call `grid.sum_gradients(parameters)`: each rank has its box's share.

    Args:
        layer: On the whole lattice; its network must be a stack of convolutions that wraps around the lattice
            (:class:`hepops.flows.ConvNet` or one of this package's), so that a site sees `radius` sites around it.
        grid: How the lattice is cut; `grid.shape` is the mask's.
        radius: How far the network sees: (kernel - 1) / 2 for every convolution; None counts the convolutions.

    Raises:
        ValueError: the lattices differ, a box is smaller than the radius, or the radius of the network is not known.

    Example:
        >>> mask = hepops.flows.checkerboard((4, 4))
        >>> layer = hepops.flows.MaskedCoupling(mask, hepops.flows.Affine())
        >>> grid = hepops.lattice.distributed.Grid((4, 4), (1, 1))
        >>> mine = hepops.lattice.distributed.DecomposedCoupling(layer, grid)
        >>> x = torch.ones(2, 4, 4)
        >>> torch.allclose(mine(x)[0], layer(x)[0])
        True
    """

    mask: Tensor

    def __init__(self, layer: MaskedCoupling, grid: Grid, radius: int | None = None) -> None:
        super().__init__()
        lattice = layer.mask.shape[layer.mask.dim() - layer.dims :]
        if lattice != grid.shape:
            raise ValueError(f"DecomposedCoupling: the grid is of {tuple(grid.shape)}, the layer of {tuple(lattice)}")
        radius = _radius(layer.network) if radius is None else radius
        if not 0 <= radius <= min(grid.local_shape):
            raise ValueError(f"DecomposedCoupling: boxes of {tuple(grid.local_shape)} are smaller than radius {radius}")
        self.layer, self.grid, self.radius = layer, grid, radius
        channels = layer.mask.shape[: layer.mask.dim() - layer.dims]
        self.event_shape, self.event_dim = torch.Size([*channels, *grid.local_shape]), layer.event_dim
        self.context_size = layer.context_size
        self.domain, self.codomain = layer.domain, layer.codomain
        self.register_buffer("mask", grid.local(layer.mask), persistent=False)

    def _change(self, inverse: bool, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        layer, D = self.layer, self.layer.dims
        seen = torch.where(self.mask, 0, x)
        if layer.event_dim == D:
            seen = seen.unsqueeze(-D - 1)
        raw = interior(layer.network(halo(seen, self.grid, self.radius), context), self.grid, self.radius)
        raw = raw.unflatten(-D - 1, (layer.channels, layer.bijection.size)).movedim(-D - 1, -1)
        if layer.event_dim == D:
            raw = raw.squeeze(-D - 2)
        function = layer.bijection.inverse if inverse else layer.bijection.forward
        y, logdet = function(x, in_reach(layer.bijection, raw, x))
        mine = torch.where(self.mask, logdet, 0).flatten(-self.event_dim).sum(-1, dtype=torch.float64)
        return torch.where(self.mask, y, x), self.grid.sum(mine)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._change(False, x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._change(True, y, context)


def _radius(network: torch.nn.Module) -> int:
    """(kernel - 1) / 2 of all convolutions, one after the other."""
    radius, found = 0, False
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() >= 3:
            radius, found = radius + max(weight.shape[2:]) // 2, True
    if not found:
        raise ValueError("DecomposedCoupling: radius must be given for a network without convolutions")
    return radius
