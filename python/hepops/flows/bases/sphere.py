"""The uniform distribution on a sphere."""

import math

import torch
from torch import Tensor

from .base import Base


class UniformSphere(Base):
    r"""Unit vectors of :math:`\mathbb{R}^{d+1}`, uniform on the sphere :math:`S^d`.

    .. math:: \ln q = \ln \Gamma(\tfrac{d+1}{2}) - \ln 2 - \tfrac{d+1}{2} \ln \pi,

    a density with respect to the surface measure. A sample is d + 1 normal numbers over their norm, taken in double.

    Args:
        d: Dimension of the sphere, 1 or more: event_shape is (d + 1).
        dtype: Of the samples; torch's default where None.

    `log_prob` is -inf where :math:`||z| - 1|` exceeds the square root of the dtype's rounding.

    Raises:
        ValueError: d is below 1.

    References:
        | M. E. Muller, Commun. ACM 2 (1959) 19, doi:10.1145/377939.377946

    Example:
        >>> base = hepops.flows.UniformSphere(2)
        >>> base.draw(2, seed=1).norm(dim=-1)
        tensor([1., 1.])
        >>> base.log_prob(torch.tensor([0.0, 0.0, 1.0]))  # -ln 4 pi
        tensor(-2.5310, dtype=torch.float64)
    """

    def __init__(self, d: int, dtype: torch.dtype | None = None) -> None:
        if d < 1:
            raise ValueError(f"UniformSphere: d must be at least 1, got {d}")
        super().__init__(d + 1, dtype)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        z = self._normal(n, seed, first, step)
        return (z / z.square().sum(-1, keepdim=True).sqrt()).to(self.reference.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        half = self.event_shape.numel() / 2
        constant = math.lgamma(half) - math.log(2) - half * math.log(math.pi)
        return self._supported(z.new_full((), constant, dtype=torch.float64), z, self.off(z)[..., None])

    def off(self, z: Tensor) -> Tensor:
        """Which events are no unit vectors."""
        return (z.double().square().sum(-1).sqrt() - 1).abs() > math.sqrt(torch.finfo(z.dtype).eps)
