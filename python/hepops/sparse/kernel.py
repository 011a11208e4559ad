"""The shape of a kernel: which neighbours it sees, and in which order their weights lie."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["box", "cross", "custom"]
Size = int | Sequence[int]


def per_axis(name: str, value: int | Sequence[int] | Tensor, dimension: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each of `dimension` axes.

    Raises:
        TypeError: a value is no integer.
        ValueError: there are not `dimension` of them, or one is below `least`.
    """
    if isinstance(value, Tensor):
        value = value.tolist()
    values = list(value) if isinstance(value, Iterable) else [value] * dimension
    if len(values) == 1:
        values = values * dimension
    if len(values) != dimension:
        raise ValueError(f"{name} must be one number or {dimension}, got {value!r}")
    if any(isinstance(v, bool) or int(v) != v for v in values):
        raise TypeError(f"{name} must be integer, got {value!r}")
    if any(v < least for v in values):
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return tuple(int(v) for v in values)


@dataclass(frozen=True)
class Kernel:
    r"""A set of offsets :math:`\delta_k`, in the order of the weights.

    * ``box``: every :math:`(i_1, \dots, i_D)` with the FIRST axis fastest, :math:`k = i_1 + n_1 (i_2 + n_2 (\dots))`;
      an odd size is centred, :math:`\delta_a = (i_a - \lfloor n_a / 2 \rfloor)\, d_a`, an even one is not,
      :math:`\delta_a = i_a d_a`;
    * ``cross``: the centre, then along each axis :math:`+1 \dots +r, -r \dots -1` with :math:`r = (n_a - 1) / 2`;
    * ``custom``: `offsets` as given, times the dilation.

    Args:
        size: extent per axis [voxels of the input's stride]; ignored for ``custom``.
        dilation: spacing per axis.
        shape: "box", "cross" or "custom".
        offsets: (K, D) for ``custom``.

    Raises:
        ValueError: a size or dilation below 1, a cross of even size, or offsets of the wrong shape.

    References:
        C. Choy, J. Gwak, S. Savarese, 4D Spatio-Temporal ConvNets, CVPR 2019 (order of the weights)

    Example:
        >>> Kernel((3, 1)).offsets()
        ((-1, 0), (0, 0), (1, 0))
    """

    size: tuple[int, ...]
    dilation: tuple[int, ...] = ()
    shape: Shape = "box"
    custom: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.shape not in ("box", "cross", "custom"):
            raise ValueError(f"shape must be 'box', 'cross' or 'custom', got {self.shape!r}")
        D = len(self.size)
        object.__setattr__(self, "size", per_axis("kernel_size", self.size, D))
        object.__setattr__(self, "dilation", per_axis("dilation", self.dilation or 1, D))
        if self.shape == "cross" and any(n % 2 == 0 for n in self.size):
            raise ValueError(f"kernel_size of a cross must be odd, got {self.size}")

    @staticmethod
    def of(
        size: Size,
        dimension: int,
        dilation: Size = 1,
        shape: Shape = "box",
        offsets: Tensor | Sequence[Sequence[int]] | None = None,
    ) -> Kernel:
        """A kernel in `dimension` dimensions, sizes given as one number or one per axis."""
        if offsets is None:
            size = per_axis("kernel_size", size, dimension)
            return Kernel(size, per_axis("dilation", dilation, dimension), shape)
        rows = offsets.tolist() if isinstance(offsets, Tensor) else [list(row) for row in offsets]
        if not rows or any(len(row) != dimension for row in rows):
            raise ValueError(f"offsets must be (K, {dimension}) with K > 0, got {len(rows)} rows")
        if any(int(x) != x for row in rows for x in row):
            raise TypeError("offsets must be integer")
        rows = [[int(x) for x in row] for row in rows]
        reach = tuple(2 * max(abs(row[a]) for row in rows) + 1 for a in range(dimension))
        return Kernel(reach, per_axis("dilation", dilation, dimension), "custom", tuple(tuple(row) for row in rows))

    @property
    def dimension(self) -> int:
        return len(self.size)

    @functools.cached_property
    def volume(self) -> int:
        """K, the number of offsets."""
        if self.shape == "custom":
            return len(self.custom)
        if self.shape == "cross":
            return 1 + sum(n - 1 for n in self.size)
        volume = 1
        for n in self.size:
            volume *= n
        return volume

    def offsets(self) -> tuple[tuple[int, ...], ...]:
        """The K offsets as tuples [voxels of the input's stride]."""
        return tuple(map(tuple, self.table().tolist()))

    def table(self, stride: Sequence[int] | None = None) -> Tensor:
        """The offsets in voxels for an input of this stride, int64 (K, D)."""
        return _table(self) * torch.tensor(stride if stride is not None else [1] * self.dimension)

    @functools.cached_property
    def is_symmetric(self) -> bool:
        """Whether offset K-1-k is the opposite of offset k, so that one list serves both directions."""
        if self.shape == "box":
            return all(n % 2 for n in self.size)
        table = _table(self)
        return bool((table == -table.flip(0)).all())

    @property
    def is_point(self) -> bool:
        """Whether the kernel sees the voxel itself and nothing else."""
        return self.volume == 1 and not _table(self).any()


@functools.lru_cache(maxsize=256)
def _table(kernel: Kernel) -> Tensor:
    D, dilation = kernel.dimension, torch.tensor(kernel.dilation)
    if kernel.shape == "custom":
        return torch.tensor(kernel.custom, dtype=torch.int64).reshape(-1, D) * dilation
    if kernel.shape == "cross":
        rows = [[0] * D]
        for a, n in enumerate(kernel.size):
            r = n // 2
            for step in itertools.chain(range(1, r + 1), range(-r, 0)):
                rows.append([step if b == a else 0 for b in range(D)])
        return torch.tensor(rows, dtype=torch.int64) * dilation
    axes = [torch.arange(n) - (n // 2 if n % 2 else 0) for n in kernel.size]
    grid = torch.meshgrid(*reversed(axes), indexing="ij")  # the last axis slowest, so the first one fastest
    return torch.stack([g.reshape(-1) for g in reversed(grid)], 1) * dilation
