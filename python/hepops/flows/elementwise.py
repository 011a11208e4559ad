"""Bijections of single numbers whose parameters a network gives: what couplings are made of."""

import math

import torch
from torch import Tensor

from .affine import Scale, affine, scale_limit
from .circular import circular
from .piecewise import piecewise_linear, piecewise_quadratic
from .sigmoid_mixture import sigmoid_mixture
from .spline import Bound, Convention, Tails, check_names, ends_of, rational_quadratic_spline_packed, slope_count


class Elementwise:
    """A family of bijections of one number, with `size` raw parameters each, any real numbers.

    The first direction is x -> y; both give the log-derivative of what they did, per element, in the dtype of x.
    """

    size: int

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """x, shape (...), raw, shape (..., size) -> y and ln |dy/dx|, shape (...)."""
        raise NotImplementedError

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def identity(self) -> Tensor:
        """Raw parameters, shape (size), at which a layer begins: the identity, or near it."""
        return torch.zeros(self.size)


class Spline(Elementwise):
    """The rational-quadratic spline: K widths, K heights, then the slopes (`hepops.flows.rational_quadratic_spline`).

    Args:
        bins: K.
        bound, tails, convention: As there.

    Raises:
        ValueError: what the spline would refuse, before there are numbers.

    Example:
        >>> g = hepops.flows.Spline(bins=4)
        >>> g.size, g.forward(torch.tensor([0.5]), g.identity()[None])[0]
        (11, tensor([0.5000]))
    """

    def __init__(
        self, bins: int = 8, bound: Bound = None, tails: Tails = "linear", convention: Convention = "nflows"
    ) -> None:
        check_names(tails, convention)
        check_count("Spline", "bins", bins, 999 if convention == "nflows" else 1 << 16)
        ends_of(bound, tails)
        self.bins, self.bound, self.tails, self.convention = bins, bound, tails, convention
        self.size = 2 * bins + slope_count(bins, tails)

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline_packed(
            x, raw, bins=self.bins, inverse=inverse, tails=self.tails, bound=self.bound, convention=self.convention
        )

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(x, raw, False)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(y, raw, True)

    def identity(self) -> Tensor:
        raw = torch.zeros(self.size)
        if self.convention == "nflows":
            raw[2 * self.bins :] = 0.5397424172369522  # softplus^-1(1 - 1e-3): slope 1
        return raw


class Affine(Elementwise):
    """y = x e^g(s) + t, raw (s, t), in the form of `scale` (`hepops.flows.affine`).

    Args:
        scale: "exp", "softclip", "tanh", "softplus" or "sigmoid".
        limit: The form's constant, its default where None.

    Example:
        >>> hepops.flows.Affine("exp").forward(torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]))
        (tensor([3.]), tensor([0.]))
    """

    size = 2

    def __init__(self, scale: Scale = "tanh", limit: float | None = None) -> None:
        self.scale, self.limit = scale, scale_limit(scale, limit)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return affine(x, raw, scale=self.scale, limit=self.limit)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return affine(y, raw, scale=self.scale, limit=self.limit, inverse=True)

    def identity(self) -> Tensor:
        """The s of scale 1, and t = 0. A sigmoid hardly moves where it is close to 1: it begins at 0.98."""
        if self.scale == "softplus":
            if self.limit >= 1:
                raise ValueError(f"Affine: with softplus and limit {self.limit} no scale is 1")
            return torch.tensor([math.log(math.expm1(1 - self.limit)), 0.0])
        if self.scale == "sigmoid":
            return torch.tensor([2.0, 0.0])
        return torch.zeros(2)


