"""Bijections with their log-determinants, and how they compose."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .recompute import Recompute, Step, run, run_from_inputs, run_inverting
from .sums import event_sum as event_sum

Bounds = tuple[float | Tensor, float | Tensor]


class Transform(nn.Module):
    r"""A bijection :math:`y = f(x)` that knows :math:`\ln |\det \partial y / \partial x|`.

    A call gives both, as does :meth:`inverse`, whose log-determinant is that of the inverse: the two are each other's
    negative at one point. In a :class:`Flow` a transform maps data to the base, as in nflows and zuko.

    The last `event_dim` dimensions of x make one event, all before them are batch. Log-determinants have the batch's
    shape and are float64 whatever the dtype of x: an event of 10^5 sites would lose four digits in float32. A transform
    of event_dim 0 acts on each number, with a log-determinant of the shape and dtype of x.

    Args of both directions:
        x (or y): shape (*batch, *event), float32 or float64.
        context: shape (*batch, C) or broadcast to it, for a transform that is conditioned; others leave it unread.

    Attributes:
        event_dim: How many trailing dimensions are one event.
        event_shape: Their sizes, None where any will do.
        context_size: C; 0 for a transform that reads no context, None where it is not known.
        domain, codomain: (low, high) of every number of x and of y, None for all real numbers. It is :class:`Flow` that
            refuses what lies outside; a transform alone gives NaN there.

    Raises:
        ValueError: A shape does not fit; nothing is read from the data to find out.

    Example:
        >>> class Double(hepops.flows.Transform):
        ...     event_dim = 0
        ...     def forward(self, x, context=None):
        ...         return 2 * x, torch.full_like(x, 2).log()
        ...     def inverse(self, y, context=None):
        ...         return y / 2, -torch.full_like(y, 2).log()
        >>> Double().inv(torch.tensor([3.0]))
        (tensor([1.5000]), tensor([-0.6931]))
    """

    event_dim: int = 1
    event_shape: torch.Size | None = None
    context_size: int | None = None
    domain: Bounds | None = None
    codomain: Bounds | None = None
    keeps_boxes: bool = False  # whether it maps every box of equal sides to itself, as a permutation does

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    @property
    def inv(self) -> "Transform":
        """The transform of the other direction, with the same parameters."""
        return Inverse(self)

    def log_abs_det_jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The second of what a call gives."""
        return self(x, context)[1]

    def check(self, x: Tensor, context: Tensor | None = None, name: str = "x") -> None:
        """Refuses shapes that do not fit; every direction of every transform of the library calls it first."""
        event = self.event_shape
        if event is not None and x.shape[x.dim() - len(event) :] != event:
            wanted = ", ".join(["*batch", *map(str, event)])
            raise ValueError(f"{type(self).__name__}: {name} must have shape ({wanted}), got {tuple(x.shape)}")
        if self.context_size:
            self._check_context(x.shape[: x.dim() - self.event_dim], context)

    def _check_context(self, batch: torch.Size, context: Tensor | None) -> None:
        who = f"{type(self).__name__}: context must have shape (*batch, {self.context_size})"
        if context is None:
            raise ValueError(f"{who}, got None")
        if context.dim() == 0 or context.shape[-1] != self.context_size:
            raise ValueError(f"{who}, got {tuple(context.shape)}")
        ours = context.shape[:-1]
        if len(ours) > len(batch) or any(
            c not in (1, n) for c, n in zip(reversed(ours), reversed(batch), strict=False)
        ):
            raise ValueError(f"{who} that broadcasts to the batch {tuple(batch)}, got {tuple(context.shape)}")

    def no_volume(self, x: Tensor) -> Tensor:
        """The log-determinant of a map that keeps volumes: zeros, one for each event."""
        return x.new_zeros(x.shape[: x.dim() - self.event_dim], dtype=torch.float64)


