"""Bijections of single numbers whose parameters a network gives: what couplings are made of."""

import torch
from torch import Tensor

from .spline import Bound, Convention, Tails, rational_quadratic_spline_packed, slope_count


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
    """The rational-quadratic spline: K widths, K heights, then the slopes."""

    def __init__(
        self, bins: int = 8, bound: Bound = None, tails: Tails = "linear", convention: Convention = "nflows"
    ) -> None:
        if bins < 1:
            raise ValueError(f"Spline: bins must be at least 1, got {bins}")
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
    """y = x exp(s) + t, raw (s, t); s is clipped softly to `limit`."""

    size = 2

    def __init__(self, limit: float = 5.0) -> None:
        self.limit = limit

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self.limit * torch.tanh(raw[..., 0] / self.limit), raw[..., 1]

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return x * s.exp() + t, s

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return (y - t) * (-s).exp(), -s
