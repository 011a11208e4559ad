r"""From a column's own units to numbers of order 1 that a flow can learn, and back, with the derivative.

| kind     | x                | u                                                                                |
|----------|------------------|----------------------------------------------------------------------------------|
| real     | any              | :math:`(x - m) / s`                                                              |
| positive | x > 0            | :math:`(\ln x - m) / s`                                                          |
| bounded  | low < x < high   | :math:`(\ln\frac{x - low}{high - x} - m) / s`                                    |
| periodic | a circle         | :math:`2 \pi (x - low) / (high - low) - \pi`, wrapped into :math:`[-\pi, \pi)`   |
| integer  | whole numbers    | :math:`(x + v - m) / s`, v uniform in [-1/2, 1/2): dequantised                   |

m and s are mean and standard deviation over the data that are learnt from. The density of x is that of u times |du/dx|;
an integer column has a probability, the integral over its cell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..core import philox_uniform
from .weights import ordered_sum

KindName = Literal["real", "positive", "bounded", "periodic", "integer"]
Kind = KindName | tuple[KindName, float, float]
NOISE = 20  # purpose of the numbers that dequantise, as in flows.random


@dataclass(frozen=True)
class Column:
    """One column: what it is, and what was learnt of it."""

    name: str
    kind: KindName = "real"
    low: float = -math.inf
    high: float = math.inf
    mean: float = 0.0
    width: float = 1.0

    @property
    def periodic(self) -> bool:
        return self.kind == "periodic"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """u and ln |du/dx|, float64; NaN outside the column's domain."""
        if self.kind == "periodic":
            span = self.high - self.low
            u = torch.remainder((x - self.low) / span, 1.0) * (2 * math.pi) - math.pi
            return u, torch.full_like(x, math.log(2 * math.pi / span))
        if self.kind == "positive":
            t, slope = x.log(), -x.log()
        elif self.kind == "bounded":
            left, right = x - self.low, self.high - x
            t, slope = left.log() - right.log(), math.log(self.high - self.low) - left.log() - right.log()
        else:
            t, slope = x, torch.zeros_like(x)
        return (t - self.mean) / self.width, slope - math.log(self.width)

    def inverse(self, u: Tensor) -> Tensor:
        """x of u, inside the domain."""
        if self.kind == "periodic":
            return self.low + (self.high - self.low) * ((u + math.pi) / (2 * math.pi)).clamp(0, 1)
        t = u * self.width + self.mean
        if self.kind == "positive":
            return t.exp().clamp(torch.finfo(t.dtype).tiny, torch.finfo(t.dtype).max)
        if self.kind == "bounded":
            x = self.low + (self.high - self.low) * torch.sigmoid(t)
            return x.clamp(math.nextafter(self.low, self.high), math.nextafter(self.high, self.low))
        return t.round() if self.kind == "integer" else t

    def outside(self, x: Tensor) -> Tensor:
        """Where x is not of the column's domain: bool."""
        if self.kind == "positive":
            return ~(x > 0)
        if self.kind == "bounded":
            return ~((x > self.low) & (x < self.high))
        if self.kind == "integer":
            return x != x.round()
        return torch.zeros_like(x, dtype=torch.bool)

    def learnt(self, x: Tensor, v: Tensor | None) -> "Column":
        """The column with mean and width of these data, of weights v.

        Raises:
            ValueError: values outside the domain, with their count; a constant column.
        """
        bad = int(self.outside(x).sum())
        if bad:
            domain = {"positive": "not positive", "integer": "not whole numbers"}.get(
                self.kind, f"not inside ({self.low:g}, {self.high:g})"
            )
            raise ValueError(f"column {self.name}: {bad} of {len(x)} values are {domain}, which is {self.kind}")
        if float(x.min()) == float(x.max()):
            raise ValueError(f"column {self.name} is constant ({float(x[0]):g}): it has no density, leave it out")
        if self.periodic:
            return self
        t, _ = Column(self.name, self.kind, self.low, self.high).forward(x)
        v = torch.ones_like(t) if v is None else v
        v = v / v.max()
        # a power of two brings squares into the range of numbers and rounds nothing
        unit = math.ldexp(1.0, math.frexp(float(t.abs().max()))[1] - 1)
        t = t / unit
        mean = float(ordered_sum(v * t) / ordered_sum(v))
        variance = float(ordered_sum(v * (t - mean).square()) / ordered_sum(v))
        width = math.sqrt(variance) * unit
        if self.kind == "integer":
            width = math.hypot(width, math.sqrt(1 / 12))
        if not width > 0:
            raise ValueError(f"column {self.name} is constant where the weights are not 0")
        return Column(self.name, self.kind, self.low, self.high, mean * unit, width)


def make_columns(names: Sequence[str], kinds: Mapping[str, Kind] | None) -> list[Column]:
    """Columns of the kinds that were named, real ones for the rest.

    Example:
        >>> [c.kind for c in make_columns(["pt", "phi"], {"phi": ("periodic", -3.14159, 3.14159)})]
        ['real', 'periodic']

    Raises:
        ValueError: a name that is no column, another kind, bounds that are missing or in the wrong order.
    """
    kinds = kinds or {}
    foreign = [name for name in kinds if name not in names]
    if foreign:
        raise ValueError(f"kinds: no column {', '.join(foreign)} among {', '.join(names)}")
    return [_column(name, kinds.get(name, "real")) for name in names]


def _column(name: str, kind: Any) -> Column:
    word, *bounds = (kind,) if not isinstance(kind, (tuple, list)) else kind or (kind,)
    if word not in get_args(KindName):
        raise ValueError(f"kinds: column {name} must be one of {', '.join(get_args(KindName))}, got {kind!r}")
    if word not in ("bounded", "periodic"):
        if bounds:
            raise ValueError(f"kinds: column {name}, {word}, takes no bounds, got {kind!r}")
        return Column(name, word)
    numbers = len(bounds) == 2 and all(isinstance(b, (int, float)) and math.isfinite(b) for b in bounds)
    if not numbers or not bounds[0] < bounds[1]:
        raise ValueError(f"kinds: column {name} must be ({word!r}, low, high) with low < high, got {kind!r}")
    return Column(name, word, float(bounds[0]), float(bounds[1]))


def noise(rows: int, column: int, seed: int) -> Tensor:
    """What dequantises a column in training: uniform in (-1/2, 1/2), float64 (rows)."""
    return philox_uniform(torch.arange(rows), seed, column, NOISE, torch.float64)[:, 0] - 0.5


def cell_points(count: int, columns: int) -> Tensor:
    """Points of the cell [-1/2, 1/2)^columns, (count, columns): midpoints in one dimension, a lattice in more."""
    i = torch.arange(count, dtype=torch.float64)[:, None]
    golden = 1 / ((1 + math.sqrt(5)) / 2)
    step = torch.tensor([1 / count, *(math.fmod(golden * (k + 1), 1.0) for k in range(columns - 1))]).double()[:columns]
    return torch.remainder((i + 0.5) * step, 1.0) - 0.5
