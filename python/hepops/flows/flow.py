"""A distribution made of a base and a transform."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from . import random
from .bases import Base, UniformSphere
from .transform import Bounds, Transform
from .validation import check_unit, check_values, reads_are_free


class Flow(nn.Module):
    r"""The distribution of :math:`x = f^{-1}(z)`, z from the base:

    .. math:: \ln q(x|c) = \ln p(f(x; c)) + \ln |\det \partial f(x; c) / \partial x|

    Samples have names: sample `first + i` of a seed and step is the same numbers whatever the batch, the device or the
    rank that draws it (up to rounding). All is differentiable in x, context and parameters, as often as the transform.

    Args:
        transform: :math:`f`, from data to the base (`transform.inv` for one written the other way).
        base: The distribution of z.
        validate: Whether x and context are looked at for NaN, infinities and values outside `transform.domain`. None
            does so on the CPU only: on a GPU it would stop the queue. Never under torch.compile or vmap.

    Raises:
        ValueError: A shape does not fit, a value is refused, context is given where the flow has none or is missing.
        TypeError: x has not the dtype of the base.

    References:
        | G. Papamakarios et al., J. Mach. Learn. Res. 22 (2021) 57, arXiv:1912.02762

    Example:
        >>> flow = hepops.flows.nsf(2, layers=2)
        >>> x = flow.sample(5, seed=1)
        >>> flow.log_prob(x).shape, flow.log_prob(x).dtype
        (torch.Size([5]), torch.float64)
    """

    def __init__(self, transform: Transform, base: Base, *, validate: bool | None = None) -> None:
        super().__init__()
        wanted = transform.event_shape
        shape = base.event_shape
        if wanted is not None and shape[len(shape) - len(wanted) :] != wanted:
            raise ValueError(f"Flow: transform is of events {tuple(wanted)}, base of {tuple(shape)}")
        self.transform, self.base, self.validate = transform, base, validate

    @property
    def event_shape(self) -> torch.Size:
        return self.base.event_shape

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one distribution. :meth:`condition` gives many."""
        return torch.Size()

    @property
    def context_size(self) -> int | None:
        return self.transform.context_size

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density, float64, of the batch shape of x and context broadcast together.

        Args:
            x: Shape (*batch, *event_shape), in the dtype of the flow.
            context: Shape (*batch, C) or broadcast to it.
        """
        x = self._checked(x, context)
        z, logdet = self.transform(x, context)
        return self.base.log_prob(z) + logdet

    def rsample_and_log_prob(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        first: int = 0,
        step: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Samples, differentiable in the parameters, and their log density.

        Args:
            shape: How many: x has shape (*shape, *context.shape[:-1], *event_shape).
            context: Shape (*batch, C).
            seed: In [0, 2^64); drawn from torch's generator where None.
            first: The number of the first sample: a rank or a batch takes its own range of one stream.
            step: A further name, for a stream per training step.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self._check_context(context)
        if context is not None:
            shape = (*shape, *context.shape[:-1])
        z = self.base.draw(math.prod(shape), random.fresh_seed() if seed is None else seed, first, step)
        x, logdet = self.transform.inverse(z.view(*shape, *self.event_shape), context)
        return x, self.base.log_prob(z).view(shape) - logdet

    def rsample(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        first: int = 0,
        step: int = 0,
    ) -> Tensor:
        """Samples, differentiable in the parameters; arguments as in :meth:`rsample_and_log_prob`."""
        return self.rsample_and_log_prob(shape, context, seed=seed, first=first, step=step)[0]

    @torch.no_grad()
    def sample(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        first: int = 0,
        step: int = 0,
    ) -> Tensor:
        """Samples without a graph; arguments as in :meth:`rsample_and_log_prob`."""
        return self.rsample_and_log_prob(shape, context, seed=seed, first=first, step=step)[0]

    @torch.no_grad()
    def sample_and_log_prob(
        self,
        shape: int | Sequence[int] = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        first: int = 0,
        step: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Samples and their log density without a graph; arguments as in :meth:`rsample_and_log_prob`."""
        return self.rsample_and_log_prob(shape, context, seed=seed, first=first, step=step)

    def condition(self, context: Tensor | None = None) -> "Conditioned":
        """The distribution at one context (C) or at many (*batch, C), as a torch.distributions.Distribution."""
        self._check_context(context)
        return Conditioned(self, context)

    def _checked(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x, broadcast to the batch of the context, after what `validate` asks for."""
        event, dtype = self.event_shape, self.base.dtype
        if x.shape[x.dim() - len(event) :] != event:
            wanted = ", ".join(["*batch", *map(str, event)])
            raise ValueError(f"Flow: x must have shape ({wanted}), got {tuple(x.shape)}")
        if x.dtype != dtype:
            raise TypeError(f"Flow: x must be {dtype}, as the flow is, got {x.dtype}")
        self._check_context(context)
        if self._looks(x):
            check_values("Flow", "x", x, self.transform.domain)
            if isinstance(self.base, UniformSphere):
                check_unit("Flow", "x", x, self.base.off(x))
        if context is None:
            return x
        batch = x.shape[: x.dim() - len(event)]
        try:
            full = torch.broadcast_shapes(batch, context.shape[:-1])
        except RuntimeError:
            got = f"x of {tuple(x.shape)} and context of {tuple(context.shape)}"
            raise ValueError(f"Flow: the batches of x and context must broadcast, got {got}") from None
        return x if full == batch else x.expand(*full, *event)

    def _check_context(self, context: Tensor | None) -> None:
        size = self.context_size
        if context is None:
            if size:
                raise ValueError(f"Flow: context must have shape (*batch, {size}), got None")
            return
        if size == 0:
            raise ValueError(f"Flow: this flow has no context, got one of shape {tuple(context.shape)}")
        if context.dim() == 0 or (size and context.shape[-1] != size):
            raise ValueError(f"Flow: context must have shape (*batch, {size or 'C'}), got {tuple(context.shape)}")
        dtype = self.base.reference.dtype
        if size and torch.promote_types(context.dtype, dtype) != dtype:
            raise TypeError(f"Flow: context must be {dtype}, as the flow is, or narrower, got {context.dtype}")
        if self._looks(context):
            check_values("Flow", "context", context)

    def _looks(self, x: Tensor) -> bool:
        return self.validate is not False and reads_are_free(x, asked=self.validate is True)


class Conditioned(Distribution):
    """A flow at given contexts: a torch.distributions.Distribution whose batch shape is the contexts' own.

    Made by :meth:`Flow.condition`. Gradients reach the flow's parameters and the context.

    Args:
        flow: The flow.
        context: Shape (*batch_shape, C); None for a flow that has none.

    Raises:
        ValueError: As :class:`Flow`.

    Example:
        >>> flow = hepops.flows.nsf(2, context=3, layers=2)
        >>> q = flow.condition(torch.zeros(4, 3))
        >>> q.batch_shape, q.event_shape, q.sample((7,), seed=1).shape
        (torch.Size([4]), torch.Size([2]), torch.Size([7, 4, 2]))
        >>> q.log_prob(torch.zeros(2)).shape
        torch.Size([4])
    """

    arg_constraints = {}  # noqa: RUF012  torch's own declaration
    has_rsample = True

    def __init__(self, flow: Flow, context: Tensor | None = None) -> None:
        self.flow, self.context = flow, context
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, flow.event_shape, validate_args=False)  # the flow looks itself

    @property
    def support(self) -> constraints.Constraint:
        bounds: Bounds | None = self.flow.transform.domain
        number = constraints.real if bounds is None else constraints.interval(*bounds)
        return constraints.independent(number, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Conditioned":
        """The same with the contexts expanded to `batch_shape`; a flow without context has none to expand."""
        if self.context is None:
            if tuple(batch_shape):
                raise ValueError(f"Conditioned: without context the batch shape is (), got {tuple(batch_shape)}")
            return self
        return Conditioned(self.flow, self.context.expand(*batch_shape, self.context.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.flow.log_prob(value, self.context)

    def rsample(
        self, sample_shape: Sequence[int] = (), *, seed: int | None = None, first: int = 0, step: int = 0
    ) -> Tensor:
        return self.flow.rsample(sample_shape, self.context, seed=seed, first=first, step=step)

    def sample(
        self, sample_shape: Sequence[int] = (), *, seed: int | None = None, first: int = 0, step: int = 0
    ) -> Tensor:
        return self.flow.sample(sample_shape, self.context, seed=seed, first=first, step=step)

    def sample_and_log_prob(
        self, sample_shape: Sequence[int] = (), *, seed: int | None = None, first: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensor]:
        return self.flow.sample_and_log_prob(sample_shape, self.context, seed=seed, first=first, step=step)

    def rsample_and_log_prob(
        self, sample_shape: Sequence[int] = (), *, seed: int | None = None, first: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensor]:
        return self.flow.rsample_and_log_prob(sample_shape, self.context, seed=seed, first=first, step=step)
