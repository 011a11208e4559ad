"""The uniform distribution in a box."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Parametrised, as_parameters


class Uniform(Parametrised):
    r"""Independent uniform numbers, :math:`q(z) = \prod_i 1 / (b_i - a_i)` on :math:`a_i \le z_i \le b_i`.

    Args:
        event_shape: The shape of one sample; an integer D stands for (D).
        low, high: a and b, finite, numbers or tensors that broadcast to event_shape.
        dtype: Of the samples; torch's default where None.

    Samples of (0, 1) never touch its ends; in other boxes rounding may. No parameter is learnable.

    Raises:
        ValueError: low is not below high, or a bound is not finite.

    Example:
        >>> base = hepops.flows.Uniform(2, low=-1.0)
        >>> base.draw(1, seed=1)
        tensor([[0.7805, 0.7894]])
        >>> base.log_prob(torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
        tensor([-1.3863,    -inf], dtype=torch.float64)
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        event_shape: int | Sequence[int],
        low: float | Tensor | Sequence[float] = 0.0,
        high: float | Tensor | Sequence[float] = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(event_shape, dtype)
        _, (a, b) = as_parameters("Uniform", self.event_shape, low=low, high=high)
        if not (a < b).all() or a.isinf().any() or b.isinf().any():
            raise ValueError(f"Uniform: low must be below high, both finite, got {low} and {high}")
        self._hold("low", a, False)
        self._hold("high", b, False)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        # in the dtype of the samples: a float64 number near 1 would round to 1 and leave the open interval
        u = self._uniform(n, seed, first, step, dtype=self.reference.dtype)
        return self.low + (self.high - self.low) * u

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        constant = -(self.high.double() - self.low.double()).log().sum()
        return self._supported(constant, z, (z < self.low) | (z > self.high))
