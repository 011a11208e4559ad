r"""What is known of the parameters before the data: distributions that know their map to independent normal numbers.

Every prior here is :math:`\theta = T^{-1}(u)`, u independent normal numbers, with T monotone in each number (or
linear). Inference happens in u: no step of a sampler and no sample of a flow leaves the prior's support, so that no
posterior mass leaks, and the prior's density is :math:`\ln p(\theta) = \ln N(T(\theta)) + \ln |\det T'|`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import random

_FARTHEST = 8.0  # |u| of a point on the border: beyond, 1 - Phi(u) is below the rounding of float64
_END = 3.5  # |u| at which an estimate of theta stops: no better than "at the end of the support"
Numbers = float | Sequence[float] | Tensor


class Prior:
    """A distribution of K named parameters; everything is float64 on the CPU.

    Subclasses write `to_normal`, `from_normal` and `arguments`, which JSON can hold and the constructor takes.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to_normal(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """u = T(theta), shape (..., K), and ln |det T'|, shape (...)."""
        raise NotImplementedError

    def from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """theta, shape (..., K), and the ln |det| of the inverse map, shape (...)."""
        raise NotImplementedError

    def local(self, theta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Where theta - width ... theta + width lies in u: its middle and half its length, shape (..., K) each.

        What is known of theta to `width` is known of u about so well: T stretches near the ends of the support.
        """
        a, b = (self.to_normal(theta + sign * width)[0].clamp(-_END, _END) for sign in (-1, 1))
        return (a + b) / 2, ((b - a) / 2).clamp(1e-3, 1.0)  # never wider than the prior: the ends would collect mass

    def inside(self, theta: Tensor) -> Tensor:
        """Whether theta lies in the support, shape (...); NaN does not."""
        return torch.isfinite(theta).all(-1)

    def arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def sample(self, n: int, seed: int, first: int = 0) -> Tensor:
        """Samples first ... first + n - 1 of a seed, shape (n, K): each the same in every batch."""
        if n < 0:
            raise ValueError(f"sample: n must not be negative, got {n}")
        u = random.normal(n, len(self), seed, first=first, purpose=random.CHANNEL, dtype=torch.float64)
        return self.from_normal(u)[0]

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log density, shape (...); -inf outside the support."""
        theta = self._check(theta)
        u, logdet = self.to_normal(theta)
        density = standard_normal(u) + logdet
        return torch.where(self.inside(theta), density, torch.full_like(density, -math.inf))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Prior.from_dict` gives it back."""
        return {"kind": type(self).__name__, **self.arguments()}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "Prior":
        """A prior as `to_dict` described it.

        Raises:
            ValueError: a kind that is not one of this module's.
        """
        kinds: dict[str, type[Prior]] = {k.__name__: k for k in (Box, Normal, LogNormal, Product)}
        content = dict(content)
        kind = content.pop("kind", None)
        if kind not in kinds:
            raise ValueError(f"prior: kind must be one of {', '.join(kinds)}, got {kind!r}")
        if kind == "Product":
            return Product([Prior.from_dict(part) for part in content["parts"]])
        return kinds[kind](**content)

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({inner})"

    def _check(self, theta: Tensor) -> Tensor:
        if theta.shape[-1:] != (len(self),):
            raise ValueError(f"theta must have shape (..., {len(self)}), got {tuple(theta.shape)}")
        return theta.to(torch.float64)

    def _name(self, count: int, names: Sequence[str] | None, units: Sequence[str] | None) -> None:
        if not count:
            raise ValueError(f"{type(self).__name__}: needs at least one parameter, got none")
        self.names = tuple(names) if names is not None else tuple(f"theta{i}" for i in range(count))
        self.units = tuple(units) if units is not None else ("",) * count
        for what, given in (("names", self.names), ("units", self.units)):
            if len(given) != count:
                raise ValueError(f"{type(self).__name__}: {what} must hold {count} texts, got {list(given)}")
        if len(set(self.names)) != count:
            raise ValueError(f"{type(self).__name__}: names must differ, got {list(self.names)}")


class Box(Prior):
    r"""Uniform between `low` and `high`: :math:`u = \Phi^{-1}((\theta - low) / (high - low))`.

    Args:
        low, high: The ends, K numbers each.
        names, units: Of the parameters.

    Raises:
        ValueError: an end that is not finite, or not below the other.

    Example:
        >>> prior = Box([500.0], [5000.0], ["lifetime"], ["us"])
        >>> u, logdet = prior.to_normal(torch.tensor([2750.0]))
        >>> float(u), prior.log_prob(torch.tensor([[2750.0], [5001.0]]))
        (0.0, tensor([-8.4118,    -inf], dtype=torch.float64))
    """

    def __init__(
        self, low: Numbers, high: Numbers, names: Sequence[str] | None = None, units: Sequence[str] | None = None
    ) -> None:
        self.low, self.high = vectors(low, high)
        if not bool(((self.low < self.high) & torch.isfinite(self.high - self.low)).all()):
            raise ValueError(f"Box: low must be below high, both finite, got {low} and {high}")
        self._name(len(self.low), names, units)

    def to_normal(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        share = (theta.to(torch.float64) - self.low) / (self.high - self.low)
        u = torch.special.ndtri(share.clamp(0, 1)).clamp(-_FARTHEST, _FARTHEST)
        return u, -(self.high - self.low).log().sum() - standard_normal(u)

    def from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        u = u.to(torch.float64)
        theta = self.low + (self.high - self.low) * torch.special.ndtr(u)
        return theta, (self.high - self.low).log().sum() + standard_normal(u)

    def inside(self, theta: Tensor) -> Tensor:
        return ((theta >= self.low) & (theta <= self.high)).all(-1)

    def arguments(self) -> dict[str, Any]:
        names: dict[str, Any] = {"names": list(self.names), "units": list(self.units)}
        return {"low": self.low.tolist(), "high": self.high.tolist(), **names}

    def around(self, centre: Numbers, width: Numbers) -> "Box":
        """The part of this box within `width` of `centre`: the prior of a later round, uniform as this one is.

        Raises:
            ValueError: nothing is left.
        """
        middle, reach = vectors(centre, width)
        low, high = torch.maximum(self.low, middle - reach), torch.minimum(self.high, middle + reach)
        return Box(low, high, self.names, self.units)


class Normal(Prior):
    r"""Normal numbers: :math:`u = L^{-1} (\theta - \mu)`, L the Cholesky factor of the covariance.

    Args:
        mean: K numbers.
        sigma: K standard deviations, or the covariance, shape (K, K).
        names, units: Of the parameters.

    Raises:
        ValueError: a sigma that is not positive, or a covariance that is not positive definite.
    """

    def __init__(
        self,
        mean: Numbers,
        sigma: "Numbers | Sequence[Sequence[float]]",
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
    ) -> None:
        spread = torch.as_tensor(sigma, dtype=torch.float64)
        if spread.ndim == 2:
            self.mean = torch.as_tensor(mean, dtype=torch.float64).reshape(-1)
            if spread.shape != (len(self.mean),) * 2 or not torch.allclose(spread, spread.T):
                raise ValueError(
                    f"Normal: the covariance must be symmetric ({len(self.mean)},) * 2, got {spread.tolist()}"
                )
            factor, wrong = torch.linalg.cholesky_ex(spread)
            if int(wrong) or not bool(torch.isfinite(factor).all()):
                raise ValueError(f"Normal: the covariance must be positive definite, got {spread.tolist()}")
            self.factor = factor
        else:
            self.mean, spread = vectors(mean, spread)
            if not bool(((spread > 0) & torch.isfinite(spread)).all()):
                raise ValueError(f"{type(self).__name__}: sigma must be positive and finite, got {spread.tolist()}")
            self.factor = torch.diag(spread)
        if not bool(torch.isfinite(self.mean).all()):
            raise ValueError(f"{type(self).__name__}: mean must be finite, got {self.mean.tolist()}")
        self._name(len(self.mean), names, units)

    def to_normal(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        centred = (theta.to(torch.float64) - self.mean)[..., None]
        u = torch.linalg.solve_triangular(self.factor, centred, upper=False)[..., 0]
        return u, (-self.factor.diagonal().log().sum()).expand(u.shape[:-1])

    def from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.mean + u.to(torch.float64) @ self.factor.T
        return theta, self.factor.diagonal().log().sum().expand(u.shape[:-1])

    def local(self, theta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        u, _ = Normal.to_normal(self, theta)  # linear: it stretches alike everywhere
        return u, torch.ones_like(u)

    def arguments(self) -> dict[str, Any]:
        covariance = (self.factor @ self.factor.T).tolist()
        names: dict[str, Any] = {"names": list(self.names), "units": list(self.units)}
        return {"mean": self.mean.tolist(), "sigma": covariance, **names}


class LogNormal(Normal):
    r"""Positive numbers whose logarithms are normal: :math:`u = \ln(\theta / median) / \sigma`.

    Args:
        median: K positive numbers.
        sigma: Standard deviations of the logarithms.
        names, units: Of the parameters.
    """

    def __init__(
        self, median: Numbers, sigma: Numbers, names: Sequence[str] | None = None, units: Sequence[str] | None = None
    ) -> None:
        middle, spread = vectors(median, sigma)
        if not bool((middle > 0).all()):
            raise ValueError(f"LogNormal: median must be positive, got {median}")
        super().__init__(middle.log(), spread, names, units)

    def to_normal(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        log = theta.to(torch.float64).clamp_min(torch.finfo(torch.float64).tiny).log()
        u, logdet = super().to_normal(log)
        return u, logdet - log.sum(-1)

    def from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log, logdet = super().from_normal(u)
        return log.exp(), logdet + log.sum(-1)

    def local(self, theta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        return Prior.local(self, theta, width)

    def inside(self, theta: Tensor) -> Tensor:
        return (torch.isfinite(theta) & (theta > 0)).all(-1)

    def arguments(self) -> dict[str, Any]:
        names: dict[str, Any] = {"names": list(self.names), "units": list(self.units)}
        return {"median": self.mean.exp().tolist(), "sigma": self.factor.diagonal().tolist(), **names}


class Product(Prior):
    """Independent priors side by side.

    Example:
        >>> prior = Product([Box([0.45], [0.55], ["efield"]), LogNormal([2200.0], [0.3], ["lifetime"])])
        >>> prior.names, prior.sample(3, seed=1).shape
        (('efield', 'lifetime'), torch.Size([3, 2]))
    """

    def __init__(self, parts: Sequence[Prior]) -> None:
        if not parts:
            raise ValueError("Product: needs at least one prior, got none")
        self.parts = tuple(parts)
        names = [name for part in self.parts for name in part.names]
        self._name(len(names), names, [unit for part in self.parts for unit in part.units])

    def _split(self, x: Tensor) -> list[tuple[Prior, Tensor]]:
        return list(zip(self.parts, x.split([len(part) for part in self.parts], -1), strict=True))

    def to_normal(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return _joined([part.to_normal(x) for part, x in self._split(theta)])

    def from_normal(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return _joined([part.from_normal(x) for part, x in self._split(u)])

    def local(self, theta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        parts = [part.local(x, w) for (part, x), (_, w) in zip(self._split(theta), self._split(width), strict=True)]
        return torch.cat([a for a, _ in parts], -1), torch.cat([b for _, b in parts], -1)

    def inside(self, theta: Tensor) -> Tensor:
        return torch.stack([part.inside(x) for part, x in self._split(theta)]).all(0)

    def arguments(self) -> dict[str, Any]:
        return {"parts": [part.to_dict() for part in self.parts]}


def standard_normal(u: Tensor) -> Tensor:
    """Log density of independent normal numbers, over the last dimension."""
    return -0.5 * u.square().sum(-1) - 0.5 * math.log(2 * math.pi) * u.shape[-1]


def vectors(a: Numbers, b: Numbers) -> tuple[Tensor, Tensor]:
    """Two vectors of one length, float64 on the CPU."""
    both = [torch.as_tensor(v, dtype=torch.float64).detach().cpu() for v in (a, b)]
    if any(v.ndim > 1 for v in both):
        raise ValueError(f"prior: needs vectors, got shapes {[tuple(v.shape) for v in both]}")
    try:
        x, y = torch.broadcast_tensors(*(v.reshape(-1) for v in both))
    except RuntimeError:
        raise ValueError(f"prior: needs vectors of one length, got {[len(v) for v in both]}") from None
    return x.clone(), y.clone()


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([x for x, _ in parts], -1), torch.stack([logdet for _, logdet in parts]).sum(0)
