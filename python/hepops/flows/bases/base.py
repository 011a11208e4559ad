"""What every base distribution is: events of one shape, drawn by number, with a log density in float64."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import random


class Base(nn.Module):
    """A distribution of events of `event_shape`, that is drawn from by number.

    Subclasses write `draw` and `log_prob`. Sample i of a seed is the same numbers in every batch, on every device and
    rank, and takes a fixed count of random numbers.

    Args:
        event_shape: The shape of one sample; an integer D stands for (D).
        dtype: Of the samples, float32 or float64; torch's default where None. `.to(...)` changes it, and the device.

    Raises:
        ValueError: A size is below 1, or the dtype is another.
    """

    reference: Tensor

    def __init__(self, event_shape: int | Sequence[int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        self.event_shape = torch.Size([event_shape] if isinstance(event_shape, int) else event_shape)
        if any(size < 1 for size in self.event_shape):
            raise ValueError(f"{name}: event_shape must have positive sizes, got {tuple(self.event_shape)}")
        dtype = dtype or torch.get_default_dtype()
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name}: dtype must be float32 or float64, got {dtype}")
        # where the samples are made and in which dtype; moves with the module
        self.register_buffer("reference", torch.zeros((), dtype=dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the samples."""
        return self.reference.dtype

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        """Samples first ... first + n - 1, shape (n, *event_shape).

        Args:
            n: How many, 0 or more.
            seed: In [0, 2^64).
            first: The number of the first sample: a rank or a batch takes its own range of one stream.
            step: A further name, in [0, 2^32).

        Raises:
            ValueError: n or first is negative; seed or step out of range.
        """
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density, float64, shape (*batch); -inf outside the support, NaN where z is NaN.

        Raises:
            ValueError: The last dimensions of z are not event_shape.
        """
        raise NotImplementedError

    def _uniform(
        self,
        n: int,
        seed: int,
        first: int,
        step: int,
        numbers: int | None = None,
        purpose: int = random.BASE,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Uniform numbers in (0, 1), shape (n, numbers), or (n, *event_shape)."""
        return self._named(random.uniform, n, seed, first, step, numbers, purpose, dtype)

    def _normal(
        self,
        n: int,
        seed: int,
        first: int,
        step: int,
        numbers: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Normal numbers, shape (n, numbers), or (n, *event_shape)."""
        return self._named(random.normal, n, seed, first, step, numbers, random.BASE, dtype)

    def _named(  # type: ignore[no-untyped-def]
        self, draw, n: int, seed: int, first: int, step: int, numbers: int | None, purpose: int, dtype: torch.dtype
    ) -> Tensor:
        name = type(self).__name__
        if n < 0 or first < 0:
            raise ValueError(f"{name}: n and first must not be negative, got {n} and {first}")
        count = self.event_shape.numel() if numbers is None else numbers
        shape = self.event_shape if numbers is None else torch.Size([numbers])
        if n == 0:
            return torch.empty(0, *shape, dtype=dtype, device=self.reference.device)
        device = self.reference.device
        z = draw(n, count, seed, first=first, step=step, purpose=purpose, dtype=dtype, device=device)
        return z.reshape(n, *shape)

    def _check(self, z: Tensor) -> None:
        d = len(self.event_shape)
        if z.dim() < d or z.shape[z.dim() - d :] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"{type(self).__name__}: z must have shape (..., {expected}), got {tuple(z.shape)}")

    def _any(self, condition: Tensor) -> Tensor:
        """Whether a condition on the numbers of an event holds for any of them."""
        d = len(self.event_shape)
        return condition.flatten(-d).any(-1) if d else condition

    def _supported(self, value: Tensor | float, z: Tensor, outside: Tensor) -> Tensor:
        """`value`, but -inf where a number of the event is outside of the support, and NaN where one is NaN."""
        empty = z.new_full((), -math.inf, dtype=torch.float64)
        result = torch.where(self._any(outside), empty, value)
        return torch.where(self._any(z.isnan()), empty * 0, result)


def child_seed(seed: int, k: int) -> int:
    """A seed for the k-th part of a distribution, whose numbers are independent of the other parts'.

    The finaliser of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014, doi:10.1145/2660193.2660195).
    """
    mask = (1 << 64) - 1
    if not 0 <= seed <= mask:
        raise ValueError(f"seed must be in [0, 2^64), got {seed}")
    x = (seed + (k + 1) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


class Parametrised(Base):
    """A base with parameters that broadcast to the event and can be learned.

    `_hold(name, value, learnable)` makes a parameter, or a buffer that a state dict keeps.
    """

    def _hold(self, name: str, value: Tensor, learnable: bool) -> None:
        value = value.to(self.reference.dtype).clone()
        if learnable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)


def as_parameters(
    owner: str, event_shape: int | Sequence[int] | None, **values: float | Tensor | Sequence[float]
) -> tuple[torch.Size, list[Tensor]]:
    """The event shape that the values broadcast to, and the values in float64, expanded to it; NaN is refused."""
    tensors = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in values.items()}
    if isinstance(event_shape, int):
        event_shape = (event_shape,)
    shapes = [t.shape for t in tensors.values()]
    try:
        shape = torch.broadcast_shapes(*shapes) if event_shape is None else torch.Size(event_shape)
        expanded = [t.expand(shape) for t in tensors.values()]
    except RuntimeError:
        got = ", ".join(f"{k} {tuple(t.shape)}" for k, t in tensors.items())
        wanted = "each other" if event_shape is None else f"event_shape {tuple(event_shape)}"
        raise ValueError(f"{owner}: parameters must broadcast to {wanted}, got {got}") from None
    for name, t in tensors.items():
        if t.isnan().any():
            raise ValueError(f"{owner}: {name} must not be NaN, got {t.tolist()}")
    return shape, expanded
