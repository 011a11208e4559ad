r"""Which links a coupling changes, and which loops around them stay as they are.

Links are numbered :math:`\mu V + x`, x the site in row-major order. A mask makes links of one direction active, no two
of them in one plaquette. A loop is frozen where no active link is on it: only frozen loops may reach a network.

| mask       | active links                                      | layers that change every link |
|------------|---------------------------------------------------|-------------------------------|
| `lines`    | :math:`(\mu, x)` with :math:`x_\nu = o` modulo 4  | 4 D                           |
| `parity`   | :math:`(\mu, x)` with :math:`\sum x = p` modulo 2 | 2 D                           |

`lines` is for two dimensions, where :math:`\nu` is the other direction. Of four rows of plaquettes one is active, one
passive (the other plaquette of each active link) and two are frozen. `parity` serves any dimension: of the
:math:`2 (D - 1)` plaquettes of an active link one, or their sum, is active and the others are passive; those of planes
without :math:`\mu` are frozen. In two dimensions no plaquette is frozen then, but the loops of two staples are.

References:
    | G. Kanwar et al., Phys. Rev. Lett. 125 (2020) 121601, arXiv:2003.06413
    | D. Boyda et al., Phys. Rev. D 103 (2021) 074504, arXiv:2008.05456
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..geometry import checked_shape

Path = tuple[int, ...]  # steps: mu + 1 along direction mu, -(mu + 1) against it
Pattern = Literal["lines", "parity"]


@dataclass(frozen=True)
class Mask:
    """The active links: those of direction `mu` that start at the sites (n, D)."""

    shape: torch.Size
    mu: int
    sites: Tensor
    pattern: Pattern
    residue: int  # o or p

    @property
    def links(self) -> Tensor:
        """Numbers of the active links, (n)."""
        return numbered(self.shape, self.mu, self.sites)

    def active(self) -> Tensor:
        """Whether a link is active, (D, L...)."""
        flags = torch.zeros(len(self.shape) * self.shape.numel(), dtype=torch.bool)
        flags[self.links] = True
        return flags.view(-1, *self.shape)

    def frozen(self, starts: Tensor, path: Path) -> Tensor:
        """Whether no active link is on the path from each of the sites (n, D): bool, (n)."""
        return ~self.active().flatten()[walk(self.shape, starts, path)].any(1)

    def __str__(self) -> str:
        return f"{self.pattern}(mu={self.mu}, {self.residue})"


def lines(shape: Sequence[int], mu: int, offset: int) -> Mask:
    r"""Active links :math:`(\mu, x)` with :math:`x_\nu = o` modulo 4, in two dimensions.

    Args:
        shape: (L_0, L_1); the extent across the links must be a multiple of 4.
        mu: 0 or 1.
        offset: o, 0 to 3.

    Raises:
        ValueError: another number of dimensions, an extent that 4 does not divide, mu or the offset out of range.

    Example:
        >>> mask = hepops.lattice.flows.lines((4, 4), mu=0, offset=1)
        >>> mask.active()[0].int()
        tensor([[0, 1, 0, 0],
                [0, 1, 0, 0],
                [0, 1, 0, 0],
                [0, 1, 0, 0]], dtype=torch.int32)
    """
    shape = checked_shape("lines", shape)
    if len(shape) != 2:
        raise ValueError(f"lines: shape must hold 2 extents, got {tuple(shape)}")
    _check_range("lines", mu=(mu, 2), offset=(offset, 4))
    nu = 1 - mu
    if shape[nu] % 4:
        raise ValueError(
            f"lines: the extent across the links must be a multiple of 4, got {shape[nu]} of {_text(shape)}"
        )
    x = coordinates(shape)
    return Mask(shape, mu, x[x[:, nu] % 4 == offset], "lines", offset)


def parity(shape: Sequence[int], mu: int, parity: int) -> Mask:
    r"""Active links :math:`(\mu, x)` with :math:`\sum_\nu x_\nu = p` modulo 2, in 2, 3 or 4 dimensions.

    Args:
        shape: (L_1, ..., L_D), all even; an extent of 2 is legal.
        mu: Direction of the links.
        parity: p, 0 or 1.

    Raises:
        ValueError: another number of dimensions, an odd extent, mu or parity out of range.

    Example:
        >>> hepops.lattice.flows.parity((2, 4), mu=1, parity=0).active()[1].int()
        tensor([[1, 0, 1, 0],
                [0, 1, 0, 1]], dtype=torch.int32)
    """
    shape = checked_shape("parity", shape)
    if len(shape) < 2:
        raise ValueError(f"parity: shape must hold 2 to 4 extents, got {_text(shape)}")
    _check_range("parity", mu=(mu, len(shape)), parity=(parity, 2))
    if any(extent % 2 for extent in shape):
        raise ValueError(f"parity: all extents must be even, got {_text(shape)}")
    x = coordinates(shape)
    return Mask(shape, mu, x[x.sum(1) % 2 == parity], "parity", parity)


def sweep(shape: Sequence[int], pattern: Pattern) -> list[Mask]:
    """Masks that change every link once: lines of mu = 0 at 0 and 2, of mu = 1 likewise, then those at 1 and 3; or both
    parities of each direction.

    Raises:
        ValueError: as `lines` and `parity`, or another pattern.

    Example:
        >>> [str(mask) for mask in hepops.lattice.flows.sweep((4, 4), "parity")]
        ['parity(mu=0, 0)', 'parity(mu=1, 0)', 'parity(mu=0, 1)', 'parity(mu=1, 1)']
    """
    if pattern == "lines":
        return [lines(shape, mu, offset) for odd in (0, 1) for mu in (0, 1) for offset in (odd, odd + 2)]
    if pattern == "parity":
        return [parity(shape, mu, p) for p in (0, 1) for mu in range(len(shape))]
    raise ValueError(f"sweep: pattern must be 'lines' or 'parity', got {pattern!r}")


def coordinates(shape: Sequence[int]) -> Tensor:
    """All sites in row-major order, (V, D)."""
    return torch.cartesian_prod(*(torch.arange(extent) for extent in shape)).view(-1, len(shape))


def numbered(shape: Sequence[int], mu: int, sites: Tensor) -> Tensor:
    """Numbers of the links (mu, x), x of shape (..., D)."""
    number = torch.zeros_like(sites[..., 0])
    for extent, x in zip(shape, sites.unbind(-1), strict=True):
        number = number * extent + x % extent
    return mu * torch.Size(shape).numel() + number


def walk(shape: Sequence[int], starts: Tensor, path: Path) -> Tensor:
    """Numbers of the links on the path from each start (n, D): (n, steps). A step against a direction takes the link
    that ends where it begins."""
    x, links = starts.clone(), []
    for step in path:
        mu = abs(step) - 1
        if step < 0:
            x[:, mu] -= 1
        links.append(numbered(shape, mu, x))
        if step > 0:
            x[:, mu] += 1
    return torch.stack(links, 1)


def staples(mu: int, dims: int) -> list[Path]:
    r"""Paths from :math:`x + \hat\mu` back to x that make plaquettes of the link :math:`(\mu, x)`: up, down for each
    :math:`\nu \ne \mu`."""
    m = mu + 1
    return [path for n in range(1, dims + 1) if n != m for path in ((n, -m, -n), (-n, -m, n))]


def reverse(path: Path) -> Path:
    return tuple(-step for step in reversed(path))


def _check_range(who: str, **given: tuple[int, int]) -> None:
    for name, (value, count) in given.items():
        if not isinstance(value, int) or not 0 <= value < count:
            raise ValueError(f"{who}: {name} must lie in 0 ... {count - 1}, got {value!r}")


def _text(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
