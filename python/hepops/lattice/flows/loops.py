r"""Frozen loops around the active links of a mask: what the networks of gauge couplings are given.

The network of a coupling sees, at each active link, a fixed set of loops around it, so that it is a convolution whose
first kernel has the shape of that set, evaluated at active links alone. All of them are gauge invariant by their trace
(or angle), and frozen: that is decided here, link by link, when the layer is made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from .masks import Mask, Path, numbered, reverse, staples, walk


@dataclass(frozen=True)
class Kind:
    """Loops of one form."""

    links: Tensor  # (loops, steps)
    path: Path
    sites: Tensor  # where they start: numbers of sites, (loops)
    pair: tuple[int, int] | None = None  # which two staples of an active link make them, if they do


@dataclass(frozen=True)
class Neighbourhood:
    """Loops of several kinds, numbered through them; `index` (n, F) says which of them each active link has."""

    kinds: list[Kind]
    index: Tensor


def neighbourhood(mask: Mask, radius: float, *, plaquettes: bool = True, twins: bool = True) -> Neighbourhood:
    """The frozen loops near each active link.

    Args:
        mask: The mask.
        radius: How far the centres of loops may be from that of the link, in lattice units.
        plaquettes: Frozen ones of every plane.
        twins: The loops of any two staples of one active link, which do not go through it: for the link itself whatever
            the radius, and for the active links around.

    Raises:
        ValueError: nothing is frozen, or a radius that is no number.
    """
    if not math.isfinite(radius):
        raise ValueError(f"neighbourhood: radius must be finite, got {radius}")
    mu, d = mask.mu, len(mask.shape)
    wanted: list[tuple[tuple[int, ...], Path]] = []
    reach = range(-math.ceil(radius) - 1, math.ceil(radius) + 2)
    if twins:
        pairs = [a + reverse(b) for a, b in combinations(staples(mu, d), 2)]
        for shift in product(reach, repeat=d):
            if math.hypot(*shift) <= radius and _same(mask, shift):
                ahead = tuple(s + (i == mu) for i, s in enumerate(shift))
                wanted += [(ahead, path) for path in pairs]
    if plaquettes:
        for a, b in combinations(range(d), 2):
            path = (a + 1, b + 1, -a - 1, -b - 1)
            middle = [((i in (a, b)) - (i == mu)) / 2 for i in range(d)]
            for shift in product(reach, repeat=d):
                if math.dist(shift, [-m for m in middle]) <= radius:
                    wanted.append((shift, path))
    kept = [(s, p) for s, p in wanted if bool(mask.frozen(mask.sites + torch.tensor(s), p).all())]
    if not kept:
        raise ValueError(f"neighbourhood: no loop within {radius} of the links of {mask} is frozen")
    return _table(mask, kept)


def _same(mask: Mask, shift: tuple[int, ...]) -> bool:
    """Whether the active links, shifted, are the active links."""
    d = len(mask.shape)
    across = sum(s for i, s in enumerate(shift) if i != mask.mu)
    return across % 4 == 0 if mask.pattern == "lines" and d == 2 else sum(shift) % 2 == 0


def _table(mask: Mask, kept: Sequence[tuple[tuple[int, ...], Path]]) -> Neighbourhood:
    """Each loop once, however many links have it."""
    shape, kinds, columns, count = mask.shape, [], {}, 0
    each = list(enumerate(staples(mask.mu, len(shape))))
    pairs = {a + reverse(b): (i, j) for (i, a), (j, b) in combinations(each, 2)}
    for path in dict.fromkeys(p for _, p in kept):
        shifts = [(k, s) for k, (s, p) in enumerate(kept) if p == path]
        starts = torch.cat([mask.sites + torch.tensor(s) for _, s in shifts]) % torch.tensor(shape)
        unique, index = torch.unique(starts, dim=0, return_inverse=True)
        kinds.append(Kind(walk(shape, unique, path), path, numbered(shape, 0, unique), pairs.get(path)))
        for (k, _), column in zip(shifts, index.view(len(shifts), -1), strict=True):
            columns[k] = column + count
        count += len(unique)
    return Neighbourhood(kinds, torch.stack([columns[k] for k in range(len(kept))], 1))
