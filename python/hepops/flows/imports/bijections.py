"""Bijections in the parametrisations of nflows, normflows and zuko."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ..elementwise import Elementwise, Spline
from ..spline import rational_quadratic_spline_packed

FLOOR = 1e-3  # nflows adds it to every scale; zuko clips the logarithm of a scale softly at its logarithm
UNIT = math.log(math.expm1(1 - FLOOR))  # the raw slope of a spline whose slope is 1


class ForeignAffine(Elementwise):
    r"""y = s x + t. Raw parameters and s by convention:

    | "softplus": (u, t), :math:`s = \mathrm{softplus}(u) + 10^{-3}` (nflows' MaskedAffineAutoregressiveTransform)
    | "sigmoid": (u, t), :math:`s = \sigma(u + 2) + 10^{-3}` (nflows' AffineCouplingTransform, normflows'
      MaskedAffineAutoregressive)
    | "zuko": (t, u), :math:`\ln s = u / (1 + |u / \ln 10^{-3}|)` (zuko's MonotonicAffineTransform)
    | normflows' AffineCoupling by its `scale_map`, (t, u): "normflows exp", :math:`s = e^u`; "normflows sigmoid",
      :math:`s = 1 / \sigma(u + 2)`; "normflows sigmoid_inv", :math:`s = \sigma(u + 2)`
    """

    size = 2

    def __init__(self, convention: str) -> None:
        self.convention = convention

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """ln s, t."""
        if self.convention in ("softplus", "sigmoid"):
            u, t = raw.unbind(-1)
            scale = softplus(u) if self.convention == "softplus" else torch.sigmoid(u + 2)
            return (scale + FLOOR).log(), t
        t, u = raw.unbind(-1)
        if self.convention == "normflows exp":
            return u, t
        if self.convention.startswith("normflows"):
            s = logsigmoid(u + 2)
            return (-s if self.convention == "normflows sigmoid" else s), t
        return u / (1 + (u / math.log(FLOOR)).abs()), t

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return x * s.exp() + t, s.expand_as(x)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self._parameters(raw)
        return (y - t) * (-s).exp(), -s.expand_as(y)


class ForeignShift(Elementwise):
    """y = x + t: nflows' AdditiveCouplingTransform, normflows' AffineCoupling without scale."""

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
        self.bins = bins
        self.spline = Spline(bins, math.pi, "linear", "zuko")
        self.size = self.spline.size

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self.spline.forward(torch.remainder(x, 2 * math.pi) - math.pi, raw)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        x, logdet = self.spline.inverse(y, raw)
        return torch.remainder(x, 2 * math.pi) - math.pi, logdet

    def identity(self) -> Tensor:
        return self.spline.identity()


class NormflowsSpline(Elementwise):
    r"""normflows' rational-quadratic spline on [-B, B]: linear tails and circles side by side, identity outside.

    A circle's first slope is its last one as well. It is not wrapped: normflows' layers of circles alone are the
    identity beyond B, where :class:`Spline` with circular tails would come round. (Its layers of both kinds map all
    that is beyond B to 0, which is no bijection.)

    Args:
        bins: K.
        bound: B, of every feature or one for all.
        circular: Which features are circles, where each has 3 K + 1 raw numbers (those of linear tails leave their
            outer slopes unread); None where all are circles of 3 K raw numbers.
    """

    def __init__(self, bins: int, bound: float | Sequence[float], circular: Sequence[bool] | None) -> None:
        self.bins, self.bound, self.circular = bins, bound, circular
        self.size = 3 * bins + (circular is not None)

    def _slopes(self, d: Tensor) -> Tensor:
        first = d[..., :1]
        if self.circular is None:
            return torch.cat([d, first], -1)
        circle = torch.tensor(self.circular, device=d.device)[:, None]
        unit = torch.full_like(first, UNIT)
        return torch.cat([torch.where(circle, first, unit), d[..., 1:-1], torch.where(circle, first, unit)], -1)

    def _apply(self, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        bound = torch.as_tensor(self.bound, dtype=x.dtype, device=x.device)
        raw = torch.cat([raw[..., : 2 * self.bins], self._slopes(raw[..., 2 * self.bins :])], -1)
        inside = x.abs() <= bound
        # without tails NaN is what lies outside, so that the spline is given something inside there
        y, logdet = rational_quadratic_spline_packed(
            torch.where(inside, x, 0.0), raw, bins=self.bins, inverse=inverse, tails=None, bound=(-bound, bound)
        )
        return torch.where(inside, y, x), torch.where(inside, logdet, 0.0)

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(x, raw, False)

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(y, raw, True)

    def identity(self) -> Tensor:
        raw = torch.zeros(self.size)
        raw[2 * self.bins :] = UNIT
        return raw
