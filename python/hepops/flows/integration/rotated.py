r"""A VEGAS map along turned axes: for peaks of any shape that lie across the cube's.

:math:`x = \frac12 + R\,t`, the columns of R orthonormal axes, t in the box that the turned cube fills,
:math:`|t_a| \le h_a = \frac12 \sum_i |R_{ia}|`, and :math:`t_a = h_a (2 u_a - 1)` with u from the map, so that

.. math:: q(x) = q_{map}(u(x)) \prod_a \frac{1}{2 h_a}.

What the box has beyond the cube is thrown as zeros; the map learns to leave it. A ridge or a resonance in a sum of
coordinates, with the power-law tails that no Gaussians follow, is separable along the principal axes of the samples.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .proposal import Proposal
from .vegas import VegasMap


class RotatedMap(Proposal):
    """The map along turned axes; begins along the cube's own.

    Args:
        dim: d.
        increments: Of the map, per axis.

    Example:
        >>> q = hepops.flows.integration.RotatedMap(2)
        >>> q.turn(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5)
        >>> x, log_q = q.sample(1000, seed=1)  # half of the diamond lies in the cube
        >>> bool(0.4 < log_q.isfinite().double().mean() < 0.6)
        True
    """

    axes: Tensor
    reach: Tensor

    def __init__(self, dim: int, increments: int = 256) -> None:
        super().__init__(dim)
        self.map = VegasMap(dim, increments)
        self.register_buffer("axes", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("reach", torch.full((dim,), 0.5, dtype=torch.float64))

    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "increments": self.map.increments}

    def cost(self) -> float:
        return self.map.cost() + 1e-8 * self.dim

    @torch.no_grad()
    def turn(self, axes: Tensor) -> None:
        """Sets R, shape (d, d): orthonormal columns."""
        eye = torch.eye(self.dim, dtype=torch.float64, device=axes.device)
        if axes.shape != eye.shape or not torch.allclose(axes.T @ axes, eye, atol=1e-9):
            raise ValueError(f"RotatedMap: axes must be ({self.dim}, {self.dim}) with orthonormal columns")
        self.axes.copy_(axes)
        self.reach.copy_(0.5 * axes.abs().sum(0))

    @torch.no_grad()
    def align(self, x: Tensor, log_w: Tensor) -> None:
        """Turns to the principal axes of weighted points."""
        w = (log_w - torch.logsumexp(log_w, 0)).exp()
        centred = x - w @ x
        self.turn(torch.linalg.eigh((centred * w[:, None]).T @ centred).eigenvectors)

    def _to_u(self, x: Tensor) -> Tensor:
        return (((x - 0.5) @ self.axes) / (2 * self.reach) + 0.5).clamp(0, 1)

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        u, log_q = self.map.draw(numbers, seed, step)
        x = 0.5 + ((2 * u - 1) * self.reach) @ self.axes.T
        return x, log_q - self._volume()

    def density(self, x: Tensor) -> Tensor:
        return self.map.density(self._to_u(x)) - self._volume()

    def _volume(self) -> Tensor:
        return self.reach.log().sum() + self.dim * math.log(2)

    def refine(self, x: Tensor, log_c: Tensor, alpha: float = 0.75) -> None:
        """:meth:`VegasMap.refine` along the turned axes."""
        self.map.refine(self._to_u(x), log_c, alpha)
