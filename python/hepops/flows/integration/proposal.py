r"""Proposals: densities on the unit cube that are sampled by number, and what they are built of.

The integral :math:`I = \int_{[0,1]^d} f(x) dx` is the mean of the weights :math:`w = f(x) / q(x)`, x from a proposal q.

Sample i of a seed is the same bits in every batch and on every rank: networks and matrix products, whose last bit may
depend on the number of rows, see blocks of :data:`BLOCK` samples that begin at multiples of it, whatever was asked.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hepops.core import philox_normal, philox_uniform
from hepops.flows.random import BASE

BLOCK = 4096
_MASK = (1 << 64) - 1


def substream(seed: int, stream: int) -> int:
    """A seed of its own for part `stream` of what `seed` names (splitmix64): parts that nest must not share numbers."""
    z = (seed + (stream + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _index(numbers: Tensor, columns: int) -> Tensor:
    pairs = (columns + 1) // 2  # one index of philox gives two numbers
    return (numbers[:, None] * pairs + torch.arange(pairs, device=numbers.device)).flatten()


def uniforms(numbers: Tensor, columns: int, seed: int, step: int = 0, purpose: int = BASE) -> Tensor:
    """Float64 in (0, 1), shape (m, columns): row i belongs to the sample named numbers[i]."""
    return philox_uniform(_index(numbers, columns), seed, step, purpose, torch.float64).view(len(numbers), -1)[
        :, :columns
    ]


def normals(numbers: Tensor, columns: int, seed: int, step: int = 0, purpose: int = BASE) -> Tensor:
    """Normal numbers, float64, shape (m, columns): row i belongs to the sample named numbers[i]."""
    return philox_normal(_index(numbers, columns), seed, step, purpose, torch.float64).view(len(numbers), -1)[
        :, :columns
    ]


def inside(x: Tensor) -> Tensor:
    """Which points, shape (n,), lie in the closed unit cube. NaN does not."""
    return ((x >= 0) & (x <= 1)).all(-1)


class Proposal(nn.Module):
    r"""A density q on the unit cube :math:`[0, 1]^d`, in float64, that is sampled by number.

    A subclass writes :meth:`draw` and :meth:`density` on rows of one block, and :meth:`config`; what is learned lies in
    parameters and buffers. Then ``build(p.config())`` with ``p.state_dict()`` loaded is p again, to the bit.

    Points outside the cube: a Gaussian may throw some. They come with log_q = +inf, so that their weight f/q is zero;
    f is not evaluated there, and they count as samples but not as evaluations: ``torch.isfinite(log_q)`` says where to.

    Attributes:
        dim: d.
    """

    dim: int
    kinds: ClassVar[dict[str, type["Proposal"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Proposal.kinds[cls.__name__] = cls

    def __init__(self, dim: int) -> None:
        super().__init__()
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"{type(self).__name__}: dim must be a positive integer, got {dim!r}")
        self.dim = dim
        self.register_buffer("_place", torch.zeros((), dtype=torch.float64), persistent=False)

    _place: Tensor

    # ---- what a subclass writes

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """The samples of these numbers (int64, shape (m,)): x, shape (m, d), maybe outside the cube, and ln q(x).

        Both float64, without gradients. At most BLOCK rows; which rows come together is a function of their numbers.
        """
        raise NotImplementedError

    def density(self, x: Tensor) -> Tensor:
        """ln q(x), float64, shape (m,), of at most BLOCK points, all in the cube; differentiable in what is trained."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data (JSON), without what state_dict holds.

        Children are given by their own :func:`describe`.
        """
        return {"dim": self.dim}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Proposal":
        """From what :meth:`config` gave; a subclass with children builds them here."""
        return cls(**config)

    def cost(self) -> float:
        """Nominal seconds per sample on one core, from the count of operations, not from a clock.

        Who learns chooses by it: the same seed must give the same proposal on a busy machine.
        """
        return 5e-8 + 1e-8 * self.dim

    # ---- what everyone calls

    @torch.no_grad()
    def sample(self, n: int, seed: int, first: int = 0, step: int = 0) -> tuple[Tensor, Tensor]:
        """Samples first ... first + n - 1 of a stream.

        Args:
            n: How many.
            seed: In [0, 2^64).
            first: The number of the first sample: a batch or a rank takes its own range of one stream.
            step: A further name, for a stream per iteration.

        Returns:
            x, shape (n, d), and log_q, shape (n,), float64: ln q(x), or +inf where x is outside the cube. The bits of a
            sample depend on its seed, step and number alone.
        """
        if n < 0 or first < 0:
            raise ValueError(f"{type(self).__name__}.sample: n and first must not be negative, got {n} and {first}")
        x = self._place.new_empty(n, self.dim)
        log_q = self._place.new_empty(n)
        for start in range(first - first % BLOCK, first + n, BLOCK):
            block = torch.arange(start, start + BLOCK, device=self._place.device)
            points, values = self.draw(block, seed, step)
            values = torch.where(inside(points), values, math.inf)
            low, high = max(first, start), min(first + n, start + BLOCK)
            x[low - first : high - first] = points[low - start : high - start]
            log_q[low - first : high - first] = values[low - start : high - start]
        return x, log_q

    def log_prob(self, x: Tensor) -> Tensor:
        """ln q(x), float64, shape (n,): -inf outside the cube. Differentiable in what is trained.

        It agrees with the log_q of `sample` to rounding (a flow's networks: float32), not to the bit.
        """
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ValueError(f"{type(self).__name__}.log_prob: x must be (n, {self.dim}), got {tuple(x.shape)}")
        x = x.to(self._place)
        within = inside(x)
        safe = torch.where(within[:, None], x, 0.5)
        blocks = [self.density(b) for b in safe.split(BLOCK)]
        return torch.where(within, torch.cat(blocks) if blocks else x.new_empty(0), -math.inf)


def describe(proposal: Proposal) -> dict[str, Any]:
    """A proposal's kind and config, plain data: what :func:`build` takes."""
    return {"kind": type(proposal).__name__, **proposal.config()}


def build(config: dict[str, Any]) -> Proposal:
    """The proposal that :func:`describe` described, at its initial parameters: load its state_dict next."""
    config = dict(config)
    kind = config.pop("kind", None)
    if kind not in Proposal.kinds:
        raise ValueError(f"build: kind must be one of {sorted(Proposal.kinds)}, got {kind!r}")
    return Proposal.kinds[kind].from_config(config)


class Uniform(Proposal):
    """q = 1 on the cube."""

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        return uniforms(numbers, self.dim, seed, step), self._place.new_zeros(len(numbers))

    def density(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


class Mapped(Proposal):
    r"""A user's channel: x = map(u) with u uniform, so that :math:`q(x) = |\partial u / \partial x|`.

    Args:
        dim: d.
        forward: u, shape (n, d) -> x, shape (n, d) in the cube, and ln |dx/du|, shape (n,).
        inverse: x -> u and ln |du/dx|; ln |du/dx| = -inf where the channel does not reach.

    Both functions act row by row. A channel made of functions is not described by plain data: a saved integrator is
    given its channels again (:meth:`config` raises).
    """

    def __init__(
        self,
        dim: int,
        forward: Callable[[Tensor], tuple[Tensor, Tensor]],
        inverse: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(dim)
        self.forward_map, self.inverse_map = forward, inverse

    def draw(self, numbers: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        x, logdet = self.forward_map(uniforms(numbers, self.dim, seed, step))
        return x.to(torch.float64), -logdet.to(torch.float64)

    def density(self, x: Tensor) -> Tensor:
        u, logdet = self.inverse_map(x)
        return torch.where(inside(u), logdet.to(torch.float64), -math.inf)

    def config(self) -> dict[str, Any]:
        raise TypeError("Mapped: a channel made of functions has no plain description; give it again after loading")
