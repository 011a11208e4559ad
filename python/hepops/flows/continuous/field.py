"""Vector fields that depend on time."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Field(nn.Module):
    """A vector field g(t, x, c): what a :class:`Continuous` flow follows.

    Any module of this signature will do; it must act on each event by itself, and be smooth enough for the order of the
    integrator. A field that has its divergence in closed form overrides `with_divergence`.
    """

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """t, shape (), and x, shape (*batch, D), to dx/dt, shape (*batch, D)."""
        raise NotImplementedError

    def with_divergence(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """dx/dt and its divergence, shape (*batch); None where only automatic differentiation knows it."""
        return None


class TimeMLP(Field):
    r"""A network of x, the context, t, :math:`\cos 2\pi t` and :math:`\sin 2\pi t`, with a smooth activation.

    Args:
        features: D.
        hidden: Widths of the layers.
        context: C, 0 without.
        activation: Between layers; must be smooth (tanh): a field with kinks has no fourth order.

    The last layer begins at 0: a new flow is the identity.

    Example:
        >>> field = hepops.flows.TimeMLP(2)
        >>> field(torch.tensor(0.5), torch.ones(1, 2))
        tensor([[0., 0.]], grad_fn=...)
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: type[nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"TimeMLP: features must be at least 1, got {features}")
        self.features, self.context = features, context
        layers: list[nn.Module] = []
        for a, b in pairwise([features + context + 3, *hidden]):
            layers += [nn.Linear(a, b), activation()]
        last = nn.Linear(hidden[-1] if hidden else features + context + 3, features)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        angle = 2 * torch.pi * t
        times = torch.stack([t, angle.cos(), angle.sin()]).to(x.dtype).expand(*x.shape[:-1], 3)
        parts = [x, times]
        if context is not None:
            parts.append(context.expand(*x.shape[:-1], context.shape[-1]))
        return self.layers(torch.cat(parts, -1))
