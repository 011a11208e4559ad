"""Rotations that are learned."""

import torch
from torch import Tensor, nn

from ..mixing import _times
from ..transform import Transform


class Rotation(Transform):
    r"""y = R x with :math:`R = R_0 e^{A - A^T}` in SO(n), A learned, :math:`R_0` fixed: the log-determinant is 0.

    On a sphere it moves the poles of a :class:`RecursiveSphere`.

    Args:
        n: Numbers in x.
        seed: Of a random :math:`R_0` (by the Haar measure of O(n), a row turned if the determinant is -1); the identity
            where None.

    R is made in double, and orthogonal to the rounding of the dtype of x. Differentiable in x and A.

    Raises:
        ValueError: n is below 2, or x has not n numbers.

    Example:
        >>> layer = hepops.flows.Rotation(3, seed=1)
        >>> torch.allclose(layer(torch.tensor([[1.0, 0.0, 0.0]]))[0].norm(), torch.ones(()))
        True
    """

    start: Tensor

    def __init__(self, n: int, seed: int | None = None) -> None:
        super().__init__()
        if n < 2:
            raise ValueError(f"Rotation: n must be at least 2, got {n}")
        self.event_shape, self.context_size = torch.Size([n]), 0
        self.generator = nn.Parameter(torch.zeros(n, n))
        start = torch.eye(n, dtype=torch.float64)
        if seed is not None:
            q, r = torch.linalg.qr(
                torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            )
            start = q * r.diagonal().sign()
            start[0] *= torch.linalg.det(start).sign()
        self.register_buffer("start", start)

    @property
    def matrix(self) -> Tensor:
        """R, float64, shape (n, n)."""
        A = self.generator.double()
        with torch.autocast(A.device.type, enabled=False):
            return self.start.double() @ torch.matrix_exp(A - A.T)

    def _turn(self, x: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        self.check(x)
        return _times(x, R.to(x.dtype)), self.no_volume(x)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(x, self.matrix)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._turn(y, self.matrix.T)
