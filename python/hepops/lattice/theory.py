"""What a lattice theory offers to samplers, flows and statistics."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from hepops.flows.bases import Base

from .geometry import checked_shape


class Theory(ABC):
    r"""A field on a periodic lattice with the density :math:`e^{-S} / Z`.

    Fields are plain tensors, a batch of configurations: the first dimension is the batch, the others `event_shape`.
    Actions, kinetic energies and whatever is summed over sites are float64, one number for each configuration.

    Attributes:
        shape: The extents (L_1, ..., L_D).
        event_shape: Of one configuration.
    """

    shape: torch.Size
    event_shape: torch.Size
    before, behind = 0, 0  # dimensions of an event before and behind those of the lattice
    reach = 1  # how far ahead of a site its density looks
    complex = False  # whether fields are complex: dtype float32 then stands for complex64, float64 for complex128

    @property
    def dims(self) -> int:
        return len(self.shape)

    @property
    def sites(self) -> int:
        return math.prod(self.shape)

    @abstractmethod
    def action(self, field: Tensor) -> Tensor:
        """S, shape (B), float64."""

    @abstractmethod
    def force(self, field: Tensor) -> Tensor:
        """F of the field's shape, as the equation of motion dP/dt = -F has it."""

    @abstractmethod
    def prior(self, dtype: torch.dtype = torch.float64) -> Base:
        """The base of flows: the theory's measure without its action, or a normal density where that is infinite."""

    @abstractmethod
    def cold(
        self, batch: int, *, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
    ) -> Tensor:
        """The classical vacuum."""

    @abstractmethod
    def momenta(self, field: Tensor, seed: int, step: int = 0, first: int = 0) -> Tensor:
        """Momenta of HMC, like the field; configuration b has those of chain `first + b`."""

    @abstractmethod
    def kinetic(self, momenta: Tensor) -> Tensor:
        """Kinetic energy, shape (B), float64."""

    @abstractmethod
    def move(self, field: Tensor, momenta: Tensor, time: float) -> Tensor:
        """The field after `time` at constant momenta: it stays in its group."""

    def action_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        return self.action(field), self.force(field)

    def log_prob(self, field: Tensor) -> Tensor:
        """-S: the log density up to ln Z, shape (B), float64."""
        return -self.action(field)

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
        """Configurations of the prior: a hot start. Configuration `first + i` is the same whatever the batch."""
        return self.prior(dtype).to(device).draw(batch, seed, first, step)

    def on(self, shape: Sequence[int]) -> Self:
        """The same theory on a lattice of other extents, as many of them.

        Raises:
            ValueError: another number of dimensions.
        """
        who = type(self).__name__
        shape = checked_shape(who, shape)
        if len(shape) != self.dims:
            raise ValueError(f"{who}: shape must have {self.dims} dimensions as it has, got {tuple(shape)}")
        other = copy.copy(self)
        event = self.event_shape
        other.shape = shape
        other.event_shape = torch.Size([*event[: self.before], *shape, *event[len(event) - self.behind :]])
        return other

    def density(self, field: Tensor) -> Tensor:
        """The action site by site, float64, shape (B, L...): the sum over a box is the part of its sites, which need
        the field up to `reach` sites ahead and nowhere else."""
        raise NotImplementedError(f"{type(self).__name__} does not give its action site by site")

    def exact(self) -> dict[str, float]:
        """Exact numbers of this theory by their names ("log_z", "plaquette", "phi2", ...); {} where none is known."""
        return {}

    def exact_log_z(self) -> float | None:
        """ln Z where it is known, else None."""
        return self.exact().get("log_z")

    def check_cold(self, batch: int, dtype: torch.dtype) -> None:
        """Refuse what :meth:`cold` cannot make.

        Raises:
            TypeError: another dtype than that of fields.
            ValueError: a batch that is negative or no whole number.
        """
        who = type(self).__name__
        if isinstance(batch, bool) or not hasattr(batch, "__index__") or batch < 0:
            raise ValueError(f"{who}: batch must be a whole number of at least 0, got {batch!r}")
        self.check(torch.empty((0, *self.event_shape), dtype=dtype, device="meta"), "cold")

    def check(self, field: Tensor, name: str = "field") -> None:
        """Refuse what is no batch of this theory's fields.

        Raises:
            TypeError: another dtype.
            ValueError: another shape.
        """
        wanted = (torch.complex64, torch.complex128) if self.complex else (torch.float32, torch.float64)
        who = type(self).__name__
        if not isinstance(field, Tensor) or field.dtype not in wanted:
            got = field.dtype if isinstance(field, Tensor) else type(field).__name__
            raise TypeError(f"{who}: {name} must be {wanted[0]} or {wanted[1]}, got {got}")
        if field.dim() != 1 + len(self.event_shape) or field.shape[1:] != self.event_shape:
            shape = ", ".join(["B", *map(str, self.event_shape)])
            raise ValueError(f"{who}: {name} must have shape ({shape}), got {tuple(field.shape)}")
