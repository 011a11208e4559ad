"""Distributions made of distributions: mixtures, and independent blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import random
from .base import Base, child_seed


class Mixture(Base):
    r"""One of several distributions, by chance: :math:`q(z) = \sum_k w_k q_k(z)`.

    Sample i takes a uniform number for its component, and every component makes its sample i, of which one is taken:
    nothing is read back from a GPU, and the cost is that of all components.

    Args:
        components: Bases of one event shape, one or more.
        weights: w, non-negative, any positive sum; equal where None.
        learnable: Whether ln w are parameters. The density is differentiable in them; samples are not, only in the
            parameters of the components.

    Raises:
        ValueError: There is no component, event shapes differ, or weights do not fit, are negative or not finite.

    Example:
        >>> narrow, wide = hepops.flows.DiagonalNormal(0.0, 0.1, 2), hepops.flows.DiagonalNormal(0.0, 10.0, 2)
        >>> base = hepops.flows.Mixture([narrow, wide], weights=[3, 1])
        >>> base.draw(2, seed=1).shape
        torch.Size([2, 2])
    """

    log_weights: Tensor

    def __init__(
        self, components: Sequence[Base], weights: Tensor | Sequence[float] | None = None, *, learnable: bool = False
    ) -> None:
        if not components:
            raise ValueError("Mixture: components must not be empty")
        shapes = [tuple(c.event_shape) for c in components]
        if len(set(shapes)) > 1:
            raise ValueError(f"Mixture: components must have one event shape, got {shapes}")
        w = torch.as_tensor([1.0] * len(components) if weights is None else weights, dtype=torch.float64)
        if w.shape != (len(components),) or not ((w >= 0) & w.isfinite()).all() or not w.sum() > 0:
            raise ValueError(f"Mixture: weights must be {len(components)} non-negative numbers, got {weights}")
        if learnable and not (w > 0).all():
            raise ValueError(f"Mixture: learnable weights must be positive, got {weights}")
        super().__init__(components[0].event_shape, components[0].reference.dtype)
        self.components = nn.ModuleList(components)
        log_weights = (w / w.sum()).log()
        if learnable:
            self.register_parameter("log_weights", nn.Parameter(log_weights))
        else:
            self.register_buffer("log_weights", log_weights)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        u = self._uniform(n, seed, first, step, 1, random.PICK)
        edges = self.log_weights.detach().double().softmax(-1).cumsum(-1)[:-1]
        pick = (u > edges).sum(-1).reshape(n, *[1] * len(self.event_shape))
        z = torch.empty(0)
        for k, component in enumerate(self.components):
            part = component.draw(n, child_seed(seed, k), first, step)  # type: ignore[operator]
            z = part if k == 0 else torch.where(pick == k, part, z)
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        each = torch.stack([c.log_prob(z) for c in self.components], -1)  # type: ignore[operator]
        return (each + self.log_weights.double().log_softmax(-1)).logsumexp(-1)


class Product(Base):
    r"""Independent blocks side by side: :math:`q(z) = \prod_k q_k(z_k)`, z the blocks along the last dimension.

    Args:
        blocks: Bases with events of one dimension, one or more.

    Each block draws from its own stream, of a seed that is derived from its place. Differentiable as the blocks are.

    Raises:
        ValueError: There is no block, or the events of one have other than one dimension.

    Example:
        >>> base = hepops.flows.Product([hepops.flows.Normal(2), hepops.flows.VonMises(0.0, 1.0, 1)])
        >>> base.event_shape
        torch.Size([3])
    """

    def __init__(self, blocks: Sequence[Base]) -> None:
        if not blocks:
            raise ValueError("Product: blocks must not be empty")
        shapes = [tuple(b.event_shape) for b in blocks]
        if any(len(shape) != 1 for shape in shapes):
            raise ValueError(f"Product: events of the blocks must have one dimension, got shapes {shapes}")
        super().__init__(sum(shape[0] for shape in shapes), blocks[0].reference.dtype)
        self.blocks = nn.ModuleList(blocks)
        self.sizes = [shape[0] for shape in shapes]

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        parts = [
            block.draw(n, child_seed(seed, k), first, step)  # type: ignore[operator]
            for k, block in enumerate(self.blocks)
        ]
        return torch.cat(parts, -1)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        parts = z.split(self.sizes, -1)
        each = [block.log_prob(part) for block, part in zip(self.blocks, parts, strict=True)]  # type: ignore[operator]
        return torch.stack(each).sum(0)
