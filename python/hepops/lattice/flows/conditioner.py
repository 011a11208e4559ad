"""The network of a gauge coupling: numbers of the loops around each active link to the parameters of a bijection."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hepops.flows.networks import Activation, activate, check_activation, start_at


class SiteNet(nn.Module):
    """One dense network at every active link: (inputs, n B) to (outputs, n B).

    Channels come first and the batch last: gathering the neighbours of a link copies rows, and a layer is one product
    of matrices, of few rows and many columns.

    Args:
        inputs, outputs: Numbers at a link.
        hidden: Widths between.
        activation: As for :class:`hepops.flows.MLP`.

    Raises:
        ValueError: a width or the activation is none of these.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int] = (32, 32), activation: Activation = "leaky_relu"
    ) -> None:
        super().__init__()
        check_activation("SiteNet", activation)
        if not all(isinstance(width, int) and width > 0 for width in hidden):
            raise ValueError(f"SiteNet: hidden must hold positive widths, got {tuple(hidden)}")
        self.activation = activation
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([inputs, *hidden, outputs]))

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.layers
        for layer in first:
            x = activate(_dense(layer, x), self.activation)
        return _dense(last, x)

    @property
    def last(self) -> nn.Module:
        return self.layers[-1]


def _dense(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return torch.addmm(layer.bias[:, None], layer.weight, x)


def site_net(inputs: int, raw: Tensor, hidden: Sequence[int], activation: Activation) -> SiteNet:
    """A network that starts at the bijection of `raw`."""
    network = SiteNet(inputs, raw.numel(), hidden, activation)
    start_at(network, raw)
    return network
