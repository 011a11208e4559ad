r"""Robust weights: rho(r), quadratic near zero, slower beyond a scale, for residuals that are not all to be trusted.

With u = r / (c s), s the scale of the residuals and c the tuning constant of 95 % efficiency on Gaussian residuals:

======================  =============================================  =====================
kind                    rho(r)                                         weight rho'(r) / r
======================  =============================================  =====================
quadratic               r^2/2                                          1
huber (c = 1.345)       r^2/2 for \|u\| < 1, c s \|r\| - (c s)^2/2 beyond  min(1, 1/\|u\|)
geman_mcclure (c = 3)   r^2/2 / (1 + u^2)                              1 / (1 + u^2)^2
tukey (c = 4.685)       (c s)^2/6 (1 - (1 - u^2)^3), constant beyond   (1 - u^2)^2, 0 beyond
======================  =============================================  =====================

References:
    | P. J. Huber, Robust estimation of a location parameter, Ann. Math. Statist. 35 (1964) 73
    | A. E. Beaton, J. W. Tukey, Technometrics 16 (1974) 147
    | S. Geman, D. E. McClure, Bull. Int. Statist. Inst. 52 (1987) 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["quadratic", "huber", "geman_mcclure", "tukey"]
TUNING = {"quadratic": 1.0, "huber": 1.345, "geman_mcclure": 3.0, "tukey": 4.685}
GAUSSIAN = 1.4826  # sigma / median |r| of a Gaussian


@dataclass(frozen=True)
class Robust:
    r"""A robust loss with an annealed scale.

    The scale is read off the residuals themselves, 1.4826 times the median of \|r\|, never below `floor`: far from the
    solution most residuals count, and as the fit approaches it, those that stay behind lose their weight. It is a
    function of the residuals at hand alone, without memory, so that a fit which is resumed goes the same way.

    Args:
        kind: Which one (see above).
        floor: Least scale, in sigma of the noise.
        tuning: The constant c; None takes the one of the table.

    Example:
        >>> Robust("huber").weight(torch.tensor([0.5, 2.69]), torch.tensor(1.0))
        tensor([1.0000, 0.5000])
    """

    kind: Kind = "quadratic"
    floor: float = 1.0
    tuning: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in TUNING:
            raise ValueError(f"kind must be one of {', '.join(TUNING)}, got {self.kind!r}")
        for name, value in (("floor", self.floor), ("tuning", self.tuning)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def scale(self, residuals: Tensor) -> Tensor:
        """One number for residuals of one kind (n), without a graph; not differentiable."""
        if not len(residuals):
            return residuals.new_tensor(self.floor)
        return (GAUSSIAN * residuals.detach().abs().median()).clamp_min(self.floor)

    def rho(self, r: Tensor, scale: Tensor) -> Tensor:
        """The loss of each residual, the shape of `r`. Differentiable once with respect to `r`."""
        reach = self._reach(scale)
        if self.kind == "huber":
            return torch.where(r.abs() < reach, r * r / 2, reach * r.abs() - reach * reach / 2)
        if self.kind == "geman_mcclure":
            return r * r / 2 / (1 + (r / reach) ** 2)
        if self.kind == "tukey":
            v = ((r / reach) ** 2).clamp_max(1)
            return reach**2 / 6 * v * (3 - 3 * v + v * v)  # 1 - (1 - v)^3, exact also where v is tiny
        return r * r / 2

    def weight(self, r: Tensor, scale: Tensor) -> Tensor:
        """rho'(r) / r, the shape of `r`."""
        u = r / self._reach(scale)
        if self.kind == "huber":
            return 1 / u.abs().clamp_min(1)
        if self.kind == "geman_mcclure":
            return (1 + u * u) ** -2
        if self.kind == "tukey":
            return (1 - u * u).clamp_min(0) ** 2
        return torch.ones_like(r)

    def missing(self, scale: Tensor) -> Tensor:
        """What a residual that does not exist (no partner) costs: as much as one of one scale, s^2/2.

        A fit then gains nothing by losing hits, and a hit that crosses the threshold on the way is no wall.
        """
        return scale * scale / 2

    def _reach(self, scale: Tensor) -> Tensor:
        return scale * (self.tuning or TUNING[self.kind])
