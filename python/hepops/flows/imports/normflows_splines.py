"""Spline layers of normflows: couplings and autoregressive ones, with linear tails, circles, or on [0, 1]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..coupling import Coupling
from ..elementwise import Elementwise, Spline
from ..transform import Transform
from .bijections import ForeignAffine, NormflowsSpline
from .modules import Passes, PeriodicFeatures
from .nets import Nets, division, marginal, marginal_shape
from .report import State

Bound = float | Tensor


class Splines:
    """Reads them.

    Args:
        tail_bound: B, where the state dict does not have it.
        circular: Which features are circles, or None to find out.
    """

    def __init__(self, state: State, nets: Nets, tail_bound: float | None, circular: Sequence[int] | None) -> None:
        self.state, self.nets, self.tail_bound = state, nets, tail_bound
        self.circles = None if circular is None else set(circular)
        self.given = circular is not None

    # Which features are circles: a layer's own keys tell of those that its network sees

    def find_circles(self) -> None:
        """Sets `circles` from what the networks see as angles, where it was not given."""
        assert self.state.features is not None
        told: dict[int, bool] = {}
        for key in self.state.tensors:
            if not key.endswith(".preprocessing.ind"):
                continue
            layer = key.removesuffix("preprocessing.ind").rpartition(".")[0].rpartition(".")[0] + "."
            seen = list(range(self.state.features))
            if self.state.has(f"{layer}identity_features"):
                seen = self.state.look(f"{layer}identity_features").tolist()
            angles = {seen[i] for i in self.state.tensors[key].tolist() if i < len(seen)}
            for i in seen:
                if told.setdefault(i, i in angles) != (i in angles) or (
                    self.given and (i in angles) != self._circle(i)
                ):
                    raise self.state.error(
                        f"{layer} has {sorted(angles)} of the features {seen} as angles, against "
                        + ("circular" if self.given else "other layers")
                    )
        if any(told.values()) and not self.given:
            silent = sorted(set(range(self.state.features)) - told.keys())
            if silent:
                raise self.state.error(f"no layer tells whether the features {silent} are circles: give circular")
            self.circles = {i for i, angle in told.items() if angle}
            self.state.report.inferred["circular"] = str(sorted(self.circles))

    def _circle(self, feature: int) -> bool:
        return self.circles is not None and feature in self.circles

    # Splines

    def _bound(self, prefix: str, features: int) -> Bound:
        key = f"{prefix}tail_bound"
        if self.state.has(key):
            self.state.shaped(key, features)
            return self.state.take(key)
        if self.tail_bound is None:
            raise self.state.error(f"{prefix} is a spline with tails, and the state dict has no bound: give tail_bound")
        self.state.report.assumed["tail_bound"] = f"{self.tail_bound:g}"
        return float(self.tail_bound)

    def _spline(self, prefix: str, size: int, features: Sequence[int], tails: bool | None = None) -> Elementwise:
        """By its number of parameters: 3 K - 1, linear tails; 3 K, circles; 3 K + 1, a kind for each feature.

        tails: Whether 3 K + 1 have tails, where the layer itself says it.
        """
        kind = size % 3
        bins = (size + 1) // 3
        if bins < 1:
            raise self.state.error(f"{prefix} has {size} parameters a feature: no spline has as many")
        if kind == 1 and tails is None and self.circles is None:
            raise self.state.error(
                f"{prefix} is a spline of {bins} bins on [0, 1] (tails=None) or has circles: give circular, "
                "[] or the features that are"
            )
        words = {2: "linear tails", 0: "circles"}
        bijection: Elementwise
        if kind == 1 and (tails is False or not (tails or self.circles)):
            words[1] = "no tails, on [0, 1]"
            bijection = Spline(bins, None, None)
        else:
            bound = self._bound(prefix, len(features))
            numbers: float | list[float] = bound.tolist() if isinstance(bound, Tensor) else bound
            self.state.report.assumed["floors of widths, heights, slopes"] = "0.001"
            if kind == 2:
                bijection = Spline(bins, bound)
            else:
                circles = [self._circle(i) for i in features]
                words[1] = f"circles {[i for i in features if self._circle(i)]}, else linear tails"
                bijection = NormflowsSpline(bins, numbers, circles if kind == 1 else None)
        self.state.report.inferred[prefix.rstrip(".")] = f"rational-quadratic spline, {bins} bins, {words[kind]}"
        return bijection

    def _angles(self, net: str, features: int, bound: Bound | None) -> PeriodicFeatures | None:
        """The angles that a network sees by sine and cosine."""
        state, prefix = self.state, f"{net}preprocessing."
        names = state.children(prefix)
        if not names:
            return None
        state.need(*[f"{prefix}{n}" for n in ("ind", "ind_", "inv_perm", "weights")])
        n = len(state.look(f"{prefix}ind"))
        layer = PeriodicFeatures(features, n, "bias" in names).to(state.dtype)
        state.into(f"{prefix}ind", layer.places)
        state.into(f"{prefix}weights", layer.weights)
        if layer.bias is not None:
            state.into(f"{prefix}bias", layer.bias)
        if "scale" in names:
            state.into(f"{prefix}scale", layer.scale, lambda value: value.expand(n))
        else:
            number = bound if isinstance(bound, float) else self.tail_bound
            if number is None:
                raise state.error(f"{prefix} has no scale, which is pi / tail_bound: give tail_bound")
            layer.scale.fill_(math.pi / number)
        for name in ("ind_", "inv_perm"):
            state.ignore(f"{prefix}{name}", "the others tell")
        return layer

    def _hold_bound(self, prefix: str, holder: object) -> None:
        if self.state.has(f"{prefix}tail_bound"):
            self.state.hold(f"{prefix}tail_bound", holder, "the bound of its splines")

    # Layers, in normflows' own direction: what is called forward there

    def coupling(self, prefix: str) -> Transform:
        """PiecewiseRationalQuadraticCoupling."""
        state, net, rest = self.state, f"{prefix}transform_net.", f"{prefix}unconditional_transform."
        state.need(*[f"{prefix}{n}" for n in ("identity_features", "transform_features")], f"{net}final_layer.weight")
        active, passive = (state.look(f"{prefix}{n}_features").tolist() for n in ("transform", "identity"))
        D = state.sized(len(active) + len(passive), prefix)
        outputs = state.look(f"{net}final_layer.weight").shape[0]
        n = len(active)
        if not n or not passive or outputs % n or sorted([*active, *passive]) != list(range(D)):
            raise state.error(f"{prefix} has {outputs} parameters for the features {active} of {D}")
        size = outputs // n
        unseen = [] if self._has_angles(net) else [i for i in passive if self._circle(i)]
        if size % 3 == 1 and unseen:
            raise state.error(f"{prefix} sees the features {unseen} as numbers, which are circles elsewhere")
        bijection = self._spline(prefix, size, active, True if self._has_angles(net) else None)
        convert = division(state, net, (size + 1) // 3, size, n)
        angles = self._angles(net, len(passive), getattr(bijection, "bound", None))
        network, context = self.nets.network(net, convert, inputs=len(passive), joined=True, before=angles)
        mask = torch.zeros(D, dtype=torch.bool)
        mask[active] = True
        marginals: Elementwise | None = None
        if state.children(rest):
            features, numbers = marginal_shape(state, rest)
            if features != len(passive) or numbers != size:
                raise state.misshapen(f"{rest}unnormalized_widths", (len(passive), (size + 1) // 3))
            marginals = self._spline(rest, numbers, passive, True if self._has_angles(net) else None)
        transform = Coupling(mask, bijection, network, context=context, unconditional=marginals)
        for name in ("transform", "identity"):
            state.take(f"{prefix}{name}_features", transform.halves, "as a mask")
        self._hold_bound(prefix, transform)
        if transform.rest is not None:
            marginal(state, rest, transform.rest)
            self._hold_bound(rest, transform.rest)
        return transform

    def _has_angles(self, net: str) -> bool:
        return bool(self.state.children(f"{net}preprocessing."))

    def autoregressive(self, prefix: str) -> Transform:
        """MaskedAffineAutoregressive, MaskedPiecewiseRationalQuadraticAutoregressive."""
        state, net = self.state, f"{prefix}autoregressive_net."
        state.need(f"{net}initial_layer.weight", f"{net}final_layer.weight")
        D = state.sized(state.look(f"{net}initial_layer.weight").shape[1], prefix)
        outputs = state.look(f"{net}final_layer.weight").shape[0]
        if outputs % D:
            raise state.error(f"{net}final_layer has {outputs} outputs for {D} features")
        bijection: Elementwise
        if outputs == 2 * D:
            bijection = ForeignAffine("sigmoid")
            state.report.inferred[prefix.rstrip(".")] = "affine, sigmoid scale"
        else:
            # without tails there are no angles; with a list of tails there is always the layer for them
            bijection = self._spline(prefix, outputs // D, range(D), self._has_angles(net))
        angles = self._angles(net, D, getattr(bijection, "bound", None))
        network, context = self.nets.network(net, inputs=D, joined=False, before=angles)
        transform = Passes(bijection, network, D, context, D)
        self._hold_bound(prefix, transform)
        return transform
