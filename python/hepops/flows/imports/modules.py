"""The networks and layers of nflows, normflows and zuko, where hepops builds its own in another way."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..elementwise import Elementwise
from ..networks import _FUNCTIONS as ACTIVATIONS
from ..sums import event_sum
from ..transform import Transform

Activation = Callable[[Tensor], Tensor]


def activation_of(who: str, activation: str | Activation) -> Activation:
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"{who}: activation must be a function or one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]


class Dense(nn.Module):
    """x (W o M)^T + b: a linear layer, whose mask M keeps zero what an autoregressive network must not see."""

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool = True, masked: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("mask", torch.ones(outputs, inputs) if masked else None)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return F.linear(x, weight, self.bias)

    def dependence(self) -> Tensor:
        """Which output knows of which input."""
        mask = torch.ones_like(self.weight) if self.mask is None else self.mask
        return (mask != 0).to(torch.float64)


class Norm(nn.Module):
    """Batch normalisation of nflows' blocks by its running statistics, which stay as they are."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * (self.running_var + self.eps).rsqrt() * self.weight + self.bias


def expanded(context: Tensor, x: Tensor) -> Tensor:
    return context.expand(*x.shape[:-1], context.shape[-1])


class Block(nn.Module):
    """A residual block of nflows and normflows: h + W1 a(W0 a(h)); the context gates it, or is added inside (nflows'
    MADE)."""

    def __init__(
        self,
        linears: Sequence[Dense],
        norms: Sequence[Norm],
        context: Dense | None,
        activation: str | Activation,
        gates: bool,
    ) -> None:
        super().__init__()
        self.linears, self.norms, self.context = nn.ModuleList(linears), nn.ModuleList(norms), context
        self.activation, self.gates = activation_of("Block", activation), gates

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        t = h
        for i, linear in enumerate(self.linears):
            t = linear(self.activation(self.norms[i](t) if len(self.norms) else t))
            if i == 0 and not self.gates and self.context is not None and context is not None:
                t = t + self.context(context)
        if self.gates and self.context is not None and context is not None:
            t = t * torch.sigmoid(self.context(context))
        return h + t


class FeedForward(nn.Module):
    """A block of nflows' MADE without residuals: a(W norm(h)); it reads no context."""

    def __init__(self, linear: Dense, norm: Norm | None, activation: str | Activation) -> None:
        super().__init__()
        self.linear, self.norm, self.activation = linear, norm, activation_of("FeedForward", activation)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        return self.activation(self.linear(h if self.norm is None else self.norm(h)))


