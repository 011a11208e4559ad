"""Base distributions of normflows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..bases import Base, DiagonalNormal, Mixture, Product, Uniform
from .report import State, some


class Reordered(Base):
    """A base whose features stand in another order: feature order[i] is its i-th."""

    places: Tensor
    inverse: Tensor

    def __init__(self, base: Base, order: Sequence[int]) -> None:
        super().__init__(base.event_shape, base.reference.dtype)
        self.base = base
        places = torch.as_tensor(order, dtype=torch.int64)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("inverse", places.argsort(), persistent=False)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        return self.base.draw(n, seed, first, step).index_select(-1, self.inverse)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        return self.base.log_prob(z.index_select(-1, self.places))


def read_base(state: State, given: Base | None) -> Base:
    """The base under q0., or the given one where that has no keys."""
    names = set(state.children("q0."))
    if given is not None:
        for name in [k for k in state.tensors if k.startswith("q0.")]:
            state.ignore(name, "base is given")
        state.report.assumed["base"] = type(given).__name__
        if len(given.event_shape) != 1:
            raise state.error(f"base must be of vectors, got events {tuple(given.event_shape)}")
        state.sized(given.event_shape[0], "base")
        return given
    if names == {"loc", "log_scale"}:
        return _diagonal(state)
    if names == {"loc", "log_scale", "weight_scores"}:
        return _mixture(state)
    if names == {"ind", "ind_", "inv_perm", "scale"}:
        return _uniform_gaussian(state)
    if not names:
        raise state.error("q0 has no keys (base.Uniform has none): give base")
    known = {
        "context_encoder": "ConditionalDiagGaussian",
        "0": "the bases of a MultiscaleFlow",
        "loc_logs": "GlowBase",
        "log_sigma": "GaussianPCA",
        "flow": "a flow, or AffineGaussian",
    }
    what = next((known[name] for name in known if name in names), f"what has {some(sorted(names))}")
    raise state.error(f"q0 is {what}, for which there is no base here; one of your own can be given as base")


def _diagonal(state: State) -> Base:
    loc = state.look("q0.loc")
    if loc.dim() != 2 or loc.shape[0] != 1:
        raise state.error(f"q0.loc has shape {tuple(loc.shape)}: images and class conditional bases are not imported")
    D = state.sized(loc.shape[1], "q0")
    state.shaped("q0.log_scale", 1, D)
    base = DiagonalNormal(torch.zeros(D), torch.ones(D), learnable=True, dtype=state.dtype)
    for name, target in (("loc", base.loc), ("log_scale", base.log_scale)):
        state.into(f"q0.{name}", target, lambda value: value.reshape(-1))
    state.report.inferred["base"] = "DiagGaussian"
    return base


def _mixture(state: State) -> Base:
    loc = state.look("q0.loc")
    if loc.dim() != 3 or loc.shape[0] != 1:
        raise state.error(f"q0.loc has shape {tuple(loc.shape)}, that of a GaussianMixture is (1, modes, features)")
    modes = loc.shape[1]
    state.sized(loc.shape[2], "q0")
    state.shaped("q0.log_scale", *loc.shape)
    state.shaped("q0.weight_scores", 1, modes)
    loc, log_scale, scores = (state.take(f"q0.{n}") for n in ("loc", "log_scale", "weight_scores"))
    parts = [
        DiagonalNormal(m, s.double().exp(), learnable=True, dtype=state.dtype)
        for m, s in zip(loc[0], log_scale[0], strict=True)
    ]
    base = Mixture(parts, scores[0].double().softmax(-1), learnable=True)
    for name, note in (
        ("loc", "one for each mode"),
        ("log_scale", "one for each mode"),
        ("weight_scores", "normalised"),
    ):
        state.hold(f"q0.{name}", base.log_weights if name == "weight_scores" else base, note)
    state.report.inferred["base"] = f"GaussianMixture of {modes}"
    return base


def _uniform_gaussian(state: State) -> Base:
    scale = state.take("q0.scale").double()
    D = state.sized(len(scale), "q0")
    circles, rest = (state.look(f"q0.{n}").tolist() for n in ("ind", "ind_"))
    if sorted([*circles, *rest]) != list(range(D)):
        raise state.error(f"q0.ind and q0.ind_ do not name each of {D} features once")
    blocks: list[Base] = []
    if circles:
        half = scale[circles] / 2
        blocks.append(Uniform(len(circles), -half, half, state.dtype))
    if rest:
        blocks.append(DiagonalNormal(0.0, scale[rest], len(rest), dtype=state.dtype))
    base: Base = Product(blocks)
    if [*circles, *rest] != list(range(D)):
        base = Reordered(base, [*circles, *rest])
    for name, note in (("scale", "as bounds and widths"), ("ind", "as an order"), ("ind_", "as an order")):
        state.take(f"q0.{name}", base, note)
    state.ignore("q0.inv_perm", "the order tells")
    state.report.inferred["base"] = f"UniformGaussian, uniform in {circles}"
    return base
