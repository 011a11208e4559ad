r"""Integrands whose integrals are known: what integrators are tested and measured with.

========== === ==============================================================================================
name        d   f on the unit cube
========== === ==============================================================================================
camel(d)    d   :math:`\frac12 (s\sqrt\pi)^{-d} [e^{-|x-a|^2/s^2} + e^{-|x-b|^2/s^2}]`, s = .2, a = 1/3, b = 2/3
narrow(d)   d   the same with s = .05, a = 1/4, b = 3/4
needle8     8   half the integral at 1/4 with s = .05, half at 3/4 with s = .02
ring        2   :math:`\exp(-(|x - 1/2| - .35)^2 / (2 \cdot .02^2))`
ridge       4   :math:`\exp(-\sum_i (x_{i+1} - x_i)^2 / (2 \cdot .02^2))`
banana4     4   :math:`\exp(-[(x_2 - .5 - .3 \sin 2\pi x_1)^2 + (x_4 - .5 - .3 \cos 2\pi x_3)^2] / (2 \cdot .02^2))`
resonance6  6   two Lorentzians of :math:`\gamma = .003` at x1 = .4, x2 = .7, 1/((x3+.001)(1.001-x4)), and the cuts
                :math:`x_5^2 + x_6^2 < .49`, :math:`x_1 + x_3 > .35`
========== === ==============================================================================================

The exact values: products of error functions (camel, narrow, needle8), else quadratures of one dimension at a time.
The camel is that of G.P. Lepage, J. Comput. Phys. 27 (1978) 192.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """An integrand with its integral over the unit cube: call it with x, shape (n, dim), float64."""

    name: str
    dim: int
    exact: float
    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def _two_peaks(name: str, dim: int, a: float, b: float, s_a: float, s_b: float) -> Known:
    def function(x: Tensor) -> Tensor:
        total = torch.zeros_like(x[:, 0])
        for centre, s in ((a, s_a), (b, s_b)):
            total += 0.5 * torch.exp(-(x - centre).square().sum(1) / s**2) * (s * math.sqrt(math.pi)) ** -dim
        return total

    def axis(centre: float, s: float) -> float:  # int_0^1 exp(-(x-c)^2/s^2) dx / (s sqrt pi)
        return 0.5 * (math.erf((1 - centre) / s) + math.erf(centre / s))

    return Known(name, dim, 0.5 * (axis(a, s_a) ** dim + axis(b, s_b) ** dim), function)


def camel(dim: int) -> Known:
    """Two broad peaks that the walls cut."""
    return _two_peaks(f"camel{dim}", dim, 1 / 3, 2 / 3, 0.2, 0.2)


def narrow(dim: int) -> Known:
    """Two peaks of which one is easily lost in many dimensions."""
    return _two_peaks(f"narrow{dim}", dim, 0.25, 0.75, 0.05, 0.05)


def _ring(x: Tensor) -> Tensor:
    return torch.exp(-(((x - 0.5).square().sum(1).sqrt() - 0.35) ** 2) / (2 * 0.02**2))


def _ridge(x: Tensor) -> Tensor:
    return torch.exp(-x.diff(dim=1).square().sum(1) / (2 * 0.02**2))


def _banana(x: Tensor) -> Tensor:
    a = x[:, 1] - 0.5 - 0.3 * torch.sin(2 * math.pi * x[:, 0])
    b = x[:, 3] - 0.5 - 0.3 * torch.cos(2 * math.pi * x[:, 2])
    return torch.exp(-(a * a + b * b) / (2 * 0.02**2))


def _resonance(x: Tensor) -> Tensor:
    gamma = 0.003
    x1, x2, x3, x4, x5, x6 = x.unbind(1)
    peaks = ((x1 - 0.4) ** 2 + gamma**2) * ((x2 - 0.7) ** 2 + gamma**2) * (x3 + 0.001) * (1.001 - x4)
    kept = (x5 * x5 + x6 * x6 < 0.49) & (x1 + x3 > 0.35)
    return torch.where(kept, 1 / peaks, 0.0)


needle8 = _two_peaks("needle8", 8, 0.25, 0.75, 0.05, 0.02)
ring = Known("ring", 2, 0.11024726962006, _ring)
ridge = Known("ridge", 4, 1.2140370613413e-4, _ridge)
banana4 = Known("banana4", 4, 2.513274122872e-3, _banana)
resonance6 = Known("resonance6", 6, 19799375.475, _resonance)

ALL = {
    known.name: known
    for known in (
        *(camel(d) for d in (2, 4, 8)),
        *(narrow(d) for d in (4, 8)),
        needle8,
        ring,
        ridge,
        banana4,
        resonance6,
    )
}
