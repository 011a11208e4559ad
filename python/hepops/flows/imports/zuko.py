"""Flows of zuko (F. Rozet et al., doi:10.5281/zenodo.7625672)."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..bases import Base, DiagonalNormal, Uniform
from ..coupling import Coupling, Pointwise
from ..elementwise import Elementwise, Spline
from ..flow import Flow
from ..mixing import Permutation
from ..transform import Compose, Inverse, Transform
from .bijections import ForeignAffine, ZukoCircular
from .modules import Activation, Dense, FromContext, Passes, Residual, ZukoNet, activation_of
from .nets import Nets
from .origin import ROOTS
from .report import Report, State, StateDictError, some

Univariate = Literal["affine", "spline", "circular"]


def from_zuko(
    state: Mapping[str, Tensor] | str | Path,
    *,
    univariate: Univariate | None = None,
    activation: str | Activation = "relu",
    prefix: str = "",
) -> tuple[Flow, Report]:
    r"""A flow from the state dict of a zuko flow: NSF, NCSF, MAF, NICE and RealNVP.

    Recognised: LazyComposedTransform, LazyInverse, MaskedAutoregressiveTransform (any order, adjacency or number of
    passes, which are read off the masks), GeneralCouplingTransform, ElementWiseTransform, PermutationTransform;
    networks MLP and MaskedMLP, residual and normalised ones too; bases DiagNormal and BoxUniform.

    P parameters a feature are a rational-quadratic spline of (P + 1)/3 bins, 2 are an affine map. NCSF is NSF with
    angles, and is told by its uniform base. BPF, polynomials of as many parameters as a spline may have, cannot be told
    from NSF by its keys: compare a few densities. The bound of splines (5, pi for NCSF) and the least slope (1e-3) are
    zuko's defaults.

    Args:
        state: The state dict, or the path of a file that holds it (torch.save, safetensors): loaded with weights_only,
            nothing in it is executed.
        univariate: "affine", "spline" or "circular", where it should not be inferred.
        activation: Of the networks: a name ("relu", "elu", "tanh", ...) or a function.
        prefix: What every key begins with beyond zuko's own ("module.").

    Returns:
        The flow, from data to base as in zuko, in the dtype of the state dict, and a :class:`Report`.

    Values, log densities and inverses agree with zuko to rounding (float64: 1e-12).

    Raises:
        StateDictError: A key is missing or left over, a shape does not fit, or something is not recognised: by name,
            with the report.
        ValueError: Not a state dict of tensors, NaN in it, a file that holds more than tensors.

    Example:
        >>> keys = {"transform.phi.0": torch.zeros(1), "transform.phi.1": torch.zeros(1)}
        >>> keys |= {"base.loc": torch.zeros(1), "base.scale": torch.ones(1)}
        >>> flow, report = hepops.flows.from_zuko(keys)
        >>> print(report)
        zuko: 4 of 4 keys placed
        placed:
          transform.phi.0 -> transform.raw (side by side)
          transform.phi.1 -> transform.raw (side by side)
          base.loc -> base.loc
          base.scale -> base.log_scale (as its logarithm)
        inferred:
          features = 1
          transform = affine
    """
    if univariate not in (None, "affine", "spline", "circular"):
        raise ValueError(f"from_zuko: univariate must be 'affine', 'spline' or 'circular', got {univariate!r}")
    activation_of("from_zuko", activation)
    keys = State(state, "zuko", prefix, ROOTS["zuko"])
    reader = _Reader(keys, univariate, activation)
    base = reader.base()
    flow = Flow(reader.read("transform."), base).to(keys.dtype)
    return flow, keys.finish(flow)


class _Reader:
    """Reads transforms by the names of their keys."""

    def __init__(self, state: State, univariate: Univariate | None, activation: str | Activation) -> None:
        self.state, self.univariate = state, univariate
        self.activation, self.nets = activation, Nets(state, activation, biased=False)
        self.features = 0
        self.circular = False

    def base(self) -> Base:
        names = self.state.children("base.")
        pairs = {("loc", "scale"): False, ("lower", "upper"): True, ("_0", "_1"): False}
        pair = next((p for p in pairs if set(p) == set(names)), None)
        if pair is None:
            has = f"no base is known that has {some(names)}" if names else "no key begins with 'base.'"
            raise self.state.error(has)
        a_key, b_key = (f"base.{n}" for n in pair)
        a, b = self.state.look(a_key), self.state.look(b_key)
        self.state.shaped(a_key, a.numel())
        self.state.shaped(b_key, a.numel())
        a, b = self.state.take(a_key), self.state.take(b_key)
        # zuko before 1.3 numbers the arguments: bounds are opposite numbers, a location and a scale are not
        self.circular = pairs[pair] or (pair == ("_0", "_1") and bool((a < 0).all()) and torch.equal(a, -b))
        self.features = self.state.sized(a.numel(), "base")
        if self.circular:
            box = Uniform(self.features, a, b, self.state.dtype)
            self.state.into(a_key, box.low)
            self.state.into(b_key, box.high)
            return box
        base = DiagonalNormal(a, b, dtype=self.state.dtype)
        self.state.hold(a_key, base.loc)
        self.state.hold(b_key, base.log_scale, "as its logarithm")
        return base

    def read(self, prefix: str) -> Transform:
        names = set(self.state.children(prefix))
        if names == {"transforms"}:
            numbers = self.state.children(f"{prefix}transforms.")
            gaps = [str(i) for i in range(int(numbers[-1])) if str(i) not in numbers]
            if gaps:
                raise self.state.error(f"{prefix}transforms has a transform without keys: {some(gaps)}")
            return Compose(self.state.each(self.read, [f"{prefix}transforms.{i}." for i in numbers]))
        if names == {"transform"}:
            return Inverse(self.read(f"{prefix}transform."))
        if names == {"phi"}:
            return self._constant(prefix)
        if names == {"mask", "hyper"}:
            return self._coupling(prefix)
        if names in ({"hyper"}, {"hyper", "order"}):
            return self._autoregressive(prefix)
        if names in ({"_0"}, {"order"}) and not self.state.look(prefix + next(iter(names))).is_floating_point():
            key = prefix + names.pop()
            transform = Permutation(self.state.take(key))
            self.state.hold(key, transform.permutation)
            return transform
        raise self.state.error(f"{prefix}: no transform is known that has {some(sorted(names))}")

    def _bijection(self, where: str, size: int) -> Elementwise:
        kind = self.univariate or ("affine" if size == 2 else "circular" if self.circular else "spline")
        name = where.rstrip(".")
        if kind == "affine" and size == 2:
            self.state.report.inferred[name] = "affine"
            return ForeignAffine("zuko")
        if kind == "affine" or size % 3 != 2:
            raise self.state.error(f"{name} has {size} parameters a feature: no {kind} has as many")
        bins = (size + 1) // 3
        self.state.report.inferred[name] = f"{'circular ' * (kind == 'circular')}rational-quadratic spline, {bins} bins"
        self.state.report.assumed["bound"] = "pi" if kind == "circular" else "5"
        self.state.report.assumed["slope"] = "0.001"
        if self.univariate is None and kind == "spline":
            self.state.report.assumed["univariate"] = "spline (BPF's polynomials have keys of the same names)"
        return ZukoCircular(bins) if kind == "circular" else Spline(bins, 5.0, "linear", "zuko")

    def _constant(self, prefix: str) -> Transform:
        names = [f"{prefix}phi.{i}" for i in self.state.children(f"{prefix}phi.")]
        for name in names:
            shape = self.state.look(name).shape
            if shape[:1] != (self.features,) or len(shape) > 2:
                raise self.state.misshapen(name, (self.features, *shape[1:2]))
        raw = torch.cat([self.state.take(n).reshape(self.features, -1) for n in names], -1)
        transform = Pointwise(self._bijection(prefix, raw.shape[-1]), self.features)
        transform.raw = nn.Parameter(raw)
        for name in names:
            self.state.hold(name, transform.raw, "side by side")
        return transform

    def _coupling(self, prefix: str) -> Transform:
        self.state.shaped(f"{prefix}mask", self.features)
        mask = self.state.take(f"{prefix}mask").bool()
        active = int((~mask).sum())
        network, inputs, outputs = self._network(f"{prefix}hyper.")
        if not active or outputs % active:
            raise self.state.error(f"{prefix}hyper has {outputs} outputs for {active} features")
        context = self.state.conditioned(inputs - (self.features - active), f"{prefix}hyper.0.weight")
        transform = Coupling(~mask, self._bijection(prefix, outputs // active), network, context=context)
        self.state.hold(f"{prefix}mask", transform.halves, "as a mask")
        return transform

    def _autoregressive(self, prefix: str) -> Transform:
        masked = self.state.has(f"{prefix}hyper.0.mask")
        network, inputs, outputs = self._network(f"{prefix}hyper.")
        D = self.features
        if outputs % D:
            raise self.state.error(f"{prefix}hyper has {outputs} outputs for {D} features")
        bijection = self._bijection(prefix, outputs // D)
        if not masked:
            return FromContext(bijection, network, D, self.state.conditioned(inputs, f"{prefix}hyper.0.weight"))
        context = self.state.conditioned(inputs - D, f"{prefix}hyper.0.weight")
        if self.state.has(f"{prefix}order"):
            self.state.ignore(f"{prefix}order", "the masks tell")
        depends = network.dependence()[:, :D].view(D, -1, D).any(1)
        passes = _longest_chain(depends)
        if passes is None:
            raise self.state.error(f"{prefix}hyper is not autoregressive: its masks have a cycle")
        self.state.report.inferred[f"{prefix}passes"] = str(passes)
        return Passes(bijection, network, D, context, passes)

    def _network(self, prefix: str) -> tuple[ZukoNet, int, int]:
        """zuko's MLP or MaskedMLP, and the widths of its ends."""
        numbers = [int(n) for n in self.state.children(prefix)]
        if not numbers or numbers[0] != 0:
            raise self.state.error(f"{prefix} is no MLP: it has {some(map(str, numbers))}")
        between = [b - a - 1 for a, b in pairwise(numbers)]
        if any(n > 2 for n in between):
            raise self.state.error(f"{prefix} is no MLP: it has {some(map(str, numbers))}")
        self.state.report.assumed["activation"] = self.activation if isinstance(self.activation, str) else "a function"
        layers = self.state.each(self._layer, [f"{prefix}{i}." for i in numbers])
        head, tail = layers[0], layers[-1]
        if not isinstance(head, Dense) or not isinstance(tail, Dense):
            raise self.state.error(f"{prefix} is no MLP: it begins or ends with a residual block")
        self._chain(prefix, numbers, layers)
        return ZukoNet(layers, between, self.activation), head.weight.shape[1], tail.weight.shape[0]

    def _layer(self, prefix: str) -> Dense | Residual:
        if self.state.has(f"{prefix}weight") or not {"0", "2"} & set(self.state.children(prefix)):
            return self.nets.dense(prefix)
        first, second = self.state.each(self.nets.dense, [f"{prefix}{j}." for j in (0, 2)])
        return Residual(first, second, self.activation)

    def _chain(self, prefix: str, numbers: list[int], layers: list[Dense | Residual]) -> None:
        """Refuses layers whose inputs are not the outputs of those before them."""
        error: StateDictError | None = None
        width: int | None = None
        for i, layer in zip(numbers, layers, strict=True):
            parts = {"": layer} if isinstance(layer, Dense) else {"0.": layer.first, "2.": layer.second}
            for name, dense in parts.items():
                outputs, inputs = dense.weight.shape
                if width is not None and inputs != width:
                    error = self.state.misshapen(f"{prefix}{i}.{name}weight", (outputs, width))
                width = outputs
        if error is not None:
            raise error


def _longest_chain(depends: Tensor) -> int | None:
    """The number of features in the longest chain of dependences; None where there is a cycle."""
    D = len(depends)
    step = depends.to(torch.float64)
    reach = torch.eye(D, dtype=torch.float64)
    for length in range(1, D + 1):
        reach = ((step @ reach) > 0).to(torch.float64)
        if not reach.any():
            return length
    return None
