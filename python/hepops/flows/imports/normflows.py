"""Flows of normflows (V. Stimper et al., J. Open Source Softw. 8 (2023) 5361, doi:10.21105/joss.05361)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..bases import Base
from ..coupling import Coupling
from ..flow import Flow
from ..mixing import ActNorm, Permutation
from ..transform import Compose, Inverse, Transform
from .bijections import ForeignAffine, ForeignShift
from .modules import Activation, Alone, MaskedPair, ZukoNet, activation_of
from .nets import Nets, filled, lu, permutation
from .normflows_base import read_base
from .normflows_splines import Splines
from .origin import ROOTS
from .report import Report, State, some

ScaleMap = Literal["exp", "sigmoid", "sigmoid_inv"]
Split = Literal["channel", "channel_inv", "checkerboard", "checkerboard_inv"]
SCALE_MAPS = ("exp", "sigmoid", "sigmoid_inv")
SPLITS = ("channel", "channel_inv", "checkerboard", "checkerboard_inv")

REFUSED = {  # a key that tells the layer
    "alpha": "Radial",
    "u": "Planar",
    "s_cc": "CCAffineConst",
    "sign_S": "InvertibleAffine or Invertible1x1Conv",
    "W": "InvertibleAffine or Invertible1x1Conv",
    "eps": "BatchNorm, with which the density of an event depends on its batch",
    "shift": "PeriodicShift",
    "bound": "PeriodicWrap or PeriodicShift",
    "iresblock": "Residual",
    "proposal": "MetropolisHastings",
    "log_step_size": "HamiltonianMonteCarlo",
}


def from_normflows(
    state: Mapping[str, Tensor] | str | Path,
    *,
    tail_bound: float | None = None,
    circular: Sequence[int] | None = None,
    activation: str | Activation = "relu",
    scale_map: ScaleMap | Mapping[str, ScaleMap] = "exp",
    split: Split | Mapping[str, Split] | None = None,
    networks: Mapping[str, nn.Module] | None = None,
    fixed: Mapping[str, Transform | Literal["swap"]] | None = None,
    base: Base | None = None,
    prefix: str = "",
) -> tuple[Flow, Report]:
    r"""A flow from the state dict of a normflows `NormalizingFlow` or `ConditionalNormalizingFlow` of vectors.

    Recognised: CoupledRationalQuadraticSpline, AutoregressiveRationalQuadraticSpline, their circular kinds, and the
    layers within these by themselves; MaskedAffineAutoregressive, AffineCouplingBlock, MaskedAffineFlow, ActNorm,
    AffineConstFlow, LULinearPermute, Permute, Reverse, Composite; networks ResidualNet, MADE and MLP; bases
    DiagGaussian, UniformGaussian and GaussianMixture. What is not among them is refused by name, and can be given:
    layers in `fixed`, networks in `networks`, the base as `base`.

    Sizes, masks, orders, bins and the kind of tails follow from keys and shapes. What a state dict does not hold is an
    argument; the floors of widths, heights and slopes must be normflows' default, 1e-3. An MLP is taken to have no
    output function (one with `output_fn` belongs into `networks`). Layers without any key (Permute of mode "swap",
    PeriodicWrap) leave a gap in the numbers, which `fixed` fills; one at the very end cannot be noticed, so that the
    number of layers in the report should be looked at.

    Args:
        state: The state dict, or the path of a file that holds it (torch.save, safetensors): loaded with weights_only,
            nothing in it is executed.
        tail_bound: Of splines with tails, where it was a number (normflows' default is 3); a tensor is in the state
            dict.
        circular: `ind_circ`, where keys do not tell it: they do if every feature is seen by some layer's network. []
            for couplings with `tails=None`, on [0, 1], which look the same.
        activation: Of the networks: a name ("relu", "elu", "tanh", ...) or a function; of an MLP with `leaky`, a
            function as well.
        scale_map: Of AffineCouplingBlock, one for all or by layer: {"flows.2": "sigmoid"}.
        split: `split_mode` of AffineCouplingBlock, likewise. None is "channel", but for an odd number of features,
            where sizes tell it.
        networks: For a `param_map`, `s` or `t` that is no MLP: an equal module by name, {"flows.0.flows.1.param_map":
            module}, which is filled.
        fixed: Transforms in place of layers, by name, from data to the base (normflows' `inverse`): {"flows.3": ...};
            "swap" for a Permute of that mode. Keys of a layer that is given are left unread.
        base: In place of q0.
        prefix: What every key begins with beyond normflows' own ("module.").

    Returns:
        The flow, from data to base (normflows' `inverse`), in the dtype of the state dict, and a :class:`Report`.

    Values, log densities and inverses agree with normflows 1.7 to rounding (float64: 1e-12), but where normflows leaves
    the domain of its own laws: beyond the bound of a layer with `ind_circ`, which is mapped to 0 there (no bijection)
    and by itself here; and outside the box of a UniformGaussian, whose density stays constant there and is 0 here.

    Raises:
        StateDictError: A key is missing or left over, a shape does not fit, or something is not recognised: by name,
            with the report.
        ValueError: Not a state dict of tensors, NaN in it, a file that holds more than tensors, an unknown argument.

    References:
        | V. Stimper et al., J. Open Source Softw. 8 (2023) 5361, doi:10.21105/joss.05361

    Example:
        >>> keys = {"q0.loc": torch.zeros(1, 2), "q0.log_scale": torch.zeros(1, 2)}
        >>> keys |= {"flows.0.perm": torch.tensor([1, 0]), "flows.0.inv_perm": torch.tensor([1, 0])}
        >>> flow, report = hepops.flows.from_normflows(keys, fixed={"flows.1": "swap"})
        >>> print(report)
        normflows: 3 of 4 keys placed
        placed:
          q0.loc -> base.loc
          q0.log_scale -> base.log_scale
          flows.0.inv_perm -> transform.transforms.1.permutation
        inferred:
          features = 2
          base = DiagGaussian
          layers = 2
        assumed:
          flows.1 = swap
        ignored:
          flows.0.perm : the inverse of inv_perm
    """
    activation_of("from_normflows", activation)
    if tail_bound is not None and not 0 < tail_bound < float("inf"):
        raise ValueError(f"from_normflows: tail_bound must be positive and finite, got {tail_bound}")
    for name, value, allowed in (("scale_map", scale_map, SCALE_MAPS), ("split", split, (*SPLITS, None))):
        wrong = [v for v in (value.values() if isinstance(value, Mapping) else [value]) if v not in allowed]
        if wrong:
            raise ValueError(f"from_normflows: {name} must be one of {', '.join(map(str, allowed))}, got {wrong[0]!r}")
    keys = State(state, "normflows", prefix, ROOTS["normflows"])
    built = read_base(keys, base)
    if circular is not None and not set(circular) <= set(range(keys.features or 0)):
        raise ValueError(f"from_normflows: circular must be of features 0 to {keys.features} - 1, got {list(circular)}")
    reader = _Reader(keys, activation, tail_bound, circular, scale_map, split, networks or {}, fixed or {})
    flow = Flow(reader.flow(), built).to(keys.dtype)
    return flow, keys.finish(flow)


class _Reader:
    """Reads layers by the names of their keys; transforms go from data to base."""

    def __init__(
        self,
        state: State,
        activation: str | Activation,
        tail_bound: float | None,
        circular: Sequence[int] | None,
        scale_map: str | Mapping[str, str],
        split: str | Mapping[str, str] | None,
        networks: Mapping[str, nn.Module],
        fixed: Mapping[str, Transform | Literal["swap"]],
    ) -> None:
        self.state, self.activation, self.scale_map, self.split = state, activation, scale_map, split
        self.networks, self.fixed = dict(networks), dict(fixed)
        self.nets = Nets(state, activation, plain=True)
        self.splines = Splines(state, self.nets, tail_bound, circular)

    @property
    def features(self) -> int:
        assert self.state.features is not None
        return self.state.features

    def flow(self) -> Transform:
        for key in [k for k in self.state.tensors if k.startswith("p.")]:
            self.state.ignore(key, "of the target, which is no part of the flow")
        self.splines.find_circles()
        numbers = [int(n) for n in self.state.children("flows.") if n.isdigit()]
        numbers += [int(n.rpartition(".")[2]) for n in self.fixed if n.rpartition(".")[0] == "flows"]
        if not numbers:
            raise self.state.error("there is no layer under 'flows.'")
        layers = self._all("flows.", max(numbers) + 1)
        for name, given in (("fixed", self.fixed), ("networks", self.networks)):
            if given:
                raise ValueError(f"from_normflows: {name} names what is not there: {some(given)}")
        self.state.report.inferred["layers"] = str(len(layers))
        return Compose(reversed(layers))

    def _all(self, prefix: str, count: int) -> list[Transform]:
        return self.state.each(self._layer, [f"{prefix}{i}." for i in range(count)])

    def _layer(self, prefix: str) -> Transform:
        name = prefix.removesuffix(".")
        given = self.fixed.pop(name, None)
        if given is None:
            if self.state.children(prefix):
                return self.read(prefix)
            raise self.state.error(f"{name} has no keys: a layer without parameters must be given in fixed")
        for key in [k for k in self.state.tensors if k.startswith(prefix)]:
            self.state.ignore(key, "the layer is given")
        self.state.report.assumed[name] = given if isinstance(given, str) else type(given).__name__
        if isinstance(given, Transform):
            return given
        if given != "swap":
            raise ValueError(f"from_normflows: fixed must hold transforms or 'swap', got {given!r} at {name!r}")
        half = (self.features + 1) // 2
        return Permutation([*range(half, self.features), *range(half)])

    def read(self, prefix: str) -> Transform:
        names = set(self.state.children(prefix))
        if names == {"prqct"}:
            return self.splines.coupling(f"{prefix}prqct.")
        if names == {"mprqat"}:
            return self.splines.autoregressive(f"{prefix}mprqat.")
        if "autoregressive_net" in names:
            return Inverse(self.splines.autoregressive(prefix))
        if {"identity_features", "transform_features"} <= names:
            return Inverse(self.splines.coupling(prefix))
        if names == {"permutation", "linear"}:
            return Compose(
                [permutation(self.state, f"{prefix}permutation._permutation"), lu(self.state, f"{prefix}linear.")]
            )
        if names == {"_permutation"}:
            return Inverse(permutation(self.state, f"{prefix}_permutation"))
        if names == {"bias", "lower_entries", "upper_entries", "unconstrained_upper_diag"}:
            return Inverse(lu(self.state, prefix))
        if names == {"perm", "inv_perm"}:
            return self._permute(prefix)
        if names - {"data_dep_init_done"} == {"s", "t"} and self.state.has(f"{prefix}s"):
            return self._constant(prefix)
        if "b" in names and names <= {"b", "s", "t"}:
            return self._masked(prefix)
        if names == {"flow"}:
            return Inverse(self.read(f"{prefix}flow."))
        if names == {"_flows"}:
            numbers = self.state.children(f"{prefix}_flows.")
            return Compose(reversed(self._all(f"{prefix}_flows.", int(numbers[-1]) + 1)))
        if names == {"flows"} and self.state.children(f"{prefix}flows.") == ["1"]:
            return self._affine(prefix)
        if names == {"flows"}:
            raise self.state.error(f"{prefix} is a GlowBlock, or another stack: it is not imported")
        what = next((f", which is {REFUSED[n]}: it is not imported" for n in REFUSED if n in names), "")
        known = "" if what else ": no layer is known that has that"
        raise self.state.error(f"{prefix} has {some(sorted(names))}{what}{known}")

    def _permute(self, prefix: str) -> Transform:
        order, back = (self.state.look(f"{prefix}{n}") for n in ("perm", "inv_perm"))
        transform = permutation(self.state, f"{prefix}inv_perm")
        if not torch.equal(order.argsort(), back):
            raise self.state.error(f"{prefix}perm and {prefix}inv_perm are not each other's inverse")
        self.state.ignore(f"{prefix}perm", "the inverse of inv_perm")
        return transform

    def _constant(self, prefix: str) -> Transform:
        """ActNorm and AffineConstFlow: x = z e^s + t, so that z = e^-s (x - t)."""
        D, done = self.features, f"{prefix}data_dep_init_done"
        for name in ("s", "t"):
            self.state.shaped(f"{prefix}{name}", 1, D)
        if self.state.has(done):
            if not self.state.look(done) > 0:
                raise self.state.error(f"{prefix} is an ActNorm that was never used: its first batch would set it")
            self.state.ignore(done, "it is")
        transform = ActNorm(D).to(self.state.dtype)
        for name, target in (("s", transform.log_scale), ("t", transform.shift)):
            self.state.into(f"{prefix}{name}", target, lambda value: -value[0], "its negative")
        return transform

    def _masked(self, prefix: str) -> Transform:
        """MaskedAffineFlow: x = b z + (1 - b) (z e^s(bz) + t(bz))."""
        D = self.features
        self.state.shaped(f"{prefix}b", 1, D)
        b = self.state.take(f"{prefix}b")[0]
        if not ((b == 0) | (b == 1)).all() or not 0 < b.sum() < D:
            raise self.state.error(f"{prefix}b must be of zeros and ones, some of each, got {b.tolist()}")
        names = self.state.children(prefix)
        found = {n: self._network(f"{prefix}{n}.", D) for n in ("t", "s") if n in names}
        for name, (_, outputs) in found.items():
            if outputs != D:
                raise self.state.error(f"{prefix}{name} has {outputs} outputs for {D} features")
        shift, scale = (found[n][0] if n in found else None for n in ("t", "s"))
        active = [i for i in range(D) if b[i] == 0]
        network = MaskedPair(D, shift, scale, active)
        transform = Coupling(b == 0, ForeignAffine("normflows exp"), network)
        self.state.hold(f"{prefix}b", transform.halves, "as a mask")
        self.state.report.inferred[prefix.rstrip(".")] = "masked affine"
        return Inverse(transform)

    def _affine(self, prefix: str) -> Transform:
        """AffineCouplingBlock: a split, a coupling, a merge."""
        name, D, net = prefix.removesuffix("."), self.features, f"{prefix}flows.1.param_map."
        if not self.state.children(net):
            raise self.state.error(f"{prefix} is no AffineCouplingBlock: there is no {net}")
        mode = self.split.get(name) if isinstance(self.split, Mapping) else self.split
        if mode is None:
            mode = self._told(net) if D % 2 else "channel"
            self.state.report.assumed["split_mode"] = mode
        half = (D + 1) // 2
        passive = {
            "channel": range(half),
            "channel_inv": range(half, D),
            "checkerboard": range(1, D, 2),
            "checkerboard_inv": range(0, D, 2),
        }[mode]
        if not 0 < len(passive) < D or (D % 2 and mode.startswith("checker")):
            raise self.state.error(f"{name} cannot split {D} features by {mode!r}")
        active = D - len(passive)
        network, outputs = self._network(net, len(passive))
        if outputs not in (active, 2 * active):
            raise self.state.error(
                f"{net} has {outputs} outputs for the {active} features that {mode!r} changes of {D}"
            )
        mask = torch.ones(D, dtype=torch.bool)
        mask[list(passive)] = False
        return Inverse(Coupling(mask, self._bijection(name, outputs == active), network))

    def _bijection(self, name: str, shifts: bool) -> ForeignAffine | ForeignShift:
        if shifts:
            self.state.report.inferred[name] = "additive coupling"
            return ForeignShift()
        form = self.scale_map.get(name, "exp") if isinstance(self.scale_map, Mapping) else self.scale_map
        self.state.report.assumed["scale_map"] = form
        self.state.report.inferred[name] = "affine coupling"
        return ForeignAffine(f"normflows {form}")

    def _told(self, net: str) -> str:
        """How an odd number of features is split: by how many the network sees."""
        first = f"{net}net.0.weight"
        if not self.state.has(first):
            return "channel"
        return "channel" if self.state.look(first).shape[-1] == (self.features + 1) // 2 else "channel_inv"

    def _network(self, prefix: str, inputs: int) -> tuple[Alone, int]:
        """An MLP, or the module that was given in its place, and how many numbers it gives."""
        name = prefix.removesuffix(".")
        given = self.networks.pop(name, None)
        if given is not None:
            filled(self.state, prefix, given)
            self.state.report.assumed[name] = type(given).__name__
            return Alone(given), _outputs(given, inputs, self.state.dtype)
        net = f"{prefix}net."
        numbers = self.state.children(net)
        if self.state.children(prefix) != ["net"] or any(self.state.has(f"{net}{n}.scale") for n in numbers):
            raise self.state.error(f"{name} is no MLP of normflows, or has an output function: give it in networks")
        layers = self.state.each(self.nets.dense, [f"{net}{n}." for n in numbers])
        width = inputs
        for n, layer in zip(numbers, layers, strict=True):
            if layer.weight.shape[1] != width:
                raise self.state.misshapen(f"{net}{n}.weight", (layer.weight.shape[0], width))
            width = layer.weight.shape[0]
        self.state.report.assumed["activation"] = self.activation if isinstance(self.activation, str) else "a function"
        self.state.report.assumed["output_fn"] = "None"
        return Alone(ZukoNet(layers, [1] * (len(layers) - 1), self.activation)), width


@torch.no_grad()
def _outputs(network: nn.Module, inputs: int, dtype: torch.dtype) -> int:
    was = network.training
    y = network.eval()(torch.zeros(1, inputs, dtype=dtype))
    network.train(was)
    return int(y.shape[-1])