class Additive(Elementwise):
    """y = x + t, raw (t), with a log-derivative of 0.

    L. Dinh, D. Krueger, Y. Bengio, NICE, arXiv:1410.8516

    Example:
        >>> hepops.flows.Additive().forward(torch.tensor([2.0]), torch.tensor([[1.0]]))
        (tensor([3.]), tensor([0.]))
    """

    size = 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return x + _one(raw).to(x.dtype), torch.zeros_like(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return y - _one(raw).to(y.dtype), torch.zeros_like(y)


def _one(raw: Tensor) -> Tensor:
    if raw.shape[-1] != 1:
        raise ValueError(f"Additive: raw must hold 1 parameter, got shape {tuple(raw.shape)}")
    return raw[..., 0]


class _Fused(Elementwise):
    """What an operator of (x, raw, inverse) does."""

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(x, raw, False)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(y, raw, True)


class CircularMixture(_Fused):
    """The mixture of non-compact projections and a rotation (`hepops.flows.circular`).

    Args:
        components: K, 1 to 64.
        weights: Whether the weights are learned; else they are 1 / K.

    Example:
        >>> g = hepops.flows.CircularMixture(components=1)  # raw: s, t
        >>> g.forward(torch.tensor([1.0]), torch.tensor([[0.0, 0.5]]))
        (tensor([1.5000]), tensor([0.]))
    """

    def __init__(self, components: int = 4, weights: bool = False) -> None:
        self.components, self.weights = check_count("CircularMixture", "components", components, 64), weights
        self.size = components * (2 if weights else 1) + 1

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        check_size("CircularMixture", raw, self.size)
        return circular(x, raw, weights=self.weights, inverse=inverse)

    def identity(self) -> Tensor:
        """Near the identity: components that are alike would have the same gradients, and stay alike."""
        raw = torch.zeros(self.size)
        raw[: self.components] = torch.linspace(-0.1, 0.1, self.components) if self.components > 1 else 0.0
        return raw


class SigmoidMixture(_Fused):
    """The logit of a mixture of sigmoids (`hepops.flows.sigmoid_mixture`).

    Args:
        components: K, 1 to 48.

    Example:
        >>> g = hepops.flows.SigmoidMixture(components=1)
        >>> g.size, g.forward(torch.tensor([1.5]), g.identity()[None])[0]
        (3, tensor([1.5000]))
    """

    def __init__(self, components: int = 8) -> None:
        self.components = check_count("SigmoidMixture", "components", components, 48)
        self.size = 3 * components

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        check_size("SigmoidMixture", raw, self.size)
        return sigmoid_mixture(x, raw, inverse=inverse)

    def identity(self) -> Tensor:
        """Near the identity: all slopes 1, the places spread over (-0.5, 0.5), lest all components stay alike."""
        raw = torch.zeros(self.size)
        raw[: self.components] = math.log(math.expm1(1 - 1e-3))
        if self.components > 1:
            raw[self.components : 2 * self.components] = torch.linspace(-0.5, 0.5, self.components)
        return raw


class PiecewiseLinear(_Fused):
    """The piecewise linear distribution function on [0, 1] (`hepops.flows.piecewise_linear`).

    Args:
        bins: K, 1 to 128.

    Example:
        >>> hepops.flows.PiecewiseLinear(bins=2).forward(torch.tensor([0.25]), torch.zeros(1, 2))
        (tensor([0.2500]), tensor([0.]))
    """

    def __init__(self, bins: int = 16) -> None:
        self.bins = self.size = check_count("PiecewiseLinear", "bins", bins, 128)

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        check_size("PiecewiseLinear", raw, self.size)
        return piecewise_linear(x, raw, inverse=inverse)


class PiecewiseQuadratic(_Fused):
    """The piecewise quadratic distribution function on [0, 1] (`hepops.flows.piecewise_quadratic`).

    Args:
        bins: K, 1 to 64.

    Example:
        >>> g = hepops.flows.PiecewiseQuadratic(bins=2)
        >>> g.size, g.forward(torch.tensor([0.25]), torch.zeros(1, 5))[0]
        (5, tensor([0.2500]))
    """

    def __init__(self, bins: int = 16) -> None:
        self.bins = check_count("PiecewiseQuadratic", "bins", bins, 64)
        self.size = 2 * bins + 1

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        check_size("PiecewiseQuadratic", raw, self.size)
        return piecewise_quadratic(x, raw, inverse=inverse)


def check_count(name: str, what: str, count: int, most: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name}: {what} must be an integer, got {count!r}")
    if not 1 <= count <= most:
        raise ValueError(f"{name}: {what} must be 1 to {most}, got {count}")
    return count


def check_size(name: str, raw: Tensor, size: int) -> None:
    if raw.dim() == 0 or raw.shape[-1] != size:
        raise ValueError(f"{name}: raw must have {size} parameters in its last dimension, got shape {tuple(raw.shape)}")
