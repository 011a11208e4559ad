r"""What the gauge-equivariant couplings of all groups share.

A coupling moves the links U of a mask through a loop W = U A, A from the staples of the link:

.. math:: W' = h(W;\ \text{frozen loops}), \qquad U' = W' A^{-1}, \qquad \ln J = \sum_\text{active} \ln |h'(W)|

h is a bijection that commutes with conjugation, :math:`h(\Omega W \Omega^\dagger) = \Omega h(W) \Omega^\dagger`, and
its parameters come from traces of loops: the coupling commutes with gauge transformations. A holds no active link of
the layer and neither do the loops, so that the Jacobian is block triangular.

References:
    | G. Kanwar et al., Phys. Rev. Lett. 125 (2020) 121601, arXiv:2003.06413
    | D. Boyda et al., Phys. Rev. D 103 (2021) 074504, arXiv:2008.05456
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

import torch
from torch import Tensor

from hepops.flows import Transform
from hepops.flows.networks import Activation

from ..theory import Theory
from .conditioner import site_net
from .loops import neighbourhood
from .masks import Mask, Pattern, staples, sweep

Loop = Literal["plaquette", "staples"]


class Sight(TypedDict, total=False):
    """What the network of a coupling sees, and its size."""

    radius: float
    hidden: Sequence[int]
    activation: Activation
    plaquettes: bool
    twins: bool


class GaugeCoupling(Transform):
    """The part that does not depend on the group.

    Args:
        mask: The active links.
        raw: Parameters of h at which the network begins, (size).
        channels: How many numbers a loop gives the network.
        loop: "plaquette", A is the staple of the first plane, :math:`W` a plaquette; "staples": A is the sum of all
            staples, made an element of the group.
        radius, plaquettes, twins: Which frozen loops the network sees: see `loops.neighbourhood`.
        hidden, activation: Of the network.
    """

    near: Tensor
    active: Tensor

    def __init__(
        self,
        mask: Mask,
        raw: Tensor,
        channels: int,
        *,
        loop: Loop = "plaquette",
        radius: float | None = None,
        hidden: Sequence[int] = (32, 32),
        activation: Activation = "leaky_relu",
        plaquettes: bool = True,
        twins: bool = True,
    ) -> None:
        super().__init__()
        if loop not in ("plaquette", "staples"):
            raise ValueError(f"{type(self).__name__}: loop must be 'plaquette' or 'staples', got {loop!r}")
        self.mask, self.loop, self.context_size = mask, loop, 0
        d = len(mask.shape)
        radius = (2.5 if d == 2 else 1.0) if radius is None else radius
        near = neighbourhood(mask, radius, plaquettes=plaquettes, twins=twins)
        self.kinds, self.index = near.kinds, near.index
        self.seen = near.index.shape[1] * channels
        self._keep("active", mask.links)
        self.staples = staples(mask.mu, d)[: 1 if loop == "plaquette" else None]
        self.network = site_net(self.seen, raw, hidden, activation)

    def _keep(self, name: str, table: Tensor) -> None:
        self.register_buffer(name, table.contiguous(), persistent=False)

    def _look(self, table: Tensor, channels: int, loops: int) -> None:
        """Where the numbers of the loops stand that each link sees: `table` (n, F), among `loops` for each channel."""
        self._keep("near", torch.cat([table.t() + c * loops for c in range(channels)]).flatten())

    def _raw(self, numbers: Tensor) -> Tensor:
        """Parameters of h for each active link, (size, n, batch), from numbers of loops (channels x loops, batch)."""
        n, batch = len(self.active), numbers.shape[1]
        raw: Tensor = self.network(numbers.index_select(0, self.near).view(self.seen, n * batch))
        return raw.view(len(raw), n, batch)

    def _change(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The field after the move, and ln J, (batch); x has one batch dimension."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x)
        return over_batch(self._change, x, self.event_dim, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, name="y")
        return over_batch(self._change, y, self.event_dim, True)

    def extra_repr(self) -> str:
        return f"{self.mask}, loop={self.loop!r}"


def over_batch(
    change: Callable[[Tensor, bool], tuple[Tensor, Tensor]], x: Tensor, event_dim: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    """What is written for one batch dimension, for any number of them."""
    batch, event = x.shape[: x.dim() - event_dim], x.shape[x.dim() - event_dim :]
    if len(batch) == 1:
        return change(x, inverse)
    y, logdet = change(x.reshape(-1, *event), inverse)
    return y.view(x.shape), logdet.view(batch)


def loop_of(loop: Loop | Sequence[Loop], layer: int, sweep: int) -> Loop:
    """Of a layer: one loop for all, or one for each sweep in turn."""
    if isinstance(loop, str):
        return loop
    if not loop:
        raise ValueError("loop must name at least one loop, got none")
    return loop[layer // sweep % len(loop)]


def check_layers(who: str, layers: int) -> None:
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise ValueError(f"{who}: layers must be a whole number of at least 1, got {layers!r}")


def check_theory(who: str, theory: Theory, *kinds: type[Theory]) -> None:
    if not isinstance(theory, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{who}: theory must be {wanted}, got {type(theory).__name__}")


def masks_of(who: str, theory: Theory, layers: int, pattern: Pattern | None) -> list[Mask]:
    """The masks that the layers of a flow take in turn."""
    check_layers(who, layers)
    return sweep(theory.shape, pattern or ("lines" if theory.dims == 2 else "parity"))
