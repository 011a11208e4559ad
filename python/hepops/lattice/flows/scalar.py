r"""Flows of a real scalar field: couplings on checkerboards, affine or splines.

Layers are written from the base to the field. A site is active where :math:`\sum_\mu x_\mu = p \bmod 2`; the others
are frozen, and a network of convolutions sees them alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.library import register_autograd, register_fake

from hepops.core.func import transforms_active
from hepops.core.ops import call, once_differentiable
from hepops.flows import Compose, Flow, Spline, Transform, checkerboard
from hepops.flows.recompute import Recompute
from hepops.flows.spline import rational_quadratic_spline_packed
from hepops.flows.sums import event_sum

from ..convolve import ACTIVATIONS, Activation, convolve
from ..geometry import checked_shape
from ..theory import Theory
from .gauge import check_layers
from .networks import ConvNet, EvenNet, bound_of, check_sizes


def checked_board(who: str, shape: Sequence[int]) -> torch.Size:
    """The extents, all even: else a torus has neighbours of one colour.

    Raises:
        ValueError: an extent is odd.
    """
    size = checked_shape(who, shape)
    if any(extent % 2 for extent in size):
        raise ValueError(f"{who}: a checkerboard needs even extents, got {tuple(size)}")
    return size


class Sizes(NamedTuple):
    """What the fused operator wants to know of a layer."""

    kernel: list[int]
    hidden: list[int]
    parity: int
    activation: int
    odd: bool
    limit: float


class AffineCheckerboard(Transform):
    r"""An affine coupling on a checkerboard, whose conditioner is part of it:

    .. math:: \phi'_a = \phi_a e^{s(\phi_f)} + t(\phi_f), \qquad \phi'_f = \phi_f, \qquad \ln|\det| = \sum_a s_a

    The conditioner is :math:`h_l = A(W_l * h_{l-1} + b_l)`, :math:`h_0 = \phi_f`, 0 at active sites. With `odd`, for
    actions that do not change under :math:`\phi \to -\phi`, s is even and t odd, to the last bit:
    :math:`h_l = \tanh(W_l * h_{l-1})`, :math:`s = m \tanh((W_s * h^2 + b_s)/m)`, :math:`t = W_t * h`. Without,
    :math:`(s, t) = W * h + b`, s limited likewise.

    One operator does the whole layer while a few configurations lie in the cache. Its backward keeps the layer's input
    and computes the rest again. A layer begins at the identity.

    Args:
        shape: (L_1, ..., L_D), even.
        parity: p, of the active sites.
        hidden: Channels of the convolutions between.
        kernel: Their odd size.
        odd: Whether the layer commutes with a change of sign.
        activation: A, "tanh" or "leaky_relu"; with `odd` it must be "tanh".
        limit: m, the largest \|s\|; None for no limit.
        fused: False composes the layer of single operators: slower, and differentiable any number of times. None
            chooses by the batch: a few configurations alone do not fill the registers.

    Differentiable once if fused. Deterministic, whatever the number of threads.

    Raises:
        ValueError: an odd extent, an even kernel, an activation that is not odd where it must be, limit not positive.

    References:
        | M. S. Albergo, G. Kanwar, P. E. Shanahan, Phys. Rev. D 100 (2019) 034515, arXiv:1904.12072
        | equivariant networks: L. Del Debbio, J. Marsh Rossney, M. Wilson, Phys. Rev. D 104 (2021) 094507,
          arXiv:2105.12481

    Example:
        >>> layer = hepops.lattice.flows.AffineCheckerboard((4, 4))
        >>> phi, logdet = layer(torch.ones(3, 4, 4))
        >>> phi.shape, logdet.dtype
        (torch.Size([3, 4, 4]), torch.float64)
    """

    mask: Tensor
    context_size = 0

    def __init__(
        self,
        shape: Sequence[int],
        parity: int = 0,
        hidden: Sequence[int] = (8, 8),
        kernel: int = 3,
        odd: bool = True,
        activation: Activation = "tanh",
        limit: float | None = 2.0,
        fused: bool | None = None,
    ) -> None:
        super().__init__()
        who = "AffineCheckerboard"
        self.event_shape = checked_board(who, shape)
        self.event_dim = D = len(self.event_shape)
        check_sizes(who, hidden, kernel, D, activation)
        if activation not in ("tanh",) if odd else activation not in ("tanh", "leaky_relu"):
            allowed = "'tanh'" if odd else "'tanh' or 'leaky_relu'"
            raise ValueError(f"{who}: activation must be {allowed}, got {activation!r}")
        if not isinstance(parity, int):
            raise ValueError(f"{who}: parity must be a whole number, got {parity!r}")
        if limit is not None and not 0 < limit < math.inf:
            raise ValueError(f"{who}: limit must be positive, or None, got {limit}")
        self.sizes = Sizes(
            [kernel] * D, list(hidden), parity % 2, ACTIVATIONS.index(activation), odd, limit if limit else 0.0
        )
        self.fused = fused
        self.register_buffer("mask", checkerboard(self.event_shape, parity), persistent=False)
        self.parameters_ = nn.Parameter(self._initial())

    def _shapes(self) -> list[tuple[torch.Size, int]]:
        """Shape of each layer's weight, and how many biases follow it."""
        widths = [1, *self.sizes.hidden, 2]
        shapes = [torch.Size((b, a, *self.sizes.kernel)) for a, b in pairwise(widths)]
        odd = self.sizes.odd
        biases = [0 if odd else b for b in self.sizes.hidden] + [1 if odd else 2]
        return list(zip(shapes, biases, strict=True))

    def _initial(self) -> Tensor:
        """Hidden layers as torch's convolutions, the last one 0."""
        parts = []
        for shape, biases in self._shapes()[:-1]:
            bound = bound_of(shape[1:].numel())
            parts.append(torch.empty(shape.numel() + biases).uniform_(-bound, bound))
        shape, biases = self._shapes()[-1]
        return torch.cat([*parts, torch.zeros(shape.numel() + biases)])

    def weights(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each convolution, views of the one tensor of parameters."""
        shapes = self._shapes()
        parts = iter(self.parameters_.split([n for shape, biases in shapes for n in (shape.numel(), biases)]))
        return [(next(parts).view(shape), b if (b := next(parts)).numel() else None) for shape, _ in shapes]

    def conditioner(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """s and t at all sites, by single operators; what is at frozen sites is not used. phi: (B, L...)."""
        h = torch.where(self.mask, 0, phi).unsqueeze(1)
        *hidden, (weight, bias) = self.weights()
        for w, b in hidden:
            h = convolve(h, w, b, ACTIVATIONS[self.sizes.activation])
        if self.sizes.odd:
            s, t = convolve(h.square(), weight[:1], bias), convolve(h, weight[1:])
        else:
            s, t = convolve(h, weight, bias).split(1, 1)
        m = self.sizes.limit
        return (m * torch.tanh(s / m) if m else s).squeeze(1), t.squeeze(1)

    def _plain(self, phi: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        s, t = self.conditioner(phi)
        s = torch.where(self.mask, s, 0)
        changed = (phi - t) * torch.exp(-s) if inverse else phi * torch.exp(s) + t
        logdet = event_sum(s, self.event_dim)
        return torch.where(self.mask, changed, phi), -logdet if inverse else logdet

    def _uses_fused(self, phi: Tensor) -> bool:
        if transforms_active():
            return False
        if self.fused is not None:
            return self.fused
        return phi.shape[0] >= (8 if phi.dtype == torch.float32 else 4)

    def _through(self, phi: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        D = self.event_dim
        batch, phi = phi.shape[:-D], phi.reshape(-1, *phi.shape[-D:])
        if self._uses_fused(phi):
            op = torch.ops.hepops._lattice_checkerboard_affine.default
            y, logdet = call(op, phi, self.parameters_, *self.sizes, inverse)
        else:
            y, logdet = self._plain(phi, inverse)
        return y.view(*batch, *y.shape[1:]), logdet.view(batch)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._through(x, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._through(y, True)

    def extra_repr(self) -> str:
        s = self.sizes
        return f"{tuple(self.event_shape or ())}, parity={s.parity}, hidden={s.hidden}, kernel={s.kernel}, odd={s.odd}"


@register_fake("hepops::_lattice_checkerboard_affine")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.float64)


@register_fake("hepops::_lattice_checkerboard_affine_backward")
def _(grad_y: Tensor, grad_logdet: Tensor, at: Tensor, parameters: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    from_y, wants_parameters = rest[-2:]
    return (
        at.new_empty(at.shape),
        at.new_empty(parameters.shape if wants_parameters else 0),
        at.new_empty(at.shape if from_y else 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _backward(ctx: Any, grad_y: Tensor, grad_logdet: Tensor) -> tuple[Any, ...]:
    op = torch.ops.hepops._lattice_checkerboard_affine_backward.default
    wanted = ctx.needs_input_grad[1]
    of_x, of_parameters, _ = op(grad_y, grad_logdet, *ctx.saved_tensors, *ctx.options, False, wanted)
    return of_x, of_parameters if wanted else None, *(None for _ in ctx.options)


register_autograd("hepops::_lattice_checkerboard_affine", _backward, setup_context=_setup)
once_differentiable("hepops::_lattice_checkerboard_affine_backward")


class Checkerboards(Compose):
    """:class:`AffineCheckerboard` layers one after the other, which undo each other in the backward at no cost.

    As `hepops.flows.Compose`, but with recompute="inverse" the backward of a layer finds its input from its output on
    its way: the frozen half tells s and t of the other. Nothing is kept but the output of the stack, and no network
    runs more often than with recompute=None.

    Args:
        transforms: Layers.
        recompute: None (each layer keeps its input), "inputs" or "inverse", as of `Compose`.
        every: As of `Compose`, for "inputs".

    Example:
        >>> layers = [hepops.lattice.flows.AffineCheckerboard((4, 4), parity) for parity in (0, 1)]
        >>> stack = hepops.lattice.flows.Checkerboards(layers, recompute="inverse")
        >>> stack(torch.ones(16, 4, 4))[0].shape
        torch.Size([16, 4, 4])
    """

    def _through(self, x: Tensor, context: Tensor | None, backwards: bool) -> tuple[Tensor, Tensor]:
        layers: list[AffineCheckerboard] = list(self.transforms)  # type: ignore[arg-type]
        plain = not layers or self.recompute != "inverse" or not torch.is_grad_enabled() or transforms_active()
        if plain or torch.compiler.is_compiling() or not all(layer.fused is not False for layer in layers):
            return super()._through(x, context, backwards)
        if backwards:
            layers = layers[::-1]
        batch = x.shape[: -self.event_dim]
        flat = x.reshape(-1, *x.shape[-self.event_dim :])
        y, logdet = _Undoing.apply([layer.sizes for layer in layers], backwards, flat, *(p.parameters_ for p in layers))
        return y.view(x.shape), logdet.view(batch)


class _Undoing(torch.autograd.Function):
    """A stack of layers of which the output alone is saved."""

    @staticmethod
    def forward(ctx: Any, sizes: list[Sizes], inverse: bool, x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        op = torch.ops.hepops._lattice_checkerboard_affine.default
        total = x.new_zeros(x.shape[0], dtype=torch.float64)
        for size, weights in zip(sizes, parameters, strict=True):
            x, logdet = call(op, x, weights, *size, inverse)
            total = total + logdet
        ctx.sizes, ctx.inverse = sizes, inverse
        ctx.save_for_backward(x, *parameters)
        return x, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_logdet: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError('Checkerboards: recompute="inverse" is differentiable once')
        op = torch.ops.hepops._lattice_checkerboard_affine_backward.default
        x, *parameters = ctx.saved_tensors
        grads: list[Tensor | None] = []
        layers = list(zip(ctx.sizes, parameters, ctx.needs_input_grad[3:], strict=True))
        for size, weights, wanted in reversed(layers):
            grad, of_weights, x = op(grad, grad_logdet, x, weights, *size, ctx.inverse, True, wanted)
            grads.append(of_weights if wanted else None)
        return None, None, grad, *reversed(grads)


class SplineCheckerboard(Transform):
    r"""A coupling on a checkerboard by rational-quadratic splines, the identity beyond \|phi\| = B.

    .. math:: \phi'_a = g(\phi_a; \theta(\phi_f)), \qquad \ln|\det| = \sum_a \ln g'(\phi_a)

    With `odd` the layer commutes with :math:`\phi \to -\phi`: widths, heights and slopes are mirrored at 0, and the
    network that gives them is even (:class:`EvenNet`). A layer begins at the identity.

    Args:
        shape: (L_1, ..., L_D), even.
        parity: p, of the active sites.
        bins: Bins in [0, B] (with `odd`), or in [-B, B].
        bound: B.
        hidden, kernel: Of the network.
        odd: Whether the layer commutes with a change of sign (to rounding).

    Differentiable any number of times. Deterministic.

    Raises:
        ValueError: an odd extent, an even kernel, a number out of range.

    References:
        | C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, NeurIPS (2019), arXiv:1906.04032
        | L. Del Debbio, J. Marsh Rossney, M. Wilson, Phys. Rev. D 104 (2021) 094507, arXiv:2105.12481

    Example:
        >>> layer = hepops.lattice.flows.SplineCheckerboard((4, 4), bins=4)
        >>> phi, logdet = layer(torch.ones(3, 4, 4))
        >>> torch.allclose(phi, torch.ones(3, 4, 4)), logdet.shape
        (True, torch.Size([3]))
    """

    active: Tensor
    mirror: Tensor
    mask: Tensor
    context_size = 0

    def __init__(
        self,
        shape: Sequence[int],
        parity: int = 0,
        bins: int = 4,
        bound: float = 3.0,
        hidden: Sequence[int] = (8, 8),
        kernel: int = 3,
        odd: bool = True,
    ) -> None:
        super().__init__()
        self.event_shape = checked_board("SplineCheckerboard", shape)
        self.event_dim = D = len(self.event_shape)
        self.odd, self.spline = odd, Spline(2 * bins if odd else bins, bound)
        size = 3 * bins if odd else self.spline.size
        self.network = EvenNet(1, size, hidden, kernel, D) if odd else ConvNet(1, size, hidden, kernel, D)
        mask = checkerboard(self.event_shape, parity)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("active", mask.flatten().nonzero()[:, 0], persistent=False)
        # of K widths, K heights and the slopes at 0, ..., K - 1: those of [-B, 0] are those of [0, B] in reverse
        w, h, d = torch.arange(3 * bins).split(bins)
        both = [w.flip(0), w, h.flip(0), h, d[1:].flip(0), d]
        self.register_buffer("mirror", torch.cat(both) if odd else torch.arange(size), persistent=False)
        with torch.no_grad():
            self.network.last.weight.zero_()
            assert self.network.last.bias is not None
            start = torch.zeros(size)
            start[self.mirror] = self.spline.identity()
            self.network.last.bias.copy_(start)

    def _through(self, phi: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        D = self.event_dim
        raw = self.network(torch.where(self.mask, 0, phi).unsqueeze(-D - 1)).flatten(-D)
        raw = raw.index_select(-1, self.active).transpose(-1, -2).index_select(-1, self.mirror)
        flat = phi.flatten(-D)
        s = self.spline
        y, logdet = rational_quadratic_spline_packed(
            flat.index_select(-1, self.active),
            raw,
            bins=s.bins,
            inverse=inverse,
            tails=s.tails,
            bound=s.bound,
            convention=s.convention,
        )
        return flat.index_copy(-1, self.active, y).view(phi.shape), event_sum(logdet, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(x, context)
        return self._through(x, False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(y, context, "y")
        return self._through(y, True)


def _check(who: str, theory: Theory, layers: int) -> torch.Size:
    """The shape of a theory with one real number at each site."""
    if not isinstance(theory, Theory) or theory.complex or theory.event_shape != theory.shape:
        raise TypeError(f"{who}: theory must be of a real scalar field, got {type(theory).__name__}")
    check_layers(who, layers)
    return theory.shape


def affine_flow(
    theory: Theory,
    layers: int = 16,
    hidden: Sequence[int] = (8, 8),
    kernel: int = 3,
    *,
    odd: bool = True,
    activation: Activation = "tanh",
    limit: float | None = 2.0,
    recompute: Recompute = None,
    dtype: torch.dtype = torch.float32,
) -> Flow:
    """Affine checkerboards in turn, over the theory's prior.

    Args:
        theory: Of a real scalar field, with even extents.
        layers: How many; an even number changes all sites alike.
        hidden, kernel, odd, activation, limit: Of :class:`AffineCheckerboard`.
        recompute: Of :class:`Checkerboards`: None keeps each layer's input, "inverse" nothing but the field.
        dtype: Of field and parameters.

    Returns:
        A flow of fields, shape (B, L...).

    Raises:
        TypeError: a theory of other fields.
        ValueError: layers below 1, or as the layers.

    Example:
        >>> theory = hepops.lattice.Phi4((4, 4), m2=-4.0, lam=8.0)
        >>> phi, log_q = hepops.lattice.flows.affine_flow(theory, layers=2).rsample_and_log_prob(16, seed=1)
        >>> phi.shape
        torch.Size([16, 4, 4])
    """
    shape = _check("affine_flow", theory, layers)
    stack = Checkerboards(
        [AffineCheckerboard(shape, n, hidden, kernel, odd, activation, limit) for n in range(layers)], recompute
    )
    return Flow(stack.inv, theory.prior(dtype)).to(dtype)


def spline_flow(
    theory: Theory,
    layers: int = 8,
    hidden: Sequence[int] = (8, 8),
    kernel: int = 3,
    *,
    bins: int = 4,
    bound: float = 3.0,
    odd: bool = True,
    affine: int = 1,
    recompute: Recompute = None,
    dtype: torch.dtype = torch.float32,
) -> Flow:
    """Spline checkerboards in turn, with affine ones after them, over the theory's prior.

    Args:
        theory: Of a real scalar field, with even extents.
        layers: How many spline layers.
        hidden, kernel, bins, bound, odd: Of :class:`SplineCheckerboard` (and hidden, kernel, odd of the affine ones).
        affine: Pairs of affine layers that follow: they set the scale of what splines leave beyond their bound.
        recompute: Of `hepops.flows.Compose`.
        dtype: Of field and parameters.

    Returns:
        A flow of fields, shape (B, L...).

    Raises:
        TypeError: a theory of other fields.
        ValueError: layers below 1, or as the layers.

    Example:
        >>> theory = hepops.lattice.Phi4((4, 4), m2=-4.0, lam=8.0)
        >>> hepops.lattice.flows.spline_flow(theory, layers=2).sample(3, seed=1).shape
        torch.Size([3, 4, 4])
    """
    shape = _check("spline_flow", theory, layers)
    if affine < 0:
        raise ValueError(f"spline_flow: affine must not be negative, got {affine}")
    stack: list[Transform] = [SplineCheckerboard(shape, n, bins, bound, hidden, kernel, odd) for n in range(layers)]
    activation: Activation = "tanh" if odd else "leaky_relu"
    stack += [AffineCheckerboard(shape, layers + n, hidden, kernel, odd, activation) for n in range(2 * affine)]
    return Flow(Compose(stack, recompute).inv, theory.prior(dtype)).to(dtype)
