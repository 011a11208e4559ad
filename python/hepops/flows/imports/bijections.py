"""Bijections in the parametrisations of nflows and zuko."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..elementwise import Elementwise, Spline

FLOOR = 1e-3  # nflows adds it to every scale; zuko clips the logarithm of a scale softly at its logarithm


class ForeignAffine(Elementwise):
    r"""y = s x + t. Raw parameters and s by convention:

    | "softplus": (u, t), :math:`s = \mathrm{softplus}(u) + 10^{-3}` (nflows' MaskedAffineAutoregressiveTransform)
    | "sigmoid": (u, t), :math:`s = \sigma(u + 2) + 10^{-3}` (nflows' AffineCouplingTransform)
    | "zuko": (t, u), :math:`\ln s = u / (1 + |u / \ln 10^{-3}|)` (zuko's MonotonicAffineTransform)
    """

    size = 2

    def __init__(self, convention: str) -> None:
        self.convention = convention

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """ln s, t."""
        if self.convention == "zuko":
            u = raw[..., 1]
            return u / (1 + (u / math.log(FLOOR)).abs()), raw[..., 0]
        u = raw[..., 0]
        scale = softplus(u) if self.convention == "softplus" else torch.sigmoid(u + 2)
        return (scale + FLOOR).log(), raw[..., 1]

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return x * s.exp() + t, s.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return (y - t) * (-s).exp(), -s.expand_as(y)


class ForeignShift(Elementwise):
    """y = x + t: nflows' AdditiveCouplingTransform."""

    size = 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return x + raw[..., 0], torch.zeros_like(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return y - raw[..., 0], torch.zeros_like(y)


class ZukoCircular(Elementwise):
    r"""zuko's CircularRQSTransform: :math:`x \bmod 2\pi - \pi`, then a spline of linear tails on that interval.

    Its slope is 1 at the seam; the half turn between layers moves the seam.
    """

    def __init__(self, bins: int) -> None:
        self.spline = Spline(bins, math.pi, "linear", "zuko")
        self.size = self.spline.size

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self.spline.forward(torch.remainder(x, 2 * math.pi) - math.pi, raw)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        x, logdet = self.spline.inverse(y, raw)
        return torch.remainder(x, 2 * math.pi) - math.pi, logdet

    def identity(self) -> Tensor:
        return self.spline.identity()
