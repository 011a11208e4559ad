r"""Symmetric matrices with a border: a dense corner of common unknowns, a diagonal of those of single events.

.. math:: M = \begin{pmatrix} A & B \\ B^T & D \end{pmatrix}, \qquad
    M^{-1} = \begin{pmatrix} S^{-1} & -S^{-1} B D^{-1} \\ \cdot & D^{-1} + D^{-1} B^T S^{-1} B D^{-1} \end{pmatrix},
    \quad S = A - B D^{-1} B^T

so that a thousand events with a time offset each cost no more than a thousand numbers (Schur's complement).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arrow:
    """k common unknowns, then E single ones; float64 on the CPU."""

    corner: Tensor  # (k, k)   A
    border: Tensor  # (k, E)   B
    tail: Tensor  # (E)        D

    @classmethod
    def dense(cls, matrix: Tensor) -> Arrow:
        """A matrix without single unknowns."""
        return cls(matrix, matrix.new_zeros((len(matrix), 0)), matrix.new_zeros(0))

    @property
    def diagonal(self) -> Tensor:
        """(k + E)"""
        return torch.cat((self.corner.diagonal(), self.tail))

    def __add__(self, other: Arrow) -> Arrow:
        return Arrow(self.corner + other.corner, self.border + other.border, self.tail + other.tail)

    def plus_diagonal(self, d: Tensor) -> Arrow:
        """M + diag(d), d of (k + E)."""
        k = len(self.corner)
        return Arrow(self.corner + torch.diag(d[:k]), self.border, self.tail + d[k:])

    def scaled(self, s: Tensor) -> Arrow:
        """diag(s) M diag(s)."""
        a, b = s[: len(self.corner)], s[len(self.corner) :]
        return Arrow(self.corner * a * a[:, None], self.border * a[:, None] * b, self.tail * b * b)

    def times(self, x: Tensor) -> Tensor:
        """M x."""
        a, b = x[: len(self.corner)], x[len(self.corner) :]
        return torch.cat((self.corner @ a + self.border @ b, self.border.T @ a + self.tail * b))

    def without(self, held: Tensor) -> Arrow:
        """Unknowns that are held, or that nothing depends on, taken out: a one on the diagonal, zeros beside it."""
        held = held | ~(self.diagonal > 0)
        a, b = held[: len(self.corner)], held[len(self.corner) :]
        corner = self.corner.masked_fill(a | a[:, None], 0.0) + torch.diag(a.double())
        return Arrow(corner, self.border.masked_fill(a[:, None] | b, 0.0), self.tail.masked_fill(b, 1.0))

    def schur(self) -> Tensor:
        """(k, k) the information on the common unknowns once the single ones are free: A - B D^-1 B^T."""
        return self.corner - (self.border / _safe(self.tail)) @ self.border.T

    def solve(self, rhs: Tensor, held: Tensor | None = None) -> Tensor:
        """M^-1 rhs; zero for unknowns that are held or have no information. ValueError: numbers that are not finite."""
        if not bool(
            torch.isfinite(rhs).all() & torch.isfinite(self.diagonal).all() & torch.isfinite(self.corner).all()
        ):
            raise ValueError("the gradient or the information of a fit is not finite")
        held = torch.zeros_like(rhs, dtype=torch.bool) if held is None else held
        held = held | ~(self.diagonal > 0)
        size = self.without(held).diagonal.rsqrt()
        m, r = self.without(held).scaled(size), rhs.masked_fill(held, 0.0) * size
        k = len(m.corner)
        weight = m.border / _safe(m.tail)
        common = torch.linalg.lstsq(m.schur(), (r[:k] - weight @ r[k:])[:, None], driver="gelsd").solution[:, 0]
        single = (r[k:] - m.border.T @ common) / _safe(m.tail)
        return torch.cat((common, single)) * size

    def inverse(self) -> tuple[Tensor, Tensor]:
        """Covariance of the common unknowns (k, k) and the variances of the single ones (E), 0 where they have none."""
        none = ~(self.diagonal > 0)
        size = self.without(none).diagonal.rsqrt()
        m = self.without(none).scaled(size)
        corner = torch.linalg.pinv(m.schur(), hermitian=True)
        weight = m.border / _safe(m.tail)
        single = 1 / _safe(m.tail) + ((corner @ weight) * weight).sum(0)
        k = len(corner)
        corner = corner * size[:k] * size[:k, None]
        corner = corner.masked_fill(none[:k] | none[:k, None], 0.0)
        return corner, (single * size[k:] ** 2).masked_fill(none[k:], 0.0)


def _safe(d: Tensor) -> Tensor:
    return torch.where(d > 0, d, torch.ones_like(d))
