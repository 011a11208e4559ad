"""Flows of nflows (C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, doi:10.5281/zenodo.4296287)."""

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
from ..mixing import ActNorm
from ..transform import Compose, Inverse, Transform
from .bijections import ForeignAffine, ForeignShift
from .modules import Activation, Embedded, Passes, Rescale, activation_of
from .nets import Nets, division, filled, lu, marginal, marginal_shape, permutation
from .origin import ROOTS
from .report import Convert, Report, State, some

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
    activation_of("from_nflows", activation)
    if tail_bound is not None and not tail_bound > 0:
        raise ValueError(f"from_nflows: tail_bound must be positive, got {tail_bound}")
    keys = State(state, "nflows", prefix, ROOTS["nflows"])
    reader = _Reader(keys, tail_bound, activation, divided, dict(fixed or {}))
    whole = any(k.startswith("_transform.") for k in keys.tensors) and "_distribution" not in keys.children(
        "_transform."
    )
    transform = reader.read("_transform." if whole else "")
    if embedding is not None:
        transform = Embedded(transform, filled(keys, "_embedding_net.", embedding))
    flow = Flow(transform, reader.base()).to(keys.dtype)
    if reader.fixed:
        raise ValueError(f"from_nflows: fixed has no such gap: {', '.join(reader.fixed)}")
    return flow, keys.finish(flow)


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
        self.nets = Nets(state, activation)

    def read(self, prefix: str) -> Transform:
        names = set(self.state.children(prefix))
        known = {
            ("_transforms",): self._compose,
            ("_transform",): lambda p: Inverse(self.read(f"{p}_transform.")),
            ("_permutation",): lambda p: permutation(self.state, f"{p}_permutation"),
            ("bias", "lower_entries", "unconstrained_upper_diag", "upper_entries"): lambda p: lu(self.state, p),
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
            raise self.state.error(f"{prefix or 'the top'}: no transform is known that has {some(sorted(names))}")
        return reader(prefix)

    def _compose(self, prefix: str) -> Transform:
        numbers = [int(n) for n in self.state.children(f"{prefix}_transforms.")]
        gaps = [int(k.rpartition(".")[2]) for k in self.fixed if k.rpartition(".")[0] == f"{prefix}_transforms"]
        places = [f"{prefix}_transforms.{i}." for i in range(max([*numbers, *gaps]) + 1)]
        return Compose(self.state.each(self._part, places))

    def _part(self, prefix: str) -> Transform:
        name = prefix.removesuffix(".")
        if self.state.children(prefix):
            return self.read(prefix)
        if name not in self.fixed:
            raise self.state.error(f"{name} has no keys: a transform without parameters must be given in fixed")
        transform = self.fixed.pop(name)
        self.state.report.assumed[name] = type(transform).__name__
        return transform

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
        D = self.state.sized(len(next(iter(shift.values()))), prefix)
        transform = ActNorm(D).to(self.state.dtype)
        for values, target in ((log_scale, transform.log_scale), (shift, transform.shift)):
            for name, value in values.items():
                self.state.into(f"{prefix}{name}", target, lambda _, value=value: value, "as scale and shift")  # type: ignore[misc]
        return transform

    def _rescale(self, prefix: str) -> Transform:
        return Rescale(self.state.buffer(f"{prefix}_shift"), self.state.buffer(f"{prefix}_scale"))

    def _marginal(self, prefix: str) -> Transform:
        features, size = marginal_shape(self.state, prefix)
        self.state.sized(features, prefix)
        return marginal(self.state, prefix, Pointwise(self._spline(prefix, size), features))

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
        self.state.report.assumed["tail_bound"] = f"{self.tail_bound:g}"
        self.state.report.assumed["floors of widths, heights, slopes"] = "0.001"
        return Spline(bins, float(self.tail_bound))

    def _autoregressive(self, prefix: str) -> Transform:
        net = f"{prefix}autoregressive_net."
        self.state.need(f"{net}initial_layer.weight", f"{net}final_layer.weight")
        D = self.state.sized(self.state.look(f"{net}initial_layer.weight").shape[1], prefix)
        out = self.state.look(f"{net}final_layer.weight").shape[0]
        if out % D:
            raise self.state.error(f"{net}final_layer has {out} outputs for {D} features")
        bijection = self._affine(prefix, "softplus") if out == 2 * D else self._spline(prefix, out // D)
        order = self._division(bijection, D, net, self.divided == "all")
        network, context = self.nets.network(net, order, inputs=D, joined=False)
        return Passes(bijection, network, D, context, D)

    def _affine(self, where: str, convention: str) -> Elementwise:
        self.state.report.inferred[where.rstrip(".")] = f"affine, {convention} scale"
        return ForeignAffine(convention)

    def _coupling(self, prefix: str) -> Transform:
        self.state.need(f"{prefix}transform_net.final_layer.weight")
        active, passive = (self.state.look(f"{prefix}{n}_features") for n in ("transform", "identity"))
        D = self.state.sized(len(active) + len(passive), prefix)
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
        network, context = self.nets.network(net, order, inputs=len(passive), joined=True)
        rest = f"{prefix}unconditional_transform."
        marginals: Elementwise | None = None
        if "unconditional_transform" in self.state.children(prefix):
            features, size = marginal_shape(self.state, rest)
            if features != len(passive):
                raise self.state.misshapen(f"{rest}unnormalized_widths", (len(passive), (size + 1) // 3))
            marginals = self._spline(rest, size)
        transform = Coupling(mask, bijection, network, context=context, unconditional=marginals)
        for name in ("transform", "identity"):
            self.state.take(f"{prefix}{name}_features", transform.halves, "as a mask")
        if transform.rest is not None:
            marginal(self.state, rest, transform.rest)
        return transform

    def _division(self, bijection: Elementwise, n: int, net: str, divided: bool) -> Convert | None:
        """What is done to the rows of the last layer."""
        return (
            division(self.state, net, bijection.bins, bijection.size, n)
            if divided and isinstance(bijection, Spline)
            else None
        )

    def base(self) -> Base:
        names, D = self.state.children("_distribution."), self.state.features
        if D is None:
            raise self.state.error("nothing tells the number of features")
        if "mean_" in names:
            keys = ("_distribution.mean_", "_distribution.log_std_")
            self.state.need(*keys)
            for key in keys:
                self.state.shaped(key, 1, D)
            base = DiagonalNormal(torch.zeros(D), torch.ones(D), learnable=True, dtype=self.state.dtype)
            for key, target in zip(keys, (base.loc, base.log_scale), strict=True):
                self.state.into(key, target, lambda value: value.reshape(-1))
            return base
        if "_log_z" in names:
            self.state.ignore("_distribution._log_z", "a constant of StandardNormal")
        self.state.report.assumed["base"] = "StandardNormal"
        return Normal(D, self.state.dtype)
