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
    """y = ln(1 + e^x), the real line to (0, infinity).

    Example:
        >>> hepops.flows.Softplus()(torch.tensor([0.0]))
        (tensor([0.6931]), tensor([-0.6931]))
    """

    kind = "softplus"


class Tanh(_Squash):
    """y = tanh x, the real line to (-1, 1).

    Example:
        >>> hepops.flows.Tanh()(torch.tensor([0.0]))
        (tensor([0.]), tensor([0.]))
    """

    kind = "tanh"


class Sigmoid(_Squash):
    """y = 1 / (1 + e^-x), the real line to (0, 1).

    Example:
        >>> hepops.flows.Sigmoid()(torch.tensor([0.0]))
        (tensor([0.5000]), tensor([-1.3863]))
    """

    kind = "sigmoid"


class Logit(Transform):
    """y = ln(x / (1 - x)), (0, 1) to the real line; 0 and 1 become infinite, what is outside NaN.

    Example:
        >>> hepops.flows.Logit()(torch.tensor([0.5]))
        (tensor([0.]), tensor([1.3863]))
    """

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

    Example:
        >>> hepops.flows.AffineFixed(shift=1.0, scale=2.0)(torch.tensor([[1.0, 2.0]]))
        (tensor([[3., 5.]]), tensor([1.3863], dtype=torch.float64))
    """

    shift: Tensor
    log_scale: Tensor

    def __init__(self, shift: float | Tensor = 0.0, scale: float | Tensor = 1.0, learned: bool = False) -> None:
        super().__init__()
        a, b = torch.as_tensor(shift, dtype=_dtype(shift)), torch.as_tensor(scale, dtype=_dtype(scale))
        name = type(self).__name__
        if a.dim() > 1 or b.dim() > 1:
            raise ValueError(
                f"{name}: shift and scale must be numbers or of shape (D), "
                f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
            )
        if not (b.isfinite() & (b > 0)).all():
            raise ValueError(f"{name}: scale must be positive and finite, got {b.tolist()}")
        if not a.isfinite().all():
            raise ValueError(f"{name}: shift must be finite, got {a.tolist()}")
        a, b = torch.broadcast_tensors(a, b)
        for key, value in (("shift", a.clone()), ("log_scale", b.log())):
            if learned:
                self.register_parameter(key, nn.Parameter(value))
            else:
                self.register_buffer(key, value)

    def _logdet(self, x: Tensor) -> Tensor:
        return event_sum(self.log_scale.expand(x.shape[-1:]), 1).expand(x.shape[:-1])

    def _scale(self, x: Tensor) -> Tensor:
        """In the wider of the two dtypes, so that it is that of the log-determinant."""
        return self.log_scale.to(torch.promote_types(x.dtype, self.log_scale.dtype)).exp().to(x.dtype)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self._scale(x) + self.shift.to(x.dtype), self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.shift.to(y.dtype)) / self._scale(y), -self._logdet(y)


class Standardise(AffineFixed):
    """y = (x - mean) / std of each feature of a sample: what a flow should be given.

    Args:
        sample: Shape (..., D), at least two events. A feature that does not vary is refused.

    Example:
        >>> hepops.flows.Standardise(torch.tensor([[1.0], [2.0], [3.0]]))(torch.tensor([[3.0]]))[0]
        tensor([[1.]])
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

    Example:
        >>> hepops.flows.Wrap()(torch.tensor([4.0]))
        (tensor([-2.2832]), tensor([0.]))
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
