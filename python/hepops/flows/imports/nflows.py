"""Flows of nflows (C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, doi:10.5281/zenodo.4296287)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..bases import Base, DiagonalNormal, Normal
from ..coupling import Coupling, Pointwise
from ..elementwise import Elementwise, Spline
from ..flow import Flow
from ..mixing import ActNorm, LULinear, Permutation
from ..transform import Compose, Inverse, Transform
from .bijections import ForeignAffine, ForeignShift
from .modules import Activation, Block, Dense, Embedded, FeedForward, NflowsNet, Norm, Passes, Rescale, activation_of
from .report import Convert, Report, State

Divided = Literal["couplings", "all", "none"]


def from_nflows(
    state: Mapping[str, Tensor] | str | Path,
    *,
    tail_bound: float | None = None,
    activation: str | Activation = "relu",
    divided: Divided = "couplings",
    embedding: nn.Module | None = None,
    fixed: Mapping[str, Transform] | None = None,
    prefix: str = "",
) -> tuple[Flow, Report]:
    r"""A flow from the state dict of an nflows `Flow`, or of its transform alone.

    Recognised: CompositeTransform, InverseTransform, permutations, LULinear, ActNorm, BatchNorm (by its running
    statistics), PointwiseAffineTransform, MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform, AffineCouplingTransform, AdditiveCouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform (with or without its unconditional transform),
    PiecewiseRationalQuadraticCDF; networks ResidualNet and MADE; bases StandardNormal and DiagonalNormal.

    Sizes, masks, orders, bins and the kind of tails follow from the keys and shapes: P parameters a feature are a
    rational-quadratic spline of (P + 1)/3 bins with linear tails or (P - 1)/3 without, 2 are an affine map, 1 is a
    shift. What a state dict does not hold is an argument; the floors of widths, heights and slopes must be nflows'
    default, 1e-3. Dropout is not imported, batch normalisation only as it evaluates. Transforms without any key
    (IdentityTransform, Sigmoid ...) leave a gap in the numbers, which `fixed` fills; one at the very end cannot be
    noticed.

    Args:
        state: The state dict, or the path of a file that holds it (torch.save, safetensors): loaded with weights_only,
            nothing in it is executed.
        tail_bound: Of splines with linear tails; must be given where there are any (nflows' default is 1).
        activation: Of the networks: a name ("relu", "elu", "tanh", ...) or a function.
        divided: Where nflows divides widths and heights by the square root of the network's `hidden_features`:
            "couplings" (nflows 0.14, whose ResidualNet has this attribute and whose MADE has not), "all" or "none".
        embedding: nflows' embedding_net, if it has parameters: an equal module, which is filled.
        fixed: Transforms for places without keys, by name: {"_transform._transforms.3": ...}.
        prefix: What every key begins with beyond nflows' own ("module.").

    Returns:
        The flow, from data to base as in nflows, in the dtype of the state dict, and a :class:`Report`.

    Values, log densities and inverses agree with nflows to rounding (float64: 1e-12).

    Raises:
        StateDictError: A key is missing or left over, a shape does not fit, or something is not recognised: by name,
            with the report.
        ValueError: Not a state dict of tensors, NaN in it, a file that holds more than tensors.

    Example:
        >>> keys = {"_permutation": torch.tensor([1, 0])}
        >>> flow, report = hepops.flows.from_nflows(keys)
        >>> print(report)
        nflows: 1 of 1 keys placed
        placed:
          _permutation -> transform.permutation
        inferred:
          features = 2
        assumed:
          base = StandardNormal
    """
    if divided not in ("couplings", "all", "none"):
        raise ValueError(f"from_nflows: divided must be 'couplings', 'all' or 'none', got {divided!r}")
    reader = _Reader(State(state, "nflows", prefix), tail_bound, activation, divided, dict(fixed or {}))
    keys = reader.state
    whole = any(k.startswith("_transform.") for k in keys.tensors) and "_distribution" not in keys.children(
        "_transform."
    )
    transform = reader.read("_transform." if whole else "")
    if embedding is not None:
        transform = Embedded(transform, _filled(keys, embedding))
    flow = Flow(transform, reader.base()).to(keys.dtype)
    if reader.fixed:
        raise ValueError(f"from_nflows: fixed has no such gap: {', '.join(reader.fixed)}")
    return flow, keys.finish(flow)


def _filled(state: State, embedding: nn.Module) -> nn.Module:
    for name, target in [*embedding.named_parameters(), *embedding.named_buffers()]:
        state.into(f"_embedding_net.{name}", target, state.take(f"_embedding_net.{name}"))
    return embedding


class _Reader:
    """Reads transforms by the names of their keys."""

    def __init__(
        self,
        state: State,
        tail_bound: float | None,
        activation: str | Activation,
        divided: Divided,
        fixed: dict[str, Transform],
    ) -> None:
        self.state, self.tail_bound, self.divided, self.fixed = state, tail_bound, divided, fixed
        self.activation = activation_of("from_nflows", activation)
        self.activation_name = activation if isinstance(activation, str) else repr(activation)
        self.features: int | None = None

    def read(self, prefix: str) -> Transform:
        names = set(self.state.children(prefix))
        known = {
            ("_transforms",): self._compose,
            ("_transform",): lambda p: Inverse(self.read(f"{p}_transform.")),
            ("_permutation",): self._permutation,
            ("bias", "lower_entries", "unconstrained_upper_diag", "upper_entries"): self._lu,
            ("bias", "running_mean", "running_var", "unconstrained_weight"): self._batch_norm,
            ("initialized", "log_scale", "shift"): self._act_norm,
            ("_scale", "_shift"): self._rescale,
            ("autoregressive_net",): self._autoregressive,
            ("identity_features", "transform_features", "transform_net"): self._coupling,
            ("identity_features", "transform_features", "transform_net", "unconditional_transform"): self._coupling,
            ("unnormalized_derivatives", "unnormalized_heights", "unnormalized_widths"): self._marginal,
        }
        reader = known.get(tuple(sorted(names - {"_distribution", "_embedding_net"} if not prefix else names)))
        if reader is None:
            raise self.state.error(f"no transform is known that has {sorted(names)} at {prefix or 'the top'}")
        return reader(prefix)

    def _sized(self, features: int, where: str) -> int:
        if self.features not in (None, features):
            raise self.state.error(f"{where} has {features} features, transforms before it have {self.features}")
        self.features = features
        self.state.report.inferred["features"] = str(features)
        return features

    def _compose(self, prefix: str) -> Transform:
        numbers = [int(n) for n in self.state.children(f"{prefix}_transforms.")]
        transforms = []
        gaps = [int(k.rpartition(".")[2]) for k in self.fixed if k.rpartition(".")[0] == f"{prefix}_transforms"]
        for i in range(max([*numbers, *gaps]) + 1):
            name = f"{prefix}_transforms.{i}"
            if i in numbers:
                transforms.append(self.read(f"{name}."))
            elif name in self.fixed:
                transforms.append(self.fixed.pop(name))
                self.state.report.assumed[name] = type(transforms[-1]).__name__
            else:
                raise self.state.error(f"{name} has no keys: a transform without parameters must be given in fixed")
        return Compose(transforms)

    def _permutation(self, prefix: str) -> Transform:
        key = f"{prefix}_permutation"
        p = self.state.take(key)
        self._sized(len(p), key)
        transform = Permutation(p)
        self.state.into(key, transform.permutation, p)
        return transform

    def _lu(self, prefix: str) -> Transform:
        D = self._sized(self.state.look(f"{prefix}bias").shape[0], prefix)
        transform = LULinear(D).to(self.state.dtype)
        assert transform.bias is not None
        for name, target, offset in (("lower", transform.lower, -1), ("upper", transform.upper, 1)):
            key = f"{prefix}{name}_entries"
            self.state.shaped(key, D * (D - 1) // 2)
            indices = torch.tril_indices(D, D, -1) if offset < 0 else torch.triu_indices(D, D, 1)
            matrix = torch.zeros(D, D, dtype=self.state.dtype)
            matrix[indices[0], indices[1]] = self.state.take(key)
            self.state.into(key, target, matrix, "as a matrix")
        self._copy(f"{prefix}unconstrained_upper_diag", transform.diagonal)
        self._copy(f"{prefix}bias", transform.bias)
        return transform

    def _copy(self, key: str, target: Tensor) -> None:
        self.state.into(key, target, self.state.take(key))

    def _act_norm(self, prefix: str) -> Transform:
        log_scale, shift = (self.state.take(f"{prefix}{n}") for n in ("log_scale", "shift"))
        self.state.ignore(f"{prefix}initialized", "it is")
        return self._norm(prefix, {"log_scale": log_scale}, {"shift": shift * (-log_scale).exp()})

    def _batch_norm(self, prefix: str) -> Transform:
        names = ("unconstrained_weight", "bias", "running_mean", "running_var")
        u, bias, mean, var = (self.state.take(f"{prefix}{n}").double() for n in names)
        log_scale = (softplus(u) + 1e-5).log() - 0.5 * (var + 1e-5).log()
        shift = bias * (-log_scale).exp() - mean
        self.state.report.assumed[f"{prefix}eps"] = "1e-05, running statistics as constants"
        return self._norm(
            prefix,
            {"unconstrained_weight": log_scale, "running_var": log_scale},
            {"bias": shift, "running_mean": shift},
        )

    def _norm(self, prefix: str, log_scale: dict[str, Tensor], shift: dict[str, Tensor]) -> Transform:
        D = self._sized(len(next(iter(shift.values()))), prefix)
        transform = ActNorm(D).to(self.state.dtype)
        for values, target in ((log_scale, transform.log_scale), (shift, transform.shift)):
            for name, value in values.items():
                self.state.into(f"{prefix}{name}", target, value, "as scale and shift")
        return transform

    def _rescale(self, prefix: str) -> Transform:
        return Rescale(self.state.buffer(f"{prefix}_shift"), self.state.buffer(f"{prefix}_scale"))

    def _marginal(self, prefix: str, whole: bool = True) -> Pointwise:
        names = [f"{prefix}unnormalized_{n}" for n in ("widths", "heights", "derivatives")]
        raw = torch.cat([self.state.take(n) for n in names], -1)
        bijection = self._spline(prefix, raw.shape[-1])
        if whole:
            self._sized(raw.shape[0], prefix)
        transform = Pointwise(bijection, raw.shape[:-1])
        transform.raw = nn.Parameter(raw.clone())
        for name in names:
            self.state.hold(name, transform.raw, "side by side")
        return transform

    def _spline(self, where: str, size: int) -> Spline:
        linear = size % 3 == 2
        if size % 3 == 0 or size < 2:
            raise self.state.error(
                f"{where} has {size} parameters a feature: neither 3 K - 1 nor 3 K + 1, no rational-quadratic spline"
            )
        bins = (size + 1) // 3 if linear else (size - 1) // 3
        tails = "linear tails" if linear else "no tails, on [0, 1]"
        self.state.report.inferred[where.rstrip(".")] = f"rational-quadratic spline, {bins} bins, {tails}"
        if not linear:
            return Spline(bins, None, None)
        if self.tail_bound is None:
            raise self.state.error(
                f"{where} is a spline with linear tails, and a state dict has no bound: give tail_bound"
            )
        if not self.tail_bound > 0:
            raise ValueError(f"from_nflows: tail_bound must be positive, got {self.tail_bound}")
        self.state.report.assumed["tail_bound"] = f"{self.tail_bound:g}"
        self.state.report.assumed["floors of widths, heights, slopes"] = "0.001"
        return Spline(bins, float(self.tail_bound))

    def _autoregressive(self, prefix: str) -> Transform:
        net = f"{prefix}autoregressive_net."
        D = self._sized(self.state.look(f"{net}initial_layer.weight").shape[1], prefix)
        out = self.state.look(f"{net}final_layer.weight").shape[0]
        if out % D:
            raise self.state.error(f"{net}final_layer has {out} outputs for {D} features")
        bijection = self._affine(prefix, "softplus") if out == 2 * D else self._spline(prefix, out // D)
        network, context = self._network(net, self._division(bijection, D, net, self.divided == "all"), gates=False)
        return Passes(bijection, network, D, context, D)

    def _affine(self, where: str, convention: str) -> Elementwise:
        self.state.report.inferred[where.rstrip(".")] = f"affine, {convention} scale"
        return ForeignAffine(convention)

    def _coupling(self, prefix: str) -> Transform:
        active, passive = (self.state.look(f"{prefix}{n}_features") for n in ("transform", "identity"))
        D = self._sized(len(active) + len(passive), prefix)
        out = self.state.look(f"{prefix}transform_net.final_layer.weight").shape[0]
        n, net = len(active), f"{prefix}transform_net."
        if not n or out % n or sorted([*active.tolist(), *passive.tolist()]) != list(range(D)):
            raise self.state.error(f"{prefix} has {out} parameters for the features {active.tolist()} of {D}")
        mask = torch.zeros(D, dtype=torch.bool)
        mask[active] = True
        order: Convert | None = None
        bijection: Elementwise
        if out == n:
            bijection = ForeignShift()
            self.state.report.inferred[prefix.rstrip(".")] = "additive"
        elif out == 2 * n:
            bijection = self._affine(prefix, "sigmoid")
            # nflows has all shifts before all scales

            def order(w: Tensor) -> Tensor:
                return w.view(2, n, *w.shape[1:]).flip(0).transpose(0, 1).reshape(w.shape)
        else:
            bijection = self._spline(prefix, out // n)
            order = self._division(bijection, n, net, self.divided != "none")
        network, context = self._network(net, order, gates=True, inputs=len(passive))
        transform = Coupling(mask, bijection, network, context=context)
        for name in ("transform", "identity"):
            self.state.take(f"{prefix}{name}_features", transform.halves, "as a mask")
        if "unconditional_transform" in self.state.children(prefix):
            transform.rest = self._marginal(f"{prefix}unconditional_transform.", whole=False)
        return transform

    def _division(self, bijection: Elementwise, n: int, net: str, divided: bool) -> Convert | None:
        """Rows of the last layer for widths and heights, divided by the square root of the network's width."""
        if not divided or not isinstance(bijection, Spline):
            return None
        hidden = self.state.look(f"{net}final_layer.weight").shape[1]
        factor = torch.ones(bijection.size, dtype=self.state.dtype)
        factor[: 2 * bijection.bins] = 1 / math.sqrt(hidden)
        self.state.report.assumed[f"{net}final_layer"] = f"widths and heights divided by sqrt({hidden})"
        return lambda w: w * factor.repeat(n).view(-1, *[1] * (w.dim() - 1))

    def _dense(self, prefix: str, convert: Convert | None = None) -> Dense:
        if self.state.look(f"{prefix}weight").dim() != 2:
            raise self.state.error(f"{prefix}weight is no matrix: convolutions are not imported")
        note = "rows reordered or rescaled" if convert else ""
        weight = self.state.parameter(f"{prefix}weight", convert, note)
        bias = self.state.parameter(f"{prefix}bias", convert, note)
        mask = self.state.buffer(f"{prefix}mask") if self.state.has(f"{prefix}mask") else None
        if self.state.has(f"{prefix}degrees"):
            self.state.ignore(f"{prefix}degrees", "the mask tells")
        return Dense(weight, bias, mask)

    def _normalisation(self, prefix: str) -> Norm:
        if self.state.has(f"{prefix}num_batches_tracked"):
            self.state.ignore(f"{prefix}num_batches_tracked", "statistics are constants")
        weight, bias = (self.state.parameter(f"{prefix}{n}") for n in ("weight", "bias"))
        mean, var = (self.state.buffer(f"{prefix}running_{n}") for n in ("mean", "var"))
        return Norm(weight, bias, mean, var)

    def _network(
        self, prefix: str, convert: Convert | None, *, gates: bool, inputs: int | None = None
    ) -> tuple[NflowsNet, int]:
        """nflows' ResidualNet or MADE, and the width of its context."""
        names = set(self.state.children(prefix))
        if not {"initial_layer", "final_layer"} <= names:
            raise self.state.error(f"{prefix} is no ResidualNet or MADE: it has {sorted(names)}")
        self.state.report.assumed["activation"] = self.activation_name
        initial = self._dense(f"{prefix}initial_layer.")
        given = self._dense(f"{prefix}context_layer.") if "context_layer" in names else None
        context = initial.weight.shape[1] - inputs if inputs is not None else 0
        if given is not None:
            context = given.weight.shape[1]
        blocks = [self._block(f"{prefix}blocks.{i}.", gates) for i in self.state.children(f"{prefix}blocks.")]
        final = self._dense(f"{prefix}final_layer.", convert)
        return NflowsNet(initial, blocks, final, self.activation, gates=gates, context=given), context

    def _block(self, prefix: str, gates: bool) -> nn.Module:
        names = self.state.children(prefix)
        if "linear" in names:
            norm = self._normalisation(f"{prefix}batch_norm.") if "batch_norm" in names else None
            return FeedForward(self._dense(f"{prefix}linear."), norm, self.activation)
        norms = [f"{prefix}batch_norm_layers.{i}." for i in self.state.children(f"{prefix}batch_norm_layers.")]
        context = self._dense(f"{prefix}context_layer.") if "context_layer" in names else None
        linears = [self._dense(f"{prefix}linear_layers.{i}.") for i in ("0", "1")]
        return Block(linears, [self._normalisation(n) for n in norms], context, self.activation, gates)

    def base(self) -> Base:
        names, D = self.state.children("_distribution."), self.features
        if D is None:
            raise self.state.error("nothing tells the number of features")
        if "mean_" in names:
            mean, log_std = (self.state.look(f"_distribution.{n}").reshape(-1) for n in ("mean_", "log_std_"))
            base = DiagonalNormal(mean, log_std.double().exp(), learnable=True, dtype=self.state.dtype)
            self.state.into("_distribution.mean_", base.loc, self.state.take("_distribution.mean_").reshape(-1))
            log_scale = self.state.take("_distribution.log_std_").reshape(-1)
            self.state.into("_distribution.log_std_", base.log_scale, log_scale)
            return base
        if "_log_z" in names:
            self.state.ignore("_distribution._log_z", "a constant of StandardNormal")
        self.state.report.assumed["base"] = "StandardNormal"
        return Normal(D, self.state.dtype)
