"""Normal distributions: standard, diagonal, of any covariance."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import cholesky_ex, solve_triangular

from ..sums import event_sum
from .base import Base, Parametrised, as_parameters

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Normal(Base):
    r"""Independent normal numbers of mean 0 and variance 1: :math:`\ln q = -\tfrac12 \sum_i (z_i^2 + \ln 2\pi)`.

    Args:
        event_shape: The shape of one sample; an integer D stands for (D).
        dtype: Of the samples; torch's default where None.

    Samples are the same bits on every device; the squares are taken in the dtype of z and summed in double.

    Example:
        >>> base = hepops.flows.Normal(2)
        >>> base.draw(1, seed=1)
        tensor([[ 0.3804, -0.2963]])
        >>> base.log_prob(torch.zeros(1, 2))
        tensor([-1.8379], dtype=torch.float64)
    """

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        return self._normal(n, seed, first, step, dtype=self.reference.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        constant = HALF_LOG_2PI * self.event_shape.numel()
        return -0.5 * event_sum(z.square(), len(self.event_shape)) - constant


class DiagonalNormal(Parametrised):
    r"""Independent normal numbers of given means and widths.

    .. math:: \ln q = -\sum_i [\tfrac12 (z_i - m_i)^2 / s_i^2 + \ln s_i + \tfrac12 \ln 2\pi]

    Args:
        loc: m, numbers or a tensor.
        scale: s > 0, finite.
        event_shape: What both broadcast to; where None, what they broadcast to among each other.
        learnable: Whether m and ln s are parameters; buffers otherwise. Samples and densities are differentiable in
            both.
        dtype: Of samples and parameters; torch's default where None.

    Raises:
        ValueError: A scale is not positive and finite, a loc is not finite, or shapes do not broadcast.

    Example:
        >>> base = hepops.flows.DiagonalNormal([0.0, 10.0], [1.0, 0.1])
        >>> base.draw(1, seed=1)
        tensor([[0.3804, 9.9704]])
    """

    loc: Tensor
    log_scale: Tensor

    def __init__(
        self,
        loc: float | Tensor | Sequence[float] = 0.0,
        scale: float | Tensor | Sequence[float] = 1.0,
        event_shape: int | Sequence[int] | None = None,
        *,
        learnable: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape, (m, s) = as_parameters("DiagonalNormal", event_shape, loc=loc, scale=scale)
        if not ((s > 0) & s.isfinite()).all() or not m.isfinite().all():
            raise ValueError(f"DiagonalNormal: scale must be positive, both finite, got scale {scale}, loc {loc}")
        super().__init__(shape, dtype)
        self._hold("loc", m, learnable)
        self._hold("log_scale", s.log(), learnable)

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        return self.loc + self.log_scale.exp() * self._normal(n, seed, first, step, dtype=self.reference.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        log_scale = self.log_scale.double()
        eps = (z.double() - self.loc.double()) * (-log_scale).exp()
        return -event_sum(0.5 * eps.square() + log_scale + HALF_LOG_2PI, len(self.event_shape))


class MultivariateNormal(Parametrised):
    r"""Normal numbers of any covariance, :math:`z = m + L \epsilon`, :math:`\Sigma = L L^T`, L lower triangular.

    .. math:: \ln q = -\tfrac12 |L^{-1} (z - m)|^2 - \sum_i \ln L_{ii} - \tfrac{D}{2} \ln 2\pi

    Args:
        loc: m, shape (D).
        scale_tril: L, shape (D, D), positive on the diagonal; what is above it must be 0.
        covariance: :math:`\Sigma`, instead of L.
        learnable: Whether m, the part of L below the diagonal and the logarithm of its diagonal are parameters.
        dtype: Of samples and parameters; torch's default where None.

    Raises:
        ValueError: Neither or both of scale_tril and covariance are given, shapes do not fit, the diagonal is not
            positive, or the covariance is not positive definite.

    Example:
        >>> base = hepops.flows.MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.9], [0.9, 1.0]])
        >>> base.draw(1, seed=1)
        tensor([[0.3804, 0.2132]])
    """

    loc: Tensor
    lower: Tensor
    log_diagonal: Tensor

    def __init__(
        self,
        loc: Tensor | Sequence[float],
        scale_tril: Tensor | Sequence[Sequence[float]] | None = None,
        covariance: Tensor | Sequence[Sequence[float]] | None = None,
        *,
        learnable: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        m = torch.as_tensor(loc, dtype=torch.float64)
        if m.dim() != 1 or not m.isfinite().all():
            raise ValueError(f"MultivariateNormal: loc must have shape (D) and be finite, got {loc}")
        L = _triangular(len(m), scale_tril, covariance)
        super().__init__(m.shape, dtype)
        self._hold("loc", m, learnable)
        self._hold("lower", L.tril(-1), learnable)
        self._hold("log_diagonal", L.diagonal().log(), learnable)

    @property
    def scale_tril(self) -> Tensor:
        """L, shape (D, D)."""
        return self.lower.tril(-1) + torch.diag(self.log_diagonal.exp())

    def draw(self, n: int, seed: int, first: int = 0, step: int = 0) -> Tensor:
        eps = self._normal(n, seed, first, step, dtype=self.reference.dtype)
        # summed term by term: a matrix product may round a sample otherwise in another batch
        return self.loc + (eps[:, None, :] * self.scale_tril).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        self._check(z)
        d = (z.double() - self.loc.double()).reshape(-1, len(self.loc))
        eps = solve_triangular(self.scale_tril.double(), d.T, upper=False).T.reshape(z.shape)
        constant = self.log_diagonal.double().sum() + HALF_LOG_2PI * len(self.loc)
        return -0.5 * event_sum(eps.square(), 1) - constant


def _triangular(
    D: int, scale_tril: Tensor | Sequence[Sequence[float]] | None, covariance: Tensor | Sequence[Sequence[float]] | None
) -> Tensor:
    if (scale_tril is None) == (covariance is None):
        raise ValueError("MultivariateNormal: give scale_tril or covariance, and not both")
    given = torch.as_tensor(scale_tril if covariance is None else covariance, dtype=torch.float64)
    if given.shape != (D, D):
        raise ValueError(f"MultivariateNormal: the matrix must have shape ({D}, {D}), got {tuple(given.shape)}")
    if covariance is not None:
        L, info = cholesky_ex(given)
        if info.item() or not given.isfinite().all() or not torch.allclose(given, given.T):
            raise ValueError(f"MultivariateNormal: covariance must be symmetric and positive definite, got {given}")
        return L
    if not (given.diagonal() > 0).all() or given.triu(1).any() or not given.isfinite().all():
        raise ValueError(f"MultivariateNormal: scale_tril must be lower triangular, its diagonal positive, got {given}")
    return given
