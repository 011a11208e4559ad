"""Bijections that no network sets: squashings to a domain, fixed or learned shifts and scales, angles."""

import math

import torch
from torch import Tensor, nn

from .squash import Kind, squash
from .sums import event_sum
from .transform import Transform


class _Squash(Transform):
    """A bijection of single numbers: the log-determinants have the shape and dtype of x."""

    event_dim = 0
    kind: Kind

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return squash(x, self.kind)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return squash(y, self.kind, inverse=True)


class Softplus(_Squash):
    """y = ln(1 + e^x), the real line to (0, infinity)."""

    kind = "softplus"


class Tanh(_Squash):
    """y = tanh x, the real line to (-1, 1)."""

    kind = "tanh"


class Sigmoid(_Squash):
    """y = 1 / (1 + e^-x), the real line to (0, 1)."""

    kind = "sigmoid"


class Logit(Transform):
    """y = ln(x / (1 - x)), (0, 1) to the real line; 0 and 1 become infinite, what is outside NaN."""

    event_dim = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return squash(x, "sigmoid", inverse=True)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return squash(y, "sigmoid")


class AffineFixed(Transform):
    """y = x scale + shift, with numbers of their own for each feature.

    Args:
        shift: A number, or shape (D).
        scale: Positive, likewise.
        learned: Whether they are parameters (the logarithm of the scale is).
    """

    shift: Tensor
    log_scale: Tensor

    def __init__(self, shift: float | Tensor = 0.0, scale: float | Tensor = 1.0, learned: bool = False) -> None:
        super().__init__()
        shift, scale = (torch.as_tensor(v, dtype=_dtype(v)) for v in (shift, scale))
        name = type(self).__name__
        if shift.dim() > 1 or scale.dim() > 1:
            raise ValueError(
                f"{name}: shift and scale must be numbers or of shape (D), "
                f"got shapes {tuple(shift.shape)} and {tuple(scale.shape)}"
            )
        if not (scale.isfinite() & (scale > 0)).all():
            raise ValueError(f"{name}: scale must be positive and finite, got {scale.tolist()}")
        if not shift.isfinite().all():
            raise ValueError(f"{name}: shift must be finite, got {shift.tolist()}")
        wide_shift, wide_scale = torch.broadcast_tensors(shift, scale)
        for key, value in (("shift", wide_shift.clone()), ("log_scale", wide_scale.log())):
            if learned:
                self.register_parameter(key, nn.Parameter(value))
            else:
                self.register_buffer(key, value)

    def _logdet(self, x: Tensor) -> Tensor:
        return event_sum(self.log_scale.expand(x.shape[-1:]), 1).expand(x.shape[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp().to(x.dtype) + self.shift.to(x.dtype), self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.shift.to(y.dtype)) * (-self.log_scale).exp().to(y.dtype), -self._logdet(y)


class Standardise(AffineFixed):
    """y = (x - mean) / std of each feature of a sample: what a flow should be given.

    Args:
        sample: Shape (..., D), at least two events. A feature that does not vary is refused.
    """

    def __init__(self, sample: Tensor) -> None:
        rows = sample.detach().reshape(-1, sample.shape[-1]).to(torch.float64)
        if len(rows) < 2:
            raise ValueError(f"Standardise: sample must hold at least two events, got shape {tuple(sample.shape)}")
        std, mean = torch.std_mean(rows, 0)
        bad = ~(std.isfinite() & (std > 0))
        if bad.any():
            raise ValueError(
                f"Standardise: features {bad.nonzero()[:, 0].tolist()} do not vary or are not finite, "
                f"got standard deviations {std[bad].tolist()}"
            )
        super().__init__((-mean / std).to(sample.dtype), (1 / std).to(sample.dtype))


class Wrap(Transform):
    """Angles to [low, low + period), with a log-determinant of 0.

    A bijection of the circle alone: numbers that differ by the period become one.
    """

    event_dim = 0

    def __init__(self, low: float = -math.pi, period: float = 2 * math.pi) -> None:
        super().__init__()
        if not (0 < period < math.inf):
            raise ValueError(f"Wrap: period must be positive and finite, got {period}")
        if not math.isfinite(low):
            raise ValueError(f"Wrap: low must be finite, got {low}")
        self.low, self.period = low, period

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # a shift by whole periods, so that what is inside keeps its bits
        return x - self.period * ((x.detach() - self.low) / self.period).floor(), torch.zeros_like(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y)


def _dtype(value: float | Tensor) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) and value.is_floating_point() else torch.get_default_dtype()
