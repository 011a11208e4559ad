"""Networks that give the parameters of a bijection: torch's matrix products with the activation done in place."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "leaky_relu", "elu", "tanh", "silu", "gelu", "softplus"]

# The first four have derivatives that follow from their result: in place they save the product's memory as well.
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "leaky_relu": lambda h: F.leaky_relu(h, inplace=True),
    "elu": lambda h: F.elu(h, inplace=True),
    "tanh": torch.tanh_,
}
_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {name: getattr(F, name) for name in _MODULES}


def activate(h: Tensor, activation: str) -> Tensor:
    """The activation of h, which may be overwritten: it must be a fresh result that nobody else reads."""
    return _IN_PLACE.get(activation, _FUNCTIONS[activation])(h)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
    """activation(x W^T + b). The backward keeps x and the result, for the activations of `_IN_PLACE` nothing else."""
    if bias is not None and weight.shape[0] < 32 and x.dim() == 2 and not torch.is_grad_enabled():
        # a product of few columns takes the processor's library 1.7 times as long as one of few rows
        h = torch.addmm(bias[:, None], weight, x.t()).t()
    else:
        h = F.linear(x, weight, bias)
    return h if activation is None else activate(h, activation)


def dense_with_context(
    x: Tensor, context: Tensor | None, weight: Tensor, bias: Tensor | None, activation: str | None = None
) -> Tensor:
    """:func:`dense` of (x, context) side by side; a context that broadcasts is multiplied before it is repeated."""
    if context is None:
        return dense(x, weight, bias, activation)
    if context.shape[:-1] == x.shape[:-1]:
        return dense(torch.cat([x, context], -1), weight, bias, activation)
    n = x.shape[-1]
    h = F.linear(x, weight[:, :n], bias) + F.linear(context, weight[:, n:])
    return h if activation is None else activate(h, activation)


def check_activation(who: str, activation: str) -> None:
    if activation not in _MODULES:
        raise ValueError(f"{who}: activation must be one of {', '.join(_MODULES)}, got {activation!r}")


def check_widths(who: str, **widths: int) -> None:
    for name, width in widths.items():
        if width < 0:
            raise ValueError(f"{who}: {name} must not be negative, got {width}")


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer with torch's initial values; without inputs it is a bias that starts at 0."""
    if inputs:
        return nn.Linear(inputs, outputs)
    layer = nn.utils.skip_init(nn.Linear, 0, outputs)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers with an activation between: (..., inputs) and context (..., context) -> (..., outputs).

    Args:
        inputs, outputs: Widths of the two ends.
        hidden: Widths between; none makes one linear layer.
        context: C, 0 without. Context may have fewer or shorter batch dimensions than x.
        activation: "relu", "leaky_relu", "elu", "tanh", "silu", "gelu" or "softplus". The first four need no memory of
            their own in training.

    Raises:
        ValueError: A width or the activation is none of these.

    Example:
        >>> network = hepops.flows.MLP(2, 5, hidden=(16,), context=3, activation="tanh")
        >>> network(torch.zeros(7, 2), torch.zeros(3)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        check_activation("MLP", activation)
        check_widths("MLP", inputs=inputs, outputs=outputs, hidden=min(hidden, default=0), context=context)
        self.activation = activation
        widths = [inputs + context, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [linear(a, b), _MODULES[activation]()]
        self.layers = nn.Sequential(*layers, linear(widths[-1], outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        linears: list[nn.Linear] = list(self.layers)[::2]  # type: ignore[assignment]
        *first, last = linears
        for layer in first:
            x, context = dense_with_context(x, context, layer.weight, layer.bias, self.activation), None
        return dense_with_context(x, context, last.weight, last.bias)

    @property
    def last(self) -> nn.Linear:
        """The layer whose bias starts at the identity of a bijection and whose weights start at 0."""
        return self.layers[-1]  # type: ignore[return-value]


class _Block(nn.Module):
    """h + W1 act(W0 act(h)), the second term gated by the context."""

    def __init__(self, width: int, context: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = linear(width, width), linear(width, width)
        self.gate = linear(context, width) if context else None
        for parameter in self.second.parameters():  # a block starts close to the identity, as in nflows
            nn.init.uniform_(parameter, -1e-3, 1e-3)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        change = dense(_FUNCTIONS[self.activation](h), self.first.weight, self.first.bias, self.activation)
        change = dense(change, self.second.weight, self.second.bias)
        if self.gate is not None and context is not None:
            change = change * torch.sigmoid(dense(context, self.gate.weight, self.gate.bias))
        return h + change


class ResidualMLP(nn.Module):
    r"""Residual blocks of two layers: (..., inputs) and context (..., context) -> (..., outputs).

    .. math:: h \leftarrow h + \sigma(V c + d)\, (W_1\, a(W_0\, a(h) + b_0) + b_1)

    with the activation a. It is the network of nflows' NSF without dropout and batch normalisation: same blocks, same
    gate by the context, which also joins x at the entry.

    Args:
        inputs, outputs: Widths of the two ends.
        hidden: Width between.
        blocks: How many.
        context: C, 0 without.
        activation: As for :class:`MLP`.

    Raises:
        ValueError: A width, `blocks` or the activation is none of these.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS (2019), arXiv:1906.04032

    Example:
        >>> hepops.flows.ResidualMLP(2, 5, hidden=16, blocks=2)(torch.zeros(7, 2)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 64,
        blocks: int = 2,
        context: int = 0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        check_activation("ResidualMLP", activation)
        check_widths("ResidualMLP", inputs=inputs, outputs=outputs, hidden=hidden, blocks=blocks, context=context)
        self.first = linear(inputs + context, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, context, activation) for _ in range(blocks))
        self.last = linear(hidden, outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = dense_with_context(x, context, self.first.weight, self.first.bias)
        for block in self.blocks:
            h = block(h, context)
        return dense(h, self.last.weight, self.last.bias)


class Periodic(nn.Module):
    """A network of angles: it is given their cosines and sines, and so cannot tell 2 pi from 0.

    Args:
        network: From (..., 2 n) and context to (..., outputs).

    Example:
        >>> network = hepops.flows.Periodic(hepops.flows.MLP(4, 3))
        >>> angles = torch.tensor([0.3, -1.0])
        >>> torch.allclose(network(angles), network(angles + 2 * torch.pi), atol=1e-6)
        True
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(torch.cat([x.cos(), x.sin()], -1), context)

    @property
    def last(self) -> nn.Linear:
        return self.network.last  # type: ignore[return-value]


def start_at(network: nn.Module, raw: Tensor) -> None:
    """Sets the last layer so that a fresh network gives `raw` everywhere; a network without `last` stays as it is."""
    last = getattr(network, "last", None)
    if last is not None:
        if last.bias is None or last.bias.numel() != raw.numel():
            raise ValueError(f"network: its last layer must give {raw.numel()} numbers and have a bias, got {last}")
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(raw.flatten())
