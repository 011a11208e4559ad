"""Linear mixing of features, and the maps that go between couplings: permutations, shifts, PLU."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .transform import Transform


class Permutation(Transform):
    r"""Features in another order: :math:`y_i = x_{p(i)}`, log-determinant 0, bits unchanged.

    Args:
        permutation: p, each of 0 ... D - 1 once.

    Raises:
        ValueError: That is not so.

    Example:
        >>> hepops.flows.Permutation([2, 0, 1])(torch.tensor([[10.0, 11.0, 12.0]]))[0]
        tensor([[12., 10., 11.]])
        >>> hepops.flows.Permutation.reverse(3).permutation.tolist()
        [2, 1, 0]
    """

    permutation: Tensor
    order: Tensor
    keeps_boxes = True

    def __init__(self, permutation: Sequence[int] | Tensor) -> None:
        super().__init__()
        p = torch.as_tensor(permutation, dtype=torch.int64)
        if p.dim() != 1 or p.sort().values.tolist() != list(range(len(p))):
            raise ValueError(f"Permutation: permutation must hold each of 0 ... D - 1 once, got {p.tolist()}")
        self.event_shape, self.context_size = p.shape, 0
        self.register_buffer("permutation", p)
        self.register_buffer("order", p.argsort(), persistent=False)
        self.register_load_state_dict_post_hook(_restore_order)

    @classmethod
    def random(cls, features: int, seed: int = 0) -> "Permutation":
        """One that `seed` names, the same everywhere."""
        return cls(torch.randperm(features, generator=torch.Generator().manual_seed(seed)))

    @classmethod
    def reverse(cls, features: int) -> "Permutation":
        """The last feature first."""
        return cls(torch.arange(features).flip(0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return x.index_select(-1, self.permutation), self.no_volume(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return y.index_select(-1, self.order), self.no_volume(y)


def _restore_order(module: nn.Module, incompatible: object) -> None:
    """The inverse of a permutation that was loaded."""
    module.order.copy_(module.permutation.argsort())  # type: ignore[operator]


class LULinear(Transform):
    r"""A matrix known by its factors: y = P L U x + b, with L unit lower and U upper triangular,

    .. math:: \ln |\det| = \sum_i \ln U_{ii}, \qquad U_{ii} = 10^{-3} + \mathrm{softplus}(u_i)

    at the price of one matrix product forward and two triangular solves back. It begins at y = P x.

    Args:
        features: D.
        permutation: P as the order of features, fixed; None is the identity. "random" draws one by `seed`.
        seed: Of a random P.
        bias: Whether there is a b.

    Raises:
        ValueError: `features` is not positive, or the permutation none.

    References:
        | D. P. Kingma, P. Dhariwal, NeurIPS (2018), arXiv:1807.03039; the floor is nflows'

    Example:
        >>> mix = hepops.flows.LULinear(3)
        >>> x = torch.tensor([[1.0, 2.0, 3.0]])
        >>> y, logdet = mix(x)
        >>> torch.allclose(mix.inverse(y)[0], x)
        True
    """

    FLOOR = 1e-3  # of the diagonal, as in nflows

    def __init__(
        self,
        features: int,
        permutation: Sequence[int] | Tensor | str | None = None,
        *,
        seed: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_features("LULinear", features)
        if isinstance(permutation, str):
            if permutation != "random":
                raise ValueError(f'LULinear: permutation must be None, "random" or an order, got {permutation!r}')
            permutation = Permutation.random(features, seed).permutation
        self.permute = None if permutation is None else Permutation(permutation)
        if self.permute is not None and len(self.permute.order) != features:
            raise ValueError(f"LULinear: permutation must have {features} numbers, got {len(self.permute.order)}")
        self.event_shape, self.context_size = torch.Size([features]), 0
        self.lower = nn.Parameter(torch.zeros(features, features))  # the strict triangles are what counts
        self.upper = nn.Parameter(torch.zeros(features, features))
        self.diagonal = nn.Parameter(torch.full((features,), math.log(math.expm1(1 - self.FLOOR))))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        diagonal = F.softplus(self.diagonal) + self.FLOOR
        lower = self.lower.tril(-1) + torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
        return lower, self.upper.triu(1) + diagonal.diag_embed(), diagonal

    def _logdet(self, x: Tensor, diagonal: Tensor) -> Tensor:
        return diagonal.double().log().sum().expand(x.shape[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        lower, upper, diagonal = self._factors()
        with torch.autocast(x.device.type, enabled=False):
            y = _times(x, lower @ upper)
        if self.permute is not None:
            y = self.permute(y)[0]
        return y if self.bias is None else y + self.bias, self._logdet(x, diagonal)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        lower, upper, diagonal = self._factors()
        x = y if self.bias is None else y - self.bias
        if self.permute is not None:
            x = self.permute.inverse(x)[0]
        columns = x.reshape(-1, len(diagonal)).t()
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        return columns.t().reshape(y.shape), -self._logdet(y, diagonal)


def _check_features(who: str, features: int) -> None:
    if features < 1:
        raise ValueError(f"{who}: features must be at least 1, got {features}")


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Each event times the matrix, under autocast too in the dtype of x: a bijection is not rounded to bfloat16."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, matrix)


class ActNorm(Transform):
    r"""A scale and a shift of each feature: :math:`y = e^{s} (x + t)`, :math:`\ln |\det f'| = \sum_i s_i`.

    :meth:`fit` sets both from a sample, so that y has mean 0 and variance 1; it is called by hand, once, and no forward
    changes the layer behind your back. (Batch normalisation is not offered: with it the density of an event depends on
    the others of its batch.)

    Args:
        features: D.

    References:
        | D. P. Kingma, P. Dhariwal, NeurIPS (2018), arXiv:1807.03039

    Example:
        >>> norm = hepops.flows.ActNorm(2).fit(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
        >>> norm(torch.tensor([[2.0, 30.0]]))[0]
        tensor([[0.0000, 0.7071]], grad_fn=...)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        _check_features("ActNorm", features)
        self.event_shape, self.context_size = torch.Size([features]), 0
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def fit(self, x: Tensor) -> "ActNorm":
        """Mean 0 and variance 1 for the features of x, shape (N, D); a feature that is constant keeps its scale."""
        self.check(x)
        rows = x.reshape(-1, x.shape[-1]).double()
        if len(rows) < 2:
            raise ValueError(f"ActNorm.fit: x must hold at least two events, got {len(rows)}")
        sdev = rows.std(0)
        self.shift.copy_(-rows.mean(0))
        self.log_scale.copy_(torch.where(sdev > 0, -sdev.log(), 0.0))
        return self

    def _logdet(self, x: Tensor) -> Tensor:
        return self.log_scale.double().sum().expand(x.shape[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return (x + self.shift) * self.log_scale.exp(), self._logdet(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return y * (-self.log_scale).exp() - self.shift, -self._logdet(y)


class CircularShift(Transform):
    r"""A learned rotation of each angle, wrapped: :math:`y = (x + t) \bmod 2\pi \in [-\pi, \pi)`, log-determinant 0.

    A circular spline keeps -pi in place; a shift before and after lets that point be anywhere.

    Args:
        features: D.
        period: Of every feature, on [-period/2, period/2).

    References:
        | D. J. Rezende et al., ICML (2020), arXiv:2002.02428

    Example:
        >>> shift = hepops.flows.CircularShift(1)
        >>> torch.nn.init.constant_(shift.shift, 3.0);
        Parameter containing: ...
        >>> shift(torch.tensor([[1.0]]))[0]
        tensor([[-2.2832]], grad_fn=...)
    """

    def __init__(self, features: int, period: float = 2 * math.pi) -> None:
        super().__init__()
        _check_features("CircularShift", features)
        if not (period > 0 and math.isfinite(period)):
            raise ValueError(f"CircularShift: period must be positive and finite, got {period}")
        self.event_shape, self.context_size, self.period = torch.Size([features]), 0, period
        self.shift = nn.Parameter(torch.zeros(features))

    def _wrap(self, x: Tensor) -> Tensor:
        # the turn count has no gradient; x + t - period k rounds once, remainder would lose digits near -period/2
        return x - self.period * torch.floor(x / self.period + 0.5).detach()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return self._wrap(x + self.shift), self.no_volume(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return self._wrap(y - self.shift), self.no_volume(y)
