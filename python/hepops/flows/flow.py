"""A distribution made of a base and a transform."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import random
from .bases import Base
from .transform import Transform


class Flow(nn.Module):
    r"""The distribution of :math:`x = f^{-1}(z)`, z from the base: :math:`\ln q(x) = \ln p(f(x)) + \ln |\det f'|`.

    Args:
        transform: :math:`f`, from data to the base (`transform.inv` for one written the other way).
        base: The distribution of z.
    """

    def __init__(self, transform: Transform, base: Base) -> None:
        super().__init__()
        self.transform, self.base = transform, base

    @property
    def event_shape(self) -> torch.Size:
        return self.base.event_shape

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density, float64, shape (*batch)."""
        z, logdet = self.transform(x, context)
        return self.base.log_prob(z) + logdet

    def rsample_and_log_prob(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        first: int = 0,
        step: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Samples, differentiable in the parameters, and their log density.

        Args:
            shape: How many: x has shape (*shape, *context.shape[:-1], *event_shape).
            context: Shape (*batch, C).
            seed: In [0, 2^64); drawn from torch's generator where None.
            first: The number of the first sample: a rank or a batch takes its own range of one stream.
            step: A further name, for a stream per training step.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if context is not None:
            context = context.expand(*shape, *context.shape)
            shape = context.shape[:-1]
        z = self.base.draw(math.prod(shape), random.fresh_seed() if seed is None else seed, first, step)
        z = z.reshape(*shape, *self.event_shape)
        x, logdet = self.transform.inverse(z, context)
        return x, self.base.log_prob(z) - logdet