class NflowsNet(nn.Module):
    """ResidualNet and MADE of nflows and of normflows.

    Args:
        initial, blocks, final: The layers.
        activation: a.
        joined: Whether the context is an input beside x (ResidualNet).
        context: The layer through which it is added to what `initial` gives (MADE).
        plain: Whether that is added as it is, and blocks without residuals follow `initial` without activation
            (normflows); nflows applies a to both.
        before: Applied to x (normflows' periodic features).
    """

    def __init__(
        self,
        initial: Dense,
        blocks: Sequence[nn.Module],
        final: Dense,
        activation: str | Activation,
        *,
        joined: bool,
        context: Dense | None = None,
        plain: bool = False,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.initial, self.blocks, self.final, self.context = initial, nn.ModuleList(blocks), final, context
        self.activation, self.joined, self.plain = activation_of("NflowsNet", activation), joined, plain
        self.before = before

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = None if context is None else expanded(context, x)
        x = x if self.before is None else self.before(x)
        h = self.initial(torch.cat([x, context], -1) if self.joined and context is not None else x)
        if self.context is not None and context is not None:
            c = self.context(context)
            h = h + (c if self.plain else self.activation(c))
        if len(self.blocks) and isinstance(self.blocks[0], FeedForward) and not self.plain:
            h = self.activation(h)
        for block in self.blocks:
            h = block(h, context)
        return self.final(h)


class PeriodicFeatures(nn.Module):
    """normflows' PeriodicFeaturesElementwise: angles x to u sin(s x) + v cos(s x), each by one number, others as they
    are."""

    places: Tensor
    scale: Tensor

    def __init__(self, features: int, angles: int, bias: bool = False) -> None:
        super().__init__()
        self.features = features
        self.weights = nn.Parameter(torch.ones(angles, 2))
        self.bias = nn.Parameter(torch.zeros(angles)) if bias else None
        self.register_buffer("places", torch.arange(angles))
        self.register_buffer("scale", torch.ones(angles))

    def forward(self, x: Tensor) -> Tensor:
        angle = self.scale * x.index_select(-1, self.places)
        value = self.weights[:, 0] * angle.sin() + self.weights[:, 1] * angle.cos()
        return x.index_copy(-1, self.places, value if self.bias is None else value + self.bias)


class Alone(nn.Module):
    """A network of x alone, where others of the flow read a context."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x)


class MaskedPair(nn.Module):
    """normflows' MaskedAffineFlow: one network for shifts and one for logarithms of scales; both see all features, with
    zeros where those that change are."""

    passive: Tensor
    active: Tensor

    def __init__(self, features: int, shift: nn.Module | None, scale: nn.Module | None, active: Sequence[int]) -> None:
        super().__init__()
        self.features, self.shift, self.scale = features, shift, scale
        self.register_buffer("active", torch.as_tensor(active), persistent=False)
        passive = [i for i in range(features) if i not in set(active)]
        self.register_buffer("passive", torch.as_tensor(passive, dtype=torch.int64), persistent=False)

    def forward(self, b: Tensor, context: Tensor | None = None) -> Tensor:
        x = b.new_zeros(*b.shape[:-1], self.features).index_copy(-1, self.passive, b)
        zero = b.new_zeros(*b.shape[:-1], len(self.active))
        t, s = (zero if net is None else net(x).index_select(-1, self.active) for net in (self.shift, self.scale))
        return torch.stack([t, s], -1).flatten(-2)


class Residual(nn.Module):
    """x + W1 a(W0 x) of zuko."""

    def __init__(self, first: Dense, second: Dense, activation: str | Activation) -> None:
        super().__init__()
        self.first, self.second, self.activation = first, second, activation_of("Residual", activation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.activation(self.first(x)))

    def dependence(self) -> Tensor:
        through = self.second.dependence() @ self.first.dependence()
        return through + torch.eye(len(through), dtype=through.dtype)


class ZukoNet(nn.Module):
    """MLP of zuko and normflows, zuko's MaskedMLP: layers, with an activation and a normalisation between where there
    were any."""

    def __init__(self, layers: Sequence[nn.Module], between: Sequence[int], activation: str | Activation) -> None:
        super().__init__()
        self.layers, self.between = nn.ModuleList(layers), list(between)
        self.activation = activation_of("ZukoNet", activation)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            x = torch.cat([x, expanded(context, x)], -1)
        for layer, modules in zip(self.layers, [*self.between, 0], strict=True):
            x = layer(x)
            if modules > 0:
                x = self.activation(x)
            if modules > 1:
                variance, mean = torch.var_mean(x, unbiased=True, dim=-1, keepdim=True)
                x = (x - mean) / (variance + 1e-5).sqrt()
        return x

    def dependence(self) -> Tensor:
        """Which output knows of which input."""
        known = None
        for layer in self.layers:
            step = layer.dependence()  # type: ignore[operator]
            known = step if known is None else step @ known
        assert known is not None
        return known > 0


class Passes(Transform):
    """An autoregressive transform whose inverse runs the network `passes` times: after k of them all features that
    depend on chains of fewer than k others are right."""

    def __init__(self, bijection: Elementwise, network: nn.Module, features: int, context: int, passes: int) -> None:
        super().__init__()
        self.bijection, self.network, self.passes = bijection, network, passes
        self.event_shape, self.context_size = torch.Size([features]), context

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.network(x, context).unflatten(-1, (x.shape[-1], self.bijection.size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        y, logdet = self.bijection.forward(x, self._raw(x, context))
        return y, event_sum(logdet, 1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        x = torch.zeros_like(y)
        logdet = x
        for _ in range(self.passes):
            x, logdet = self.bijection.inverse(y, self._raw(x, context))
        return x, event_sum(logdet, 1)


class FromContext(Transform):
    """Every feature by its own bijection, whose parameters the context alone sets."""

    def __init__(self, bijection: Elementwise, network: nn.Module, features: int, context: int) -> None:
        super().__init__()
        self.bijection, self.network = bijection, network
        self.event_shape, self.context_size = torch.Size([features]), context

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        return self.network(expanded(context, x)).unflatten(-1, (x.shape[-1], self.bijection.size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        y, logdet = self.bijection.forward(x, self._raw(x, context))
        return y, event_sum(logdet, 1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        x, logdet = self.bijection.inverse(y, self._raw(y, context))
        return x, event_sum(logdet, 1)


class Embedded(Transform):
    """A transform whose context goes through a network first."""

    def __init__(self, transform: Transform, embedding: nn.Module) -> None:
        super().__init__()
        self.transform, self.embedding = transform, embedding
        self.event_dim, self.event_shape, self.domain = transform.event_dim, transform.event_shape, transform.domain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, None if context is None else self.embedding(context))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(y, None if context is None else self.embedding(context))


class Rescale(Transform):
    """y = scale x + shift with constants: nflows' PointwiseAffineTransform."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.context_size = 0

    def _logdet(self, x: Tensor) -> Tensor:
        return self.scale.double().abs().log().expand(x.shape[-1]).sum().expand(x.shape[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.scale + self.shift, self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.shift) / self.scale, -self._logdet(y)
