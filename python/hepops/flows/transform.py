"""Bijections with their log-determinants, and how they compose."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .sums import event_sum


class Transform(nn.Module):
    r"""A bijection :math:`y = f(x)` that knows :math:`\ln |\det \partial y / \partial x|`.

    A call gives both, as does :meth:`inverse`, whose log-determinant is that of the inverse: the two are each other's
    negative at one point. In a :class:`Flow` a transform maps data to the base, as in nflows and zuko.

    The last `event_dim` dimensions of x make one event, all before them are batch. Log-determinants have the batch's
    shape and are float64 whatever the dtype of x: an event of 10^5 sites would lose four digits in float32. A transform
    of event_dim 0 acts on each number, with a log-determinant of the shape and dtype of x.

    Args of both directions:
        x (or y): shape (*batch, *event), float32 or float64.
        context: shape (*batch, C) or broadcast to it, for a transform that is conditioned; None for one that is not.
    """

    event_dim: int = 1

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    @property
    def inv(self) -> "Transform":
        """The transform of the other direction, with the same parameters."""
        return Inverse(self)

    def log_abs_det_jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The second of what a call gives."""
        return self(x, context)[1]


class Inverse(Transform):
    """A transform turned round."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform, self.event_dim = transform, transform.event_dim

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(y, context)

    @property
    def inv(self) -> Transform:
        return self.transform


class Compose(Transform):
    """Transforms one after the other: the first is the one that x meets first.

    Args:
        transforms: Any number of them, of any event_dim: that of the whole is the largest, and at least 1.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.event_dim = max([1, *(t.event_dim for t in transforms)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[: x.dim() - self.event_dim], dtype=torch.float64)
        for transform in self.transforms:
            x, logdet = transform(x, context)
            total = total + event_sum(logdet, self.event_dim - transform.event_dim)  # type: ignore[operator, arg-type]
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = y.new_zeros(y.shape[: y.dim() - self.event_dim], dtype=torch.float64)
        for transform in reversed(self.transforms):
            y, logdet = transform.inverse(y, context)  # type: ignore[operator]
            total = total + event_sum(logdet, self.event_dim - transform.event_dim)  # type: ignore[operator, arg-type]
        return y, total
