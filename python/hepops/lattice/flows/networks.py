"""Convolutional networks on a periodic lattice of 1 to 4 dimensions: the conditioners of couplings."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..convolve import ACTIVATIONS, Activation, convolve


def check_sizes(who: str, hidden: Sequence[int], kernel: int, dims: int, activation: Activation) -> None:
    """Refuse what no network of this page has."""
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"{who}: hidden must hold positive numbers of channels, got {tuple(hidden)}")
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"{who}: kernel must be odd, got {kernel}")
    if not 1 <= dims <= 4:
        raise ValueError(f"{who}: dims must be 1 to 4, got {dims}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{who}: activation must be 'leaky_relu', 'tanh', 'silu' or None, got {activation!r}")


def bound_of(fan_in: int) -> float:
    """Initial weights are uniform in (-bound, bound), as those of torch's convolutions."""
    return 1 / math.sqrt(fan_in)


class PeriodicConv(nn.Module):
    """:func:`hepops.lattice.convolve` with learned weights: (..., inputs, L...) to (..., outputs, L...).

    Args:
        inputs, outputs: Channels.
        kernel: Odd size, the same in all directions.
        dims: D, 1 to 4.
        activation: None, "leaky_relu", "tanh" or "silu".
        bias: Whether there is one.

    Raises:
        ValueError: a number is none of these.

    Example:
        >>> hepops.lattice.flows.PeriodicConv(1, 3, dims=4)(torch.zeros(2, 1, 4, 4, 4, 4)).shape
        torch.Size([2, 3, 4, 4, 4, 4])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        dims: int = 2,
        activation: Activation = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_sizes("PeriodicConv", (inputs, outputs), kernel, dims, activation)
        self.dims, self.activation = dims, activation
        bound = bound_of(inputs * kernel**dims)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *[kernel] * dims).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        D = self.dims
        y = convolve(x.reshape(-1, *x.shape[-D - 1 :]), self.weight, self.bias, self.activation)
        return y.view(*x.shape[: -D - 1], *y.shape[1:])

    def extra_repr(self) -> str:
        outputs, inputs, *kernel = self.weight.shape
        return f"{inputs}, {outputs}, kernel={kernel}, activation={self.activation!r}, bias={self.bias is not None}"


class ConvNet(nn.Module):
    """Periodic convolutions with an activation between: (..., inputs, L...) and context to (..., outputs, L...).

    The network of `hepops.flows.MaskedCoupling` in 1 to 4 dimensions. A context is given to every site as channels of
    its own.

    Args:
        inputs, outputs: Channels of the two ends.
        hidden: Channels between.
        kernel: Odd size of every kernel.
        dims: D, 1 to 4.
        context: C, 0 without.
        activation: "leaky_relu", "tanh" or "silu".

    Raises:
        ValueError: a number or the activation is none of these.

    Example:
        >>> network = hepops.lattice.flows.ConvNet(1, 2, hidden=(8,), dims=3)
        >>> mask = hepops.flows.checkerboard((4, 4, 4))
        >>> layer = hepops.flows.MaskedCoupling(mask, hepops.flows.Affine(), network)
        >>> layer(torch.zeros(5, 4, 4, 4))[0].shape
        torch.Size([5, 4, 4, 4])
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
        check_sizes("ConvNet", hidden, kernel, dims, activation)
        self.dims, self.context = dims, context
        widths = [inputs + context, *hidden, outputs]
        ends = [activation] * len(hidden) + [None]
        self.layers = nn.Sequential(
            *(PeriodicConv(a, b, kernel, dims, end) for (a, b), end in zip(pairwise(widths), ends, strict=True))
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            batch, sites = x.shape[: -self.dims - 1], x.shape[-self.dims :]
            everywhere = context[(..., *[None] * self.dims)].expand(*batch, context.shape[-1], *sites)
            x = torch.cat([x, everywhere], -self.dims - 1)
        y: Tensor = self.layers(x)
        return y

    @property
    def last(self) -> PeriodicConv:
        """The layer whose bias starts at the identity of a bijection and whose weights start at 0."""
        return self.layers[-1]  # type: ignore[return-value]


class EvenNet(nn.Module):
    """A network that does not change under x -> -x: odd convolutions (tanh, no bias), a square, one more convolution.

    Args:
        inputs, outputs, hidden, kernel, dims: As of :class:`ConvNet`.

    Raises:
        ValueError: a number is none of these.

    Example:
        >>> network = hepops.lattice.flows.EvenNet(1, 5, dims=2)
        >>> x = torch.randn(1, 1, 4, 4)
        >>> torch.equal(network(x), network(-x))
        True
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int] = (8, 8), kernel: int = 3, dims: int = 2
    ) -> None:
        super().__init__()
        check_sizes("EvenNet", hidden, kernel, dims, "tanh")
        widths = [inputs, *hidden]
        self.odd = nn.Sequential(*(PeriodicConv(a, b, kernel, dims, "tanh", bias=False) for a, b in pairwise(widths)))
        self.last = PeriodicConv(widths[-1], outputs, kernel, dims)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        y: Tensor = self.last(self.odd(x).square())
        return y
