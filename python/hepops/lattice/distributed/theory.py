"""A theory on one rank's box of the lattice."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from hepops.flows.bases import Base

from .. import random
from ..precision import working_dtype
from ..sun import from_coordinates
from ..theory import Theory
from .grid import Grid
from .halo import halo, interior


class Decomposed(Theory):
    r"""A theory whose lattice is cut into boxes: fields are this rank's, actions those of the whole lattice.

    Samplers take it as they take the theory: actions and kinetic energies are summed over ranks in their order, so that
    every rank decides alike; random numbers are named by the sites of the whole lattice. A trajectory is that of one
    rank, up to the rounding of the sums.

    Args:
        theory: On the whole lattice; it must offer `density`.
        grid: How the lattice is cut; `grid.shape` is the theory's.
        reach: How far ahead a site's density looks: 1 for nearest neighbours and plaquettes, 2 for rectangles; None
            asks the theory.

    Differentiable as the theory is: the gradient of the whole action with respect to this rank's field. Deterministic.

    Raises:
        TypeError: `theory` is cut already.
        ValueError: the lattices differ, a box is smaller than the reach, or that is less than the theory's.

    Example:
        >>> theory = hepops.lattice.Phi4((4, 4), m2=-4, lam=8)
        >>> grid = hepops.lattice.distributed.Grid((4, 4), (1, 1))
        >>> mine = hepops.lattice.distributed.Decomposed(theory, grid)
        >>> field = mine.random(2, seed=1)
        >>> torch.allclose(mine.action(field), theory.action(field))
        True
    """

    def __init__(self, theory: Theory, grid: Grid, reach: int | None = None) -> None:
        if grid.shape != theory.shape:
            raise ValueError(f"Decomposed: the grid is of {tuple(grid.shape)}, the theory of {tuple(theory.shape)}")
        if isinstance(theory, Decomposed):
            raise TypeError("Decomposed: theory must live on the whole lattice, got one that is cut already")
        reach = theory.reach if reach is None else reach
        if reach < theory.reach:
            raise ValueError(f"Decomposed: reach must be at least {theory.reach} for this theory, got {reach}")
        if reach > min(grid.local_shape):
            raise ValueError(f"Decomposed: boxes of {tuple(grid.local_shape)} are smaller than the reach {reach}")
        self.theory, self.grid, self.reach = theory, grid, reach
        self.before, self.behind, self.complex = theory.before, theory.behind, theory.complex
        self.shape = grid.local_shape
        self.event_shape = theory.on(self.shape).event_shape
        self._padded = theory.on([L + 2 * reach for L in self.shape])

    def on(self, shape: Sequence[int]) -> Self:
        """Refused: another lattice is cut anew, `Decomposed(theory.on(shape), Grid(shape, ranks))`."""
        raise NotImplementedError(f"Decomposed: cut the theory on {tuple(shape)} with a Grid of that shape")

    def action(self, field: Tensor) -> Tensor:
        self.check(field)
        density = self._padded.density(self._extended(field))
        mine = interior(density, self.grid, self.reach)
        return self.grid.sum(mine.flatten(1).sum(-1, dtype=torch.float64))

    def force(self, field: Tensor) -> Tensor:
        self.check(field)
        return interior(self._padded.force(self._extended(field)), self.grid, self.reach, behind=self.behind)

    def density(self, field: Tensor) -> Tensor:
        self.check(field)
        return interior(self._padded.density(self._extended(field)), self.grid, self.reach)

    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        """The whole lattice's."""
        return self.theory.prior(dtype)

    def random(
        self,
        batch: int,
        seed: int,
        *,
        first: int = 0,
        step: int = 0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """This rank's box of what one rank would draw (which is drawn whole, configuration by configuration)."""
        parts = [
            self.grid.local(
                self.theory.random(1, seed, first=first + i, step=step, dtype=dtype, device=device), self.behind
            )
            for i in range(batch)
        ]
        return torch.cat(parts) if parts else self.theory.on(self.shape).random(0, seed, dtype=dtype, device=device)

    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        return self.theory.on(self.shape).cold(batch, dtype=dtype, device=device)

    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        """Those that :meth:`Theory.momenta` gives to this box's sites, number by number."""
        self.check(field)
        whole, chains = self.theory.event_shape, field.shape[0]
        size = math.prod(whole)  # of a real field; links have N^2 - 1 numbers each
        inner = 1
        if self.behind:
            inner = whole[-1] ** 2 - 1
            size = math.prod(whole[: -self.behind]) * inner
        sites = self.grid.sites(field.device).flatten()
        fields = math.prod(whole[: self.before])
        number = torch.arange(fields, device=field.device)[:, None] * math.prod(self.grid.shape) + sites
        number = number.flatten()[:, None] * inner + torch.arange(inner, device=field.device)
        dtype = field.real.dtype if field.is_complex() else working_dtype(field)
        p = random.normal_at(number.flatten(), size, chains, seed, step=step, first=first, dtype=dtype)
        return self._as_momenta(p, field, inner)

    def _as_momenta(self, p: Tensor, field: Tensor, inner: int) -> Tensor:
        if not self.behind:
            return p.to(field.dtype).view(field.shape)
        return from_coordinates(p.view(*field.shape[: -self.behind], inner), field.shape[-1])

    def kinetic(self, momenta: Tensor) -> Tensor:
        return self.grid.sum(self.theory.on(self.shape).kinetic(momenta))

    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        return self.theory.on(self.shape).move(field, momenta, time)

    def _extended(self, field: Tensor) -> Tensor:
        return halo(field, self.grid, self.reach, behind=self.behind)
