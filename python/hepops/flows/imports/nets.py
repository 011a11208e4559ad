"""What nflows and normflows, which took its code, write alike: ResidualNet, MADE, LU layers, splines of constants."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..coupling import Pointwise
from ..mixing import LULinear, Permutation
from ..transform import Transform
from .modules import Activation, Block, Dense, FeedForward, NflowsNet, Norm
from .report import Convert, State, some

PARTS = ("widths", "heights", "derivatives")


def filled(state: State, prefix: str, module: nn.Module) -> nn.Module:
    """A module of the caller's with the parameters and buffers that are under `prefix`."""
    module.to(state.dtype)
    for name, target in module.state_dict(keep_vars=True).items():
        state.into(f"{prefix}{name}", target)
    return module


def permutation(state: State, key: str) -> Permutation:
    p = state.look(key)
    state.sized(len(p), key)
    if p.dim() != 1 or sorted(p.tolist()) != list(range(len(p))):
        raise state.error(f"{key} is no permutation: {p.tolist()[:8]}")
    transform = Permutation(p)
    state.into(key, transform.permutation)
    return transform


def lu(state: State, prefix: str) -> Transform:
    """x -> L U x + b; the floor of U's diagonal is 1e-3 in nflows, normflows and here."""
    names = [f"{prefix}{n}" for n in ("bias", "lower_entries", "upper_entries", "unconstrained_upper_diag")]
    state.need(*names)
    D = state.sized(state.look(names[0]).shape[0], prefix)
    transform = LULinear(D).to(state.dtype)
    assert transform.bias is not None
    for name, target, offset in ((names[1], transform.lower, -1), (names[2], transform.upper, 1)):
        state.shaped(name, D * (D - 1) // 2)
        indices = torch.tril_indices(D, D, -1) if offset < 0 else torch.triu_indices(D, D, 1)
        matrix = torch.zeros(D, D, dtype=state.dtype)
        matrix[indices[0], indices[1]] = state.take(name)
        state.into(name, target, lambda _, matrix=matrix: matrix, "as a matrix")  # type: ignore[misc]
    state.into(names[3], transform.diagonal)
    state.into(names[0], transform.bias)
    return transform


def marginal(state: State, prefix: str, transform: Pointwise) -> Pointwise:
    """PiecewiseRationalQuadraticCDF: splines of numbers, whose parameters are constants, into `transform`."""
    names = [f"{prefix}unnormalized_{n}" for n in PARTS]
    transform.raw = nn.Parameter(torch.cat([state.take(n) for n in names], -1))
    for name in names:
        state.hold(name, transform.raw, "side by side")
    return transform


def marginal_shape(state: State, prefix: str) -> tuple[int, int]:
    """Features and parameters of each."""
    names = [f"{prefix}unnormalized_{n}" for n in PARTS]
    state.need(*names)
    widths, derivatives = state.look(names[0]), state.look(names[2])
    state.shaped(names[1], *widths.shape)
    if widths.dim() != 2:
        raise state.error(f"{names[0]} is no matrix: images are not imported")
    state.shaped(names[2], widths.shape[0], derivatives.shape[-1])
    return widths.shape[0], 2 * widths.shape[1] + derivatives.shape[1]


def division(state: State, net: str, bins: int, size: int, features: int) -> Convert:
    """Rows of the last layer for widths and heights, divided by the square root of the network's width."""
    hidden = state.look(f"{net}final_layer.weight").shape[1]
    factor = torch.ones(size, dtype=state.dtype)
    factor[: 2 * bins] = 1 / math.sqrt(hidden)
    state.report.assumed[f"{net}final_layer"] = f"widths and heights divided by sqrt({hidden})"
    return lambda w: w * factor.repeat(features).view(-1, *[1] * (w.dim() - 1))


class Nets:
    """Reads the networks of one state dict.

    Args:
        activation: Of all of them.
        plain: Whether MADE is normflows': its context is added as it is and gates the blocks.
        biased: Whether every layer must have a bias.
    """

    def __init__(self, state: State, activation: str | Activation, *, plain: bool = False, biased: bool = True) -> None:
        self.state, self.activation, self.plain, self.biased = state, activation, plain, biased

    def dense(self, prefix: str, convert: Convert | None = None) -> Dense:
        names = self.state.children(prefix)
        biased = self.biased or "bias" in names
        self.state.need(f"{prefix}weight", *[f"{prefix}bias"] * biased)
        if self.state.look(f"{prefix}weight").dim() != 2:
            raise self.state.error(f"{prefix}weight is no matrix: convolutions and stacked layers are not imported")
        outputs, inputs = self.state.look(f"{prefix}weight").shape
        layer = Dense(inputs, outputs, biased, "mask" in names).to(self.state.dtype)
        note = "rows reordered or rescaled" if convert else ""
        if layer.bias is not None:
            self.state.shaped(f"{prefix}bias", outputs)
            self.state.into(f"{prefix}bias", layer.bias, convert, note)
        if layer.mask is not None:
            self.state.shaped(f"{prefix}mask", outputs, inputs)
            self.state.into(f"{prefix}mask", layer.mask)
        self.state.into(f"{prefix}weight", layer.weight, convert, note)
        if "degrees" in names:
            self.state.ignore(f"{prefix}degrees", "the mask tells")
        return layer

    def norm(self, prefix: str) -> Norm:
        names = [f"{prefix}{n}" for n in ("weight", "bias", "running_mean", "running_var")]
        self.state.need(*names)
        if self.state.has(f"{prefix}num_batches_tracked"):
            self.state.ignore(f"{prefix}num_batches_tracked", "statistics are constants")
        norm = Norm(len(self.state.look(names[0]))).to(self.state.dtype)
        for name, target in zip(names, (norm.weight, norm.bias, norm.running_mean, norm.running_var), strict=True):
            self.state.into(name, target)
        return norm

    def network(
        self, prefix: str, convert: Convert | None = None, *, inputs: int, joined: bool, before: nn.Module | None = None
    ) -> tuple[NflowsNet, int]:
        """ResidualNet (`joined`) or MADE of `inputs` features, and the width of its context."""
        state = self.state
        names = state.children(prefix)
        absent = [n for n in ("initial_layer", "final_layer") if n not in names]
        if len(absent) == 2:
            raise state.error(f"{prefix} is no ResidualNet or MADE: it has {some(names)}")
        state.need(*[f"{prefix}{n}.{part}" for n in absent for part in ("weight", "bias")])
        blocks = [f"{prefix}blocks.{i}." for i in state.children(f"{prefix}blocks.")]
        layers = {name: self._linears(name) for name in blocks}
        ends = [f"{prefix}{n}." for n in ("initial_layer", "final_layer")]
        contexts = [f"{name}context_layer." for name in (prefix, *blocks) if "context_layer" in state.children(name)]
        wanted = [ends[0], *(n for names in layers.values() for n in names), *contexts]
        found = dict(zip(wanted, state.each(self.dense, wanted), strict=True))
        found[ends[1]] = self.dense(ends[1], convert)
        state.report.assumed["activation"] = self.activation if isinstance(self.activation, str) else "a function"
        width = found[ends[0]].weight.shape[0]
        context = found[contexts[0]].weight.shape[1] if contexts else 0
        if joined:
            context = found[ends[0]].weight.shape[1] - inputs
        state.conditioned(context, f"{ends[0]}weight")
        self._check(found, {name: (width, width) for names in layers.values() for name in names})
        self._check(found, {name: (width, context) for name in contexts})
        self._check(found, {ends[0]: (width, inputs + context * joined)})
        self._check(found, {ends[1]: (found[ends[1]].weight.shape[0], width)})
        parts = [self._block(name, [found[n] for n in layers[name]], found, joined) for name in blocks]
        net = NflowsNet(
            found[ends[0]],
            parts,
            found[ends[1]],
            self.activation,
            joined=joined,
            context=found.get(f"{prefix}context_layer."),
            plain=self.plain,
            before=before,
        )
        return net, context

    def _check(self, found: dict[str, Dense], shapes: dict[str, tuple[int, int]]) -> None:
        wrong = [name for name, shape in shapes.items() if tuple(found[name].weight.shape) != shape]
        for name in wrong:
            error = self.state.misshapen(f"{name}weight", shapes[name])
        if wrong:
            raise error

    def _linears(self, block: str) -> Sequence[str]:
        if "linear" in self.state.children(block):
            return [f"{block}linear."]
        return [f"{block}linear_layers.{i}." for i in ("0", "1")]

    def _block(self, prefix: str, linears: list[Dense], found: dict[str, Dense], joined: bool) -> nn.Module:
        width = linears[0].weight.shape[0]
        if len(linears) == 1:
            one = "batch_norm" in self.state.children(prefix)
            norms = [self._norm(f"{prefix}batch_norm.", width)] if one else []
            return FeedForward(linears[0], norms[0] if norms else None, self.activation)
        numbers = self.state.children(f"{prefix}batch_norm_layers.")
        norms = self.state.each(
            lambda name: self._norm(name, width), [f"{prefix}batch_norm_layers.{i}." for i in numbers]
        )
        return Block(linears, norms, found.get(f"{prefix}context_layer."), self.activation, joined or self.plain)

    def _norm(self, prefix: str, width: int) -> Norm:
        self.state.shaped(f"{prefix}weight", width)
        return self.norm(prefix)
