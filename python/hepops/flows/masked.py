"""Couplings on a lattice, whose conditioner is a convolution that sees what the mask leaves."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .coupling import Function, bounds_of, in_reach
from .elementwise import Elementwise
from .networks import _MODULES, Activation, check_activation, start_at
from .sums import event_sum
from .transform import Transform


class ConvNet(nn.Module):
    """Convolutions with periodic borders and an activation between, channels first: (..., inputs, L...) to outputs.

    A context is given to every site as channels of its own.

    Args:
        inputs, outputs: Channels of the two ends.
        hidden: Channels between.
        kernel: Odd size of every kernel.
        dims: 1, 2 or 3 directions.
        context: C, 0 without.
        activation: As for :class:`MLP`.

    Raises:
        ValueError: The kernel is even, `dims` or the activation another.

    Example:
        >>> network = hepops.flows.ConvNet(1, 2, hidden=(8,), dims=2)
        >>> network(torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 2, 4, 4])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (8, 8),
        kernel: int = 3,
        dims: int = 2,
        context: int = 0,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        check_activation("ConvNet", activation)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ConvNet: kernel must be odd, got {kernel}")
        if dims not in (1, 2, 3):
            raise ValueError(f"ConvNet: dims must be 1, 2 or 3, got {dims}")
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        widths = [inputs + context, *hidden, outputs]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [conv(a, b, kernel, padding=kernel // 2, padding_mode="circular"), _MODULES[activation]()]
        self.layers = nn.Sequential(*layers[:-1])
        self.dims, self.context = dims, context

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        batch, image = x.shape[: -self.dims - 1], x.shape[-self.dims - 1 :]
        if context is not None:
            sites = context[(..., *[None] * self.dims)].expand(*batch, context.shape[-1], *image[1:])
            x = torch.cat([x, sites], -self.dims - 1)
        y = self.layers(x.reshape(-1, *x.shape[-self.dims - 1 :]))
        return y.view(*batch, *y.shape[1:])

    @property
    def last(self) -> nn.Module:
        return self.layers[-1]


class MaskedCoupling(Transform):
    r"""A coupling on a lattice: where the mask m is True, sites are changed by what the others say.

    .. math:: \phi' = m\, g(\phi; \theta((1 - m) \phi, c)) + (1 - m)\, \phi, \qquad
              \ln |\det f'| = \sum_{x \in m} \ln |g'(\phi_x; \theta_x)|

    The network sees zeros where the mask is True. Its channels come first and are read where they lie, without a copy.
    Masks are applied by torch.where: sites that are left keep their bits, and shapes do not depend on data.

    Args:
        mask: Bool, shape of one event: (L...), or (channels, L...) for more than one number a site.
        bijection: g.
        network: From (..., channels, L...) and context to (..., channels x g.size, L...), channel by channel. A network
            with a layer `last` begins at the identity of g. None makes a :class:`ConvNet`.
        dims: How many of the event's dimensions are the lattice's; the one before them, if any, is channels. None is
            all of the mask's.
        hidden, kernel: Of the network that is made.
        context: C, 0 without.

    Raises:
        ValueError: The mask changes nothing or all, `dims` does not fit it, or x has another shape.

    References:
        | M. S. Albergo, G. Kanwar, P. E. Shanahan, Phys. Rev. D 100 (2019) 034515, arXiv:1904.12072

    Example:
        >>> mask = hepops.flows.checkerboard((4, 4))
        >>> layer = hepops.flows.MaskedCoupling(mask, hepops.flows.Affine())
        >>> y, logdet = layer(torch.ones(2, 4, 4))
        >>> y.shape, logdet.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    mask: Tensor

    def __init__(
        self,
        mask: Tensor,
        bijection: Elementwise,
        network: nn.Module | None = None,
        *,
        dims: int | None = None,
        hidden: Sequence[int] = (8, 8),
        kernel: int = 3,
        context: int = 0,
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(mask, dtype=torch.bool)
        dims = mask.dim() if dims is None else dims
        if mask.dim() - dims not in (0, 1):
            raise ValueError(f"MaskedCoupling: dims is {dims}, but the mask has shape {tuple(mask.shape)}")
        if not mask.any() or mask.all():
            raise ValueError("MaskedCoupling: mask must change some numbers and leave others")
        self.register_buffer("mask", mask, persistent=False)
        self.event_shape, self.event_dim, self.context_size = mask.shape, mask.dim(), context
        self.bijection, self.dims = bijection, dims
        self.domain, self.codomain = bounds_of(bijection)
        self.channels = 1 if mask.dim() == dims else mask.shape[0]
        if network is None:
            network = ConvNet(self.channels, self.channels * bijection.size, hidden, kernel, dims, context)
        start_at(network, bijection.identity().repeat(self.channels))
        self.network = network

    def _change(self, function: Function, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = torch.where(self.mask, 0, x)
        if self.event_dim == self.dims:
            seen = seen.unsqueeze(-self.dims - 1)
        raw = self.network(seen, context)  # (..., channels x size, L...)
        raw = raw.unflatten(-self.dims - 1, (self.channels, self.bijection.size)).movedim(-self.dims - 1, -1)
        if self.event_dim == self.dims:
            raw = raw.squeeze(-self.dims - 2)
        y, logdet = function(x, in_reach(self.bijection, raw, x))
        return torch.where(self.mask, y, x), event_sum(torch.where(self.mask, logdet, 0), self.event_dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._change(self.bijection.forward, x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._change(self.bijection.inverse, y, context)
