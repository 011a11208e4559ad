r"""Sums over blocks of samples, and the estimate they make.

Block b of the weights :math:`w_i = f(x_i) / q(x_i)` keeps its count :math:`n_b`, its mean :math:`m_b` and
:math:`M_b = \sum (w_i - m_b)(w_i - m_b)^T`. Together, in the order of the blocks and in double (T. Chan, G. Golub,
R. LeVeque, Am. Stat. 37 (1983) 242, who show why not to keep :math:`\sum w^2`):

.. math::
    N = \sum n_b, \quad m = \sum n_b m_b / N, \quad M = \sum M_b + \sum n_b (m_b - m)(m_b - m)^T, \quad
    \mathrm{cov}(m) = \frac{M}{N (N - 1)}.

Samples of every iteration count the same. Weighting iterations by their estimated variance, as is common, favours
those that saw too little of a peak and biases the result by the correlation of mean and variance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# the columns of a block's row before x of the largest weight, the mean and M
COUNT, EVALUATED, ZEROS, EXCLUDED, ABSOLUTE, SQUARES, LARGEST = range(7)
HEAD = 7


def block_row(weights: Tensor, size: Tensor, inside: Tensor, excluded: Tensor, u: Tensor) -> Tensor:
    """One block's sums as a row of float64.

    Args:
        weights: f/q, shape (n, V), zero where the point is outside the cube or excluded.
        size: What importance sampling looks at, shape (n,).
        inside: Where f was evaluated, shape (n,).
        excluded: Where it gave NaN or an infinity, shape (n,).
        u: The points, shape (n, d).
    """
    mean = weights.mean(0)
    centred = weights - mean
    # row by row of M: a matrix product's bits depend on the number of threads
    products = [(centred[:, v : v + 1] * centred).sum(0) for v in range(weights.shape[1])]
    largest = int(size.argmax())
    zeros = inside & (size == 0) & ~excluded
    counts = [float(len(size)), float(inside.sum()), float(zeros.sum()), float(excluded.sum())]
    head = [*counts, float(size.sum()), float(size.square().sum()), float(size[largest])]
    return torch.cat([torch.tensor(head, dtype=torch.float64), u[largest], mean, *products])


@dataclass
class Moments:
    """What the rows of some blocks sum up to.

    Attributes:
        count, evaluated, zeros, excluded: Numbers of samples: all, those f was called on, those where it gave 0, and
            those where it gave NaN or an infinity.
        absolute, squares, largest: Sum, sum of squares and maximum of the weights' sizes.
        at: The point of the cube with the largest weight, shape (d,).
        mean: Shape (V,). M: shape (V, V).
    """

    count: int
    evaluated: int
    zeros: int
    excluded: int
    absolute: float
    squares: float
    largest: float
    at: Tensor
    mean: Tensor
    m: Tensor

    @classmethod
    def of(cls, rows: Tensor, dim: int) -> "Moments":
        """Of rows, shape (blocks, columns), in their order."""
        v = round((rows.shape[1] - HEAD - dim + 0.25) ** 0.5 - 0.5)  # columns after the point: V + V^2
        counts = rows[:, COUNT]
        means = rows[:, HEAD + dim : HEAD + dim + v]
        mean = (counts[:, None] * means).sum(0) / counts.sum()
        apart = means - mean
        inner = rows[:, HEAD + dim + v :].sum(0).reshape(v, v)
        between = torch.stack([(counts[:, None] * apart[:, i : i + 1] * apart).sum(0) for i in range(v)])
        top = int(rows[:, LARGEST].argmax())
        sums = rows[:, :LARGEST].sum(0).tolist()
        count, evaluated, zeros, excluded = (round(s) for s in sums[:ABSOLUTE])
        return cls(
            count, evaluated, zeros, excluded, sums[ABSOLUTE], sums[SQUARES], float(rows[top, LARGEST]),
            rows[top, HEAD : HEAD + dim], mean, inner + between,
        )  # fmt: skip

    @property
    def covariance(self) -> Tensor:
        """Of the mean, shape (V, V)."""
        return self.m / (self.count * max(self.count - 1, 1))

    @property
    def sdev(self) -> Tensor:
        return self.covariance.diagonal().clamp(min=0).sqrt()

    @property
    def ess(self) -> float:
        r"""The share of samples that count, :math:`(\sum |w|)^2 / (N \sum w^2)`, in [0, 1]."""
        return self.absolute**2 / (self.count * self.squares) if self.squares > 0 else 0.0


def chi2(parts: list[Moments], whole: Moments) -> tuple[float, int]:
    r"""How far the iterations lie from their common mean, and the degrees of freedom.

    .. math:: \chi^2 = \sum_t (m_t - m)^T \left[ \mathrm{cov}(m) N / n_t \right]^{-1} (m_t - m)

    with the variance of all samples: an iteration's own is correlated with its mean. Directions in which the
    components do not vary are left out (pseudo-inverse).
    """
    scale = whole.sdev
    used = scale > 0
    rank, total = 0, 0.0
    if bool(used.any()):
        scale = scale[used]
        correlation = whole.covariance[used][:, used] / (scale[:, None] * scale)
        inverse = torch.linalg.pinv(correlation, hermitian=True, rtol=1e-10)
        rank = int(torch.linalg.matrix_rank(correlation, hermitian=True, rtol=1e-10))
        for part in parts:
            apart = (part.mean - whole.mean)[used] / scale
            total += float(apart @ inverse @ apart) * part.count / whole.count
    return total, rank * (len(parts) - 1)
