"""Haar measures: the uniform distributions on gauge groups."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Base


class Haar(Base):
    r"""Elements of U(1) or SU(N), uniform in the Haar measure, which is normalised to 1: :math:`\ln q = 0`.

    * "U1": angles in :math:`(-\pi, \pi]`, measure :math:`d\theta / 2\pi`, event shape `shape`.
    * "SU2", "SU3", ...: complex unitary matrices of determinant 1, event shape (\*shape, N, N).

    Columns of complex normal numbers are made orthonormal from the first to the last (Gram-Schmidt, twice, in double):
    that is the QR decomposition with a positive diagonal of R, whose Q is Haar in U(N), as the law of a Ginibre matrix
    is left by every unitary one and the decomposition is unique. The phase of the determinant leaves with the last
    column; for SU(2) and SU(3) that column is the one which completes the others, and takes no random numbers.

    Args:
        group: "U1" or "SU<N>", N of 2 or more.
        shape: Of the group elements in one event: (D, L, L) for the links of a lattice.
        dtype: float32 or float64; matrices are complex64 or complex128.

    `log_prob` is 0 on the group, -inf where :math:`|U^+ U - 1|` or :math:`|\det U - 1|` exceeds the square root of the
    dtype's rounding (or an angle is infinite), NaN where an entry is. Samples agree between devices to rounding.

    Raises:
        ValueError: The group is another.

    References:
        | F. Mezzadri, How to generate random matrices from the classical compact groups, Notices AMS 54 (2007) 592,
          arXiv:math-ph/0609050

    Example:
        >>> links = hepops.flows.Haar("SU3", shape=(4, 2, 2)).draw(5, seed=1)
        >>> links.shape, links.dtype
        (torch.Size([5, 4, 2, 2, 3, 3]), torch.complex64)
        >>> hepops.flows.Haar("U1", shape=2).draw(1, seed=1)
        tensor([[2.4521, 2.4799]])
    """

    def __init__(self, group: str, shape: int | Sequence[int] = (), dtype: torch.dtype | None = None) -> None:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        match = re.fullmatch(r"U1|SU([2-9]|[1-9]\d+)", group)
        if match is None:
            raise ValueError(f"Haar: group must be 'U1', 'SU2', 'SU3', ..., got {group!r}")
        N = int(match[1]) if match[1] else 0
        super().__init__((*shape, N, N) if N else shape, dtype)
        self.group, self.N = group, N

    @property
    def dtype(self) -> torch.dtype:
        real = self.reference.dtype
        return torch.promote_types(real, torch.complex64) if self.N else real

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        if not self.N:
            return (math.pi * (2 * self._uniform(n, seed, first, step) - 1)).to(self.reference.dtype)
        columns = self.N - 1 if self.N < 4 else self.N
        elements = self.event_shape[:-2].numel()
        z = self._normal(n, seed, first, step, elements * columns * self.N * 2)
        z = torch.view_as_complex(z.reshape(n, *self.event_shape[:-2], columns, self.N, 2))
        U = torch.stack(_complete(_orthonormal(list(z.unbind(-2)))), -1)
        return U.to(self.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        if not self.N:
            return self._supported(z.new_zeros((), dtype=torch.float64), z, z.isinf())
        tolerance = math.sqrt(torch.finfo(z.dtype).eps)
        U = torch.nan_to_num(z.to(torch.complex128), nan=2.0, posinf=2.0, neginf=2.0)
        off = (U.mH @ U - torch.eye(self.N, device=z.device)).abs() > tolerance
        off = off | ((torch.linalg.det(U) - 1).abs() > tolerance)[..., None, None]
        return self._supported(z.new_zeros((), dtype=torch.float64), z, off)


def _orthonormal(columns: list[Tensor]) -> list[Tensor]:
    """Gram and Schmidt, twice: once leaves rounding times the condition number."""
    done: list[Tensor] = []
    for v in columns:
        for _ in range(2):
            for q in done:
                v = v - q * (q.conj() * v).sum(-1, keepdim=True)
            v = v / v.abs().square().sum(-1, keepdim=True).sqrt()
        done.append(v)
    return done


def _complete(q: list[Tensor]) -> list[Tensor]:
    """Columns of determinant 1: the last one follows from the others, or gives its phase away."""
    N = q[0].shape[-1]
    if N == 2:
        a, b = q[0].unbind(-1)
        return [q[0], torch.stack([-b.conj(), a.conj()], -1)]
    if N == 3:
        return [*q, torch.linalg.cross(q[0], q[1]).conj()]
    phase = torch.linalg.det(torch.stack(q, -1)).conj()[..., None]
    return [*q[:-1], q[-1] * phase / phase.abs()]
