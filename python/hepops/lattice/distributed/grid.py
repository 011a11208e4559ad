"""How a lattice is cut into equal boxes, one for each rank."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..geometry import checked_shape


class Grid:
    """A lattice cut into equal boxes, one for each rank of a group; the last direction's neighbours are next in rank.

    Args:
        shape: Extents of the whole lattice, (L_1, ..., L_D).
        ranks: Boxes in each direction: their product is the size of the group.
        group: Ranks that share the lattice, gloo or NCCL; None is the default group (one rank where there is none).

    Attributes:
        local_shape: Extents of a box.
        origin: Coordinates of this rank's first site.
        rank, size: This rank in the group, and how many there are.

    Raises:
        ValueError: the boxes do not divide the lattice, or their number is not the group's.

    Example:
        >>> grid = hepops.lattice.distributed.Grid((8, 8), (1, 1))  # one rank: all is local
        >>> grid.local_shape, grid.origin
        (torch.Size([8, 8]), (0, 0))
    """

    def __init__(self, shape: Sequence[int], ranks: Sequence[int], group: "dist.ProcessGroup | None" = None) -> None:
        self.shape = checked_shape("Grid", shape)
        self.ranks = checked_shape("Grid: ranks", ranks)
        if len(self.ranks) != len(self.shape):
            raise ValueError(f"Grid: ranks must hold {len(self.shape)} numbers, got {tuple(ranks)}")
        if any(L % n for L, n in zip(self.shape, self.ranks, strict=True)):
            raise ValueError(f"Grid: ranks {tuple(ranks)} do not divide the lattice {tuple(shape)}")
        self.group = group
        alone = not dist.is_available() or not dist.is_initialized()
        self.size = 1 if alone else dist.get_world_size(group)
        self.rank = 0 if alone else dist.get_rank(group)
        if math.prod(self.ranks) != self.size:
            raise ValueError(f"Grid: ranks {tuple(ranks)} must be {self.size} in all, as the group has")
        self.local_shape = torch.Size([L // n for L, n in zip(self.shape, self.ranks, strict=True)])
        self.position = tuple(int(i) for i in torch.unravel_index(torch.tensor(self.rank), self.ranks))
        self.origin = tuple(i * L for i, L in zip(self.position, self.local_shape, strict=True))

    @property
    def dims(self) -> int:
        return len(self.shape)

    def neighbour(self, mu: int, step: int) -> int:
        """The rank, within the group, of the box `step` boxes further in direction mu."""
        position = list(self.position)
        position[mu] = (position[mu] + step) % self.ranks[mu]
        rank = 0
        for i, n in zip(position, self.ranks, strict=True):
            rank = rank * n + i
        return rank

    def global_rank(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def axis(self, x: Tensor, mu: int, behind: int = 0) -> int:
        """The dimension of x that is direction mu, where `behind` dimensions follow those of the lattice."""
        return x.dim() - behind - self.dims + mu

    def sites(self, device: torch.device | str | None = None, pad: int = 0) -> Tensor:
        """Numbers of this box's sites in the whole lattice, shape `local_shape`; with a margin of `pad` sites."""
        number = torch.zeros((), dtype=torch.int64, device=device)
        for first, length, extent in zip(self.origin, self.local_shape, self.shape, strict=True):
            x = torch.arange(first - pad, first + length + pad, device=device) % extent
            number = number[..., None] * extent + x
        return number

    def local(self, field: Tensor, behind: int = 0) -> Tensor:
        """This rank's box of a field on the whole lattice, contiguous.

        Raises:
            ValueError: the field has other extents.
        """
        start = self.axis(field, 0, behind)
        if start < 0 or field.shape[start : start + self.dims] != self.shape:
            raise ValueError(f"Grid: field must live on {tuple(self.shape)}, got shape {tuple(field.shape)}")
        for mu, (first, length) in enumerate(zip(self.origin, self.local_shape, strict=True)):
            field = field.narrow(start + mu, first, length)
        return field.contiguous()

    def whole(self, field: Tensor, behind: int = 0) -> Tensor:
        """The field on the whole lattice, on every rank, from the boxes of all; without a graph."""
        if self.size == 1:
            return field.detach()
        boxes = self._gather(field.detach())
        start = self.axis(field, 0, behind)
        whole = field.new_empty([*field.shape[:start], *self.shape, *field.shape[start + self.dims :]])
        for rank, box in enumerate(boxes):
            part = whole
            for mu, i in enumerate(torch.unravel_index(torch.tensor(rank), self.ranks)):
                part = part.narrow(start + mu, int(i) * self.local_shape[mu], self.local_shape[mu])
            part.copy_(box)
        return whole

    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all ranks, in double and in their order: the same bits on every rank.

        Its backward hands the gradient of what all ranks compute alike to each: that of the rank's own part.
        """
        return x if self.size == 1 else _Sum.apply(x, self)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of parameters that all ranks share, in one flat bucket, in double and in rank order.

        Call it between `backward()` and the optimiser's step.
        """
        if self.size == 1:
            return
        held = [p for p in parameters if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().double() for p in held])
        total = _ordered(self._gather(flat))
        for p, part in zip(held, total.split([p.numel() for p in held]), strict=True):
            p.grad = part.view_as(p).to(p.dtype)

    def _gather(self, x: Tensor) -> list[Tensor]:
        """x of every rank."""
        plain = (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).contiguous()
        parts = [torch.empty_like(plain) for _ in range(self.size)]
        dist.all_gather(parts, plain, self.group)
        return [torch.view_as_complex(p) for p in parts] if x.is_complex() else parts


def _ordered(parts: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(parts[0], dtype=torch.float64)
    for part in parts:
        total = total + part
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        return _ordered(grid._gather(x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