class Inverse(Transform):
    """A transform turned round: `Inverse(f)(y)` is `f.inverse(y)`. Same parameters, not a copy.

    Args:
        transform: f.

    Example:
        >>> reverse = hepops.flows.Permutation([2, 0, 1])
        >>> hepops.flows.Inverse(reverse)(reverse(torch.arange(3.0))[0])[0]
        tensor([0., 1., 2.])
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform, self.event_dim = transform, transform.event_dim
        self.event_shape, self.context_size = transform.event_shape, transform.context_size
        self.domain, self.codomain = transform.codomain, transform.domain
        self.keeps_boxes = transform.keeps_boxes

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(y, context)

    @property
    def inv(self) -> Transform:
        return self.transform


class Compose(Transform):
    r"""Transforms one after the other: the first is the one that x meets first.

    .. math:: f = f_n \circ \ldots \circ f_1, \qquad \ln |\det f'| = \sum_k \ln |\det f_k'|

    The backward of a deep stack needs what every layer computed; `recompute` says what is kept of it.

    =========== ============================== ===================================================================
    recompute   kept                           gradients
    =========== ============================== ===================================================================
    None        all that each layer saves
    "inputs"    the input of every `every`-th  bit-equal to None's: the same operations run again (one more forward)
    "inverse"   the output of the whole stack  those at a point that was found by inversion: what the round trip of
                (or of every `every` layers)   the stack loses enters them (one more inverse and one more forward)
    =========== ============================== ===================================================================

    By inversion the activations' memory does not grow with depth. The reconstructed inputs are as good as the layers'
    inverses, and what is lost grows with how much the stack stretches: of 64 spline couplings whose log-determinants
    reach 10, gradients are within 1e-3 of their norm in float32 and 1e-9 in float64 (a test holds that). Stacks that
    stretch by e^50 lose every digit in float32; `every` = 8 brings these back to 1e-4. Only first derivatives exist in
    that mode, and under torch.compile it behaves as "inputs". Either mode takes 1.8 times as long as None.

    Args:
        transforms: Any number of them, of any event_dim: that of the whole is the largest, and at least 1.
        recompute: None, "inputs" or "inverse".
        every: Layers from one kept tensor to the next; None is 1 for "inputs" and the whole stack for "inverse".

    Raises:
        ValueError: An unknown `recompute`, `every` below 1, or transforms of different event shapes.

    References:
        | checkpoints: T. Chen, B. Xu, C. Zhang, C. Guestrin, arXiv:1604.06174
        | inversion: A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, NeurIPS (2017), arXiv:1707.04585

    Example:
        >>> layers = [hepops.flows.Permutation([1, 0]), hepops.flows.LULinear(2)]
        >>> stack = hepops.flows.Compose(layers, recompute="inputs")
        >>> y, logdet = stack(torch.tensor([[1.0, 2.0]]))
        >>> torch.allclose(stack.inverse(y)[0], torch.tensor([[1.0, 2.0]]))
        True
    """

    def __init__(self, transforms: Iterable[Transform], recompute: Recompute = None, every: int | None = None) -> None:
        super().__init__()
        transforms = list(transforms)
        if recompute not in (None, "inputs", "inverse"):
            raise ValueError(f'Compose: recompute must be None, "inputs" or "inverse", got {recompute!r}')
        if every is not None and every < 1:
            raise ValueError(f"Compose: every must be at least 1, got {every}")
        self.transforms = nn.ModuleList(transforms)
        self.recompute: Recompute = recompute
        self.every = every
        self.event_dim = max([1, *(t.event_dim for t in transforms)])
        self.event_shape = _common_shape(transforms)
        sizes = [t.context_size for t in transforms]
        self.context_size = None if None in sizes else max([0, *(s or 0 for s in sizes)])
        self.domain, self.codomain = _first_domain(transforms), _first_domain([t.inv for t in reversed(transforms)])

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, index: int) -> Transform:
        return self.transforms[index]  # type: ignore[return-value]

    def _through(self, x: Tensor, context: Tensor | None, backwards: bool) -> tuple[Tensor, Tensor]:
        if not len(self.transforms):
            return x, self.no_volume(x)
        order = reversed(self.transforms) if backwards else self.transforms
        steps = [Step(t, backwards, self.event_dim - t.event_dim) for t in order]  # type: ignore[operator, arg-type]
        if self.recompute is None or not torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            return run(steps, x, context)
        if self.recompute == "inputs" or torch.compiler.is_compiling():
            return run_from_inputs(steps, x, context, self.every or 1)
        return run_inverting(steps, x, context, self.every or len(steps))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._through(x, context, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._through(y, context, True)

    def extra_repr(self) -> str:
        return "" if self.recompute is None else f"recompute={self.recompute!r}, every={self.every}"


def _common_shape(transforms: Sequence[Transform]) -> torch.Size | None:
    """The event shape that all of them want; those of a lower event_dim see its last dimensions."""
    common: torch.Size | None = None
    for i, transform in enumerate(transforms):
        shape = transform.event_shape
        if shape is None:
            continue
        if common is None or len(shape) > len(common):
            common, shape = shape, common or shape[:0]
        if common[len(common) - len(shape) :] != shape:
            raise ValueError(
                f"Compose: transform {i} wants events of {tuple(transform.event_shape or ())}, not {tuple(common)}"
            )
    return common


def _first_domain(transforms: Sequence[Transform]) -> Bounds | None:
    """The bounds that x must keep: those of the first transform that has any, if only permutations come before it."""
    for transform in transforms:
        if transform.domain is not None or not transform.keeps_boxes:
            return transform.domain
    return None
