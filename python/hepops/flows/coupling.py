"""Couplings: some of the numbers are changed, by a bijection that a network of the others sets."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ._spline_formula import domain
from .elementwise import Elementwise, Spline
from .networks import MLP, start_at
from .pick import Pick
from .sums import event_sum
from .transform import Bounds, Transform

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def bounds_of(bijection: Elementwise) -> tuple[Bounds | None, Bounds | None]:
    """Domain and codomain of an elementwise bijection: its own words, or what a spline without tails implies."""
    if isinstance(bijection, Spline) and bijection.tails is None:
        box = domain(bijection.bound, None)
        return box, box
    return getattr(bijection, "domain", None), getattr(bijection, "codomain", None)


def parameters_of(who: str, raw: Tensor, features: int, size: int) -> Tensor:
    """What a network gave, (..., features size), as (..., features, size)."""
    if raw.shape[-1] != features * size:
        raise ValueError(f"{who}: network must give {features} x {size} numbers, got shape {tuple(raw.shape)}")
    return raw.unflatten(-1, (features, size))


def in_reach(bijection: Elementwise, raw: Tensor, x: Tensor) -> Tensor:
    """The parameters in a dtype that the bijection takes beside x; under autocast a network gives 16 bits."""
    return raw if raw.dtype == x.dtype or isinstance(bijection, Spline) else raw.to(x.dtype)


class Pointwise(Transform):
    r"""A bijection of every number by itself, whose parameters are learned and depend on nothing:
    :math:`y_i = g(x_i; \theta_i)`.

    Args:
        bijection: g.
        event_shape: Of one event; a number for a vector.

    Example:
        >>> marginals = hepops.flows.Pointwise(hepops.flows.Spline(bins=4), 2)
        >>> marginals(torch.tensor([[0.5, -7.0]]))[0]
        tensor([[ 0.5000, -7.0000]], grad_fn=...)
    """

    def __init__(self, bijection: Elementwise, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = torch.Size([event_shape] if isinstance(event_shape, int) else event_shape)
        self.event_dim, self.context_size = len(self.event_shape), 0
        self.bijection = bijection
        self.domain, self.codomain = bounds_of(bijection)
        raw = bijection.identity().to(torch.get_default_dtype())
        self.raw = nn.Parameter(raw.expand(*self.event_shape, bijection.size).clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        y, logdet = self.bijection.forward(x, self.raw.expand(*x.shape, -1))
        return y, event_sum(logdet, self.event_dim)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        x, logdet = self.bijection.inverse(y, self.raw.expand(*y.shape, -1))
        return x, event_sum(logdet, self.event_dim)


class Coupling(Transform):
    r"""x = (a, b): b is left, a is changed by what b says:

    .. math:: a' = g(a; \theta(b, c)), \qquad b' = b, \qquad \ln |\det f'| = \sum_i \ln |g'(a_i; \theta_i)|

    b passes with its bits unchanged. Masks that are a range or every n-th number are applied by views, others by a
    precomputed index; there is no boolean indexing.

    Args:
        mask: Bool, shape of one event, (D) or (L...): True for what is changed.
        bijection: g.
        network: From b, (..., number of b), and context to (..., number of a x g.size), a by a; None makes an MLP. A
            network with a linear layer `last` begins at the identity of g.
        hidden: Widths of that MLP.
        context: C, 0 without.
        unconditional: A bijection for b that depends on nothing, as nflows offers; b' = h(b), and the network sees b.

    Raises:
        ValueError: The mask changes nothing, or leaves nothing to condition on; shapes do not fit.

    References:
        | L. Dinh, J. Sohl-Dickstein, S. Bengio, ICLR (2017), arXiv:1605.08803
        | splines: C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS (2019), arXiv:1906.04032

    Example:
        >>> layer = hepops.flows.Coupling([True, True, False], hepops.flows.Spline(bins=8))
        >>> y, logdet = layer(torch.tensor([[0.1, 0.2, 0.3]]))
        >>> y, logdet.dtype
        (tensor([[0.1000, 0.2000, 0.3000]], grad_fn=...), torch.float64)
    """

    def __init__(
        self,
        mask: Tensor | Sequence[bool],
        bijection: Elementwise,
        network: nn.Module | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        unconditional: Elementwise | None = None,
    ) -> None:
        super().__init__()
        mask = torch.as_tensor(mask, dtype=torch.bool)
        n_active = int(mask.sum())
        n_passive = mask.numel() - n_active
        if not n_active:
            raise ValueError(f"Coupling: mask changes none of {mask.numel()} numbers")
        if not n_passive and not context:
            raise ValueError("Coupling: mask leaves nothing to condition on; Pointwise changes all by themselves")
        self.event_shape, self.event_dim, self.context_size = mask.shape, mask.dim(), context
        self.bijection = bijection
        self.domain, self.codomain = bounds_of(bijection)
        self.halves = Pick(mask.flatten())
        self.active_count = n_active
        if network is None:
            network = MLP(n_passive, n_active * bijection.size, hidden, context)
        start_at(network, bijection.identity().repeat(n_active))
        self.network = network
        self.rest = None if unconditional is None else Pointwise(unconditional, n_passive)

    def _change(self, function: Function, a: Tensor, b: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        raw = parameters_of("Coupling", self.network(b, context), self.active_count, self.bijection.size)
        a, logdet = function(a, in_reach(self.bijection, raw, a))
        return a, event_sum(logdet, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        a, b = self.halves.split(x.flatten(-self.event_dim))
        a, logdet = self._change(self.bijection.forward, a, b, context)
        if self.rest is not None:
            b, more = self.rest(b)
            logdet = logdet + more
        return self.halves.join(a, b).view(x.shape), logdet

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        a, b = self.halves.split(y.flatten(-self.event_dim))
        more = None
        if self.rest is not None:
            b, more = self.rest.inverse(b)
        a, logdet = self._change(self.bijection.inverse, a, b, context)
        return self.halves.join(a, b).view(y.shape), logdet if more is None else logdet + more
